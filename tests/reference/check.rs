//! The tests: every fixture core against the reference walkers.

use super::dump::Dump;
use super::heap::Memory;
use super::sets::{self, describe};
use super::typed::Found;
use super::{edges, masked, typed};
use crate::harness::corefile::{CoreFile, Truth, core_of};
use crate::harness::program::Mode;
use crate::harness::required;
use crate::harness::toolchain::{newest_for_generator, per_release};
use goref_fast::config::{Config, Verbosity};
use goref_fast::image::{Image, Inputs, Process};
use goref_fast::output::RunResult;
use goref_fast::pipeline::{Model, analyze, analyze_copying, model_and_walk};
use goref_fast::progress::Progress;
use goref_fast::roots::Roots;
use goref_fast::timing::Phases;
use goref_fast::traverse::Walked;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many objects of a difference are described.
const SHOWN: usize = 6;
/// How many paths of a difference are listed.
const SHOWN_PATHS: usize = 40;

/// As the command line has it by default.
pub fn config(exe: &Path, core: &Path) -> Config {
    Config {
        exe: exe.to_owned(),
        core: core.to_owned(),
        attach: None,
        output: "-".into(),
        threads: 2.try_into().expect("not zero"),
        max_depth: 256,
        max_stacks: 50_000,
        fold: true,
        types: true,
        stats: None,
        search: Default::default(),
        tmpdir: None,
        verbosity: Verbosity::Quiet,
    }
}

per_release! {
    default: |version| check_fixtures(version, Mode::Default);
    noopt: |version| check_fixtures(version, Mode::NoOpt);
}

fn check_fixtures(version: &str, mode: Mode) {
    if let Some(file) = required(core_of(version, "testdata/programs", mode, &[])) {
        check(&format!("{version} {}", mode.name()), &file);
    }
}

/// The heap of a dump that somebody else took need not be what the last collection left of it.
pub const UNKNOWN: Truth = Truth { bytes: 0, objects: 0 };

/// Any dump: `GOREF_REFERENCE` names folders with `exe` and `core`, separated by colons.
#[test]
fn named() {
    let Ok(folders) = std::env::var("GOREF_REFERENCE") else { return };
    for folder in folders.split(':').map(PathBuf::from) {
        let (exe, core) = (folder.join("exe"), folder.join("core"));
        check(&folder.display().to_string(), &CoreFile { exe, core, truth: UNKNOWN });
    }
}

/// A generated heap, smaller than those of `crate::shapes`: a naive walk takes its time.
fn shape(shape: &str, size: &str) {
    let Some(version) = newest_for_generator() else { return };
    let args = ["-shape", shape, "-size", size];
    if let Some(file) = required(core_of(version, "perf/gen", Mode::Default, &args)) {
        check(shape, &file);
    }
}

/// All kinds of objects.
#[test]
fn mix() {
    shape("mix", "1000000");
}

/// As many levels as nodes.
#[test]
fn list() {
    shape("list", "30000");
}

#[test]
fn tree() {
    shape("tree", "30000");
}

#[test]
fn bigmap() {
    shape("bigmap", "30000");
}

#[test]
fn selfish() {
    shape("selfish", "10000");
}

#[test]
fn goroutines() {
    shape("goroutines", "3000");
}

