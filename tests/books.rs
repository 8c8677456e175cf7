//! The books against a program that states its own (`testdata/books`): `runtime.MemStats`, garbage of known sizes and kinds, and
//! finalizers and cleanups that wait. And the totals as a check: without one kind of roots, they must not add up to the truth.

use crate::harness::corefile::{Run, Truth, core_of, gcore, parse_truth};
use crate::harness::program::{Mode, Program};
use crate::harness::toolchain::{Toolchain, minor, per_release};
use crate::harness::{Outcome, required, sparse, tool};
use crate::reference::dump::Dump;
use goref_fast::image::{Inputs, Process};
use goref_fast::model::descriptors::Descriptors;
use goref_fast::model::heap::SpanId;
use goref_fast::roots::{Root, RootKind, Roots};
use goref_fast::traverse::targets::Resolver;
use goref_fast::traverse::world::World;
use goref_fast::traverse::{Options, walk};
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What `garbage` in the program makes, by `(objects, bytes)`; the sizes are size classes.
const SMALLS: (u64, u64) = (100, 100 * 48);
const BIGS: (u64, u64) = (7 + 3, 10 * 1024);
const BYTE_SLICES: (u64, u64) = (10, 10 * 3072);
const POINTERS: (u64, u64) = (2, 2 * 65536);
const LARGE: (u64, u64) = (1, 106_496);
const HOLDERS: (u64, u64) = (5, 5 * 16);
/// Kept by the finalizers of the holders.
const WEIGHTS: (u64, u64) = (5, 5 * 3072);
/// Objects with a cleanup; what `AddCleanup` makes of its own depends on the release.
const CLEANABLE: (u64, u64) = (4, 4 * 48);
/// Made last, without a flush of the allocation caches, if the program is told to.
const LATE_SMALLS: (u64, u64) = (33, 33 * 48);
const LATE_NOSCAN: (u64, u64) = (21, 21 * 64);
/// With them, the open block for tiny objects, which the allocation cache keeps alive.
const TINY_BLOCK: (u64, u64) = (1, 16);
/// Holders and their weights behind blocked finalizers; one is in the running one.
const QUEUED: u64 = 20;
const HOLDER_AND_WEIGHT: u64 = 16 + 3072;
/// Weights that are arguments of blocked cleanups.
const CLEANUPS: u64 = 4;

