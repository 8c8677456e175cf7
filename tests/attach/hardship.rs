//! Attaching when something is in the way: our own limits, and processes that execute, stop, or wait for a child while they are stopped.

use super::process::{Busy, rounds};
use super::{PAUSES, attach, has_compiler, signal};
use crate::harness::corefile::Run;
use crate::harness::program::{Mode, Program};
use crate::harness::required;
use crate::harness::toolchain::{Toolchain, newest};
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
    let known = [
        "its program anew",
        "first thread has ended",
        "no such process",
        "cannot open",
        "ended",
        "got its id",
        "is dead",
    ];
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
