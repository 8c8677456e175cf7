//! One in-use span: 32 bytes for what every pointer lookup needs, the rest beside it.

use super::PAGE_SIZE;
use std::fmt;

/// Index of a span in address order.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u32);

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "span-{}", self.0)
    }
}

/// The hot part of an `mspan` in use. Its geometry was validated: `start + nelems * elem_size <= ` the end of its pages (except a
/// large object's, whose one slot is the pages), `start <= limit`, `nelems >= 1`.
#[derive(Copy, Clone, Debug)]
pub struct Span {
    /// Address of the first slot (`startAddr`).
    pub start: u64,
    /// End of the object area; of a large object its end as requested.
    pub limit: u64,
    /// `ceil(2^32 / elem_size)`, 0 if there is one slot: `slot = (addr - start) * div_mul >> 32` (as `runtime.divMul`).
    pub(super) div_mul: u32,
    /// Bytes of a slot, or with [`IN_PAGES`] pages.
    pub(super) elem: u32,
    /// Ordinal of slot 0 in the shard.
    pub slot_base: u32,
    /// Number of slots.
    pub nelems: u16,
    /// `sizeclass << 1 | noscan`.
    pub span_class: u8,
    /// Number of the shard.
    pub(super) shard: u8,
}

// Two spans in a cache line: a lookup touches one.
const _: () = assert!(size_of::<Span>() == 32);

/// Marks [`Span::elem`] as a number of pages: slots of 2 GiB and more.
pub(super) const IN_PAGES: u32 = 1 << 31;

impl Span {
    /// Bytes of a slot (`elemsize`); a large object's are whole pages.
    #[inline]
    #[must_use]
    pub fn elem_size(&self) -> u64 {
        if self.elem & IN_PAGES == 0 { u64::from(self.elem) } else { u64::from(self.elem & !IN_PAGES) * PAGE_SIZE }
    }

    /// Slot of `addr`, which must lie in `start..limit`.
    #[inline]
    #[must_use]
    pub fn slot_of(&self, addr: u64) -> u32 {
        ((addr.wrapping_sub(self.start)).wrapping_mul(u64::from(self.div_mul)) >> 32) as u32
    }

    /// Number of the shard that owns the span.
    #[inline]
    #[must_use]
    pub fn shard(&self) -> u16 {
        u16::from(self.shard)
    }

    /// Whether its objects have no pointers.
    #[inline]
    #[must_use]
    pub fn noscan(&self) -> bool {
        self.span_class & 1 != 0
    }

    /// Whether it holds one large object (size class 0).
    #[inline]
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.span_class >> 1 == 0
    }
}

/// Fields of an in-use `mspan` that no pointer lookup needs.
#[derive(Copy, Clone, Debug, Default)]
pub struct SpanDetails {
    /// Address of the `mspan`.
    pub mspan: u64,
    /// Length in pages.
    pub npages: u64,
    /// `largeType`: descriptor of a large object, 0 if none.
    pub large_type: u64,
    /// First word of its bits among the heap's allocation bits.
    pub(super) alloc_word: usize,
    /// `allocBits`.
    pub alloc_bits: u64,
    /// `gcmarkBits`.
    pub gcmark_bits: u64,
    /// Head of the specials list, 0 if none.
    pub specials: u64,
    /// `sweepgen`.
    pub sweepgen: u32,
    /// `freeindex`.
    pub free_index: u16,
    /// `freeIndexForScan`: slots from here to `free_index` may be half-initialised.
    pub free_index_for_scan: u16,
    /// `allocCount`, the runtime's own count.
    pub alloc_count: u16,
    /// `allocCountBeforeCache`.
    pub alloc_count_before_cache: u16,
    /// One user arena chunk.
    pub is_user_arena: bool,
}
