//! Header structs of maps and channels whose types have no DIE, made as Go's linker makes them for DWARF
//! (`cmd/link/internal/ld/dwarf.go`, `synthesizemaptypes` and `synthesizechantypes`): the runtime's own struct with the fields that
//! lead to keys, elements and buffers given their real types. Classic maps (up to Go 1.23) have buckets where swiss maps have groups.

use crate::model::types::{Kind, Type, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// The runtime's structs that headers are copies of, as far as DWARF has them.
#[derive(Default)]
pub(super) struct Prototypes {
    map: Option<TypeId>,
    table: Option<TypeId>,
    groups_reference: Option<TypeId>,
    hmap: Option<TypeId>,
    hchan: Option<TypeId>,
    waitq: Option<TypeId>,
    sudog: Option<TypeId>,
}

/// Full names of types that are not in the table yet.
type Names<'n> = FxHashMap<TypeId, &'n str>;

impl Prototypes {
    pub(super) fn find(types: &TypeTable) -> Self {
        Self {
            map: types.find("internal/runtime/maps.Map"),
            table: types.find("internal/runtime/maps.table"),
            groups_reference: types.find("internal/runtime/maps.groupsReference"),
            hmap: types.find("runtime.hmap"),
            hchan: types.find("runtime.hchan"),
            waitq: types.find("runtime.waitq"),
            sudog: types.find("runtime.sudog"),
        }
    }

    /// `map<K,V>` of a swiss map with this group type, or `hash<K,V>` of a classic map with this bucket type.
    pub(super) fn map(
        &self,
        types: &mut TypeTable,
        names: &Names<'_>,
        key: TypeId,
        elem: TypeId,
        group: TypeId,
    ) -> Option<TypeId> {
        let of = format!("<{},{}>", name(types, names, key), name(types, names, elem));
        if let Some(hmap) = self.hmap {
            let buckets = pointer_to(types, names, group);
            return copy(types, hmap, format!("hash{of}"), &[("buckets", buckets), ("oldbuckets", buckets)]);
        }
        let (map, table, groups_reference) = (self.map?, self.table?, self.groups_reference?);
        let data = pointer_to(types, names, group);
        let reference = copy(types, groups_reference, format!("groupReference{of}"), &[("data", data)])?;
        let table = copy(types, table, format!("table{of}"), &[("groups", reference)])?;
        let table = pointer_to(types, names, table);
        let directory = pointer_to(types, names, table);
        copy(types, map, format!("map{of}"), &[("dirPtr", directory)])
    }

    /// `hchan<T>`.
    pub(super) fn chan(&self, types: &mut TypeTable, names: &Names<'_>, elem: TypeId) -> Option<TypeId> {
        let (hchan, waitq, sudog) = (self.hchan?, self.waitq?, self.sudog?);
        let of = format!("<{}>", name(types, names, elem));
        let pointer = pointer_to(types, names, elem);
        let sudog = copy(types, sudog, format!("sudog{of}"), &[("elem", pointer)])?;
        let sudog = pointer_to(types, names, sudog);
        let waitq = copy(types, waitq, format!("waitq{of}"), &[("first", sudog), ("last", sudog)])?;
        copy(types, hchan, format!("hchan{of}"), &[("recvq", waitq), ("sendq", waitq)])
    }
}

fn name(types: &TypeTable, names: &Names<'_>, id: TypeId) -> String {
    names.get(&id).map_or_else(|| types.get(id).name.to_string(), |name| (*name).to_owned())
}

fn pointer_to(types: &mut TypeTable, names: &Names<'_>, elem: TypeId) -> TypeId {
    let name = format!("*{}", name(types, names, elem)).into();
    types.push(Type { name, size: 8, kind: Kind::Pointer(elem), rtype_offset: 0 })
}

/// A copy of `prototype` with other types for some fields. None if one of these is missing.
fn copy(types: &mut TypeTable, prototype: TypeId, name: String, typed: &[(&str, TypeId)]) -> Option<TypeId> {
    let mut ty = types.get(prototype).clone();
    let Kind::Struct(fields) = &mut ty.kind else { return None };
    for (name, id) in typed {
        fields.iter_mut().find(|field| &*field.name == *name)?.ty = *id;
    }
    (ty.name, ty.rtype_offset) = (name.into(), 0);
    Some(types.push(ty))
}
