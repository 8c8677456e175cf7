//! STAGE 4: walks the object graph from the roots, level by level, and counts every reachable object once, on one path.
//!
//! Each stratum of roots is walked to its end (typed, then what types leave open) before the next starts. A level is cut
//! into waves; a wave *expands* its items into candidates ([`expand`]), *claims* objects shard by shard ([`claim`]), and
//! *regroups* the winners into the next level (`Walker::regroup`), where paths are numbered. Between expand and claim the
//! few distinct edges are resolved to targets ([`targets`]). See DESIGN.md for why this order gives the same answer for any
//! number of threads.

pub mod claim;
pub mod expand;
pub mod frontier;
pub mod labels;
pub mod library;
pub mod paths;
pub mod scan;
pub mod segments;
mod statics;
pub mod targets;
pub mod visited;
pub mod world;

use crate::image::Scratch;
use crate::incident::Incidents;
use crate::model::heap::Heap;
use crate::model::types::{Kind, TypeId};
use crate::roots::{Roots, Stratum};
use claim::{Claimed, Open, Own, ShardState, claim_shard};
use expand::{Buffers, Output, Pool, Wave, expand_unit};
use frontier::{Frontier, Item, POOL, Slice};
use labels::LabelId;
use paths::{PathId, Paths};
use rayon::prelude::*;
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;
use scan::{INDEXED, NO_TYPE, ProgramKey, Step};
use statics::Statics;
use std::sync::{Mutex, MutexGuard, PoisonError};
use targets::{Resolver, Target};
use visited::Visited;
use world::World;

/// Elements of one unit of expansion: enough that a unit's candidates make runs worth visiting in each shard, few enough that a
/// wave has many units to steal.
const UNIT_ELEMENTS: u64 = 1024;
/// Below this many elements a wave is run by the calling thread alone: waking others costs more.
const INLINE_ELEMENTS: u64 = 1024;

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
    /// Objects that only a conservative word holds, by shard; empty if there is no such word.
    pub conservative: Vec<RoaringBitmap>,
    /// Counters.
    pub stats: WalkStats,
    /// Soft errors by cause.
    pub incidents: Incidents,
}

/// A worker's buffers; one per thread, locked only by its own.
#[derive(Default)]
struct Worker {
    buffers: Buffers,
    output: Output,
}

struct Walker<'w, 'a, 'img> {
    world: &'w World<'a>,
    resolver: Resolver<'a, 'img>,
    paths: Paths,
    shards: Vec<Mutex<ShardState>>,
    workers: Vec<Mutex<Worker>>,
    pool: Pool,
    statics: Statics,
    /// Words that no type explains, outside of partial objects: (path, where, value).
    loose: Vec<(PathId, u64, u64)>,
    types: FxHashMap<LabelId, (u64, u64)>,
    stats: WalkStats,
    incidents: Incidents,
    progress: &'w (dyn Fn(u64) + Sync),
    /// Objects when `progress` was called last.
    reported: u64,
}

