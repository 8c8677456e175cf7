//! The frontier: what one level scans. Groups in canonical order, inside a group items in slot order.
//!
//! Each shard has columns of its own: claims append to them ([`Gathered`]), and the next level is arranged from them
//! ([`Frontier::build`]), shard by shard in parallel. A [`Part`] is the stretch of one group in one shard.

use super::arrange::{Order, Sorter};
use super::items::{Depot, Items, POOL, Stretch, TAIL};
use super::paths::PathId;
use super::scan::{ProgramId, ProgramKey, Programs};
use super::shard::ShardState;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::sync::{Mutex, PoisonError};

/// Elements of one wave. Candidates of a wave are held at once (8 bytes each, some with 4 more): 64 Ki elements with ten
/// pointers are 5 MB, and stay near the caches; see perf/notes/0001. May enter the answer (ties are settled per wave), so it
/// is a constant of the program and not for tuning per run.
const WAVE_ELEMENTS: u64 = 1 << 16;
/// Edge ordinals of one wave, so that they fit 32 bits whatever the programs' sizes.
const WAVE_ORDINALS: u64 = 1 << 30;
/// Items of a level below which it is arranged by the calling thread alone: a list has ten million such levels.
const PARALLEL_ITEMS: usize = 4096;
/// Groups of a level that are found by looking at all of them.
const FEW_GROUPS: usize = 8;

/// Items that share path and program.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where the items are counted, and what their edges' paths start with.
    pub path: PathId,
    /// How they are scanned.
    pub program: ProgramId,
    /// Program and pointer mask disagree, or may: each object's mask is read, word by word.
    pub checked: bool,
}

/// The items of one group in one shard.
#[derive(Copy, Clone, Debug)]
pub struct Part {
    /// Index of the group.
    pub group: u32,
    /// Shard of the items, or [`POOL`].
    pub shard: u16,
    /// Where they are in that shard's columns.
    pub stretch: Stretch,
}

/// What the claims of a level leave in one shard for the next level, in order of arrival.
#[derive(Default, Debug)]
pub struct Gathered {
    /// The columns.
    pub items: Items,
    parts: Vec<(u32, Stretch)>,
    /// Parts before this one were looked at for storage edges.
    offered: usize,
}

/// The groups of the next level, in canonical order, and the shards that hold items of it.
#[derive(Default, Debug)]
pub struct Next {
    groups: Vec<Group>,
    ranks: FxHashMap<(PathId, ProgramId, bool), u32>,
    touched: Vec<u16>,
}

impl Next {
    /// The rank of a group; a new one comes last.
    pub fn group(&mut self, path: PathId, program: ProgramId, checked: bool) -> u32 {
        let wanted = Group { path, program, checked };
        let key = |g: &Group| (g.path, g.program, g.checked);
        if self.groups.len() <= FEW_GROUPS {
            if let Some(rank) = self.groups.iter().position(|g| *g == wanted) {
                return rank as u32;
            }
        } else {
            if self.ranks.is_empty() {
                self.ranks.extend((0u32..).zip(&self.groups).map(|(rank, g)| (key(g), rank)));
            }
            if let Some(rank) = self.ranks.get(&key(&wanted)) {
                return *rank;
            }
        }
        let rank = u32::try_from(self.groups.len()).expect("groups are bounded by path nodes and programs");
        self.groups.push(wanted);
        if !self.ranks.is_empty() {
            self.ranks.insert(key(&wanted), rank);
        }
        rank
    }

    /// Says that `stretch` of the columns of `shard` belongs to `group`.
    pub fn add(&mut self, gathered: &mut Gathered, shard: u16, group: u32, stretch: Stretch) {
        if gathered.parts.is_empty() {
            self.touched.push(shard);
        }
        gathered.parts.push((group, stretch));
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.touched.clear();
        if !self.ranks.is_empty() {
            // Not `clear`: that costs what the largest level ever had.
            self.ranks = FxHashMap::default();
        }
    }
}

/// Consecutive items of one part.
#[derive(Copy, Clone, Debug)]
pub struct Slice {
    /// Index of the part.
    pub part: u32,
    /// First item.
    pub from: usize,
    /// Number of items.
    pub len: usize,
}

