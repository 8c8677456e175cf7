//! What an attach does to the process: a program that does everything that a debugger could spoil (`testdata/busy`) is attached to, and the
//! attacher killed, many times; and what cannot be attached to.

use super::{PAUSES, attach, await_stop, has_compiler, signal, stop};
use crate::harness::corefile::Run;
use crate::harness::program::{Mode, Program};
use crate::harness::toolchain::{Toolchain, newest};
use crate::harness::{Skip, required, tool};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A busy program and its last words.
pub(super) struct Busy {
    pub(super) run: Run,
}

impl Busy {
    pub(super) fn start() -> Option<Self> {
        Self::with_heap("20")
    }

    /// * `mib`: of the heap that it does not work on.
    pub(super) fn with_heap(mib: &str) -> Option<Self> {
        let toolchain = required(Toolchain::get(newest()?))?;
        // With a C compiler some of the work is done in C.
        let mode = if has_compiler().is_ok() { Mode::Cgo } else { Mode::Default };
        let program = Program::build(&toolchain, "testdata/busy", mode);
        let mut run = required(Run::start(&program, &[mib]))?;
        run.line("RUNNING");
        Some(Self { run })
    }

    pub(super) fn pid(&self) -> u32 {
        self.run.child.id()
    }

    /// Ends it: it must have worked all the time, without a fault, without a child that is not its own, and end as it means to.
    pub(super) fn end(mut self) {
        let pid = self.pid();
        let children = children(pid);
        let dead: Vec<_> = children.iter().filter(|(_, stat)| stat.starts_with('Z')).collect();
        // One is dead from the beginning, and one of those that it makes all the time may just have ended.
        assert!(dead.len() <= 2, "dead children: {children:?}");
        assert_eq!(snapshot_of(pid), None, "a snapshot is left");
        let mut stdin = self.run.child.stdin.take().expect("piped");
        stdin.write_all(b"\n").expect("it reads");
        let done = self.run.line("DONE");
        assert!(done.contains("faults=0 "), "{done}");
        assert!(done.contains(" still=0 "), "some work stands still: {done}");
        assert_eq!(self.run.child.wait().expect("wait").code(), Some(7), "{done}");
    }
}

/// Ids and states of the children of `pid`.
fn children(pid: u32) -> Vec<(String, String)> {
    let output = Command::new("ps").args(["-o", "pid=,stat=", "--ppid", &pid.to_string()]).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let pair = |line: &str| line.trim().split_once(' ').map(|(pid, stat)| (pid.to_owned(), stat.trim().to_owned()));
    text.lines().filter_map(pair).collect()
}

