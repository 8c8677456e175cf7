//! Pointer bits in `heapArena.bitmap`: releases up to Go 1.21, and 1.22 with GOEXPERIMENT=noallocheaders, describe every word of the heap there.
//!
//! Since 1.20 bit `w % 64` of `bitmap[w / 64]` is word `w` of the arena; before, a byte describes four words, with their pointer bits in
//! its low half and "scan" bits in the other. The allocator writes bits up to the end of the slot, so pointer bits alone say everything
//! (`heapBitsSetType`, mbitmap.go).

use super::masks::or_bits;
use super::span::{Span, SpanDetails};
use super::{ARENA_SIZE, PAGE_SIZE};
use crate::address::{Addr, WORD};
use crate::image::Image;
use crate::incident::Incidents;
use crate::model::layout::{ArenaBits, RuntimeLayout};

/// Bits are read in blocks of so many words.
const WORDS_PER_BLOCK: u64 = 8192;

/// The bitmaps of a heap's arenas.
#[derive(Clone, Debug)]
pub(super) struct Arenas {
    pub(super) bits: ArenaBits,
    /// Start of an arena and address of its bitmap, ascending.
    bitmaps: Vec<(u64, u64)>,
}

impl Arenas {
    /// Finds the bitmaps of all arenas that `spans` lie in; `None` if the release keeps masks elsewhere.
    pub(super) fn read(
        image: &dyn Image,
        layout: &RuntimeLayout,
        spans: &[Span],
        details: &[SpanDetails],
        incidents: &mut Incidents,
    ) -> Option<Self> {
        let (bits, at) = (layout.arena_bits?, layout.heap_arena.bitmap?);
        let mut bitmaps: Vec<(u64, u64)> = Vec::new();
        // One table of arenas on the supported machines: `arenaL1Bits` is 0.
        let table = layout.mheap.arenas.and_then(|at| image.read_u64(Addr(layout.globals.mheap).add(at)).ok());
        for (span, d) in spans.iter().zip(details).filter(|(span, _)| !span.noscan()) {
            let (first, last) = (span.start / ARENA_SIZE, (span.start + d.npages * PAGE_SIZE - 1) / ARENA_SIZE);
            for arena in first..=last {
                let start = arena * ARENA_SIZE;
                if bitmaps.last().is_some_and(|known| known.0 >= start) {
                    continue;
                }
                let index = start.wrapping_sub(layout.constants.arena_base_offset) / ARENA_SIZE;
                let entry = table.map(|table| Addr(table).add(index * WORD));
                let arena = entry.and_then(|entry| image.read_u64(entry).ok()).filter(|&arena| arena != 0);
                if arena.is_none() {
                    incidents.count("heap.arena_unread");
                }
                // Without it its masks cannot be read, which is counted again where it matters.
                bitmaps.push((start, arena.map_or(0, |arena| arena.wrapping_add(at))));
            }
        }
        Some(Self { bits, bitmaps })
    }

    /// Bytes of bits for `bytes` bytes of heap.
    pub(super) fn bits_of(&self, bytes: u64) -> u64 {
        match self.bits {
            ArenaBits::One => bytes / 64,
            ArenaBits::Two => bytes / 32,
        }
    }

    /// Address of the byte whose lowest bit is the word at `addr`, which starts a page; 0 if it is unknown.
    pub(super) fn byte_of(&self, addr: u64) -> u64 {
        let start = addr - addr % ARENA_SIZE;
        match self.bitmaps.binary_search_by_key(&start, |known| known.0) {
            Ok(i) if self.bitmaps[i].1 != 0 => self.bitmaps[i].1.wrapping_add(self.bits_of(addr - start)),
            _ => 0,
        }
    }

    /// Writes the pointer bits of `nwords` words from `addr` on to `out`, which holds zeros. False if they cannot all be read.
    pub(super) fn read_bits(&self, image: &dyn Image, addr: u64, nwords: u64, out: &mut [u64]) -> bool {
        let mut buffer = [0; (WORDS_PER_BLOCK / 4) as usize];
        let mut done = 0;
        while done < nwords {
            let at = addr + done * WORD;
            // Blocks end where the bits of an arena may, and start at a byte.
            let page = at - at % (WORDS_PER_BLOCK * WORD);
            let skip = (at - page) / WORD;
            let n = (nwords - done).min(WORDS_PER_BLOCK - skip);
            let (from, to) = (skip / 8 * 8, (skip + n).next_multiple_of(8));
            let bytes = &mut buffer[..self.bits_of((to - from) * WORD) as usize];
            let byte = self.byte_of(page);
            if byte == 0 || image.read(Addr(byte).add(self.bits_of(from * WORD)), bytes).is_err() {
                return false;
            }
            for i in (0..n).step_by(64) {
                let k = (n - i).min(64);
                let bits = window(self.bits, bytes, skip - from + i);
                or_bits(out, done + i, if k == 64 { bits } else { bits & ((1 << k) - 1) });
            }
            done += n;
        }
        true
    }
}

