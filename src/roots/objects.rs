//! The stack objects of one goroutine: those that live pointers hit are scanned, and those that these hit in turn
//! (`stackScanState` in mgcstack.go). Each takes the name of the variable that it is, else of the one that refers to it.

use super::goroutine::{GoroutineScan, main_type, stratum};
use super::plan::{Lost, Object, Referent};
use super::{RootKind, Stratum, pieces};
use crate::address::Addr;
use crate::model::types::{Kind, TypeId, TypeTable};
use std::ops::Range;

/// Channel operations of a goroutine that are followed: a `select` has at most 65536 cases, and a hostile list may be circular.
const MAX_WAITING: usize = 1 << 16;
/// Words of an object that are compared with a type's, and fields that are looked at.
const MAX_COMPARED: u64 = 64;

/// A stack object of one of the frames.
#[derive(Copy, Clone)]
pub(super) struct ObjectAt {
    pub(super) addr: u64,
    /// 0 once it was scanned.
    pub(super) size: u64,
    pub(super) frame: u32,
    /// Among the objects of the frame's plan, or [`REG_ARGS`].
    pub(super) index: u32,
}

/// The register block of a reflect stub, which no table lists.
pub(super) const REG_ARGS: u32 = u32::MAX;

/// A pointer into the goroutine's own stack.
#[derive(Copy, Clone)]
pub(super) struct StackPointer {
    pub(super) to: u64,
    /// The variable that holds it.
    pub(super) holder: Option<Holder>,
}

/// A variable whose only pointer leads to a stack object.
#[derive(Copy, Clone)]
pub(super) struct Holder {
    pub(super) label: u32,
    /// What it refers to.
    pub(super) referent: Referent,
    /// Its function is the runtime's.
    pub(super) runtime: bool,
}

impl<'s: 'c, 'c> GoroutineScan<'_, 's, '_, '_, 'c> {
    /// Where the channel operations that it is blocked in have their values: `out <- f(x)` keeps its operand in a temporary, which
    /// has no type but the channel's.
    pub(super) fn read_waiting(&mut self) {
        let Some(layout) = self.shared.layout.waiting else { return };
        let sources = self.shared.sources;
        let word = |addr: u64, offset: u64| sources.image.read_u64(Addr(addr).add(offset)).ok();
        let mut sudog = self.g.waiting;
        for _ in 0..MAX_WAITING {
            if sudog == 0 {
                return;
            }
            let fields =
                (word(sudog, layout.sudog_elem), word(sudog, layout.sudog_c), word(sudog, layout.sudog_waitlink));
            let (Some(elem), Some(chan), Some(link)) = fields else { return };
            if self.g.stack.contains(Addr(elem))
                && let Some(rtype) = word(chan, layout.hchan_elemtype)
                && let Some(ty) = main_type(sources, rtype)
            {
                self.work.waiting.push((elem, ty));
            }
            sudog = link;
        }
    }

    /// Scans the stack objects that pointers hit, and those that these hit in turn; exact pointers first.
    pub(super) fn scan_objects(&mut self) {
        if self.work.objects.is_empty() {
            return;
        }
        self.work.objects.sort_by_key(|o| o.addr);
        let (mut exact, mut doubtful) = (0, 0);
        loop {
            let (pointer, conservative) = if let Some(pointer) = self.work.pointers.get(exact) {
                exact += 1;
                (*pointer, false)
            } else if let Some(pointer) = self.work.doubtful.get(doubtful) {
                doubtful += 1;
                (*pointer, true)
            } else {
                return;
            };
            let Some(i) = self.work.objects.partition_point(|o| o.addr <= pointer.to).checked_sub(1) else { continue };
            let object = self.work.objects[i];
            if pointer.to - object.addr < object.size {
                self.work.objects[i].size = 0;
                self.scan_object(object, pointer, conservative);
            }
        }
    }

