//! Running processes: what `attach` says of the fixtures is what `core` says of a core of the same process, to the byte; and a program
//! that does everything that a debugger could spoil (`testdata/busy`) is attached to, and the attacher killed, many times.

use crate::harness::corefile::{Run, Truth, gcore, parse_truth};
use crate::harness::pprof::Profile;
use crate::harness::program::{Mode, Program};
use crate::harness::tool::{self, Ran};
use crate::harness::toolchain::{Toolchain, newest, per_release};
use crate::harness::{Outcome, Skip, required};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a process can be made to stand still.
const PAUSES: [&str; 3] = ["whole", "fork", "copy"];

/// The program with most of the fixtures.
const FIXTURES: &str = "testdata/programs";
/// One with types that `reflect` made, and with texts.
const MADE: &str = "testdata/programs/cmd/made";
/// One with goroutines in C and above it.
const CGO: &str = "testdata/programs/cmd/cgo";
/// One with a plugin.
const PLUGIN: &str = "testdata/programs/cmd/plugin";
/// Go in a program written in C.
const HOSTED: &str = "testdata/programs/cmd/hosted";

per_release! {
    default: |version| same_as_core(version, FIXTURES, Mode::Default);
    pie, 26: |version| same_as_core(version, FIXTURES, Mode::Pie);
    made, 19, 23, 26, 27: |version| same_as_core(version, MADE, Mode::Default);
    cgo, 19, 26: |version| same_as_core(version, CGO, Mode::Cgo);
    plugin, 19, 26, 27: |version| same_as_core(version, PLUGIN, Mode::Plugin);
    hosted, 19, 26, 27: |version| same_as_core(version, HOSTED, Mode::CShared);
}

fn has_compiler() -> Outcome<()> {
    let found = Command::new("gcc").arg("--version").output().is_ok_and(|output| output.status.success());
    if found { Ok(()) } else { Err(Skip("no gcc".to_owned())) }
}

/// Attaches; a system that forbids to trace is a reason to skip.
fn attach(pid: u32, args: &[&str]) -> Outcome<Ran> {
    let ran = tool::attach(pid, args);
    let stderr = ran.stderr();
    if ran.code() == 1 && stderr.contains("does not allow to trace") {
        return Err(Skip(stderr));
    }
    Ok(ran)
}

fn same_as_core(version: &str, source: &str, mode: Mode) {
    if mode.needs_cgo() && required(has_compiler()).is_none() {
        return;
    }
    let Some(toolchain) = required(Toolchain::get(version)) else { return };
    let program = Program::build(&toolchain, source, mode);
    until_steady(|| same_once(version, source, mode, &program));
}

/// Runs `round` until the program's heap held still in it, or it was skipped: a thread that a tracer woke may allocate something of the
/// runtime's own between the collector's count and the look at the process.
fn until_steady(mut round: impl FnMut() -> Round) {
    for _ in 0..8 {
        match round() {
            Round::Done => return,
            Round::Moved(why) => eprintln!("again: {why}"),
        }
    }
    panic!("the heap never held still");
}

enum Round {
    Done,
    Moved(String),
}

/// Lets the process go on, of which `found` is not the truth: that is wrong unless the process says that its heap has changed.
fn judge(run: Run, found: [u64; 2], truth: Truth, what: &str) -> Round {
    signal(run.child.id(), "-CONT");
    let lines = run.release();
    let now = lines.first().and_then(|line| parse_truth(line, "OK"));
    assert_ne!(now, Some(truth), "{what}: found {found:?} objects, bytes");
    Round::Moved(format!("{what}: {found:?}, the collector said {truth:?}, then {lines:?}"))
}

