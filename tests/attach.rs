//! Running processes: what `attach` says of the fixtures is what `core` says of a core of the same process, to the byte; and what it does
//! to the process ([`process`]), also while that changes, and when we have little ourselves ([`hardship`]).

mod hardship;
mod process;

use crate::harness::corefile::{Run, Truth, gcore, parse_truth};
use crate::harness::pprof::Profile;
use crate::harness::program::{Mode, Program};
use crate::harness::tool::{self, Ran};
use crate::harness::toolchain::{Toolchain, newest, per_release};
use crate::harness::{Outcome, Skip, required};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
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
    await_stop(pid);
}

/// Waits until job control has all threads of a process stopped. One that a tracer lets go wakes up to stop again.
fn await_stop(pid: u32) {
    let stopped = |task: &fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tT"))
    };
    let start = Instant::now();
    while !fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").all(|task| stopped(&task.expect("a thread"))) {
        assert!(start.elapsed() < Duration::from_secs(20), "process {pid} does not stop");
        thread::sleep(Duration::from_millis(1));
    }
}
