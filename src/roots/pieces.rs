//! Puts a variable's DWARF pieces back at their places in its type.
//!
//! The compiler splits strings, slices, interfaces and small structs into slots of one word, drops slots that are constant or
//! unused, and then writes the locations of the remaining ones side by side, without gaps (`writePendingEntry` in
//! cmd/compile/internal/ssa/debug.go). So `[ptr]` of a slice, or `[data]` of an interface, claims to be the whole or the first part.
//! What is missing is found by size, and by the collector's mask: a live word is a pointer word of the type.

use crate::model::dwarf::{Location, Piece};
use crate::model::stacks::Bits;
use crate::model::types::{Kind, TypeId, TypeTable};

/// Types and elements visited for one variable: hostile types overlap their fields or nest without end.
const MAX_VISITS: u32 = 1 << 16;
const MAX_NESTING: u32 = 16;
/// A variable with more leaves is never split.
const MAX_LEAVES: usize = 16;

/// A part that the compiler may give a slot of its own.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Leaf {
    offset: u64,
    size: u64,
    pointer: bool,
}

/// The words of a value of type `ty` that may be pointers, as far as the type tells.
pub(super) fn pointer_words(ty: TypeId, nwords: usize, types: &TypeTable) -> Bits {
    let mut bits = Bits::zeros(nwords);
    let mut visits = MAX_VISITS + 8 * nwords as u32;
    visit(ty, 0, nwords as u64 * 8, types, 0, &mut visits, &mut |leaf| {
        if leaf.pointer && leaf.offset.is_multiple_of(8) {
            bits.set((leaf.offset / 8) as usize, true);
        }
    });
    bits
}

/// Calls `each` for the leaves of `ty` at `offset`, in order, as long as they begin before `end`.
fn visit(
    ty: TypeId,
    offset: u64,
    end: u64,
    types: &TypeTable,
    nesting: u32,
    visits: &mut u32,
    each: &mut dyn FnMut(Leaf),
) {
    if *visits == 0 || nesting > MAX_NESTING || offset >= end {
        return;
    }
    *visits -= 1;
    let ty = types.get(ty);
    let mut leaf = |at: u64, size: u64, pointer: bool| each(Leaf { offset: offset.saturating_add(at), size, pointer });
    match &ty.kind {
        Kind::Scalar => leaf(0, ty.size, false),
        // Its inside is unknown: any word may be a pointer.
        Kind::Opaque => (0..ty.size.min(end - offset).div_ceil(8)).for_each(|i| leaf(i * 8, 8, true)),
        Kind::Pointer(_) | Kind::UnsafePointer | Kind::Func | Kind::Map { .. } | Kind::Chan { .. } => leaf(0, 8, true),
        Kind::String => [true, false].iter().zip([0, 8]).for_each(|(pointer, at)| leaf(at, 8, *pointer)),
        Kind::Slice(_) => [true, false, false].iter().zip([0, 8, 16]).for_each(|(pointer, at)| leaf(at, 8, *pointer)),
        Kind::Eface | Kind::Iface => [false, true].iter().zip([0, 8]).for_each(|(pointer, at)| leaf(at, 8, *pointer)),
        Kind::Array(elem, n) => {
            let size = types.get(*elem).size;
            if size == 0 {
                return;
            }
            let mut at = offset;
            for _ in 0..*n {
                if at >= end || *visits == 0 {
                    break;
                }
                visit(*elem, at, end, types, nesting + 1, visits, each);
                at = at.saturating_add(size);
            }
        }
        Kind::Struct(fields) => {
            for field in fields {
                visit(field.ty, offset.saturating_add(field.offset), end, types, nesting + 1, visits, each);
            }
        }
    }
}

/// Offsets of the slices inside a struct or array of at most `nwords` words.
pub(super) fn slices(ty: TypeId, nwords: usize, types: &TypeTable) -> Vec<u64> {
    let mut found = Vec::new();
    let mut todo = vec![(ty, 0u64)];
    let mut visits = MAX_VISITS;
    while let Some((ty, offset)) = todo.pop().filter(|_| visits > 0) {
        visits -= 1;
        if !offset.is_multiple_of(8) || offset / 8 >= nwords as u64 {
            continue;
        }
        match &types.get(ty).kind {
            Kind::Slice(_) => found.push(offset),
            Kind::Struct(fields) if todo.len() + fields.len() < MAX_VISITS as usize => {
                todo.extend(fields.iter().map(|f| (f.ty, offset.saturating_add(f.offset))));
            }
            // The compiler splits arrays of one element only.
            Kind::Array(elem, 1) => todo.push((*elem, offset)),
            _ => {}
        }
    }
    found
}

/// The pieces of a value of type `ty` at their true offsets.
///
/// * `is_live`: whether the frame word at a CFA offset is live.
/// * Pieces that fill the whole value are right as they are; so is one that lies in memory as a whole.
pub(super) fn place(pieces: &[Piece], ty: TypeId, types: &TypeTable, is_live: impl Fn(i64) -> bool) -> Vec<Piece> {
    let size = types.get(ty).size;
    let sum = pieces.iter().fold(0u64, |sum, p| sum.saturating_add(p.size));
    if pieces.is_empty() || sum >= size {
        return pieces.to_vec();
    }
    let mut leaves = Vec::new();
    visit(ty, 0, size, types, 0, &mut { MAX_VISITS }, &mut |leaf| {
        if leaves.len() <= MAX_LEAVES {
            leaves.push(leaf);
        }
    });
    if leaves.len() > MAX_LEAVES {
        return pieces.to_vec();
    }
    let live = |p: &Piece| matches!(p.at, Location::Cfa(offset) if is_live(offset));
    let mut placed = Vec::with_capacity(pieces.len());
    let mut next = 0;
    for (i, piece) in pieces.iter().enumerate() {
        // Leave enough leaves for the pieces behind.
        let last = leaves.len().saturating_sub(pieces.len() - 1 - i);
        let fits = |leaf: &Leaf| leaf.size == piece.size && (leaf.pointer || !live(piece));
        let Some(found) = (next..last).find(|l| fits(&leaves[*l])) else { return pieces.to_vec() };
        placed.push(Piece { offset: leaves[found].offset, ..*piece });
        next = found + 1;
    }
    placed
}

