//! Hot: levels of a few items. A list of ten million nodes has ten million levels, and a wave's bookkeeping for each would cost several times
//! what its one object costs.
//!
//! A level is run here if it has few items and everything about it is plain: typed programs without storage, whole objects of at most
//! 512 bytes that their types explain. What an edge leads to, and on which path, is remembered across levels. Before anything is
//! marked, all candidates of a level are looked at; one that is not plain sends the level to the general wave instead, so there
//! is one place for each special case. Candidates are settled in the same order as in a wave: the answer is the same.

use super::claim::fills;
use super::expand::{Buffers, LateOpen, Loose, element_count};
use super::frontier::{Frontier, Group, Next};
use super::items::{Item, POOL};
use super::observe::{Edge, Holder, ObjectId, Observer, Operation, Outcome};
use super::operations::{Emit, Sink};
use super::paths::PathId;
use super::scan::{ProgramId, ProgramKey};
use super::shard::ShardState;
use super::targets::{Retype, Target};
use super::world::World;
use super::{Walker, get_mut};
use crate::model::heap::SpanId;
use rustc_hash::FxHashMap;

/// Items of a level that is run here.
const FEW_ITEMS: usize = 16;
/// Operations of a program, as a shift: an edge is named by its group's rank in the level and its operation.
const OPS_SHIFT: u32 = 14;
/// Remembered groups; beyond, all are forgotten.
const MAX_STATES: usize = 1 << 12;
const UNKNOWN: u32 = u32::MAX;

/// A group that was scanned here, with what its edges lead to.
struct State {
    path: PathId,
    program: ProgramId,
    /// By operation: index of a [`Lead`] or [`UNKNOWN`].
    leads: Vec<u32>,
    /// The same for edges with a dynamic type, by (operation, number).
    dynamic: FxHashMap<(u32, u32), u32>,
}

/// Where an edge leads.
struct Lead {
    target: Target,
    operation: Operation,
    /// Objects behind it can be scanned here.
    plain: bool,
    /// They have edges of their own.
    has_edges: bool,
    /// Its path and the group of the objects behind it, once it has won something.
    won: Option<(PathId, u32)>,
}

/// One item.
#[derive(Copy, Clone)]
struct Entry {
    /// Rank of its group in the level.
    rank: u32,
    shard: u16,
    granule: u32,
}

/// One candidate, looked up.
#[derive(Copy, Clone)]
struct Found {
    lead: u32,
    /// Rank of the group that it comes from.
    rank: u32,
    shard: u16,
    ordinal: u32,
    span: SpanId,
    addr: u64,
    holder: u64,
}

/// Candidates of a level, all together.
#[derive(Default)]
struct Few {
    /// (key, address, count, holder).
    candidates: Vec<(u64, u64, u32, u64)>,
    followed: u64,
    /// Something is not plain.
    odd: bool,
}

impl Sink for Few {
    #[inline]
    fn push(&mut self, world: &World<'_>, at: (u64, u32), addr: u64, count: Option<u64>, holder: Option<u64>) {
        if world.heap.shard_of(addr).is_some() {
            self.candidates.push((at.0, addr, count.map_or(1, element_count), holder.unwrap_or_default()));
        } else {
            self.odd |= world.in_segments(addr);
        }
    }

    fn loose(&mut self, _: Loose) {
        self.odd = true;
    }

    fn open(&mut self, _: LateOpen) {
        self.odd = true;
    }

    fn incident(&mut self, _: &'static str) {
        self.odd = true;
    }

    #[inline]
    fn follow(&mut self) {
        self.followed += 1;
    }
}

/// What is kept between levels.
#[derive(Default)]
pub(super) struct Chase {
    states: Vec<State>,
    by_group: FxHashMap<(PathId, ProgramId), u32>,
    leads: Vec<Lead>,
    /// Groups of the level, by rank; items by (rank, shard, granule).
    groups: Vec<u32>,
    items: Vec<Entry>,
    /// The same for the next level.
    next_groups: Vec<u32>,
    next_items: Vec<Entry>,
    few: Few,
    found: Vec<Found>,
    buffers: Buffers,
}

