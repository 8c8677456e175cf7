//! Closures whose objects are in a frame (the function of a `defer` that does not escape), or that a word of the frame without a variable
//! leads to. No variable names their words, but their first one is a code pointer, and the code says what it captured.

use super::goroutine::GoroutineScan;
use super::objects::Holder;
use super::plan::Referent;
use super::{RootKind, Sources, Stratum, pieces};
use crate::address::Addr;
use crate::model::closures::Surroundings;
use crate::model::dwarf::Capture;
use crate::model::stacks::Bits;
use crate::model::types::{Kind, TypeId};
use std::ops::Range;
use std::sync::Arc;

/// A closure has at most this many words; larger variables are captured by reference.
const MAX_WORDS: u64 = 1 << 10;

/// Slots up to this size have no header.
const MAX_SMALL: u64 = 512;

/// What the code of a closure says about its objects.
#[derive(Debug)]
pub(super) struct FrameClosure {
    function: Box<str>,
    captures: Vec<Capture>,
    /// Pointer words, the code pointer being word 0.
    pointers: Bits,
}

/// A closure found in a frame.
#[derive(Clone)]
pub(super) struct ClosureAt {
    addr: u64,
    code: u64,
    layout: Arc<FrameClosure>,
}

impl ClosureAt {
    /// Whether an object of it has these pointers and no others.
    pub(super) fn has_pointers(&self, mask: &Bits) -> bool {
        mask.ones().eq(self.layout.pointers.ones())
    }
}

impl<'s: 'c, 'c> GoroutineScan<'_, 's, '_, '_, 'c> {
    /// The closure whose object begins at `addr`, if a word there is the entry of a function that captures variables.
    pub(super) fn closure_at(&mut self, addr: u64) -> Option<ClosureAt> {
        let code = self.memory.word(addr)?;
        let layout = self.layout_of(code)?;
        Some(ClosureAt { addr, code, layout })
    }

    /// What the closures look like whose code begins at `code`; `None` if these capture nothing.
    fn layout_of(&mut self, code: u64) -> Option<Arc<FrameClosure>> {
        let sources = self.shared.sources;
        if !sources.modules.list.iter().any(|m| m.is_main && m.pcs.contains(Addr(code))) {
            return None;
        }
        let find = || {
            let types = &sources.debug.types;
            let layout = sources.debug.closure_layout(types, code.wrapping_sub(sources.load_bias))?;
            let end = |c: &Capture| c.1.saturating_add(types.get(c.2).size);
            let nwords = layout.captures.iter().map(end).max()?.div_ceil(8);
            if nwords > MAX_WORDS || !layout.captures.iter().all(|c| c.1 >= 8 && c.1.is_multiple_of(8)) {
                return None;
            }
            let mut pointers = Bits::zeros(nwords as usize);
            for (_, offset, ty) in &layout.captures {
                let words = types.get(*ty).size.div_ceil(8) as usize;
                for word in pieces::pointer_words(*ty, words, types).ones() {
                    pointers.set((offset / 8) as usize + word, true);
                }
            }
            Some(Arc::new(FrameClosure { function: layout.function, captures: layout.captures, pointers }))
        };
        self.batch.closures.entry(code).or_insert_with(find).clone()
    }

    /// Whether `word` is a func value: it leads to the start of a small object that begins with the entry of a function that captures
    /// variables, and has pointers where these have them.
    fn is_func(&mut self, word: u64) -> bool {
        let (heap, image) = (self.shared.sources.heap, self.shared.sources.image);
        let Some((id, slot)) = heap.find_object(word) else { return false };
        let span = heap.span(id);
        // Larger objects say themselves what they are.
        if span.noscan() || span.elem_size() > MAX_SMALL || heap.slot_addr(id, slot) != word {
            return false;
        }
        let Ok(code) = image.read_u64(Addr(word)) else { return false };
        let mut mask = Vec::new();
        heap.object_mask(image, self.shared.sources.masks, id, slot, &mut mask);
        let mask = mask.first().copied().unwrap_or(0);
        match self.layout_of(code) {
            Some(layout) => mask & 1 == 0 && layout.pointers.ones().all(|i| i < 64 && mask >> i & 1 != 0),
            None => self.allocated_mask(code) == Some(mask),
        }
    }

