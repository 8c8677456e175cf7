//! Units and single DIEs: what gimli's raw entries give, reduced to the attributes that Go's types, variables and functions carry.

use super::sections::{Sections, Slice};
use crate::incident::Incidents;
use gimli::{
    Abbreviation, Abbreviations, AttributeValue, DebugAddrBase, DebugInfoOffset, DwAt, EntriesRaw, Reader, Section,
    UnitHeader, UnitOffset, constants as dw,
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Attributes that only Go's compiler and linker write (`cmd/internal/dwarf`).
pub(super) mod go {
    use gimli::DwAt;
    pub(crate) const KIND: DwAt = DwAt(0x2900);
    pub(crate) const KEY: DwAt = DwAt(0x2901);
    pub(crate) const ELEM: DwAt = DwAt(0x2902);
    pub(crate) const RUNTIME_TYPE: DwAt = DwAt(0x2904);
    pub(crate) const DICT_INDEX: DwAt = DwAt(0x2906);
    pub(crate) const CLOSURE_OFFSET: DwAt = DwAt(0x2907);
}

/// How often each byte of `.debug_abbrev` may be read, on average. Units share one table in Go and have their own in C, so once is
/// enough; hostile units may each name another offset inside one long table.
const ABBREV_READS: usize = 8;

/// A compile unit written by Go's compiler or linker.
pub(super) struct Unit {
    /// Offset of its header in `.debug_info`.
    pub(super) offset: usize,
    /// One past its last byte.
    pub(super) end: usize,
    pub(super) abbrevs: Arc<Abbreviations>,
    /// `DW_AT_name`: the package.
    pub(super) package: Arc<str>,
    /// `DW_AT_low_pc`: what lists are relative to.
    pub(super) low_pc: u64,
    pub(super) addr_base: DebugAddrBase,
}

impl Unit {
    /// The unit's header. Parsing it again costs less than a second lifetime on everything that keeps units.
    pub(super) fn header<'s>(&self, sections: &'s Sections<'_>) -> gimli::Result<UnitHeader<Slice<'s>>> {
        sections.info().header_from_offset(DebugInfoOffset(self.offset))
    }
}

/// All Go units in section order. Units in other languages (cgo) are left out: the Go compiler describes the C types it uses itself.
pub(super) fn read_units(sections: &Sections<'_>, incidents: &mut Incidents) -> Vec<Unit> {
    let mut tables: FxHashMap<usize, Option<Arc<Abbreviations>>> = FxHashMap::default();
    let abbrev_section = sections.abbrev();
    let mut budget = abbrev_section.reader().len().saturating_mul(ABBREV_READS);
    let mut units = Vec::new();
    let mut headers = sections.info().units();
    loop {
        let header = match headers.next() {
            Ok(Some(header)) => header,
            Ok(None) => break,
            Err(_) => {
                incidents.count("dwarf.bad_unit_header");
                break;
            }
        };
        let Some(DebugInfoOffset(offset)) = header.debug_info_offset() else { continue };
        let table = tables.entry(header.debug_abbrev_offset().0).or_insert_with(|| {
            let mut table = *abbrev_section.reader();
            table.skip(header.debug_abbrev_offset().0).ok()?;
            table.truncate(budget.min(table.len())).ok()?;
            budget -= table_len(table).ok()?;
            header.abbreviations(&abbrev_section).ok().map(Arc::new)
        });
        let Some(abbrevs) = table.clone() else {
            incidents.count("dwarf.bad_abbreviations");
            continue;
        };
        let mut unit = Unit {
            offset,
            end: offset.saturating_add(header.length_including_self()),
            abbrevs,
            package: Arc::default(),
            low_pc: 0,
            addr_base: DebugAddrBase(0),
        };
        match read_root(sections, &header, &mut unit) {
            Ok(true) => units.push(unit),
            Ok(false) => {}
            Err(_) => incidents.count("dwarf.bad_unit_root"),
        }
    }
    units
}

/// Bytes of the abbreviation table at the start of `from`.
fn table_len(from: Slice<'_>) -> gimli::Result<usize> {
    let mut at = from;
    while !at.is_empty() && at.read_uleb128()? != 0 {
        at.skip_leb128()?;
        at.skip(1)?;
        loop {
            let (name, form) = (at.read_uleb128()?, at.read_uleb128()?);
            if form == u64::from(dw::DW_FORM_implicit_const.0) {
                at.skip_leb128()?;
            }
            if name == 0 && form == 0 {
                break;
            }
        }
    }
    Ok(from.len() - at.len())
}

/// Reads the unit's root DIE into `unit`; false if another compiler than Go's wrote it.
fn read_root(sections: &Sections<'_>, header: &UnitHeader<Slice<'_>>, unit: &mut Unit) -> gimli::Result<bool> {
    let abbrevs = Arc::clone(&unit.abbrevs);
    let mut entries = header.entries_raw(&abbrevs, None)?;
    let Some(abbrev) = entries.read_abbreviation()? else { return Ok(false) };
    let mut low_pc = AttributeValue::Addr(0);
    let mut is_go = false;
    for &spec in abbrev.attributes() {
        let attr = entries.read_attribute(spec)?;
        match attr.name() {
            dw::DW_AT_language => is_go = attr.udata_value() == Some(u64::from(dw::DW_LANG_Go.0)),
            dw::DW_AT_low_pc => low_pc = attr.raw_value(),
            dw::DW_AT_name => unit.package = String::from_utf8_lossy(string(sections, attr.raw_value())).into(),
            dw::DW_AT_addr_base => unit.addr_base = DebugAddrBase(attr.offset_value().unwrap_or(0)),
            _ => {}
        }
    }
    // Only now is the address base known that an indexed low_pc needs.
    unit.low_pc = address(sections, unit, header.address_size(), low_pc).unwrap_or(0);
    Ok(is_go && header.address_size() == 8)
}

fn address(sections: &Sections<'_>, unit: &Unit, size: u8, value: AttributeValue<Slice<'_>>) -> Option<u64> {
    match value {
        AttributeValue::Addr(address) => Some(address),
        AttributeValue::DebugAddrIndex(index) => sections.addr().get_address(size, unit.addr_base, index).ok(),
        _ => None,
    }
}

/// `DW_AT_location` as it stands in a DIE.
#[derive(Copy, Clone)]
pub(super) enum LocationAttr<'s> {
    None,
    Expression(Slice<'s>),
    List(usize),
}

/// The attributes of one DIE that matter for Go; absent references are 0 (no DIE lies there: a unit header does).
pub(super) struct Die<'s> {
    pub(super) tag: gimli::DwTag,
    pub(super) name: &'s [u8],
    /// `DW_AT_abstract_origin`, an offset in `.debug_info`, like all references here.
    pub(super) origin: usize,
    pub(super) ty: usize,
    pub(super) key: usize,
    pub(super) elem: usize,
    pub(super) byte_size: u64,
    pub(super) member_offset: u64,
    pub(super) count: u64,
    pub(super) go_kind: u8,
    pub(super) runtime_type: u64,
    pub(super) dict_index: Option<u64>,
    pub(super) closure_offset: Option<u64>,
    pub(super) const_value: Option<i64>,
    pub(super) decl_line: u64,
    pub(super) low_pc: Option<u64>,
    /// Exclusive end, absolute.
    pub(super) high_pc: Option<u64>,
    pub(super) ranges: Option<usize>,
    pub(super) location: LocationAttr<'s>,
}