/// 64 mask bits from bit `first` of a bitmap on; bits beyond its end are 0.
#[must_use]
pub(super) fn window(encoding: ArenaBits, bitmap: &[u8], first: u64) -> u64 {
    match encoding {
        ArenaBits::One => super::masks::bits_at(bitmap, first, 64),
        ArenaBits::Two => nibbles_at(bitmap, first),
    }
}

/// The low halves of 16 bytes, or 17 where `first` is inside one.
fn nibbles_at(bitmap: &[u8], first: u64) -> u64 {
    let byte = usize::try_from(first / 4).unwrap_or(usize::MAX);
    let from = bitmap.get(byte..).unwrap_or_default();
    let mut bytes = [0; 24];
    let len = from.len().min(17);
    bytes[..len].copy_from_slice(&from[..len]);
    let part = |i: usize| pack(u64::from_le_bytes(*bytes[i..].first_chunk().expect("8 bytes")));
    let all = part(0) | part(8) << 32 | part(16) << 64;
    (all >> (first % 4)) as u64
}

/// The low half of each byte, one after the other: 32 bits.
fn pack(word: u64) -> u128 {
    let mut x = word & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    u128::from((x | x >> 16) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::modules::testing::Bytes;

    /// Bit `w` of a bitmap as the runtime's sources say.
    fn is_pointer(encoding: ArenaBits, bitmap: &[u8], w: u64) -> bool {
        match encoding {
            ArenaBits::One => bitmap.get(w as usize / 8).is_some_and(|b| b >> (w % 8) & 1 != 0),
            ArenaBits::Two => bitmap.get(w as usize / 4).is_some_and(|b| b >> (w % 4) & 1 != 0),
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn windows_agree_with_single_bits() {
        let bitmap = noise(70);
        for encoding in [ArenaBits::One, ArenaBits::Two] {
            for first in 0..600 {
                let expected = (0..64).fold(0, |w, i| w | u64::from(is_pointer(encoding, &bitmap, first + i)) << i);
                assert_eq!(window(encoding, &bitmap, first), expected, "{encoding:?} {first}");
            }
        }
    }

    /// Bits on both sides of the border of two arenas whose bitmaps lie apart.
    #[test]
    fn bits_of_objects_across_arenas() {
        for encoding in [ArenaBits::One, ArenaBits::Two] {
            let words = ARENA_SIZE / WORD;
            let per_byte = if encoding == ArenaBits::One { 8 } else { 4 };
            let bytes = (words / per_byte) as usize;
            let (low, high) = (noise(bytes), noise(bytes / 2));
            let image = Bytes::new(vec![(0x100_0000, low.clone()), (0x800_0000, high.clone())]);
            let first = 0xc0_0000_0000;
            let bitmaps = vec![(first, 0x100_0000), (first + ARENA_SIZE, 0x800_0000)];
            let arenas = Arenas { bits: encoding, bitmaps };
            for (from, n) in [(words - 100, 300), (words - 8200, 9000), (5, 1), (8191, 2), (words + 3, 100)] {
                let mut out = vec![0; (n as usize).div_ceil(64)];
                assert!(arenas.read_bits(&image, first + from * WORD, n, &mut out));
                for i in 0..n {
                    let w = from + i;
                    let expected =
                        if w < words { is_pointer(encoding, &low, w) } else { is_pointer(encoding, &high, w - words) };
                    assert_eq!(out[i as usize / 64] >> (i % 64) & 1 != 0, expected, "{encoding:?} {from} {i}");
                }
            }
            assert!(!arenas.read_bits(&image, first + 2 * ARENA_SIZE, 1, &mut [0]), "no such arena");
            assert!(!arenas.read_bits(&image, first + ARENA_SIZE + ARENA_SIZE / 2, 1, &mut [0]), "not in the image");
        }
    }
}
