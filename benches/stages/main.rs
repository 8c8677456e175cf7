//! Speed of each stage, on one thread and on all: `cargo bench`, or `cargo bench -- --quick` for a first look.
//!
//! The bundled sample shows fixed costs, for it is small; set `GOREF_BENCH_DUMPS` to folders with `exe`, `core` and `truth.txt`, separated
//! by `:`, to measure heaps of your own besides (`perf/run --keep` leaves such folders in `perf/.cache`). The walk's steps (scan programs,
//! claims, the order of levels) are measured inside of it, on one thread, where they do not overlap; a walk `without types`
//! follows the collector's masks alone.
//!
//! A fast wrong answer does not count: before anything is timed, the books must balance and reachable must be what the collector
//! counted, as `truth.txt` says (if there is one), with every number of threads that is measured; lookups, masks and profiles are
//! compared with a slower way to the same answer.
//!
//! Each iteration of a stage of the pipeline starts from a model of its own, made outside of the measured time: caches of types,
//! masks and frames are filled in passing by the stage that asks first, and a second round on the same model would find them warm.

mod dump;
mod heap;
mod profile;

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use dump::Dump;
use goref_fast::aggregate::Amount;
use goref_fast::config::{Config, Verbosity};
use goref_fast::image::{Inputs, Process};
use goref_fast::output::RunResult;
use goref_fast::pipeline;
use goref_fast::progress::Progress;
use goref_fast::timing::Phases;
use goref_fast::traverse::{StepTimes, Walked};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::num::NonZeroUsize;
use std::time::Duration;

/// As the program itself.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole analysis, checked.
fn checked_result(process: &Process<'_>, config: &Config, expected: Option<Amount>) -> RunResult {
    let (progress, mut phases) = (Progress::silent(), Phases::default());
    let result = pipeline::analyze(process, &process.image, config, &progress, &mut phases).expect("analysis");
    assert!(result.totals.balanced(), "the books of {} do not balance: {}", config.core.display(), result.totals);
    if let Some(expected) = expected {
        assert_eq!(result.totals.reachable(), expected, "{}: found against expected", config.core.display());
    }
    result
}

/// Measures one stage: `setup` is not timed, nor is the end of what `run` returns.
fn stage<I: Send, T: Send>(
    criterion: &mut Criterion,
    (name, dump): (&str, &str),
    throughput: Throughput,
    pools: &[ThreadPool],
    setup: impl Fn() -> I + Sync,
    run: impl Fn(I) -> T + Sync,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(throughput).sample_size(10).sampling_mode(SamplingMode::Flat);
    for pool in pools {
        let id = BenchmarkId::new(dump, format!("threads={}", pool.current_num_threads()));
        group.bench_function(id, |bencher| {
            let setup = || pool.install(&setup);
            bencher.iter_batched(setup, |input| pool.install(|| run(input)), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Measures the steps of a walk by its own clocks.
fn steps(criterion: &mut Criterion, dump: &str, objects: u64, pool: &ThreadPool, walk: impl Fn() -> Walked + Sync) {
    type Step = (&'static str, fn(&StepTimes) -> Duration);
    let all: [Step; 4] = [
        ("scan programs", |times| times.expand),
        ("claims", |times| times.claim),
        ("order of levels", |times| times.arrange),
        ("small levels", |times| times.chase),
    ];
    for (step, of) in all {
        let mut group = criterion.benchmark_group(step);
        group.throughput(Throughput::Elements(objects)).sample_size(10).sampling_mode(SamplingMode::Flat);
        group.bench_function(dump, |bencher| {
            bencher.iter_custom(|rounds| {
                let round = |_| {
                    let walked = pool.install(&walk);
                    assert_eq!(walked.stats.objects, objects, "{dump}: objects reached");
                    of(&walked.times)
                };
                (0..rounds).map(round).sum()
            });
        });
        group.finish();
    }
}

/// A pool of one thread and, if there are more, one of all.
fn pools() -> Vec<ThreadPool> {
    let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut counts = vec![1, all];
    counts.dedup();
    let pool = |threads: usize| ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    counts.into_iter().map(pool).collect()
}

fn measure(criterion: &mut Criterion, dump: &Dump, pools: &[ThreadPool]) {
    let name = dump.name.as_str();
    let config = Config {
        exe: dump.exe.clone(),
        core: dump.core.clone(),
        attach: None,
        output: "never-written".into(),
        threads: NonZeroUsize::MIN,
        max_depth: 256,
        max_stacks: 50_000,
        fold: true,
        types: true,
        stats: None,
        tmpdir: None,
        verbosity: Verbosity::Quiet,
    };
    let untyped = Config { types: false, ..config.clone() };
    let open = || Inputs::open(&dump.exe, &dump.core, None).expect("inputs");
    let inputs = open();
    let process = Process::parse(&inputs).expect("process");
    let process = &process;

    let mut expected = dump::truth(&dump.core);
    let mut result = RunResult::default();
    for pool in pools {
        pool.install(|| {
            result = checked_result(process, &config, expected);
            expected = Some(result.totals.reachable());
            checked_result(process, &untyped, expected);
        });
    }
    let reachable = result.totals.reachable();
    let model_of = || dump::model(process, dump::debug_information(process));
    println!("{name}: reachable {} objects, {} bytes", reachable.objects, reachable.bytes);

    // A file that is only mapped has no speed in bytes: then it is files per second.
    let (length, unpacked) = (std::fs::metadata(&dump.core).expect("a core").len(), inputs.core().data().len() as u64);
    let read = if length == unpacked { Throughput::Elements(2) } else { Throughput::Bytes(unpacked) };
    let opened = |()| {
        let inputs = open();
        Process::parse(&inputs).expect("process").threads.len()
    };
    stage(criterion, ("open and parse", name), read, pools, || (), opened);
    let exe = Throughput::Bytes(inputs.exe().data().len() as u64);
    stage(criterion, ("debug information", name), exe, pools, || (), |()| dump::debug_information(process));
    let slots = Throughput::Elements(result.totals.heap_in_use.objects);
    let debug = || dump::debug_information(process);
    stage(criterion, ("model", name), slots, pools, debug, |debug| dump::model(process, debug));
    heap::measure(criterion, name, pools, &process.image, &model_of());
    let words = Throughput::Elements(dump::collect(process, &model_of()).words.len() as u64);
    stage(criterion, ("roots", name), words, pools, model_of, |model| (dump::collect(process, &model), model));
    for (group, config) in [("walk", &config), ("walk without types", &untyped)] {
        let with_roots = || {
            let model = model_of();
            (dump::collect(process, &model), model)
        };
        let objects = Throughput::Elements(reachable.objects);
        stage(criterion, (group, name), objects, pools, with_roots, |(roots, mut model)| {
            (dump::walk(process, &mut model, &roots, config), roots, model)
        });
    }
    steps(criterion, name, reachable.objects, &pools[0], || {
        let mut model = model_of();
        let roots = dump::collect(process, &model);
        dump::walk(process, &mut model, &roots, &config)
    });
    profile::measure(criterion, name, &pools[..1], &result.tree, &result.target, config.max_stacks);
}

fn stages(criterion: &mut Criterion) {
    let pools = pools();
    profile::measure_synthetic(criterion, &pools[..1]);
    for dump in dump::dumps() {
        measure(criterion, &dump, &pools);
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
