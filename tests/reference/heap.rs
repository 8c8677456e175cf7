//! The heap as a list of spans, looked up with a binary search and a division, and masks read bit by bit. Shares with the product
//! only what the model read from the dump.

use goref_fast::address::Addr;
use goref_fast::image::Image;
use goref_fast::model::heap::{Heap, MaskSource, SpanId, TypeMasks};

/// One slot.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// Address of the slot.
    pub addr: u64,
    /// Its span's index.
    pub span: u32,
    /// Its number in the span.
    pub slot: u32,
}

/// The heap and what is needed to read it.
#[derive(Copy, Clone)]
pub struct Memory<'a> {
    pub image: &'a dyn Image,
    pub heap: &'a Heap,
    pub masks: &'a TypeMasks,
}

impl Memory<'_> {
    /// `findObject`, without a look at whether the slot is allocated.
    pub fn slot_at(&self, addr: u64) -> Option<Object> {
        let spans = self.heap.spans();
        let i = spans.partition_point(|s| s.start <= addr).checked_sub(1)?;
        let span = &spans[i];
        if addr >= span.limit {
            return None;
        }
        let slot = (addr - span.start) / span.elem_size();
        if slot >= u64::from(span.nelems) {
            return None;
        }
        Some(Object { addr: span.start + slot * span.elem_size(), span: i as u32, slot: slot as u32 })
    }

    /// The allocated object at `addr`, which may be inside it.
    pub fn object_at(&self, addr: u64) -> Option<Object> {
        self.slot_at(addr).filter(|o| self.heap.is_allocated(SpanId(o.span), o.slot))
    }

    /// Bytes of the slot.
    pub fn size(&self, object: Object) -> u64 {
        self.heap.spans()[object.span as usize].elem_size()
    }

    pub fn noscan(&self, object: Object) -> bool {
        self.heap.spans()[object.span as usize].noscan()
    }

    /// Where the slot's usable bytes end: a large object's are those that were asked for.
    pub fn end(&self, object: Object) -> u64 {
        let span = &self.heap.spans()[object.span as usize];
        (object.addr + span.elem_size()).min(span.limit)
    }

    pub fn word(&self, addr: u64) -> u64 {
        self.image.read_u64(Addr(addr)).unwrap_or(0)
    }

    /// Addresses of the words that the collector follows, ascending.
    pub fn pointer_words(&self, object: Object) -> Vec<u64> {
        self.pointer_words_in(object, object.addr, object.addr + self.size(object))
    }

    /// Those from `low` to before `high`, which lie in the object.
    pub fn pointer_words_in(&self, object: Object, low: u64, high: u64) -> Vec<u64> {
        let size = self.size(object);
        let tiled = |rtype: u64, from: u64, to: u64| {
            let Some(mask) = self.masks.get(self.image, rtype) else { return Vec::new() };
            let is_pointer = |at: &u64| {
                let word = (at - from) % mask.size / 8;
                word < mask.ptr_words && mask.bits[(word / 64) as usize] >> (word % 64) & 1 != 0
            };
            (from.max(low)..to.min(high)).step_by(8).filter(is_pointer).collect()
        };
        match self.heap.mask_source(SpanId(object.span)) {
            MaskSource::Noscan | MaskSource::Large { rtype: 0 } => Vec::new(),
            MaskSource::InSpan { bitmap } => {
                let per_byte = if self.heap.masks_in_nibbles() { 4 } else { 8 };
                let is_pointer = |at: &u64| {
                    let bit = (at - self.heap.spans()[object.span as usize].start) / 8;
                    self.image.read_u8(Addr(bitmap + bit / per_byte)).unwrap_or(0) >> (bit % per_byte) & 1 != 0
                };
                (low..high).step_by(8).filter(is_pointer).collect()
            }
            MaskSource::Arena => {
                let mut mask = Vec::new();
                self.heap.object_mask(self.image, self.masks, SpanId(object.span), object.slot, &mut mask);
                let is_pointer = |at: &u64| {
                    let word = (at - object.addr) / 8;
                    mask[(word / 64) as usize] >> (word % 64) & 1 != 0
                };
                (low..high).step_by(8).filter(is_pointer).collect()
            }
            MaskSource::Header => tiled(self.word(object.addr), object.addr + 8, object.addr + size),
            MaskSource::Large { rtype } => tiled(rtype, object.addr, self.end(object)),
        }
    }
}
