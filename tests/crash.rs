//! Cores that the kernel wrote: no file-backed pages, threads in signal handlers, a goroutine stopped anywhere.

use crate::fixtures::unmet;
use crate::harness::corefile::{Run, parse_truth};
use crate::harness::program::{Mode, Program};
use crate::harness::toolchain::{Toolchain, newest};
use crate::harness::{Outcome, Skip, expect, required, root, sparse, tool};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

/// Objects that the crash itself may add (traceback buffers, a thread) or that registers and the innermost frame, scanned
/// conservatively, may keep.
const CRASH_OBJECTS: u64 = 64;

#[test]
fn kernel_core() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with('|') || pattern.starts_with('/') {
        // Not in anybody's power here, so not a failure with GOREF_REQUIRE_ALL=1 either.
        eprintln!("skipped: the kernel does not write cores to the working folder but to {pattern:?}");
        return;
    }
    let Some(version) = newest() else { return };
    let Some((exe, core, truth)) = required(crash(version)) else { return };
    let one = tool::core_ok(&exe, &core, &["--threads", "1"]);
    let profile = one.decode();
    let [objects, bytes] = profile.total();
    assert!(
        (truth[0]..=truth[0] + CRASH_OBJECTS).contains(&objects) && bytes >= truth[1],
        "the collector said {truth:?} before the crash, the profile says [{objects}, {bytes}]"
    );
    let expectations = expect::read_main(&root().join("testdata/programs/cmd/crash/main.go"));
    let wrong = unmet(&expectations, version, Mode::Default, &profile);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let four = tool::core_ok(&exe, &core, &["--threads", "4"]);
    assert!(one.bytes() == four.bytes(), "--threads 4 gives other bytes than --threads 1");
}

fn crash(version: &str) -> Outcome<(PathBuf, PathBuf, [u64; 2])> {
    let program = Program::build(&Toolchain::get(version)?, "testdata/programs/cmd/crash", Mode::Default);
    let (core, truth_file) = (program.dir.join("core.kernel"), program.dir.join("truth.kernel"));
    if !truth_file.exists() {
        let dir = tempfile::tempdir_in(&program.dir).expect("a temporary folder");
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -c unlimited && exec \"$0\""]).arg(&program.exe).current_dir(dir.path());
        let mut run = Run::spawn(command.env("GOTRACEBACK", "crash").env("GOMAXPROCS", "2"))?;
        let line = run.line("TRUTH");
        let _ = run.child.wait();
        let written =
            std::fs::read_dir(dir.path()).unwrap().next().ok_or_else(|| Skip("the kernel wrote no core".into()))?;
        sparse::copy(&mut File::open(written.unwrap().path()).unwrap(), &core).unwrap();
        std::fs::write(&truth_file, line).unwrap();
    }
    let truth = parse_truth(&std::fs::read_to_string(truth_file).unwrap(), "TRUTH").expect("numbers after TRUTH");
    Ok((program.exe, core, [truth.objects, truth.bytes]))
}
