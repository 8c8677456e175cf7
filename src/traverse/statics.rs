//! Data and bss as uncounted regions: which of their words are taken.
//!
//! Named variables take their extents from the start. An unnamed static (`..stmp_`, behind `var p = &T{}`) is taken by the
//! first typed pointer into it, in canonical order; its words then join the walk like a root's, under that pointer's path.
//! What is left in the end belongs to `data segment[i]` or `bss segment[i]`.

use super::pool::Pool;
use crate::address::Addr;
use crate::image::Image;
use crate::incident::Incidents;
use crate::roots::{Roots, Segment};

/// Words that all claims together may copy, as a multiple of the words that the regions have: only forged pointers, each taking one
/// more word of the same array, need more.
const MAX_COPIES: u64 = 8;

/// The regions.
#[derive(Debug)]
pub struct Statics {
    segments: Vec<Segment>,
    /// Words that may still be copied.
    budget: u64,
}

impl Statics {
    /// Regions as the roots left them.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let words: u64 = roots.segments.iter().map(|s| s.mask.len() as u64 * 64).sum();
        Self { segments: roots.segments.clone(), budget: words.saturating_mul(MAX_COPIES) }
    }

    /// Takes the free pointer words of `[addr, addr + bytes)` and appends the whole value to `pool`, with just these as pointers.
    /// False, and nothing appended, if there are none.
    pub fn claim(&mut self, image: &dyn Image, addr: u64, bytes: u64, pool: &mut Pool) -> bool {
        let Some(segment) = self.segments.iter_mut().find(|s| s.range.contains(Addr(addr))) else { return false };
        let offset = addr - segment.range.start.0;
        if !offset.is_multiple_of(8) {
            return false;
        }
        let words = bytes.min(segment.range.len - offset) / 8;
        // Many values point to one large array: asking must not cost its length, word by word.
        if !segment.any_free(offset / 8, words) || words > self.budget {
            return false;
        }
        self.budget -= words;
        let (first, words) = ((offset / 8) as usize, words as usize);
        // One word at a time: such values are small, and a word that the core lacks must not cost its neighbours.
        for w in first..first + words {
            let word = image.read_u64(segment.range.start.add(w as u64 * 8)).unwrap_or(0);
            pool.push(word, segment.take(w));
        }
        true
    }

    /// All pointer words that nobody took, by segment label.
    pub fn leftover(&mut self, image: &dyn Image, incidents: &mut Incidents) -> Vec<(String, Vec<u64>)> {
        let mut all = Vec::new();
        for segment in &mut self.segments {
            let mut values = Vec::new();
            for w in segment.take_all() {
                match image.read_u64(segment.range.start.add(w * 8)) {
                    Ok(0) => {}
                    Ok(word) => values.push(word),
                    Err(_) => incidents.count("roots.unreadable_segment_word"),
                }
            }
            if !values.is_empty() {
                let kind = if segment.is_bss { "bss" } else { "data" };
                all.push((format!("{kind} segment[{}]", segment.module), values));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::AddrRange;
    use crate::model::modules::testing::Bytes;

    fn statics(words: u64) -> (Statics, Bytes) {
        let memory: Vec<u8> = (0..words).flat_map(|w| (w + 1000).to_le_bytes()).collect();
        // A length that no image has: only the mask says how much there is.
        let range = AddrRange { start: Addr(0x1000), len: u64::MAX / 2 };
        let mask = vec![!0; (words / 64) as usize];
        let segment = Segment { range, claimed: vec![0; mask.len()], mask, module: 0, is_bss: true };
        let roots = Roots { segments: vec![segment], ..Roots::default() };
        (Statics::new(&roots), Bytes::new(vec![(0x1000, memory)]))
    }

    #[test]
    fn every_word_goes_to_one_claim_or_is_left_over() {
        let (mut statics, image) = statics(192);
        let (mut pool, mut incidents) = (Pool::default(), Incidents::default());
        assert!(statics.claim(&image, 0x1000 + 8 * 60, 8 * 70, &mut pool));
        assert!(!statics.claim(&image, 0x1000 + 8 * 64, 8 * 66, &mut pool), "nothing is free there");
        assert!(!statics.claim(&image, 0x1004, 8, &mut pool), "not a word");
        assert!(!statics.claim(&image, 0x1000 + 8 * 192, 8, &mut pool), "beyond the mask");
        assert_eq!(pool.words(), 70);
        let left = statics.leftover(&image, &mut incidents);
        let expected: Vec<u64> = (0..60).chain(130..192).map(|w| w + 1000).collect();
        assert_eq!(left, [("bss segment[0]".to_string(), expected)]);
        assert!(incidents.is_empty() && statics.leftover(&image, &mut incidents).is_empty());
    }

    #[test]
    fn claims_that_copy_too_much_are_refused() {
        let (mut statics, image) = statics(640);
        let mut pool = Pool::default();
        assert!(!statics.claim(&image, 0x1000, u64::MAX, &mut pool), "longer than the whole budget");
        // Each asks for one word more of the same array.
        for n in 1..=640 {
            statics.claim(&image, 0x1000, n * 8, &mut pool);
        }
        assert!(pool.words() as u64 <= MAX_COPIES * 640, "{} words copied", pool.words());
        let left: usize = statics.leftover(&image, &mut Incidents::default()).iter().map(|(_, w)| w.len()).sum();
        assert!(left > 0, "what was refused is left over");
    }
}
