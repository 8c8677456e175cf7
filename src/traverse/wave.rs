//! One wave: expand, resolve the distinct edges, claim, regroup. The same code for a wave of one item and of 2^16; a small one runs on the
//! calling thread, since a list has ten million of them.

use super::claim::{Open, Own, ShardState, claim_shard};
use super::expand::{Output, Wave, expand_unit};
use super::frontier::{Frontier, Item, Next, POOL, Slice, column};
use super::observe::{Observer, Operation};
use super::paths::PathId;
use super::scan::{INDEXED, ProgramId, ProgramKey};
use super::targets::{Resolver, Retype, Target, Targets};
use super::{Walker, Worker, lock};
use crate::image::Scratch;
use rayon::prelude::*;

/// Elements of one unit of expansion: enough that a unit's candidates make runs worth visiting in each shard, few enough that a
/// wave has many units to steal.
const UNIT_ELEMENTS: u64 = 1024;
/// Below this many elements a wave is run by the calling thread alone: waking others costs more.
const INLINE_ELEMENTS: u64 = 1024;

/// What a walk keeps between waves, so that a small wave allocates nothing.
#[derive(Default)]
pub(super) struct WaveBuffers {
    slices: Vec<Slice>,
    bases: Vec<u32>,
    targets: Targets,
    /// Shards with candidates.
    touched: Vec<u16>,
    /// Path by target number, once it is asked for.
    paths: Vec<Option<PathId>>,
    /// Parts to regroup: (target number, own type, position among `touched`, position in the shard's parts).
    parts: Vec<(u32, Own, u32, u32)>,
    scratch: Scratch,
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
    pub(super) fn level(&mut self, frontier: &Frontier, storage: bool, next: &mut Next) {
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut cursor = super::frontier::Cursor::default();
        loop {
            let elements = frontier.next_wave(&mut cursor, &self.resolver.programs, &mut buffers.slices);
            if elements == 0 {
                break;
            }
            self.wave(frontier, elements, storage, &mut buffers, next);
            self.report();
        }
        self.buffers = buffers;
    }

    /// Expand, claim, regroup.
    fn wave(&mut self, frontier: &Frontier, elements: u64, storage: bool, buffers: &mut WaveBuffers, next: &mut Next) {
        let WaveBuffers { slices, bases, targets, touched, paths, parts, scratch } = buffers;
        let group_of = |s: &Slice| frontier.parts[s.part as usize].group;
        let first_group = group_of(&slices[0]);
        bases.clear();
        let mut ordinal = 0u32;
        let mut seen = u32::MAX;
        for slice in slices.iter() {
            let group = group_of(slice);
            if group == seen {
                continue;
            }
            seen = group;
            let program = frontier.groups[group as usize].program;
            self.resolver.link(program);
            // Groups without items in this wave have no ordinals.
            bases.resize((group - first_group) as usize + 1, ordinal);
            ordinal += self.resolver.programs.get(program).ordinals() as u32;
        }
        let edges = Edges { frontier, bases, first_group, storage };
        let mut workers = std::mem::take(&mut self.workers);
        if elements > INLINE_ELEMENTS {
            self.expand(&edges, slices, &workers);
            let guards: Vec<_> = workers.iter().map(lock).collect();
            let outputs: Vec<&Output> = guards.iter().map(|g| &g.output).collect();
            self.prepare(&edges, &outputs, targets, touched);
            let (world, depot, observer, shards) = (self.world, &self.depot, self.observer, &self.shards);
            touched.par_iter().for_each_init(Scratch::default, |scratch, &shard| {
                let mut state = lock(&shards[usize::from(shard)]);
                claim_shard((world, depot), shard, &outputs, targets, &mut state, observer, scratch);
            });
            self.regroup(&edges, targets, touched, (paths, parts), next);
            self.claim_statics(&edges, targets, &outputs, next);
            drop(guards);
            workers.iter().for_each(|worker| lock(worker).output.clear());
        } else {
            let worker = super::get_mut(&mut workers[0]);
            let wave = self.constants(&edges);
            expand(&wave, 0, slices, worker, self.observer);
            let outputs = [&worker.output];
            self.prepare(&edges, &outputs, targets, touched);
            for &shard in touched.iter() {
                let state = super::get_mut(&mut self.shards[usize::from(shard)]);
                claim_shard((self.world, &self.depot), shard, &outputs, targets, state, self.observer, scratch);
            }
            self.regroup(&edges, targets, touched, (paths, parts), next);
            self.claim_statics(&edges, targets, &outputs, next);
            worker.output.clear();
        }
        self.workers = workers;
    }