fn same_once(version: &str, source: &str, mode: Mode, program: &Program) -> Round {
    let Some(mut run) = required(Run::start(program, &[])) else { return Round::Done };
    let truth = parse_truth(&run.line("TRUTH"), "TRUTH").expect("numbers after TRUTH");
    run.line("WAIT");
    let pid = run.child.id();
    let dir = tempfile::tempdir().expect("a folder");
    let core = dir.path().join("core");
    // A process that a tracer lets go wakes threads that then change the runtime's own structures, which are roots as well. Stopped by a
    // signal it is the same for all.
    stop(pid);
    let taken = gcore(pid, &core);
    if required(taken).is_none() {
        return Round::Done;
    }
    stop(pid);
    let from_core = tool::core_ok(&program.exe, &core, &["--threads", "2"]);
    let total = from_core.decode().total();
    if total != [truth.objects, truth.bytes] {
        return judge(run, total, truth, "gcore");
    }
    for pause in PAUSES {
        let stats = dir.path().join("stats.json");
        let args = ["--threads", "2", "--pause", pause, "--stats", stats.to_str().expect("UTF-8")];
        let Some(ran) = required(attach(pid, &args)) else { return Round::Done };
        assert_eq!(ran.code(), 0, "{pause}: {}", ran.stderr());
        assert_eq!(ran.decode().total(), total, "{pause}: [objects, bytes] against the core's");
        if ran.bytes() != from_core.bytes() {
            panic!("{pause}: other bytes than from the core: {}", difference(&ran.decode(), &from_core.decode()));
        }
        assert!(ran.stdout().contains("stood still for"), "{pause}: the report names the pause: {}", ran.stdout());
        let stats: serde_json::Value = serde_json::from_slice(&fs::read(&stats).expect("stats")).expect("JSON");
        assert_eq!(stats["pause"]["mode"], pause);
        let stops = stats["pause"]["stops"].as_array().expect("a list");
        assert_eq!(stops.len(), if pause == "fork" { 2 } else { 1 });
        assert!(stops.iter().all(|s| s["seconds"].as_f64().is_some_and(|s| s > 0.0)), "{stops:?}");
    }
    // A capture is as good as gdb's core, and smaller.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").count();
    let mut written = Vec::new();
    for (name, args) in [
        ("captured.core", &["--pause", "fork"][..]),
        ("captured.core.zst", &["--pause", "whole"]),
        ("go.core", &["--go-only", "--pause", "fork"]),
        ("data.core", &["--go-only", "--with-data", "--pause", "whole"]),
        ("go.core.zst", &["--go-only"]),
    ] {
        let captured = dir.path().join(name);
        let path = captured.to_str().expect("UTF-8");
        let pid = pid.to_string();
        let output = tool::run(&[&["capture", &pid, "-o", path][..], args].concat());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let ran = tool::core_ok(&program.exe, &captured, &["--threads", "2"]);
        assert!(
            ran.bytes() == from_core.bytes(),
            "{name}: other bytes than from the core: {}",
            difference(&ran.decode(), &from_core.decode())
        );
        if captured.extension().is_some_and(|ext| ext == "core") {
            opens_in_gdb(program, &captured, threads, mode != Mode::CShared);
        }
        written.push(fs::metadata(&captured).expect("a core").blocks() * 512);
        let secrets = || fs::read(&captured).expect("a core").windows(7).filter(|w| w == b"SECRET-").count();
        match name {
            // The text in the executable is none of the heap's.
            "go.core" if source == MADE => assert!(secrets() < 10, "{name}: {} secrets", secrets()),
            "captured.core" | "data.core" if source == MADE => {
                assert!(secrets() > 100_000, "{name}: {} secrets", secrets())
            }
            _ => {}
        }
    }
    let [full, full_packed, go, data, go_packed] = written[..] else { panic!("five cores") };
    assert!(go < full && go <= data && data <= full && go_packed <= full_packed, "{written:?}");
    eprintln!("{version} {source}: bytes of captures: {written:?}");

    // Under its own name and from elsewhere; another program is refused.
    let copy = dir.path().join("copy");
    fs::copy(&program.exe, &copy).expect("copy");
    let ran = tool::attach(pid, &[copy.to_str().expect("UTF-8")]);
    assert!(ran.code() == 0 && ran.bytes() == from_core.bytes(), "with EXE: {}", ran.stderr());
    let other = tool::attach(pid, &["/proc/self/exe"]);
    assert!(other.code() == 1 && other.stderr().contains("does not belong to"), "another EXE: {}", other.stderr());
    let late = tool::attach(pid, &["--pause", "whole", "--max-pause", "1us"]);
    assert!(late.code() == 1 && late.stderr().contains("--max-pause"), "too late: {}", late.stderr());
    signal(pid, "-CONT");
    let last = run.release();
    let goes_on = |line: &String| parse_truth(line, "OK").or_else(|| parse_truth(line, "CHANGED")).is_some();
    assert!(last.first().is_some_and(goes_on), "the process goes on: {last:?}");
    Round::Done
}

/// gdb sees all threads in a capture, and the program's mappings; where `names`, also functions.
fn opens_in_gdb(program: &Program, captured: &Path, threads: usize, names: bool) {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "info threads", "-ex", "info proc mappings"]);
    let opened = gdb.arg(&program.exe).arg(captured).output().expect("gdb");
    let text = String::from_utf8_lossy(&opened.stdout).into_owned();
    let listed = |line: &&str| line.starts_with(['*', ' ']) && line.contains("LWP ");
    assert_eq!(text.lines().filter(listed).count(), threads, "{}: {text}", captured.display());
    assert!(!names || text.contains(" runtime."), "{}: {text}", captured.display());
    assert!(text.contains(&*program.exe.to_string_lossy()), "{}: {text}", captured.display());
}

