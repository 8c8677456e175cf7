//! A release's table: the structs of its runtime as text, made from the DWARF of a program that its toolchain built
//! (`tests.rs`), read back into the same [`TypeTable`] that DWARF would have given.
//!
//! ```text
//! const runtime._KindSpecialFinalizer 2
//! type runtime.waitq 16
//!  first 0 *runtime.sudog
//!  last 8 *runtime.sudog
//! @arm64
//! type runtime.mheap 93656
//! gone runtime.something
//! ```
//!
//! A field has a name, an offset and a type. Structs that no line describes are known by name behind a pointer, by size (`?24`) as
//! a value; numbers are `uint8` to `uint64`, whatever their own names are. A section that starts with `@` holds what is different on an
//! architecture or with a `GOEXPERIMENT` (`@X:greenteagc`), and counts if the executable has that.

use crate::incident::Incidents;
use crate::model::types::{Field, Kind, Type, TypeId, TypeTable};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Pointers to pointers, arrays of arrays: real tables have three in a row.
const MAX_DEPTH: u32 = 16;

/// A struct as the table has it.
#[derive(Default, Debug)]
struct Struct<'t> {
    size: u64,
    fields: Vec<(&'t str, u64, &'t str)>,
}

/// What a table says about one architecture and set of experiments.
#[derive(Default, Debug)]
pub(super) struct Table {
    /// The structs, and what they refer to.
    pub(super) types: TypeTable,
    /// By full name.
    pub(super) constants: FxHashMap<String, i64>,
}

impl Table {
    /// Reads a table.
    ///
    /// * `sections`: the names behind `@` that apply.
    ///
    /// # Errors
    /// The line that makes no sense.
    pub(super) fn parse(text: &str, applies: impl Fn(&str) -> bool) -> Result<Self, String> {
        let mut structs: BTreeMap<&str, Struct<'_>> = BTreeMap::new();
        let mut constants = FxHashMap::default();
        let mut current: Option<&str> = None;
        let mut skipped = false;
        for (number, line) in text.lines().enumerate() {
            let wrong = || format!("line {}: {line:?}", number + 1);
            if let Some(section) = line.strip_prefix('@') {
                skipped = !applies(section);
                current = None;
                continue;
            }
            if skipped || line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.trim_start().splitn(3, ' ').collect();
            match (line.starts_with(' '), &words[..]) {
                (true, [name, offset, ty]) => {
                    let offset = offset.parse().map_err(|_| wrong())?;
                    let of = current.and_then(|name| structs.get_mut(name)).ok_or_else(wrong)?;
                    of.fields.push((name, offset, ty));
                }
                (false, ["type", name, size]) => {
                    let size = size.parse().map_err(|_| wrong())?;
                    structs.insert(name, Struct { size, fields: Vec::new() });
                    current = Some(name);
                }
                (false, ["const", name, value]) => {
                    constants.insert((*name).to_owned(), value.parse().map_err(|_| wrong())?);
                }
                (false, ["gone", name]) => {
                    structs.remove(name);
                    constants.remove(*name);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(Self { types: build(&structs), constants })
    }
}

fn build(structs: &BTreeMap<&str, Struct<'_>>) -> TypeTable {
    let mut builder = Builder { structs, types: TypeTable::default(), ids: FxHashMap::default() };
    let first = TypeId(0);
    for &name in structs.keys() {
        let id = builder.types.push_forward();
        builder.ids.insert(name.to_owned(), id);
    }
    // What code asks for by these names, used by a field or not.
    for name in ["unsafe.Pointer", "uintptr", "string", "func()", "interface {}", IFACE] {
        builder.resolve(name, 0);
    }
    for (&name, described) in structs {
        let fields = described.fields.iter().map(|(field, offset, ty)| Field {
            name: (*field).into(),
            offset: *offset,
            ty: builder.resolve(ty, 0),
        });
        let kind = Kind::Struct(fields.collect());
        let id = builder.ids[name];
        builder.types.set(id, Type { name: name.into(), size: described.size, kind, rtype_offset: 0 });
    }
    let mut types = builder.types;
    // A wrong table is as harmless as damaged DWARF.
    types.check_from(first, &mut Incidents::default());
    types
}

/// The name of all interface types with methods.
pub(super) const IFACE: &str = "interface { ... }";

struct Builder<'t> {
    structs: &'t BTreeMap<&'t str, Struct<'t>>,
    types: TypeTable,
    ids: FxHashMap<String, TypeId>,
}

impl Builder<'_> {
    fn resolve(&mut self, name: &str, depth: u32) -> TypeId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let (kind, size) = if depth > MAX_DEPTH { (Kind::Opaque, 0) } else { self.read(name, depth) };
        let id = self.types.push(Type { name: name.into(), size, kind, rtype_offset: 0 });
        self.ids.insert(name.to_owned(), id);
        id
    }

