//! Location expressions, as far as Go's compiler uses them: frame slots, registers, pieces, and a slot that holds a heap address.

use super::sections::Slice;
use super::{Location, Piece};
use gimli::{Encoding, Expression, Operation};

/// Pieces of one variable; Go decomposes at most a few words.
const MAX_PIECES: usize = 64;

/// Where the `size` bytes of a variable lie according to the expression `bytes`. Empty if nowhere.
pub(super) fn evaluate(bytes: Slice<'_>, encoding: Encoding, size: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = Location::Gone;
    let mut constant = None;
    let mut offset = 0u64;
    let mut ops = Expression(bytes).operations(encoding);
    loop {
        match ops.next() {
            Ok(Some(Operation::Piece { size_in_bits, .. })) => {
                let bytes = size_in_bits / 8;
                pieces.push(Piece { offset, size: bytes, at });
                at = Location::Gone;
                let Some(next) = offset.checked_add(bytes) else { return Vec::new() };
                offset = next;
                if pieces.len() > MAX_PIECES || offset > size {
                    return Vec::new();
                }
            }
            Ok(Some(op)) => match step(&op, at, &mut constant) {
                Some(next) => at = next,
                // An operation that Go does not emit: the place is unknown.
                None => return Vec::new(),
            },
            Ok(None) => break,
            Err(_) => return Vec::new(),
        }
    }
    if pieces.is_empty() && at != Location::Gone {
        pieces.push(Piece { offset: 0, size, at });
    }
    if pieces.iter().all(|piece| piece.at == Location::Gone) {
        pieces.clear();
    }
    pieces
}

/// One operation on the place found so far. The frame base of Go's functions is always the CFA.
fn step(op: &Operation<Slice<'_>>, at: Location, constant: &mut Option<i64>) -> Option<Location> {
    match (op, at) {
        (Operation::FrameOffset { offset }, _) => Some(Location::Cfa(*offset)),
        (Operation::CallFrameCFA, _) => Some(Location::Cfa(0)),
        (Operation::Register { register }, _) => Some(Location::Register(register.0)),
        (Operation::PlusConstant { value }, Location::Cfa(offset)) => {
            Some(Location::Cfa(offset.wrapping_add_unsigned(*value)))
        }
        (Operation::SignedConstant { value }, Location::Cfa(_)) => {
            *constant = Some(*value);
            Some(at)
        }
        (Operation::UnsignedConstant { value }, Location::Cfa(_)) => {
            *constant = i64::try_from(*value).ok();
            Some(at)
        }
        (Operation::Plus, Location::Cfa(offset)) => Some(Location::Cfa(offset.wrapping_add(constant.take()?))),
        (Operation::Deref { size: 8, space: false, .. }, Location::Cfa(offset)) => Some(Location::CfaDeref(offset)),
        (Operation::Nop, _) => Some(at),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::{EndianSlice, Format, LittleEndian};

    fn run(bytes: &[u8], size: u64) -> Vec<Piece> {
        let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 5 };
        evaluate(EndianSlice::new(bytes, LittleEndian), encoding, size)
    }

    #[test]
    fn expressions_that_go_writes() {
        let whole = |at| vec![Piece { offset: 0, size: 16, at }];
        assert_eq!(run(&[0x9c], 16), whole(Location::Cfa(0)));
        assert_eq!(run(&[0x91, 0x70], 16), whole(Location::Cfa(-16)));
        assert_eq!(run(&[0x91, 0x70, 0x06], 16), whole(Location::CfaDeref(-16)));
        assert_eq!(run(&[0x53], 16), whole(Location::Register(3)));
        assert_eq!(run(&[0x9c, 0x11, 0x78, 0x22], 16), whole(Location::Cfa(-8)));
        assert_eq!(run(&[0x9c, 0x23, 0x08], 16), whole(Location::Cfa(8)));
        assert_eq!(run(&[], 16), []);
        // The first word has no place, the second is in a frame slot.
        assert_eq!(
            run(&[0x93, 0x08, 0x91, 0x10, 0x93, 0x08], 16),
            [Piece { offset: 0, size: 8, at: Location::Gone }, Piece { offset: 8, size: 8, at: Location::Cfa(16) }]
        );
    }

    #[test]
    fn expressions_that_go_does_not_write() {
        for bytes in [
            &[0x93, 0x08, 0x93, 0x08][..],
            &[0x91, 0x70, 0x93, 0xff, 0xff, 0xff, 0x7f],
            &[0x30, 0x9f],
            &[0x77, 0x08],
            &[0x2f, 0xfd, 0xff],
            &[0x91],
            &[0xff; 20],
        ] {
            assert_eq!(run(bytes, 16), [], "{bytes:x?}");
        }
    }
}
