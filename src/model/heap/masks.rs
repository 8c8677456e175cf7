//! Which words of a heap slot the collector follows, as `(*mspan).typePointersOfUnchecked` (mbitmap.go) finds them.

use super::typemask::{TypeMask, TypeMasks};
use super::{Heap, PAGE_SIZE, SpanId, arenas};
use crate::address::{Addr, WORD};
use crate::image::Image;
use crate::model::layout::ArenaBits;

/// Bytes of the largest slot whose mask fits a word.
const MAX_IN_SPAN: u64 = 512;

/// Where the pointer mask of a span's objects is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MaskSource {
    /// No pointers.
    Noscan,
    /// Bit `k` at this address is word `k` of the *span*, or with [`Heap::masks_in_nibbles`] bit `k % 4` of byte `k / 4`; slots have at
    /// most 64 words ([`Heap::mask_window`]).
    InSpan {
        /// Address of the bitmap: at the end of the span, or in its arena.
        bitmap: u64,
    },
    /// The slot's first word is its type; the object starts one word later; the type's mask repeats to the slot's end.
    Header,
    /// Up to Go 1.21: in the arena's bitmap, object by object ([`Heap::object_mask_words`]); nothing says the object's type.
    Arena,
    /// One large object of this type, repeated to `limit`; 0 if it has none (yet): no pointers.
    Large {
        /// Address of the `abi.Type`.
        rtype: u64,
    },
}

/// Bits `first..first + n` (`n <= 64`) of a little-endian bitmap as the low bits of a word; bits past the end are 0.
#[inline]
#[must_use]
pub fn bits_at(bitmap: &[u8], first: u64, n: u64) -> u64 {
    let byte = (first / 8) as usize;
    let mut sixteen = [0; 16];
    let from = bitmap.get(byte..).unwrap_or_default();
    let len = from.len().min(9);
    sixteen[..len].copy_from_slice(&from[..len]);
    let bits = (u128::from_le_bytes(sixteen) >> (first % 8)) as u64;
    if n >= 64 { bits } else { bits & ((1 << n) - 1) }
}

/// The mask of slot `slot` of `elem_size` bytes from its span's own bitmap.
#[inline]
#[must_use]
pub fn in_span_mask(bitmap: &[u8], elem_size: u64, slot: u32) -> u64 {
    let words = elem_size / WORD;
    bits_at(bitmap, u64::from(slot) * words, words)
}

impl Heap {
    /// Where the masks of a span's objects are.
    #[inline]
    #[must_use]
    pub fn mask_source(&self, id: SpanId) -> MaskSource {
        let span = self.span(id);
        if span.noscan() {
            return MaskSource::Noscan;
        }
        if let Some(arenas) = &self.arenas {
            let small = !span.is_large() && span.elem_size() <= MAX_IN_SPAN;
            return if small { MaskSource::InSpan { bitmap: arenas.byte_of(span.start) } } else { MaskSource::Arena };
        }
        // Size class before size: class 67 has the size of a small large object, and headers.
        if span.is_large() {
            return MaskSource::Large { rtype: self.details(id).large_type };
        }
        let elem_size = span.elem_size();
        if elem_size > self.bitmaps.min_size_for_malloc_header {
            return MaskSource::Header;
        }
        let npages = self.details(id).npages;
        let bitmaps = self.bitmaps.total(false, elem_size, npages);
        MaskSource::InSpan { bitmap: span.start + npages * PAGE_SIZE - bitmaps }
    }

    /// Bytes of the bitmap of an [`MaskSource::InSpan`] span.
    #[must_use]
    pub fn in_span_bitmap_len(&self, id: SpanId) -> u64 {
        let bytes = self.details(id).npages * PAGE_SIZE;
        self.arenas.as_ref().map_or(bytes / 64, |arenas| arenas.bits_of(bytes))
    }

    /// Whether bitmaps of [`MaskSource::InSpan`] have four words to a byte (up to Go 1.19), in its low half; else eight.
    #[inline]
    #[must_use]
    pub fn masks_in_nibbles(&self) -> bool {
        self.arenas.as_ref().is_some_and(|arenas| arenas.bits == ArenaBits::Two)
    }