/// Reads the attributes of the DIE whose abbreviation was just read from `entries`.
pub(super) fn read_die<'s>(
    sections: &'s Sections<'_>,
    unit: &Unit,
    entries: &mut EntriesRaw<'_, Slice<'s>>,
    abbrev: &Abbreviation,
) -> gimli::Result<Die<'s>> {
    let mut die = Die {
        tag: abbrev.tag(),
        name: &[],
        origin: 0,
        ty: 0,
        key: 0,
        elem: 0,
        byte_size: 0,
        member_offset: 0,
        count: 0,
        go_kind: 0,
        runtime_type: 0,
        dict_index: None,
        closure_offset: None,
        const_value: None,
        decl_line: 0,
        low_pc: None,
        high_pc: None,
        ranges: None,
        location: LocationAttr::None,
    };
    let mut high = None;
    for &spec in abbrev.attributes() {
        let attr = entries.read_attribute(spec)?;
        let value = attr.raw_value();
        match attr.name() {
            dw::DW_AT_name => die.name = string(sections, value),
            dw::DW_AT_abstract_origin | dw::DW_AT_specification => die.origin = reference(unit, value),
            dw::DW_AT_type => die.ty = reference(unit, value),
            dw::DW_AT_byte_size => die.byte_size = attr.udata_value().unwrap_or(0),
            dw::DW_AT_data_member_location => die.member_offset = attr.udata_value().unwrap_or(u64::MAX),
            dw::DW_AT_count => die.count = attr.udata_value().unwrap_or(0),
            dw::DW_AT_const_value => die.const_value = attr.sdata_value(),
            dw::DW_AT_decl_line => die.decl_line = attr.udata_value().unwrap_or(0),
            dw::DW_AT_low_pc => die.low_pc = address(sections, unit, 8, value),
            dw::DW_AT_high_pc => high = Some(value),
            dw::DW_AT_ranges => die.ranges = attr.offset_value(),
            dw::DW_AT_location => die.location = location(value),
            name => read_go_attribute(&mut die, unit, name, value),
        }
    }
    die.high_pc = match high {
        // An address is the end itself (Go before DWARF 5), a constant is the length.
        Some(value) => match address(sections, unit, 8, value) {
            Some(end) => Some(end),
            None => die.low_pc.and_then(|low| low.checked_add(value.udata_value()?)),
        },
        None => None,
    };
    Ok(die)
}

