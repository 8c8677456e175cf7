//! The frontier: what one level scans. Groups in canonical order, inside a group items in slot order.
//!
//! An item is a value in memory: 32 bits that say how many words past its shard's base it starts (so interior pointers need nothing
//! extra), and, only where it is not the default, an element count and a restriction to some of its words. Each shard has columns of
//! its own: claims append to them ([`Gathered`]), and the next level is arranged from them ([`Frontier::build`]), shard by
//! shard in parallel. A [`Part`] is the stretch of one group in one shard.

use super::claim::ShardState;
use super::paths::PathId;
use super::scan::{ProgramId, Programs};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::sync::{Mutex, PoisonError};

/// Pseudo-shard of values copied out of stacks, data and bss: granules index the pool.
pub const POOL: u16 = u16::MAX;
/// Elements of one item; longer runs are cut.
pub const MAX_RUN: u32 = 4096;
/// Set in a count: the run's elements are all past the individually labelled ones.
pub const TAIL: u32 = 1 << 31;
/// Elements of one wave. Candidates of a wave are held at once (8 bytes each, some with 4 more): 64 Ki elements with ten
/// pointers are 5 MB, and stay near the caches; see perf/notes/0001. May enter the answer (ties are settled per wave), so it
/// is a constant of the program and not for tuning per run.
const WAVE_ELEMENTS: u64 = 1 << 16;
/// Edge ordinals of one wave, so that they fit 32 bits whatever the programs' sizes.
const WAVE_ORDINALS: u64 = 1 << 30;
/// Items of a level below which it is arranged by the calling thread alone: a list has ten million such levels.
const PARALLEL_ITEMS: usize = 4096;
/// Restrictions that a shard keeps room for between levels.
const KEPT_RESTRICTIONS: usize = 1 << 12;
/// Words of a bitmap per item up to which it is faster than sorting.
const SPARSE: usize = 4;
/// Groups of a level that are found by looking at all of them.
const FEW_GROUPS: usize = 8;

/// Items that share path and program.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where the items are counted, and what their edges' paths start with.
    pub path: PathId,
    /// How they are scanned.
    pub program: ProgramId,
    /// The pointer mask of the objects must be read from their type, word by word: program and allocation type disagree.
    pub checked: bool,
}

/// One item with all its columns.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// Words past the shard's base (heap) or index into the pool.
    pub granule: u32,
    /// Elements; [`TAIL`] may be set.
    pub count: u32,
    /// Only these words, bit 0 being the word at the granule; all if no bit is clear.
    pub restrict: u64,
}

impl Item {
    /// One element, no restriction.
    #[must_use]
    pub const fn one(granule: u32) -> Self {
        Self { granule, count: 1, restrict: !0 }
    }
}

/// Consecutive items in a shard's columns.
#[derive(Copy, Clone, Debug)]
pub struct Stretch {
    /// First item in the granules.
    pub start: usize,
    /// Number of items.
    pub len: usize,
    /// First item in the counts, if the stretch has that column.
    pub counts: Option<usize>,
    /// First item in the restrictions, if the stretch has that column.
    pub restrict: Option<usize>,
}

impl Stretch {
    /// Takes in `next` if it lies right behind this one and neither has restrictions.
    pub fn join(&mut self, next: &Self) -> bool {
        let counts = match (self.counts, next.counts) {
            (None, None) => true,
            (Some(at), Some(next)) => at + self.len == next,
            _ => false,
        };
        let joined =
            counts && self.start + self.len == next.start && self.restrict.is_none() && next.restrict.is_none();
        if joined {
            self.len += next.len;
        }
        joined
    }
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

/// Chunks of columns that are not in use. A level's columns are tens of megabytes: growing vectors would copy them twice, and getting fresh
/// memory for each level cost a tenth of a walk (perf/notes/0003).
#[derive(Default, Debug)]
pub struct Depot {
    chunks: Mutex<Vec<Vec<u32>>>,
}

impl Depot {
    fn take(&self) -> Vec<u32> {
        let spare = self.chunks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give(&self, chunks: impl Iterator<Item = Vec<u32>>) {
        let mut spare = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        spare.extend(chunks.map(|mut chunk| {
            chunk.clear();
            chunk
        }));
    }
}

/// Entries of a chunk: 16 KiB, so that 256 shards with one chunk each cost 4 MiB.
const CHUNK: usize = 1 << 12;

/// An append-only list in chunks, all but the last full.
#[derive(Default, Debug)]
struct Column {
    chunks: Vec<Vec<u32>>,
}

impl Column {
    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    #[inline]
    fn push(&mut self, depot: &Depot, entry: u32) {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(depot.take());
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(entry);
    }