fn sum(parts: &[(u64, u64)]) -> (u64, u64) {
    parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

per_release! {
    default, 24, 25, 26, 27: |version| check_both(version, Mode::Default);
    noopt, 26: |version| check_both(version, Mode::NoOpt);
    counters, 24, 25, 26, 27: collected_twice;
    fewer_roots, 24, 25, 26, 27: without_a_kind_of_roots;
}

fn check_both(version: &str, mode: Mode) {
    for dirty in [false, true] {
        let Some(stated) = required(Stated::take(version, mode, dirty)) else { return };
        let wrong = check(&stated, version, dirty);
        assert!(
            wrong.is_empty(),
            "{version} dirty {dirty}:
{}",
            wrong.join(
                "
"
            )
        );
    }
}

/// A core and what the program said.
struct Stated {
    exe: PathBuf,
    core: PathBuf,
    numbers: BTreeMap<String, u64>,
}

impl Stated {
    /// Taken again until nothing but the garbage was allocated since the last collection.
    fn take(version: &str, mode: Mode, dirty: bool) -> Outcome<Self> {
        static TAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let program = Program::build(&Toolchain::get(version)?, "testdata/books", mode);
        let name = if dirty { "dirty" } else { "flushed" };
        let (core, said) = (program.dir.join(format!("core-{name}")), program.dir.join(format!("said-{name}")));
        let mut last = String::new();
        for _ in 0..8 {
            if let Ok(line) = fs::read_to_string(&said) {
                return Ok(Self { exe: program.exe, core, numbers: numbers(&line) });
            }
            last = attempt(&program, name, &core, &said)?;
        }
        panic!("the heap never held still: {last}");
    }

    fn get(&self, key: &str) -> u64 {
        *self.numbers.get(key).unwrap_or_else(|| panic!("{key} is not in {:?}", self.numbers))
    }

    fn amount(&self, key: &str) -> (u64, u64) {
        (self.get(&format!("{key}_objects")), self.get(&format!("{key}_bytes")))
    }
}

/// Writes core and numbers if the numbers are those that the program is made for; else says what they are.
fn attempt(program: &Program, name: &str, core: &Path, said: &Path) -> Outcome<String> {
    let mut run = Run::start(program, &[name])?;
    let truth = parse_truth(&run.line("TRUTH"), "TRUTH").expect("numbers after TRUTH");
    let first = run.line("BOOKS");
    run.line("WAIT");
    let raw = core.with_extension("gdb");
    let taken = gcore(run.child.id(), &raw);
    let second = run.release().into_iter().find(|l| l.starts_with("BOOKS")).unwrap_or_default();
    taken?;
    let (before, after) = (numbers(&first), numbers(&second));
    let amount = |key: &str| (before[&format!("{key}_objects")], before[&format!("{key}_bytes")]);
    let made = sum(&[SMALLS, BIGS, BYTE_SLICES, POINTERS, LARGE, HOLDERS, WEIGHTS]);
    let late = if name == "dirty" { sum(&[LATE_SMALLS, LATE_NOSCAN, TINY_BLOCK]) } else { (0, 0) };
    let as_made = amount("settled") == (truth.objects, truth.bytes) && amount("made") == made && amount("late") == late;
    // Allocating late may take another span with its bitmaps; nothing else may change.
    let may_grow = |key: &str| {
        name == "dirty" && key.starts_with(char::is_uppercase) && !["HeapAlloc", "HeapObjects"].contains(&key)
    };
    let same = before.iter().all(|(key, value)| may_grow(key) || after.get(key) == Some(value));
    if as_made && same {
        sparse::copy(&mut File::open(&raw).unwrap(), core).unwrap();
        fs::write(said, &second).unwrap();
    }
    let _ = fs::remove_file(&raw);
    Ok(format!("{truth:?}\n{first}\n{second}"))
}

fn numbers(line: &str) -> BTreeMap<String, u64> {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
}

/// Collects what is not as it must be.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.0.push(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }
}

/// `objects` and `bytes` at a path of keys.
fn amount(stats: &Value, path: &str) -> (u64, u64) {
    let key = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") };
    (number(stats, &key("objects")), number(stats, &key("bytes")))
}

fn number(stats: &Value, path: &str) -> u64 {
    let value = stats.pointer(&format!("/{path}")).unwrap_or_else(|| panic!("no {path} in {stats}"));
    value.as_u64().unwrap_or_else(|| panic!("{path} is {value}"))
}

fn run(exe: &Path, core: &Path) -> (Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stats.json");
    let ran = tool::core_ok(exe, core, &["--stats", file.to_str().unwrap()]);
    (serde_json::from_slice(&fs::read(&file).unwrap()).expect("JSON"), ran.stdout())
}

