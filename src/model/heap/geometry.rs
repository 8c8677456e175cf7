//! Checks one `mspan` record before anything is sized or addressed by it.

use super::span::{IN_PAGES, Span, SpanDetails};
use super::{MAX_SHARDS, PAGE_SIZE, SHARD_REACH};
use crate::model::layout::{MspanLayout, RuntimeLayout};

/// User addresses end here on every supported machine.
const ADDRESS_LIMIT: u64 = 1 << 48;
/// No span is longer: more than all shards could hold.
const LONGEST_SPAN: u64 = MAX_SHARDS as u64 * SHARD_REACH;
/// Size classes are `0..NUM_SIZE_CLASSES`.
const NUM_SIZE_CLASSES: u8 = 68;
/// `mSpanInUse`.
const IN_USE: u8 = 1;
/// `mSpanManual`.
const MANUAL: u8 = 2;

/// What an `mspan` record turned out to be.
pub(super) enum Record {
    /// Dead.
    NotInUse,
    /// Holding stacks and other memory that the runtime manages by hand.
    Manual { start: u64, npages: u64 },
    /// In use and sane.
    Good(Span, SpanDetails),
    /// In use, sane but for its limit, and without an object: up to Go 1.23 `(*mcentral).grow` and `(*mcache).allocLarge` set the limit
    /// after `(*mheap).initSpan` has set the state. If `sweepgen` is the heap's, nobody else knows of the span yet.
    Unpublished(Span, SpanDetails),
    /// In use; its pages are plausible, its slots are not.
    BadSlots { start: u64, npages: u64 },
    /// In use, and nothing about it can be believed.
    BadPages,
}

fn u64_at(record: &[u8], at: u64) -> u64 {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    record.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn u32_at(record: &[u8], at: u64) -> u32 {
    u64_at_most(record, at, 4) as u32
}

/// `nelems`, `freeindex` and their kin: 8 bytes wide up to Go 1.21, 2 since. No span has more slots than 16 bits count.
fn count_at(record: &[u8], at: u64, layout: &MspanLayout) -> Option<u16> {
    u16::try_from(u64_at_most(record, at, layout.count_bytes.min(8) as usize)).ok()
}

fn u16_at(record: &[u8], at: u64) -> u16 {
    u64_at_most(record, at, 2) as u16
}

fn u8_at(record: &[u8], at: u64) -> u8 {
    u64_at_most(record, at, 1) as u8
}

/// Little-endian integer of `len` bytes; 0 if the record ends before it.
fn u64_at_most(record: &[u8], at: u64, len: usize) -> u64 {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let mut bytes = [0; 8];
    if let Some(from) = record.get(at..).and_then(|b| b.get(..len)) {
        bytes[..len].copy_from_slice(from);
    }
    u64::from_le_bytes(bytes)
}

/// How the runtime lays out bitmaps at the end of spans.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bitmaps {
    /// `sizeof(spanInlineMarkBits)`: 128 under Green Tea, 0 without.
    pub(super) inline_mark_bytes: u64,
    /// `minSizeForMallocHeader`: slots above it have headers instead of in-span bitmaps.
    pub(super) min_size_for_malloc_header: u64,
    /// Pointer bits are in `heapArena`s: there are neither bitmaps in spans nor headers.
    pub(super) in_arenas: bool,
}

impl Bitmaps {
    pub(super) fn new(layout: &RuntimeLayout) -> Self {
        Self {
            inline_mark_bytes: layout.inline_mark_bits_size,
            min_size_for_malloc_header: layout.constants.min_size_for_malloc_header,
            in_arenas: layout.arena_bits.is_some(),
        }
    }

    /// Bytes of inline mark bits in spans of this slot size (`gcUsesSpanInlineMarkBits`).
    pub(super) fn inline_marks(self, elem_size: u64) -> u64 {
        if (16..=self.min_size_for_malloc_header).contains(&elem_size) { self.inline_mark_bytes } else { 0 }
    }

    /// Bytes of the pointer bitmap (`heapBitsInSpan`): one bit per word of the span.
    pub(super) fn heap_bits(self, noscan: bool, elem_size: u64, npages: u64) -> u64 {
        if noscan || self.in_arenas || elem_size > self.min_size_for_malloc_header {
            0
        } else {
            npages * (PAGE_SIZE / 64)
        }
    }

