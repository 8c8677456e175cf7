//! objcopy, strip and the compressors: what other people do to executables and cores.

use super::{Outcome, Skip};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `program`; a program that is not installed is a skip, one that fails a failure.
pub fn run(program: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Outcome<()> {
    let mut command = Command::new(program);
    command.args(args.iter().map(|a| a.as_ref())).stdin(Stdio::null());
    let output = command.output().map_err(|e| Skip(format!("{program}: {e}")))?;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What `program ARGS FILE` writes to its standard output goes to `to`.
pub fn filter(program: &str, args: &[&str], file: &Path, to: &Path) -> Outcome<()> {
    let mut command = Command::new(program);
    command.args(args).arg(file).stdin(Stdio::null()).stdout(std::fs::File::create(to).expect("create"));
    let output = command.stderr(Stdio::piped()).output().map_err(|e| Skip(format!("{program}: {e}")))?;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A copy of `exe` without DWARF and symbols in `to`, and its debug information in `debug`.
pub fn split(exe: &Path, to: &Path, debug: &Path) -> Outcome<()> {
    run("objcopy", &[&"--only-keep-debug", &exe, &debug])?;
    run("strip", &[&exe, &"-o", &to])
}

/// The GNU build id of `exe` in hexadecimal digits.
pub fn build_id(exe: &Path) -> String {
    use object::Object;
    let bytes = std::fs::read(exe).expect("the executable");
    let elf = object::File::parse(&bytes[..]).expect("ELF");
    let id = elf.build_id().expect("notes").expect("a build id");
    id.iter().map(|b| format!("{b:02x}")).collect()
}
