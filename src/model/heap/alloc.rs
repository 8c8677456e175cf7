//! Which slots of a span are allocated.
//!
//! A slot is allocated if it lies below `freeindex` or its bit in `allocBits` is set, in every sweep state but one: a span that is
//! being swept (`sweepgen == sg - 1`) is halfway between two sets of bits, so there any of `freeindex`, `allocBits`, `gcmarkBits`
//! and the inline marks counts. Spans that wait for the sweeper keep their dead slots allocated: the runtime's own counters do so
//! too, and no precise root reaches them.

use super::span::{Span, SpanDetails};
use super::{PAGE_SIZE, SpanId};
use crate::address::{Addr, AddrRange};
use crate::image::{Image, Scratch};
use crate::incident::Incidents;

/// Offset of `marks` in `spanInlineMarkBits`: `scans [63]uint8`, `owned`, `marks [63]uint8`, `class`.
const INLINE_MARKS_OFFSET: u64 = 64;

/// Spans per unit of work: some hundred kilobytes of bitmaps at most.
pub(super) const SPANS_PER_UNIT: usize = 4096;

/// Bits of one unit's spans, `nelems` rounded up to whole words each.
pub(super) struct UnitBits {
    pub(super) words: Vec<u64>,
    pub(super) incidents: Incidents,
}

/// Whether the sweeper is at work on the span.
fn being_swept(details: &SpanDetails, heap_sweepgen: u32) -> bool {
    details.sweepgen == heap_sweepgen.wrapping_sub(1)
}

/// Reads the allocation bits of `spans`.
pub(super) fn read_unit(
    image: &dyn Image,
    spans: &[Span],
    details: &[SpanDetails],
    heap_sweepgen: u32,
    inline_mark_bytes: u64,
    min_size_for_malloc_header: u64,
) -> UnitBits {
    let mut ranges: Vec<AddrRange> = Vec::with_capacity(spans.len());
    for (span, d) in spans.iter().zip(details) {
        let len = u64::from(span.nelems).div_ceil(8);
        let sweeping = being_swept(d, heap_sweepgen);
        // Nothing above freeindex: no bits to read.
        let full = d.free_index >= span.nelems && !sweeping;
        ranges.push(AddrRange { start: Addr(d.alloc_bits), len: if full { 0 } else { len } });
        if sweeping {
            ranges.push(AddrRange { start: Addr(d.gcmark_bits), len });
            let has = inline_mark_bytes != 0
                && super::geometry::has_inline_marks(span.elem_size(), min_size_for_malloc_header);
            let marks = span.start + d.npages * PAGE_SIZE - inline_mark_bytes + INLINE_MARKS_OFFSET;
            ranges.push(AddrRange { start: Addr(marks), len: if has { len } else { 0 } });
        }
    }
    let mut scratch = Scratch::default();
    let bytes = image.load(&ranges, &mut scratch);

    let mut out = UnitBits { words: Vec::new(), incidents: Incidents::default() };
    let mut next = 0;
    for (span, d) in spans.iter().zip(details) {
        let first = out.words.len();
        let nwords = usize::from(span.nelems).div_ceil(64);
        out.words.resize(first + nwords, 0);
        let words = &mut out.words[first..];
        set_below(words, d.free_index);
        let sources = if being_swept(d, heap_sweepgen) { 3 } else { 1 };
        for source in next..next + sources {
            let found = bytes.get(source);
            if found.len() as u64 == ranges[source].len {
                or_bytes(words, found);
            } else {
                // Without the bits every slot may be allocated; the walk visits only what something points to.
                out.incidents.count("span.alloc_bits_unread");
                set_below(words, span.nelems);
            }
        }
        next += sources;
        clear_from(words, span.nelems);
        let count: u32 = words.iter().map(|w| w.count_ones()).sum();
        if count != u32::from(d.alloc_count) {
            out.incidents.count("span.alloc_count_mismatch");
        }
    }
    out
}

/// Sets bits `0..n`.
fn set_below(words: &mut [u64], n: u16) {
    for (i, word) in words.iter_mut().enumerate() {
        let first = i * 64;
        match usize::from(n).saturating_sub(first) {
            0 => break,
            k if k >= 64 => *word = !0,
            k => *word |= (1 << k) - 1,
        }
    }
}

/// Clears bits `n..`: bits at and beyond `nelems` are undefined in the runtime's own bitmaps.
fn clear_from(words: &mut [u64], n: u16) {
    if n % 64 == 0 {
        return;
    }
    if let Some(word) = words.get_mut(usize::from(n) / 64) {
        *word &= (1 << (n % 64)) - 1;
    }
}

/// Bit `i % 8` of byte `i / 8` into bit `i % 64` of word `i / 64`.
fn or_bytes(words: &mut [u64], bytes: &[u8]) {
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        *word |= u64::from_le_bytes(eight);
    }
}

/// First word of each span's bits, given that spans follow each other.
pub(super) fn number_words(spans: &[Span], details: &mut [SpanDetails]) -> usize {
    let mut next = 0;
    for (span, d) in spans.iter().zip(details) {
        d.alloc_word = next;
        next += usize::from(span.nelems).div_ceil(64);
    }
    next
}

/// Objects and bytes of a span by its allocation bits.
pub(super) fn allocated(heap: &super::Heap, id: SpanId) -> u64 {
    heap.alloc_bits(id).iter().map(|w| u64::from(w.count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_below_and_from() {
        let mut words = [0u64; 3];
        set_below(&mut words, 70);
        assert_eq!(words, [!0, 0x3f, 0]);
        set_below(&mut words, 192);
        clear_from(&mut words, 65);
        assert_eq!(words, [!0, 1, !0]);
        clear_from(&mut words, 192);
        assert_eq!(words, [!0, 1, !0]);
    }

    #[test]
    fn bytes_become_words() {
        let mut words = [0u64; 2];
        or_bytes(&mut words, &[1, 0, 0, 0, 0, 0, 0, 0x80, 2]);
        assert_eq!(words, [1 | 1 << 63, 2]);
    }
}
