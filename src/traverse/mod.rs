//! STAGE 4: walks the object graph from the roots, level by level, and counts every reachable object once, on one path.
//!
//! Each stratum of roots is walked to its end (typed, then what types leave open) before the next starts. A level is cut
//! into waves; a wave *expands* its items into candidates ([`expand`]), *claims* objects shard by shard ([`claim`]), and
//! *regroups* the winners into the next level (`Walker::regroup`), where paths are numbered. Between expand and claim the
//! few distinct edges are resolved to targets ([`targets`]). Before a level is scanned its items are put in order (`arrange`), and its
//! closures told apart (`closures`); a level of a few plain items runs in a loop of its own (`chase`). See DESIGN.md for why this
//! order gives the same answer for any number of threads.

mod arrange;
mod ask;
mod chase;
pub mod claim;
mod closures;
pub mod expand;
mod flatten;
pub mod frontier;
pub mod items;
pub mod labels;
pub mod library;
pub mod observe;
mod operations;
pub mod paths;
pub mod pool;
pub mod scan;
pub mod segments;
pub mod shard;
mod statics;
mod strata;
pub mod targets;
pub mod visited;
mod wave;
pub mod world;

use crate::incident::Incidents;
use crate::model::heap::{Heap, Shard, SpanId};
use crate::roots::{Roots, Stratum};
use chase::Chase;
use expand::Buffers;
use frontier::{Frontier, Next};
use items::{Depot, Item, POOL, TAIL};
use labels::LabelId;
use observe::{Observer, Silent};
use paths::{PathId, Paths};
use pool::Pool;
use rayon::prelude::*;
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;
use scan::{ProgramId, ProgramKey, Programs};
use shard::{Open, ShardState};
use statics::Statics;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use targets::Resolver;
use visited::Visited;
use wave::WaveState;
use world::World;

/// Objects between two calls of the progress function.
const PROGRESS_OBJECTS: u64 = 1 << 16;

/// What shapes the answer.
#[derive(Copy, Clone, Debug)]
pub struct Options {
    /// Most frames of a path.
    pub max_depth: u32,
    /// Fold recursion.
    pub fold: bool,
}

/// Counters of a walk.
#[derive(Copy, Clone, Debug, Default)]
pub struct WalkStats {
    /// Levels of all strata.
    pub levels: u64,
    /// Pointer words followed.
    pub candidates: u64,
    /// Objects reached and their slots' bytes.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: u64,
    /// Objects that only a conservative word holds.
    pub conservative_objects: u64,
    /// Their bytes.
    pub conservative_bytes: u64,
    /// Edges that found no path node within the budget.
    pub over_budget: u64,
}

/// Wall time of a walk's steps. With several threads claims and expansions overlap, and the sum is more than the walk took.
#[derive(Copy, Clone, Debug, Default)]
pub struct StepTimes {
    /// Scanning items into candidates.
    pub expand: Duration,
    /// Settling candidates.
    pub claim: Duration,
    /// Numbering paths and what else runs between waves.
    pub regroup: Duration,
    /// Putting levels in order.
    pub arrange: Duration,
    /// Levels of a few items, all steps.
    pub chase: Duration,
}

/// The result of a walk.
#[derive(Debug)]
pub struct Walked {
    /// All paths with their counts.
    pub paths: Paths,
    /// Label texts by [`LabelId`].
    pub labels: Vec<Box<str>>,
    /// Objects and bytes by the type they were claimed as.
    pub types: Vec<(LabelId, u64, u64)>,
    /// Reached slots by shard.
    pub reached: Vec<RoaringBitmap>,
    /// Number of reached slots by span.
    pub reached_in: Vec<u32>,
    /// Objects that only a conservative word holds, by shard; empty if there is no such word.
    pub conservative: Vec<RoaringBitmap>,
    /// Counters.
    pub stats: WalkStats,
    /// Where the time went.
    pub times: StepTimes,
    /// Soft errors by cause.
    pub incidents: Incidents,
}

