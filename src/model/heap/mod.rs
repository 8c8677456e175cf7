//! The heap: every in-use span of the dumped process, which of their slots are allocated, and where their pointer masks are.
//!
//! `read` turns `mheap_.allspans` into a table of [`Span`]s sorted by address; `shards` cuts the address space into
//! [`Shard`]s of whole arenas and fills the page table; `alloc` decides which slots are allocated in every sweep state;
//! [`masks`] and [`typemask`] say which words of a slot the collector follows; [`specials`] holds finalizers, cleanups and weak
//! handles; [`totals`] keeps the books, [`counters`] what the runtime counted itself. Built once, then only read, from any worker.

mod ahead;
mod alloc;
mod arenas;
pub mod counters;
mod geometry;
pub mod masks;
mod read;
mod shards;
mod span;
pub mod specials;
#[cfg(test)]
mod tests;
pub mod totals;
pub mod typemask;
mod unread;

pub use counters::{HeapStats, RuntimeCounters};
pub use masks::MaskSource;
pub use shards::Shard;
pub use span::{Span, SpanDetails, SpanId};
pub use specials::{Special, SpecialKind};
pub use totals::HeapTotals;
pub use typemask::{TypeMask, TypeMasks};

use crate::address::WORD;
use crate::incident::Incidents;
use roaring::RoaringBitmap;

/// Bytes of a runtime page (`_PageSize`).
pub const PAGE_SIZE: u64 = 8192;
/// Bytes of a heap arena (`heapArenaBytes`), the unit of shards.
pub const ARENA_SIZE: u64 = 64 << 20;
/// Most shards a heap is cut into: a shard number fits a byte.
pub const MAX_SHARDS: usize = 256;
/// A shard's addresses stay this close to its base, so that a word index fits 32 bits; the only exception is a shard made for one
/// single span that is longer ([`Shard::oversized`]).
pub const SHARD_REACH: u64 = 32 << 30;

/// The heap of the dumped process.
#[derive(Debug)]
pub struct Heap {
    /// In-use spans by ascending start, not overlapping. [`SpanId`] is the index.
    spans: Vec<Span>,
    /// Rarely needed fields, same index.
    details: Vec<SpanDetails>,
    /// Allocated slots, one bit each; a span's bits start at word [`SpanDetails::alloc_word`].
    alloc_words: Vec<u64>,
    /// Dead slots, indexed alike; empty if there are none.
    dead_words: Vec<u64>,
    shards: Vec<Shard>,
    pages: shards::PageTable,
    bitmaps: geometry::Bitmaps,
    /// Pointer bits by arena, if the release has them there.
    arenas: Option<arenas::Arenas>,
    malloc_header_size: u64,
    specials: Vec<Special>,
    /// Spans that the runtime manages by hand, as it says: start and pages.
    manual: Vec<(u64, u64)>,
    totals: HeapTotals,
    counters: RuntimeCounters,
    incidents: Incidents,
}

impl Heap {
    /// All spans in address order.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The span `id`.
    #[inline]
    #[must_use]
    pub fn span(&self, id: SpanId) -> &Span {
        &self.spans[id.0 as usize]
    }

    /// The rarely needed fields of span `id`.
    #[must_use]
    pub fn details(&self, id: SpanId) -> &SpanDetails {
        &self.details[id.0 as usize]
    }

    /// All shards in address order; a shard's number is its index.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard whose arenas hold `addr`; `None` outside of the heap's arenas. A hit says nothing about a span being there.
    ///
    /// Cost: one bounds check and one load from a small table.
    #[inline]
    #[must_use]
    pub fn shard_of(&self, addr: u64) -> Option<u16> {
        self.pages.shard_of(addr)
    }

    /// The in-use span with `start <= addr < limit`.
    ///
    /// Cost: three dependent loads (arena, page, span).
    /// Source: `runtime.spanOf`, `runtime.findObject` (mheap.go, mbitmap.go).
    #[inline]
    #[must_use]
    pub fn find_span(&self, addr: u64) -> Option<SpanId> {
        self.pages.span_at(addr).filter(|&id| self.contains(id, addr))
    }

    /// The span holding `addr` and the slot in it; interior pointers are rounded down to their slot. Free slots are found too:
    /// whoever walks has them pre-marked ([`Heap::free_slots`]).
    ///
    /// Cost: [`Heap::find_span`] and one multiply; no lock, no allocation.
    #[inline]
    #[must_use]
    pub fn find_object(&self, addr: u64) -> Option<(SpanId, u32)> {
        let id = self.find_span(addr)?;
        Some((id, self.spans[id.0 as usize].slot_of(addr)))
    }

