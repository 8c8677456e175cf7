//! Location expressions, as far as Go's compiler uses them: frame slots, registers, pieces, and a slot that holds a heap address.

use super::sections::Slice;
use super::{Location, Piece};
use crate::model::types::{Kind, TypeId, TypeTable};
use gimli::{Encoding, Expression, Operation};

/// Pieces of one variable; Go decomposes at most a few words.
const MAX_PIECES: usize = 64;

/// Larger values are never taken apart (`ssa.MaxStruct` fields of a word each, with room).
const MAX_TAKEN_APART: u64 = 128;

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

/// Corrects the place of a variable that an optimised function's location list gives without pieces.
///
/// The compiler takes strings, slices, interfaces and small structs apart and writes pieces only if more than one part has a place
/// (`ssa.(*debugState).buildLocationList`): a lone `DW_OP_fbreg` is some one word of the variable, and it does not say which. Only
/// its pointer matters here; if the variable has just one, that is it, else nothing is known.
pub(super) fn narrow(pieces: &mut Vec<Piece>, types: &TypeTable, ty: TypeId) {
    let [Piece { size, at: Location::Cfa(_) | Location::Register(_), .. }] = pieces[..] else { return };
    if !(9..=MAX_TAKEN_APART).contains(&size) || size != types.get(ty).size {
        return;
    }
    let mut pointers = Vec::new();
    pointer_words(types, ty, 0, &mut pointers);
    match pointers[..] {
        [offset] => pieces[0] = Piece { offset, size: 8, at: pieces[0].at },
        _ => pieces.clear(),
    }
}

/// Offsets of the words of a value that may point into the heap: at most two are looked for. An interface's first word points to its
/// type, which is no heap object.
fn pointer_words(types: &TypeTable, ty: TypeId, at: u64, found: &mut Vec<u64>) {
    if found.len() > 1 || types.get(ty).size == 0 {
        return;
    }
    match &types.get(ty).kind {
        Kind::Scalar | Kind::Opaque => {}
        Kind::Eface | Kind::Iface => found.push(at + 8),
        Kind::Array(elem, len) => {
            // Elements are alike: two decide.
            for i in 0..(*len).min(2) {
                pointer_words(types, *elem, at + i * types.get(*elem).size, found);
            }
        }
        // `TypeTable::check_from` bounds depth and, by the size, the number of non-empty parts.
        Kind::Struct(fields) => {
            for field in fields.iter().take(MAX_PIECES) {
                pointer_words(types, field.ty, at + field.offset, found);
            }
        }
        _ => found.push(at),
    }
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
    use crate::model::types::{Field, Type};
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

    #[test]
    fn a_lone_part_is_the_pointer() {
        let mut types = TypeTable::default();
        let mut push = |size, kind| types.push(Type { name: "t".into(), size, kind, rtype_offset: 0 });
        let field = |offset, ty| Field { name: "f".into(), offset, ty };
        let int = push(8, Kind::Scalar);
        let string = push(16, Kind::String);
        let eface = push(16, Kind::Eface);
        let one = push(24, Kind::Struct(vec![field(0, int), field(8, string)]));
        let two = push(32, Kind::Struct(vec![field(0, string), field(16, eface)]));
        let narrowed = |ty, at| {
            let mut pieces = vec![Piece { offset: 0, size: types.get(ty).size, at }];
            narrow(&mut pieces, &types, ty);
            pieces
        };
        let at = Location::Cfa(-40);
        assert_eq!(narrowed(string, at), [Piece { offset: 0, size: 8, at }]);
        assert_eq!(narrowed(eface, at), [Piece { offset: 8, size: 8, at }]);
        assert_eq!(narrowed(one, at), [Piece { offset: 8, size: 8, at }]);
        assert_eq!(narrowed(two, at), []);
        // An escaped variable lies whole behind its address.
        assert_eq!(narrowed(two, Location::CfaDeref(8)).len(), 1);
        assert_eq!(narrowed(int, at), [Piece { offset: 0, size: 8, at }]);
    }
}