    /// All bytes at the end of a span of small objects that are no slots.
    pub(super) fn total(self, noscan: bool, elem_size: u64, npages: u64) -> u64 {
        self.heap_bits(noscan, elem_size, npages) + self.inline_marks(elem_size)
    }
}

/// Whether pages, slot size and number of slots agree as `(*mheap).initSpan` makes them: of two spans that claim the same pages, the
/// one that does not add up is the damaged one.
pub(super) fn adds_up(span: &Span, details: &SpanDetails, bitmaps: Bitmaps) -> bool {
    let (bytes, elem_size) = (details.npages * PAGE_SIZE, span.elem_size());
    if span.is_large() {
        return bytes == elem_size || details.is_user_arena;
    }
    let usable = bytes.saturating_sub(bitmaps.total(span.noscan(), elem_size, details.npages));
    usable / elem_size == u64::from(span.nelems)
}

/// Whether a span is as `(*mheap).initSpan` leaves it: nothing was allocated in it.
fn is_as_made(span: &Span, details: &SpanDetails, bitmaps: Bitmaps) -> bool {
    let counts = [details.free_index, details.free_index_for_scan, details.alloc_count];
    adds_up(span, details, bitmaps) && counts == [0; 3] && details.specials == 0 && !details.is_user_arena
}

