//! One [`TypeId`] space for two sources of types: DWARF and the runtime's own descriptors (`abi.Type`).
//!
//! Typedefs are resolved while the table is built: a named type is one entry with its full-path name. Types only name edges; the
//! collector's masks decide which words are pointers.

use crate::incident::Incidents;
use rustc_hash::FxHashMap;
use std::fmt;

/// How deep structs and arrays may nest by value; real programs stay below 20.
pub const MAX_NESTING: usize = 100;

/// Index into a [`TypeTable`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

impl fmt::Debug for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type-{}", self.0)
    }
}

/// What a value of a type is made of. Sizes and offsets in bytes.
///
/// Types come from hostile input (DWARF or descriptors), but every type in a finished table has passed
/// [`TypeTable::check_from`], which says what may be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers, bools, `uintptr`: no pointer that a type would name.
    Scalar,
    /// `*elem`.
    Pointer(TypeId),
    /// `unsafe.Pointer`.
    UnsafePointer,
    /// `{ptr, len}` to bytes.
    String,
    /// `{ptr, len, cap}` of `elem`.
    Slice(TypeId),
    /// `[len]elem`.
    Array(TypeId, u64),
    /// Fields in offset order; after [`TypeTable::check_from`] they lie inside the struct and do not overlap.
    Struct(Vec<Field>),
    /// `interface{}`: `{*abi.Type, data}`.
    Eface,
    /// Interface with methods: `{*itab, data}`.
    Iface,
    /// Pointer to a funcval whose word 0 is the code's PC.
    Func,
    /// Pointer to `header`, the DWARF struct `map<K,V>` (swiss) or `hash<K,V>` (classic); `None` if only the descriptor is known.
    Map {
        /// Key type.
        key: TypeId,
        /// Element type.
        elem: TypeId,
        /// The map header's struct.
        header: Option<TypeId>,
    },
    /// Pointer to `header`, the DWARF struct `hchan<T>`.
    Chan {
        /// Element type.
        elem: TypeId,
        /// The channel's struct.
        header: Option<TypeId>,
    },
    /// Known by name and size only (a declaration, a C type, a damaged DIE).
    Opaque,
}

/// A struct field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Field name; `_` for blank fields.
    pub name: Box<str>,
    /// Offset in bytes.
    pub offset: u64,
    /// Field type.
    pub ty: TypeId,
}

/// One type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// Full-path name, as DWARF spells it: `main.Node`, `*main.Node`, `map[string]*net/http.Request`.
    pub name: Box<str>,
    /// Size of a value in bytes.
    pub size: u64,
    /// Structure.
    pub kind: Kind,
    /// `DW_AT_go_runtime_type`: offset of the `abi.Type` descriptor from `moduledata.types`; 0 if none.
    pub rtype_offset: u64,
}

/// All types. Ids are dense; equal inputs give equal ids whatever the number of threads.
#[derive(Clone, Default, Debug)]
pub struct TypeTable {
    types: Vec<Type>,
    /// First type of each name.
    by_name: FxHashMap<Box<str>, TypeId>,
    /// `rtype_offset` to type, for the main module.
    by_rtype: FxHashMap<u64, TypeId>,
}

impl TypeTable {
    /// Makes room for `more` types.
    pub fn reserve(&mut self, more: usize) {
        self.types.reserve(more);
        self.by_name.reserve(more);
        self.by_rtype.reserve(more);
    }

