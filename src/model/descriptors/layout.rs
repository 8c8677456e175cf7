//! Where the parts of a descriptor lie, found by name in DWARF, and bounded reads of them.

use crate::address::Addr;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::model::types::TypeTable;
use rustc_hash::FxHashMap;

/// `reflect.Kind` values; part of Go's compatibility promise.
pub(super) mod kind {
    pub(crate) const UINTPTR: u8 = 12;
    pub(crate) const ARRAY: u8 = 17;
    pub(crate) const CHAN: u8 = 18;
    pub(crate) const FUNC: u8 = 19;
    pub(crate) const INTERFACE: u8 = 20;
    pub(crate) const MAP: u8 = 21;
    pub(crate) const POINTER: u8 = 22;
    pub(crate) const SLICE: u8 = 23;
    pub(crate) const STRING: u8 = 24;
    pub(crate) const STRUCT: u8 = 25;
    pub(crate) const UNSAFE_POINTER: u8 = 26;
    /// Low bits of `Kind_`; before Go 1.26 flags are above them.
    pub(crate) const MASK: u8 = 31;
}

/// Fields of one struct at most. Generated code has some thousands.
const MAX_FIELDS: u64 = 1 << 16;

/// Bytes of one name at most; names of struct types spell out all fields.
const MAX_NAME: u64 = 1 << 16;

/// The part that all descriptors share.
#[derive(Copy, Clone, Debug)]
pub(super) struct Header {
    pub(super) size: u64,
    pub(super) kind: u8,
    pub(super) direct_iface: bool,
    pub(super) named: bool,
    uncommon: bool,
    pub(super) extra_star: bool,
    pub(super) str_offset: i32,
}

/// One `abi.StructField`.
pub(super) struct RawField {
    /// Address of its name.
    pub(super) name: u64,
    pub(super) ty: u64,
    pub(super) offset: u64,
}

/// Offsets of fields, in bytes from the start of the descriptor unless said otherwise.
#[derive(Clone)]
pub(super) struct Layout {
    size: u64,
    ptr_bytes: u64,
    tflag: u64,
    kind: u64,
    str: u64,
    /// Size of the shared part.
    header_size: u64,
    /// `TFlag` bits.
    flag_uncommon: u8,
    flag_extra_star: u8,
    flag_named: u8,
    /// Bit of `TFlag` (Go 1.26+) that says direct-interface; else one of `Kind_`.
    direct_in_tflag: Option<u8>,
    direct_in_kind: u8,
    pub(super) pointer_elem: u64,
    pub(super) slice_elem: u64,
    pub(super) array_elem: u64,
    pub(super) array_len: u64,
    pub(super) chan_elem: u64,
    /// Slice header.
    pub(super) interface_methods: u64,
    pub(super) map_key: u64,
    pub(super) map_elem: u64,
    /// The group of a swiss map, the bucket of a classic one.
    pub(super) map_group: u64,
    /// Slice header.
    struct_fields: u64,
    /// In `abi.StructField`.
    field_name: u64,
    field_type: u64,
    field_offset: u64,
    /// Go 1.17 and 1.18 keep a flag below the offset.
    field_offset_shift: u32,
    field_size: u64,
    /// Where `abi.UncommonType` starts, by kind: after the kind's own struct.
    uncommon_at: [u64; 32],
    /// In `abi.UncommonType`.
    uncommon_pkg_path: u64,
    /// In `abi.ITab`.
    pub(super) itab_type: u64,
}

impl Layout {
    pub(super) fn find(types: &TypeTable, constants: &FxHashMap<String, i64>) -> Result<Self> {
        // Up to Go 1.20 the runtime has types of its own, `runtime.ptrtype` for `abi.PtrType`, with fields in lower case.
        let find = |ty: &str| {
            let old = if ty == "Type" { "_type".to_owned() } else { ty.to_lowercase() };
            let names = [format!("internal/abi.{ty}"), format!("runtime.{old}")];
            names.iter().find_map(|name| types.find(name)).ok_or_else(|| missing(&names[0]))
        };
        let field = |ty: &str, paths: &str| {
            let id = find(ty)?;
            let found = paths.split('|').find_map(|path| types.field_path(id, path));
            found.map(|(offset, _)| offset).ok_or_else(|| missing(&format!("internal/abi.{ty}.{paths}")))
        };
        let size_of = |ty: &str| find(ty).map(|id| types.get(id).size);
        let bit = |name: &str| constants.get(&format!("internal/abi.{name}")).and_then(|bit| u8::try_from(*bit).ok());
        // Go 1.24 and 1.25 have one descriptor type for each implementation of maps and name the one in use.
        let maps = match types.find("runtime.hmap") {
            Some(_) => ["MapType", "OldMapType", "SwissMapType"],
            None => ["MapType", "SwissMapType", "OldMapType"],
        };
        let map = maps.into_iter().find(|ty| find(ty).is_ok()).ok_or_else(|| missing("internal/abi.MapType"))?;

        let header_size = size_of("Type")?;
        let mut uncommon_at = [header_size; 32];
        for (kind, ty) in [
            (kind::ARRAY, "ArrayType"),
            (kind::CHAN, "ChanType"),
            (kind::FUNC, "FuncType"),
            (kind::INTERFACE, "InterfaceType"),
            (kind::MAP, map),
            (kind::POINTER, "PtrType"),
            (kind::SLICE, "SliceType"),
            (kind::STRUCT, "StructType"),
        ] {
            uncommon_at[usize::from(kind)] = size_of(ty)?;
        }
        Ok(Self {
            size: field("Type", "Size_|size")?,
            ptr_bytes: field("Type", "PtrBytes|ptrdata")?,
            tflag: field("Type", "TFlag|tflag")?,
            kind: field("Type", "Kind_|kind")?,
            str: field("Type", "Str|str")?,
            header_size,
            flag_uncommon: bit("TFlagUncommon").unwrap_or(1),
            flag_extra_star: bit("TFlagExtraStar").unwrap_or(2),
            flag_named: bit("TFlagNamed").unwrap_or(4),
            direct_in_tflag: bit("TFlagDirectIface"),
            direct_in_kind: bit("KindDirectIface").unwrap_or(32),
            pointer_elem: field("PtrType", "Elem|elem")?,
            slice_elem: field("SliceType", "Elem|elem")?,
            array_elem: field("ArrayType", "Elem|elem")?,
            array_len: field("ArrayType", "Len|len")?,
            chan_elem: field("ChanType", "Elem|elem")?,
            interface_methods: field("InterfaceType", "Methods|mhdr")?,
            map_key: field(map, "Key|key")?,
            map_elem: field(map, "Elem|elem")?,
            map_group: field(map, "Group|Bucket|bucket")?,
            struct_fields: field("StructType", "Fields|fields")?,
            field_name: field("StructField", "Name.Bytes|name.bytes")?,
            field_type: field("StructField", "Typ|typ")?,
            field_offset: field("StructField", "Offset|offset|offsetAnon")?,
            field_offset_shift: u32::from(field("StructField", "offsetAnon").is_ok()),
            field_size: size_of("StructField")?,
            uncommon_at,
            uncommon_pkg_path: field("UncommonType", "PkgPath|pkgpath")?,
            itab_type: field("ITab", "Type|_type")?,
        })
    }

