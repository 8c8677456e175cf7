//! A pointer bitmap of consecutive words.

/// Bit `i` tells whether word `i` is a pointer to the collector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Number of bits.
    pub nbits: u64,
    /// Bit `i % 64` of element `i / 64`; bits at and beyond `nbits` are 0.
    pub words: Vec<u64>,
}

impl Mask {
    /// Bit `i`; false beyond the end.
    #[inline]
    #[must_use]
    pub fn get(&self, i: u64) -> bool {
        self.words.get((i / 64) as usize).is_some_and(|word| word >> (i % 64) & 1 != 0)
    }

    /// Number of set bits.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Positions of the set bits, ascending.
    pub fn ones(&self) -> impl Iterator<Item = u64> + '_ {
        (0u64..).zip(&self.words).flat_map(|(i, &word)| {
            let rest = std::iter::successors(Some(word), |w| Some(w & w.wrapping_sub(1)));
            rest.take_while(|&w| w != 0).map(move |w| i * 64 + u64::from(w.trailing_zeros()))
        })
    }

    /// The mask of `nbits` bits in little-endian `bytes`; `None` if there are too few.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], nbits: u64) -> Option<Self> {
        let bytes = bytes.get(..usize::try_from(nbits.div_ceil(8)).ok()?)?;
        let mut words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut eight = [0; 8];
                eight[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(eight)
            })
            .collect();
        if !nbits.is_multiple_of(64)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (nbits % 64)) - 1;
        }
        Some(Self { nbits, words })
    }

    /// Bits `first..first + n` (`n <= 64`) as the low bits of a word.
    #[must_use]
    pub fn bits(&self, first: u64, n: u64) -> u64 {
        let (i, shift) = ((first / 64) as usize, first % 64);
        let word = |i: usize| self.words.get(i).copied().unwrap_or(0);
        let high = if shift == 0 { 0 } else { word(i + 1) << (64 - shift) };
        let bits = word(i) >> shift | high;
        if n >= 64 { bits } else { bits & ((1 << n) - 1) }
    }

    /// Appends the low `n` (`<= 64`) bits of `bits`.
    pub(super) fn append(&mut self, bits: u64, n: u64) {
        let bits = if n >= 64 { bits } else { bits & ((1 << n) - 1) };
        let shift = self.nbits % 64;
        if shift == 0 {
            if n > 0 {
                self.words.push(bits);
            }
        } else {
            *self.words.last_mut().expect("a word was begun") |= bits << shift;
            if shift + n > 64 {
                self.words.push(bits >> (64 - shift));
            }
        }
        self.nbits += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_bits_come_back() {
        let mut mask = Mask::default();
        let mut expected = Vec::new();
        let mut seed = 1u64;
        for n in [1, 7, 64, 63, 2, 60, 64, 8] {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            mask.append(seed, n);
            expected.extend((0..n).map(|i| seed >> i & 1 != 0));
        }
        let found: Vec<bool> = (0..mask.nbits).map(|i| mask.get(i)).collect();
        assert_eq!(found, expected);
        assert_eq!(mask.ones().count() as u64, mask.count());
        assert!(mask.ones().all(|i| mask.get(i)));
        assert_eq!(mask.bits(3, 5), (0..5).fold(0, |w, i| w | u64::from(mask.get(3 + i)) << i));
    }

    #[test]
    fn padding_is_cleared() {
        let mask = Mask::from_bytes(&[0xff, 0xff], 9).unwrap();
        assert_eq!(mask.count(), 9);
        assert_eq!(Mask::from_bytes(&[0xff], 9), None);
    }
}