    #[inline]
    fn get(&self, i: usize) -> u32 {
        self.chunks[i / CHUNK][i % CHUNK]
    }

    /// The entries `from..from + len` in pieces.
    fn pieces(&self, from: usize, len: usize) -> impl Iterator<Item = &[u32]> {
        let end = from + len;
        let chunks = if len == 0 { 0..0 } else { from / CHUNK..end.div_ceil(CHUNK) };
        chunks.map(move |c| {
            let first = c * CHUNK;
            &self.chunks[c][from.max(first) - first..end.min(first + CHUNK) - first]
        })
    }

    fn clear(&mut self, depot: &Depot) {
        match &mut self.chunks[..] {
            [] => {}
            // Small ones are kept: a list has ten million levels.
            [only] => only.clear(),
            _ => depot.give(self.chunks.drain(..)),
        }
    }
}

/// The columns of one shard.
#[derive(Default, Debug)]
pub struct Items {
    granules: Column,
    counts: Column,
    restrict: Vec<u64>,
}

impl Items {
    /// Appends items, with the columns that they need.
    pub fn push(&mut self, depot: &Depot, items: &[Item]) -> Stretch {
        let start = self.granules.len();
        items.iter().for_each(|i| self.granules.push(depot, i.granule));
        let counts = items.iter().any(|i| i.count != 1).then(|| {
            items.iter().for_each(|i| self.counts.push(depot, i.count));
            self.counts.len() - items.len()
        });
        let restrict = items.iter().any(|i| i.restrict != !0).then(|| {
            self.restrict.extend(items.iter().map(|i| i.restrict));
            self.restrict.len() - items.len()
        });
        Stretch { start, len: items.len(), counts, restrict }
    }

    /// Opens a stretch that [`Items::add`] fills.
    #[must_use]
    pub fn open(&self, counted: bool) -> Stretch {
        let counts = counted.then(|| self.counts.len());
        Stretch { start: self.granules.len(), len: 0, counts, restrict: None }
    }

    /// Appends an unrestricted item to the open stretch.
    #[inline]
    pub fn add(&mut self, depot: &Depot, stretch: &mut Stretch, granule: u32, count: u32) {
        self.granules.push(depot, granule);
        if stretch.counts.is_some() {
            self.counts.push(depot, count);
        }
        stretch.len += 1;
    }

    /// Item `i` of a stretch.
    #[inline]
    #[must_use]
    pub fn get(&self, stretch: &Stretch, i: usize) -> Item {
        Item {
            granule: self.granules.get(stretch.start + i),
            count: stretch.counts.map_or(1, |at| self.counts.get(at + i)),
            restrict: stretch.restrict.map_or(!0, |at| self.restrict[at + i]),
        }
    }

    /// `len` items from position `from` on of a stretch without counts and restrictions.
    #[inline]
    pub fn plain(&self, from: usize, len: usize) -> impl Iterator<Item = Item> {
        self.granules.pieces(from, len).flatten().map(|&granule| Item::one(granule))
    }

