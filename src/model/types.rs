//! One [`TypeId`] space for two sources of types: DWARF and the runtime's own descriptors (`abi.Type`).
//!
//! Typedefs are resolved while the table is built: a named type is one entry with its full-path name. Types only name edges; the
//! collector's masks decide which words are pointers.

use rustc_hash::FxHashMap;
use std::fmt;

/// Index into a [`TypeTable`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

impl fmt::Debug for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type-{}", self.0)
    }
}

/// What a value of a type is made of. Sizes and offsets in bytes, hostile (from DWARF or descriptors): check before use.
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
    /// Fields, in offset order, overlapping only in hostile input.
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
#[derive(Default, Debug)]
pub struct TypeTable {
    types: Vec<Type>,
    /// First type of each name.
    by_name: FxHashMap<Box<str>, TypeId>,
    /// `rtype_offset` to type, for the main module.
    by_rtype: FxHashMap<u64, TypeId>,
}

impl TypeTable {
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
        self.by_name.get(name).copied()
    }

    /// The type whose descriptor lies `offset` bytes into the main module's types section.
    #[must_use]
    pub fn find_rtype(&self, offset: u64) -> Option<TypeId> {
        self.by_rtype.get(&offset).copied()
    }

    /// Field `name` of struct `id`.
    #[must_use]
    pub fn field(&self, id: TypeId, name: &str) -> Option<&Field> {
        match &self.get(id).kind {
            Kind::Struct(fields) => fields.iter().find(|f| &*f.name == name),
            _ => None,
        }
    }

    /// Offset and type of a dotted field path such as `sched.sp`, starting at struct `id`.
    #[must_use]
    pub fn field_path(&self, id: TypeId, path: &str) -> Option<(u64, TypeId)> {
        path.split('.').try_fold((0u64, id), |(offset, ty), name| {
            let field = self.field(ty, name)?;
            Some((offset.checked_add(field.offset)?, field.ty))
        })
    }
}
