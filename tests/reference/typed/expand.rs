//! The edges of one item: its words, read as its type says, and where each leads.

use super::{Edge, Group, Item, Walker};
use crate::reference::paths::SUB_OBJECTS;
use crate::reference::values::{INDEXED, Leads, Reader, Step, What, Word, index_step, size_of};
use std::collections::{BTreeSet, HashSet};

impl Walker<'_, '_, '_> {
    /// All edges of one item.
    pub(super) fn expand(
        &mut self,
        i: usize,
        g: usize,
        group: &Group,
        item: &Item,
        storage: bool,
        edges: &mut Vec<Edge>,
    ) {
        let what = &group.what;
        let size = size_of(&self.dump.types, what);
        let unknown = matches!(what, What::Raw | What::Masked);
        // Where the item's pointers lie, and the words that it has, by offset.
        let len;
        let pointers: BTreeSet<u64>;
        let small;
        if item.pooled {
            let bytes = item.count.saturating_mul(if unknown { 8 } else { size }) / 8 * 8;
            len = bytes.min((self.pool.len() as u64 - item.at) * 8);
            pointers = (0..len).step_by(8).filter(|at| self.pool[(item.at + at / 8) as usize].1).collect();
            small = false;
        } else {
            let memory = self.dump.memory();
            let Some(object) = memory.slot_at(item.at) else { return };
            len = memory.end(object) - item.at;
            // A run of a known type is all that the item is.
            let run = if group.checked || unknown { len } else { item.count.saturating_mul(size) };
            let words = memory.pointer_words_in(object, item.at, item.at + len.min(run));
            small = memory.size(object) <= 512;
            let all = words.into_iter().map(|at| at - item.at);
            pointers = all.filter(|at| !small || item.only >> (at / 8) & 1 != 0).collect();
        }
        let pool = std::mem::take(&mut self.pool);
        let memory = self.dump.memory();
        let word = |at: u64| match item.pooled {
            _ if at + 8 > len => 0,
            true => pool[(item.at + at / 8) as usize].0,
            false => memory.word(item.at + at),
        };
        let mut found: Vec<(u64, u64, Word)> = Vec::new();
        if unknown {
            for &at in &pointers {
                let mut rtype = 0;
                if *what == What::Masked && at >= 8 && !pointers.contains(&(at - 8)) {
                    rtype = self.type_word(word(at - 8));
                }
                let leads = if rtype != 0 { Leads::Interface(rtype) } else { Leads::To(What::Untyped, 1) };
                let (place, steps, repeat) = (vec![], vec![], vec![at]);
                let word = Word { offset: at, place, steps, repeat, leads, storage: false, not_in_heap: false };
                found.push((0, at, word));
            }
        } else {
            let count = len.checked_div(size).map_or(1, |room| item.count.min(room).max(1));
            for e in 0..count {
                let read = |at: u64| word(e * size + at);
                let words = Reader::new(self.dump, &read, &mut self.pointery).read(what);
                found.extend(words.into_iter().map(|word| (e, e * size + word.offset, word)));
            }
        }
        let values: Vec<u64> = found.iter().map(|(_, at, _)| word(*at)).collect();
        let mut complete = !unknown && !storage && !item.pooled && group.checked;
        // Words that no type explains. Those of small objects are open since the object was claimed.
        if !unknown && !storage && (!small || group.checked) {
            let explained: HashSet<u64> = found.iter().map(|(_, at, _)| *at).collect();
            for at in pointers.iter().filter(|at| !explained.contains(at) && word(**at) != 0) {
                let place = if item.pooled { (item.at * 8) + at } else { item.at + at };
                if memory.object_at(word(*at)).is_some() {
                    complete = false;
                    self.unexplained.extend(memory.object_at(place).map(|holder| (holder, group.path)));
                }
                self.loose.push((group.path, place, word(*at)));
            }
        }
        self.pool = pool;
        for ((e, at, word), addr) in found.into_iter().zip(values) {
            if !pointers.contains(&at) || addr == 0 || word.storage != storage {
                continue;
            }
            let mut steps = Vec::new();
            let mut bucket = 0;
            if let What::Elements(elem) = what {
                bucket = if item.tail { INDEXED } else { e.min(INDEXED) };
                steps.push(index_step(&self.dump.types, *elem, bucket));
            }
            if *what == What::Masked {
                steps.push((SUB_OBJECTS.to_owned(), None));
            }
            steps.extend(word.steps);
            let unknown = if *what == What::Masked { What::Masked } else { What::Untyped };
            let (rank, to, count) = match word.leads {
                Leads::Later => {
                    self.later.push((group.path, addr, addr));
                    continue;
                }
                Leads::Nowhere => {
                    let place = if item.pooled { item.at * 8 + at } else { item.at + at };
                    if self.dump.memory().object_at(addr).is_some() {
                        complete = false;
                        let holder = self.dump.memory().object_at(place);
                        self.unexplained.extend(holder.map(|holder| (holder, group.path)));
                    }
                    self.loose.push((group.path, place, addr));
                    continue;
                }
                // A map of one group comes after those with a directory.
                Leads::To(to @ What::MapGroups(_), count) if matches!(what, What::MapHeader(_)) => (1, to, count),
                Leads::To(What::Untyped, _) if *what == What::Masked => (0, What::Masked, 1),
                Leads::To(to, count) => (0, to, count),
                Leads::Reflected(rtype, true) => match self.dump.rank_of_type(rtype) {
                    0 => (0, unknown, 1),
                    rank => match self.dump.type_of(rtype) {
                        Some(ty) => (rank | 1 << 31, What::Value(ty), 1),
                        None => (rank | 1 << 31, unknown, 1),
                    },
                },
                Leads::Interface(rtype) | Leads::Reflected(rtype, false) => {
                    let rank = self.dump.rank_of_type(rtype);
                    let (to, more) = self.interface(if rank == 0 { 0 } else { rtype }, unknown);
                    steps.extend(more);
                    (rank, to, 1)
                }
            };
            let key = (g, bucket, word.place, rank);
            edges.push(Edge { key, order: (i, e, word.repeat), addr, to, count, steps });
        }
        if complete {
            self.complete.extend(self.dump.memory().slot_at(item.at).filter(|object| object.addr == item.at));
        }
    }

    /// The descriptor that a word before a pointer names, if that makes the two an interface; else 0.
    fn type_word(&self, word: u64) -> u64 {
        if word == 0 || self.dump.rank_of_type(word) != 0 {
            return word;
        }
        let is_static = |m: &goref_fast::model::modules::Module| {
            let low = m.text.start.0.min(m.types.start.0);
            let high = m.types.end().0.max(m.data.end().0).max(m.bss.end().0);
            word >= low && word < high && word.is_multiple_of(8)
        };
        if !self.dump.modules.list.iter().any(is_static) {
            return 0;
        }
        let rtype = self.dump.itab_type(word);
        if self.dump.rank_of_type(rtype) == 0 { 0 } else { rtype }
    }

    /// What an interface's data word leads to, and frames that belong to it.
    fn interface(&mut self, rtype: u64, unknown: What) -> (What, Vec<Step>) {
        let Some(ty) = Some(rtype).filter(|r| *r != 0).and_then(|rtype| self.dump.type_of(rtype)) else {
            return (unknown, vec![]);
        };
        let descriptor = goref_fast::address::Addr(rtype);
        match self.dump.descriptors.is_direct_iface(self.dump.image(), descriptor) {
            Some(false) => (What::Value(ty), vec![]),
            // The word is the value: of a pointer, or of a struct or array of one.
            Some(true) => match self.shape(&What::Value(ty)).first() {
                Some(Word { offset: 0, leads: Leads::To(to, _), steps, .. }) => (to.clone(), steps.clone()),
                _ => (unknown, vec![]),
            },
            None => (unknown, vec![]),
        }
    }
}
