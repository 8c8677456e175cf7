//! Attaching when something is in the way: our own limits, and processes that execute, stop, or wait for a child while they are stopped.

use super::process::{Busy, rounds};
use super::{PAUSES, attach, has_compiler, signal};
use crate::harness::corefile::Run;
use crate::harness::program::{Mode, Program};
use crate::harness::toolchain::{Toolchain, newest};
use crate::harness::{required, tool};
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Whatever we lack, we say so or do without; nothing aborts, and the process goes on.
#[test]
fn little_memory_of_ones_own() {
    let Some(busy) = Busy::start() else { return };
    let mut done = 0;
    // -v: address space, -d: private writable memory; KiB.
    for limit in ["-v 20000", "-v 60000", "-v 110000", "-v 300000", "-v 4000000", "-d 5000", "-d 40000", "-d 120000"] {
        for pause in PAUSES {
            let (exe, pid) = (env!("CARGO_BIN_EXE_goref-fast"), busy.pid());
            let script = format!("ulimit {limit} && exec {exe} attach {pid} --threads 2 --pause {pause} -o /dev/null");
            let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().expect("sh");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            if stderr.contains("does not allow to trace") {
                return busy.end();
            }
            let known =
                ["out of memory", "annot allocate memory", "cannot reserve", "cannot start", "Resource temporarily"];
            match output.status.code() {
                Some(0) => done += 1,
                Some(1) => assert!(known.iter().any(|k| stderr.contains(k)), "{limit}, {pause}: {stderr}"),
                _ => panic!("{limit}, {pause}: {}: {stderr}", output.status),
            }
            assert!(limit != "-v 4000000" || output.status.success(), "{limit}, {pause}: {stderr}");
        }
    }
    // Without a window, and with one.
    assert!(done > PAUSES.len(), "{done}");
    busy.end();
}

/// The rule by which the machine promises memory, put back when dropped.
struct Promises {
    rule: String,
    ratio: String,
}

const RULE: &str = "/proc/sys/vm/overcommit_memory";
const RATIO: &str = "/proc/sys/vm/overcommit_ratio";

impl Promises {
    /// Of all that is not promised yet, only `kib` are left.
    fn limit(kib: u64) -> Self {
        let before = [RULE, RATIO].map(|path| fs::read_to_string(path).expect("a rule"));
        let [rule, ratio] = before;
        let promises = Self { rule, ratio };
        let all = of("/proc/meminfo", "Committed_AS:") + kib;
        fs::write("/proc/sys/vm/overcommit_kbytes", all.to_string()).expect("root");
        fs::write(RULE, "2").expect("root");
        promises
    }
}

impl Drop for Promises {
    fn drop(&mut self) {
        fs::write(RULE, &self.rule).expect("root");
        fs::write(RATIO, &self.ratio).expect("root");
    }
}

/// A number of a list in `/proc`.
fn of(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).expect("a list");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// A machine that promises no more than it has (`vm.overcommit_memory` 2) may refuse the snapshot, for which it would have to promise
/// all memory again. Then the process is held; and what we would like to reserve ourselves must not be refused. Changes the whole
/// machine, so it takes one of its own (`tests/arm64/run`).
#[test]
fn a_machine_that_keeps_its_promises() {
    if std::env::var("GOREF_OWN_MACHINE").as_deref() != Ok("1") {
        eprintln!("not run: the machine is not GOREF_OWN_MACHINE=1");
        return;
    }
    // Enough that what is left is room for its work, and for ours.
    let Some(busy) = Busy::with_heap("200") else { return };
    let needed = of(&format!("/proc/{}/status", busy.pid()), "VmData:");
    for (kib, forks) in [(4 << 20, true), (needed * 3 / 4, false)] {
        let promises = Promises::limit(kib);
        let automatic = attach(busy.pid(), &[]).expect("root");
        let others = PAUSES.map(|pause| (pause, attach(busy.pid(), &["--pause", pause]).expect("root")));
        drop(promises);
        let (said, why) = (automatic.stdout(), automatic.stderr());
        assert_eq!(automatic.code(), 0, "{why}");
        assert_eq!(said.contains("--pause fork: a snapshot is possible"), forks, "{said}");
        assert_eq!(said.contains("cannot be copied by fork: ENOMEM"), !forks, "{said}");
        assert!(automatic.decode().total()[1] > 10 << 20, "{said}");
        for (pause, ran) in others {
            let refusal = match pause {
                "fork" => "cannot be copied by fork: ENOMEM",
                "copy" => "vm.overcommit_ratio",
                _ => "none",
            };
            let refused = !forks && pause != "whole";
            assert_eq!(ran.code(), i32::from(refused), "{kib} KiB, {pause}: {}", ran.stderr());
            assert_eq!(ran.stderr().contains(refusal), refused, "{}", ran.stderr());
        }
    }
    busy.end();
}

