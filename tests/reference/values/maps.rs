//! The memory of a map: headers, directories, tables and groups of swiss maps, buckets of classic ones.

use super::{Leads, Reader, What, field_step, pointee};
use goref_fast::model::types::{Kind, TypeId, TypeTable};

impl Reader<'_, '_, '_> {
    /// The words of one element of a map's memory.
    pub(super) fn map(&mut self, what: &What) {
        let types = &self.dump.types;
        match what {
            What::MapHeader(ty) => {
                if let Some((dir, len)) = header_fields(types, *ty) {
                    let to = match (self.word)(len) {
                        0 => Leads::To(What::MapGroups(*ty), 1),
                        len => Leads::To(What::MapDirectory(*ty), len),
                    };
                    self.push(dir, to, true);
                }
                // Both arrays, to their very ends; then what keeps overflow buckets alive.
                let header = map_header_type(types, *ty);
                let at = |field: &str| header.and_then(|header| types.field(header, field)).map(|field| field.offset);
                self.storage(at("buckets"), What::MapBuckets(*ty), u64::from(u32::MAX >> 1));
                self.storage(at("oldbuckets"), What::MapBuckets(*ty), u64::from(u32::MAX >> 1));
                self.storage(at("extra"), What::MapExtra(*ty), 1);
            }
            What::MapDirectory(ty) => self.push(0, Leads::To(What::MapTable(*ty), 1), true),
            What::MapExtra(ty) => {
                let extra = types.find("runtime.mapextra");
                let at = |field: &str| extra.and_then(|extra| types.field(extra, field)).map(|field| field.offset);
                let buckets = What::MapBuckets(*ty);
                for (field, to) in
                    [("overflow", What::MapList(*ty)), ("oldoverflow", What::MapList(*ty)), ("nextOverflow", buckets)]
                {
                    self.storage(at(field), to, 1);
                }
            }
            What::MapList(ty) => self.storage(Some(0), What::MapListed(*ty), (self.word)(16)),
            What::MapListed(ty) => self.storage(Some(0), What::MapBuckets(*ty), 1),
            What::MapBuckets(ty) => self.bucket(*ty),
            What::MapTable(ty) => {
                let table = table_type(types, *ty);
                let at = |path| table.and_then(|t| types.field_path(t, path)).map(|(offset, _)| offset);
                if let (Some(data), Some(mask)) = (at("groups.data"), at("groups.lengthMask")) {
                    let groups = (self.word)(mask).saturating_add(1);
                    self.push(data, Leads::To(What::MapGroups(*ty), groups), true);
                }
            }
            What::MapGroups(ty) => self.group(*ty),
            _ => {}
        }
    }

    /// A word that leads to memory of the value itself; edges of a value are in the order of these calls.
    fn storage(&mut self, at: Option<u64>, to: What, count: u64) {
        let Some(at) = at else { return };
        self.place.push(at as u32);
        self.push(at, Leads::To(to, count), true);
        self.place.pop();
    }

    /// Eight bytes of hashes, `keys`, `values` (`elems` in descriptors), and the next bucket.
    fn bucket(&mut self, map: TypeId) {
        let types = &self.dump.types;
        let Kind::Map { key, elem, .. } = types.get(map).kind else { return };
        let Some(bucket) = bucket_type(types, map) else { return };
        let hashes = (self.word)(0).to_le_bytes();
        for (part, names, label, ty) in
            [(0, ["keys", "keys"], "$mapkey", key), (1, ["values", "elems"], "$mapval", elem)]
        {
            let Some(cells) = names.iter().find_map(|name| types.field(bucket, name)) else { continue };
            let Kind::Array(cell, _) = types.get(cells.ty).kind else { continue };
            for slot in 0..8 {
                let offset = cells.offset + slot * types.get(cell).size;
                // 0 and 1 are empty, 2 to 4 were moved to the new array.
                self.in_use = hashes[slot as usize] > 4;
                self.repeat.push(slot);
                self.under(part, field_step(types, label, ty), |s| match pointee(types, cell) {
                    Some(_) if types.get(cell).size != types.get(ty).size => s.one(offset, What::Value(ty)),
                    _ => s.value(cell, offset),
                });
                self.repeat.pop();
            }
        }
        self.in_use = true;
        let next = types.field(bucket, "overflow").map(|field| field.offset);
        self.storage(next, What::MapBuckets(map), 1);
    }

    /// Eight control bytes, then keys and elements: `slots [8]struct{key, elem}`, or `keys` and `elems`.
    fn group(&mut self, map: TypeId) {
        let types = &self.dump.types;
        let Kind::Map { key, elem, .. } = types.get(map).kind else { return };
        let Some(group) = group_type(types, map) else { return };
        let control = (self.word)(0);
        for (part, label, ty) in [(0, "$mapkey", key), (1, "$mapval", elem)] {
            for slot in 0..8 {
                let cell = match types.field(group, "slots") {
                    Some(slots) => match types.get(slots.ty).kind {
                        Kind::Array(pair, _) => types
                            .field(pair, ["key", "elem"][part])
                            .map(|f| (slots.offset + slot * types.get(pair).size + f.offset, f.ty)),
                        _ => None,
                    },
                    None => types.field(group, ["keys", "elems"][part]).and_then(|f| match types.get(f.ty).kind {
                        Kind::Array(cell, _) => Some((f.offset + slot * types.get(cell).size, cell)),
                        _ => None,
                    }),
                };
                let Some((offset, cell)) = cell else { continue };
                self.in_use = control >> (slot * 8 + 7) & 1 == 0;
                self.repeat.push(slot);
                self.under(part as u64, field_step(types, label, ty), |s| {
                    // Over 128 bytes it is a pointer to the key or element.
                    match pointee(types, cell) {
                        Some(_) if types.get(cell).size != types.get(ty).size => s.one(offset, What::Value(ty)),
                        _ => s.value(cell, offset),
                    }
                });
                self.repeat.pop();
            }
        }
    }
}

