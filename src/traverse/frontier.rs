//! The frontier: what one level scans. Groups in canonical order, inside a group items in slot order.
//!
//! An item is a value in memory: 32 bits that say how many words past its shard's base it starts (so interior pointers need nothing
//! extra), and, only where it is not the default, an element count and a restriction to some of its words. Columns are
//! shared by the whole level; a [`Part`] is the stretch of one group in one shard.

use super::paths::PathId;
use super::scan::{ProgramId, Programs};
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// Pseudo-shard of values copied out of stacks, data and bss: granules index the pool.
pub const POOL: u16 = u16::MAX;
/// Elements of one item; longer runs are cut.
pub const MAX_RUN: u32 = 4096;
/// Set in a count: the run's elements are all past the individually labelled ones.
pub const TAIL: u32 = 1 << 31;
/// Elements of one wave. Candidates of a wave are held at once (8 bytes each, some with 4 more, winners 16): 64 Ki elements with
/// ten pointers are 5 MB, and stay near the caches; see perf/notes/0001. May enter the answer (ties are settled per wave), so it
/// is a constant of the program and not for tuning per run.
const WAVE_ELEMENTS: u64 = 1 << 16;
/// Edge ordinals of one wave, so that they fit 32 bits whatever the programs' sizes.
const WAVE_ORDINALS: u64 = 1 << 30;

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

/// The items of one group in one shard: ranges of the frontier's columns.
#[derive(Copy, Clone, Debug)]
pub struct Part {
    /// Index of the group.
    pub group: u32,
    /// Shard of the items, or [`POOL`].
    pub shard: u16,
    /// First item in `granules`.
    pub start: usize,
    /// Number of items.
    pub len: usize,
    /// First item in `counts`, if the part has that column.
    pub counts: Option<usize>,
    /// First item in `restrict`, if the part has that column.
    pub restrict: Option<usize>,
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

/// A level's items. Also used, unsorted, to collect the next level.
#[derive(Default, Debug)]
pub struct Frontier {
    /// Groups by rank.
    pub groups: Vec<Group>,
    /// Sorted by (group, shard) once built.
    pub parts: Vec<Part>,
    granules: Column<u32>,
    counts: Column<u32>,
    restrict: Column<u64>,
    ranks: FxHashMap<(PathId, ProgramId, bool), u32>,
}

/// An append-only list in chunks: a level's items are tens of megabytes, and growing one vector would need half as much again, twice.
#[derive(Debug)]
struct Column<T> {
    chunks: Vec<Vec<T>>,
}

/// Entries of a chunk, unless one part needs more.
const CHUNK: usize = 1 << 16;
/// Positions are chunk number and offset.
const CHUNK_SHIFT: u32 = 40;

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Copy> Column<T> {
    /// Appends `len` entries that stay contiguous; returns the position of the first.
    fn extend(&mut self, len: usize, entries: impl Iterator<Item = T>) -> usize {
        if self.chunks.last().is_none_or(|c| c.capacity() - c.len() < len) {
            self.chunks.push(Vec::with_capacity(len.max(CHUNK)));
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let at = number << CHUNK_SHIFT | chunk.len();
        chunk.extend(entries.take(len));
        at
    }

    fn get(&self, at: usize) -> T {
        self.chunks[at >> CHUNK_SHIFT][at & ((1 << CHUNK_SHIFT) - 1)]
    }

    fn slice(&self, at: usize, len: usize) -> &[T] {
        &self.chunks[at >> CHUNK_SHIFT][at & ((1 << CHUNK_SHIFT) - 1)..][..len]
    }

    /// Empties it; room for `entries` in one chunk afterwards.
    fn reset(&mut self, entries: usize) {
        self.chunks.truncate(1);
        match self.chunks.first_mut() {
            // Small ones are kept: a list has ten million levels.
            Some(chunk) if chunk.capacity() >= entries && chunk.capacity() <= entries.saturating_mul(4).max(CHUNK) => {
                chunk.clear();
            }
            _ => {
                self.chunks.clear();
                if entries > 0 {
                    self.chunks.push(Vec::with_capacity(entries));
                }
            }
        }
    }
}

/// Some items of one part.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Index of the part.
    pub part: u32,
    /// First item in the part.
    pub from: usize,
    /// Number of items.
    pub len: usize,
}

impl Frontier {
    /// The number of the group, which is its rank: groups are numbered when they are fed first.
    pub fn group(&mut self, path: PathId, program: ProgramId, checked: bool) -> u32 {
        *self.ranks.entry((path, program, checked)).or_insert_with(|| {
            self.groups.push(Group { path, program, checked });
            u32::try_from(self.groups.len() - 1).expect("groups are bounded by path nodes and programs")
        })
    }

    /// Adds items to a group.
    pub fn push(&mut self, group: u32, shard: u16, items: &[Item]) {
        let len = items.len();
        let start = self.granules.extend(len, items.iter().map(|i| i.granule));
        let counts = items.iter().any(|i| i.count != 1).then(|| self.counts.extend(len, items.iter().map(|i| i.count)));
        let restrict =
            items.iter().any(|i| i.restrict != !0).then(|| self.restrict.extend(len, items.iter().map(|i| i.restrict)));
        self.parts.push(Part { group, shard, start, len, counts, restrict });
    }

    /// Whether there is nothing to scan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Item `i` of a part.
    #[inline]
    #[must_use]
    pub fn item(&self, part: &Part, i: usize) -> Item {
        Item {
            granule: self.granules.get(part.start + i),
            count: part.counts.map_or(1, |at| self.counts.get(at + i)),
            restrict: part.restrict.map_or(!0, |at| self.restrict.get(at + i)),
        }
    }

