//! The one file that knows every stage: calls them in order, times them, and hands the result to the outputs.

mod attach;
mod books;
mod capture;
mod garbage;
mod opened;

pub use capture::capture;

use crate::address::{Addr, AddrRange, WORD};
use crate::aggregate::{Amount, Books, PathNode, PathTree, Totals, TypeTotal};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::image::copying::CopyingImage;
use crate::image::executable::Executable;
use crate::image::{Image, Input, Inputs, Library, Process, Request};
use crate::incident::Incidents;
use crate::model::descriptors::{Descriptors, ModuleTypes};
use crate::model::dwarf::DebugInfo;
use crate::model::heap::{Heap, HeapTotals, RuntimeCounters, SpanId, TypeMasks};
use crate::model::layout::RuntimeLayout;
use crate::model::modules::Modules;
use crate::model::queues::Queues;
use crate::model::release;
use crate::output::{ConservativeHold, Outcome, Outputs, RunResult, Target, TextMapping, WalkStats};
use crate::progress::Progress;
use crate::roots::{self, Roots, Sources};
use crate::timing::Phases;
use crate::traverse::observe::{Observer, Silent};
use crate::traverse::paths::{NO_PARENT, Node};
use crate::traverse::targets::Resolver;
use crate::traverse::world::World;
use crate::traverse::{self, Options, Walked};
use rayon::prelude::*;
use roaring::RoaringBitmap;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// Analyzes a core or a process and writes its profile.
///
/// # Errors
/// The inputs cannot be read or do not belong together, the runtime's layout or its spans cannot be found, or an output cannot be
/// written. Nothing is written then.
pub fn run(config: &Config, progress: &Progress) -> Result<Outcome> {
    let outputs = Outputs::prepare(config)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads.get())
        .thread_name(|i| format!("worker-{i}"))
        .build()
        .map_err(|e| {
            Error::new(format!("cannot start {} threads", config.threads))
                .cause(e)
                .remedy("give fewer --threads, or raise the limit of processes (ulimit -u, pids of the cgroup)")
        })?;
    let mut phases = Phases::default();
    let result = pool.install(|| {
        if let Some(attach) = &config.attach {
            return attach::analyze(attach, config, progress, &mut phases);
        }
        let inputs = phases.time("open", || {
            progress.phase("opening executable and core");
            let (exe, core, tmpdir) = (&config.exe, &config.core, config.tmpdir.as_deref());
            Inputs::open_all(&Request { exe, core, tmpdir, search: &config.search, watch: progress })
        })?;
        let process = phases.time("open", || Process::parse(&inputs))?;
        let result = analyze(&process, &process.image, config, progress, &mut phases)
            .map_err(|e| with_what_is_missing(e, process.image.missing().bytes(), inputs.core()))?;
        inputs.verify_unchanged()?;
        Ok::<_, Error>(result)
    })?;
    progress.phase("writing profile");
    outputs.write_all(config, RunResult { phases, ..result })
}

/// A core that was cut off fails at whatever it lacks first: says so before that.
fn with_what_is_missing(error: Error, missing: u64, core: &Input) -> Error {
    if missing == 0 {
        return error;
    }
    Error::new(format!(
        "core dump {}: cut off: it lacks {missing} bytes of the process's memory, and something among them that nothing can be \
         done without",
        core.path().display()
    ))
    .cause(error)
    .remedy("take the core again with room for all of it: ulimit -c unlimited, space on the disk, no limits in coredump.conf")
}

/// Everything between the bytes and the result.
///
/// * `image`: the memory of `process`: its own image, or another view of the same.
///
/// # Errors
/// As [`run`], less inputs and outputs.
pub fn analyze<I>(
    process: &Process<'_, I>,
    image: &dyn Image,
    config: &Config,
    progress: &Progress,
    phases: &mut Phases,
) -> Result<RunResult> {
    let (model, walked, roots) = model_and_walk(process, image, config, progress, phases)?;
    Ok(phases.time("totals", || result(process, image, &model, walked, &roots)))
}

/// Runs the analysis through an image that copies every byte, as a live process would need it: for tests.
///
/// # Errors
/// As [`analyze`].
pub fn analyze_copying(process: &Process<'_>, config: &Config) -> Result<RunResult> {
    let image = CopyingImage::new(&process.image);
    analyze(process, &image, config, &Progress::silent(), &mut Phases::default())
}