    /// 64 bits from word `first` of the span on of a bitmap of [`MaskSource::InSpan`], however it is written; bits beyond its end are 0.
    #[must_use]
    pub fn mask_window(&self, bitmap: &[u8], first: u64) -> u64 {
        arenas::window(self.arenas.as_ref().map_or(ArenaBits::One, |arenas| arenas.bits), bitmap, first)
    }

    /// Bytes in front of an object in its slot: 8 in spans with malloc headers, else 0.
    #[must_use]
    pub fn object_offset(&self, id: SpanId) -> u64 {
        if self.mask_source(id) == MaskSource::Header { self.malloc_header_size } else { 0 }
    }

    /// The runtime type of an object whose slot or span records it: the element type if it is an array or slice.
    #[must_use]
    pub fn recorded_type(&self, image: &dyn Image, id: SpanId, slot: u32) -> Option<u64> {
        let rtype = match self.mask_source(id) {
            MaskSource::Header => image.read_u64(Addr(self.slot_addr(id, slot))).ok()?,
            MaskSource::Large { rtype } => rtype,
            MaskSource::Noscan | MaskSource::InSpan { .. } | MaskSource::Arena => 0,
        };
        (rtype != 0).then_some(rtype)
    }

    /// Pointer bits of a whole slot: bit `i % 64` of `out[i / 64]` is word `i` from the slot's start. Header words are 0.
    ///
    /// `false`: the mask cannot be read (the caller counts that); `out` is then all 0.
    pub fn object_mask(&self, image: &dyn Image, types: &TypeMasks, id: SpanId, slot: u32, out: &mut Vec<u64>) -> bool {
        self.object_mask_words(image, types, id, slot, 0, self.span(id).elem_size() / WORD, out)
    }

    /// As [`Heap::object_mask`], for words `first..first + nwords` of the slot only, so that large objects can be scanned in runs:
    /// bit 0 of `out[0]` is word `first`. Words past the slot's end are 0.
    #[allow(clippy::too_many_arguments, reason = "one window of one slot, and where to read it from")]
    pub fn object_mask_words(
        &self,
        image: &dyn Image,
        types: &TypeMasks,
        id: SpanId,
        slot: u32,
        first: u64,
        nwords: u64,
        out: &mut Vec<u64>,
    ) -> bool {
        let span = self.span(id);
        let slot_words = span.elem_size() / WORD;
        let nwords = nwords.min(slot_words.saturating_sub(first));
        out.clear();
        out.resize(nwords.div_ceil(64) as usize, 0);
        if nwords == 0 {
            return true;
        }
        if let Some(arenas) = &self.arenas
            && !span.noscan()
        {
            return arenas.read_bits(image, self.slot_addr(id, slot) + first * WORD, nwords, out);
        }
        match self.mask_source(id) {
            MaskSource::Noscan | MaskSource::Arena | MaskSource::Large { rtype: 0 } => true,
            MaskSource::InSpan { bitmap } => {
                // At most 64 words a slot: 8 bytes of bits, one more where they start inside a byte.
                let first_bit = u64::from(slot) * slot_words + first;
                let mut bytes = [0; 9];
                let len = ((first_bit % 8 + nwords).div_ceil(8) as usize).min(bytes.len());
                if image.read(Addr(bitmap + first_bit / 8), &mut bytes[..len]).is_err() {
                    return false;
                }
                out[0] = bits_at(&bytes, first_bit % 8, nwords);
                true
            }
            MaskSource::Header => {
                let at = Addr(self.slot_addr(id, slot));
                let Ok(rtype) = image.read_u64(at) else { return false };
                let Some(mask) = types.get(image, rtype) else { return false };
                mask.tile(self.malloc_header_size / WORD, slot_words, first, nwords, out);
                true
            }
            MaskSource::Large { rtype } => {
                let Some(mask) = types.get(image, rtype) else { return false };
                // Zero beyond the requested size anyway: the runtime sees nil pointers there.
                let end = (span.limit - span.start).div_ceil(WORD).min(slot_words);
                mask.tile(0, end, first, nwords, out);
                true
            }
        }
    }
}