    /// The shared part of the descriptor at `rtype`; None if the bytes there cannot be one.
    pub(super) fn header(&self, image: &dyn Image, rtype: Addr) -> Option<Header> {
        if rtype.is_null() || !rtype.0.is_multiple_of(8) || self.header_size > 256 {
            return None;
        }
        let mut bytes = [0; 256];
        let bytes = bytes.get_mut(..self.header_size as usize)?;
        image.read(rtype, bytes).ok()?;
        let word = |at: u64| Some(u64::from_le_bytes(*bytes.get(at as usize..)?.first_chunk()?));
        let byte = |at: u64| bytes.get(at as usize).copied();
        let (size, ptr_bytes) = (word(self.size)?, word(self.ptr_bytes)?);
        let (tflag, kind) = (byte(self.tflag)?, byte(self.kind)?);
        let number = kind & kind::MASK;
        if ptr_bytes > size || size > 1 << 47 || number == 0 || number > kind::UNSAFE_POINTER {
            return None;
        }
        Some(Header {
            size,
            kind: number,
            direct_iface: match self.direct_in_tflag {
                Some(bit) => tflag & bit != 0,
                None => kind & self.direct_in_kind != 0,
            },
            named: tflag & self.flag_named != 0,
            uncommon: tflag & self.flag_uncommon != 0,
            extra_star: tflag & self.flag_extra_star != 0,
            str_offset: i32::from_le_bytes(*bytes.get(self.str as usize..)?.first_chunk()?),
        })
    }

    /// Offset of the package path's name from `moduledata.types`; None if the type has none.
    pub(super) fn pkg_path_offset(&self, image: &dyn Image, rtype: Addr, header: &Header) -> Option<i32> {
        if !header.uncommon {
            return None;
        }
        let at = self.uncommon_at[usize::from(header.kind & kind::MASK)].wrapping_add(self.uncommon_pkg_path);
        let offset = image.read_u32(rtype.add(at)).ok()? as i32;
        (offset != 0).then_some(offset)
    }

    /// The fields of the struct type at `rtype`, whose values are `size` bytes long.
    pub(super) fn struct_fields(&self, image: &dyn Image, rtype: Addr, size: u64) -> Option<Vec<RawField>> {
        let array = image.read_u64(rtype.add(self.struct_fields)).ok()?;
        let len = image.read_u64(rtype.add(self.struct_fields.wrapping_add(8))).ok()?;
        if len > MAX_FIELDS || self.field_size > 256 {
            return None;
        }
        let mut bytes = vec![0; (len * self.field_size) as usize];
        image.read(Addr(array), &mut bytes).ok()?;
        let word =
            |field: &[u8], at: u64| Some(u64::from_le_bytes(*field.get(usize::try_from(at).ok()?..)?.first_chunk()?));
        let fields = bytes.chunks_exact((self.field_size as usize).max(1)).map(|field| {
            Some(RawField {
                name: word(field, self.field_name)?,
                ty: word(field, self.field_type)?,
                offset: word(field, self.field_offset)
                    .map(|offset| offset >> self.field_offset_shift)
                    .filter(|offset| *offset <= size)?,
            })
        });
        fields.collect()
    }

    /// The name at `at`: flags, length, bytes (`abi.Name`).
    pub(super) fn name(&self, image: &dyn Image, at: Addr) -> Option<String> {
        if at.is_null() {
            return None;
        }
        let (mut len, mut shift, mut next) = (0u64, 0, at.add(1));
        loop {
            let byte = image.read_u8(next).ok()?;
            next = next.add(1);
            len |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return None;
            }
        }
        if len > MAX_NAME {
            return None;
        }
        let mut bytes = vec![0; len as usize];
        image.read(next, &mut bytes).ok()?;
        String::from_utf8(bytes).ok()
    }
}

fn missing(what: &str) -> Error {
    Error::new(format!("the debug information has no {what}, which Go 1.17 to 1.27 have"))
        .remedy("check that the executable is a Go program with complete debug information")
}
