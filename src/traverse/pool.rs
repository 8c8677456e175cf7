//! Root words: copies of what stacks, data and bss hold.

/// Values copied out of stacks, data and bss, with their pointer bits.
#[derive(Default, Debug)]
pub struct Pool {
    /// The words, little-endian as in the image.
    pub bytes: Vec<u8>,
    /// Bit `i % 64` of word `i / 64`: word `i` of the pool is a root word.
    pub mask: Vec<u64>,
}

impl Pool {
    /// Number of words.
    #[must_use]
    pub fn words(&self) -> usize {
        self.bytes.len() / 8
    }

    /// Appends a word; `pointer` sets its bit.
    pub fn push(&mut self, word: u64, pointer: bool) {
        let i = self.words();
        if i.is_multiple_of(64) {
            self.mask.push(0);
        }
        self.mask[i / 64] |= u64::from(pointer) << (i % 64);
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }

    /// Whether word `word` is a root word.
    pub(super) fn is_pointer(&self, word: usize) -> bool {
        self.mask.get(word / 64).is_some_and(|m| m >> (word % 64) & 1 != 0)
    }
}
