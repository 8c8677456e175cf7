//! One wave: expand, resolve the distinct edges, claim, regroup. The same code for a wave of one item and of 2^16; a small one runs on the
//! calling thread, since a list has ten million of them.

use super::claim::claim_shard;
use super::closures::NO_FUNCTION;
use super::expand::{Output, Wave, expand_unit};
use super::frontier::{Cursor, Frontier, Next, Slice, column};
use super::items::{Item, POOL};
use super::observe::{Observer, Operation};
use super::paths::PathId;
use super::scan::{INDEXED, ProgramId, ProgramKey};
use super::shard::{Open, Own, ShardState};
use super::targets::{Resolver, Retype, Target, Targets};
use super::{Walker, lock};
use crate::image::Scratch;
use crate::incident::Incidents;
use rayon::prelude::*;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Elements of one unit of expansion: enough that a unit's candidates make runs worth visiting in each shard, few enough that a
/// wave has many units to steal.
const UNIT_ELEMENTS: u64 = 1024;
/// Below this many elements a wave is run by the calling thread alone: waking others costs more.
const INLINE_ELEMENTS: u64 = 1024;

/// One wave, and what is kept of it for the next, so that a small wave allocates nothing.
#[derive(Default)]
pub(super) struct WaveState {
    slices: Vec<Slice>,
    elements: u64,
    bases: Vec<u32>,
    /// Group of `bases[0]`.
    first_group: u32,
    /// By thread.
    outputs: Vec<Mutex<Output>>,
    targets: Targets,
    /// Shards with candidates.
    touched: Vec<u16>,
    /// Path by target number, once it is asked for.
    paths: Vec<Option<PathId>>,
    /// Parts to regroup: (target number, own type, position among `touched`, position in the shard's parts).
    parts: Vec<(u32, Own, u32, u32)>,
}

impl WaveState {
    /// Ready for so many threads and shards.
    pub(super) fn new(threads: usize, shards: usize) -> Self {
        let outputs = (0..=threads).map(|_| Mutex::new(Output::new(shards))).collect();
        Self { outputs, ..Self::default() }
    }

    /// Whether it is worth waking other threads.
    fn is_large(&self) -> bool {
        self.elements > INLINE_ELEMENTS
    }

    /// Soft errors of all its expansions.
    pub(super) fn incidents(&mut self) -> impl Iterator<Item = &Incidents> {
        self.outputs.iter_mut().map(|output| &super::get_mut(output).incidents)
    }
}

/// A level that is being scanned.
#[derive(Copy, Clone)]
struct Level<'f> {
    frontier: &'f Frontier,
    /// Follow storage edges instead of the others.
    storage: bool,
}

/// How a wave's keys are made.
struct Edges<'f> {
    frontier: &'f Frontier,
    bases: &'f [u32],
    first_group: u32,
    storage: bool,
}

impl Edges<'_> {
    /// Group and operation of a key.
    fn decode(&self, key: u64, resolver: &Resolver<'_, '_>) -> (u32, Operation) {
        let ordinal = (key >> 32) as u32;
        let i = self.bases.partition_point(|&b| b <= ordinal) - 1;
        let group = self.first_group + i as u32;
        let id = self.frontier.groups[group as usize].program;
        let program = resolver.programs.get(id);
        let within = ordinal - self.bases[i];
        let ops = (program.ops.len() as u32).max(1);
        let bucket = if program.indexed { (within / ops).min(INDEXED as u32) } else { 0 };
        (group, Operation { program: id, op: within - bucket * ops, bucket, number: key as u32 })
    }
}

