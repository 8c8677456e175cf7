//! The tests: every fixture core against the reference walkers.

use super::dump::Dump;
use super::heap::Memory;
use super::sets::{self, describe};
use super::{masked, typed};
use crate::harness::corefile::{CoreFile, core_of};
use crate::harness::program::Mode;
use crate::harness::required;
use crate::harness::toolchain::{newest, selected};
use goref_fast::config::{Config, Verbosity};
use goref_fast::image::{Image, Inputs, Process};
use goref_fast::pipeline::model_and_walk;
use goref_fast::progress::Progress;
use goref_fast::timing::Phases;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// How many objects of a difference are described.
const SHOWN: usize = 6;

fn config(exe: &Path, core: &Path) -> Config {
    Config {
        exe: exe.to_owned(),
        core: core.to_owned(),
        output: "-".into(),
        threads: 2.try_into().expect("not zero"),
        max_depth: 256,
        max_stacks: 50_000,
        fold: true,
        types: true,
        stats: None,
        tmpdir: None,
        verbosity: Verbosity::Quiet,
    }
}

macro_rules! per_toolchain {
    ($($name:ident: $version:literal, $mode:ident;)*) => {
        $(#[test] fn $name() {
            if selected($version) && let Some(file) = required(core_of($version, "testdata/programs", Mode::$mode, &[])) {
                check(concat!($version, " ", stringify!($mode)), &file);
            }
        })*
    };
}

per_toolchain! {
    go_1_24_default: "1.24.11", Default;
    go_1_24_noopt: "1.24.11", NoOpt;
    go_1_25_default: "1.25.5", Default;
    go_1_25_noopt: "1.25.5", NoOpt;
    go_1_26_default: "1.26.6", Default;
    go_1_26_noopt: "1.26.6", NoOpt;
    go_1_27_default: "1.27.3", Default;
    go_1_27_noopt: "1.27.3", NoOpt;
}

/// A million objects of all kinds.
#[test]
fn mix() {
    let Some(version) = newest() else { return };
    let args = ["-shape", "mix", "-objects", "1000000"];
    if let Some(file) = required(core_of(version, "perf/gen", Mode::Default, &args)) {
        check("mix", &file);
    }
}

fn check(name: &str, file: &CoreFile) {
    let inputs = Inputs::open(&file.exe, &file.core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let image: &dyn Image = &process.image;
    let mut wrong = Vec::new();
    for types in [true, false] {
        let config = Config { types, ..config(&file.exe, &file.core) };
        let (model, walked, roots) =
            model_and_walk(&process, image, &config, &Progress::silent(), &mut Phases::default()).expect("walk");
        let memory = Memory { image, heap: &model.heap, masks: &model.masks };
        let mut differ = |what: &str, set: Vec<super::heap::Object>| {
            if !set.is_empty() {
                wrong.push(format!("types {types}: {} objects are {what}:", set.len()));
                wrong.extend(set.iter().take(SHOWN).map(|o| format!("  {}", describe(memory, &roots, *o))));
            }
        };
        let product = sets::of_walk(memory, &walked);
        let reference = masked::reach(memory, &roots);
        differ("reached by the product, not by the reference", sets::minus(&product, &reference));
        differ("reached by the reference, not by the product", sets::minus(&reference, &product));
        let allocated: HashSet<_> = sets::allocated(memory);
        differ("reached and not allocated", sets::minus(&product, &allocated));
        differ("allocated and not reached", sets::minus(&allocated, &product));
        // The sum over paths is the sum over marks.
        let bytes: u64 = product.iter().map(|o| memory.size(*o)).sum();
        let paths = walked.paths.nodes().iter().fold((0, 0), |(o, b), n| (o + n.objects, b + n.bytes));
        if paths != (product.len() as u64, bytes) {
            wrong.push(format!("types {types}: paths hold {paths:?}, marks ({}, {bytes})", product.len()));
        }
    }
    wrong.extend(paths(&process, &config(&file.exe, &file.core)));
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

/// How the product's paths differ from those of the typed reference.
fn paths(process: &Process<'_>, config: &Config) -> Vec<String> {
    let mut dump = Dump::read(process);
    let (reference, _) = typed::walk(&mut dump, config.max_depth, config.fold);
    let (_, walked, _) =
        model_and_walk(process, &process.image, config, &Progress::silent(), &mut Phases::default()).expect("walk");
    let nodes = walked.paths.nodes();
    let mut product: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for node in nodes.iter().filter(|n| n.objects > 0) {
        let mut frames = Vec::new();
        let mut at = Some(node);
        while let Some(node) = at {
            frames.push(&*walked.labels[node.label.0 as usize]);
            at = nodes.get(node.parent as usize);
        }
        frames.reverse();
        let sum = product.entry(frames.join("\n")).or_default();
        sum.0 += node.objects;
        sum.1 += node.bytes;
    }
    let all: std::collections::BTreeSet<_> = product.keys().chain(reference.keys()).collect();
    let of = |map: &BTreeMap<String, (u64, u64)>, path: &str| map.get(path).copied().unwrap_or_default();
    let differ = all.into_iter().filter(|path| of(&product, path) != of(&reference, path));
    let differ: Vec<_> = differ
        .map(|path| {
            let (p, r) = (of(&product, path), of(&reference, path));
            format!("product {p:?}, reference {r:?}: {}", path.replace('\n', " -> "))
        })
        .collect();
    match differ.len() {
        0 => differ,
        n => [format!("{n} of {} paths differ:", reference.len())]
            .into_iter()
            .chain(differ.into_iter().take(40))
            .collect(),
    }
}
