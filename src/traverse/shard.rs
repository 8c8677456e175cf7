//! One shard while it is walked: its marks, its partial objects, and what the claims of a wave leave there.

use super::ask::Dialog;
use super::frontier::Gathered;
use super::items::{Item, Stretch};
use super::visited::Visited;
use crate::incident::Incidents;
use rustc_hash::FxHashMap;

/// Entries of a wave's lists that a shard keeps room for.
const KEPT: usize = 1 << 10;

/// Mask words of a partial object that no claimant explained yet.
#[derive(Copy, Clone, Debug)]
pub struct Open {
    /// Bit per word of the slot; for an object over 512 bytes whose type nothing records, how often it may be scanned again.
    pub words: u64,
    /// Path on which the object is counted; `u32::MAX` until the wave's paths are numbered.
    pub path: u32,
}

/// A shard while it is walked; the pool's has no slots. `S`: what an observer learns there.
#[derive(Debug)]
pub struct ShardState<S> {
    /// Marks.
    pub visited: Visited,
    /// Partial objects by ordinal.
    pub open: FxHashMap<u32, Open>,
    /// Bit per ordinal: has an entry in `open`. Empty while there is none, so that duplicates cost no hash lookup.
    open_bits: Vec<u64>,
    /// What the next level scans here.
    pub gathered: Gathered,
    /// What the last wave's claims produced here.
    pub claimed: Claimed,
    /// What the observer learned.
    pub observed: S,
}

impl<S: Default> ShardState<S> {
    /// An untouched shard.
    #[must_use]
    pub fn new(visited: Visited) -> Self {
        Self {
            visited,
            open: FxHashMap::default(),
            open_bits: Vec::new(),
            gathered: Gathered::default(),
            claimed: Claimed::default(),
            observed: S::default(),
        }
    }
}

impl<S> ShardState<S> {
    /// Opens words of an object, unless it is partial already.
    pub fn open(&mut self, ordinal: u32, open: Open) {
        let word = ordinal as usize / 64;
        if self.open_bits.len() <= word {
            self.open_bits.resize(word + 1, 0);
        }
        self.open_bits[word] |= 1 << (ordinal % 64);
        self.open.entry(ordinal).or_insert(open);
    }

    /// Takes all open words: the masked walk follows them.
    pub fn take_open(&mut self) -> Vec<(u32, Open)> {
        self.open_bits = Vec::new();
        let mut all: Vec<_> = self.open.drain().collect();
        all.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        all
    }

    /// Whether the object has words that no claimant explained yet.
    #[inline]
    pub fn is_partial(&self, ordinal: u32) -> bool {
        self.open_bits.get(ordinal as usize / 64).is_some_and(|w| w >> (ordinal % 64) & 1 != 0)
    }
}

/// Objects counted by one key.
#[derive(Copy, Clone, Debug)]
pub struct Tally {
    /// Number of the key's target.
    pub target: u32,
    /// Objects.
    pub objects: u64,
    /// Their slots' bytes.
    pub bytes: u64,
}

/// Items for the next level, from one key.
#[derive(Copy, Clone, Debug)]
pub struct ClaimPart {
    /// Number of the key's target.
    pub target: u32,
    /// What the object's own memory says of its type.
    pub own: Own,
    /// The items in the shard's columns.
    pub stretch: Stretch,
    /// Bytes of the objects, if `own` says more than the key.
    pub bytes: u64,
}

/// An object's type by its own memory.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Own {
    /// It says nothing: the edge's target holds.
    Nothing,
    /// Nothing says the type of an object this large (up to Go 1.21): the edge's target holds, as far as the mask agrees.
    Unrecorded,
    /// Dynamic type number of its allocation type.
    Header(u32),
    /// Code pointer of a closure, and the bytes that its slot has for it.
    Closure(u64, u32),
    /// First byte of a trie node: 1 for an entry, 2 for an inner node.
    Trie(u32),
    /// The edge's target is part of it, by where it lies.
    Whole,
}

/// What one shard's claims of a wave produced, besides items.
#[derive(Default, Debug)]
pub struct Claimed {
    /// Counts by key; a key may come several times.
    pub tallies: Vec<Tally>,
    /// Items for the next level, by key.
    pub parts: Vec<ClaimPart>,
    /// Partial objects opened in this wave, with the target whose key says their path.
    pub opened: Vec<(u32, u32)>,
    /// Soft errors.
    pub incidents: Incidents,
    /// Runs to visit, packed: see [`super::claim::claim_shard`].
    pub(super) runs: Vec<u128>,
    /// Items of the run at hand that are restricted to some of their words.
    pub(super) refills: Vec<Item>,
    pub(super) dialog: Dialog,
}

impl Claimed {
    /// Adds a stretch of items, joined to the one before if it is of the same kind.
    pub(super) fn add(&mut self, target: u32, own: Own, stretch: Stretch, bytes: u64) {
        if stretch.len == 0 {
            return;
        }
        if let Some(last) = self.parts.last_mut()
            && (last.target, last.own) == (target, own)
            && last.stretch.join(&stretch)
        {
            last.bytes += bytes;
            return;
        }
        self.parts.push(ClaimPart { target, own, stretch, bytes });
    }

    /// Forgets the last wave, keeping a little memory.
    pub fn clear(&mut self) {
        fn clear<T>(list: &mut Vec<T>) {
            list.clear();
            list.shrink_to(KEPT);
        }
        clear(&mut self.tallies);
        clear(&mut self.parts);
        clear(&mut self.opened);
        clear(&mut self.runs);
        clear(&mut self.refills);
        clear(&mut self.dialog.asks);
        clear(&mut self.dialog.answers);
        self.incidents = Incidents::default();
    }
}