/// Locks a mutex that no panic can have left in a bad state that matters: a panic ends the walk.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    let mut resolver = resolver;
    let shards = 0..world.heap.shards().len() as u16;
    let states: Vec<_> = shards
        .into_par_iter()
        .map(|shard| {
            let slots = world.heap.shards()[usize::from(shard)].slots;
            Mutex::new(ShardState::new(Visited::new(slots, world.heap.free_slots(shard))))
        })
        .collect();
    let workers = (0..=rayon::current_num_threads())
        .map(|_| Mutex::new(Worker { buffers: Buffers::default(), output: Output::new(states.len()) }))
        .collect();
    let paths = Paths::new(&mut resolver.programs.labels, options.max_depth, options.fold);
    let mut walker = Walker {
        world,
        resolver,
        paths,
        shards: states,
        workers,
        pool: Pool::default(),
        statics: Statics::new(roots),
        loose: Vec::new(),
        types: FxHashMap::default(),
        stats: WalkStats::default(),
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
    walker.segments();
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

impl Walker<'_, '_, '_> {
    /// Walks one stratum to its end.
    fn stratum(&mut self, roots: &Roots, stratum: Stratum) {
        let mut first = Frontier::default();
        for root in roots.roots.iter().filter(|r| r.stratum == stratum) {
            let frames = roots.labels.frames(root.label);
            let Ok(granule) = u32::try_from(root.first_word) else {
                self.incidents.count("roots.beyond_pool");
                continue;
            };
            let mut path = None;
            for (i, frame) in frames.iter().enumerate() {
                let leaf = i + 1 == frames.len();
                let ty = root.ty.filter(|_| leaf).unwrap_or(NO_TYPE);
                let step = Step { label: self.resolver.programs.labels.intern(frame), ty };
                path = Some(match path {
                    Some(parent) => self.paths.child(parent, step),
                    None => self.paths.root(step),
                });
            }
            let Some(path) = path else { continue };
            let typed = root.ty.filter(|&ty| self.resolver.types.get(ty).size.div_ceil(8) <= u64::from(root.nwords));
            let (key, count) = match typed {
                // A map that did not escape: its header lies on the stack, under the map's own name.
                Some(ty) if self.is_map_header(ty, root.nwords) => (ProgramKey::MapHeader(ty), 1),
                Some(ty) if self.resolver.programs.typed() => (ProgramKey::Value(ty), 1),
                _ => (ProgramKey::Raw, root.nwords),
            };
            let program = self.resolver.compile(key);
            let group = first.group(path, program, false);
            first.push(group, POOL, &[Item { granule, count, restrict: !0 }]);
        }
        self.levels(first);
    }

    /// Whether a value of `nwords` words, said to be of map type `ty` (one word), is the map's header itself.
    fn is_map_header(&self, ty: TypeId, nwords: u32) -> bool {
        match self.resolver.types.get(ty).kind {
            Kind::Map { header: Some(header), .. } if nwords > 1 && self.resolver.programs.typed() => {
                self.resolver.types.get(header).size.div_ceil(8) <= u64::from(nwords)
            }
            _ => false,
        }
    }

    /// Data and bss words that neither a variable nor a typed pointer into them has claimed.
    fn segments(&mut self) {
        let mut first = Frontier::default();
        let program = self.resolver.compile(ProgramKey::Raw);
        for (label, words) in self.statics.leftover(self.world.image, &mut self.incidents) {
            let label = self.resolver.programs.labels.intern(&label);
            let path = self.paths.root(Step { label, ty: NO_TYPE });
            let Ok(granule) = u32::try_from(self.pool.words()) else {
                self.incidents.count("roots.beyond_pool");
                continue;
            };
            let count = words.len() as u32;
            words.into_iter().for_each(|word| self.pool.push(word, true));
            let group = first.group(path, program, false);
            first.push(group, POOL, &[Item { granule, count, restrict: !0 }]);
        }
        self.levels(first);
    }

    /// Walks from `first`: typed to the end, then what types left open, until nothing is open.
    fn levels(&mut self, first: Frontier) {
        let mut collected = first;
        let mut frontier = Frontier::default();
        let mut storage = Frontier::default();
        loop {
            // A map's or channel's own memory belongs to the level of its header, however many hops it takes.
            let mut done = 0;
            loop {
                let end = collected.parts.len();
                let programs = &self.resolver.programs;
                storage.build(&collected, done, programs, |g| programs.get(g.program).has_storage);
                done = end;
                if storage.is_empty() {
                    break;
                }
                self.level(&storage, true, &mut collected);
            }
            let programs = &self.resolver.programs;
            frontier.build(&collected, 0, programs, |g| programs.get(g.program).has_edges || g.checked);
            collected.clear();
            if frontier.is_empty() {
                self.leftover(&mut collected);
                if collected.is_empty() {
                    return;
                }
                continue;
            }
            self.stats.levels += 1;
            self.level(&frontier, false, &mut collected);
        }
    }

    fn level(&mut self, frontier: &Frontier, storage: bool, next: &mut Frontier) {
        for wave in frontier.waves(&self.resolver.programs) {
            self.wave(frontier, &wave, storage, next);
            // Not at every level: a list has one for each node.
            if self.stats.objects - self.reported > PROGRESS_OBJECTS {
                self.reported = self.stats.objects;
                (self.progress)(self.stats.objects);
            }
        }
    }

    /// The masked walk's start: open words of partial objects, and loose words.
    fn leftover(&mut self, first: &mut Frontier) {
        let program = self.resolver.compile(ProgramKey::Masked);
        let mut open: Vec<(u32, u16, Item)> = Vec::new();
        for (shard, state) in self.shards.iter().enumerate() {
            let base = self.world.heap.shards()[shard].base;
            for (ordinal, Open { words, path }) in lock(state).take_open() {
                if words == 0 || path == u32::MAX {
                    continue;
                }
                let Some((id, slot)) = self.world.heap.locate(shard as u16, ordinal) else { continue };
                let granule = ((self.world.heap.slot_addr(id, slot) - base) / 8) as u32;
                open.push((path, shard as u16, Item { granule, count: 1, restrict: words }));
            }
        }
        open.sort_unstable();
        for run in open.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let items: Vec<_> = run.iter().map(|o| o.2).collect();
            let group = first.group(PathId(run[0].0), program, false);
            first.push(group, run[0].1, &items);
        }
        let mut loose = std::mem::take(&mut self.loose);
        loose.sort_unstable();
        for run in loose.chunk_by(|a, b| a.0 == b.0) {
            let Ok(granule) = u32::try_from(self.pool.words()) else {
                self.incidents.count("roots.beyond_pool");
                continue;
            };
            let Some(count) = u32::try_from(run.len() * 2).ok().filter(|&count| count < frontier::TAIL) else {
                self.incidents.add("walk.too_many_loose_words", run.len() as u64);
                continue;
            };
            for (_, _, value) in run {
                // A clear word between them keeps one word from being taken for another's type.
                self.pool.push(0, false);
                self.pool.push(*value, true);
            }
            let group = first.group(run[0].0, program, false);
            first.push(group, POOL, &[Item { granule, count, restrict: !0 }]);
        }
    }

    /// Expand, claim, regroup.
    fn wave(&mut self, frontier: &Frontier, slices: &[Slice], storage: bool, next: &mut Frontier) {
        let group_of = |s: &Slice| frontier.parts[s.part as usize].group;
        let (first_group, last_group) = (group_of(&slices[0]), group_of(&slices[slices.len() - 1]));
        let mut bases = vec![0u32; (last_group - first_group) as usize + 1];
        let (mut ordinal, mut seen) = (0u32, u32::MAX);
        let mut filled = 0;
        for slice in slices {
            let group = group_of(slice);
            if group == seen {
                continue;
            }
            seen = group;
            let program = frontier.groups[group as usize].program;
            self.resolver.link(program);
            let i = (group - first_group) as usize;
            bases[filled..=i].fill(ordinal);
            filled = i + 1;
            ordinal += self.resolver.programs.get(program).ordinals() as u32;
        }
        let parallel = frontier_elements(frontier, slices) > INLINE_ELEMENTS;
        self.expand(frontier, slices, &bases, first_group, storage, parallel);

        let (world, workers) = (self.world, std::mem::take(&mut self.workers));
        let edges = Edges { frontier, bases: &bases, first_group, storage };
        let guards: Vec<_> = workers.iter().map(lock).collect();
        let outputs: Vec<&Output> = guards.iter().map(|g| &g.output).collect();
        let targets = self.targets(&edges, &outputs);
        let mut touched: Vec<u16> = outputs.iter().flat_map(|o| o.touched.iter().copied()).collect();
        touched.sort_unstable();
        touched.dedup();
        self.take_soft(&edges, &outputs);
        let claim = |scratch: &mut Scratch, &shard: &u16| {
            let mut state = lock(&self.shards[usize::from(shard)]);
            claim_shard(world, shard, &outputs, &targets, &mut state, scratch)
        };
        let claimed: Vec<Claimed> = if parallel {
            touched.par_iter().map_init(Scratch::default, claim).collect()
        } else {
            let mut scratch = Scratch::default();
            touched.iter().map(|shard| claim(&mut scratch, shard)).collect()
        };
        self.regroup(&edges, &targets, &touched, claimed, next);
        self.claim_statics(&edges, &targets, &outputs, next);
        drop(outputs);
        drop(guards);
        self.workers = workers;
        for worker in &self.workers {
            lock(worker).output.clear();
        }
    }

    fn expand(
        &self,
        frontier: &Frontier,
        slices: &[Slice],
        bases: &[u32],
        first_group: u32,
        storage: bool,
        parallel: bool,
    ) {
        let programs = self.resolver.programs.all();
        let wave = Wave { world: self.world, frontier, programs, bases, first_group, storage, pool: &self.pool };
        if !parallel {
            let worker = &mut *lock(&self.workers[0]);
            expand_unit(&wave, 0, slices, &mut worker.buffers, &mut worker.output);
            return;
        }
        let units = frontier.units(slices, UNIT_ELEMENTS);
        units.par_iter().enumerate().for_each(|(i, unit)| {
            let thread = rayon::current_thread_index().map_or(0, |t| t + 1);
            let worker = &mut *lock(&self.workers[thread]);
            expand_unit(&wave, i as u32, unit, &mut worker.buffers, &mut worker.output);
        });
    }

    /// One target per distinct key of the wave.
    fn targets(&mut self, edges: &Edges<'_>, outputs: &[&Output]) -> FxHashMap<u64, Target> {
        let mut targets = FxHashMap::default();
        let mut last = None;
        for output in outputs {
            let runs = output.touched.iter().flat_map(|&s| output.segments[usize::from(s)].runs()).map(|r| r.key);
            for key in runs.chain(output.statics.iter().map(|s| s.key)) {
                if last == Some(key) {
                    continue;
                }
                last = Some(key);
                targets.entry(key).or_insert_with(|| {
                    let (group, _, op) = edges.decode(key, &self.resolver);
                    let program = edges.frontier.groups[group as usize].program;
                    self.resolver.target(self.world, program, op, key as u32)
                });
            }
        }
        targets
    }

    /// Open and loose words that the expansion found.
    fn take_soft(&mut self, edges: &Edges<'_>, outputs: &[&Output]) {
        let path = |group: u32| edges.frontier.groups[group as usize].path;
        for output in outputs {
            for open in &output.opens {
                let entry = Open { words: open.words, path: path(open.group).0 };
                lock(&self.shards[usize::from(open.shard)]).open(open.ordinal, entry);
            }
            self.loose.extend(output.loose.iter().map(|l| (path(l.group), l.at, l.value)));
            self.stats.candidates += output.candidates;
            self.incidents.merge(&output.incidents);
        }
    }

    /// The path that the edge with this key leads to.
    fn path_of(&mut self, edges: &Edges<'_>, targets: &FxHashMap<u64, Target>, key: u64) -> PathId {
        let (group, bucket, op) = edges.decode(key, &self.resolver);
        let group = edges.frontier.groups[group as usize];
        if edges.storage {
            return group.path;
        }
        let program = self.resolver.programs.get(group.program);
        let mut path = group.path;
        if program.indexed {
            path = self.paths.child(path, program.index_steps[bucket as usize]);
        }
        match program.key {
            ProgramKey::Raw => {}
            ProgramKey::Masked => {
                let step = self.paths.sub_objects();
                path = self.paths.child(path, step);
            }
            _ => {
                for step in &program.ops[op].chain {
                    path = self.paths.child(path, *step);
                }
            }
        }
        for step in &targets[&key].chain {
            path = self.paths.child(path, *step);
        }
        path
    }

    /// Numbers the wave's paths in key order, counts, and feeds the next level.
    fn regroup(
        &mut self,
        edges: &Edges<'_>,
        targets: &FxHashMap<u64, Target>,
        touched: &[u16],
        claimed: Vec<Claimed>,
        next: &mut Frontier,
    ) {
        let mut keys: Vec<u64> = Vec::new();
        for c in &claimed {
            keys.extend(c.tallies.iter().map(|t| t.key));
            keys.extend(c.parts.iter().map(|p| p.key));
        }
        keys.sort_unstable();
        keys.dedup();
        let paths: FxHashMap<u64, PathId> =
            keys.into_iter().map(|key| (key, self.path_of(edges, targets, key))).collect();
        let mut parts: Vec<(u64, Own, usize, usize)> = Vec::new();
        for (i, c) in claimed.iter().enumerate() {
            for t in &c.tallies {
                self.paths.count(paths[&t.key], t.objects, t.bytes);
                self.stats.objects += t.objects;
                self.stats.bytes += t.bytes;
                self.count_type(targets[&t.key].program, t.objects, t.bytes);
            }
            for (ordinal, key) in &c.opened {
                let mut state = lock(&self.shards[usize::from(touched[i])]);
                if let (Some(open), Some(path)) = (state.open.get_mut(ordinal), paths.get(key)) {
                    open.path = path.0;
                }
            }
            parts.extend(c.parts.iter().enumerate().map(|(j, p)| (p.key, p.own, i, j)));
            self.incidents.merge(&c.incidents);
        }
        parts.sort_unstable();
        for (key, own, i, j) in parts {
            let part = claimed[i].parts[j];
            let target = &targets[&key];
            let mut path = paths[&key];
            let (program, checked) = match own {
                Own::Nothing => (target.program, false),
                Own::Header(number) => self.resolver.header(self.world, number, target.program),
                Own::Closure(pc, room) => match self.world.modules.find_func(self.world.image, pc) {
                    Some(func) => {
                        let (program, step) = self.resolver.closure(self.world, &func, room);
                        path = self.paths.child(path, step);
                        // Over 512 bytes the mask is the allocation type's, which is not the closure's program.
                        (program, room > 512)
                    }
                    None => {
                        self.incidents.count("walk.closure_without_function");
                        (self.resolver.compile(ProgramKey::Untyped), true)
                    }
                },
                Own::Trie(kind) => match target.retype {
                    targets::Retype::TrieNode(ty) => (self.resolver.trie_node(ty, kind), false),
                    _ => (target.program, false),
                },
            };
            // An object of a type that cannot be read keeps its mask: every word is loose.
            let checked = checked || self.resolver.programs.get(program).key == ProgramKey::Untyped;
            if own != Own::Nothing {
                self.types_move(target.program, program, part.len as u64, part.bytes);
            }
            let items = &claimed[i].items[part.start..part.start + part.len];
            let group = next.group(path, program, checked);
            next.push(group, touched[i], items);
        }
    }

    fn count_type(&mut self, program: scan::ProgramId, objects: u64, bytes: u64) {
        let entry = self.types.entry(self.resolver.programs.get(program).type_name).or_default();
        entry.0 += objects;
        entry.1 += bytes;
    }

    fn types_move(&mut self, from: scan::ProgramId, to: scan::ProgramId, objects: u64, bytes: u64) {
        self.count_type(to, objects, bytes);
        if let Some(entry) = self.types.get_mut(&self.resolver.programs.get(from).type_name) {
            entry.0 -= objects;
            entry.1 -= bytes;
        }
    }

    /// Typed pointers into data and bss: what they point to has no variable of its own, and is theirs.
    fn claim_statics(
        &mut self,
        edges: &Edges<'_>,
        targets: &FxHashMap<u64, Target>,
        outputs: &[&Output],
        next: &mut Frontier,
    ) {
        let mut statics: Vec<_> = outputs.iter().flat_map(|o| o.statics.iter().copied()).collect();
        // One unit's are one worker's, in order of emission: a stable sort keeps that.
        statics.sort_by_key(|s| (s.key, s.unit));
        for s in statics {
            let target = &targets[&s.key];
            let bytes = target.size.saturating_mul(u64::from(s.count));
            let has_ops = !self.resolver.programs.get(target.program).ops.is_empty();
            if !has_ops || bytes == 0 {
                continue;
            }
            let program = target.program;
            let granule = self.pool.words();
            if !self.statics.claim(self.world.image, s.addr, bytes, &mut self.pool) {
                continue;
            }
            // What was copied ends with its segment, whatever the capacity word says.
            let copied = (self.pool.words() - granule) as u64 * 8;
            let count = u64::from(s.count).min(copied / target.size).max(1) as u32;
            let Ok(granule) = u32::try_from(granule) else {
                self.incidents.count("roots.beyond_pool");
                continue;
            };
            let path = self.path_of(edges, targets, s.key);
            let group = next.group(path, program, false);
            next.push(group, POOL, &[Item { granule, count, restrict: !0 }]);
        }
    }

    fn finish(mut self, before: &[RoaringBitmap]) -> Walked {
        self.stats.over_budget = self.paths.over_budget;
        self.incidents.merge(&self.resolver.incidents);
        let reached: Vec<_> = self.shards.par_iter().map(|s| lock(s).visited.reached()).collect();
        let conservative = reached.iter().zip(before).map(|(all, before)| all - before).collect();
        let labels = self.resolver.programs.labels.into_texts();
        let mut types: Vec<_> =
            self.types.into_iter().map(|(label, (o, b))| (label, o, b)).filter(|t| t.1 > 0).collect();
        types.sort_by(|a, b| {
            let text = |t: &(LabelId, u64, u64)| &labels[t.0.0 as usize];
            (b.2, b.1).cmp(&(a.2, a.1)).then_with(|| text(a).cmp(text(b)))
        });
        Walked { paths: self.paths, labels, types, reached, conservative, stats: self.stats, incidents: self.incidents }
    }
}