    /// The pointer words of closures that are allocated and whose code begins at `code`, as far as debug information does not say it.
    fn allocated_mask(&self, code: u64) -> Option<u64> {
        let Sources { image, modules, debug, descriptors, masks, load_bias, .. } = *self.shared.sources;
        let from = Surroundings { image, modules, debug, descriptors, load_bias };
        let rtype = self.shared.closures.descriptor(&from, code)?;
        masks.get(image, rtype.0)?.bits.first().copied()
    }

    /// Scans `nwords` live words at `addr` without a variable, func values each on its own: the function of a `defer`, mostly.
    pub(super) fn scan_unnamed(&mut self, frame: usize, addr: u64, nwords: usize) {
        let mut done = 0;
        let func = self.shared.types.func;
        for i in 0..nwords {
            let at = addr + i as u64 * 8;
            let Some(word) = self.memory.word(at).filter(|_| func.is_some()) else { continue };
            if self.is_func(word) {
                self.scan_run(frame, addr + done as u64 * 8, i - done, |_| true, false);
                self.single(frame, word, at, func);
                done = i + 1;
            }
        }
        self.scan_run(frame, addr + done as u64 * 8, nwords - done, |_| true, false);
    }

    /// Scans what a closure captured, as far as it is among the `nwords` live words at `addr`; false, and nothing is done, if these are
    /// not all its own, or do not lead where its types say.
    pub(super) fn scan_captures(&mut self, frame: usize, closure: &ClosureAt, addr: u64, nwords: u64) -> bool {
        let Some(from) = addr.checked_sub(closure.addr).map(|bytes| bytes / 8) else { return false };
        let live = from..from.saturating_add(nwords);
        live.clone().all(|word| closure.layout.pointers.get(word as usize))
            && self.scan_captures_of(frame, closure, live)
    }

    /// The same for the words `live` of the closure.
    pub(super) fn scan_captures_of(&mut self, frame: usize, closure: &ClosureAt, live: Range<u64>) -> bool {
        let FrameClosure { function, captures, .. } = &*closure.layout;
        let types = &self.shared.sources.debug.types;
        for (_, offset, ty) in captures {
            if let Kind::Pointer(target) = types.get(*ty).kind
                && live.contains(&(offset / 8))
            {
                let word = self.word(closure.addr, offset.cast_signed());
                if !self.may_be(word, target) {
                    return false;
                }
            }
        }
        let chain = self.chain(frame);
        for (i, (name, offset, ty)) in captures.iter().enumerate() {
            // One captured by reference is named as the variable that it is.
            let (name, shown) = match (name.strip_prefix('&'), &types.get(*ty).kind) {
                (Some(name), Kind::Pointer(elem)) => (name, *elem),
                _ => (&**name, *ty),
            };
            let label = self.batch.labels.capture(chain, (closure.code, i), || {
                [function.as_ref().into(), format!("{name}. ({})", types.get(shown).name).into()]
            });
            self.add_capture(closure.addr + offset, *ty, label, &|word| live.contains(&(offset / 8 + word)));
        }
        true
    }

    fn add_capture(&mut self, addr: u64, ty: TypeId, label: u32, is_live: &dyn Fn(u64) -> bool) {
        let types = &self.shared.sources.debug.types;
        let nwords = types.get(ty).size.div_ceil(8);
        let pointers = pieces::pointer_words(ty, nwords as usize, types);
        let referent = Referent::of(ty, types);
        let holder = referent.map(|referent| Holder { label, referent, runtime: false });
        let first = self.batch.store.words.len();
        for word in 0..nwords {
            let value = self.word(addr, word.cast_signed() * 8);
            self.push(value, pointers.get(word as usize) && is_live(word), false, holder);
        }
        let head = self.head(Stratum::Unnamed, RootKind::FrameSlot, label, Some(ty), addr);
        self.batch.store.finish(first, head);
    }
}