fn check(stated: &Stated, version: &str, dirty: bool) -> Vec<String> {
    let (stats, report) = run(&stated.exe, &stated.core);
    let mut wrong = Findings::default();
    let late: &[(u64, u64)] = if dirty { &[LATE_SMALLS, LATE_NOSCAN] } else { &[] };

    // The totals.
    let garbage = sum(&[&[SMALLS, BIGS, BYTE_SLICES, POINTERS, LARGE, HOLDERS, CLEANABLE], late].concat());
    let settled = stated.amount("settled");
    let cleanups = stated.amount("cleanups");
    let reachable =
        (settled.0 + WEIGHTS.0 + cleanups.0 - CLEANABLE.0, settled.1 + WEIGHTS.1 + cleanups.1 - CLEANABLE.1);
    let reachable = if dirty { sum(&[reachable, TINY_BLOCK]) } else { reachable };
    let (reached, unreachable) = (amount(&stats, "totals/reachable"), amount(&stats, "totals/unreachable"));
    wrong.equal("reachable", reached, reachable);
    wrong.equal("unreachable", unreachable, garbage);
    let all = sum(&[reached, unreachable]);
    wrong.equal("HeapObjects, HeapAlloc", all, (stated.get("HeapObjects"), stated.get("HeapAlloc")));
    wrong.equal("HeapInuse", number(&stats, "totals/heap_in_use/bytes"), stated.get("HeapInuse"));
    wrong.equal("balanced", stats.pointer("/totals/balanced"), Some(&Value::Bool(true)));

    // By span class.
    let classes = stats["span_classes"].as_array().expect("span classes");
    for part in ["reachable", "unreachable", "free_slots"] {
        let by_class: Vec<_> = classes.iter().map(|class| amount(class, part)).collect();
        wrong.equal(part, sum(&by_class), amount(&stats, &format!("totals/{part}")));
    }
    for class in classes {
        let parts = ["reachable", "unreachable", "free_slots"].map(|part| amount(class, part).1);
        let explained = parts.iter().sum::<u64>() + number(class, "span_overhead_bytes");
        wrong.equal(&format!("{class}"), explained, number(class, "heap_in_use_bytes"));
    }

    // Beside the heap.
    let beside = |key: &str| number(&stats, &format!("beside_heap/{key}"));
    for (key, expected) in [
        ("stacks", stated.get("StackInuse")),
        ("thread_stacks", stated.get("StackSys") - stated.get("StackInuse")),
        ("heap_free", stated.get("HeapIdle") - stated.get("HeapReleased")),
        ("heap_released", stated.get("HeapReleased")),
        ("mspan_inuse", stated.get("MSpanInuse")),
        ("mspan_sys", stated.get("MSpanSys")),
        ("mcache_inuse", stated.get("MCacheInuse")),
        ("mcache_sys", stated.get("MCacheSys")),
        ("buckhash_sys", stated.get("BuckHashSys")),
        ("gc_sys", stated.get("GCSys")),
        ("other_sys", stated.get("OtherSys")),
    ] {
        wrong.equal(key, beside(key), expected);
    }
    let outside = ["stacks", "thread_stacks", "heap_free", "heap_released"];
    let internal = ["mspan_sys", "mcache_sys", "buckhash_sys", "gc_sys", "other_sys"];
    let sys: u64 = outside.iter().chain(&internal).map(|key| beside(key)).sum();
    wrong.equal("Sys", sys + stated.get("HeapInuse"), stated.get("Sys"));

    counters(&stats, stated, dirty, &mut wrong);
    kinds(&stats, dirty, &mut wrong);
    queues(&stats, version, &mut wrong);
    for text in ["beside it: stacks", "unreachable: ", "main.Big 10240 B (10 objects)", "queued finalizers: "] {
        if !report.contains(text) {
            wrong.0.push(format!("the report lacks {text:?}: {report}"));
        }
    }
    if report.contains("runtime counter") {
        wrong.0.push(format!("the report says that a counter differs: {report}"));
    }
    wrong.0
}

/// What the runtime counted is what the spans have, flushed or not.
fn counters(stats: &Value, stated: &Stated, dirty: bool, wrong: &mut Findings) {
    let counters = stats["runtime_counters"].as_array().expect("counters");
    wrong.equal("number of counters", counters.len(), 10);
    for counter in counters.iter().filter(|c| c["exact"] == Value::Bool(true)) {
        wrong.equal(&format!("{counter}"), counter["difference"].as_i64(), Some(0));
    }
    let allocated = counters.iter().find(|c| c["counter"] == "gcController.totalAlloc - totalFree").expect("a counter");
    let unflushed = stated.get("HeapAlloc") - number(allocated, "runtime");
    wrong.equal("some allocations are not flushed", unflushed > 0, dirty);
}