/// The model as far as later steps need it.
pub struct Model {
    /// Spans and shards.
    pub heap: Heap,
    /// The runtime's own counters.
    pub counters: RuntimeCounters,
    /// Masks of allocation types.
    pub masks: TypeMasks,
    /// Queues of finalizers and cleanups, and who works on them.
    pub queues: Queues,
    /// Runtime type descriptors.
    pub descriptors: Descriptors,
    /// Where those lie, by module.
    pub module_types: Vec<ModuleTypes>,
    /// A sentence about what has no names, for want of debug information.
    pub missing_names: Option<String>,
    /// Names of libraries with a Go runtime of their own.
    pub other_runtimes: Vec<String>,
    /// Soft errors of all parts.
    pub incidents: Incidents,
}

/// Stages 2 to 4: model, roots, walk. Public so that tests can look at the sets behind a result.
///
/// # Errors
/// As [`analyze`].
pub fn model_and_walk<I>(
    process: &Process<'_, I>,
    image: &dyn Image,
    config: &Config,
    progress: &Progress,
    phases: &mut Phases,
) -> Result<(Model, Walked, Roots)> {
    let (model, walked, roots, _) = model_and_walk_observed(process, image, config, &Silent, progress, phases)?;
    Ok((model, walked, roots))
}

/// As [`model_and_walk`], and `observer` sees every pointer that is followed. Last: what it learned, by shard.
///
/// # Errors
/// As [`analyze`].
pub fn model_and_walk_observed<O: Observer, I>(
    process: &Process<'_, I>,
    image: &dyn Image,
    config: &Config,
    observer: &O,
    progress: &Progress,
    phases: &mut Phases,
) -> Result<(Model, Walked, Roots, Vec<O::Shard>)> {
    let libraries = process.libraries.iter();
    let libraries: Vec<_> = libraries.map(|l| (&l.executable, l.load_bias.wrapping_sub(process.load_bias))).collect();
    let debug = debug_information(&process.executable, &libraries, progress, phases)?;
    model_and_walk_with(debug, process, image, config, observer, &|_| Ok(()), progress, phases)
}

/// Reads what only the executable and its libraries tell.
///
/// * `libraries`: as [`DebugInfo::load_all`] has them.
fn debug_information<'img>(
    executable: &Executable<'img>,
    libraries: &[(&Executable<'img>, u64)],
    progress: &Progress,
    phases: &mut Phases,
) -> Result<DebugInfo<'img>> {
    check_is_go(executable)?;
    progress.phase("reading debug information");
    phases.time("debug information", || match DebugInfo::is_in(executable) {
        true => DebugInfo::load_all(executable, libraries),
        // The process itself has to be asked.
        false => Ok(DebugInfo::default()),
    })
}

