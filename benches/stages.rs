//! Speed of each stage, on one thread and on all: `cargo bench`, or `cargo bench -- --quick` for a first look.
//!
//! The bundled sample shows fixed costs, for it is small; set `GOREF_BENCH_EXE` and `GOREF_BENCH_CORE` to measure a heap of your
//! own besides (`perf/run` makes such pairs and keeps them in `perf/.cache`). A fast wrong answer does not count: before
//! anything is timed, the books must balance and reachable must be what the collector counted, as `truth.txt` beside the core says
//! (if there is one), with every number of threads that is measured.
//!
//! Each iteration starts from a model of its own, made outside of the measured time: caches of types, masks and frames are filled
//! in passing by the stage that asks first, and a second round on the same model would find them warm.

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use goref_fast::aggregate::Amount;
use goref_fast::config::{Config, Verbosity};
use goref_fast::image::{Inputs, Process};
use goref_fast::model::descriptors::Descriptors;
use goref_fast::model::dwarf::DebugInfo;
use goref_fast::model::heap::{Heap, TypeMasks};
use goref_fast::model::layout::RuntimeLayout;
use goref_fast::model::modules::Modules;
use goref_fast::model::queues::Queues;
use goref_fast::output::{Outputs, RunResult};
use goref_fast::pipeline;
use goref_fast::progress::Progress;
use goref_fast::roots::{self, Roots, Sources};
use goref_fast::timing::Phases;
use goref_fast::traverse::targets::Resolver;
use goref_fast::traverse::world::World;
use goref_fast::traverse::{self, Options, Walked};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// As the program itself.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Dump {
    name: &'static str,
    exe: PathBuf,
    core: PathBuf,
}

fn dumps() -> Vec<Dump> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sample");
    let mut dumps = vec![Dump { name: "sample", exe: sample.join("cacheserver.zst"), core: sample.join("core.zst") }];
    let path = |variable| std::env::var_os(variable).map(PathBuf::from);
    match (path("GOREF_BENCH_EXE"), path("GOREF_BENCH_CORE")) {
        (Some(exe), Some(core)) => dumps.push(Dump { name: "given", exe, core }),
        (None, None) => {}
        _ => panic!("set both GOREF_BENCH_EXE and GOREF_BENCH_CORE"),
    }
    dumps
}

/// What the collector counted as live, from the line `TRUTH heapalloc=BYTES objects=OBJECTS` of `truth.txt` beside the core.
fn truth(core: &Path) -> Option<Amount> {
    let text = std::fs::read_to_string(core.with_file_name("truth.txt")).ok()?;
    let line = text.lines().find(|line| line.starts_with("TRUTH "))?;
    let number = |key| line.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok());
    Some(Amount { objects: number("objects=")?, bytes: number("heapalloc=")? })
}

/// STAGE 2 as the pipeline builds it.
struct Model<'img> {
    debug: DebugInfo<'img>,
    heap: Heap,
    modules: Modules,
    masks: TypeMasks,
    queues: Queues,
    descriptors: Descriptors,
}

fn debug_information<'img>(process: &Process<'img>) -> DebugInfo<'img> {
    DebugInfo::load(&process.executable).expect("debug information")
}

fn model<'img>(process: &Process<'img>, debug: DebugInfo<'img>) -> Model<'img> {
    let image = &process.image;
    let layout = RuntimeLayout::find(&debug.types, &debug.variables, &debug.constants, process.load_bias);
    let layout = layout.expect("layout");
    let modules = Modules::read(image, &layout).expect("modules");
    let heap = Heap::read(image, &layout).expect("heap");
    let masks = TypeMasks::new(&layout, heap.largest_slot());
    let queues = Queues::read(image, &layout);
    let descriptors = Descriptors::new(&debug.types, &debug.constants).expect("descriptors");
    Model { debug, heap, modules, masks, queues, descriptors }
}

fn collect<'img>(process: &Process<'img>, model: &Model<'img>) -> Roots {
    let Model { debug, heap, modules, masks, queues, .. } = model;
    let sources = Sources {
        image: &process.image,
        threads: &process.threads,
        executable: &process.executable,
        debug,
        modules,
        heap,
        masks,
        queues,
        load_bias: process.load_bias,
    };
    roots::collect(&sources).expect("roots")
}