impl TypeMask {
    /// Repeats the mask over words `object..end` of a slot and writes the bits of words `first..first + nwords` to `out`, which
    /// holds zeros.
    pub fn tile(&self, object: u64, end: u64, first: u64, nwords: u64, out: &mut [u64]) {
        let stride = (self.size / WORD).max(1);
        let window_end = end.min(first.saturating_add(nwords));
        let from = first.max(object);
        if self.ptr_words == 0 || from >= window_end {
            return;
        }
        if stride == 1 {
            // Slices of pointers, the most frequent large objects.
            return fill(out, from - first, window_end - first);
        }
        let mut start = object + (from - object) / stride * stride;
        while start < window_end {
            // Words of this copy that fall into the window.
            let lo = from.max(start) - start;
            let hi = (window_end - start).min(self.ptr_words);
            let mut word = lo;
            while word < hi {
                let n = (hi - word).min(64);
                or_bits(out, start + word - first, bits_of(&self.bits, word, n));
                word += n;
            }
            start += stride;
        }
    }
}

/// Bits `first..first + n` of `words`, `n <= 64`.
fn bits_of(words: &[u64], first: u64, n: u64) -> u64 {
    let (i, shift) = ((first / 64) as usize, first % 64);
    let low = words.get(i).copied().unwrap_or(0) >> shift;
    let high = if shift == 0 { 0 } else { words.get(i + 1).copied().unwrap_or(0) << (64 - shift) };
    let bits = low | high;
    if n >= 64 { bits } else { bits & ((1 << n) - 1) }
}

/// Sets the bits of `bits` from position `at` on; what lies past the end is dropped.
pub(super) fn or_bits(out: &mut [u64], at: u64, bits: u64) {
    let (i, shift) = ((at / 64) as usize, at % 64);
    if let Some(word) = out.get_mut(i) {
        *word |= bits << shift;
    }
    if shift != 0
        && let Some(word) = out.get_mut(i + 1)
    {
        *word |= bits >> (64 - shift);
    }
}

/// Sets bits `from..to`.
pub fn fill(out: &mut [u64], from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let n = (64 - at % 64).min(to - at);
        let bits = if n == 64 { !0 } else { (1 << n) - 1 };
        or_bits(out, at, bits);
        at += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(size: u64, ptr_words: u64, bits: &[u64]) -> TypeMask {
        TypeMask { size, ptr_words, bits: bits.into() }
    }

    /// Word by word, as the rule says.
    fn slowly(m: &TypeMask, object: u64, end: u64, first: u64, nwords: u64) -> Vec<u64> {
        let mut out = vec![0u64; nwords.div_ceil(64) as usize];
        for w in first..first + nwords {
            if w < object || w >= end {
                continue;
            }
            let j = (w - object) % (m.size / 8);
            if j < m.ptr_words && m.bits[(j / 64) as usize] >> (j % 64) & 1 != 0 {
                out[((w - first) / 64) as usize] |= 1 << ((w - first) % 64);
            }
        }
        out
    }

    #[test]
    fn tiles_agree_with_the_rule() {
        let types = [
            mask(8, 1, &[1]),
            mask(24, 1, &[1]),
            mask(40, 5, &[0b10101]),
            mask(1600, 130, &[0x8000_0000_0000_0001, 0xdead_beef_0123_4567, 3]),
        ];
        for m in &types {
            for (object, end) in [(0, 64), (1, 128), (1, 1000), (0, 1)] {
                for (first, nwords) in [(0, 1000), (1, 63), (64, 200), (77, 1), (999, 1)] {
                    let mut out = vec![0; u64::div_ceil(nwords, 64) as usize];
                    m.tile(object, end, first, nwords, &mut out);
                    assert_eq!(out, slowly(m, object, end, first, nwords), "{m:?} {object}..{end} {first}+{nwords}");
                }
            }
        }
    }

    #[test]
    fn bits_of_a_bitmap() {
        let bytes = [0b1010_0101, 0xff, 0, 0, 0, 0, 0, 0, 0x01];
        assert_eq!(bits_at(&bytes, 0, 4), 5);
        assert_eq!(bits_at(&bytes, 6, 4), 0b1110);
        assert_eq!(bits_at(&bytes, 4, 64) >> 60, 1);
        assert_eq!(bits_at(&bytes, 100, 8), 0);
        assert_eq!(in_span_mask(&bytes, 24, 2), 0b110);
    }
}
