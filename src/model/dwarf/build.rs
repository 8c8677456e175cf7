//! Second pass, sequential: type DIEs of all units, in section order, become entries of the [`TypeTable`].
//!
//! Ids follow the order of DIEs, so they do not depend on who scanned which unit. A typedef without a Go kind only repeats the name
//! of what it points to and gets no entry of its own; a typedef with one (interface, map, chan) *is* the type.

use super::scan::{RawMember, RawType, UnitScan};
use crate::incident::Incidents;
use crate::model::types::{Field, Kind, Type, TypeId, TypeTable};
use gimli::constants as dw;
use rayon::prelude::*;

/// `reflect.Kind` values in `DW_AT_go_kind` that matter.
mod go_kind {
    pub(super) const CHAN: u8 = 18;
    pub(super) const INTERFACE: u8 = 20;
    pub(super) const MAP: u8 = 21;
    pub(super) const SLICE: u8 = 23;
    pub(super) const STRING: u8 = 24;
}

/// Typedefs of typedefs; Go writes at most two in a row.
const MAX_TYPEDEFS: u32 = 16;

/// Where each type DIE went.
#[derive(Default)]
pub(super) struct TypeOffsets {
    /// Offsets in `.debug_info`, ascending.
    offsets: Vec<usize>,
    /// The type of each.
    ids: Vec<TypeId>,
}

impl TypeOffsets {
    /// The type that the DIE at `offset` describes.
    pub(super) fn find(&self, offset: usize) -> Option<TypeId> {
        Some(self.ids[self.offsets.binary_search(&offset).ok()?])
    }
}

/// Builds the table. Every reference that leads nowhere becomes one opaque type of size 0, the last of the table.
pub(super) fn build_types(scans: &[UnitScan<'_>], incidents: &mut Incidents) -> (TypeTable, TypeOffsets) {
    let raws: Vec<(&RawType<'_>, &[RawMember<'_>])> = scans
        .iter()
        .flat_map(|scan| {
            scan.types.iter().map(|raw| {
                let members = raw.members.start as usize..raw.members.end as usize;
                (raw, scan.members.get(members).unwrap_or(&[]))
            })
        })
        .collect();
    let offsets: Vec<usize> = raws.iter().map(|(raw, _)| raw.offset).collect();
    let mut next = 0;
    let own: Vec<Option<TypeId>> = raws
        .iter()
        .map(|(raw, _)| {
            (!is_alias(raw)).then(|| {
                next += 1;
                TypeId(next - 1)
            })
        })
        .collect();
    let unknown = TypeId(next);
    let ids: Vec<TypeId> = (0..raws.len())
        .map(|at| {
            let mut at = at;
            for _ in 0..MAX_TYPEDEFS {
                match own[at] {
                    Some(id) => return id,
                    None => match offsets.binary_search(&raws[at].0.target) {
                        Ok(target) => at = target,
                        Err(_) => break,
                    },
                }
            }
            unknown
        })
        .collect();
    let index = TypeOffsets { offsets, ids };
    let builder = Builder { raws: &raws, index: &index, unknown };
    let types: Vec<Type> =
        raws.par_iter().filter(|(raw, _)| !is_alias(raw)).map(|(raw, members)| builder.build(raw, members)).collect();

    let mut table = TypeTable::default();
    table.reserve(types.len() + 1);
    for ty in types {
        table.push(ty);
    }
    table.push(Type { name: "<unknown type>".into(), size: 0, kind: Kind::Opaque, rtype_offset: 0 });
    table.check_from(TypeId(0), incidents);
    (table, index)
}

fn is_alias(raw: &RawType<'_>) -> bool {
    raw.tag == dw::DW_TAG_typedef && !matches!(raw.go_kind, go_kind::CHAN | go_kind::INTERFACE | go_kind::MAP)
}

/// The text of a name; DWARF does not promise UTF-8.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    match str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(bytes).into(),
    }
}

struct Builder<'b, 's> {
    raws: &'b [(&'b RawType<'s>, &'b [RawMember<'s>])],
    index: &'b TypeOffsets,
    unknown: TypeId,
}

impl<'b, 's> Builder<'b, 's> {
    fn id(&self, offset: usize) -> TypeId {
        self.index.find(offset).unwrap_or(self.unknown)
    }

    fn raw(&self, offset: usize) -> Option<&'b RawType<'s>> {
        Some(self.raws[self.index.offsets.binary_search(&offset).ok()?].0)
    }

    /// What a map or chan typedef's pointer points to.
    fn header(&self, raw: &RawType<'_>) -> Option<TypeId> {
        let pointer = self.raw(raw.target)?;
        let header = (pointer.tag == dw::DW_TAG_pointer_type).then(|| self.index.find(pointer.target)).flatten();
        header.filter(|id| *id != self.unknown)
    }

    fn build(&self, raw: &RawType<'_>, members: &[RawMember<'_>]) -> Type {
        let (kind, size) = match raw.tag {
            dw::DW_TAG_base_type | dw::DW_TAG_enumeration_type => (Kind::Scalar, raw.size),
            // Go leaves DW_AT_type out of unsafe.Pointer, C out of void*.
            dw::DW_TAG_pointer_type if raw.target == 0 => (Kind::UnsafePointer, 8),
            dw::DW_TAG_pointer_type => (Kind::Pointer(self.id(raw.target)), 8),
            dw::DW_TAG_subroutine_type => (Kind::Func, 8),
            dw::DW_TAG_array_type => (Kind::Array(self.id(raw.target), raw.count), raw.size),
            dw::DW_TAG_structure_type if raw.go_kind == go_kind::STRING => (Kind::String, raw.size),
            dw::DW_TAG_structure_type if raw.go_kind == go_kind::SLICE && raw.elem != 0 => {
                (Kind::Slice(self.id(raw.elem)), raw.size)
            }
            // What a sync.Pool shares between Ps: interface{} by other means (sync/poolqueue.go reads it as *any).
            dw::DW_TAG_structure_type if raw.name == b"sync.eface" && raw.size == 16 => (Kind::Eface, 16),
            dw::DW_TAG_structure_type => (Kind::Struct(self.fields(members)), raw.size),
            dw::DW_TAG_typedef if raw.go_kind == go_kind::INTERFACE => {
                let is_eface = self.raw(raw.target).is_some_and(|target| target.name == b"runtime.eface");
                (if is_eface { Kind::Eface } else { Kind::Iface }, 16)
            }
            dw::DW_TAG_typedef if raw.go_kind == go_kind::MAP => {
                (Kind::Map { key: self.id(raw.key), elem: self.id(raw.elem), header: self.header(raw) }, 8)
            }
            dw::DW_TAG_typedef => (Kind::Chan { elem: self.id(raw.elem), header: self.header(raw) }, 8),
            _ => (Kind::Opaque, raw.size),
        };
        Type { name: text(raw.name), size, kind, rtype_offset: raw.runtime_type }
    }

    fn fields(&self, members: &[RawMember<'_>]) -> Vec<Field> {
        members.iter().map(|m| Field { name: text(m.name), offset: m.offset, ty: self.id(m.ty) }).collect()
    }
}