/// What the garbage is.
fn kinds(stats: &Value, dirty: bool, wrong: &mut Findings) {
    let garbage = &stats["garbage"];
    let finalizable = (HOLDERS.0 + 3, HOLDERS.1 + 3 * 1024);
    wrong.equal("finalizable", amount(garbage, "finalizable"), finalizable);
    wrong.equal("with cleanup", amount(garbage, "with_cleanup"), CLEANABLE);
    wrong.equal("unswept", amount(garbage, "unswept"), (0, 0));
    let list = |key: &str| garbage[key].as_array().expect("a list").clone();
    let types: Vec<_> = list("types").iter().map(|t| (t["type"].to_string(), amount(t, ""))).collect();
    wrong.equal("types", types, vec![("\"*main.Small\"".to_owned(), POINTERS), ("\"main.Big\"".to_owned(), BIGS)]);
    let late = |amount: (u64, u64)| if dirty { amount } else { (0, 0) };
    let mut expected = vec![
        ((0, true), LARGE),
        ((3072, true), BYTE_SLICES),
        ((48, false), sum(&[SMALLS, CLEANABLE, late(LATE_SMALLS)])),
        ((64, true), late(LATE_NOSCAN)),
        ((16, false), HOLDERS),
    ];
    expected.retain(|(_, amount)| amount.0 > 0);
    let noscan = |c: &Value| c["noscan"].as_bool().expect("true or false");
    let classes: Vec<_> =
        list("classes").iter().map(|c| ((number(c, "slot_bytes"), noscan(c)), amount(c, ""))).collect();
    wrong.equal("classes", classes, expected);
}

/// What waits for its finalizer or cleanup, and who is in its way.
fn queues(stats: &Value, version: &str, wrong: &mut Findings) {
    let of = |key: &str| amount(stats, &format!("finalizers/{key}/held"));
    let records = |key: &str| number(stats, &format!("finalizers/{key}/records"));
    let kept = of("set_finalizers");
    wrong.equal("weights of the holders", kept.0 >= WEIGHTS.0 && kept.1 >= WEIGHTS.1, true);
    let busy = stats["finalizers"]["goroutines"].as_array().expect("goroutines");
    let runs = |what: &str| busy.iter().filter(|g| g["runs"] == what).collect::<Vec<_>>();
    let [runner] = runs("finalizers")[..] else { return wrong.equal("goroutine of finalizers", busy.len(), 1) };
    wrong.equal("state", runner["state"].as_str(), Some("chan receive"));
    if minor(version) == 24 {
        // Cleanups are in the same queue; which of all runs is not known.
        wrong.equal("records", records("queued_finalizers"), QUEUED + CLEANUPS);
        let held = sum(&[of("queued_finalizers"), amount(runner, "held")]);
        wrong.equal("held", held.1 >= QUEUED * HOLDER_AND_WEIGHT + CLEANUPS * 3072, true);
        return;
    }
    wrong.equal("records", records("queued_finalizers"), QUEUED);
    let (waiting, running) = (2 * (QUEUED - 1), (QUEUED - 1) * HOLDER_AND_WEIGHT);
    wrong.equal("queued finalizers", of("queued_finalizers"), (waiting, running));
    // And the 16 bytes that `runFinalizers` passes arguments in.
    wrong.equal("running finalizer", amount(runner, "held"), (3, HOLDER_AND_WEIGHT + 16));
    wrong.equal("through", runner["through"].as_str(), Some("main.queue.func1.h"));
    let in_frames: Vec<_> = runs("cleanups").iter().map(|g| amount(g, "held")).collect();
    wrong.equal("a cleanup runs", in_frames.is_empty(), false);
    let held = sum(&[of("queued_cleanups"), sum(&in_frames)]);
    wrong.equal(&format!("weights of cleanups: {held:?}"), held.1 >= CLEANUPS * 3072, true);
}

/// After two collections everything allocated is reachable, and every counter of the runtime follows from the spans. The pacer's estimate
/// counts a span that was taken since as a whole and takes its free slots back later, not its tail and bitmap: that is all it may differ.
fn collected_twice(version: &str) {
    let Some(file) = required(core_of(version, "testdata/programs", Mode::Default, &[])) else { return };
    let (stats, _) = run(&file.exe, &file.core);
    let classes = stats["span_classes"].as_array().expect("span classes");
    let of_class = |class: &Value| class["span_overhead_bytes"].as_i64().zip(class["spans"].as_i64());
    let overheads: BTreeSet<i64> = classes.iter().filter_map(of_class).map(|(bytes, spans)| bytes / spans).collect();
    for counter in stats["runtime_counters"].as_array().expect("counters") {
        let difference = counter["difference"].as_i64();
        let taken_since = counter["exact"] == false
            && difference.is_some_and(|d| overheads.iter().any(|a| overheads.iter().any(|b| d == *a || d == a + b)));
        assert!(difference == Some(0) || taken_since, "{version}: {counter}");
    }
}