/// Stopped and continued by job control at any time, it ends as it means to, with nothing lost.
#[test]
fn stopped_and_continued_meanwhile() {
    let Some(busy) = Busy::start() else { return };
    let pid = busy.pid();
    let toggler = thread::spawn(move || {
        for i in 0..rounds(6) * 20 {
            for name in ["-STOP", "-CONT"] {
                signal(pid, name);
                thread::sleep(Duration::from_millis(i * 7 % 23));
            }
        }
    });
    while !toggler.is_finished() {
        for pause in PAUSES {
            let Some(ran) = required(attach(pid, &["--pause", pause])) else {
                toggler.join().expect("no panic");
                return;
            };
            assert_eq!(ran.code(), 0, "{pause}: {}", ran.stderr());
        }
    }
    toggler.join().expect("no panic");
    busy.end();
}

/// `testdata/restless`, run with `args`.
fn restless(args: &[&str], mode: Mode) -> Option<Run> {
    let toolchain = required(Toolchain::get(newest()?))?;
    let program = Program::build(&toolchain, "testdata/restless", mode);
    required(Run::start(&program, args))
}

/// A process that executes its program again and again is read, or refused for that reason, and soon: a thread that executes waits for the
/// end of all others, of which its tracer has to hear.
#[test]
fn executing_programs_are_read_or_refused() {
    let Some(mut run) = restless(&["execute", "150"], Mode::Default) else { return };
    let known =
        ["its program anew", "no such process", "cannot open", "ended while", "ended before", "got its id", "is dead"];
    let pid = run.child.id();
    let start = Instant::now();
    while run.child.try_wait().expect("wait").is_none() {
        for pause in PAUSES {
            let begin = Instant::now();
            let Some(ran) = required(attach(pid, &["--pause", pause])) else { return };
            assert!(ran.code() == 0 || known.iter().any(|k| ran.stderr().contains(k)), "{pause}: {}", ran.stderr());
            assert!(begin.elapsed() < Duration::from_secs(60), "{pause}: {}", ran.stderr());
        }
        assert!(start.elapsed() < Duration::from_secs(200), "it stands still");
    }
    assert_eq!(run.child.wait().expect("wait").code(), Some(7));
}

/// Only the first thread has ended, and stays that way: that is no program that is being executed.
#[test]
fn a_process_without_its_first_thread_is_refused() {
    let Some(mut run) = restless(&["headless", "3000"], Mode::Default) else { return };
    run.line("HEADLESS");
    for pause in PAUSES {
        let ran = tool::attach(run.child.id(), &["--pause", pause]);
        assert!(ran.code() == 1 && ran.stderr().contains("its first thread has ended"), "{pause}: {}", ran.stderr());
    }
    assert_eq!(run.child.wait().expect("wait").code(), Some(7));
}

/// A thread that waits for a child made by vfork cannot be stopped; the others run until it can.
#[test]
fn a_child_by_vfork_stops_nobody() {
    if required(has_compiler()).is_none() {
        return;
    }
    let Some(mut run) = restless(&["vfork", "1500"], Mode::Cgo) else { return };
    for pause in ["fork", "whole"] {
        run.line("CHILD");
        thread::sleep(Duration::from_millis(100));
        let Some(ran) = required(attach(run.child.id(), &["--pause", pause])) else { return };
        assert_eq!(ran.code(), 0, "{pause}: {}", ran.stderr());
        let text = ran.stdout();
        let ms = text.split_once("stood still for ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
        // It has 1.4 s to go when we come.
        assert!(ms.is_some_and(|ms| ms < 700.0), "{pause}: {text}");
    }
    let _ = run.child.kill();
    run.child.wait().expect("wait");
}
