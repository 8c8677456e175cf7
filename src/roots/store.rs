//! Where roots are gathered: values back to back in one vector of words, with a bit per word.

use super::labels::Interner;
use super::{Root, RootKind, Stratum};
use crate::address::Addr;
use crate::incident::Incidents;
use crate::model::types::TypeId;
use std::sync::Arc;

/// Roots in the making.
#[derive(Default, Debug)]
pub(super) struct Store {
    pub(super) roots: Vec<Root>,
    pub(super) words: Vec<u64>,
    /// One bit per word; `words.len()` bits are meant.
    pub(super) mask: Vec<u64>,
    pub(super) labels: Interner,
    pub(super) incidents: Incidents,
}

/// Everything about a root but its words.
#[derive(Copy, Clone, Debug)]
pub(super) struct Head {
    pub(super) stratum: Stratum,
    pub(super) kind: RootKind,
    pub(super) conservative: bool,
    pub(super) label: u32,
    pub(super) ty: Option<TypeId>,
    pub(super) goid: u64,
    pub(super) addr: Addr,
}

impl Store {
    /// Appends a word of the value in the making.
    #[inline]
    pub(super) fn push(&mut self, word: u64, pointer: bool) {
        let at = self.words.len();
        if at / 64 == self.mask.len() {
            self.mask.push(0);
        }
        // Nil is no pointer: it spares the walk a look at every empty slot.
        self.mask[at / 64] |= u64::from(pointer && word != 0) << (at % 64);
        self.words.push(word);
    }

    /// Ends the value that began at word `first`. One without pointers is dropped.
    pub(super) fn finish(&mut self, first: usize, head: Head) {
        let nwords = self.words.len() - first;
        if self.pointers_since(first) && u32::try_from(nwords).is_ok() {
            let Head { stratum, kind, conservative, label, ty, goid, addr } = head;
            let (nwords, first_word) = (nwords as u32, first as u64);
            self.roots.push(Root { stratum, kind, conservative, label, ty, nwords, first_word, goid, addr });
        } else {
            self.words.truncate(first);
            self.mask.truncate(first.div_ceil(64));
            if let Some(last) = self.mask.last_mut().filter(|_| !first.is_multiple_of(64)) {
                *last &= (1 << (first % 64)) - 1;
            }
        }
    }

    fn pointers_since(&self, first: usize) -> bool {
        let (word, bit) = (first / 64, first % 64);
        self.mask.get(word).is_some_and(|w| w >> bit != 0) || self.mask.iter().skip(word + 1).any(|w| *w != 0)
    }

    /// A root of one pointer word.
    pub(super) fn single(&mut self, head: Head, word: u64) {
        let first = self.words.len();
        self.push(word, true);
        self.finish(first, head);
    }

    /// The label of one frame.
    pub(super) fn label(&mut self, name: &str) -> u32 {
        self.labels.intern(None, &Arc::from(name))
    }

    /// The label of some frames, at least one.
    pub(super) fn chain(&mut self, names: &[&str]) -> u32 {
        let label = names.iter().fold(None, |parent, name| Some(self.labels.intern(parent, &Arc::from(*name))));
        label.unwrap_or_else(|| self.label(""))
    }

    /// Appends another store whose labels were renumbered: `labels[i]` is this store's number of its label `i`.
    pub(super) fn append(&mut self, other: Store, labels: &[u32]) {
        // Masks are joined whole words at a time.
        while !self.words.len().is_multiple_of(64) {
            self.words.push(0);
        }
        let base = self.words.len() as u64;
        self.words.extend_from_slice(&other.words);
        self.mask.extend_from_slice(&other.mask);
        self.roots.extend(other.roots.into_iter().map(|mut root| {
            root.first_word += base;
            root.label = labels[root.label as usize];
            root
        }));
        self.incidents.merge(&other.incidents);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let (stratum, kind) = (Stratum::Package, RootKind::Global);
        Head { stratum, kind, conservative: false, label: 0, ty: None, goid: 0, addr: Addr(0) }
    }

    #[test]
    fn values_without_pointers_leave_no_trace() {
        let mut store = Store::default();
        store.single(head(), 7);
        let first = store.words.len();
        for _ in 0..100 {
            store.push(0, true);
            store.push(5, false);
        }
        store.finish(first, head());
        assert_eq!((store.roots.len(), &*store.words, &*store.mask), (1, &[7][..], &[1][..]));
        store.single(head(), 9);
        assert_eq!((store.roots.len(), store.roots[1].first_word, &*store.mask), (2, 1, &[3][..]));
    }

    #[test]
    fn joined_stores_keep_their_bits() {
        let (mut a, mut b) = (Store::default(), Store::default());
        let label = a.label("x");
        a.single(Head { label, ..head() }, 1);
        b.push(3, false);
        b.push(4, true);
        b.finish(0, head());
        a.append(b, &[label]);
        assert_eq!((a.roots[1].first_word, a.words[65], &*a.mask), (64, 4, &[1, 2][..]));
    }
}