/// Every comparison that there is.
pub fn check(name: &str, file: &CoreFile) {
    let inputs = Inputs::open(&file.exe, &file.core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let config = config(&file.exe, &file.core);
    let mut wrong = Vec::new();
    let mut dump = Dump::read(&process);
    for types in [true, false] {
        wrong.extend(objects(&process, &dump, &Config { types, ..config.clone() }, file.truth));
    }
    for (max_depth, fold) in [(256, true), (256, false), (4, true)] {
        let found = typed::walk(&mut dump, max_depth, fold);
        wrong.extend(paths(&process, &found, &Config { max_depth, fold, ..config.clone() }));
    }
    wrong.extend(copying(&process, &config));
    wrong.extend(edges::check(&process, &config));
    wrong.extend(edges::check(&process, &Config { types: false, ..config }));
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

/// How the product's set of objects differs from that of the reference and from the collector's.
pub fn objects(process: &Process<'_>, dump: &Dump<'_, '_>, config: &Config, truth: Truth) -> Vec<String> {
    let image: &dyn Image = &process.image;
    let (model, walked, roots) = walk(process, config);
    let memory = Memory { image, heap: &model.heap, masks: &model.masks };
    let product = sets::of_walk(memory, &walked);
    let reference = masked::reach(memory, &roots);
    let allocated = sets::allocated(memory);
    let mut unreached = sets::minus(&allocated, &product);
    // Nobody holds it, and that is as it should be.
    unreached.retain(|o| truth != UNKNOWN && !sets::is_of_the_collection(dump, *o));
    let mut wrong = Vec::new();
    for (what, set) in [
        ("reached by the product, not by the reference", sets::minus(&product, &reference)),
        ("reached by the reference, not by the product", sets::minus(&reference, &product)),
        ("reached and not allocated", sets::minus(&product, &allocated)),
        ("allocated and not reached", unreached),
    ] {
        if !set.is_empty() {
            wrong.push(format!("with types {}: {} objects are {what}:", config.types, set.len()));
            wrong.extend(set.iter().take(SHOWN).map(|o| format!("  {}", describe(memory, &roots, *o))));
        }
    }
    let marks = (product.len() as u64, product.iter().map(|o| memory.size(*o)).sum());
    let paths = walked.paths.nodes().iter().fold((0, 0), |(o, b), n| (o + n.objects, b + n.bytes));
    if paths != marks {
        wrong.push(format!(
            "with types {}: the paths hold (objects, bytes) {paths:?}, the marks {marks:?}",
            config.types
        ));
    }
    wrong
}

/// The product's own walk.
pub fn walk(process: &Process<'_>, config: &Config) -> (Model, Walked, Roots) {
    model_and_walk(process, &process.image, config, &Progress::silent(), &mut Phases::default()).expect("walk")
}

type Counts = BTreeMap<String, (u64, u64)>;

/// How the product's paths differ from those of the typed reference.
pub fn paths(process: &Process<'_>, found: &Found, config: &Config) -> Vec<String> {
    let (model, walked, _) = walk(process, config);
    let product = by_path(&walked);
    let all: BTreeSet<_> = product.keys().chain(found.paths.keys()).collect();
    let of = |counts: &Counts, path: &str| counts.get(path).copied().unwrap_or_default();
    let differ = all.into_iter().filter(|path| of(&product, path) != of(&found.paths, path));
    let differ: Vec<_> = differ
        .map(|path| {
            let (p, r) = (of(&product, path), of(&found.paths, path));
            format!("  product {p:?}, reference {r:?}: {}", path.replace('\n', " -> "))
        })
        .collect();
    let mut wrong = Vec::new();
    let memory = Memory { image: &process.image, heap: &model.heap, masks: &model.masks };
    if found.reached != sets::of_walk(memory, &walked) {
        wrong.push("the typed reference reaches other objects".to_owned());
    }
    if !differ.is_empty() {
        let (depth, fold) = (config.max_depth, config.fold);
        let (n, all) = (differ.len(), found.paths.len());
        wrong.push(format!("depth {depth}, fold {fold}: {n} of {all} paths differ:"));
        wrong.extend(differ.into_iter().take(SHOWN_PATHS));
    }
    wrong.extend(found.contradictions.iter().cloned());
    wrong
}

/// Objects and bytes by the frames' text.
fn by_path(walked: &Walked) -> Counts {
    let nodes = walked.paths.nodes();
    let mut counts = Counts::new();
    for node in nodes.iter().filter(|n| n.objects > 0) {
        let up = std::iter::successors(Some(node), |n| nodes.get(n.parent as usize));
        let mut frames: Vec<&str> = up.map(|n| &*walked.labels[n.label.0 as usize]).collect();
        frames.reverse();
        let sum = counts.entry(frames.join("\n")).or_default();
        sum.0 += node.objects;
        sum.1 += node.bytes;
    }
    counts
}

/// Whether the result is another if every byte is copied out of the core.
fn copying(process: &Process<'_>, config: &Config) -> Option<String> {
    let mapped = analyze(process, &process.image, config, &Progress::silent(), &mut Phases::default());
    let (mapped, copied) = (mapped.expect("analyze"), analyze_copying(process, config).expect("analyze a copy"));
    let text = |r: &RunResult| format!("{:?} {:?} {:?} {:?} {:?}", r.types, r.totals, r.walk, r.incidents, r.partial);
    let same = mapped.tree == copied.tree && text(&mapped) == text(&copied);
    (!same).then(|| format!("copied: {}\nmapped: {}", text(&copied), text(&mapped)))
}
