//! Goroutines below and above C code: their frames are on two stacks, and the program is linked by the C toolchain.

use crate::fixtures::unmet;
use crate::harness::corefile::core_of;
use crate::harness::program::Mode;
use crate::harness::toolchain::per_release;
use crate::harness::{Outcome, Skip, expect, required, root, tool};
use std::process::Command;

/// Where the program is.
const PROGRAM: &str = "testdata/programs/cmd/cgo";

per_release! {
    cgo: check;
}

fn has_compiler() -> Outcome<()> {
    let found = Command::new("gcc").arg("--version").output().is_ok_and(|output| output.status.success());
    if found { Ok(()) } else { Err(Skip("no gcc".to_owned())) }
}

fn check(version: &str) {
    if required(has_compiler()).is_none() {
        return;
    }
    let Some(file) = required(core_of(version, PROGRAM, Mode::Cgo, &[])) else { return };
    let ran = tool::core_ok(&file.exe, &file.core, &["-v"]);
    let profile = ran.decode();
    let mut wrong = Vec::new();
    let truth = [file.truth.objects, file.truth.bytes];
    if profile.total() != truth {
        wrong.push(format!("total [objects, bytes]: the collector says {truth:?}, the profile {:?}", profile.total()));
    }
    wrong.extend(ran.stdout().lines().filter(|l| l.starts_with("soft error")).map(str::to_owned));
    let expectations = expect::read_main(&root().join(PROGRAM).join("main.go"));
    wrong.extend(unmet(&expectations, version, Mode::Cgo, &profile));
    assert!(wrong.is_empty(), "{version}:\n{}", wrong.join("\n"));
}