    fn read(&mut self, name: &str, depth: u32) -> (Kind, u64) {
        if let Some(elem) = name.strip_prefix('*') {
            return (Kind::Pointer(self.resolve(elem, depth + 1)), 8);
        }
        if let Some((len, elem)) = name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let id = self.resolve(elem, depth + 1);
            let len: Option<u64> = len.parse().ok();
            let elem = self.structs.get(elem).map_or(self.types.get(id).size, |s| s.size);
            return match len.and_then(|len| Some((len, len.checked_mul(elem)?))) {
                Some((len, size)) => (Kind::Array(id, len), size),
                None => (Kind::Slice(id), 24),
            };
        }
        match name {
            "uint8" => (Kind::Scalar, 1),
            "uint16" => (Kind::Scalar, 2),
            "uint32" => (Kind::Scalar, 4),
            "uint64" | "uintptr" => (Kind::Scalar, 8),
            "unsafe.Pointer" => (Kind::UnsafePointer, 8),
            "func()" => (Kind::Func, 8),
            "string" => (Kind::String, 16),
            "interface {}" => (Kind::Eface, 16),
            IFACE => (Kind::Iface, 16),
            _ => (Kind::Opaque, name.strip_prefix('?').and_then(|size| size.parse().ok()).unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# text\nconst runtime.k -3\ntype a.list 32\n next 0 *a.list\n pairs 8 [2]a.pair\ntype a.pair 8\n \
                        v 0 uint64\ntype a.rest 56\n s 0 []a.list\n o 24 ?16\n p 40 *b.unknown\n q 48 *a.gone\ntype a.gone 8\n\
                        @X:big\ntype a.pair 16\n v 8 string\ngone a.gone\n";

    #[test]
    fn structs_and_what_they_refer_to() {
        let table = Table::parse(TEXT, |_| false).expect("a table");
        let types = &table.types;
        let find = |name: &str| types.find(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(table.constants["runtime.k"], -3);
        let (list, pair, rest) = (find("a.list"), find("a.pair"), find("a.rest"));
        assert_eq!(types.field_path(list, "next").map(|f| f.0), Some(0));
        let (offset, pairs) = types.field_path(list, "pairs").expect("pairs");
        assert_eq!((offset, &types.get(pairs).kind, types.get(pairs).size), (8, &Kind::Array(pair, 2), 16));
        assert_eq!(types.get(find("*a.list")).kind, Kind::Pointer(list));
        assert_eq!(types.get(find("[]a.list")).kind, Kind::Slice(list));
        let (_, opaque) = types.field_path(rest, "o").expect("o");
        assert_eq!((types.get(opaque).size, &types.get(opaque).kind), (16, &Kind::Opaque));
        assert_eq!(types.get(find("b.unknown")).kind, Kind::Opaque);
    }

    #[test]
    fn sections_replace_and_remove() {
        let table = Table::parse(TEXT, |section| section == "X:big").expect("a table");
        let types = &table.types;
        let pair = types.find("a.pair").expect("a.pair");
        // A string does not fit there: the field goes, nothing else.
        assert_eq!(types.get(pair).size, 16);
        assert!(matches!(&types.get(pair).kind, Kind::Struct(fields) if fields.is_empty()));
        let gone = types.find("a.gone").expect("still referred to");
        assert_eq!(types.get(gone).kind, Kind::Opaque);
    }

    #[test]
    fn nonsense_is_an_error_and_forged_sizes_are_cut() {
        for text in [" field 0 uint8", "type a", "type a b", "const a b", "type a 8\n x y uint8", "what is this"] {
            assert!(Table::parse(text, |_| true).is_err(), "{text}");
        }
        let deep = format!(
            "type a 8\n x 0 {}uint8\n y 0 [99999999999999999999]a\n z 0 [18446744073709551615]a",
            "*".repeat(9999)
        );
        let forged = Table::parse(&deep, |_| true).expect("parses");
        assert!(forged.types.len() < 100);
        let endless = Table::parse("type a 8\n b 0 b\ntype b 8\n a 0 a\n", |_| true).expect("parses");
        assert!(endless.types.find("a").is_some());
    }
}