    fn constants<'e>(&'e self, edges: &Edges<'e>) -> Wave<'e> {
        Wave {
            world: self.world,
            frontier: edges.frontier,
            programs: self.resolver.programs.all(),
            bases: edges.bases,
            first_group: edges.first_group,
            storage: edges.storage,
            pool: &self.pool,
        }
    }

    /// Expands the wave's units on all threads.
    fn expand(&self, edges: &Edges<'_>, slices: &[Slice], workers: &[std::sync::Mutex<Worker>]) {
        let wave = self.constants(edges);
        let units = edges.frontier.units(slices, UNIT_ELEMENTS);
        units.par_iter().enumerate().for_each(|(i, unit)| {
            let thread = rayon::current_thread_index().map_or(0, |t| t + 1);
            expand(&wave, i as u32, unit, &mut lock(&workers[thread]), self.observer);
        });
    }

    /// Between expand and claim: one target per distinct key, the shards to claim in, and what else the expansion found.
    fn prepare(&mut self, edges: &Edges<'_>, outputs: &[&Output], targets: &mut Targets, touched: &mut Vec<u16>) {
        touched.clear();
        outputs.iter().for_each(|output| touched.extend_from_slice(&output.touched));
        touched.sort_unstable();
        touched.dedup();
        targets.reset(outputs.iter().flat_map(|output| {
            let runs = output.touched.iter().flat_map(|&s| output.segments[usize::from(s)].runs()).map(|r| r.key);
            runs.chain(output.statics.iter().map(|s| s.key))
        }));
        for i in 0..targets.keys().len() {
            let (_, operation) = edges.decode(targets.keys()[i], &self.resolver);
            let target = self.resolver.target(self.world, operation.program, operation.op as usize, operation.number);
            targets.push(target, operation);
        }
        let path = |group: u32| edges.frontier.groups[group as usize].path;
        for output in outputs {
            for open in &output.opens {
                let entry = Open { words: open.words, path: path(open.group).0 };
                super::get_mut(&mut self.shards[usize::from(open.shard)]).open(open.ordinal, entry);
            }
            self.loose.extend(output.loose.iter().map(|l| (path(l.group), l.at, l.value)));
            self.stats.candidates += output.candidates;
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
    fn regroup(
        &mut self,
        edges: &Edges<'_>,
        targets: &Targets,
        touched: &[u16],
        (paths, parts): (&mut Vec<Option<PathId>>, &mut Vec<(u32, Own, u32, u32)>),
        next: &mut Next,
    ) {
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
        for number in 0..paths.len() {
            if paths[number].is_some() {
                paths[number] = Some(self.path_of(edges, targets, number as u32));
            }
        }
        let path = |number: u32| paths[number as usize];
        for &shard in touched {
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
        for &shard in touched {
            super::get_mut(&mut self.shards[usize::from(shard)]).claimed.clear();
        }
    }

    /// How objects reached by an edge are scanned, given what they say of themselves, and on which path. The flag says that program and
    /// mask may disagree.
    fn program_of(&mut self, own: Own, targets: &Targets, number: u32, path: PathId) -> (ProgramId, PathId, bool) {
        let target = targets.target(number);
        let (program, path, checked) = match own {
            Own::Nothing => (target.program, path, false),
            Own::Header(number) => {
                let (program, checked) = self.resolver.header(self.world, number, target.program);
                (program, path, checked)
            }
            Own::Closure(pc, room) => match self.world.modules.find_func(self.world.image, pc) {
                Some(func) => {
                    let (program, step) = self.resolver.closure(self.world, &func, room);
                    // Over 512 bytes the mask is the allocation type's, which is not the closure's program.
                    (program, self.paths.child(path, step), room > 512)
                }
                None => {
                    self.incidents.count("walk.closure_without_function");
                    (self.resolver.compile(ProgramKey::Untyped), path, true)
                }
            },
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
    fn claim_statics(&mut self, edges: &Edges<'_>, targets: &Targets, outputs: &[&Output], next: &mut Next) {
        if outputs.iter().all(|o| o.statics.is_empty()) {
            return;
        }
        let mut statics: Vec<_> = outputs.iter().flat_map(|o| o.statics.iter().copied()).collect();
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

/// Expands one unit with the worker's buffers.
fn expand<O: Observer>(wave: &Wave<'_>, unit: u32, slices: &[Slice], worker: &mut Worker, _observer: &O) {
    let Worker { buffers, output } = worker;
    if O::EDGES {
        expand_unit::<true>(wave, unit, slices, buffers, output);
    } else {
        expand_unit::<false>(wave, unit, slices, buffers, output);
    }
}