    fn scan_object(&mut self, at: ObjectAt, pointer: StackPointer, conservative: bool) {
        if at.index == REG_ARGS {
            if let Some(regs) = self.shared.layout.reg_args {
                let addr = at.addr.wrapping_add(regs.ptrs);
                self.scan_run(at.frame as usize, addr, regs.nptrs as usize, |_| true, conservative);
            }
            return;
        }
        let types = &self.shared.sources.debug.types;
        let plan = self.plan(self.work.frames[at.frame as usize]);
        let object = &plan.objects[at.index as usize];
        if let Some((name, ty)) = &object.name {
            let label = self.batch.labels.name(&name.text);
            self.add_object(at, object, 0..at.size, Some((label, *ty, name.runtime)), conservative);
            return;
        }
        // A temporary (`&T{}`, `make([]T, 4)`): as if it were an object behind the variable that refers to it.
        let waiting =
            || self.work.waiting.iter().find(|(addr, ty)| *addr == at.addr && types.get(*ty).size <= at.size).copied();
        let (label, referent, runtime) = match pointer.holder.filter(|_| pointer.to == at.addr) {
            Some(Holder { label, referent, runtime }) => (label, referent, runtime),
            None => match (waiting(), &object.lost) {
                (Some((_, ty)), _) => return self.add_operand(at, object, ty, conservative),
                (None, Some(lost)) if self.holds(at.addr, at.size, lost.referent) => {
                    let (label, runtime) = self.lost_label(at.frame as usize, lost);
                    (label, lost.referent, runtime)
                }
                _ if !conservative && self.scan_closure_object(at, object) => return,
                _ => return self.add_object(at, object, 0..at.size, None, conservative),
            },
        };
        match referent {
            Referent::Value(ty) | Referent::Map(ty) if types.get(ty).size <= at.size => {
                self.add_object(at, object, 0..at.size, Some((label, ty, runtime)), conservative);
            }
            Referent::Elements(ty) if types.get(ty).size > 0 && types.get(ty).size.is_multiple_of(8) => {
                // Elements that hold pointers fill whole words.
                let end = object.mask.ones().last().map_or(0, |last| last as u64 * 8 + 1);
                for (range, label) in self.elements(label, ty, end.min(at.size)) {
                    self.add_object(at, object, range, Some((label, ty, runtime)), conservative);
                }
            }
            Referent::Value(_) | Referent::Map(_) | Referent::Elements(_) => {
                self.add_object(at, object, 0..at.size, None, conservative);
            }
        }
    }

    /// Byte ranges and labels of the elements of type `ty` in `size` bytes that have the label `label`.
    fn elements(&mut self, label: u32, ty: TypeId, size: u64) -> Vec<(Range<u64>, u32)> {
        let elem = self.shared.sources.debug.types.get(ty);
        let labels = &mut self.batch.labels;
        let starts = (0..size).step_by(elem.size as usize).enumerate();
        starts
            .map(|(i, from)| (from..from.saturating_add(elem.size), labels.element(label, i, ty, &elem.name)))
            .collect()
    }

    /// Scans words of a frame that a variable without a place refers to, if they hold what it would; else nothing.
    pub(super) fn scan_lost(&mut self, frame: usize, addr: u64, nwords: u32, lost: &Lost) -> bool {
        let size = u64::from(nwords) * 8;
        if !self.holds(addr, size, lost.referent) {
            return false;
        }
        let (label, runtime) = self.lost_label(frame, lost);
        let (parts, ty) = match lost.referent {
            Referent::Elements(ty) => (self.elements(label, ty, size), ty),
            Referent::Value(ty) | Referent::Map(ty) => (vec![(0..size, label)], ty),
        };
        let referent = Referent::of(ty, &self.shared.sources.debug.types);
        for (range, label) in parts {
            let holder = referent.map(|referent| Holder { label, referent, runtime });
            let first = self.batch.store.words.len();
            for i in range.start / 8..range.end / 8 {
                let word = self.word(addr, i as i64 * 8);
                self.push(word, true, false, holder);
            }
            let kind = if lost.name.is_some() { RootKind::FrameVariable } else { RootKind::FrameSlot };
            let stratum = if lost.name.is_some() { stratum(false, runtime) } else { Stratum::Unnamed };
            let head = self.head(stratum, kind, label, Some(ty), addr.wrapping_add(range.start));
            self.batch.store.finish(first, head);
        }
        true
    }

    /// Scans a stack object as a closure, if it is one.
    fn scan_closure_object(&mut self, at: ObjectAt, object: &Object) -> bool {
        let Some(closure) = self.closure_at(at.addr) else { return false };
        let end = object.mask.ones().last().map_or(0, |last| last as u64 + 1);
        closure.has_pointers(&object.mask) && self.scan_captures_of(at.frame as usize, &closure, 0..end)
    }

    fn lost_label(&mut self, frame: usize, lost: &Lost) -> (u32, bool) {
        match &lost.name {
            Some(name) => (self.batch.labels.name(&name.text), name.runtime),
            None => (self.chain(frame), false),
        }
    }