    /// Forgets all items, keeping a little memory.
    fn clear(&mut self, depot: &Depot) {
        self.granules.clear(depot);
        self.counts.clear(depot);
        if self.restrict.capacity() > KEPT_RESTRICTIONS {
            self.restrict = Vec::new();
        }
        self.restrict.clear();
    }
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
        let keep = |group: &Group| programs.get(group.program).has_edges || group.checked;
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

/// How one shard's parts are put in order.
struct Order<'a> {
    groups: &'a [Group],
    programs: &'a Programs,
    depot: &'a Depot,
    shard: u16,
}

impl Order<'_> {
    /// Appends the parts whose group `keep`s to `out`, one part per group, items in slot order, long runs cut.
    fn arrange(
        &self,
        parts: &[(u32, Stretch)],
        from: &Items,
        keep: impl Fn(&Group) -> bool,
        (out, out_parts): (&mut Items, &mut Vec<Part>),
        sorter: &mut Sorter,
    ) {
        let shard = self.shard;
        if let [(group, stretch)] = parts {
            // One part: nothing to merge, which is all that a list ever has.
            if keep(&self.groups[*group as usize]) {
                let stretch = self.merge(&[(*group, *stretch)], from, out, sorter);
                out_parts.push(Part { group: *group, shard, stretch });
            }
            return;
        }
        let mut order: Vec<_> = parts.iter().filter(|(g, _)| keep(&self.groups[*g as usize])).copied().collect();
        order.sort_by_key(|(group, _)| *group);
        for run in order.chunk_by(|a, b| a.0 == b.0) {
            let stretch = self.merge(run, from, out, sorter);
            out_parts.push(Part { group: run[0].0, shard, stretch });
        }
    }

    /// The items of several parts of one group as one stretch.
    fn merge(&self, run: &[(u32, Stretch)], from: &Items, out: &mut Items, sorter: &mut Sorter) -> Stretch {
        if run.iter().all(|(_, stretch)| stretch.counts.is_none() && stretch.restrict.is_none()) {
            let start = out.granules.len();
            let pieces = || run.iter().flat_map(|(_, stretch)| from.granules.pieces(stretch.start, stretch.len));
            sorter.sorted(pieces, |granule| out.granules.push(self.depot, granule));
            return Stretch { start, len: out.granules.len() - start, counts: None, restrict: None };
        }
        let size = self.programs.get(self.groups[run[0].0 as usize].program).size;
        let mut items = Vec::new();
        for (_, stretch) in run {
            for i in 0..stretch.len {
                cut(from.get(stretch, i), size, &mut items);
            }
        }
        items.sort_unstable();
        out.push(self.depot, &items)
    }
}

/// Sorts granules, each of which occurs once: a group counts a slot once, and enters it at one place.
#[derive(Default, Debug)]
struct Sorter {
    list: Vec<u32>,
    bits: Vec<u64>,
}

impl Sorter {
    /// Calls `each` for the entries of all pieces in order.
    ///
    /// Dense ones go through a bitmap, which is linear; the others are sorted.
    fn sorted<'p, P: Iterator<Item = &'p [u32]>>(&mut self, pieces: impl Fn() -> P, mut each: impl FnMut(u32)) {
        let (mut len, mut low, mut high, mut before, mut sorted) = (0usize, u32::MAX, 0, None, true);
        pieces().flatten().for_each(|&entry| {
            len += 1;
            (low, high) = (low.min(entry), high.max(entry));
            sorted &= before < Some(entry);
            before = Some(entry);
        });
        if sorted {
            pieces().flatten().copied().for_each(each);
            return;
        }
        let words = ((high - low) / 64) as usize + 1;
        if words > len.saturating_mul(SPARSE) {
            self.list.clear();
            pieces().for_each(|piece| self.list.extend_from_slice(piece));
            self.list.sort_unstable();
            self.list.iter().copied().for_each(each);
            return;
        }
        self.bits.clear();
        self.bits.resize(words, 0);
        let bits = &mut self.bits[..];
        pieces().flatten().for_each(|entry| {
            let at = entry - low;
            bits[(at / 64) as usize] |= 1 << (at % 64);
        });
        for (word, &bits) in self.bits.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                each(low + word as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
}

/// Cuts a run longer than [`MAX_RUN`] into several items.
fn cut(item: Item, size: u64, out: &mut Vec<Item>) {
    let words = u32::try_from(size / 8).unwrap_or(0);
    if item.count & TAIL != 0 || item.count <= MAX_RUN || words == 0 {
        out.push(item);
        return;
    }
    out.push(Item { count: MAX_RUN, ..item });
    let (mut granule, mut left) = (item.granule, item.count - MAX_RUN);
    while left > 0 {
        // A granule past 32 bits would lie outside of the shard: the run is clamped there.
        let Some(next) = MAX_RUN.checked_mul(words).and_then(|d| granule.checked_add(d)) else { return };
        granule = next;
        let count = left.min(MAX_RUN);
        out.push(Item { granule, count: count | TAIL, restrict: !0 });
        left -= count;
    }
}