/// As [`model_and_walk_observed`].
///
/// * `debug`: what the executable tells.
/// * `modelled`: called when the heap's structures are read; objects, stacks and globals are not.
#[expect(clippy::too_many_arguments, reason = "the stages' own inputs")]
fn model_and_walk_with<'img, O: Observer, I>(
    mut debug: DebugInfo<'img>,
    process: &Process<'img, I>,
    image: &dyn Image,
    config: &Config,
    observer: &O,
    modelled: &dyn Fn(&Heap) -> Result<()>,
    progress: &Progress,
    phases: &mut Phases,
) -> Result<(Model, Walked, Roots, Vec<O::Shard>)> {
    progress.phase("reading the runtime's structures");
    let bias = process.load_bias;
    let mut missing_names = None;
    if !debug.has_program() {
        let libraries: Vec<_> =
            process.libraries.iter().map(|l| (&l.executable, l.load_bias.wrapping_sub(bias))).collect();
        let substitute =
            phases.time("debug information", || release::substitute(&process.executable, &libraries, image, bias))?;
        missing_names = Some(sentence(substitute.missing_names, process.program().0.refused_debug_files()));
        let unread = std::mem::replace(&mut debug, substitute.debug).incidents;
        debug.incidents.merge(&unread);
    }
    let (heap, modules, masks, queues, descriptors, counters) = phases.time("model", || {
        let layout = RuntimeLayout::find(&debug.types, &debug.variables, &debug.constants, bias)?;
        let modules = Modules::read(image, &layout)?;
        let heap = Heap::read(image, &layout)?;
        let masks = TypeMasks::new(&layout, heap.largest_slot());
        let queues = Queues::read(image, &layout, &modules);
        roots::declare_arguments(&mut debug, image, &heap, &queues, bias);
        let descriptors = Descriptors::new(&debug.types, &debug.constants)?;
        let counters = heap.counters().clone();
        Ok::<_, Error>((heap, modules, masks, queues, descriptors, counters))
    })?;
    modelled(&heap)?;
    let (roots, walked, observed) = heap.while_fetching(image, || {
        progress.phase("collecting roots");
        let roots = phases.time("roots", || {
            roots::collect(&Sources {
                image,
                descriptors: &descriptors,
                threads: &process.threads,
                debug: &debug,
                executable: &process.executable,
                modules: &modules,
                heap: &heap,
                masks: &masks,
                queues: &queues,
                load_bias: bias,
            })
        })?;
        progress.counted_phase("walking", heap.totals().allocated_objects);
        // The walk extends the type table by types that only descriptors know; functions are looked up beside it.
        let types = std::mem::take(&mut debug.types);
        let (walked, observed) = phases.time("walk", || {
            let world = World::new(image, &heap, &masks, &modules, &descriptors);
            let resolver = Resolver::new(&debug, types, bias, config.types);
            let options = Options { max_depth: config.max_depth, fold: config.fold };
            let last = AtomicU64::new(0);
            let report = |objects: u64| {
                // Only differences are added; the order of the calls is the walk's own.
                let before = last.swap(objects, Ordering::Relaxed);
                progress.objects(objects - before);
            };
            traverse::walk_observed(&world, resolver, &roots, options, observer, &report)
        });
        Ok::<_, Error>((roots, walked, observed))
    })?;
    let mut incidents = process.incidents.clone();
    for part in [&debug.incidents, heap.incidents(), modules.incidents(), &queues.incidents, &roots.incidents] {
        incidents.merge(part);
    }
    let other_runtimes = other_runtimes(&process.libraries, &modules);
    let module_types =
        modules.list.iter().map(|m| ModuleTypes { types: m.types.start, etypes: m.types.end() }).collect();
    incidents.merge(&walked.incidents);
    incidents.merge(&descriptors.incidents());
    let model =
        Model { heap, counters, masks, queues, descriptors, module_types, missing_names, other_runtimes, incidents };
    Ok((model, walked, roots, observed))
}

fn result<I>(process: &Process<'_, I>, image: &dyn Image, model: &Model, walked: Walked, roots: &Roots) -> RunResult {
    let heap = model.heap.totals();
    let nodes = walked.paths.nodes();
    let sum = |masked: bool| {
        let of = nodes.iter().filter(|n| n.masked == masked);
        of.fold(Amount::default(), |sum, n| sum + Amount { objects: n.objects, bytes: n.bytes })
    };
    let (typed, sub_objects) = (sum(false), sum(true));
    let mut incidents = model.incidents.clone();
    let unreachable = unreachable(&model.heap, &walked.reached_in);
    let totals = Totals {
        heap_in_use: Amount { objects: heap.allocated_objects + heap.free_objects, bytes: heap.in_use_bytes },
        typed,
        sub_objects,
        unreachable,
        free_slots: Amount { objects: heap.free_objects, bytes: heap.free_bytes },
        span_overhead_bytes: heap.overhead_bytes,
        unread: Amount { objects: 0, bytes: heap.unread_bytes },
        conservative: Amount { objects: walked.stats.conservative_objects, bytes: walked.stats.conservative_bytes },
    };
    incidents.add("paths.over_budget", walked.stats.over_budget);
    let partial = partial(image.missing().bytes(), heap, &incidents);
    let walk = WalkStats {
        levels: walked.stats.levels,
        candidates: walked.stats.candidates,
        path_nodes: nodes.len() as u64,
        conservative_roots: roots.roots.iter().filter(|r| r.conservative).count() as u64,
    };
    let conservative_holds = conservative_holds(&model.heap, &walked.conservative, roots);
    let types = walked
        .types
        .iter()
        .map(|(label, objects, bytes)| TypeTotal {
            name: walked.labels[label.0 as usize].to_string(),
            objects: *objects,
            bytes: *bytes,
        })
        .collect();
    let tree = path_tree(nodes, walked.labels);
    let books = Books {
        classes: books::classes(&model.heap, &walked.reached_in),
        beside: books::beside(&model.counters),
        checks: books::checks(&model.heap),
        garbage: garbage::explain(image, model, &walked.reached, &walked.reached_in, unreachable),
        queues: garbage::queues(model, roots, &tree),
    };
    RunResult {
        tree,
        types,
        totals,
        books,
        target: target(process, &model.counters),
        walk,
        phases: Phases::default(),
        incidents,
        conservative_holds,
        missing_names: model.missing_names.clone(),
        other_runtimes: model.other_runtimes.clone(),
        stops: None,
        partial,
    }
}