/// Where the next wave starts.
#[derive(Copy, Clone, Default, Debug)]
pub struct Cursor {
    part: usize,
    from: usize,
}

/// A level's items, ready to be scanned.
#[derive(Default, Debug)]
pub struct Frontier {
    /// Groups by rank.
    pub groups: Vec<Group>,
    /// By (group, shard).
    pub parts: Vec<Part>,
    /// By shard, the pool's last.
    columns: Vec<Items>,
    sorter: Sorter,
}

impl Frontier {
    /// An empty frontier over so many columns: one per shard, and the pool's.
    #[must_use]
    pub fn new(columns: usize) -> Self {
        let mut frontier = Self::default();
        frontier.columns.resize_with(columns, Items::default);
        frontier
    }

    /// As [`Frontier::items`], to append to.
    pub(super) fn items_mut(&mut self, part: &Part) -> &mut Items {
        let columns = self.columns.len();
        &mut self.columns[column(part.shard, columns)]
    }

    /// Whether there is nothing to scan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The columns of a part.
    #[inline]
    #[must_use]
    pub fn items(&self, part: &Part) -> &Items {
        &self.columns[column(part.shard, self.columns.len())]
    }

    /// Arranges what was gathered since the last call by group and slot, keeping only the items that have storage to follow. Their
    /// edges come later: everything stays gathered.
    pub fn build_storage<S: Send>(
        &mut self,
        next: &mut Next,
        shards: &mut [Mutex<ShardState<S>>],
        depot: &Depot,
        programs: &Programs,
    ) {
        let keep = |group: &Group| programs.get(group.program).has_storage;
        if !next.groups.iter().any(keep) {
            self.clear(depot);
            return;
        }
        self.arrange(next, shards, depot, programs, false, keep);
    }

    /// Arranges all that was gathered by group and slot, and leaves `next` empty.
    pub fn build<S: Send>(
        &mut self,
        next: &mut Next,
        shards: &mut [Mutex<ShardState<S>>],
        depot: &Depot,
        programs: &Programs,
    ) {
        let keep = |group: &Group| {
            let program = programs.get(group.program);
            program.has_edges || group.checked || program.key == ProgramKey::Funcval
        };
        self.arrange(next, shards, depot, programs, true, keep);
        next.clear();
    }

    fn clear(&mut self, depot: &Depot) {
        let columns = self.columns.len();
        let mut last = u16::MAX - 1;
        for part in self.parts.drain(..) {
            if part.shard != last {
                last = part.shard;
                self.columns[column(part.shard, columns)].clear(depot);
            }
        }
        self.groups.clear();
    }

    /// * `last`: look at all that was gathered, and empty it; else only at what came since the last call.
    fn arrange<S: Send>(
        &mut self,
        next: &mut Next,
        shards: &mut [Mutex<ShardState<S>>],
        depot: &Depot,
        programs: &Programs,
        last: bool,
        keep: impl Fn(&Group) -> bool + Sync,
    ) {
        self.clear(depot);
        self.groups.extend_from_slice(&next.groups);
        next.touched.sort_unstable();
        let (groups, columns) = (&self.groups, shards.len());
        let one =
            |shard: u16, gathered: &mut Gathered, items: &mut Items, parts: &mut Vec<Part>, sorter: &mut Sorter| {
                let from = if last { 0 } else { gathered.offered };
                let order = Order { groups, programs, depot, shard };
                order.arrange(&gathered.parts[from..], &gathered.items, &keep, (items, parts), sorter);
                gathered.offered = gathered.parts.len();
                if last {
                    gathered.items.clear(depot);
                    gathered.parts.clear();
                    gathered.offered = 0;
                }
            };
        let items: usize = match &next.touched[..] {
            [_] => 0,
            touched => touched.iter().map(|&s| state(shards, s).gathered.items.granules.len()).sum(),
        };
        if items < PARALLEL_ITEMS {
            for &shard in &next.touched {
                let items = &mut self.columns[column(shard, columns)];
                one(shard, &mut state(shards, shard).gathered, items, &mut self.parts, &mut self.sorter);
            }
        } else {
            let mut work: Vec<_> = next
                .touched
                .iter()
                .map(|&shard| (shard, std::mem::take(&mut self.columns[column(shard, columns)]), Vec::new()))
                .collect();
            let shards = &*shards;
            work.par_iter_mut().for_each_init(Sorter::default, |sorter, (shard, items, parts)| {
                let mut state = shards[column(*shard, columns)].lock().unwrap_or_else(PoisonError::into_inner);
                one(*shard, &mut state.gathered, items, parts, sorter);
            });
            for (shard, items, parts) in work {
                self.columns[column(shard, columns)] = items;
                self.parts.extend(parts);
            }
        }
        if next.touched.len() > 1 {
            self.parts.sort_unstable_by_key(|part| (part.group, part.shard));
        }
    }