fn walk<'img>(process: &Process<'img>, model: &mut Model<'img>, roots: &Roots, config: &Config) -> Walked {
    let types = std::mem::take(&mut model.debug.types);
    let Model { debug, heap, modules, masks, descriptors, .. } = model;
    let world = World::new(&process.image, heap, masks, modules, descriptors);
    let resolver = Resolver::new(debug, types, process.load_bias, config.types);
    traverse::walk(&world, resolver, roots, Options { max_depth: config.max_depth, fold: config.fold }, &|_| ())
}

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
    (name, dump): (&str, &Dump),
    throughput: Throughput,
    pools: &[ThreadPool],
    setup: impl Fn() -> I + Sync,
    run: impl Fn(I) -> T + Sync,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(throughput).sample_size(10).sampling_mode(SamplingMode::Flat);
    for pool in pools {
        let id = BenchmarkId::new(dump.name, format!("threads={}", pool.current_num_threads()));
        group.bench_function(id, |bencher| {
            let setup = || pool.install(&setup);
            bencher.iter_batched(setup, |input| pool.install(|| run(input)), BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn measure(criterion: &mut Criterion, dump: &Dump) {
    let all = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut counts = vec![1, all.get()];
    counts.dedup();
    let pool = |threads: usize| ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let pools: Vec<ThreadPool> = counts.into_iter().map(pool).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config {
        exe: dump.exe.clone(),
        core: dump.core.clone(),
        output: folder.path().join("grf.out"),
        threads: all,
        max_depth: 256,
        max_stacks: 50_000,
        fold: true,
        types: true,
        stats: None,
        tmpdir: None,
        verbosity: Verbosity::Quiet,
    };
    let open = || Inputs::open(&dump.exe, &dump.core, None).expect("inputs");
    let inputs = open();
    let process = Process::parse(&inputs).expect("process");
    let process = &process;

    let mut expected = truth(&dump.core);
    let mut result = RunResult::default();
    for pool in &pools {
        result = pool.install(|| checked_result(process, &config, expected));
        expected = Some(result.totals.reachable());
    }
    let totals = &result.totals;
    let model_of = || model(process, debug_information(process));
    let words = collect(process, &model_of()).words.len() as u64;
    println!("{}: reachable {} objects, {} bytes", dump.name, totals.reachable().objects, totals.reachable().bytes);

    // A file that is only mapped has no speed in bytes: then it is files per second.
    let (length, unpacked) = (std::fs::metadata(&dump.core).expect("a core").len(), inputs.core().data().len() as u64);
    let read = if length == unpacked { Throughput::Elements(2) } else { Throughput::Bytes(unpacked) };
    stage(
        criterion,
        ("open and parse", dump),
        read,
        &pools,
        || (),
        |()| {
            let inputs = open();
            Process::parse(&inputs).expect("process").threads.len()
        },
    );
    let exe = Throughput::Bytes(inputs.exe().data().len() as u64);
    stage(criterion, ("debug information", dump), exe, &pools, || (), |()| debug_information(process));
    let slots = Throughput::Elements(totals.heap_in_use.objects);
    stage(criterion, ("model", dump), slots, &pools, || debug_information(process), |debug| model(process, debug));
    let words = Throughput::Elements(words);
    stage(criterion, ("roots", dump), words, &pools, model_of, |model| (collect(process, &model), model));
    let objects = Throughput::Elements(totals.reachable().objects);
    let with_roots = || {
        let model = model_of();
        (collect(process, &model), model)
    };
    stage(criterion, ("walk", dump), objects, &pools, with_roots, |(roots, mut model)| {
        (walk(process, &mut model, &roots, &config), roots, model)
    });
    let nodes = Throughput::Elements(result.tree.nodes.len() as u64);
    stage(
        criterion,
        ("profile", dump),
        nodes,
        &pools[..1],
        || result.clone(),
        |result| {
            let outputs = Outputs::prepare(&config).expect("outputs");
            outputs.write_all(&config, result).expect("a written profile")
        },
    );
}

fn stages(criterion: &mut Criterion) {
    for dump in dumps() {
        measure(criterion, &dump);
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