fn read_go_attribute(die: &mut Die<'_>, unit: &Unit, name: DwAt, value: AttributeValue<Slice<'_>>) {
    match name {
        go::KIND => die.go_kind = value.udata_value().map_or(0, |kind| kind as u8),
        go::KEY => die.key = reference(unit, value),
        go::ELEM => die.elem = reference(unit, value),
        go::RUNTIME_TYPE => {
            // The form is an address, the value is the descriptor's offset from moduledata.types.
            die.runtime_type = match value {
                AttributeValue::Addr(offset) => offset,
                other => other.udata_value().unwrap_or(0),
            }
        }
        go::DICT_INDEX => die.dict_index = value.udata_value(),
        go::CLOSURE_OFFSET => die.closure_offset = value.udata_value(),
        _ => {}
    }
}

fn string<'s>(sections: &'s Sections<'_>, value: AttributeValue<Slice<'s>>) -> &'s [u8] {
    match value {
        AttributeValue::String(s) => s.slice(),
        AttributeValue::DebugStrRef(offset) => sections.str().get_str(offset).map_or(&[], |s| s.slice()),
        AttributeValue::DebugLineStrRef(offset) => sections.line_str().get_str(offset).map_or(&[], |s| s.slice()),
        _ => &[],
    }
}

fn reference(unit: &Unit, value: AttributeValue<Slice<'_>>) -> usize {
    match value {
        AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => offset,
        AttributeValue::UnitRef(UnitOffset(offset)) => unit.offset.saturating_add(offset),
        _ => 0,
    }
}

fn location(value: AttributeValue<Slice<'_>>) -> LocationAttr<'_> {
    match value {
        AttributeValue::Block(bytes) => LocationAttr::Expression(bytes),
        AttributeValue::Exprloc(expression) => LocationAttr::Expression(expression.0),
        AttributeValue::SecOffset(offset) => LocationAttr::List(offset),
        AttributeValue::LocationListsRef(offset) => LocationAttr::List(offset.0),
        _ => LocationAttr::None,
    }
}
