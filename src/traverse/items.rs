//! Items of a level in columns: four bytes each, more only where they need it.
//!
//! An item is a value in memory: 32 bits that say how many words past its shard's base it starts (so interior pointers need nothing
//! extra), and, only where it is not the default, an element count and a restriction to some of its words.

use std::sync::{Mutex, PoisonError};

/// Pseudo-shard of values copied out of stacks, data and bss: granules index the pool.
pub const POOL: u16 = u16::MAX;
/// Set in a count: the run's elements are all past the individually labelled ones.
pub const TAIL: u32 = 1 << 31;
/// Restrictions that a shard keeps room for between levels.
const KEPT_RESTRICTIONS: usize = 1 << 12;

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
pub(super) struct Column {
    chunks: Vec<Vec<u32>>,
}

impl Column {
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    #[inline]
    pub(super) fn push(&mut self, depot: &Depot, entry: u32) {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(depot.take());
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(entry);
    }

    /// Appends many.
    pub(super) fn extend(&mut self, depot: &Depot, mut entries: &[u32]) {
        while !entries.is_empty() {
            if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
                self.chunks.push(depot.take());
            }
            let last = self.chunks.len() - 1;
            let (now, later) = entries.split_at(entries.len().min(CHUNK - self.chunks[last].len()));
            self.chunks[last].extend_from_slice(now);
            entries = later;
        }
    }

    #[inline]
    fn get(&self, i: usize) -> u32 {
        self.chunks[i / CHUNK][i % CHUNK]
    }

    /// The entries `from..from + len` in pieces.
    pub(super) fn pieces(&self, from: usize, len: usize) -> impl Iterator<Item = &[u32]> {
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
    pub(super) granules: Column,
    pub(super) counts: Column,
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

    /// Appends items of one element each.
    pub(super) fn push_plain(&mut self, depot: &Depot, granules: &[u32]) -> Stretch {
        let start = self.granules.len();
        self.granules.extend(depot, granules);
        Stretch { start, len: granules.len(), counts: None, restrict: None }
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
        self.granules(from, len).map(Item::one)
    }

    /// Where `len` items from position `from` on start.
    #[inline]
    pub(super) fn granules(&self, from: usize, len: usize) -> impl Iterator<Item = u32> {
        self.granules.pieces(from, len).flatten().copied()
    }

    /// Forgets all items, keeping a little memory.
    pub(super) fn clear(&mut self, depot: &Depot) {
        self.granules.clear(depot);
        self.counts.clear(depot);
        if self.restrict.capacity() > KEPT_RESTRICTIONS {
            self.restrict = Vec::new();
        }
        self.restrict.clear();
    }
}
