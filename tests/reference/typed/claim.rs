//! One object and one edge: who gets it, what it is, and which of its words stay open.

use super::{Edge, Group, Item, Level, Open, Own, Walker};
use crate::reference::heap::Object;
use crate::reference::values::{What, closure, holds, size_of};
use goref_fast::model::heap::{MaskSource, SpanId};
use goref_fast::model::types::{Kind, TypeId};
use goref_fast::roots::Segment;
use goref_fast::traverse::library;
use std::collections::BTreeSet;

/// Sizes of slots from 512 bytes on (`class_to_size`).
const SIZES: [u64; 42] = [
    512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096, 4864,
    5120, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072,
    20480, 21760, 24576, 27264, 28672,
];

/// What an edge got.
pub(super) struct Claim {
    pub(super) counts: bool,
    pub(super) item: Option<(Own, Item)>,
}

/// One object and one edge.
impl Walker<'_, '_, '_> {
    pub(super) fn claim(&mut self, object: Object, edge: &Edge) -> Option<Claim> {
        let memory = self.dump.memory();
        let size = memory.size(object);
        let room = memory.end(object).saturating_sub(edge.addr).checked_div(size_of(&self.dump.types, &edge.to));
        let count = edge.count.min(room.unwrap_or(u64::MAX).max(1));
        let item = Item { pooled: false, at: edge.addr, count, only: !0, tail: false };
        let unrecorded = memory.heap.mask_source(SpanId(object.span)) == MaskSource::Arena;
        let told_later = matches!(edge.to, What::Func | What::TrieNode(_));
        if !self.reached.insert(object) {
            let open = self.open.get_mut(&object)?;
            if told_later || matches!(edge.to, What::Untyped | What::Masked) {
                return None;
            }
            if unrecorded {
                return self.unrecorded(object, edge, item, false);
            }
            let open_words = open.words;
            let words = open_words & self.explained(object, &edge.to, &item);
            self.open.get_mut(&object)?.words &= !words;
            let only = words >> ((edge.addr - object.addr) / 8);
            return (words != 0).then_some(Claim { counts: false, item: Some((Own::Nothing, Item { only, ..item })) });
        }
        let nothing = Some(Claim { counts: true, item: None });
        if memory.noscan(object) {
            return nothing;
        }
        let source = memory.heap.mask_source(SpanId(object.span));
        let item = match source {
            MaskSource::Noscan => return nothing,
            MaskSource::Arena => return self.unrecorded(object, edge, item, true),
            MaskSource::InSpan { .. } => match edge.to {
                // Its code is looked at before the next level.
                What::Func => (Own::Nothing, Item { count: 1, ..item }),
                What::TrieNode(_) => (Own::Trie(if memory.word(edge.addr) & 0xff != 0 { 1 } else { 2 }), item),
                What::Masked => (Own::Nothing, Item { at: object.addr, count: 1, ..item }),
                What::Value(ty) => match self.whole_timer(ty, edge.addr - object.addr, size) {
                    Some(whole) => (Own::Whole(whole), Item { at: object.addr, count: 1, ..item }),
                    None => (Own::Nothing, item),
                },
                _ => (Own::Nothing, item),
            },
            MaskSource::Header if edge.to == What::Func => {
                let at = object.addr + 8;
                (Own::Closure(memory.word(at), size - 8), Item { at, count: 1, ..item })
            }
            MaskSource::Header | MaskSource::Large { .. } => {
                let header = source == MaskSource::Header;
                let at = if header { object.addr + 8 } else { object.addr };
                let rtype = memory.heap.recorded_type(memory.image, SpanId(object.span), object.slot);
                let Some(rtype) = rtype else { return nothing };
                let Some(mask) = memory.masks.get(memory.image, rtype).filter(|m| m.ptr_words > 0) else {
                    return nothing;
                };
                let count = ((memory.end(object) - at) / mask.size).max(1);
                (Own::Header(rtype), Item { at, count, ..item })
            }
        };
        Some(Claim { counts: true, item: Some(item) })
    }

    /// What `time.NewTimer` made, if the timer in it is at `offset` of an object of `size` bytes.
    fn whole_timer(&self, ty: TypeId, offset: u64, size: u64) -> Option<TypeId> {
        let types = &self.dump.types;
        if &*types.get(ty).name != "runtime.timer" {
            return None;
        }
        // Before Go 1.23 package time allocates the timer, with a struct of its own for what the runtime has of it.
        let Some(whole) = types.find("runtime.timeTimer") else {
            let whole = types.find("time.Timer")?;
            let (at, own) = types.field_path(whole, "r")?;
            let alike = types.get(own).size == types.get(ty).size && at == offset && at > 0;
            return (alike && types.get(whole).size.next_multiple_of(16) == size).then_some(whole);
        };
        // Slots around this size are multiples of 16 bytes.
        let fits = types.get(whole).size.next_multiple_of(16) == size;
        (fits && offset > 0 && types.field_path(whole, "timer")? == (offset, ty)).then_some(whole)
    }

    /// An object over 512 bytes whose type nothing records: a value that fills it from its start is what it is. Others are read as far as
    /// they go, eight of them at most, and whatever is left over goes by the mask.
    fn unrecorded(&mut self, object: Object, edge: &Edge, item: Item, first: bool) -> Option<Claim> {
        let memory = self.dump.memory();
        let (offset, size) = (edge.addr - object.addr, memory.size(object));
        let total = size_of(&self.dump.types, &edge.to).saturating_mul(item.count);
        let large = memory.heap.spans()[object.span as usize].is_large();
        // Otherwise the allocator had chosen the next smaller size.
        let below = SIZES.iter().copied().take_while(|s| *s < size).last().unwrap_or(512);
        let filled = if large { total + 8 > memory.end(object).saturating_sub(edge.addr) } else { total > below };
        let masked = edge.to == What::Masked;
        let whole = masked || offset == 0 && (filled || edge.to == What::Func);
        match self.open.get_mut(&object) {
            Some(open) if open.words == 0 => return None,
            Some(open) if whole => open.words = 0,
            Some(open) if open.words > 1 => open.words -= 1,
            Some(_) => return None,
            None if whole => {}
            None => {
                self.open.insert(object, Open { words: 8, path: usize::MAX });
            }
        }
        let item = match &edge.to {
            What::Func if offset == 0 => Some((Own::Closure(memory.word(edge.addr), size), item)),
            What::Masked => Some((Own::Unrecorded, Item { at: object.addr, count: 1, ..item })),
            What::Func | What::TrieNode(_) | What::Untyped => None,
            _ => Some((Own::Unrecorded, item)),
        };
        Some(Claim { counts: first, item })
    }

    /// The words of an object of at most 512 bytes that a value in it explains.
    pub(super) fn explained(&mut self, object: Object, what: &What, item: &Item) -> u64 {
        let size = size_of(&self.dump.types, what);
        let end = self.dump.memory().size(object);
        let mut words = 0;
        let shape = self.shape(what);
        if item.count == 0 || end > 512 {
            return if end > 512 { !0 } else { 0 };
        }
        let count = if size < 8 { 1 } else { item.count.min(64) };
        for e in 0..count {
            for word in shape.iter() {
                let at = item.at - object.addr + e * size + word.offset;
                if at < end {
                    words |= 1 << (at / 8);
                }
            }
        }
        let is_pointer: u64 = self
            .dump
            .memory()
            .pointer_words(object)
            .into_iter()
            .map(|at| 1 << ((at - object.addr) / 8))
            .fold(0, |a, b| a | b);
        words & is_pointer
    }

    /// Notes the words of a new object that its type leaves.
    pub(super) fn open_rest(&mut self, object: Object, what: &What, item: &Item, path: usize) {
        let memory = self.dump.memory();
        if memory.size(object) > 512 || *what == What::Masked {
            return;
        }
        let all = memory.pointer_words(object).into_iter().map(|at| 1u64 << ((at - object.addr) / 8));
        let all = all.fold(0, |a, b| a | b);
        let words = all & !self.explained(object, what, item);
        if words != 0 {
            self.open.insert(object, Open { words, path });
        }
    }

    /// What the object is, after a look at it. The flag says that its mask may say more than its type.
    pub(super) fn retype(&mut self, own: &Own, edge: &Edge, path: &mut usize) -> (What, bool) {
        match own {
            Own::Nothing => (edge.to.clone(), false),
            Own::Unrecorded => (edge.to.clone(), true),
            Own::Whole(whole) => (What::TimeTimer(*whole), false),
            Own::Closure(pc, room) => match closure(self.dump, *pc, *room) {
                Some((name, what)) => {
                    *path = self.paths.child(*path, &(name, None));
                    (what, *room > 512)
                }
                None => (What::Untyped, true),
            },
            Own::Trie(kind) => {
                let What::TrieNode(node) = edge.to else { unreachable!("only trie nodes are asked") };
                let ty = match kind {
                    1 => library::trie_entry(&mut self.dump.types, node),
                    _ => library::trie_inner(&self.dump.types, node),
                };
                ty.map_or((What::Untyped, true), |ty| (What::Value(ty), false))
            }
            Own::Header(rtype) => {
                let Some(ty) = self.dump.type_of(*rtype) else {
                    // In no module: it stands in for a type with a GC program (Go 1.22 and 1.23), and the edge knows which.
                    let known =
                        matches!(edge.to, What::Value(_) | What::Elements(_)) && self.dump.rank_of_type(*rtype) == 0;
                    return (if known { edge.to.clone() } else { What::Untyped }, true);
                };
                let t = self.dump.types.get(ty);
                let keep = match &edge.to {
                    // The descriptor of a map's memory says less than the map's own type.
                    What::MapGroups(_) => t.name.contains("map.group["),
                    What::MapBuckets(_) => t.name.contains("map.bucket["),
                    What::MapDirectory(_) | What::MapListed(_) => matches!(t.kind, Kind::Pointer(_)),
                    What::Elements(elem) if *elem == ty || self.dump.types.get(*elem).name == t.name => true,
                    // A shape stands for the types that it was compiled for.
                    What::Elements(known) | What::Value(known) => {
                        let known = self.dump.types.get(*known);
                        known.size == t.size && t.name.contains("go.shape.") && !known.name.contains("go.shape.")
                    }
                    _ => false,
                };
                let what = if keep { edge.to.clone() } else { What::Value(ty) };
                let mask = self.dump.masks.get(self.dump.image(), *rtype).expect("it was read before");
                let is_pointer = |w: &u64| mask.bits[(w / 64) as usize] >> (w % 64) & 1 != 0;
                let by_mask: BTreeSet<u64> = (0..mask.ptr_words).filter(is_pointer).collect();
                let by_type: BTreeSet<u64> = self.shape(&what).iter().map(|w| w.offset / 8).collect();
                let checked = size_of(&self.dump.types, &what) != mask.size || by_mask != by_type;
                (what, checked)
            }
        }
    }

    /// Notes where an object's memory says something else than the edge to it.
    pub(super) fn check_type(&mut self, object: Object, own: &Own, edge: &Edge, what: &What, item: &Item) {
        let types = &self.dump.types;
        // `go.shape.*uint8` stands for all pointers.
        let shaped = edge.steps.last().is_some_and(|step| step.0.contains("go.shape."));
        if let (Own::Header(_), What::Value(made) | What::Elements(made), false) = (own, what, shaped) {
            let offset = (edge.addr - item.at) % types.get(*made).size;
            if let What::Value(claimed) | What::Elements(claimed) = edge.to
                && !holds(types, *made, offset, claimed)
            {
                let (claimed, made) = (&types.get(claimed).name, &types.get(*made).name);
                self.contradictions.insert(format!("{made} was made; {claimed} is not at byte {offset} of it"));
            }
        }
        if self.dump.memory().size(object) <= 512 {
            self.check_words(object, what, item);
        }
    }

    /// Notes pointers of the type that are none to the collector, in an object of at most 512 bytes.
    pub(super) fn check_words(&mut self, object: Object, what: &What, item: &Item) {
        let types = &self.dump.types;
        let pointers = self.dump.memory().pointer_words(object);
        let end = self.dump.memory().end(object);
        let size = size_of(types, what);
        let count = if size < 8 { 1 } else { item.count.min((end - item.at) / size) };
        for word in self.shape(what).iter().filter(|w| !w.not_in_heap) {
            for at in (0..count).map(|e| item.at + e * size + word.offset) {
                if at < end && !pointers.contains(&at) {
                    let frames: Vec<_> = word.steps.iter().map(|s| &*s.0).collect();
                    self.contradictions
                        .insert(format!("not a pointer to the collector: {what:?} {}", frames.join(" ")));
                }
            }
        }
    }

    /// Copies a value out of data or bss if it has a pointer word that nobody claimed; those it has then.
    pub(super) fn claim_static(&mut self, addr: u64, bytes: u64) -> bool {
        let inside = |s: &&mut Segment| s.range.start.0 <= addr && addr < s.range.end().0;
        let Some(segment) = self.segments.iter_mut().find(inside) else { return false };
        let offset = addr - segment.range.start.0;
        let words = offset / 8..(offset + bytes.min(segment.range.len - offset)) / 8;
        if !offset.is_multiple_of(8) || !words.clone().any(|w| segment.is_free(w as usize)) {
            return false;
        }
        for w in words {
            let word = self.dump.memory().word(segment.range.start.0 + w * 8);
            self.pool.push((word, segment.take(w as usize)));
        }
        true
    }

    /// Starts over from what types left open, by masks.
    pub(super) fn leftover(&mut self, next: &mut Level) {
        let open = std::mem::take(&mut self.open);
        let memory = self.dump.memory();
        let large = |object: &Object| memory.size(*object) > 512;
        let mut open: Vec<_> = open.into_iter().map(|(object, o)| (o.path, large(&object), object, o.words)).collect();
        open.sort();
        for (path, checked, object, only) in open.into_iter().filter(|o| o.3 != 0) {
            let at = |i: u64| memory.word(object.addr + i * 8);
            if checked || (0..64).any(|i| only >> i & 1 != 0 && memory.object_at(at(i)).is_some()) {
                self.unexplained.entry(object).or_insert(path);
            }
            let only = if checked { !0 } else { only };
            let group = Group { path, what: What::Masked, checked };
            next.push(group, Item { pooled: false, at: object.addr, count: 1, only, tail: false });
        }
        let mut loose = std::mem::take(&mut self.loose);
        loose.sort();
        for run in loose.chunk_by(|a, b| a.0 == b.0) {
            let at = self.pool.len() as u64;
            for (_, _, value) in run {
                self.pool.extend([(0, false), (*value, true)]);
            }
            let group = Group { path: run[0].0, what: What::Masked, checked: false };
            next.push(group, Item { pooled: true, at, count: run.len() as u64 * 2, only: !0, tail: false });
        }
    }
}
