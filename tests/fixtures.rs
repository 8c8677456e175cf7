//! The Go fixtures of `testdata/programs`: packages linked into one program, one core per toolchain and build mode.

use crate::harness::corefile::core_of;
use crate::harness::expect::{self, Expectation};
use crate::harness::pprof::Profile;
use crate::harness::program::{Mode, Program, Recipe};
use crate::harness::toolchain::{Toolchain, newest, per_release};
use crate::harness::{required, root, tool};
use object::{CompressionFormat, Object, ObjectKind, ObjectSection};
use std::path::Path;

/// Import path of the fixtures' module.
pub const MODULE: &str = "goref.test/fixtures";

per_release! {
    default: |version| check_all(version, Mode::Default);
    noopt: |version| check_all(version, Mode::NoOpt);
}

/// How a program is linked changes where things are and how its debug information is packed, and nothing else.
#[test]
fn linked_otherwise() {
    let Some(version) = newest() else { return };
    for mode in [Mode::Pie, Mode::PlainDwarf] {
        check_all(version, mode);
        let Some(toolchain) = required(Toolchain::get(version)) else { return };
        let exe = std::fs::read(Program::build(&toolchain, "testdata/programs", mode).exe).unwrap();
        let elf = object::File::parse(&exe[..]).unwrap();
        // Up to Go 1.18 a compressed section has another name.
        let plain = match elf.section_by_name(".debug_info") {
            Some(info) => info.compressed_file_range().unwrap().format == CompressionFormat::None,
            None => elf.section_by_name(".zdebug_info").is_none(),
        };
        let dynamic = elf.kind() == ObjectKind::Dynamic;
        assert_eq!((dynamic, plain), (mode == Mode::Pie, mode == Mode::PlainDwarf), "linked as asked for: {mode:?}");
    }
}

fn check_all(version: &str, mode: Mode) {
    let Some(file) = required(core_of(version, "testdata/programs", mode, &[])) else { return };
    let run = |args: &[&str]| tool::core_ok(&file.exe, &file.core, args);

    let first = run(&["--threads", "2"]);
    let bytes = first.bytes();
    let profile = first.decode();
    let truth = [file.truth.objects, file.truth.bytes];
    let mut wrong = Vec::new();
    if profile.total() != truth {
        wrong.push(format!("total [objects, bytes]: the collector says {truth:?}, the profile {:?}", profile.total()));
    }
    check_header(&profile, &file.exe);
    let expectations = expect::read_all(&root().join("testdata/programs"), MODULE);
    assert!(expectations.len() > 300, "only {} statements were found", expectations.len());
    wrong.extend(unmet(&expectations, version, mode, &profile));
    wrong.extend(takes_the_runtime(&profile));

    // The answer never depends on luck.
    for threads in ["1", "3", "8", "2"] {
        if run(&["--threads", threads]).bytes() != bytes {
            wrong.push(format!("--threads {threads} gives other bytes than --threads 2 did"));
        }
    }
    // Types never make an object reachable, and no view of the paths loses one.
    for args in [
        &["--no-types"][..],
        &["--no-fold"],
        &["--max-depth", "1"],
        &["--max-depth", "3"],
        &["--max-stacks", "1"],
        &["--max-stacks", "50"],
    ] {
        let total = run(args).decode().total();
        if total != profile.total() {
            wrong.push(format!("total with {args:?}: {total:?} instead of {:?}", profile.total()));
        }
    }
    if let Some(toolchain) = required(Toolchain::get(version)) {
        wrong.extend(pprof_complaints(&toolchain, &first.profile));
    }
    assert!(wrong.is_empty(), "{version} {}: {} findings:\n{}", mode.name(), wrong.len(), wrong.join("\n"));
}

/// What is not as stated. Each finding carries the stacks nearby, for the reader of a failure.
pub fn unmet(expectations: &[Expectation], version: &str, recipe: impl Into<Recipe>, profile: &Profile) -> Vec<String> {
    let recipe = recipe.into();
    let mut wrong = Vec::new();
    for expectation in expectations.iter().filter(|e| e.applies(version, recipe)) {
        if let Err(mut finding) = expectation.check(profile, recipe.mode) {
            let root = expectation.root_frame();
            let near = profile.stacks.iter().filter(|(stack, _)| stack.iter().any(|frame| frame == root));
            for (stack, [count, bytes]) in near.take(8) {
                finding.push_str(&format!("\n    there is {} ({count} objects, {bytes} bytes)", stack.join(" -> ")));
            }
            wrong.push(finding);
        }
    }
    wrong
}

/// Paths from the program's own variables through the runtime's structures: what those hold is not the program's.
fn takes_the_runtime(profile: &Profile) -> Vec<String> {
    let structures = ["(*runtime.timers)", "(*runtime.p)", "(*runtime.m)", "(*runtime.sudog)", "(*sudog<"];
    let through = |frame: &String| structures.iter().any(|s| frame.contains(s));
    let users = |root: &String| root.starts_with("main.") || root.starts_with("goref.test/");
    let stacks = profile.stacks.keys();
    let taken = stacks.filter(|stack| stack.first().is_some_and(users) && stack.iter().any(through));
    taken.map(|stack| format!("a variable of the program takes the runtime's: {}", stack.join(" -> "))).collect()
}

/// The parts of a profile that are not samples.
fn check_header(profile: &Profile, exe: &Path) {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(profile.sample_types, [pair("inuse_objects", "count"), pair("inuse_space", "bytes")]);
    assert_eq!(profile.default_sample_type, "inuse_space");
    assert_eq!(profile.mappings.len(), 1, "one mapping: {:?}", profile.mappings);
    assert!(profile.mappings[0].0.ends_with("exe"), "the executable's name: {:?}", profile.mappings);
    assert!(profile.time_nanos > 0, "time of the last collection");
    let folder = exe.parent().expect("a folder").display().to_string();
    assert!(profile.comments.iter().any(|c| c.contains("heap in use")), "totals line: {:?}", profile.comments);
    assert!(profile.comments.iter().all(|c| !c.contains(&folder)), "a path of the analysis: {:?}", profile.comments);
}

/// What `go tool pprof` has to say beyond its report.
fn pprof_complaints(toolchain: &Toolchain, profile: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for args in [&["-top"][..], &["-tree"], &["-peek", "main"], &["-top", "-sample_index=inuse_objects"], &["-raw"]] {
        let output =
            toolchain.go().args(["tool", "pprof"]).args(args).arg(profile).output().expect("run go tool pprof");
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() || !stderr.trim().is_empty() || output.stdout.is_empty() {
            wrong.push(format!("go tool pprof {args:?}: {}: {stderr}", output.status));
        }
    }
    wrong
}
