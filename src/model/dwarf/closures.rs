//! Layouts of closure objects, from `DW_AT_go_closure_offset` on the variables of a closure's body (Go 1.23 and later).
//!
//! A variable captured by reference appears as `&x`, a pointer, and a pointer lies at the offset. A variable that is captured by
//! value appears as `x`; but if it is too large to be taken apart into registers, it appears as `&x` too, while the object holds the
//! value itself (`ssagen.buildssa`, "Populate closure variables"). The compiler lays captures out one after the other, so the room
//! up to the next one tells which.

use super::build::text;
use super::die::{go, read_die};
use super::scan::FunctionEntry;
use super::{Capture, ClosureLayout, DebugInfo};
use crate::model::types::{Kind, TypeId, TypeTable};
use gimli::{Abbreviation, UnitOffset, constants as dw};

/// A variable in the outermost scope of a function: name, offset in the closure object if it says one, type.
type OwnVariable = (Box<str>, Option<u64>, TypeId);

/// Larger variables are always captured by reference (`escape.(*batch).flowClosure`).
const MAX_BY_VALUE: u64 = 128;

/// Parts that a variable may be taken apart into (`ssa.MaxStruct`).
const MAX_PARTS: usize = 4;

/// The compiler has some fifty kinds of entries.
const MAX_ABBREVS: u64 = 1 << 10;

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
        let variables = self.read_own_variables(function).unwrap_or_default();
        let mut captures: Vec<Capture> =
            variables.into_iter().filter_map(|(name, offset, ty)| Some((name, offset?, ty))).collect();
        captures.sort_by_key(|(_, offset, _)| *offset);
        captures.dedup_by_key(|(_, offset, _)| *offset);
        for (_, _, ty) in &mut captures {
            // The object holds its dictionary behind the captures, but all objects of one function agree where this answers.
            *ty = self.without_shapes(types, &function_name, *ty);
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

    /// Variables of the closure whose code starts at `entry_link_pc`, in its outermost scope, where debug information does not say what
    /// is captured (before Go 1.23); captured variables are among them unless the body makes no use of them.
    #[must_use]
    pub fn closure_variables(&self, entry_link_pc: u64) -> Vec<(Box<str>, TypeId)> {
        let read = || {
            let function = self.function_at(entry_link_pc).filter(|function| function.low_pc == entry_link_pc)?;
            // Compilers that know the attribute declare a kind of entry that has it.
            let abbrevs = &self.unit_at(function.die)?.abbrevs;
            let has_offset = |abbrev: &Abbreviation| abbrev.attributes().iter().any(|a| a.name() == go::CLOSURE_OFFSET);
            if (1..MAX_ABBREVS).map_while(|code| abbrevs.get(code)).any(has_offset) {
                return None;
            }
            self.read_own_variables(function)
        };
        read().unwrap_or_default().into_iter().map(|(name, _, ty)| (name, ty)).collect()
    }

    /// What a variable or captured value of `function` really is, if its type is made of shapes and the answer is certain.
    ///
    /// * `types`: the table of this debug information, extended or not.
    #[must_use]
    pub fn without_shapes(&self, types: &TypeTable, function: &str, ty: TypeId) -> TypeId {
        self.generics.resolve(types, function, ty).unwrap_or(ty)
    }

    /// Variables in the outermost scope of a function, but for its parameters.
    fn read_own_variables(&self, function: FunctionEntry) -> Option<Vec<OwnVariable>> {
        let unit = self.unit_at(function.die)?;
        let header = unit.header(self.sections(unit)).ok()?;
        let mut entries = header.entries_raw(&unit.abbrevs, Some(UnitOffset(function.die - unit.offset))).ok()?;
        let mut variables = Vec::new();
        let mut depth = 0u32;
        while let Ok(abbrev) = entries.read_abbreviation() {
            let at = depth;
            match abbrev {
                None => depth = depth.saturating_sub(1),
                Some(abbrev) => {
                    depth += u32::from(abbrev.has_children());
                    let is_variable = matches!(abbrev.tag(), dw::DW_TAG_variable | dw::DW_TAG_formal_parameter);
                    if at == 1 && is_variable {
                        let Ok(die) = read_die(self.sections(unit), unit, &mut entries, abbrev) else { break };
                        if let Some(variable) = self.resolve_variable(&die)
                            && (die.closure_offset.is_some() || !variable.is_param)
                        {
                            variables.push((text(variable.name), die.closure_offset, variable.ty));
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
        Some(variables)
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
