//! Expands GC programs (`runtime.runGCProg`, mbitmap.go): of data and bss where their masks cannot be read, and of large stack objects
//! up to Go 1.23.
//!
//! ```text
//! 00000000: stop
//! 0nnnnnnn: emit n bits copied from the next (n+7)/8 bytes
//! 10000000 n c: repeat the previous n bits c times; n, c are varints
//! 1nnnnnnn c: repeat the previous n bits c times; c is a varint
//! ```

use super::mask::Mask;
use crate::address::Addr;
use crate::image::Image;

/// Reads a program byte by byte, a block at a time.
struct Program<'a> {
    image: &'a dyn Image,
    next: Addr,
    block: [u8; 256],
    used: usize,
    filled: usize,
}

impl Program<'_> {
    fn byte(&mut self) -> Option<u8> {
        if self.used == self.filled {
            // Near the end of a mapping shorter blocks are there.
            let len = [self.block.len(), 16, 1]
                .into_iter()
                .find(|&len| self.image.read(self.next, &mut self.block[..len]).is_ok())?;
            self.next = self.next.add(len as u64);
            (self.used, self.filled) = (0, len);
        }
        self.used += 1;
        Some(self.block[self.used - 1])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// The mask that the program at `prog` describes, `nbits` long; bits that the program does not reach are 0.
///
/// `None`: the program cannot be read, or would emit more than `nbits` bits.
pub(in crate::model) fn expand(image: &dyn Image, prog: Addr, nbits: u64) -> Option<Mask> {
    let mut program = Program { image, next: prog, block: [0; 256], used: 0, filled: 0 };
    let mut bits = Mask { nbits: 0, words: Vec::new() };
    loop {
        let inst = program.byte()?;
        let n = u64::from(inst & 0x7f);
        if inst & 0x80 == 0 {
            if n == 0 {
                break;
            }
            for i in 0..n.div_ceil(8) {
                let byte = program.byte()?;
                bits.append(u64::from(byte), (n - i * 8).min(8));
            }
        } else {
            let n = if n == 0 { program.varint()? } else { n };
            let c = program.varint()?;
            let total = n.checked_mul(c)?;
            if n == 0 || n > bits.nbits || bits.nbits.checked_add(total)? > nbits {
                return None;
            }
            let mut left = total;
            while left > 0 {
                // The source always lies n bits back, so a repeat may copy what it has just written.
                let k = left.min(n).min(64);
                let word = bits.bits(bits.nbits - n, k);
                bits.append(word, k);
                left -= k;
            }
        }
        if bits.nbits > nbits {
            return None;
        }
    }
    bits.words.resize(nbits.div_ceil(64) as usize, 0);
    bits.nbits = nbits;
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bytes;
    use super::*;

    fn run(program: &[u8], nbits: u64) -> Option<String> {
        let image = Bytes::new(vec![(0x1000, program.to_vec())]);
        let mask = expand(&image, Addr(0x1000), nbits)?;
        Some((0..nbits).map(|i| if mask.get(i) { '1' } else { '0' }).collect())
    }

    #[test]
    fn literals_and_repeats() {
        assert_eq!(run(&[3, 0b101, 0], 5).as_deref(), Some("10100"));
        assert_eq!(run(&[2, 0b01, 0x82, 3, 0], 8).as_deref(), Some("10101010"));
        assert_eq!(run(&[2, 0b01, 0x80, 2, 3, 0], 8).as_deref(), Some("10101010"));
        assert_eq!(run(&[9, 0xff, 1, 0x81, 2, 0], 12).as_deref(), Some("111111111110"));
    }

    #[test]
    fn damage_ends_it() {
        assert_eq!(run(&[1, 1], 8), None);
        assert_eq!(run(&[1, 1, 0x81, 0xff, 0xff, 0xff, 0x7f, 0], 8), None);
        assert_eq!(run(&[1, 1, 0x85, 1, 0], 8), None);
        assert_eq!(run(&[1, 1, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], 8), None);
    }
}