    /// The span whose pages hold `addr`, which may lie before its first slot or after its limit: the first of two steps of
    /// [`Heap::find_object`], for callers that look up many addresses and hide the latency of each step.
    ///
    /// Cost: two dependent loads (arena, page).
    #[inline]
    #[must_use]
    pub fn span_at(&self, addr: u64) -> Option<SpanId> {
        self.pages.span_at(addr)
    }

    /// Whether `addr` lies in an object of span `id`.
    #[inline]
    #[must_use]
    pub fn contains(&self, id: SpanId, addr: u64) -> bool {
        let span = &self.spans[id.0 as usize];
        span.start <= addr && addr < span.limit
    }

    /// The span that owns ordinal `slot_base + slot` of `shard`, and the slot in it.
    ///
    /// Cost: a binary search over the shard's spans; walk ordinals in order with [`Heap::spans`] instead where many are needed.
    #[must_use]
    pub fn locate(&self, shard: u16, ordinal: u32) -> Option<(SpanId, u32)> {
        let shard = self.shards.get(usize::from(shard))?;
        if ordinal >= shard.slots {
            return None;
        }
        let spans = &self.spans[shard.spans.start as usize..shard.spans.end as usize];
        let i = spans.partition_point(|s| s.slot_base <= ordinal).checked_sub(1)?;
        let id = shard.spans.start + u32::try_from(i).ok()?;
        Some((SpanId(id), ordinal - spans[i].slot_base))
    }

    /// Address of slot `slot` of span `id`.
    #[inline]
    #[must_use]
    pub fn slot_addr(&self, id: SpanId, slot: u32) -> u64 {
        let span = self.span(id);
        span.start + u64::from(slot) * span.elem_size()
    }

    /// Whether the allocator handed out this slot (it may be garbage that waits for the sweeper).
    #[inline]
    #[must_use]
    pub fn is_allocated(&self, id: SpanId, slot: u32) -> bool {
        let first = self.details[id.0 as usize].alloc_word;
        self.alloc_words[first + slot as usize / 64] >> (slot % 64) & 1 != 0
    }

    /// The allocated slots of a span, bit `i % 64` of word `i / 64`; no bit at or beyond `nelems`.
    #[must_use]
    pub fn alloc_bits(&self, id: SpanId) -> &[u64] {
        let first = self.details[id.0 as usize].alloc_word;
        let words = u32::from(self.spans[id.0 as usize].nelems).div_ceil(64) as usize;
        &self.alloc_words[first..first + words]
    }

    /// The dead slots of a span: allocated, but left unmarked by the last collection and waiting for the sweeper. Nothing that is
    /// alive points to them. Empty if the heap has none.
    #[must_use]
    pub fn dead_bits(&self, id: SpanId) -> &[u64] {
        if self.dead_words.is_empty() {
            return &[];
        }
        let first = self.details[id.0 as usize].alloc_word;
        let words = u32::from(self.spans[id.0 as usize].nelems).div_ceil(64) as usize;
        &self.dead_words[first..first + words]
    }

    /// Ordinals (`slot_base + slot`) of `shard` that no walk may visit: free slots, and dead ones that wait for the sweeper (for the
    /// books those are allocated: [`HeapTotals::allocated_objects`]).
    #[must_use]
    pub fn free_slots(&self, shard: u16) -> RoaringBitmap {
        let Some(shard) = self.shards.get(usize::from(shard)) else { return RoaringBitmap::new() };
        let mut free = RoaringBitmap::new();
        for id in shard.spans.clone() {
            let span = &self.spans[id as usize];
            let nelems = u32::from(span.nelems);
            let dead = self.dead_bits(SpanId(id));
            for (i, &word) in self.alloc_bits(SpanId(id)).iter().enumerate() {
                let first = i as u32 * 64;
                let valid = if nelems - first >= 64 { !0 } else { (1u64 << (nelems - first)) - 1 };
                let mut bits = (!word | dead.get(i).copied().unwrap_or(0)) & valid;
                while bits != 0 {
                    let pushed = free.try_push(span.slot_base + first + bits.trailing_zeros());
                    debug_assert!(pushed.is_ok(), "ordinals ascend");
                    bits &= bits - 1;
                }
            }
        }
        free
    }

    /// Finalizers, cleanups and weak handles by (object, offset, kind).
    #[must_use]
    pub fn specials(&self) -> &[Special] {
        &self.specials
    }

    /// The books: bytes and objects of the in-use spans.
    #[must_use]
    pub fn totals(&self) -> &HeapTotals {
        &self.totals
    }

    /// What the runtime itself counted.
    #[must_use]
    pub fn counters(&self) -> &RuntimeCounters {
        &self.counters
    }

    /// What was skipped or repaired while reading.
    #[must_use]
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// Bytes of the largest slot: no type of a heap object can be larger.
    #[must_use]
    pub fn largest_slot(&self) -> u64 {
        self.spans.iter().map(Span::elem_size).max().unwrap_or(WORD)
    }
}