fn header_fields(types: &TypeTable, map: TypeId) -> Option<(u64, u64)> {
    let Kind::Map { header: Some(header), .. } = types.get(map).kind else { return None };
    Some((types.field_path(header, "dirPtr")?.0, types.field_path(header, "dirLen")?.0))
}

fn map_header_type(types: &TypeTable, map: TypeId) -> Option<TypeId> {
    let Kind::Map { header, .. } = types.get(map).kind else { return None };
    header
}

/// What a value of `nwords` words is whose type is said to be a map, which has one: the map's own memory on a stack.
pub fn map_on_stack(types: &TypeTable, map: TypeId, nwords: u32) -> Option<What> {
    let words = |ty: Option<TypeId>| ty.map(|ty| types.get(ty).size.div_ceil(8));
    let (nwords, header) = (u64::from(nwords), words(map_header_type(types, map))?);
    match Some(nwords) {
        Some(0 | 1) => None,
        n if n == Some(header) => Some(What::MapHeader(map)),
        n if n == words(group_type(types, map)) => Some(What::MapGroups(map)),
        n if n == words(bucket_type(types, map)) => Some(What::MapBuckets(map)),
        _ => (header <= nwords).then_some(What::MapHeader(map)),
    }
}

pub(super) fn bucket_type(types: &TypeTable, map: TypeId) -> Option<TypeId> {
    pointee(types, types.field(map_header_type(types, map)?, "buckets")?.ty)
}

pub(super) fn table_type(types: &TypeTable, map: TypeId) -> Option<TypeId> {
    let Kind::Map { header: Some(header), .. } = types.get(map).kind else { return None };
    pointee(types, pointee(types, types.field_path(header, "dirPtr")?.1)?)
}

pub(super) fn group_type(types: &TypeTable, map: TypeId) -> Option<TypeId> {
    pointee(types, types.field_path(table_type(types, map)?, "groups.data")?.1)
}