/// Objects by the program that they were claimed as.
#[derive(Default)]
struct TypeCounts(Vec<(u64, u64)>);

impl TypeCounts {
    fn entry(&mut self, program: ProgramId) -> &mut (u64, u64) {
        let at = program.0 as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, (0, 0));
        }
        &mut self.0[at]
    }

    fn count(&mut self, program: ProgramId, objects: u64, bytes: u64) {
        let entry = self.entry(program);
        entry.0 += objects;
        entry.1 += bytes;
    }

    /// Objects that were counted as `from` turned out to be `to`.
    fn moved(&mut self, from: ProgramId, to: ProgramId, objects: u64, bytes: u64) {
        self.count(to, objects, bytes);
        let entry = self.entry(from);
        entry.0 -= objects;
        entry.1 -= bytes;
    }

    /// By type name: (name, objects, bytes).
    fn named(&self, programs: &Programs) -> Vec<(LabelId, u64, u64)> {
        let mut names: FxHashMap<LabelId, (u64, u64)> = FxHashMap::default();
        for (program, (objects, bytes)) in programs.all().iter().zip(&self.0) {
            let entry = names.entry(program.type_name).or_default();
            entry.0 += objects;
            entry.1 += bytes;
        }
        names.into_iter().filter(|(_, count)| count.0 > 0).map(|(name, (o, b))| (name, o, b)).collect()
    }
}

struct Walker<'w, 'a, 'img, O: Observer> {
    world: &'w World<'a>,
    resolver: Resolver<'a, 'img>,
    observer: &'w O,
    paths: Paths,
    /// By number, and one for the pool.
    shards: Vec<Mutex<ShardState<O::Shard>>>,
    /// What each thread keeps between units.
    workers: Vec<Mutex<Buffers>>,
    /// The wave that is claimed and the one that is expanded.
    waves: [WaveState; 2],
    depot: Depot,
    chase: Chase,
    pool: Pool,
    statics: Statics,
    /// Words that no type explains, outside of partial objects: (path, where, value).
    loose: Vec<(PathId, u64, u64)>,
    /// Words that wait until the runtime's own roots are exhausted.
    later: Vec<(PathId, u64, u64)>,
    types: TypeCounts,
    stats: WalkStats,
    times: StepTimes,
    incidents: Incidents,
    progress: &'w (dyn Fn(u64) + Sync),
    /// Objects when `progress` was called last.
    reported: u64,
}