/// Libraries that the runtime's list of modules does not have: plugins are in it, a `c-shared` library has a runtime of its own.
fn other_runtimes(libraries: &[Library<'_>], modules: &Modules) -> Vec<String> {
    let is_module = |library: &&Library<'_>| {
        let code = library.executable.segments().iter().filter(|s| s.is_text());
        let ranges = code.map(|s| (s.p_vaddr.wrapping_add(library.load_bias), s.p_memsz));
        ranges.into_iter().any(|(start, len)| modules.list.iter().any(|m| m.text.start.0.wrapping_sub(start) < len))
    };
    let others = libraries.iter().filter(|library| !is_module(library));
    others.map(|library| library.executable.path().display().to_string()).collect()
}

/// What has no names, how they come back, and which files with debug information were not taken.
fn sentence(missing: &str, refused: &[String]) -> String {
    let mut sentence = format!("{missing}; --debug-file gives it debug information that was taken out");
    if !refused.is_empty() {
        sentence.push_str(&format!("; not taken: {}", refused.join("; ")));
    }
    sentence
}

/// Refuses programs without Go code.
fn check_is_go(exe: &Executable<'_>) -> Result<()> {
    if exe.is_go() {
        return Ok(());
    }
    Err(Error::new(format!(
        "executable {}: expected a Go program, found none of the sections that Go's linker writes (.gopclntab, .go.buildinfo)",
        exe.path().display()
    ))
    .remedy(
        "give a Go program and its core dump, or the id of a process that runs one; if the program loaded a library that is written in Go, that file must be where it was, \
         or beside the executable",
    ))
}

/// What makes the result partial, beyond what the totals show.
fn partial(missing: u64, heap: &HeapTotals, incidents: &Incidents) -> Vec<String> {
    let mut partial = Vec::new();
    if heap.missing_bytes > 0 {
        let share = 100.0 * heap.missing_bytes as f64 / heap.in_use_bytes.max(1) as f64;
        partial.push(format!(
            "the core lacks {} bytes of the heap's pages ({share:.1} % of the heap in use): objects there are counted where a \
             pointer to them was found, but what only they refer to is missing; take the core again with room for all of it",
            heap.missing_bytes
        ));
    } else if missing > 0 {
        partial.push(format!(
            "the core lacks {missing} bytes of the process's memory, none of them (0 %) in the heap: what only they refer to is \
             missing; take the core again with room for all of it"
        ));
    }
    let causes: Vec<String> = incidents.losses().map(|(cause, n)| format!("{cause}: {n}")).collect();
    if !causes.is_empty() {
        partial.push(format!(
            "some structures of the process are damaged or not in the core ({}): what only they refer to is missing from the \
             profile or counted as unreachable; take the core again if the process still runs",
            causes.join(", ")
        ));
    }
    partial
}

/// The conservative words that point to objects which nothing else holds, each such object once.
fn conservative_holds(heap: &Heap, only: &[RoaringBitmap], roots: &Roots) -> Vec<ConservativeHold> {
    let mut seen = FxHashSet::default();
    let mut holds = Vec::new();
    for root in roots.roots.iter().filter(|r| r.conservative) {
        for i in (0..root.nwords).filter(|i| roots.is_pointer(root, *i)) {
            let word = roots.values(root)[i as usize];
            let Some((id, slot)) = heap.find_object(word) else { continue };
            let span = heap.span(id);
            let held = only.get(usize::from(span.shard())).is_some_and(|o| o.contains(span.slot_base + slot));
            if held && seen.insert((id, slot)) {
                let at = root.addr.add(u64::from(i) * WORD);
                holds.push(ConservativeHold {
                    slot: if root.addr.is_null() { 0 } else { at.0 },
                    goid: root.goid,
                    frame: roots.labels.frames(root.label).join(" -> "),
                    object: heap.slot_addr(id, slot),
                    bytes: span.elem_size(),
                });
            }
        }
    }
    holds
}

