//! First pass, one unit at a time and in parallel: every DIE is visited once, types, package variables, constants and the bounds of
//! functions are noted with references still as offsets. The inside of functions is skipped; [`super::functions`] reads it on demand.

use super::die::{Die, LocationAttr, Unit, read_die};
use super::sections::{Sections, Slice};
use gimli::{DwTag, EndianSlice, Expression, LittleEndian, Operation, constants as dw};
use std::ops::Range;

/// Constants of these packages are kept: the runtime's own, for `RuntimeLayout`.
const CONSTANT_PREFIXES: [&[u8]; 3] = [b"runtime.", b"internal/runtime/", b"internal/abi."];

/// Bytes of a unit for each type or member read from it, at least: in a damaged unit a DIE can be one byte long and would cost a
/// hundred bytes of memory. Real ones have a name and a reference.
const MIN_DIE: usize = 4;

/// A type DIE.
pub(super) struct RawType<'s> {
    /// Offset in `.debug_info`.
    pub(super) offset: usize,
    pub(super) tag: DwTag,
    pub(super) name: &'s [u8],
    pub(super) size: u64,
    pub(super) target: usize,
    pub(super) key: usize,
    pub(super) elem: usize,
    pub(super) count: u64,
    pub(super) go_kind: u8,
    pub(super) runtime_type: u64,
    /// Its members in [`UnitScan::members`].
    pub(super) members: Range<u32>,
}

/// A member of a structure.
pub(super) struct RawMember<'s> {
    pub(super) name: &'s [u8],
    pub(super) offset: u64,
    pub(super) ty: usize,
}

/// A package variable.
pub(super) struct RawVariable<'s> {
    pub(super) name: &'s [u8],
    pub(super) address: u64,
    pub(super) ty: usize,
}

/// A function that has code.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FunctionEntry {
    pub(super) low_pc: u64,
    pub(super) high_pc: u64,
    /// Its DIE's offset in `.debug_info`.
    pub(super) die: usize,
}

/// What one unit holds.
#[derive(Default)]
pub(super) struct UnitScan<'s> {
    pub(super) types: Vec<RawType<'s>>,
    pub(super) members: Vec<RawMember<'s>>,
    pub(super) variables: Vec<RawVariable<'s>>,
    pub(super) constants: Vec<(&'s [u8], i64)>,
    pub(super) functions: Vec<FunctionEntry>,
    /// The unit could not be read to its end.
    pub(super) damaged: bool,
}

/// Scans `unit`; what was read before a damaged DIE is kept.
pub(super) fn scan_unit<'s>(sections: &'s Sections<'_>, unit: &Unit) -> UnitScan<'s> {
    let mut scan = UnitScan::default();
    scan.damaged = scan_entries(sections, unit, &mut scan).is_err();
    scan
}

fn scan_entries<'s>(sections: &'s Sections<'_>, unit: &Unit, scan: &mut UnitScan<'s>) -> gimli::Result<()> {
    let header = unit.header(sections)?;
    let mut entries = header.entries_raw(&unit.abbrevs, None)?;
    // Whether children at depth 2 belong to the type that was read last.
    let mut in_type = false;
    let most = unit.end.saturating_sub(unit.offset) / MIN_DIE;
    while !entries.is_empty() {
        let offset = unit.offset.saturating_add(entries.next_offset().0);
        let depth = entries.next_depth();
        let Some(abbrev) = entries.read_abbreviation()? else { continue };
        let tag = abbrev.tag();
        if depth == 1 {
            in_type = is_type(tag);
        }
        let wanted = match depth {
            1 => in_type || matches!(tag, dw::DW_TAG_variable | dw::DW_TAG_constant | dw::DW_TAG_subprogram),
            2 => in_type && matches!(tag, dw::DW_TAG_member | dw::DW_TAG_subrange_type),
            _ => false,
        };
        if wanted {
            let die = read_die(sections, unit, &mut entries, abbrev)?;
            scan.note(offset, &die, in_type, unit);
            if scan.types.len() + scan.members.len() > most {
                return Err(gimli::Error::UnexpectedEof(gimli::ReaderOffsetId(offset as u64)));
            }
        } else {
            entries.skip_attributes(abbrev.attributes())?;
        }
    }
    Ok(())
}

fn is_type(tag: DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_base_type
            | dw::DW_TAG_pointer_type
            | dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_array_type
            | dw::DW_TAG_subroutine_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_typedef
            | dw::DW_TAG_unspecified_type
    )
}

impl<'s> UnitScan<'s> {
    fn note(&mut self, offset: usize, die: &Die<'s>, in_type: bool, unit: &Unit) {
        match die.tag {
            dw::DW_TAG_member => {
                if let Some(parent) = self.types.last_mut() {
                    self.members.push(RawMember { name: die.name, offset: die.member_offset, ty: die.ty });
                    parent.members.end = self.members.len() as u32;
                }
            }
            dw::DW_TAG_subrange_type => {
                if let Some(parent) = self.types.last_mut() {
                    parent.count = die.count;
                }
            }
            _ if in_type => self.types.push(RawType {
                offset,
                tag: die.tag,
                name: die.name,
                size: die.byte_size,
                target: die.ty,
                key: die.key,
                elem: die.elem,
                count: 0,
                go_kind: die.go_kind,
                // Counted from the descriptors of the file's own module: only the program's are looked up so.
                runtime_type: if unit.file.index == 0 { die.runtime_type } else { 0 },
                members: self.members.len() as u32..self.members.len() as u32,
            }),
            dw::DW_TAG_variable => {
                if let LocationAttr::Expression(bytes) = die.location
                    && let Some(address) = static_address(bytes)
                {
                    let address = address.wrapping_add(unit.file.shift);
                    self.variables.push(RawVariable { name: die.name, address, ty: die.ty });
                }
            }
            dw::DW_TAG_constant => {
                if let Some(value) = die.const_value
                    && CONSTANT_PREFIXES.iter().any(|prefix| die.name.starts_with(prefix))
                {
                    self.constants.push((die.name, value));
                }
            }
            dw::DW_TAG_subprogram => {
                if let (Some(low_pc), Some(high_pc)) = (die.low_pc, die.high_pc)
                    && low_pc < high_pc
                {
                    self.functions.push(FunctionEntry { low_pc, high_pc, die: offset });
                }
            }
            _ => {}
        }
    }
}

/// The address of a `DW_OP_addr` expression.
fn static_address(bytes: Slice<'_>) -> Option<u64> {
    let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
    let mut ops = Expression(EndianSlice::new(bytes.slice(), LittleEndian)).operations(encoding);
    match ops.next() {
        Ok(Some(Operation::Address { address })) => Some(address),
        _ => None,
    }
}