/// A library that was deleted is still read, by the mapping of it.
#[test]
fn deleted_libraries_are_read() {
    let Some(toolchain) = newest().and_then(|version| required(Toolchain::get(version))) else { return };
    if required(has_compiler()).is_none() {
        return;
    }
    let program = Program::build(&toolchain, HOSTED, Mode::CShared);
    until_steady(|| deleted_once(&program));
}

fn deleted_once(program: &Program) -> Round {
    let dir = tempfile::tempdir().expect("a folder");
    let (exe, library) = (dir.path().join("exe"), dir.path().join("libgo.so"));
    fs::copy(&program.exe, &exe).expect("copy");
    fs::copy(program.dir.join("libgo.so"), &library).expect("copy");
    let moved = Program { exe: exe.clone(), dir: dir.path().to_owned() };
    let Some(mut run) = required(Run::start(&moved, &[])) else { return Round::Done };
    let truth = parse_truth(&run.line("TRUTH"), "TRUTH").expect("numbers after TRUTH");
    run.line("WAIT");
    fs::remove_file(&library).expect("remove");
    fs::remove_file(&exe).expect("remove");
    for pause in PAUSES {
        let Some(ran) = required(attach(run.child.id(), &["--pause", pause])) else { return Round::Done };
        // Only the mapping itself leads to it, which takes root's rights.
        if ran.code() == 1 && fs::read_link("/proc/self/exe").is_ok() && ran.stderr().contains("expected a Go program")
        {
            let _ = required::<()>(Err(Skip("no right to open files of mappings".into())));
            return Round::Done;
        }
        assert_eq!(ran.code(), 0, "{pause}: {}", ran.stderr());
        let total = ran.decode().total();
        if total != [truth.objects, truth.bytes] {
            return judge(run, total, truth, pause);
        }
    }
    run.release();
    Round::Done
}

/// What one profile has and the other has not.
fn difference(live: &Profile, core: &Profile) -> String {
    let only = |a: &Profile, b: &Profile| {
        let missing = a.stacks.iter().filter(|stack| !b.stacks.iter().any(|other| other == *stack));
        missing.map(|stack| format!("\n  {stack:?}")).collect::<String>()
    };
    let (comments, mappings) = ((&live.comments, &core.comments), (&live.mappings, &core.mappings));
    format!("only live: {}\nonly core: {}\n{comments:?} {mappings:?}", only(live, core), only(core, live))
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()), "kill {name} {pid}");
}

/// Stops it as job control does, and waits for all threads.
fn stop(pid: u32) {
    signal(pid, "-STOP");
    let stopped = |task: &fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tT"))
    };
    while !fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").all(|task| stopped(&task.expect("a thread"))) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A busy program and its last words.
struct Busy {
    run: Run,
}

impl Busy {
    fn start() -> Option<Self> {
        let toolchain = required(Toolchain::get(newest()?))?;
        // With a C compiler some of the work is done in C.
        let mode = if has_compiler().is_ok() { Mode::Cgo } else { Mode::Default };
        let program = Program::build(&toolchain, "testdata/busy", mode);
        let mut run = required(Run::start(&program, &["20"]))?;
        run.line("RUNNING");
        Some(Self { run })
    }

    fn pid(&self) -> u32 {
        self.run.child.id()
    }

    /// Ends it: it must have worked all the time, without a fault, without a child that is not its own, and end as it means to.
    fn end(mut self) {
        let pid = self.pid();
        let children = children(pid);
        let dead: Vec<_> = children.iter().filter(|(_, stat)| stat.starts_with('Z')).collect();
        // Its own children may just have ended.
        assert!(dead.len() <= 1, "dead children: {children:?}");
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

fn rounds(few: u64) -> u64 {
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

/// The snapshot that `pid` has made: a child that says nothing at its end.
fn snapshot_of(pid: u32) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children: Vec<String> =
        children.flat_map(|c| c.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    children.iter().find(|child| stat(child, 35).as_deref() == Some("0"))?.parse().ok()
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
    let state = || {
        let status = fs::read_to_string(format!("/proc/{}/status", busy.pid())).expect("status");
        status.lines().find_map(|l| l.strip_prefix("State:\t")).and_then(|s| s.chars().next()).expect("a state")
    };
    for pause in [&[][..], &["--pause", "fork"]] {
        stop(busy.pid());
        let Some(ran) = required(attach(busy.pid(), pause)) else { return };
        assert_eq!(ran.code(), 0, "{pause:?}: {}", ran.stderr());
        assert_eq!(state(), 'T', "{pause:?}");
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
    // An attach in between would keep the debugger out for good.
    let tracer = format!("TracerPid:\t{}\n", gdb.id());
    let traced = || fs::read_to_string(format!("/proc/{}/status", busy.pid())).is_ok_and(|s| s.contains(&tracer));
    while gdb.try_wait().expect("wait").is_none() && !traced() {
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
