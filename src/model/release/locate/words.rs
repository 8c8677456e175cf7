//! Goes through memory in pieces, and around the pages that the image lacks: one page that a core does not hold hides nothing but
//! itself.

use crate::address::{Addr, AddrRange, WORD};
use crate::image::{Image, Scratch};

/// Bytes that are looked at in one piece.
pub(super) const PIECE: u64 = 1 << 20;
/// What an image has or lacks as a whole.
const PAGE: u64 = 4096;

/// Calls `f` with the bytes of `range` that can be read, piece by piece in address order.
///
/// * `beyond`: bytes of the following piece that `f` would like to see, too, if `range` has them and they can be read.
/// * `f`: gets the address of the first byte, how many bytes are this piece's own, and those with what follows.
pub(super) fn each_piece(image: &dyn Image, range: AddrRange, beyond: u64, f: &mut dyn FnMut(Addr, usize, &[u8])) {
    let mut scratch = Scratch::default();
    let mut visit = |piece: AddrRange| {
        let rest = range.len - (piece.start.0.wrapping_sub(range.start.0));
        for len in [piece.len.saturating_add(beyond).min(rest), piece.len] {
            let loaded = image.load(&[AddrRange { len, ..piece }], &mut scratch);
            let bytes = loaded.get(0);
            if !bytes.is_empty() {
                f(piece.start, bytes.len().min(piece.len as usize), bytes);
                return true;
            }
        }
        false
    };
    for piece in parts(range, PIECE) {
        if !visit(piece) {
            for page in parts(piece, PAGE) {
                visit(page);
            }
        }
    }
}

/// Cuts a range at multiples of `size` from its start.
fn parts(range: AddrRange, size: u64) -> impl Iterator<Item = AddrRange> {
    (0..range.len.div_ceil(size)).map(move |i| {
        let from = i * size;
        AddrRange { start: range.start.add(from), len: (range.len - from).min(size) }
    })
}

/// Calls `f` with each aligned word of `range` that is not 0, and the two behind it (0 where there is nothing).
pub(super) fn each_word(image: &dyn Image, range: AddrRange, f: &mut dyn FnMut(u64, [u64; 3])) {
    each_piece(image, range, 2 * WORD, &mut |start, own, bytes| {
        let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
        for at in (0..own).step_by(WORD as usize) {
            let first = word(at);
            if first != 0 {
                f(start.0.wrapping_add(at as u64), [first, word(at + 8), word(at + 16)]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::modules::testing::Bytes;

    /// Two pieces and a half of words that say where they are; `gaps` are pages that are not there.
    fn words(gaps: &[u64]) -> Vec<(u64, [u64; 3])> {
        let (start, len) = (0x10_0000, PIECE * 5 / 2);
        let page = |at: u64| (at..at + PAGE).step_by(8).flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
        let mut ranges: Vec<(u64, Vec<u8>)> = Vec::new();
        for at in (start..start + len).step_by(PAGE as usize).filter(|at| !gaps.contains(at)) {
            match ranges.last_mut() {
                Some((first, bytes)) if *first + bytes.len() as u64 == at => bytes.extend(page(at)),
                _ => ranges.push((at, page(at))),
            }
        }
        let mut found = Vec::new();
        let range = AddrRange { start: Addr(start), len };
        each_word(&Bytes::new(ranges), range, &mut |at, words| found.push((at, words)));
        found
    }

    #[test]
    fn a_missing_page_hides_itself_only() {
        // In the middle of a piece, at the start of one, and before the start of one.
        for gaps in [&[][..], &[0x14_2000], &[0x20_0000], &[0x1f_f000], &[0x14_2000, 0x14_3000, 0x20_0000, 0x37_f000]] {
            let present = |at: u64| (0x10_0000..0x38_0000).contains(&at) && !gaps.contains(&(at & !(PAGE - 1)));
            let expected: Vec<u64> = (0x10_0000..0x38_0000).step_by(8).filter(|at| present(*at)).collect();
            let found = words(gaps);
            assert!(found.iter().map(|(at, _)| at).eq(&expected), "{gaps:x?}: {} of {}", found.len(), expected.len());
            for (at, [first, second, third]) in found {
                let or_zero = |at: u64| if present(at) { at } else { 0 };
                assert_eq!(first, at, "{gaps:x?}");
                // Of a page before a gap nothing is told of what lies behind the gap's start.
                assert_eq!([second, third], [or_zero(at + 8), or_zero(at + 16)], "{gaps:x?} at {at:x}");
            }
        }
    }
}