/// Locks a mutex that no panic can have left in a bad state that matters: a panic ends the walk.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], where nobody else can hold it.
fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Walks everything that `roots` reach.
///
/// * `resolver`: the type table and programs; consumed.
/// * `progress`: called now and then with the number of objects reached so far.
///
/// Runs on the current rayon pool; the answer does not depend on it.
pub fn walk(
    world: &World<'_>,
    resolver: Resolver<'_, '_>,
    roots: &Roots,
    options: Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Walked {
    walk_observed(world, resolver, roots, options, &Silent, progress).0
}

/// As [`walk`], and `observer` sees every pointer that is followed. Second: what it learned, by shard.
pub fn walk_observed<O: Observer>(
    world: &World<'_>,
    resolver: Resolver<'_, '_>,
    roots: &Roots,
    options: Options,
    observer: &O,
    progress: &(dyn Fn(u64) + Sync),
) -> (Walked, Vec<O::Shard>) {
    let mut resolver = resolver;
    let shards = 0..world.heap.shards().len() as u16;
    let mut states: Vec<_> = shards
        .into_par_iter()
        .map(|shard| {
            let slots = world.heap.shards()[usize::from(shard)].slots;
            Mutex::new(ShardState::new(Visited::new(slots, world.heap.free_slots(shard))))
        })
        .collect();
    let threads = rayon::current_num_threads();
    let waves = [(); 2].map(|()| WaveState::new(threads, states.len()));
    let workers = (0..=threads).map(|_| Mutex::default()).collect();
    states.push(Mutex::new(ShardState::new(Visited::new(0, RoaringBitmap::new()))));
    let paths = Paths::new(&mut resolver.programs.labels, options.max_depth, options.fold);
    let mut walker = Walker {
        world,
        resolver,
        observer,
        paths,
        shards: states,
        workers,
        waves,
        depot: Depot::default(),
        chase: Chase::default(),
        pool: Pool::default(),
        statics: Statics::new(roots),
        loose: Vec::new(),
        later: Vec::new(),
        types: TypeCounts::default(),
        stats: WalkStats::default(),
        times: StepTimes::default(),
        incidents: Incidents::default(),
        progress,
        reported: 0,
    };
    for (i, &word) in roots.words.iter().enumerate() {
        let pointer = roots.mask.get(i / 64).is_some_and(|m| m >> (i % 64) & 1 != 0);
        walker.pool.push(word, pointer);
    }
    for stratum in [Stratum::Package, Stratum::Runtime, Stratum::Unnamed, Stratum::Specials] {
        walker.stratum(roots, stratum);
    }
    walker.segments(roots);
    // Last: what is reached now is held by conservative words alone.
    let (objects, bytes) = (walker.stats.objects, walker.stats.bytes);
    let mut before = Vec::new();
    if roots.roots.iter().any(|r| r.stratum == Stratum::Conservative) {
        before = walker.shards.iter().map(|s| lock(s).visited.reached()).collect();
        walker.stratum(roots, Stratum::Conservative);
    }
    walker.stats.conservative_objects = walker.stats.objects - objects;
    walker.stats.conservative_bytes = walker.stats.bytes - bytes;
    walker.finish(&before)
}

impl<O: Observer> Walker<'_, '_, '_, O> {
    /// Walks from `next`: typed to the end, then what types left open, until nothing is open.
    ///
    /// * `later`: follow also the words that wait for the runtime's roots.
    fn levels(&mut self, mut next: Next, later: bool) {
        let columns = self.shards.len();
        let mut frontier = Frontier::new(columns);
        let mut storage = Frontier::new(columns);
        loop {
            // A map's or channel's own memory belongs to the level of its header, however many hops it takes.
            loop {
                storage.build_storage(&mut next, &mut self.shards, &self.depot, &self.resolver.programs);
                if storage.is_empty() {
                    break;
                }
                self.level(&storage, true, &mut next);
            }
            let start = Instant::now();
            frontier.build(&mut next, &mut self.shards, &self.depot, &self.resolver.programs);
            self.split_closures(&mut frontier);
            self.times.arrange += start.elapsed();
            if frontier.is_empty() {
                self.leftover(&mut next);
                if next.is_empty() && later {
                    std::mem::swap(&mut self.loose, &mut self.later);
                    self.leftover(&mut next);
                }
                if next.is_empty() {
                    return;
                }
                continue;
            }
            let start = Instant::now();
            if self.chase(&frontier, &mut next) {
                self.times.chase += start.elapsed();
                continue;
            }
            self.stats.levels += 1;
            self.level(&frontier, false, &mut next);
        }
    }

    /// Says how far the walk is. Not at every level: a list has one for each node.
    fn report(&mut self) {
        if self.stats.objects - self.reported > PROGRESS_OBJECTS {
            self.reported = self.stats.objects;
            (self.progress)(self.stats.objects);
        }
    }

    /// The masked walk's start: open words of partial objects, and loose words.
    fn leftover(&mut self, first: &mut Next) {
        let program = self.resolver.compile(ProgramKey::Masked);
        let mut open: Vec<(u32, bool, u16, Item)> = Vec::new();
        for (shard, geometry) in self.world.heap.shards().iter().enumerate() {
            let base = geometry.base;
            for (ordinal, Open { words, path }) in get_mut(&mut self.shards[shard]).take_open() {
                if words == 0 || path == u32::MAX {
                    continue;
                }
                let Some((id, slot)) = self.world.heap.locate(shard as u16, ordinal) else { continue };
                let granule = ((self.world.heap.slot_addr(id, slot) - base) / 8) as u32;
                // All of a large one: its mask is not one word, and is read where the program is checked.
                let large = self.world.heap.span(id).elem_size() > 512;
                let restrict = if large { !0 } else { words };
                open.push((path, large, shard as u16, Item { granule, count: 1, restrict }));
            }
        }
        open.sort_unstable();
        for run in open.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
            let items: Vec<_> = run.iter().map(|o| o.3).collect();
            let group = first.group(PathId(run[0].0), program, run[0].1);
            self.add(first, run[0].2, group, &items);
        }
        let mut loose = std::mem::take(&mut self.loose);
        loose.sort_unstable();
        for run in loose.chunk_by(|a, b| a.0 == b.0) {
            let Ok(granule) = u32::try_from(self.pool.words()) else {
                self.incidents.count("roots.beyond_pool");
                continue;
            };
            let Some(count) = u32::try_from(run.len() * 2).ok().filter(|&count| count < TAIL) else {
                self.incidents.add("walk.too_many_loose_words", run.len() as u64);
                continue;
            };
            for (_, _, value) in run {
                // A clear word between them keeps one word from being taken for another's type.
                self.pool.push(0, false);
                self.pool.push(*value, true);
            }
            let group = first.group(run[0].0, program, false);
            self.add(first, POOL, group, &[Item { granule, count, restrict: !0 }]);
        }
    }

    /// Counts the marks of each span, less those that free slots had from the start.
    fn reached_in(&self) -> Vec<u32> {
        let heap = self.world.heap;
        let ones = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
        let in_shard = |(shard, state): (&Shard, &Mutex<ShardState<O::Shard>>)| {
            let state = lock(state);
            let in_span = |id: u32| {
                let (id, span) = (SpanId(id), heap.span(SpanId(id)));
                let slots = span.slot_base..span.slot_base + u32::from(span.nelems);
                let live = ones(heap.alloc_bits(id)) - ones(heap.dead_bits(id));
                let free = u32::from(span.nelems) - live;
                u32::try_from(state.visited.marked(slots)).unwrap_or(u32::MAX) - free
            };
            shard.spans.clone().map(in_span).collect::<Vec<_>>()
        };
        let shards = heap.shards().par_iter().zip(&self.shards);
        shards.map(in_shard).collect::<Vec<_>>().concat()
    }

    fn finish(mut self, before: &[RoaringBitmap]) -> (Walked, Vec<O::Shard>) {
        self.stats.over_budget = self.paths.over_budget;
        self.incidents.merge(&self.resolver.incidents);
        for wave in &mut self.waves {
            wave.incidents().for_each(|incidents| self.incidents.merge(incidents));
        }
        // The pool has no objects.
        self.shards.pop();
        let reached: Vec<_> = self.shards.par_iter().map(|s| lock(s).visited.reached()).collect();
        let reached_in = self.reached_in();
        let conservative = reached.iter().zip(before).map(|(all, before)| all - before).collect();
        let mut types = self.types.named(&self.resolver.programs);
        let labels = self.resolver.programs.labels.into_texts();
        types.sort_by(|a, b| {
            let text = |t: &(LabelId, u64, u64)| &labels[t.0.0 as usize];
            (b.2, b.1).cmp(&(a.2, a.1)).then_with(|| text(a).cmp(text(b)))
        });
        let observed = self.shards.into_iter().map(|s| s.into_inner().unwrap_or_else(PoisonError::into_inner).observed);
        let (paths, stats, times, incidents) = (self.paths, self.stats, self.times, self.incidents);
        let observed = observed.collect();
        (Walked { paths, labels, types, reached, reached_in, conservative, stats, times, incidents }, observed)
    }
}

/// Slots that are reached, as a set, for tests and the books.
#[must_use]
pub fn reached_objects(heap: &Heap, reached: &[RoaringBitmap]) -> u64 {
    debug_assert_eq!(heap.shards().len(), reached.len());
    reached.iter().map(RoaringBitmap::len).sum()
}