/// Splits the name of a slot that the compiler made for a part of a variable (`s.ptr`, `e.data`, `x.field.len`, `a[0]`):
/// the variable's name, and the part's path.
pub(super) fn split_name(name: &str) -> Option<(&str, &str)> {
    let at = name.find(['.', '['])?;
    (at > 0).then(|| name.split_at(at))
}

/// Where the part `path` of a value of type `ty` lies.
pub(super) fn part_offset(mut ty: TypeId, mut path: &str, types: &TypeTable) -> Option<u64> {
    let mut offset = 0u64;
    while !path.is_empty() {
        let part = path.strip_prefix('.').unwrap_or(path);
        let (head, rest) = match part.get(1..).and_then(|tail| tail.find(['.', '['])) {
            Some(end) => part.split_at(end + 1),
            None => (part, ""),
        };
        let (at, next) = match (&types.get(ty).kind, head) {
            (Kind::String | Kind::Slice(_), "ptr") => (0, None),
            (Kind::String | Kind::Slice(_), "len") => (8, None),
            (Kind::Slice(_), "cap") => (16, None),
            (Kind::Eface, "type") | (Kind::Iface, "itab") => (0, None),
            (Kind::Eface | Kind::Iface, "data") => (8, None),
            (Kind::Array(elem, 1), "[0]") => (0, Some(*elem)),
            (Kind::Struct(_), field) => types.field(ty, field).map(|f| (f.offset, Some(f.ty)))?,
            _ => return None,
        };
        offset = offset.checked_add(at)?;
        match next {
            Some(next) => ty = next,
            None if rest.is_empty() => break,
            None => return None,
        }
        path = rest;
    }
    Some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::{Field, Type};

    fn table() -> (TypeTable, TypeId, TypeId, TypeId, TypeId) {
        let mut types = TypeTable::default();
        let mut add = |name: &str, size, kind| types.push(Type { name: name.into(), size, kind, rtype_offset: 0 });
        let int = add("int", 8, Kind::Scalar);
        let pointer = add("*int", 8, Kind::Pointer(int));
        let slice = add("[]*int", 24, Kind::Slice(pointer));
        let eface = add("interface {}", 16, Kind::Eface);
        let field = |name: &str, offset, ty| Field { name: name.into(), offset, ty };
        let pair =
            add("pair", 40, Kind::Struct(vec![field("n", 0, int), field("s", 8, slice), field("p", 32, pointer)]));
        (types, slice, eface, pair, pointer)
    }

    fn piece(at: i64) -> Piece {
        Piece { offset: 0, size: 8, at: Location::Cfa(at) }
    }

    #[test]
    fn dropped_slots_are_found_by_the_mask() {
        let (types, slice, eface, pair, _) = table();
        let offsets = |pieces: &[Piece], ty, live: &[i64]| {
            place(pieces, ty, &types, |o| live.contains(&o)).iter().map(|p| p.offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(&[piece(-8)], slice, &[-8]), [0]);
        assert_eq!(offsets(&[piece(-8)], eface, &[-8]), [8]);
        assert_eq!(offsets(&[piece(-8), piece(-16)], slice, &[-8]), [0, 8]);
        assert_eq!(offsets(&[piece(-8), piece(-16)], pair, &[-8, -16]), [8, 32]);
        assert_eq!(offsets(&[piece(-8), piece(-16)], pair, &[-16]), [0, 8]);
        let whole = Piece { offset: 0, size: 24, at: Location::Cfa(-24) };
        assert_eq!(place(&[whole], slice, &types, |_| true), [whole]);
    }

    #[test]
    fn parts_by_name() {
        let (types, slice, eface, pair, _) = table();
        assert_eq!(split_name("s.ptr"), Some(("s", ".ptr")));
        assert_eq!(split_name("a[0].x"), Some(("a", "[0].x")));
        assert_eq!((split_name(".dict"), split_name("x")), (None, None));
        assert_eq!(part_offset(slice, ".cap", &types), Some(16));
        assert_eq!(part_offset(eface, ".data", &types), Some(8));
        assert_eq!(part_offset(pair, ".s.len", &types), Some(16));
        assert_eq!((part_offset(pair, ".x", &types), part_offset(slice, ".ptr.len", &types)), (None, None));
    }

    #[test]
    fn pointer_words_of_types() {
        let (mut types, _, _, pair, _) = table();
        assert_eq!(pointer_words(pair, 5, &types).ones().collect::<Vec<_>>(), [1, 4]);
        let array = types.push(Type { name: "[2]pair".into(), size: 80, kind: Kind::Array(pair, 2), rtype_offset: 0 });
        assert_eq!(pointer_words(array, 10, &types).ones().collect::<Vec<_>>(), [1, 4, 6, 9]);
        assert_eq!(pointer_words(array, 3, &types).ones().collect::<Vec<_>>(), [1], "clipped");
    }
}