    /// Whether the pointers in `size` bytes of stack lead where those of `referent`'s values would: to objects large enough, with
    /// the pointers of what the type points to. False as well if the type has no pointers that tell.
    fn holds(&mut self, addr: u64, size: u64, referent: Referent) -> bool {
        let (Referent::Value(ty) | Referent::Elements(ty) | Referent::Map(ty)) = referent;
        let types = &self.shared.sources.debug.types;
        let elem = types.get(ty).size;
        let mut targets = Vec::new();
        pointer_targets(types, ty, 0, &mut { MAX_COMPARED }, &mut targets);
        if targets.is_empty() || elem == 0 {
            return false;
        }
        (0..size).step_by(elem as usize).all(|at| {
            targets.iter().all(|(offset, target)| {
                let word = self.word(addr.wrapping_add(at), offset.cast_signed());
                self.may_be(word, *target)
            })
        })
    }

    /// Whether the heap object at `word` may be a value of type `ty`. What is no heap object may be anything.
    pub(super) fn may_be(&self, word: u64, ty: TypeId) -> bool {
        let sources = self.shared.sources;
        let Some((span, slot)) = sources.heap.find_object(word) else { return true };
        let (size, from) = (sources.debug.types.get(ty).size, word - sources.heap.slot_addr(span, slot));
        if from.saturating_add(size) > sources.heap.span(span).elem_size() {
            return false;
        }
        let nwords = (size / 8).min(MAX_COMPARED);
        let mut mask = Vec::new();
        let first = from / 8;
        sources.heap.object_mask_words(sources.image, sources.masks, span, slot, first, nwords, &mut mask);
        let pointers = pieces::pointer_words(ty, nwords as usize, &sources.debug.types);
        (0..nwords as usize).all(|i| pointers.get(i) == (mask[i / 64] >> (i % 64) & 1 != 0))
    }

    /// Adds a stack object that is the operand of a blocked channel operation: a value of type `ty` that no variable names.
    fn add_operand(&mut self, at: ObjectAt, object: &Object, ty: TypeId, conservative: bool) {
        let types = &self.shared.sources.debug.types;
        let label = self.chain(at.frame as usize);
        let holder = Referent::of(ty, types).map(|referent| Holder { label, referent, runtime: false });
        let first = self.batch.store.words.len();
        for i in 0..at.size.div_ceil(8) {
            let word = self.word(at.addr, i as i64 * 8);
            self.push(word, object.mask.get(i as usize), conservative, holder);
        }
        let stratum = if conservative { Stratum::Conservative } else { Stratum::Unnamed };
        let head = self.head(stratum, RootKind::FrameSlot, label, Some(ty), at.addr);
        self.batch.store.finish(first, head);
    }

    /// Adds bytes `range` of a stack object as one root: a value of a named variable, or words of its frame.
    fn add_object(
        &mut self,
        at: ObjectAt,
        object: &Object,
        range: Range<u64>,
        name: Option<(u32, TypeId, bool)>,
        conservative: bool,
    ) {
        let types = &self.shared.sources.debug.types;
        let holder =
            name.and_then(|(label, ty, runtime)| Some(Holder { label, referent: Referent::of(ty, types)?, runtime }));
        let first = self.batch.store.words.len();
        for i in range.start / 8..range.end.div_ceil(8) {
            let word = self.word(at.addr, i as i64 * 8);
            self.push(word, object.mask.get(i as usize), conservative, holder);
        }
        let (kind, label) = match name {
            Some((label, ..)) => (RootKind::FrameVariable, label),
            None => (RootKind::FrameSlot, self.chain(at.frame as usize)),
        };
        let stratum = match name {
            Some((_, _, runtime)) => stratum(conservative, runtime),
            None if conservative => Stratum::Conservative,
            None => Stratum::Unnamed,
        };
        let addr = at.addr.wrapping_add(range.start);
        let head = self.head(stratum, kind, label, name.map(|(_, ty, _)| ty), addr);
        self.batch.store.finish(first, head);
    }
}

/// Offsets and targets of the pointers in a value of type `ty` at `offset`, as far as `visits` reach.
fn pointer_targets(types: &TypeTable, ty: TypeId, offset: u64, visits: &mut u64, found: &mut Vec<(u64, TypeId)>) {
    let Some(left) = visits.checked_sub(1) else { return };
    *visits = left;
    match &types.get(ty).kind {
        Kind::Pointer(target) => found.push((offset, *target)),
        Kind::Struct(fields) => {
            for field in fields.iter().take(MAX_COMPARED as usize) {
                pointer_targets(types, field.ty, offset.saturating_add(field.offset), visits, found);
            }
        }
        _ => {}
    }
}