    /// Forgets everything, keeping a little memory.
    pub fn clear(&mut self) {
        self.reset(0);
    }

    fn reset(&mut self, items: usize) {
        self.groups.clear();
        self.parts.clear();
        self.granules.reset(items);
        self.counts.reset(0);
        self.restrict.reset(0);
        self.ranks.clear();
    }

    /// Puts collected parts in canonical order into `self`: by group, shard, then item; long runs are cut. Keeps only parts from
    /// `from` on whose group `keep`s.
    pub fn build(&mut self, collected: &Frontier, from: usize, programs: &Programs, keep: impl Fn(&Group) -> bool) {
        let mut order: Vec<u32> = (from as u32..collected.parts.len() as u32)
            .filter(|&i| keep(&collected.groups[collected.parts[i as usize].group as usize]))
            .collect();
        self.reset(order.iter().map(|&i| collected.parts[i as usize].len).sum());
        if order.is_empty() {
            return;
        }
        self.groups.extend_from_slice(&collected.groups);
        let place = |i: u32| {
            let part = &collected.parts[i as usize];
            (part.group, part.shard)
        };
        if !order.is_sorted_by_key(|&i| place(i)) {
            order.sort_by_key(|&i| place(i));
        }
        let mut items = Vec::new();
        let mut sorts = Vec::new();
        for run in order.chunk_by(|&a, &b| place(a) == place(b)) {
            let (group, shard) = place(run[0]);
            let plain = run.iter().all(|&i| {
                let part = &collected.parts[i as usize];
                part.counts.is_none() && part.restrict.is_none()
            });
            if plain {
                let parts = || run.iter().map(|&i| &collected.parts[i as usize]);
                let len = parts().map(|part| part.len).sum();
                let granules = parts().flat_map(|part| collected.granules.slice(part.start, part.len));
                let start = self.granules.extend(len, granules.copied());
                self.parts.push(Part { group, shard, start, len, counts: None, restrict: None });
                sorts.push(len);
                continue;
            }
            items.clear();
            let size = programs.get(collected.groups[group as usize].program).size;
            for &i in run {
                let part = &collected.parts[i as usize];
                for j in 0..part.len {
                    cut(collected.item(part, j), size, &mut items);
                }
            }
            items.sort_unstable();
            self.push(group, shard, &items);
            sorts.push(0);
        }
        self.sort_granules(&sorts);
    }

    /// Sorts the items of plain parts; `lens` has one length a part, 0 where there is nothing to do.
    fn sort_granules(&mut self, lens: &[usize]) {
        let mut slices = Vec::new();
        let mut parts = self.parts.iter().zip(lens).filter(|(_, len)| **len > 1).peekable();
        for (number, chunk) in self.granules.chunks.iter_mut().enumerate() {
            let (mut rest, mut at) = (&mut chunk[..], number << CHUNK_SHIFT);
            while let Some((part, len)) = parts.next_if(|(part, _)| part.start >> CHUNK_SHIFT == number) {
                let (_, tail) = rest.split_at_mut(part.start - at);
                let (slice, tail) = tail.split_at_mut(*len);
                (rest, at) = (tail, part.start + len);
                slices.push(slice);
            }
        }
        let sort = |slice: &mut [u32]| {
            if !slice.is_sorted() {
                slice.sort_unstable();
            }
        };
        // Tiny levels (a list has ten million of them) must not wake the other threads.
        if slices.iter().map(|s| s.len()).sum::<usize>() < 4096 {
            slices.into_iter().for_each(sort);
        } else {
            slices.into_par_iter().for_each(sort);
        }
    }

    /// Cuts the level into waves: lists of slices in canonical order.
    pub fn waves(&self, programs: &Programs) -> Vec<Vec<Slice>> {
        let mut waves = Vec::new();
        let mut wave = Vec::new();
        let (mut elements, mut ordinals, mut last_group) = (0, 0, u32::MAX);
        for (p, part) in self.parts.iter().enumerate() {
            let of_group = programs.get(self.groups[part.group as usize].program).ordinals();
            let mut from = 0;
            while from < part.len {
                let added = if part.group == last_group { 0 } else { of_group };
                if !wave.is_empty() && (elements >= WAVE_ELEMENTS || ordinals + added > WAVE_ORDINALS) {
                    waves.push(std::mem::take(&mut wave));
                    (elements, ordinals, last_group) = (0, 0, u32::MAX);
                    continue;
                }
                ordinals += added;
                last_group = part.group;
                let len = self.take(part, from, WAVE_ELEMENTS.saturating_sub(elements).max(1));
                elements += self.elements(part, from, len);
                wave.push(Slice { part: p as u32, from, len });
                from += len;
            }
        }
        if !wave.is_empty() {
            waves.push(wave);
        }
        waves
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
        let left = part.len - from;
        let Some(at) = part.counts else { return left.min(usize::try_from(budget).unwrap_or(left)).max(1) };
        let mut sum = 0;
        let counts = self.counts.slice(at + from, left);
        let n = counts.iter().take_while(|&&c| {
            let before = sum;
            sum += u64::from(c & !TAIL).max(1);
            before < budget
        });
        n.count().max(1)
    }

    fn elements(&self, part: &Part, from: usize, len: usize) -> u64 {
        let Some(at) = part.counts else { return len as u64 };
        self.counts.slice(at + from, len).iter().map(|&c| u64::from(c & !TAIL).max(1)).sum()
    }

    /// Elements of a slice.
    #[must_use]
    pub fn slice_elements(&self, slice: &Slice) -> u64 {
        self.elements(&self.parts[slice.part as usize], slice.from, slice.len)
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