/// How a wave's keys are made.
struct Edges<'f> {
    frontier: &'f Frontier,
    bases: &'f [u32],
    first_group: u32,
    storage: bool,
}

impl Edges<'_> {
    /// Group, element bucket and operation of a key.
    fn decode(&self, key: u64, resolver: &Resolver<'_, '_>) -> (u32, u32, usize) {
        let ordinal = (key >> 32) as u32;
        let i = self.bases.partition_point(|&b| b <= ordinal) - 1;
        let group = self.first_group + i as u32;
        let program = resolver.programs.get(self.frontier.groups[group as usize].program);
        let within = ordinal - self.bases[i];
        let ops = (program.ops.len() as u32).max(1);
        let bucket = if program.indexed { (within / ops).min(INDEXED as u32) } else { 0 };
        (group, bucket, (within - bucket * ops) as usize)
    }
}

/// Elements of some slices, counting no further than it matters.
fn frontier_elements(frontier: &Frontier, slices: &[Slice]) -> u64 {
    let mut sum = 0;
    for slice in slices {
        sum += frontier.slice_elements(slice);
        if sum > INLINE_ELEMENTS {
            break;
        }
    }
    sum
}

/// Slots that are reached, as a set, for tests and the books.
#[must_use]
pub fn reached_objects(heap: &Heap, reached: &[RoaringBitmap]) -> u64 {
    debug_assert_eq!(heap.shards().len(), reached.len());
    reached.iter().map(RoaringBitmap::len).sum()
}
