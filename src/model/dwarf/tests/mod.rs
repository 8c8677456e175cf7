//! The reader against real executables of every supported Go version, against stated facts and against damage.
//!
//! Set `GOREF_GO_ROOTS` to a folder with `VERSION/go/bin/go` inside; without it these tests only say that they were skipped.

mod damage;
mod facts;
mod variables;

use super::DebugInfo;
use crate::image::executable::Executable;
use crate::model::types::{Kind, Type};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const PROGRAM: &str = include_str!("program.go");

/// A built test program.
pub(crate) struct Program {
    /// `1.27.3 optimised`
    pub(crate) label: String,
    pub(crate) optimised: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Program {
    pub(crate) fn executable(&self) -> Executable<'_> {
        Executable::parse(&self.bytes, Path::new("program")).expect("an ELF file")
    }
}

/// The program of `program.go` by every toolchain, optimised and not; empty if there are none.
pub(crate) fn programs() -> &'static [Program] {
    static PROGRAMS: OnceLock<Vec<Program>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let Some(roots) = std::env::var_os("GOREF_GO_ROOTS").map(PathBuf::from) else {
            eprintln!("skipped: GOREF_GO_ROOTS is not set, so there is no Go toolchain to build test programs");
            return Vec::new();
        };
        let mut versions: Vec<String> = std::fs::read_dir(&roots)
            .expect("GOREF_GO_ROOTS is a folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|version| roots.join(version).join("go/bin/go").is_file() && is_recent(version))
            .collect();
        versions.sort();
        let modes = [(true, ""), (false, "all=-N -l")];
        let build = |version: &String| {
            modes.map(|(optimised, flags)| {
                let bytes = build(&roots.join(version).join("go"), flags, "");
                let mode = if optimised { "optimised" } else { "unoptimised" };
                Program { label: format!("{version} {mode}"), optimised, bytes }
            })
        };
        versions.iter().flat_map(build).collect()
    })
}

/// Whether a toolchain can build `program.go`, which uses what Go 1.24 has.
fn is_recent(version: &str) -> bool {
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    minor.is_some_and(|minor: u32| minor >= 24)
}

/// Builds `program.go` with the Go tree at `root`.
fn build(root: &Path, gcflags: &str, ldflags: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("main.go"), PROGRAM).unwrap();
    std::fs::write(dir.path().join("go.mod"), "module example.com/program\n\ngo 1.24\n").unwrap();
    let output = Command::new(root.join("bin/go"))
        .current_dir(dir.path())
        .env("GOROOT", root)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod")
        .args(["build", "-o", "program", "-gcflags", gcflags, "-ldflags", ldflags, "."])
        .output()
        .expect("go runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(dir.path().join("program")).unwrap()
}

/// Any one toolchain's program with uncompressed debug sections, for damaging them.
fn uncompressed() -> Option<Vec<Vec<u8>>> {
    let roots = std::env::var_os("GOREF_GO_ROOTS").map(PathBuf::from)?;
    let names = std::fs::read_dir(&roots).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let trees = names.filter(|version| is_recent(version)).map(|version| roots.join(version).join("go"));
    let mut trees: Vec<PathBuf> = trees.filter(|tree| tree.join("bin/go").is_file()).collect();
    trees.sort();
    // The first writes DWARF 4, the last DWARF 5.
    let picked: Vec<&PathBuf> = trees.first().into_iter().chain(trees.last()).collect();
    Some(picked.into_iter().map(|tree| build(tree, "", "-compressdwarf=false")).collect())
}

/// Runs `check` on each program.
fn each(check: impl Fn(&Program, &DebugInfo<'_>)) {
    for program in programs() {
        eprintln!("{}", program.label);
        let exe = program.executable();
        check(program, &DebugInfo::load(&exe).unwrap_or_else(|e| panic!("{}: {e}", program.label)));
    }
}

fn named<'d>(info: &'d DebugInfo<'_>, name: &str) -> &'d Type {
    info.types.get(info.types.find(name).unwrap_or_else(|| panic!("no type {name}")))
}

/// `name offset type, name offset type`.
fn fields(info: &DebugInfo<'_>, name: &str) -> String {
    let Kind::Struct(fields) = &named(info, name).kind else { panic!("{name} is no struct") };
    let field = |f: &crate::model::types::Field| format!("{} {} {}", f.name, f.offset, info.types.get(f.ty).name);
    fields.iter().map(field).collect::<Vec<_>>().join(", ")
}
