//! Programs that do real work with the standard library (`testdata/stdlib`): the collector's totals to the byte, the same objects and paths as
//! the reference walkers, and types for nearly everything.
//!
//! Each release, with and without the compiler's optimisations; for arm64 the newest selected release, or all with `GOREF_MATRIX=full`.

use crate::fixtures::unmet;
use crate::harness::corefile::{CoreFile, Truth, steady_core_of};
use crate::harness::dying::Writer;
use crate::harness::program::{Machine, Mode, Recipe};
use crate::harness::toolchain::{minor, newest, per_release};
use crate::harness::{expect, killed, required, root, tool};
use crate::matrix::full;
use crate::reference::check::{config, objects, paths};
use crate::reference::closures;
use crate::reference::dump::Dump;
use crate::reference::heap::{Memory, Object};
use crate::reference::sets;
use crate::reference::typed;
use goref_fast::image::{Inputs, Process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// Where they are, and the import path of that.
const SOURCE: &str = "testdata/stdlib";
const MODULE: &str = "goref.test/stdlib";

/// The programs, each a package; the executable's argument.
const PROGRAMS: [&str; 5] = ["web", "secure", "jobs", "compressor", "scheduler"];

/// What types must explain, in parts of a thousand: of bytes, and of objects with pointers.
fn typed_share(version: &str, program: &str) -> [u64; 2] {
    match (minor(version), program) {
        // Debug information has no variable for `own := make([]*task, 20)` in `idle`.
        (..=20, "scheduler") => [840, 830],
        // It does not say what closures in frames captured: the deferred one in `http2serverConn.runHandler` holds the request.
        (..=20, "secure") => [950, 970],
        (..=22, "secure") => [970, 980],
        _ => [990, 990],
    }
}

/// How many paths of a finding are shown.
const SHOWN: usize = 16;

per_release! {
    default: |version| check_all(version, Mode::Default.into());
    noopt: |version| check_all(version, Mode::NoOpt.into());
    emulator: |version| emulated(version, Mode::Default);
    emulator_noopt: |version| emulated(version, Mode::NoOpt);
}

/// For arm64: the newest release as it is compiled by default, or all.
fn emulated(version: &str, mode: Mode) {
    if full() || mode == Mode::Default && newest() == Some(version) {
        check_all(version, Recipe { machine: Machine::Arm64, ..mode.into() });
    }
}

fn check_all(version: &str, recipe: Recipe) {
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        let core = match recipe.machine {
            Machine::Host => steady_core_of(version, SOURCE, recipe, &[program]),
            Machine::Arm64 => {
                killed::core_of(version, SOURCE, recipe, &[program], Writer::Emulator, "").map(Into::into)
            }
        };
        let Some(file) = required(core) else { return };
        let findings = check(version, recipe, program, &file);
        wrong.extend(findings.iter().map(|finding| format!("{program}: {finding}")));
    }
    assert!(wrong.is_empty(), "{version} {}:\n{}", recipe.name(), wrong.join("\n"));
}

fn check(version: &str, recipe: Recipe, program: &str, file: &CoreFile) -> Vec<String> {
    let mut wrong = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let stats = dir.path().join("stats.json");
    // Exit status 0: the books balance and nothing is missing.
    let ran = tool::core_ok(&file.exe, &file.core, &["--threads", "1", "-v", "--stats", stats.to_str().unwrap()]);
    if tool::core_ok(&file.exe, &file.core, &["--threads", "3"]).bytes() != ran.bytes() {
        wrong.push("--threads 3 gives other bytes than --threads 1".to_owned());
    }
    wrong.extend(ran.stdout().lines().filter(|l| l.starts_with("soft error")).map(str::to_owned));
    let stats: Value = serde_json::from_slice(&fs::read(&stats).unwrap()).expect("JSON");
    if stats["totals"]["balanced"] != Value::Bool(true) {
        wrong.push(format!("the books do not balance: {}", stats["totals"]));
    }
    let profile = ran.decode();

    let inputs = Inputs::open(&file.exe, &file.core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let mut dump = Dump::read(&process);
    let config = config(&file.exe, &file.core);
    wrong.extend(objects(&process, &dump, &config, file.truth));
    let found = typed::walk(&mut dump, config.max_depth, config.fold);
    wrong.extend(paths(&process, &found, &config));

    let closures = closures::compare(&mut dump, &found.reached);
    wrong.extend(closures.wrong);
    if closures.functions < 5 || minor(version) >= 23 && closures.captures < 5 {
        wrong.push(format!("{} types of closures, {} captures", closures.functions, closures.captures));
    }

    // What the collector kept although nobody holds it is named object by object.
    let memory = dump.memory();
    let left = sets::minus(&sets::allocated(memory), &found.reached);
    let excused: Vec<_> = left.into_iter().filter(|o| sets::is_of_the_collection(&dump, *o)).collect();
    let sum = |objects: &mut dyn Iterator<Item = &Object>| {
        objects.fold((0, 0), |(n, bytes), o| (n + 1, bytes + memory.size(*o)))
    };
    let (objects, bytes) = sum(&mut excused.iter());
    let [reached_objects, reached_bytes] = profile.total();
    let all = Truth { bytes: reached_bytes + bytes, objects: reached_objects + objects };
    if all != file.truth {
        wrong.push(format!("{all:?} with {objects} objects of the collection; the collector says {:?}", file.truth));
    }

    // The typed share: of bytes, those of objects without any word that only a mask explains; of objects, only those with pointers.
    let (_, masked_bytes) = sum(&mut found.unexplained.keys());
    let (holders, _) = sum(&mut found.reached.iter().filter(|o| !memory.noscan(**o)));
    let (masked, _) = sum(&mut found.unexplained.keys().filter(|o| !memory.noscan(**o)));
    let share = |part: u64, all: u64| 1000 - part * 1000 / all;
    let shares = [share(masked_bytes, reached_bytes), share(masked, holders)];
    eprintln!(
        "{version} {} {program}: {reached_objects} objects, {reached_bytes} B; unexplained {masked_bytes} B and {masked} of {holders} \
         objects with pointers; excused {objects}; {} types of closures, {} captures",
        recipe.name(),
        closures.functions,
        closures.captures,
    );
    if shares.iter().zip(typed_share(version, program)).any(|(share, least)| *share < least) {
        wrong.push(format!("types explain {shares:?} of a thousand bytes, objects with pointers:"));
        wrong.extend(unexplained(&found, dump.memory()));
    }
    let expectations = expect::read_all(&root().join(SOURCE), MODULE);
    let of_program: Vec<_> = expectations.into_iter().filter(|e| e.at.starts_with(program)).collect();
    assert!(!of_program.is_empty(), "{program} states something");
    wrong.extend(unmet(&of_program, version, recipe, &profile));
    wrong
}

/// Where types end: the paths with most objects.
fn unexplained(found: &typed::Found, memory: Memory<'_>) -> Vec<String> {
    let mut by_path: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (object, path) in found.unexplained.iter().filter(|(o, _)| !memory.noscan(**o)) {
        let sum = by_path.entry(path).or_default();
        *sum = (sum.0 + 1, sum.1 + memory.size(*object));
    }
    let mut by_path: Vec<_> = by_path.into_iter().collect();
    by_path.sort_by_key(|(path, counts)| (std::cmp::Reverse(*counts), *path));
    let line =
        |(path, (n, bytes)): &(&str, (u64, u64))| format!("  {n} objects, {bytes} B: {}", path.replace('\n', " -> "));
    by_path.iter().take(SHOWN).map(line).collect()
}