/// Allocated slots that the walk did not mark: counted on their own, so that the books can fail to balance.
///
/// * `reached`: number of marks by span.
fn unreachable(heap: &Heap, reached: &[u32]) -> Amount {
    let in_span = |(id, &reached): (usize, &u32)| {
        let id = SpanId(id as u32);
        let allocated: u64 = heap.alloc_bits(id).iter().map(|w| u64::from(w.count_ones())).sum();
        let objects = allocated.saturating_sub(u64::from(reached));
        Amount { objects, bytes: objects * heap.span(id).elem_size() }
    };
    reached.par_iter().enumerate().map(in_span).reduce(Amount::default, |a, b| a + b)
}

/// The paths as frames: nodes that differ only in the type behind the same frame become one.
fn path_tree(nodes: &[Node], labels: Vec<Box<str>>) -> PathTree {
    let mut merged: Vec<PathNode> = Vec::new();
    let mut places: Vec<u32> = Vec::with_capacity(nodes.len());
    let mut known: FxHashMap<(u32, u32), u32> = FxHashMap::default();
    for node in nodes {
        // Parents come before their children.
        let parent = if node.parent == NO_PARENT { NO_PARENT } else { places[node.parent as usize] };
        let place = *known.entry((parent, node.label.0)).or_insert_with(|| {
            merged.push(PathNode { parent, label: node.label.0, own_objects: 0, own_bytes: 0 });
            merged.len() as u32 - 1
        });
        merged[place as usize].own_objects += node.objects;
        merged[place as usize].own_bytes += node.bytes;
        places.push(place);
    }
    PathTree { nodes: merged, labels }
}

fn target<I>(process: &Process<'_, I>, counters: &RuntimeCounters) -> Target {
    let (exe, load_bias) = process.program();
    let entry = Addr(exe.entry().wrapping_add(load_bias));
    // The name in the dumped process, not that of EXE: a renamed copy must give the same profile.
    let text = process.files.iter().find(|f| f.range.contains(entry));
    let path = text.map_or("", |f| f.live_path());
    let name = path.rsplit('/').next().filter(|name| !name.is_empty());
    let name = name.map_or_else(|| exe.file_name().into_owned(), str::to_owned);
    let text = text.map_or((AddrRange::default(), 0), |f| (f.range, f.offset));
    Target {
        exe_name: name,
        debug_file: exe.debug_file().map(|path| path.display().to_string()),
        build_id: exe.build_id().map(|id| id.iter().map(|b| format!("{b:02x}")).collect()),
        go_version: counters.build_version.clone().unwrap_or_default(),
        mapping: TextMapping { start: text.0.start.0, limit: text.0.end().0, offset: text.1 },
        last_gc_unix_nanos: counters.last_gc_unix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_are_refused() {
        let path = std::env::current_exe().expect("this test");
        let bytes = std::fs::read(&path).expect("this test");
        let exe = Executable::parse(&bytes, &path).expect("an ELF executable");
        let error = check_is_go(&exe).expect_err("this test is no Go program");
        assert!(error.to_string().contains("expected a Go program"), "{error}");
        assert!(error.remedy_text().is_some());
    }

    #[test]
    fn losses_make_a_result_partial_and_other_incidents_do_not() {
        let (mut incidents, heap) = (Incidents::default(), HeapTotals::default());
        incidents.count("types.wrong_size");
        assert!(partial(0, &heap, &incidents).is_empty());
        incidents.add("special.cycle", 3);
        let sentences = partial(0, &heap, &incidents);
        assert!(sentences.len() == 1 && sentences[0].contains("special.cycle: 3"), "{sentences:?}");
        assert_eq!(partial(4096, &heap, &incidents).len(), 2);
        let heap = HeapTotals { in_use_bytes: 1 << 20, missing_bytes: 1 << 18, ..heap };
        assert!(partial(1 << 18, &heap, &Incidents::default())[0].contains("25.0 % of the heap"));
    }
}
