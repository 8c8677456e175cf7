//! Variables in parts: the compiler gives parts of a variable that it moves to the frame entries of their own, such as `s.ptr` and
//! `s.len` beside the string `s`, with the part's type. The whole variable's own location often knows less than those entries.
//!
//! No name in Go's source has a dot or a bracket, and the compiler's own names (`.dict`) start with one.

use super::{LocalVariable, Location, Piece};
use crate::model::types::{Kind, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// Components of a part's name; structs that are taken apart nest a few levels.
const MAX_PATH: usize = 16;

/// A variable as found, before parts are joined.
pub(super) struct Found<'s> {
    pub(super) variable: LocalVariable,
    pub(super) decl_line: u64,
    /// `.ptr` of `s.ptr`; empty for whole variables.
    pub(super) part: &'s [u8],
}

/// Splits `s.ptr` into `s` and `.ptr`.
pub(super) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let at = name.iter().skip(1).position(|b| matches!(b, b'.' | b'[')).map_or(name.len(), |at| at + 1);
    name.split_at(at)
}

/// Adds the places of parts to the whole variables where these have none, and puts all in order: by depth, parameters first, by line.
/// A part follows its whole, unless the whole lacks the word that makes sense of the others (a length, a type).
pub(super) fn join(mut found: Vec<Found<'_>>, types: &TypeTable) -> Vec<LocalVariable> {
    // 0: whole; 1: part; 2: whole that is of less use than its parts.
    let mut rank = vec![0u8; found.len()];
    let mut wholes = FxHashMap::default();
    let key = |v: &LocalVariable| (v.depth, v.name.clone(), v.function.clone());
    if found.iter().any(|f| !f.part.is_empty()) {
        for (i, whole) in found.iter().enumerate().filter(|(_, f)| f.part.is_empty()) {
            wholes.entry(key(&whole.variable)).or_insert(i);
        }
    }
    for i in 0..found.len() {
        if found[i].part.is_empty() {
            continue;
        }
        rank[i] = 1;
        let part = &found[i].variable;
        let Some(&whole) = wholes.get(&key(part)) else { continue };
        rank[whole] = 2;
        let line = found[whole].decl_line;
        let is_param = found[whole].variable.is_param;
        if let [Piece { offset: 0, size, at: at @ Location::Cfa(_) }] = part.pieces[..]
            && let Some(offset) = place(types, found[whole].variable.ty, found[i].part)
        {
            add_piece(&mut found[whole].variable.pieces, Piece { offset, size, at });
        }
        found[i].decl_line = line;
        found[i].variable.is_param = is_param;
    }
    for (found, rank) in found.iter().zip(&mut rank) {
        if *rank == 2 && makes_sense(&found.variable, types) {
            *rank = 0;
        }
    }
    let mut order: Vec<(u8, Found<'_>)> = rank.into_iter().zip(found).collect();
    // Stable: scopes at one depth keep the order of their DIEs, and so do parameters, which Go writes in order.
    order.sort_by_key(|(rank, Found { variable, decl_line, .. })| {
        (variable.depth, !variable.is_param, if variable.is_param { 0 } else { *decl_line }, *rank)
    });
    order.into_iter().map(|(_, found)| found.variable).collect()
}

/// Offset of the part `path` inside a value of type `ty`.
fn place(types: &TypeTable, mut ty: TypeId, path: &[u8]) -> Option<u64> {
    let mut rest = str::from_utf8(path).ok()?;
    let mut offset = 0u64;
    for _ in 0..MAX_PATH {
        if rest.is_empty() {
            return Some(offset);
        }
        let end = rest[1..].find(['.', '[']).map_or(rest.len(), |at| at + 1);
        let (step, after) = rest.split_at(end);
        rest = after;
        let word = match (&types.get(ty).kind, step) {
            (Kind::Struct(_), _) => {
                let field = types.field(ty, step.strip_prefix('.')?)?;
                ty = field.ty;
                offset = offset.checked_add(field.offset)?;
                continue;
            }
            (Kind::Array(elem, _), "[0]") => {
                ty = *elem;
                continue;
            }
            (Kind::String | Kind::Slice(_), ".ptr") | (Kind::Eface | Kind::Iface, ".type" | ".itab") => 0,
            (Kind::String | Kind::Slice(_), ".len") | (Kind::Eface | Kind::Iface, ".data") => 8,
            (Kind::Slice(_), ".cap") => 16,
            _ => return None,
        };
        return if rest.is_empty() { offset.checked_add(word) } else { None };
    }
    None
}

/// Adds `piece` unless its bytes have a place in the frame already; a register that holds them gives way, for only frames are kept
/// across calls.
fn add_piece(pieces: &mut Vec<Piece>, piece: Piece) {
    let overlaps = |p: &Piece| p.offset < piece.offset + piece.size && piece.offset < p.offset + p.size;
    let replaceable = |p: &Piece| {
        (p.offset, p.size) == (piece.offset, piece.size) && matches!(p.at, Location::Gone | Location::Register(_))
    };
    if piece.offset.checked_add(piece.size).is_none() || pieces.iter().any(|p| overlaps(p) && !replaceable(p)) {
        return;
    }
    pieces.retain(|p| !overlaps(p));
    pieces.push(piece);
    pieces.sort_by_key(|p| p.offset);
}

/// Whether the value can be understood from the pieces that have a place: a string or slice needs its length, an interface its type.
fn makes_sense(variable: &LocalVariable, types: &TypeTable) -> bool {
    let needed = match types.get(variable.ty).kind {
        Kind::String | Kind::Slice(_) => 8,
        Kind::Eface | Kind::Iface => 0,
        _ => return true,
    };
    variable.pieces.iter().any(|p| p.at != Location::Gone && p.offset <= needed && needed - p.offset < p.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::{Field, Type};

    #[test]
    fn names_split_at_the_first_dot() {
        assert_eq!(split(b"s"), (&b"s"[..], &b""[..]));
        assert_eq!(split(b"s.ptr"), (&b"s"[..], &b".ptr"[..]));
        assert_eq!(split(b"x.f[0].len"), (&b"x"[..], &b".f[0].len"[..]));
        assert_eq!(split(b".dict"), (&b".dict"[..], &b""[..]));
        assert_eq!(split(b"~r0"), (&b"~r0"[..], &b""[..]));
        assert_eq!(split(b""), (&b""[..], &b""[..]));
    }

    #[test]
    fn parts_complete_their_whole() {
        let mut types = TypeTable::default();
        let mut push = |size, kind| types.push(Type { name: "t".into(), size, kind, rtype_offset: 0 });
        let int = push(8, Kind::Scalar);
        let pointer = push(8, Kind::Pointer(int));
        let slice = push(24, Kind::Slice(int));
        let array = push(24, Kind::Array(slice, 1));
        let nested = push(32, Kind::Struct(vec![Field { name: "f".into(), offset: 8, ty: array }]));
        assert_eq!(place(&types, nested, b".f[0].cap"), Some(24));
        assert_eq!(place(&types, nested, b".f[1].cap"), None);
        assert_eq!(place(&types, slice, b".len.len"), None);
        assert_eq!(place(&types, slice, b"."), None);

        let variable = |name: &str, ty, pieces: &[Piece]| LocalVariable {
            function: "main.f".into(),
            package: "main".into(),
            name: name.into(),
            ty,
            is_param: false,
            dict_index: None,
            depth: 0,
            pieces: pieces.into(),
        };
        let piece = |offset, at| Piece { offset, size: 8, at };
        let found = |ty, part, pieces: &[Piece]| Found { variable: variable("s", ty, pieces), decl_line: 3, part };
        let kinds = |list: &[LocalVariable]| list.iter().map(|v| v.ty).collect::<Vec<_>>();
        let (ptr, len) = (Location::Cfa(-8), Location::Cfa(-16));
        // The length makes the whole the better description ...
        let joined = join(
            vec![
                found(pointer, b".ptr", &[piece(0, ptr)]),
                found(int, b".len", &[piece(0, len)]),
                found(slice, b"", &[piece(0, Location::Register(0)), piece(8, Location::Gone)]),
            ],
            &types,
        );
        assert_eq!(kinds(&joined), [slice, pointer, int]);
        assert_eq!(joined[0].pieces, [piece(0, ptr), piece(8, len)]);
        // ... without it the typed pointer is.
        let joined = join(vec![found(slice, b"", &[]), found(pointer, b".ptr", &[piece(0, ptr)])], &types);
        assert_eq!(kinds(&joined), [pointer, slice]);
        // What is in the frame already stays.
        let own = [piece(0, Location::Cfa(-40)), piece(8, len)];
        let joined = join(vec![found(slice, b"", &own), found(pointer, b".ptr", &[piece(0, ptr)])], &types);
        assert_eq!(joined[0].pieces, own);
    }
}
