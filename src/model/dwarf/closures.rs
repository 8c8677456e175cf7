//! Layouts of closure objects, from `DW_AT_go_closure_offset` on the variables of a closure's body (Go 1.23 and later).
//!
//! A variable captured by reference appears as `&x`, a pointer, and a pointer lies at the offset. A variable that is captured by
//! value appears as `x`; but if it is too large to be taken apart into registers, it appears as `&x` too, while the object holds the
//! value itself (`ssagen.buildssa`, "Populate closure variables"). The compiler lays captures out one after the other, so the room
//! up to the next one tells which.

use super::build::text;
use super::die::read_die;
use super::scan::FunctionEntry;
use super::{Capture, ClosureLayout, DebugInfo};
use crate::model::types::{Kind, TypeId, TypeTable};
use gimli::{UnitOffset, constants as dw};

/// Larger variables are always captured by reference (`escape.(*batch).flowClosure`).
const MAX_BY_VALUE: u64 = 128;

/// Parts that a variable may be taken apart into (`ssa.MaxStruct`).
const MAX_PARTS: usize = 4;

impl DebugInfo<'_> {
    /// The layout of the closure object whose code starts at `entry_link_pc`: captured variables by offset. None if no function
    /// starts there; without captures if the function is no closure, captures nothing, or was compiled before Go 1.23. Optimised
    /// bodies leave out captures that they do not use.
    ///
    /// * `types`: the table of this debug information, extended or not.
    #[must_use]
    pub fn closure_layout(&self, types: &TypeTable, entry_link_pc: u64) -> Option<ClosureLayout> {
        let function = self.function_at(entry_link_pc).filter(|function| function.low_pc == entry_link_pc)?;
        let function_name = text(self.function_name_of(function.die)?.0);
        let mut captures = self.read_captures(function).unwrap_or_default();
        captures.sort_by_key(|(_, offset, _)| *offset);
        captures.dedup_by_key(|(_, offset, _)| *offset);
        for (_, _, ty) in &mut captures {
            // The object holds its dictionary behind the captures, but all objects of one function agree where this answers.
            *ty = self.generics.resolve(types, &function_name, *ty).unwrap_or(*ty);
        }
        let last_by_value = captures.last().and_then(|last| value_type(types, last));
        for i in 1..captures.len() {
            let room = captures[i].1 - captures[i - 1].1;
            if let Some(ty) = value_type(types, &captures[i - 1])
                && types.get(ty).size <= room
            {
                let (name, _, type_here) = &mut captures[i - 1];
                *type_here = ty;
                *name = name.strip_prefix('&').unwrap_or(name).into();
            }
        }
        Some(ClosureLayout { function: function_name, captures, last_by_value })
    }

    fn read_captures(&self, function: FunctionEntry) -> Option<Vec<Capture>> {
        let unit = self.unit_at(function.die)?;
        let header = unit.header(&self.sections).ok()?;
        let mut entries = header.entries_raw(&unit.abbrevs, Some(UnitOffset(function.die - unit.offset))).ok()?;
        let mut captures = Vec::new();
        let mut depth = 0u32;
        while let Ok(abbrev) = entries.read_abbreviation() {
            let at = depth;
            match abbrev {
                None => depth = depth.saturating_sub(1),
                Some(abbrev) => {
                    depth += u32::from(abbrev.has_children());
                    let is_variable = matches!(abbrev.tag(), dw::DW_TAG_variable | dw::DW_TAG_formal_parameter);
                    if at == 1 && is_variable {
                        let Ok(die) = read_die(&self.sections, unit, &mut entries, abbrev) else { break };
                        if let Some(offset) = die.closure_offset
                            && let Some(variable) = self.resolve_variable(&die)
                        {
                            captures.push((text(variable.name), offset, variable.ty));
                        }
                    } else if entries.skip_attributes(abbrev.attributes()).is_err() {
                        break;
                    }
                }
            }
            if depth == 0 {
                break;
            }
        }
        Some(captures)
    }
}

/// The type of the variable behind `&x` if it may have been captured by value.
fn value_type(types: &TypeTable, (name, _, ty): &Capture) -> Option<TypeId> {
    match types.get(*ty).kind {
        Kind::Pointer(to) if name.starts_with('&') => {
            (types.get(to).size <= MAX_BY_VALUE && !is_taken_apart(types, to)).then_some(to)
        }
        _ => None,
    }
}

/// Whether the compiler keeps variables of this type in registers (`ssa.CanSSA`): those appear under their own name.
fn is_taken_apart(types: &TypeTable, ty: TypeId) -> bool {
    match types.get(ty).size {
        0 => return true,
        size if size > MAX_PARTS as u64 * 8 => return false,
        _ => {}
    }
    match &types.get(ty).kind {
        Kind::Array(elem, 1) => is_taken_apart(types, *elem),
        Kind::Array(..) => false,
        Kind::Struct(fields) => fields.len() <= MAX_PARTS && fields.iter().all(|f| is_taken_apart(types, f.ty)),
        _ => true,
    }
}
