//! Fixed-length bit strings: stack maps, liveness of frame words.

/// `len` bits, bit `i` in bit `i % 64` of word `i / 64`; the bits past the end are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    len: usize,
    words: Vec<u64>,
}

impl Bits {
    /// `len` zero bits.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self { len, words: vec![0; len.div_ceil(64)] }
    }

    /// The first `len` bits of a little-endian byte string, as the compiler and the runtime write bitmaps; missing bytes are 0.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: usize) -> Self {
        let mut bits = Self::zeros(len);
        for (i, byte) in bytes.iter().take(len.div_ceil(8)).enumerate() {
            bits.words[i / 8] |= u64::from(*byte) << (i % 8 * 8);
        }
        if let Some(last) = bits.words.last_mut().filter(|_| !len.is_multiple_of(64)) {
            *last &= (1 << (len % 64)) - 1;
        }
        bits
    }

    /// Number of bits.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True if there are no bits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bit `i`; 0 past the end.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> bool {
        i < self.len && self.words[i / 64] >> (i % 64) & 1 != 0
    }

    /// Sets bit `i` to `value`; ignored past the end.
    pub fn set(&mut self, i: usize, value: bool) {
        if i < self.len {
            let bit = 1 << (i % 64);
            if value { self.words[i / 64] |= bit } else { self.words[i / 64] &= !bit }
        }
    }

    /// Indices of the bits that are 1, ascending.
    pub fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(w, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    w * 64 + bit
                })
            })
        })
    }

    /// Whether any bit is 1.
    #[must_use]
    pub fn any(&self) -> bool {
        self.words.iter().any(|w| *w != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_length_are_ignored() {
        let bits = Bits::from_bytes(&[0b1000_0001, 0xff, 0xff], 10);
        assert_eq!(bits.ones().collect::<Vec<_>>(), [0, 7, 8, 9]);
        assert_eq!(bits.len(), 10);
        assert!(!bits.get(10) && !bits.get(1 << 40));
    }

    #[test]
    fn missing_bytes_are_zero() {
        let mut bits = Bits::from_bytes(&[2], 200);
        assert_eq!(bits.ones().collect::<Vec<_>>(), [1]);
        bits.set(199, true);
        bits.set(1, false);
        bits.set(200, true);
        assert_eq!(bits.ones().collect::<Vec<_>>(), [199]);
        assert!(bits.any() && !Bits::zeros(70).any());
    }
}