impl<O: Observer> Walker<'_, '_, '_, O> {
    /// Scans a level, wave by wave; what it reaches goes to `next`.
    ///
    /// Expansions only read, so a wave is expanded while the one before it is claimed: neighbours in a level often point to neighbours in
    /// memory, so that all candidates of a wave are one shard's, and its owner alone would keep the others waiting.
    pub(super) fn level(&mut self, frontier: &Frontier, storage: bool, next: &mut Next) {
        let level = Level { frontier, storage };
        let [mut wave, mut after] = std::mem::take(&mut self.waves);
        let mut cursor = Cursor::default();
        let timed = |f: &dyn Fn()| {
            let start = Instant::now();
            f();
            start.elapsed()
        };
        if self.begin(level, &mut cursor, &mut wave) {
            self.times.expand += timed(&|| self.expand(level, &wave));
            loop {
                let start = Instant::now();
                self.prepare(level, &mut wave);
                let more = self.begin(level, &mut cursor, &mut after);
                self.times.regroup += start.elapsed();
                let claim = || timed(&|| self.claim(&wave));
                let expand = || if more { timed(&|| self.expand(level, &after)) } else { Duration::ZERO };
                let (claim, expand) = if wave.is_large() { rayon::join(claim, expand) } else { (claim(), expand()) };
                self.times.claim += claim;
                self.times.expand += expand;
                let start = Instant::now();
                self.regroup(level, &mut wave, next);
                self.claim_statics(level, &wave, next);
                wave.outputs.iter_mut().for_each(|output| super::get_mut(output).clear());
                self.times.regroup += start.elapsed();
                self.report();
                if !more {
                    break;
                }
                std::mem::swap(&mut wave, &mut after);
            }
        }
        self.waves = [wave, after];
    }

    /// Takes the next wave of a level. False if there is none.
    fn begin(&mut self, level: Level<'_>, cursor: &mut Cursor, wave: &mut WaveState) -> bool {
        let frontier = level.frontier;
        wave.elements = frontier.next_wave(cursor, &self.resolver.programs, &mut wave.slices);
        let group_of = |s: &Slice| frontier.parts[s.part as usize].group;
        let Some(first) = wave.slices.first() else { return false };
        wave.first_group = group_of(first);
        wave.bases.clear();
        let mut ordinal = 0u32;
        let mut seen = u32::MAX;
        for slice in &wave.slices {
            let group = group_of(slice);
            if group == seen {
                continue;
            }
            seen = group;
            let program = frontier.groups[group as usize].program;
            self.resolver.link(program);
            // Groups without items in this wave have no ordinals.
            wave.bases.resize((group - wave.first_group) as usize + 1, ordinal);
            ordinal += self.resolver.programs.get(program).ordinals() as u32;
        }
        true
    }

    /// Expands a wave, on all threads if it is large.
    fn expand(&self, level: Level<'_>, wave: &WaveState) {
        let constants = Wave {
            world: self.world,
            frontier: level.frontier,
            programs: self.resolver.programs.all(),
            bases: &wave.bases,
            first_group: wave.first_group,
            storage: level.storage,
            pool: &self.pool,
        };
        let unit = |thread: usize, number: u32, slices: &[Slice]| {
            let (buffers, output) = (&mut *lock(&self.workers[thread]), &mut *lock(&wave.outputs[thread]));
            if O::EDGES {
                expand_unit::<true>(&constants, number, slices, buffers, output);
            } else {
                expand_unit::<false>(&constants, number, slices, buffers, output);
            }
        };
        if !wave.is_large() {
            unit(0, 0, &wave.slices);
            return;
        }
        let units = level.frontier.units(&wave.slices, UNIT_ELEMENTS);
        units.par_iter().enumerate().for_each(|(i, slices)| {
            unit(rayon::current_thread_index().map_or(0, |t| t + 1), i as u32, slices);
        });
    }

    /// Between expand and claim: one target per distinct key, the shards to claim in, and what else the expansion found.
    fn prepare(&mut self, level: Level<'_>, wave: &mut WaveState) {
        let WaveState { outputs, targets, touched, bases, first_group, .. } = wave;
        touched.clear();
        for output in outputs.iter_mut() {
            touched.extend_from_slice(&super::get_mut(output).touched);
        }
        touched.sort_unstable();
        touched.dedup();
        targets.reset();
        for output in outputs.iter_mut() {
            let output = &*super::get_mut(output);
            let runs = output.touched.iter().flat_map(|&s| output.segments[usize::from(s)].runs()).map(|r| r.key);
            targets.add(runs.chain(output.statics.iter().map(|s| s.key)));
        }
        targets.sort();
        let edges = Edges { frontier: level.frontier, bases, first_group: *first_group, storage: level.storage };
        for i in 0..targets.keys().len() {
            let (_, operation) = edges.decode(targets.keys()[i], &self.resolver);
            let target = self.resolver.target(self.world, operation.program, operation.op as usize, operation.number);
            targets.push(target, operation);
        }
        let path = |group: u32| level.frontier.groups[group as usize].path;
        for output in outputs {
            let output = super::get_mut(output);
            for open in &output.opens {
                let entry = Open { words: open.words, path: path(open.group).0 };
                super::get_mut(&mut self.shards[usize::from(open.shard)]).open(open.ordinal, entry);
            }
            for l in &output.loose {
                let list = if l.later { &mut self.later } else { &mut self.loose };
                list.push((path(l.group), l.at, l.value));
            }
            self.stats.candidates += output.candidates;
        }
    }

    /// Settles a wave's candidates, each shard by one thread.
    fn claim(&self, wave: &WaveState) {
        let guards: Vec<_> = wave.outputs.iter().map(lock).collect();
        let outputs: Vec<&Output> = guards.iter().map(|guard| &**guard).collect();
        let claim = |scratch: &mut Scratch, &shard: &u16| {
            let state = &mut *lock(&self.shards[usize::from(shard)]);
            claim_shard((self.world, &self.depot), shard, &outputs, &wave.targets, state, self.observer, scratch);
        };
        if wave.is_large() {
            wave.touched.par_iter().for_each_init(Scratch::default, claim);
        } else {
            let mut scratch = Scratch::default();
            wave.touched.iter().for_each(|shard| claim(&mut scratch, shard));
        }
    }

    /// The path that the edge with this key leads to.
    fn path_of(&mut self, edges: &Edges<'_>, targets: &Targets, number: u32) -> PathId {
        let (group, operation) = edges.decode(targets.keys()[number as usize], &self.resolver);
        let group = edges.frontier.groups[group as usize];
        if edges.storage { group.path } else { self.edge_path(group.path, operation, targets.target(number)) }
    }

    /// The path behind an operation on items of path `from`.
    pub(super) fn edge_path(&mut self, from: PathId, operation: Operation, target: &Target) -> PathId {
        let program = self.resolver.programs.get(operation.program);
        let mut path = from;
        if program.indexed {
            path = self.paths.child(path, program.index_steps[operation.bucket as usize]);
        }
        match program.key {
            ProgramKey::Raw => {}
            ProgramKey::Masked => {
                let step = self.paths.sub_objects();
                path = self.paths.child(path, step);
            }
            _ => {
                for step in &program.ops[operation.op as usize].chain {
                    path = self.paths.child(path, *step);
                }
            }
        }
        for step in &target.chain {
            path = self.paths.child(path, *step);
        }
        path
    }

    /// Numbers the wave's paths in key order, counts, and feeds the next level.
    fn regroup(&mut self, level: Level<'_>, wave: &mut WaveState, next: &mut Next) {
        let WaveState { targets, touched, paths, parts, bases, first_group, .. } = wave;
        let edges = &Edges { frontier: level.frontier, bases, first_group: *first_group, storage: level.storage };
        // Only edges that won something or lead on get a path, in key order.
        paths.clear();
        paths.resize(targets.keys().len(), None);
        parts.clear();
        let wanted = Some(PathId(u32::MAX));
        for (i, &shard) in touched.iter().enumerate() {
            let claimed = &super::get_mut(&mut self.shards[usize::from(shard)]).claimed;
            claimed.tallies.iter().for_each(|t| paths[t.target as usize] = wanted);
            for (j, part) in claimed.parts.iter().enumerate() {
                paths[part.target as usize] = wanted;
                parts.push((part.target, part.own, i as u32, j as u32));
            }
        }
        for (number, path) in paths.iter_mut().enumerate().filter(|(_, path)| path.is_some()) {
            *path = Some(self.path_of(edges, targets, number as u32));
        }
        let path = |number: u32| paths[number as usize];
        for &shard in touched.iter() {
            let ShardState { claimed, open, .. } = super::get_mut(&mut self.shards[usize::from(shard)]);
            for t in &claimed.tallies {
                if let Some(path) = path(t.target) {
                    self.paths.count(path, t.objects, t.bytes);
                }
                self.stats.objects += t.objects;
                self.stats.bytes += t.bytes;
                self.types.count(targets.target(t.target).program, t.objects, t.bytes);
            }
            for (ordinal, number) in &claimed.opened {
                if let (Some(open), Some(path)) = (open.get_mut(ordinal), path(*number)) {
                    open.path = path.0;
                }
            }
            self.incidents.merge(&claimed.incidents);
        }
        if !parts.is_sorted() {
            parts.sort_unstable();
        }
        for &(number, own, i, j) in parts.iter() {
            let shard = touched[i as usize];
            let part = super::get_mut(&mut self.shards[usize::from(shard)]).claimed.parts[j as usize];
            let Some(path) = path(number) else { continue };
            let (program, path, checked) = self.program_of(own, targets, number, path);
            if own != Own::Nothing {
                self.types.moved(targets.target(number).program, program, part.stretch.len as u64, part.bytes);
            }
            let group = next.group(path, program, checked);
            let state = super::get_mut(&mut self.shards[usize::from(shard)]);
            next.add(&mut state.gathered, shard, group, part.stretch);
        }
        for &shard in touched.iter() {
            super::get_mut(&mut self.shards[usize::from(shard)]).claimed.clear();
        }
    }

    /// How objects reached by an edge are scanned, given what they say of themselves, and on which path. The flag says that program and
    /// mask may disagree.
    fn program_of(&mut self, own: Own, targets: &Targets, number: u32, path: PathId) -> (ProgramId, PathId, bool) {
        let target = targets.target(number);
        let (program, path, checked) = match own {
            Own::Nothing => (target.program, path, false),
            Own::Unrecorded => (target.program, path, true),
            Own::Header(number) => {
                let (program, checked) = self.resolver.header(self.world, number, target.program);
                (program, path, checked)
            }
            Own::Closure(pc, room) => {
                let known = self.closure_program(path, pc, room);
                if self.resolver.programs.get(known.0).key == ProgramKey::Untyped {
                    self.incidents.count(NO_FUNCTION);
                }
                known
            }
            Own::Whole => (target.part.map_or(target.program, |part| self.resolver.whole(part)), path, false),
            Own::Trie(kind) => match target.retype {
                Retype::TrieNode(ty) => (self.resolver.trie_node(ty, kind), path, false),
                _ => (target.program, path, false),
            },
        };
        // An object of a type that cannot be read keeps its mask: every word is loose.
        let checked = checked || self.resolver.programs.get(program).key == ProgramKey::Untyped;
        (program, path, checked)
    }

    /// Typed pointers into data and bss: what they point to has no variable of its own, and is theirs.
    fn claim_statics(&mut self, level: Level<'_>, wave: &WaveState, next: &mut Next) {
        let WaveState { targets, bases, first_group, .. } = wave;
        let edges = &Edges { frontier: level.frontier, bases, first_group: *first_group, storage: level.storage };
        let mut statics: Vec<_> = wave.outputs.iter().flat_map(|output| lock(output).statics.clone()).collect();
        if statics.is_empty() {
            return;
        }
        // One unit's are one worker's, in order of emission: a stable sort keeps that.
        statics.sort_by_key(|s| (s.key, s.unit));
        for s in statics {
            let number = targets.number(s.key);
            let target = targets.target(number);
            let bytes = target.size.saturating_mul(u64::from(s.count));
            let has_ops = !self.resolver.programs.get(target.program).ops.is_empty();
            if !has_ops || bytes == 0 {
                continue;
            }
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
            let path = self.path_of(edges, targets, number);
            let group = next.group(path, target.program, false);
            self.add(next, POOL, group, &[Item { granule, count, restrict: !0 }]);
        }
    }

    /// Adds items that no claim made to the next level.
    pub(super) fn add(&mut self, next: &mut Next, shard: u16, group: u32, items: &[Item]) {
        let columns = self.shards.len();
        let gathered = &mut super::get_mut(&mut self.shards[column(shard, columns)]).gathered;
        let stretch = gathered.items.push(&self.depot, items);
        next.add(gathered, shard, group, stretch);
    }
}