/// Every kind of roots.
const KINDS: [RootKind; 11] = [
    RootKind::Global,
    RootKind::FrameVariable,
    RootKind::FrameSlot,
    RootKind::FinalizerObject,
    RootKind::FinalizerFunction,
    RootKind::CleanupFunction,
    RootKind::CleanupArgument,
    RootKind::WeakHandle,
    RootKind::TinyBlock,
    RootKind::Data,
    RootKind::Bss,
];

/// A walk from fewer roots than the collector's. Whatever is left out, the totals tell: less is reached than the collector counted.
fn without_a_kind_of_roots(version: &str) {
    let Some(file) = required(core_of(version, "testdata/programs", Mode::Default, &[])) else { return };
    let Some(stated) = required(Stated::take(version, Mode::Default, true)) else { return };
    let mut noticed: BTreeMap<RootKind, Truth> = BTreeMap::new();
    for (exe, core, truth) in [(&file.exe, &file.core, Some(file.truth)), (&stated.exe, &stated.core, None)] {
        let inputs = Inputs::open(exe, core, None).expect("open");
        let process = Process::parse(&inputs).expect("parse");
        let dump = Dump::read(&process);
        let full = reached(&dump, None);
        // In Go 1.24 the collection itself leaves a few objects that nobody holds.
        if let Some(truth) = truth.filter(|_| minor(version) > 24) {
            assert_eq!(full, truth, "{version}: with all roots");
        }
        for kind in KINDS {
            let without = reached(&dump, Some(kind));
            if without.bytes < full.bytes && without.objects < full.objects {
                let (bytes, objects) = (full.bytes - without.bytes, full.objects - without.objects);
                noticed.insert(kind, Truth { bytes, objects });
            }
        }
    }
    eprintln!("{version}: missing without {noticed:?}");
    // Up to 1.25 a cleanup's argument is captured by its function.
    let expected = KINDS.into_iter().filter(|k| *k != RootKind::CleanupArgument || minor(version) > 25);
    let unnoticed: Vec<_> = expected.filter(|kind| !noticed.contains_key(kind)).collect();
    assert!(unnoticed.is_empty(), "{version}: nobody notices that these are left out: {unnoticed:?}");
}

/// What the product's walk reaches by masks from all roots but those of one kind, counted by its marks per span.
fn reached(dump: &Dump<'_, '_>, without: Option<RootKind>) -> Truth {
    let keep = |kind: RootKind| without != Some(kind);
    let roots = Roots {
        roots: dump.roots.roots.iter().filter(|r| keep(r.kind)).map(|r| Root { ty: None, ..*r }).collect(),
        words: dump.roots.words.clone(),
        mask: dump.roots.mask.clone(),
        labels: dump.roots.labels.clone(),
        // Here the walk finds the words that no variable names.
        segments: dump
            .roots
            .segments
            .iter()
            .filter(|s| keep(if s.is_bss { RootKind::Bss } else { RootKind::Data }))
            .cloned()
            .collect(),
        ..Roots::default()
    };
    let descriptors = Descriptors::new(&dump.types, &dump.debug.constants).expect("descriptors");
    let world = World::new(dump.image(), &dump.heap, &dump.masks, &dump.modules, &descriptors);
    let resolver = Resolver::new(&dump.debug, dump.types.clone(), dump.process.load_bias, false);
    let walked = walk(&world, resolver, &roots, Options { max_depth: 256, fold: true }, &|_| {});
    let spans = (0u32..).zip(&walked.reached_in);
    spans.fold(Truth { bytes: 0, objects: 0 }, |sum, (id, n)| Truth {
        bytes: sum.bytes + u64::from(*n) * dump.heap.span(SpanId(id)).elem_size(),
        objects: sum.objects + u64::from(*n),
    })
}
