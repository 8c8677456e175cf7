//! Visited marks: the only place where a slot is marked. One owner per shard and wave, so marks need no atomics.
//!
//! At rest a shard is a roaring bitmap; the first claim in it turns it into dense words, which is what a claim wants: one load, one test,
//! one store. Free slots are marked from the start, so that the hot path has no check whether a slot is allocated.

use crate::prefetch::prefetch;
use roaring::RoaringBitmap;
use std::ops::Range;

/// Marks of one shard, by slot ordinal.
#[derive(Debug)]
pub struct Visited {
    slots: u32,
    free: RoaringBitmap,
    /// Empty until the first claim.
    dense: Vec<u64>,
}

impl Visited {
    /// Nothing visited, the slots in `free` marked.
    #[must_use]
    pub fn new(slots: u32, free: RoaringBitmap) -> Self {
        Self { slots, free, dense: Vec::new() }
    }

    /// Makes the words dense. Call before [`Visited::insert`]; cheap when they are.
    pub fn warm(&mut self) {
        if !self.dense.is_empty() || self.slots == 0 {
            return;
        }
        self.dense = vec![0; self.slots.div_ceil(64) as usize];
        for ordinal in &self.free {
            if let Some(word) = self.dense.get_mut(ordinal as usize / 64) {
                *word |= 1 << (ordinal % 64);
            }
        }
    }

    /// Starts loading the mark of `ordinal`.
    #[inline]
    pub fn prefetch(&self, ordinal: u32) {
        if let Some(word) = self.dense.get(ordinal as usize / 64) {
            prefetch(word);
        }
    }

    /// Whether `ordinal` is marked, as [`Visited::insert`] sees it.
    #[inline]
    #[must_use]
    pub fn contains(&self, ordinal: u32) -> bool {
        self.dense.get(ordinal as usize / 64).is_none_or(|word| word >> (ordinal % 64) & 1 != 0)
    }

    /// Marks `ordinal`; true if it was not marked. Ordinals out of range count as marked.
    #[inline]
    pub fn insert(&mut self, ordinal: u32) -> bool {
        let Some(word) = self.dense.get_mut(ordinal as usize / 64) else { return false };
        let bit = 1u64 << (ordinal % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// How many of these ordinals are marked, free slots included.
    #[must_use]
    pub fn marked(&self, ordinals: Range<u32>) -> u64 {
        if self.dense.is_empty() {
            return self.free.range_cardinality(ordinals);
        }
        let (first, end) = (ordinals.start as usize, ordinals.end as usize);
        let words = first / 64..end.div_ceil(64).min(self.dense.len());
        let in_word = |(i, word): (usize, &u64)| {
            let from = first.saturating_sub(i * 64);
            let to = (end - i * 64).min(64);
            let mask = if to == 64 { !0 } else { (1u64 << to) - 1 };
            u64::from((word & mask & (!0 << from)).count_ones())
        };
        self.dense.get(words.clone()).map_or(0, |dense| words.zip(dense).map(in_word).sum())
    }

    /// The slots that were marked by [`Visited::insert`]: the reached objects.
    #[must_use]
    pub fn reached(&self) -> RoaringBitmap {
        let mut bytes = vec![0; self.dense.len() * 8];
        for (to, word) in bytes.chunks_exact_mut(8).zip(&self.dense) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        RoaringBitmap::from_lsb0_bytes(0, &bytes) - &self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_slots_are_never_reached() {
        let mut visited = Visited::new(130, [3u32, 64, 129].into_iter().collect());
        visited.warm();
        assert!(visited.insert(0) && visited.insert(63) && visited.insert(128));
        assert!(!visited.insert(0) && !visited.insert(3) && !visited.insert(129) && !visited.insert(64));
        assert!(!visited.insert(5000), "beyond the shard");
        let marked = [0..1, 0..3, 0..64, 63..65, 1..63, 64..130, 128..130].map(|range| visited.marked(range));
        assert_eq!(marked, [1, 1, 3, 2, 1, 3, 2]);
        assert_eq!(Visited::new(130, [3u32, 64].into_iter().collect()).marked(0..65), 2, "before the first claim");
        assert_eq!(visited.reached().iter().collect::<Vec<_>>(), [0, 63, 128]);
    }
}
