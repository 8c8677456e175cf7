//! A thread that makes no system calls itself makes some for us, and keeps all that its registers hold.
//!
//! The program is `testdata/spinner/main.c`, built here by gcc, or before by whoever names it in `GOREF_SPINNER` (`tests/arm64/run`).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::machine;
use super::super::ptrace::{self, Stop};
use super::Tracee;

/// `None` if there is no compiler.
fn spinner(dir: &Path) -> Option<PathBuf> {
    if let Some(built) = std::env::var_os("GOREF_SPINNER") {
        return Some(built.into());
    }
    let exe = dir.join("spinner");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/spinner/main.c");
    let built = Command::new("gcc").args(["-O1", "-o"]).arg(&exe).arg(source).status().ok()?;
    assert!(built.success(), "gcc {source}: {built}");
    Some(exe)
}

#[test]
fn calls_change_no_register_of_a_thread_that_computes() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(exe) = spinner(dir.path()) else {
        eprintln!("skipped: no gcc");
        return;
    };
    let mut child = Command::new(exe).stdout(Stdio::piped()).spawn().expect("spawn");
    let pid = child.id();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its first line");
    if line.is_empty() {
        assert_eq!(child.wait().expect("wait").code(), Some(2), "no vectors");
        eprintln!("skipped: this machine has no vectors that are worth it");
        return;
    }
    let mut outside = 0;
    for round in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        let mut tracee = match Tracee::stop(pid, 0, None) {
            Ok(tracee) => tracee,
            Err(e) => {
                child.kill().and_then(|()| child.wait()).expect("kill");
                assert!(e.to_string().contains("does not allow to trace"), "{e}");
                eprintln!("skipped: {e}");
                return;
            }
        };
        let regs = tracee.threads[0].regs.clone();
        outside += u32::from(machine::rank(&regs, &|_| false) == Some(machine::OUTSIDE));
        let (index, site) = tracee.caller().expect("a thread that can call");
        let (result, made) = tracee.call(index, site, libc::SYS_getpid as u64, [7; 6], 0).expect("the call");
        assert_eq!((result, made), (i64::from(pid), None), "round {round}");
        assert_eq!(ptrace::registers(super::raw(pid), ptrace::GENERAL).expect("registers"), regs);
        tracee.resume();
    }
    assert!(outside > 0, "it was always in a system call");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(0), "its vectors have changed");
}

/// The undertaker looks at any time: what it takes, nobody else hears, and a signal would be lost.
#[test]
fn only_ends_are_taken() {
    let mut child = Command::new("sleep").arg("60").spawn().expect("spawn");
    let tid = child.id().cast_signed();
    if let Err(e) = ptrace::seize(tid, 0) {
        child.kill().and_then(|()| child.wait()).expect("kill");
        eprintln!("skipped: {e}");
        return;
    }
    let heard_after = |cause: &dyn Fn()| {
        cause();
        // Until something is to be heard.
        std::thread::sleep(Duration::from_millis(100));
        ptrace::hear_end(tid);
        ptrace::wait(tid, false)
    };
    assert_eq!(
        heard_after(&|| ptrace::interrupt(tid).expect("it lives")),
        Ok(Some(Stop::Event(libc::PTRACE_EVENT_STOP)))
    );
    ptrace::resume(tid, 0).expect("it stands");
    let send = |signal: Signal| kill(Pid::from_raw(tid), signal).expect("it lives");
    assert_eq!(heard_after(&|| send(Signal::SIGUSR1)), Ok(Some(Stop::Signal(libc::SIGUSR1))));
    assert_eq!(heard_after(&|| send(Signal::SIGKILL)), Err(nix::errno::Errno::ECHILD), "taken");
    assert!(child.wait().is_err(), "taken");
}