impl<O: Observer> Walker<'_, '_, '_, O> {
    /// Runs the level, and the levels after it, as long as they are small and plain. False if not even this one is.
    pub(super) fn chase(&mut self, frontier: &Frontier, next: &mut Next) -> bool {
        if frontier.items_up_to(FEW_ITEMS) >= FEW_ITEMS || !self.is_plain(frontier) {
            return false;
        }
        let mut chase = std::mem::take(&mut self.chase);
        if chase.states.len() > MAX_STATES {
            chase = Chase::default();
        }
        chase.items.clear();
        chase.groups.clear();
        let mut last = None;
        for part in &frontier.parts {
            if last != Some(part.group) {
                last = Some(part.group);
                let group = frontier.groups[part.group as usize];
                let state = self.state(&mut chase, group.path, group.program);
                chase.groups.push(state);
            }
            let rank = chase.groups.len() as u32 - 1;
            let items = (0..part.stretch.len).map(|i| frontier.items(part).get(&part.stretch, i));
            chase.items.extend(items.map(|item| Entry { rank, shard: part.shard, granule: item.granule }));
        }
        let mut any = false;
        while chase.items.len() < FEW_ITEMS && chase.states.len() <= MAX_STATES && self.step(&mut chase) {
            any = true;
            self.report();
            if chase.items.is_empty() {
                break;
            }
        }
        if any {
            // What is left is the next level's, whoever runs it.
            for i in 0..chase.items.len() {
                let Entry { rank, shard, granule } = chase.items[i];
                let State { path, program, .. } = chase.states[chase.groups[rank as usize] as usize];
                let group = next.group(path, program, false);
                self.add(next, shard, group, &[Item::one(granule)]);
            }
        }
        self.chase = chase;
        any
    }

    /// Whether all items are whole values of typed programs.
    fn is_plain(&self, frontier: &Frontier) -> bool {
        frontier.parts.iter().all(|part| {
            let Group { program, checked, .. } = frontier.groups[part.group as usize];
            let whole = part.stretch.counts.is_none() && part.stretch.restrict.is_none();
            part.shard != POOL && !checked && whole && self.plain_program(program)
        })
    }

    fn plain_program(&self, program: ProgramId) -> bool {
        let program = self.resolver.programs.get(program);
        let typed = matches!(program.key, ProgramKey::Value(_) | ProgramKey::Closure(_));
        typed && !program.has_storage && program.ops.len() < 1 << OPS_SHIFT
    }

    /// The remembered group.
    fn state(&mut self, chase: &mut Chase, path: PathId, program: ProgramId) -> u32 {
        if let Some(&state) = chase.by_group.get(&(path, program)) {
            return state;
        }
        self.resolver.link(program);
        let state = chase.states.len() as u32;
        let leads = vec![UNKNOWN; self.resolver.programs.get(program).ops.len()];
        chase.states.push(State { path, program, leads, dynamic: FxHashMap::default() });
        chase.by_group.insert((path, program), state);
        state
    }

    /// Runs one level. False, and nothing done, if something in it is not plain.
    fn step(&mut self, chase: &mut Chase) -> bool {
        if O::EDGES {
            self.expand_few::<true>(chase)
        } else {
            self.expand_few::<false>(chase)
        }
        if chase.few.odd || !self.look_up_few(chase) {
            return false;
        }
        self.stats.levels += 1;
        self.stats.candidates += chase.few.followed;
        chase.next_groups.clear();
        chase.next_items.clear();
        for i in 0..chase.found.len() {
            let Found { lead, rank, shard, ordinal, span, addr, holder } = chase.found[i];
            let state = get_mut(&mut self.shards[usize::from(shard)]);
            let won = state.visited.insert(ordinal);
            if O::EDGES {
                let outcome = if won { Outcome::Won } else { Outcome::Lost };
                let operation = chase.leads[lead as usize].operation;
                let (holder, target) = (Holder::unpack(holder), ObjectId { shard, ordinal });
                self.observer.edge(&mut state.observed, &Edge { holder, operation, target, outcome });
            }
            if !won {
                continue;
            }
            let span = self.world.heap.span(span);
            let (path, group) = self.won_by(chase, lead, rank);
            let bytes = span.elem_size();
            self.paths.count(path, 1, bytes);
            self.stats.objects += 1;
            self.stats.bytes += bytes;
            let lead = &chase.leads[lead as usize];
            self.types.count(lead.target.program, 1, bytes);
            if span.noscan() || !lead.has_edges {
                continue;
            }
            let rank = match chase.next_groups.iter().position(|&g| g == group) {
                Some(rank) => rank,
                None => {
                    chase.next_groups.push(group);
                    chase.next_groups.len() - 1
                }
            };
            // Plain objects start their slots, which a shard reaches: looked at in `look_up_few`.
            let granule = ((addr - self.world.heap.shards()[usize::from(shard)].base) / 8) as u32;
            chase.next_items.push(Entry { rank: rank as u32, shard, granule });
        }
        std::mem::swap(&mut chase.groups, &mut chase.next_groups);
        std::mem::swap(&mut chase.items, &mut chase.next_items);
        if chase.items.len() > 1 {
            chase.items.sort_unstable_by_key(|item| (item.rank, item.shard, item.granule));
        }
        true
    }

    /// Collects the level's candidates in key order.
    fn expand_few<const HOLDERS: bool>(&mut self, chase: &mut Chase) {
        let Chase { states, groups, items, few, buffers, .. } = chase;
        few.candidates.clear();
        (few.followed, few.odd) = (0, false);
        for run in items.chunk_by(|a, b| (a.rank, a.shard) == (b.rank, b.shard)) {
            let Entry { rank, shard, .. } = run[0];
            let program = self.resolver.programs.get(states[groups[rank as usize] as usize].program);
            let base = rank << OPS_SHIFT;
            let emit = Emit::<HOLDERS> { world: self.world, unit: 0, base, program, group: rank, storage: false };
            emit.objects(shard, run.iter().map(|entry| Item::one(entry.granule)), buffers, few);
        }
        if !few.candidates.is_sorted_by_key(|c| c.0) {
            few.candidates.sort_by_key(|c| c.0);
        }
    }

    /// Finds the candidates' objects. False if one of them needs more than to be counted and scanned by its type.
    fn look_up_few(&mut self, chase: &mut Chase) -> bool {
        chase.found.clear();
        for i in 0..chase.few.candidates.len() {
            let (key, addr, count, holder) = chase.few.candidates[i];
            let heap = self.world.heap;
            let (Some(shard), Some((id, slot))) = (heap.shard_of(addr), heap.find_object(addr)) else { continue };
            let span = heap.span(id);
            let ordinal = span.slot_base + slot;
            let number = self.lead(chase, key);
            let lead = &chase.leads[number as usize];
            let state: &mut ShardState<_> = get_mut(&mut self.shards[usize::from(shard)]);
            state.visited.warm();
            if state.visited.contains(ordinal) {
                if state.is_partial(ordinal) {
                    return false;
                }
            } else if !span.noscan() {
                let start = span.start + u64::from(slot) * span.elem_size();
                let small = addr == start && count == 1 && span.elem_size() <= 512;
                let near = u32::try_from((addr - heap.shards()[usize::from(shard)].base) / 8).is_ok();
                if !(lead.plain && small && near && fills(&lead.target, 1, span.span_class)) {
                    return false;
                }
            }
            let rank = (key >> 32) as u32 >> OPS_SHIFT;
            chase.found.push(Found { lead: number, rank, shard, ordinal, span: id, addr, holder });
        }
        true
    }

    /// Where the edge with this key leads.
    fn lead(&mut self, chase: &mut Chase, key: u64) -> u32 {
        let (ordinal, number) = ((key >> 32) as u32, key as u32);
        let op = ordinal & ((1 << OPS_SHIFT) - 1);
        let state = chase.groups[(ordinal >> OPS_SHIFT) as usize] as usize;
        let known = match number {
            0 => chase.states[state].leads.get(op as usize).copied().unwrap_or(UNKNOWN),
            _ => chase.states[state].dynamic.get(&(op, number)).copied().unwrap_or(UNKNOWN),
        };
        if known != UNKNOWN {
            return known;
        }
        let program = chase.states[state].program;
        let target = self.resolver.target(self.world, program, op as usize, number);
        let plain = target.retype == Retype::No && self.plain_program(target.program);
        let has_edges = self.resolver.programs.get(target.program).has_edges;
        let operation = Operation { program, op, bucket: 0, number };
        let lead = chase.leads.len() as u32;
        chase.leads.push(Lead { target, operation, plain, has_edges, won: None });
        let state = &mut chase.states[state];
        match (number, state.leads.get_mut(op as usize)) {
            (0, Some(known)) => *known = lead,
            _ => {
                state.dynamic.insert((op, number), lead);
            }
        }
        lead
    }

    /// Path and group of what `lead` wins for the group of rank `rank`. Paths are numbered at the first win, in key order, as in a wave.
    fn won_by(&mut self, chase: &mut Chase, lead: u32, rank: u32) -> (PathId, u32) {
        if let Some(known) = chase.leads[lead as usize].won {
            return known;
        }
        let from = chase.states[chase.groups[rank as usize] as usize].path;
        let Lead { target, operation, plain, .. } = &chase.leads[lead as usize];
        let path = self.edge_path(from, *operation, target);
        let group = if *plain {
            let program = target.program;
            self.state(chase, path, program)
        } else {
            UNKNOWN
        };
        chase.leads[lead as usize].won = Some((path, group));
        (path, group)
    }
}
