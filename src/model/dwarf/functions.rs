//! Functions by PC: their names and the variables in scope. Read on demand from `.debug_info`.
//!
//! A function that was inlined anywhere has an abstract DIE with names and types; its concrete DIE and every inlined call refer to
//! that by `DW_AT_abstract_origin` and add only ranges and locations.

use super::build::text;
use super::die::{Die, LocationAttr, Unit, read_die};
use super::location::evaluate;
use super::parts::{self, Found, split};
use super::scan::FunctionEntry;
use super::{DebugInfo, LocalVariable, Piece};
use crate::model::types::TypeId;
use gimli::{LocationListsOffset, RangeListsOffset, UnitOffset, constants as dw};
use std::sync::Arc;

/// Abstract origins and typedefs of typedefs: real chains have one or two links.
const MAX_LINKS: u32 = 16;

/// Scopes inside scopes; deeper ones are not read. Inlining nests a few dozen levels at most.
const MAX_SCOPES: usize = 1000;

/// Entries of location and range lists read for one question, so that a file full of references to one long list ends.
const LIST_BUDGET: u32 = 1 << 20;

/// A scope whose DIE was opened and not yet closed.
#[derive(Copy, Clone)]
struct Scope<'s> {
    /// Whether the PC lies in it and in all scopes around it.
    active: bool,
    depth: u32,
    /// Its name and package.
    function: (&'s [u8], &'s Arc<str>),
    /// It lies in an inlined call.
    inlined: bool,
}

/// What a variable's DIE and its abstract origin say together.
pub(super) struct Variable<'s> {
    pub(super) name: &'s [u8],
    /// `.ptr` if this is only that part of it.
    part: &'s [u8],
    pub(super) ty: TypeId,
    dict_index: Option<u64>,
    pub(super) is_param: bool,
    decl_line: u64,
}