    /// Adds a type. The caller adds in canonical order.
    pub fn push(&mut self, ty: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).expect("fewer than 2^32 types"));
        self.by_name.entry(ty.name.clone()).or_insert(id);
        if ty.rtype_offset != 0 {
            self.by_rtype.entry(ty.rtype_offset).or_insert(id);
        }
        self.types.push(ty);
        id
    }

    /// Takes an id for a type that [`TypeTable::set`] will describe; opaque and found by no name until then.
    pub fn push_forward(&mut self) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).expect("fewer than 2^32 types"));
        self.types.push(Type { name: "".into(), size: 0, kind: Kind::Opaque, rtype_offset: 0 });
        id
    }

    /// Replaces the type at `id`; used while a batch with forward references is built. Its name and descriptor stay the index's
    /// first choice if they were new.
    pub fn set(&mut self, id: TypeId, ty: Type) {
        self.by_name.entry(ty.name.clone()).or_insert(id);
        if ty.rtype_offset != 0 {
            self.by_rtype.entry(ty.rtype_offset).or_insert(id);
        }
        self.types[id.0 as usize] = ty;
    }

    /// The type `id`.
    #[must_use]
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// Number of types.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// The first type named `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TypeId> {
        let found = self.by_name.get(name).copied();
        #[cfg(test)]
        found.iter().for_each(|_| asked::note(name, ""));
        found
    }

    /// The type whose descriptor lies `offset` bytes into the main module's types section.
    #[must_use]
    pub fn find_rtype(&self, offset: u64) -> Option<TypeId> {
        self.by_rtype.get(&offset).copied()
    }

    /// Field `name` of struct `id`.
    #[must_use]
    pub fn field(&self, id: TypeId, name: &str) -> Option<&Field> {
        let ty = self.get(id);
        let Kind::Struct(fields) = &ty.kind else { return None };
        let found = fields.iter().find(|f| &*f.name == name);
        #[cfg(test)]
        found.iter().for_each(|_| asked::note(&ty.name, name));
        found
    }

    /// Offset and type of a dotted field path such as `sched.sp`, starting at struct `id`.
    #[must_use]
    pub fn field_path(&self, id: TypeId, path: &str) -> Option<(u64, TypeId)> {
        path.split('.').try_fold((0u64, id), |(offset, ty), name| {
            let field = self.field(ty, name)?;
            Some((offset.checked_add(field.offset)?, field.ty))
        })
    }

    /// Makes the types from `first` on safe to walk, and counts what had to be cut:
    ///
    /// * pointer-shaped types are one word, strings and interfaces two, slices three words long;
    /// * an array's size is its length times its element's size;
    /// * struct fields are in offset order, lie inside the struct and overlap nothing;
    /// * no type contains itself by value, and values nest at most [`MAX_NESTING`] deep.
    ///
    /// So flattening a value visits at most its size in bytes of non-empty parts; empty parts hold no pointers and must be skipped.
    /// Types before `first` are taken as checked.
    pub fn check_from(&mut self, first: TypeId, incidents: &mut Incidents) {
        let first = first.0 as usize;
        for id in first..self.types.len() {
            self.check_size(id, incidents);
        }
        for id in first..self.types.len() {
            self.check_parts(id, incidents);
        }
        self.check_nesting(first, incidents);
    }

    fn check_size(&mut self, id: usize, incidents: &mut Incidents) {
        let ty = &mut self.types[id];
        let expected = match ty.kind {
            Kind::Pointer(_) | Kind::UnsafePointer | Kind::Func | Kind::Map { .. } | Kind::Chan { .. } => 8,
            Kind::String | Kind::Eface | Kind::Iface => 16,
            Kind::Slice(_) => 24,
            _ => return,
        };
        if ty.size != expected {
            ty.kind = Kind::Opaque;
            incidents.count("types.wrong_size");
        }
    }

    fn check_parts(&mut self, id: usize, incidents: &mut Incidents) {
        let size = self.types[id].size;
        match &self.types[id].kind {
            Kind::Array(elem, len) if self.get(*elem).size.checked_mul(*len) != Some(size) => {
                self.types[id].kind = Kind::Opaque;
                incidents.count("types.wrong_array_size");
            }
            Kind::Struct(_) => {
                let kind = std::mem::replace(&mut self.types[id].kind, Kind::Opaque);
                let Kind::Struct(mut fields) = kind else { return };
                fields.sort_by_key(|f| f.offset);
                let mut end = 0;
                let before = fields.len();
                fields.retain(|f| {
                    let Some(field_end) = f.offset.checked_add(self.get(f.ty).size) else { return false };
                    let fits = f.offset >= end && field_end <= size;
                    end = if fits { field_end } else { end };
                    fits
                });
                incidents.add("types.misplaced_field", (before - fields.len()) as u64);
                self.types[id].kind = Kind::Struct(fields);
            }
            _ => {}
        }
    }

    /// The `i`th type contained by value in `id`.
    fn part(&self, id: usize, i: usize) -> Option<usize> {
        match &self.types[id].kind {
            Kind::Struct(fields) => fields.get(i).map(|f| f.ty.0 as usize),
            Kind::Array(elem, _) if i == 0 => Some(elem.0 as usize),
            _ => None,
        }
    }

    /// Depth-first over containment by value, without recursion; ids give the order, so equal input is cut at equal places.
    fn check_nesting(&mut self, first: usize, incidents: &mut Incidents) {
        const OPEN: u8 = u8::MAX;
        // 0: not visited; OPEN: on the stack; else 1 + how deep values nest below. Older types are not deeper than allowed.
        let mut height = vec![0u8; self.types.len()];
        let mut stack: Vec<(usize, usize)> = Vec::new();
        for root in first..self.types.len() {
            if height[root] != 0 {
                continue;
            }
            height[root] = OPEN;
            stack.push((root, 0));
            while let Some((id, i)) = stack.pop() {
                if let Some(part) = self.part(id, i) {
                    if height[part] == OPEN {
                        self.types[id].kind = Kind::Opaque;
                        incidents.count("types.endless_value");
                    }
                    stack.push((id, i + 1));
                    if height[part] == 0 {
                        height[part] = OPEN;
                        stack.push((part, 0));
                    }
                } else {
                    let below = (0..).map_while(|i| self.part(id, i)).map(|part| height[part]).max().unwrap_or(0);
                    if usize::from(below) >= MAX_NESTING {
                        self.types[id].kind = Kind::Opaque;
                        incidents.count("types.endless_value");
                        height[id] = 1;
                    } else {
                        height[id] = below + 1;
                    }
                }
            }
        }
    }
}