/// Parses and checks the `mspan` at address `mspan`, of which `record` holds all bytes.
pub(super) fn parse(record: &[u8], mspan: u64, layout: &MspanLayout, bitmaps: Bitmaps) -> Record {
    match u8_at(record, layout.state) {
        IN_USE => {}
        MANUAL => {
            let (start, npages) = (u64_at(record, layout.start_addr), u64_at(record, layout.npages));
            return Record::Manual { start, npages };
        }
        _ => return Record::NotInUse,
    }
    let start = u64_at(record, layout.start_addr);
    let npages = u64_at(record, layout.npages);
    let plausible = start != 0
        && start.is_multiple_of(PAGE_SIZE)
        && npages != 0
        && npages <= LONGEST_SPAN / PAGE_SIZE
        && start < ADDRESS_LIMIT
        && start + npages * PAGE_SIZE <= ADDRESS_LIMIT;
    if !plausible {
        return Record::BadPages;
    }
    let bytes = npages * PAGE_SIZE;
    let bad = Record::BadSlots { start, npages };

    let span_class = u8_at(record, layout.spanclass);
    let elem_size = u64_at(record, layout.elemsize);
    let (Some(nelems), Some(free_index)) =
        (count_at(record, layout.nelems, layout), count_at(record, layout.free_index, layout))
    else {
        return bad;
    };
    let mut limit = u64_at(record, layout.limit);
    let large = span_class >> 1 == 0;
    if span_class >> 1 >= NUM_SIZE_CLASSES || elem_size == 0 || !elem_size.is_multiple_of(8) || nelems == 0 {
        return bad;
    }
    if elem_size > bytes || free_index > nelems {
        return bad;
    }
    // What the `mspan` had before it was this span's.
    let stale_limit = limit < start || limit > start + bytes;
    if stale_limit {
        limit = start + bytes;
    }
    if large {
        if nelems != 1 || elem_size < PAGE_SIZE {
            return bad;
        }
        // The chunk of a user arena has its bitmap behind its one slot.
        limit = limit.min(start + elem_size);
    } else {
        let bitmaps = bitmaps.total(span_class & 1 != 0, elem_size, npages);
        // The second check bounds the error of the reciprocal below 1: slots come out exact.
        let fits = u64::from(nelems) * elem_size + bitmaps <= bytes;
        if !fits || bytes.checked_mul(elem_size).is_none_or(|product| product > u64::from(u32::MAX)) {
            return bad;
        }
        // A span being set up may have its limit at the end of the pages; no slot is there.
        limit = limit.min(start + u64::from(nelems) * elem_size);
    }
    let elem = if elem_size < u64::from(IN_PAGES) {
        elem_size as u32
    } else if elem_size.is_multiple_of(PAGE_SIZE) {
        // At most LONGEST_SPAN / PAGE_SIZE, far below the mark.
        (elem_size / PAGE_SIZE) as u32 | IN_PAGES
    } else {
        return bad;
    };
    let div_mul = if nelems == 1 { 0 } else { (1u64 << 32).div_ceil(elem_size) as u32 };

    let span = Span { start, limit, div_mul, elem, slot_base: 0, nelems, span_class, shard: 0 };
    let details = SpanDetails {
        mspan,
        npages,
        large_type: layout.large_type.filter(|_| large && span_class & 1 == 0).map_or(0, |at| u64_at(record, at)),
        alloc_word: 0,
        alloc_bits: u64_at(record, layout.alloc_bits),
        gcmark_bits: u64_at(record, layout.gcmark_bits),
        specials: u64_at(record, layout.specials),
        sweepgen: u32_at(record, layout.sweepgen),
        free_index,
        free_index_for_scan: layout
            .free_index_for_scan
            .and_then(|at| count_at(record, at, layout))
            .unwrap_or(free_index),
        alloc_count: u16_at(record, layout.alloc_count),
        alloc_count_before_cache: layout.alloc_count_before_cache.map_or(0, |at| u16_at(record, at)),
        is_user_arena: layout.is_user_arena_chunk.is_some_and(|at| u8_at(record, at) != 0),
    };
    match stale_limit {
        false => Record::Good(span, details),
        true if is_as_made(&span, &details, bitmaps) => Record::Unpublished(span, details),
        true => bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A span of 48-byte slots as `width` bytes of `nelems` and `freeindex` have it.
    fn span(width: u64, nelems: u64, in_arenas: bool) -> Record {
        span_with(width, nelems, in_arenas, |_| {})
    }

    /// The same with a record that `change` has changed.
    fn span_with(width: u64, nelems: u64, in_arenas: bool, change: impl Fn(&mut [u8])) -> Record {
        let layout = MspanLayout {
            size: 80,
            start_addr: 0,
            npages: 8,
            elemsize: 16,
            limit: 24,
            nelems: 32,
            free_index: 40,
            spanclass: 48,
            state: 49,
            count_bytes: width,
            alloc_bits: 56,
            gcmark_bits: 56,
            specials: 56,
            sweepgen: 64,
            alloc_count: 68,
            ..MspanLayout::default()
        };
        let mut record = vec![0; 80];
        let words = [0xc0_0000_0000, 1, 48, 0xc0_0000_0000 + nelems * 48, nelems, 3];
        for (i, word) in words.iter().enumerate() {
            record[i * 8..i * 8 + 8].copy_from_slice(&u64::to_le_bytes(*word));
        }
        // Behind the two bytes of newer releases lies another field.
        (record[34], record[42]) = if width == 2 { (9, 9) } else { (0, 0) };
        (record[48], record[49]) = (5 << 1, IN_USE);
        change(&mut record);
        let bitmaps = Bitmaps { inline_mark_bytes: 0, min_size_for_malloc_header: 512, in_arenas };
        parse(&record, 0x1000, &layout, bitmaps)
    }

    #[test]
    fn counters_are_as_wide_as_the_release_has_them() {
        for (width, in_arenas) in [(2, false), (8, true)] {
            let Record::Good(span, details) = span(width, if in_arenas { 170 } else { 168 }, in_arenas) else {
                panic!("a good span of width {width}");
            };
            assert_eq!(
                (span.nelems, details.free_index, details.free_index_for_scan),
                (if in_arenas { 170 } else { 168 }, 3, 3)
            );
            assert!(adds_up(
                &span,
                &details,
                Bitmaps { inline_mark_bytes: 0, min_size_for_malloc_header: 512, in_arenas }
            ));
        }
        // With a bitmap in the span there is no room for 170, and no span has 70000 slots.
        assert!(matches!(span(2, 170, false), Record::BadSlots { .. }));
        assert!(matches!(span(8, 70_000, true), Record::BadSlots { .. }));
    }
    #[test]
    fn limit_of_a_span_that_is_being_made() {
        let stale = |record: &mut [u8]| record[24..32].copy_from_slice(&0xc0_0100_0000u64.to_le_bytes());
        let fresh = |record: &mut [u8]| {
            stale(record);
            record[40] = 0;
        };
        // `freeindex` is 3: somebody had a look at its objects.
        assert!(matches!(span_with(8, 170, true, stale), Record::BadSlots { .. }));
        let Record::Unpublished(span, _) = span_with(8, 170, true, fresh) else { panic!("a span without objects") };
        assert_eq!(span.limit, span.start + 170 * 48);
        for (at, what) in [(68, "allocCount"), (56, "specials"), (32, "nelems"), (16, "elemsize")] {
            let damaged = |record: &mut [u8]| {
                fresh(record);
                record[at] ^= 8;
            };
            assert!(matches!(span_with(8, 170, true, damaged), Record::BadSlots { .. }), "{what}");
        }
    }
}