impl DebugInfo<'_> {
    /// The variables in scope at `link_pc`, including those of the calls inlined there: by depth (innermost scope last), inside a
    /// scope parameters first, then in order of declaration. Variables that have no location at this PC come with no pieces.
    ///
    /// * `link_pc`: for a frame that is not the innermost, an address inside the call instruction (return address - 1).
    ///
    /// Cost: one pass over the function's DIEs for each PC, then a lookup.
    #[must_use]
    pub fn variables_at(&self, link_pc: u64) -> Arc<[LocalVariable]> {
        if let Some(found) = self.variables_by_pc.get(&link_pc) {
            return Arc::clone(&found);
        }
        let variables = match self.function_at(link_pc) {
            Some(function) => self.read_variables(function, link_pc).unwrap_or_default(),
            None => Vec::new(),
        };
        let variables: Arc<[LocalVariable]> = variables.into();
        Arc::clone(&self.variables_by_pc.entry(link_pc).or_insert(variables))
    }

    /// Full name of the function (not an inlined one) whose code holds `link_pc`.
    #[must_use]
    pub fn function_name(&self, link_pc: u64) -> Option<&str> {
        let function = self.function_at(link_pc)?;
        str::from_utf8(self.function_name_of(function.die)?.0).ok()
    }

    /// The type of what the function whose code starts at `entry_link_pc` takes, if that is one parameter and nothing is returned.
    #[must_use]
    pub fn only_parameter(&self, entry_link_pc: u64) -> Option<TypeId> {
        self.function_at(entry_link_pc).filter(|function| function.low_pc == entry_link_pc)?;
        let variables = self.variables_at(entry_link_pc);
        let mut parameters = variables.iter().filter(|variable| variable.is_param && variable.depth == 0);
        let first = parameters.next()?;
        parameters.next().is_none().then_some(first.ty)
    }

    /// The code of all functions of the package that the function around `link_pc` was compiled with, as start and end; and a number of
    /// that package.
    #[must_use]
    pub fn package_code(&self, link_pc: u64) -> Option<(usize, impl Iterator<Item = (u64, u64)> + '_)> {
        let unit = self.unit_at(self.function_at(link_pc)?.die)?;
        // No code is in two functions, whatever they claim: all packages together are as long as the program's code.
        let next_pc = |i: usize| self.functions.get(i + 1).map_or(u64::MAX, |next| next.low_pc);
        let functions = self.functions.iter().enumerate().filter(|(_, f)| (unit.offset..unit.end).contains(&f.die));
        Some((unit.offset, functions.map(move |(i, f)| (f.low_pc, f.high_pc.min(next_pc(i)).max(f.low_pc)))))
    }

    /// The function whose code holds `link_pc`.
    pub(super) fn function_at(&self, link_pc: u64) -> Option<FunctionEntry> {
        let after = self.functions.partition_point(|function| function.low_pc <= link_pc);
        let function = self.functions[after.checked_sub(1)?];
        (link_pc < function.high_pc).then_some(function)
    }

    fn die_at(&self, at: usize) -> Option<Die<'_>> {
        let unit = self.unit_at(at)?;
        let header = unit.header(self.sections(unit)).ok()?;
        let mut entries = header.entries_raw(&unit.abbrevs, Some(UnitOffset(at - unit.offset))).ok()?;
        let abbrev = entries.read_abbreviation().ok()??;
        read_die(self.sections(unit), unit, &mut entries, abbrev).ok()
    }

    /// The name of the function DIE at `at`, which may be concrete, abstract or an inlined call's origin, and the package that it was
    /// compiled in.
    pub(super) fn function_name_of(&self, mut at: usize) -> Option<(&[u8], &Arc<str>)> {
        for _ in 0..MAX_LINKS {
            let die = self.die_at(at)?;
            if !die.name.is_empty() {
                return Some((die.name, &self.unit_at(at)?.package));
            }
            at = die.origin;
        }
        None
    }

    fn read_variables(&self, function: FunctionEntry, pc: u64) -> Option<Vec<LocalVariable>> {
        let unit = self.unit_at(function.die)?;
        let header = unit.header(self.sections(unit)).ok()?;
        let mut entries = header.entries_raw(&unit.abbrevs, Some(UnitOffset(function.die - unit.offset))).ok()?;
        let mut budget = LIST_BUDGET;
        let mut scopes: Vec<Scope<'_>> = Vec::new();
        let mut found: Vec<Found<'_>> = Vec::new();
        while let Ok(abbrev) = entries.read_abbreviation() {
            let Some(abbrev) = abbrev else {
                scopes.pop();
                if scopes.is_empty() {
                    break;
                }
                continue;
            };
            let scope = scopes.last().copied().unwrap_or_else(|| Scope {
                active: true,
                depth: 0,
                function: self.function_name_of(function.die).unwrap_or((&[], &unit.package)),
                inlined: false,
            });
            let die = if scope.active {
                let Ok(die) = read_die(self.sections(unit), unit, &mut entries, abbrev) else { break };
                Some(die)
            } else {
                if entries.skip_attributes(abbrev.attributes()).is_err() {
                    break;
                }
                None
            };
            if let Some(die) = &die
                && !scopes.is_empty()
                && matches!(die.tag, dw::DW_TAG_variable | dw::DW_TAG_formal_parameter)
                && let Some(variable) = self.resolve_variable(die)
            {
                let pieces = self.pieces(unit, die, &variable, pc, &mut budget);
                let function = text(scope.function.0);
                // An inlined call may be of an instantiation that left no other trace.
                let resolve = || self.generics.resolve(&self.types, &function, variable.ty);
                let ty = if scope.inlined { None } else { resolve() };
                let ty = ty.unwrap_or(variable.ty);
                found.push(Found {
                    decl_line: variable.decl_line,
                    part: variable.part,
                    variable: LocalVariable {
                        function,
                        package: Arc::clone(scope.function.1),
                        name: text(variable.name),
                        ty,
                        is_param: variable.is_param,
                        dict_index: variable.dict_index,
                        depth: scope.depth,
                        pieces,
                    },
                });
            }
            if abbrev.has_children() {
                if scopes.len() >= MAX_SCOPES {
                    break;
                }
                scopes.push(match &die {
                    // The function itself: `pc` was found in it.
                    _ if scopes.is_empty() => scope,
                    Some(die) => self.open_scope(unit, die, scope, pc, &mut budget),
                    None => Scope { active: false, ..scope },
                });
            } else if scopes.is_empty() {
                break;
            }
        }
        Some(parts::join(found, &self.types))
    }

    fn open_scope<'s>(&'s self, unit: &Unit, die: &Die<'s>, around: Scope<'s>, pc: u64, budget: &mut u32) -> Scope<'s> {
        let is_call = die.tag == dw::DW_TAG_inlined_subroutine;
        let active = (is_call || die.tag == dw::DW_TAG_lexical_block) && self.covers(unit, die, pc, budget);
        let callee = if active && is_call { self.function_name_of(die.origin) } else { None };
        Scope {
            active,
            depth: around.depth + 1,
            function: callee.unwrap_or(around.function),
            inlined: around.inlined || is_call,
        }
    }

    /// Whether the code of the scope `die` holds `pc`.
    fn covers(&self, unit: &Unit, die: &Die<'_>, pc: u64, budget: &mut u32) -> bool {
        if let (Some(low), Some(high)) = (die.low_pc, die.high_pc) {
            return low <= pc && pc < high;
        }
        let (Some(offset), Ok(header)) = (die.ranges, unit.header(self.sections(unit))) else { return false };
        let sections = self.sections(unit);
        let (addr, lists) = (sections.addr(), sections.ranges());
        let pc = pc.wrapping_sub(unit.file.shift);
        let offset = RangeListsOffset(offset);
        let Ok(mut ranges) = lists.ranges(offset, header.encoding(), unit.low_pc, &addr, unit.addr_base) else {
            return false;
        };
        while let Ok(Some(range)) = ranges.next() {
            if range.begin <= pc && pc < range.end {
                return true;
            }
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
        }
        false
    }

    /// Where `variable` lies at `pc`.
    fn pieces(&self, unit: &Unit, die: &Die<'_>, variable: &Variable<'_>, pc: u64, budget: &mut u32) -> Vec<Piece> {
        let Ok(header) = unit.header(self.sections(unit)) else { return Vec::new() };
        let encoding = header.encoding();
        let size = self.types.get(variable.ty).size;
        let offset = match die.location {
            LocationAttr::Expression(bytes) => return evaluate(bytes, encoding, size),
            LocationAttr::List(offset) => LocationListsOffset(offset),
            LocationAttr::None => return Vec::new(),
        };
        let sections = self.sections(unit);
        let (addr, lists) = (sections.addr(), sections.locations());
        let pc = pc.wrapping_sub(unit.file.shift);
        let Ok(mut entries) = lists.locations(offset, encoding, unit.low_pc, &addr, unit.addr_base) else {
            return Vec::new();
        };
        while let Ok(Some(entry)) = entries.next() {
            if entry.range.begin <= pc && pc < entry.range.end {
                // A lone place of a variable in several words may be one word's: the stack maps tell (`roots::plan`).
                return evaluate(entry.data.0, encoding, size);
            }
            if *budget == 0 {
                break;
            }
            *budget -= 1;
        }
        Vec::new()
    }

    /// Name and type of a variable's DIE, from its abstract origin if it has one.
    pub(super) fn resolve_variable<'s>(&'s self, die: &Die<'s>) -> Option<Variable<'s>> {
        let (mut name, mut ty, mut decl_line) = (die.name, die.ty, die.decl_line);
        let mut is_param = die.tag == dw::DW_TAG_formal_parameter;
        let mut origin = die.origin;
        for _ in 0..MAX_LINKS {
            if origin == 0 || (!name.is_empty() && ty != 0) {
                break;
            }
            let from = self.die_at(origin)?;
            name = if name.is_empty() { from.name } else { name };
            ty = if ty == 0 { from.ty } else { ty };
            decl_line = if decl_line == 0 { from.decl_line } else { decl_line };
            is_param |= from.tag == dw::DW_TAG_formal_parameter;
            origin = from.origin;
        }
        let (ty, dict_index) = self.resolve_type(ty)?;
        let (name, part) = split(name);
        (!name.is_empty()).then_some(Variable { name, part, ty, dict_index, is_param, decl_line })
    }

    /// The type DIE at `at`, or what a function's own typedef `.paramN` there stands for, with N.
    fn resolve_type(&self, mut at: usize) -> Option<(TypeId, Option<u64>)> {
        let mut dict_index = None;
        for _ in 0..MAX_LINKS {
            if let Some(ty) = self.type_offsets.find(at) {
                return Some((ty, dict_index));
            }
            let die = self.die_at(at).filter(|die| die.tag == dw::DW_TAG_typedef)?;
            dict_index = dict_index.or(die.dict_index);
            at = die.ty;
        }
        None
    }
}