    /// Number of items, counting no further than `limit`.
    #[must_use]
    pub fn items_up_to(&self, limit: usize) -> usize {
        let mut items = 0;
        for part in &self.parts {
            items += part.stretch.len;
            if items >= limit {
                break;
            }
        }
        items
    }

    /// The next wave after `cursor`, as slices in canonical order, and the number of its elements; 0 at the end.
    pub fn next_wave(&self, cursor: &mut Cursor, programs: &Programs, wave: &mut Vec<Slice>) -> u64 {
        wave.clear();
        let (mut elements, mut ordinals, mut last_group) = (0, 0, u32::MAX);
        while let Some(part) = self.parts.get(cursor.part) {
            if part.group != last_group {
                ordinals += programs.get(self.groups[part.group as usize].program).ordinals();
                last_group = part.group;
            }
            if !wave.is_empty() && (elements >= WAVE_ELEMENTS || ordinals > WAVE_ORDINALS) {
                break;
            }
            let len = self.take(part, cursor.from, WAVE_ELEMENTS.saturating_sub(elements).max(1));
            elements += self.elements(part, cursor.from, len);
            wave.push(Slice { part: cursor.part as u32, from: cursor.from, len });
            cursor.from += len;
            if cursor.from == part.stretch.len {
                *cursor = Cursor { part: cursor.part + 1, from: 0 };
            }
        }
        elements
    }

    /// Cuts a wave into units of about `size` elements, for workers.
    #[must_use]
    pub fn units(&self, wave: &[Slice], size: u64) -> Vec<Vec<Slice>> {
        let mut units = Vec::new();
        let mut unit = Vec::new();
        let mut elements = 0;
        for slice in wave {
            let part = &self.parts[slice.part as usize];
            let (mut from, end) = (slice.from, slice.from + slice.len);
            while from < end {
                let len = self.take(part, from, size.saturating_sub(elements).max(1)).min(end - from);
                elements += self.elements(part, from, len);
                unit.push(Slice { part: slice.part, from, len });
                from += len;
                if elements >= size {
                    units.push(std::mem::take(&mut unit));
                    elements = 0;
                }
            }
        }
        if !unit.is_empty() {
            units.push(unit);
        }
        units
    }

    /// How many items from `from` on hold about `budget` elements; at least one.
    fn take(&self, part: &Part, from: usize, budget: u64) -> usize {
        let left = part.stretch.len - from;
        let Some(at) = part.stretch.counts else {
            return left.min(usize::try_from(budget).unwrap_or(left)).max(1);
        };
        let mut sum = 0;
        let counts = self.items(part).counts.pieces(at + from, left).flatten();
        let n = counts.take_while(|&&c| {
            let before = sum;
            sum += u64::from(c & !TAIL).max(1);
            before < budget
        });
        n.count().max(1)
    }

    fn elements(&self, part: &Part, from: usize, len: usize) -> u64 {
        let Some(at) = part.stretch.counts else { return len as u64 };
        self.items(part).counts.pieces(at + from, len).flatten().map(|&c| u64::from(c & !TAIL).max(1)).sum()
    }
}

/// The index of a shard's columns and state: the pool's come last.
#[inline]
pub fn column(shard: u16, columns: usize) -> usize {
    if shard == POOL { columns - 1 } else { usize::from(shard) }
}

fn state<S>(shards: &mut [Mutex<ShardState<S>>], shard: u16) -> &mut ShardState<S> {
    let columns = shards.len();
    shards[column(shard, columns)].get_mut().unwrap_or_else(PoisonError::into_inner)
}