pub(super) fn rounds(few: u64) -> u64 {
    std::env::var("GOREF_ATTACH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(few)
}

#[test]
fn busy_programs_do_not_notice() {
    let Some(busy) = Busy::start() else { return };
    for round in 0..rounds(6) {
        for pause in PAUSES {
            let Some(ran) = required(attach(busy.pid(), &["--pause", pause])) else { return };
            assert_eq!(ran.code(), 0, "{pause}, round {round}: {}", ran.stderr());
            assert!(ran.decode().total()[1] > 10 << 20, "{pause}, round {round}: {}", ran.stdout());
        }
    }
    busy.end();
}

/// The end of the attacher at any time, by a signal that it cannot see, leaves nothing behind.
#[test]
fn killed_attachers_leave_no_trace() {
    let Some(busy) = Busy::start() else { return };
    let rounds = rounds(15);
    let start = Instant::now();
    let Some(ran) = required(attach(busy.pid(), &["--pause", "whole"])) else { return };
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let whole = u64::try_from(start.elapsed().as_micros()).expect("microseconds").min(2_000_000);
    for round in 0..rounds {
        for pause in PAUSES {
            let mut command = Command::new(env!("CARGO_BIN_EXE_goref-fast"));
            command.args(["attach", &busy.pid().to_string(), "--pause", pause, "-o", "/dev/null"]);
            let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut attacher = spawned.expect("spawn");
            // Spread over the time that a run takes.
            thread::sleep(Duration::from_micros(round * whole / rounds));
            attacher.kill().expect("kill");
            attacher.wait().expect("wait");
        }
    }
    // Guards whose masters died clean up on their own; a new attach must find nobody in its way soon.
    let mut last = String::new();
    for _ in 0..50 {
        let Some(ran) = required(attach(busy.pid(), &[])) else { return };
        if ran.code() == 0 {
            return busy.end();
        }
        last = ran.stderr();
        thread::sleep(Duration::from_millis(100));
    }
    panic!("the process is still held: {last}");
}

/// Runs `look` on the id of a snapshot of `busy` while its attacher stands still, and returns the attacher's status. `None` if the
/// system forbids to trace.
fn with_snapshot(busy: &Busy, look: impl Fn(u32)) -> Option<i32> {
    // It may be gone again before the attacher is stopped.
    for _ in 0..50 {
        let mut attacher = Command::new(env!("CARGO_BIN_EXE_goref-fast"));
        attacher.args(["attach", &busy.pid().to_string(), "--pause", "fork", "-o", "/dev/null"]);
        let mut attacher = attacher.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("spawn");
        let mut snapshot = None;
        while snapshot.is_none() && attacher.try_wait().expect("wait").is_none() {
            snapshot = snapshot_of(busy.pid());
        }
        signal(attacher.id(), "-STOP");
        // The snapshot is there before the process has its registers back and goes on: who kills the guard before that kills the process.
        while is_traced(busy.pid()) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        let lives = |pid: u32| stat(&pid.to_string(), 0).is_some_and(|state| state != "Z");
        let seen = snapshot.filter(|pid| lives(*pid));
        seen.into_iter().for_each(&look);
        signal(attacher.id(), "-CONT");
        let output = attacher.wait_with_output().expect("output");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if stderr.contains("does not allow to trace") {
            return required(Err(Skip(stderr)));
        }
        if seen.is_some() {
            return output.status.code();
        }
        assert!(output.status.success(), "{stderr}");
    }
    panic!("no snapshot was seen");
}

/// Whether somebody holds one of its threads.
fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let mut statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses.any(|status| !status.contains("TracerPid:\t0\n"))
}

/// While a snapshot lives, nothing but memory is held because of it: no port, no pipe; and it is the first to go if memory runs out.
#[test]
fn snapshots_hold_no_files() {
    let Some(busy) = Busy::start() else { return };
    let look = |snapshot: u32| {
        let files = || fs::read_dir(format!("/proc/{snapshot}/fd")).map(Iterator::count).ok();
        let oom = || fs::read_to_string(format!("/proc/{snapshot}/oom_score_adj")).ok();
        let start = Instant::now();
        while files() != Some(0) && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((files(), oom().as_deref().map(str::trim)), (Some(0), Some("1000")));
    };
    let Some(code) = with_snapshot(&busy, look) else { return };
    assert_eq!((code, snapshot_of(busy.pid())), (0, None));
    busy.end();
}

/// A guard that is killed while a snapshot lives: that dies with it, the attacher says so, and the next attach removes what is left.
#[test]
fn killed_guards_leave_what_the_next_attach_removes() {
    let Some(busy) = Busy::start() else { return };
    let look = |snapshot: u32| {
        let status = fs::read_to_string(format!("/proc/{snapshot}/status")).expect("status");
        let guard = status.lines().find_map(|line| line.strip_prefix("TracerPid:\t")).and_then(|pid| pid.parse().ok());
        let guard: u32 = guard.expect("a tracer");
        // It may have ended of its own accord.
        let _ = Command::new("kill").args(["-KILL", &guard.to_string()]).stderr(Stdio::null()).status();
        while stat(&snapshot.to_string(), 0).is_some_and(|state| state != "Z") {
            thread::sleep(Duration::from_millis(1));
        }
    };
    // The attacher may have had all that it wanted before it was stopped.
    for attempt in 0.. {
        let Some(code) = with_snapshot(&busy, look) else { return };
        if code == 1 {
            break;
        }
        assert!(code == 0 && attempt < 20, "its memory is gone: {code}");
    }
    assert!(snapshot_of(busy.pid()).is_some(), "a dead child is left");
    let Some(ran) = required(attach(busy.pid(), &["--pause", "fork"])) else { return };
    assert_eq!((ran.code(), snapshot_of(busy.pid())), (0, None), "{}", ran.stderr());
    busy.end();
}