/// Which types and fields a thread asked for by name and got: what a table of a release must have.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static ASKED: RefCell<BTreeSet<(String, String)>> = RefCell::default();
    }

    pub(super) fn note(ty: &str, field: &str) {
        ASKED.with_borrow_mut(|asked| {
            asked.insert((ty.to_owned(), field.to_owned()));
        });
    }

    /// (type, field; empty for the type itself) since the last call.
    pub(crate) fn take() -> BTreeSet<(String, String)> {
        ASKED.with_borrow_mut(std::mem::take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(name: &str, size: u64, kind: Kind) -> Type {
        Type { name: name.into(), size, kind, rtype_offset: 0 }
    }

    fn field(name: &str, offset: u64, ty: TypeId) -> Field {
        Field { name: name.into(), offset, ty }
    }

    fn names(table: &TypeTable, id: TypeId) -> Vec<&str> {
        match &table.get(id).kind {
            Kind::Struct(fields) => fields.iter().map(|f| &*f.name).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn lookups() {
        let mut table = TypeTable::default();
        let int = table.push(ty("int", 8, Kind::Scalar));
        let inner = table.push(ty("inner", 16, Kind::Struct(vec![field("a", 0, int), field("b", 8, int)])));
        let outer = table.push(Type { rtype_offset: 64, ..ty("outer", 24, Kind::Struct(vec![field("in", 8, inner)])) });
        table.check_from(TypeId(0), &mut Incidents::default());
        assert_eq!(table.find("outer"), Some(outer));
        assert_eq!(table.find_rtype(64), Some(outer));
        assert_eq!(table.field_path(outer, "in.b"), Some((16, int)));
        assert_eq!(table.field_path(outer, "in.c"), None);
        assert_eq!(table.field_path(outer, "in.b.c"), None);
        let forward = table.push_forward();
        assert_eq!(table.find(""), None);
        table.set(forward, ty("late", 8, Kind::Pointer(outer)));
        assert_eq!(table.find("late"), Some(forward));
    }

    #[test]
    fn sizes_that_cannot_be() {
        let mut table = TypeTable::default();
        let int = table.push(ty("int", 8, Kind::Scalar));
        let bad = [
            table.push(ty("string", 8, Kind::String)),
            table.push(ty("slice", u64::MAX, Kind::Slice(int))),
            table.push(ty("array", 8, Kind::Array(int, u64::MAX))),
            table.push(ty("array", 24, Kind::Array(int, 2))),
        ];
        let good = table.push(ty("array", 16, Kind::Array(int, 2)));
        let mut incidents = Incidents::default();
        table.check_from(TypeId(0), &mut incidents);
        assert!(bad.iter().all(|id| table.get(*id).kind == Kind::Opaque));
        assert_eq!(table.get(good).kind, Kind::Array(int, 2));
        assert_eq!((incidents.get("types.wrong_size"), incidents.get("types.wrong_array_size")), (2, 2));
    }

    #[test]
    fn fields_outside_or_over_each_other() {
        let mut table = TypeTable::default();
        let int = table.push(ty("int", 8, Kind::Scalar));
        let empty = table.push(ty("empty", 0, Kind::Struct(Vec::new())));
        let fields = vec![
            field("late", 16, int),
            field("empty", 0, empty),
            field("first", 0, int),
            field("over", 4, int),
            field("end", 24, empty),
            field("past", 17, int),
            field("far", u64::MAX, int),
        ];
        let id = table.push(ty("s", 24, Kind::Struct(fields)));
        let mut incidents = Incidents::default();
        table.check_from(TypeId(0), &mut incidents);
        assert_eq!(names(&table, id), ["empty", "first", "late", "end"]);
        assert_eq!(incidents.get("types.misplaced_field"), 3);
    }

    #[test]
    fn values_inside_themselves() {
        let mut table = TypeTable::default();
        let (a, b) = (TypeId(0), TypeId(1));
        table.push(ty("a", 8, Kind::Struct(vec![field("b", 0, b)])));
        table.push(ty("b", 8, Kind::Array(a, 1)));
        // Through a pointer is fine.
        let list = table.push(ty("list", 8, Kind::Struct(vec![field("next", 0, TypeId(3))])));
        table.push(ty("*list", 8, Kind::Pointer(list)));
        let mut deepest = table.push(ty("int", 8, Kind::Scalar));
        for _ in 0..3 * MAX_NESTING {
            deepest = table.push(ty("deep", 8, Kind::Struct(vec![field("in", 0, deepest)])));
        }
        let mut incidents = Incidents::default();
        table.check_from(TypeId(0), &mut incidents);
        assert_eq!(names(&table, list), ["next"]);
        assert!([a, b].iter().any(|id| table.get(*id).kind == Kind::Opaque));
        let (mut depth, mut at) = (0, deepest);
        while let Some(part) = table.field(at, "in") {
            (depth, at) = (depth + 1, part.ty);
        }
        assert!(depth <= MAX_NESTING, "{depth}");
        assert!(incidents.get("types.endless_value") >= 2);
    }
}
