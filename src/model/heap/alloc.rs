//! Which slots of a span are allocated, and which of those are dead.
//!
//! A slot is *allocated* if it lies below `freeindex` or its bit in `allocBits` is set, in every sweep state but one: a span that
//! is being swept (`sweepgen == sg - 1`) is halfway between two sets of bits, so there any of `freeindex`, `allocBits`, `gcmarkBits`
//! and the inline marks counts. This is what the runtime's own counters count.
//!
//! An allocated slot is *dead* if the last mark has ended without marking it and its span waits for the sweeper (phase off, `sweepgen`
//! `sg - 2`, or `sg + 1` if the span was cached before the sweep began). Marks are `gcmarkBits`, or the inline marks of spans that have
//! them: those move to `gcmarkBits` only at sweep. While marking, all spans are swept and new objects are born marked: none is dead.

use super::PAGE_SIZE;
use super::geometry::Bitmaps;
use super::span::{Span, SpanDetails};
use crate::address::{Addr, AddrRange};
use crate::image::{Image, Scratch};
use crate::incident::Incidents;

/// Offset of `marks` in `spanInlineMarkBits`: `scans [63]uint8`, `owned`, `marks [63]uint8`, `class`.
const INLINE_MARKS_OFFSET: u64 = 64;

/// Spans per unit of work: some hundred kilobytes of bitmaps at most.
pub(super) const SPANS_PER_UNIT: usize = 4096;

/// What the heap's sweeper is doing.
#[derive(Copy, Clone, Debug)]
pub(super) struct Sweep {
    /// `mheap_.sweepgen`.
    pub(super) sweepgen: u32,
    /// `gcphase == _GCoff`.
    pub(super) phase_off: bool,
}

/// Where a span stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Swept,
    Sweeping,
    Unswept,
}

impl Sweep {
    fn state(self, span_sweepgen: u32) -> State {
        // 0 swept; 3 swept, then cached; 1 cached before the sweep began; -2 to sweep; -1 the sweeper is there.
        match span_sweepgen.wrapping_sub(self.sweepgen).cast_signed() {
            -1 => State::Sweeping,
            -2 | 1 if self.phase_off => State::Unswept,
            _ => State::Swept,
        }
    }
}

/// Bits of one unit's spans, `nelems` rounded up to whole words each.
#[derive(Default)]
pub(super) struct UnitBits {
    /// Allocated slots.
    pub(super) words: Vec<u64>,
    /// Dead slots; empty if no span of the unit has any.
    pub(super) dead: Vec<u64>,
    pub(super) incidents: Incidents,
}

/// Which bitmaps of a span were asked for: positions among the loaded ranges.
struct Asked {
    state: State,
    alloc: usize,
    /// `gcmarkBits`, then inline marks; both empty ranges where not needed.
    marks: Option<usize>,
    inline: bool,
}

/// Reads the allocation bits of `spans`.
pub(super) fn read_unit(
    image: &dyn Image,
    spans: &[Span],
    details: &[SpanDetails],
    sweep: Sweep,
    bitmaps: Bitmaps,
) -> UnitBits {
    let mut ranges: Vec<AddrRange> = Vec::with_capacity(spans.len());
    let mut asked = Vec::with_capacity(spans.len());
    for (span, d) in spans.iter().zip(details) {
        let len = u64::from(span.nelems).div_ceil(8);
        let state = sweep.state(d.sweepgen);
        // Nothing above freeindex: no bits to read.
        let full = d.free_index >= span.nelems && state != State::Sweeping;
        let alloc = ranges.len();
        ranges.push(AddrRange { start: Addr(d.alloc_bits), len: if full { 0 } else { len } });
        let inline = bitmaps.inline_marks(span.elem_size()) != 0;
        let marks = (state != State::Swept).then(|| {
            let at = span.start + d.npages * PAGE_SIZE - bitmaps.inline_marks(span.elem_size()) + INLINE_MARKS_OFFSET;
            ranges.push(AddrRange { start: Addr(d.gcmark_bits), len });
            ranges.push(AddrRange { start: Addr(at), len: if inline { len } else { 0 } });
            alloc + 1
        });
        asked.push(Asked { state, alloc, marks, inline });
    }
    let mut scratch = Scratch::default();
    let bytes = image.load(&ranges, &mut scratch);
    let get = |i: usize| Some(bytes.get(i)).filter(|found| found.len() as u64 == ranges[i].len);

    let mut out = UnitBits::default();
    for ((span, d), asked) in spans.iter().zip(details).zip(asked) {
        let first = out.words.len();
        out.words.resize(first + usize::from(span.nelems).div_ceil(64), 0);
        let words = &mut out.words[first..];
        set_below(words, d.free_index);
        let mut complete = or_if_read(words, get(asked.alloc));
        if asked.state == State::Sweeping
            && let Some(marks) = asked.marks
        {
            complete &= or_if_read(words, get(marks)) & or_if_read(words, get(marks + 1));
        }
        if !complete {
            // Without the bits every slot may be allocated; the walk visits only what something points to.
            out.incidents.count("span.alloc_bits_unread");
            set_below(words, span.nelems);
        }
        clear_from(words, span.nelems);
        let count: u32 = words.iter().map(|w| w.count_ones()).sum();
        if count != u32::from(d.alloc_count) {
            out.incidents.count("span.alloc_count_mismatch");
        }
        if asked.state == State::Unswept
            && let Some(marks) = asked.marks
        {
            let Some(marked) = get(if asked.inline { marks + 1 } else { marks }) else {
                out.incidents.count("span.mark_bits_unread");
                continue;
            };
            out.dead.resize(out.words.len(), 0);
            let dead = &mut out.dead[first..];
            or_bytes(dead, marked);
            for (dead, allocated) in dead.iter_mut().zip(&out.words[first..]) {
                *dead = allocated & !*dead;
            }
        }
    }
    if !out.dead.is_empty() {
        out.dead.resize(out.words.len(), 0);
    }
    out
}

fn or_if_read(words: &mut [u64], bytes: Option<&[u8]>) -> bool {
    if let Some(bytes) = bytes {
        or_bytes(words, bytes);
    }
    bytes.is_some()
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
    if n.is_multiple_of(64) {
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
    fn states_by_sweepgen() {
        let off = Sweep { sweepgen: 10, phase_off: true };
        let states = [8, 9, 10, 11, 13].map(|sg| off.state(sg));
        assert_eq!(states, [State::Unswept, State::Sweeping, State::Swept, State::Unswept, State::Swept]);
        let mark = Sweep { sweepgen: 10, phase_off: false };
        assert_eq!(mark.state(8), State::Swept);
        let wrapped = Sweep { sweepgen: 0, phase_off: true };
        assert_eq!(wrapped.state(u32::MAX), State::Sweeping);
    }

    #[test]
    fn bytes_become_words() {
        let mut words = [0u64; 2];
        or_bytes(&mut words, &[1, 0, 0, 0, 0, 0, 0, 0x80, 2]);
        assert_eq!(words, [1 | 1 << 63, 2]);
    }
}