/// The word of `/proc/PID/stat` with this number behind the name: 0 is the state, 35 the signal for the parent.
fn stat(pid: &str, word: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(word)?.to_owned())
}

/// What tells snapshots from all other children: the signal for the parent is none.
const EXIT_SIGNAL: &str = "103";

/// The snapshot that `pid` has made, alive or dead.
fn snapshot_of(pid: u32) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children: Vec<String> =
        children.flat_map(|c| c.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    children.iter().find(|child| stat(child, 35).as_deref() == Some(EXIT_SIGNAL))?.parse().ok()
}

/// A process that dies while it is read: the attacher says so, and ends.
#[test]
fn killed_processes_are_given_up() {
    for delay in [5, 20, 80, 200] {
        for pause in PAUSES {
            let Some(mut busy) = Busy::start() else { return };
            let mut command = Command::new(env!("CARGO_BIN_EXE_goref-fast"));
            command.args(["attach", &busy.pid().to_string(), "--pause", pause, "-o", "/dev/null"]);
            let mut attacher = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
            thread::sleep(Duration::from_millis(delay));
            busy.run.child.kill().expect("kill");
            busy.run.child.wait().expect("wait");
            let start = Instant::now();
            let status = loop {
                if let Some(status) = attacher.try_wait().expect("wait") {
                    break status;
                }
                if start.elapsed() > Duration::from_secs(60) {
                    attacher.kill().expect("kill");
                    panic!("{pause}, killed after {delay} ms: the attacher hangs");
                }
                thread::sleep(Duration::from_millis(5));
            };
            // A snapshot, or what was copied, outlives the process.
            assert!(status.code().is_some_and(|code| code <= 1), "{pause}, killed after {delay} ms: {status}");
        }
    }
}

/// A stopped process is analyzed and stays stopped.
#[test]
fn stopped_processes_stay_stopped() {
    let Some(busy) = Busy::start() else { return };
    for pause in [&[][..], &["--pause", "fork"]] {
        stop(busy.pid());
        let Some(ran) = required(attach(busy.pid(), pause)) else { return };
        assert_eq!(ran.code(), 0, "{pause:?}: {}", ran.stderr());
        await_stop(busy.pid());
        signal(busy.pid(), "-CONT");
    }
    busy.end();
}

#[test]
fn what_cannot_be_attached_to_is_refused() {
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep");
    let ran = tool::attach(sleeper.id(), &[]);
    assert_eq!(ran.code(), 1);
    assert!(ran.stderr().contains("expected a Go program") && ran.stderr().contains("help:"), "{}", ran.stderr());
    sleeper.kill().expect("kill");
    // The signal is on its way; its parent, which we are, sees it end.
    let dead = || fs::read_to_string(format!("/proc/{}/stat", sleeper.id())).is_ok_and(|stat| stat.contains(") Z "));
    while !dead() {
        thread::sleep(Duration::from_millis(1));
    }
    let ran = tool::attach(sleeper.id(), &[]);
    assert!(ran.code() == 1 && ran.stderr().contains("is dead"), "{}", ran.stderr());
    sleeper.wait().expect("wait");
    let ran = tool::attach(1 << 30, &[]);
    assert!(ran.code() == 1 && ran.stderr().contains("no such process"), "{}", ran.stderr());
}

/// A process that a debugger holds has another tracer.
#[test]
fn traced_processes_are_refused() {
    let Some(busy) = Busy::start() else { return };
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-p", &busy.pid().to_string(), "-ex", "shell read line"]);
    let Ok(mut gdb) = gdb.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        eprintln!("skipped: no gdb");
        return busy.end();
    };
    // An attach that is faster keeps gdb away, which then waits for its line all the same.
    let start = Instant::now();
    while !is_traced(busy.pid()) {
        assert!(start.elapsed() < Duration::from_secs(60), "gdb does not trace it");
        thread::sleep(Duration::from_millis(10));
    }
    let Some(ran) = required(attach(busy.pid(), &[])) else { return };
    let seen = ran.stderr();
    assert!(seen.contains("traces it already") && seen.contains("gdb"), "{seen}");
    // It waits for a line, or for the end of its input.
    drop(gdb.stdin.take());
    gdb.wait().expect("wait");
    let Some(ran) = required(attach(busy.pid(), &[])) else { return };
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    busy.end();
}
