//! Debug information: units parsed in parallel into a [`TypeTable`], package variables, functions and runtime constants.
//!
//! All addresses here are link-time addresses of the executable; the caller adds the load bias. Those of libraries are moved to where
//! they would have to be for that sum to be right.
//!
//! `sections` decompresses, `die` reads units and single DIEs, `scan` visits every DIE of a unit once, `build` turns type DIEs into
//! the table. What lies inside functions is read when asked for, by `functions`, `parts`, `closures` and `location`: a dump has goroutines at a few
//! hundred PCs, a program has a hundred thousand functions. `generics` finds the types behind shapes.

mod build;
mod closures;
mod die;
mod functions;
mod generics;
mod location;
mod parts;
mod scan;
mod sections;
#[cfg(test)]
pub(crate) mod tests;

use crate::architecture::Architecture;
use crate::error::Result;
use crate::image::executable::Executable;
use crate::incident::Incidents;
use crate::model::types::{TypeId, TypeTable};
use build::TypeOffsets;
use dashmap::DashMap;
use die::{FileBase, Unit};
use generics::Generics;
use rayon::prelude::*;
use rustc_hash::{FxBuildHasher, FxHashMap};
use scan::{FunctionEntry, UnitScan};
use sections::Sections;
use std::borrow::Cow;
use std::sync::Arc;

/// A package-level variable with a fixed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalVariable {
    /// `pkg/path.name`.
    pub name: Box<str>,
    /// Link-time address.
    pub address: u64,
    /// Its type.
    pub ty: TypeId,
}

/// Where (a part of) a variable lies.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// At canonical frame address (the caller's SP) plus this.
    Cfa(i64),
    /// In this DWARF register.
    Register(u16),
    /// The pointer at CFA plus this holds its address (an escaped variable, Go 1.25+).
    CfaDeref(i64),
    /// Not anywhere.
    Gone,
}

/// `size` bytes of a variable's value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset inside the value.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where these bytes are.
    pub at: Location,
}

/// A local variable, parameter or result in scope at a PC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalVariable {
    /// Innermost (inlined) function that declares it, full path.
    pub function: Box<str>,
    /// The package whose source declares that function: not always the one in its name, which may be linked from elsewhere
    /// (`sync.runtime_Semacquire` is the runtime's).
    pub package: Arc<str>,
    /// Source name; a leading `&` (an escaped variable's address) is kept. A part that the compiler gave its own place (`s.ptr`)
    /// has the name of the whole and its own type.
    pub name: Box<str>,
    /// Type of the value at the location (for `&x` the pointer type).
    pub ty: TypeId,
    /// Parameter or result.
    pub is_param: bool,
    /// Inside generic code: `ty` is only a shape (`go.shape.*uint8`), the real type's descriptor is entry `dict_index` of the
    /// dictionary, an array of words that the variable `.dict` of the same function points to.
    pub dict_index: Option<u64>,
    /// Scope depth: 0 is the function's own scope, inlined calls and lexical blocks add one each.
    pub depth: u32,
    /// The pieces at the PC; one piece of the whole size unless decomposed. Empty: optimised away there.
    pub pieces: Vec<Piece>,
}

/// A captured variable: name (a leading `&` is kept: captured by reference), byte offset in the closure object, type of what lies there.
pub type Capture = (Box<str>, u64, TypeId);

/// The function objects' layout behind a func value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosureLayout {
    /// Full name of the function.
    pub function: Box<str>,
    /// Captured variables by offset. Use [`ClosureLayout::captures_in`] if the object's size is known.
    pub captures: Vec<Capture>,
    /// DWARF describes large variables captured by value like references: only the room they take tells. For the last capture
    /// that is the size of the object; this is the variable's type if it may be one.
    pub last_by_value: Option<TypeId>,
}

impl ClosureLayout {
    /// The captures of a closure object that has `object_size` bytes of room (its slot).
    #[must_use]
    pub fn captures_in(&self, types: &TypeTable, object_size: u64) -> Cow<'_, [Capture]> {
        if let (Some(ty), Some((name, offset, _))) = (self.last_by_value, self.captures.last())
            && offset.checked_add(types.get(ty).size).is_some_and(|end| end <= object_size)
        {
            let mut captures = self.captures.clone();
            captures.pop();
            captures.push((name.strip_prefix('&').unwrap_or(name).into(), *offset, ty));
            return Cow::Owned(captures);
        }
        Cow::Borrowed(&self.captures)
    }
}

/// The executable's debug information: a [`TypeTable`] and what is needed to find variables by PC.
#[derive(Default)]
pub struct DebugInfo<'img> {
    /// All types that have a DIE.
    pub types: TypeTable,
    /// Package variables, by address.
    pub variables: Vec<GlobalVariable>,
    /// The same of all libraries. These also have what they share with the program, and do not use then.
    pub library_variables: Vec<GlobalVariable>,
    /// Integer constants of `runtime`, `internal/runtime/..` and `internal/abi`, by full name.
    pub constants: FxHashMap<String, i64>,
    /// What had to be skipped.
    pub incidents: Incidents,
    /// Of the executable; `None` without debug information.
    pub architecture: Option<&'static Architecture>,
    /// Of the program, then of its libraries.
    sections: Vec<Sections<'img>>,
    /// In the order of files and sections.
    units: Vec<Unit>,
    type_offsets: TypeOffsets,
    /// By `low_pc`.
    functions: Vec<FunctionEntry>,
    /// What stands behind the shapes of generic code.
    generics: Generics,
    /// Answers of [`DebugInfo::variables_at`]: many goroutines wait at the same PC.
    variables_by_pc: DashMap<u64, Arc<[LocalVariable]>, FxBuildHasher>,
}

impl<'img> DebugInfo<'img> {
    /// Reads the debug information of `exe`.
    ///
    /// Cost: sections are decompressed and units scanned in parallel; one pass over `.debug_info`.
    ///
    /// # Errors
    /// There is no `.debug_info`, or it does not decompress. Damaged units and other sections are counted instead.
    pub fn load(exe: &Executable<'img>) -> Result<Self> {
        Self::load_all(exe, &[])
    }

    /// As [`DebugInfo::load`], with the debug information of libraries (plugins) as far as they have any.
    ///
    /// * `libraries`: each with its load bias less that of `exe`.
    ///
    /// # Errors
    /// As [`DebugInfo::load`].
    pub fn load_all(exe: &Executable<'img>, libraries: &[(&Executable<'img>, u64)]) -> Result<Self> {
        let mut incidents = Incidents::default();
        let mut sections = vec![Sections::read(exe, &mut incidents)?];
        let mut units = die::read_units(&sections[0], FileBase::default(), &mut incidents);
        // Without it, none is missed in a library.
        let has_program = !units.is_empty();
        let mut offset = sections[0].info_len();
        for &(library, shift) in libraries {
            let Ok(read) = Sections::read(library, &mut incidents) else {
                incidents.add("dwarf.library_without_debug_information", u64::from(has_program));
                continue;
            };
            let file = FileBase { index: sections.len(), offset, shift };
            units.extend(die::read_units(&read, file, &mut incidents));
            offset = offset.saturating_add(read.info_len());
            sections.push(read);
        }
        let scans = scan_units(&sections, &units);
        incidents.add("dwarf.damaged_unit", scans.iter().filter(|scan| scan.damaged).count() as u64);

        let (types, type_offsets) = build::build_types(&scans, &mut incidents);
        let (mut variables, mut library_variables) = (Vec::new(), Vec::new());
        let mut constants = FxHashMap::default();
        let mut functions = Vec::new();
        for (unit, scan) in units.iter().zip(&scans) {
            let variables = if unit.file.index == 0 { &mut variables } else { &mut library_variables };
            for raw in &scan.variables {
                match type_offsets.find(raw.ty) {
                    Some(ty) => {
                        variables.push(GlobalVariable { name: build::text(raw.name), address: raw.address, ty });
                    }
                    None => incidents.count("dwarf.variable_without_type"),
                }
            }
            for (name, value) in &scan.constants {
                constants.entry(build::text(name).into_string()).or_insert(*value);
            }
            functions.extend_from_slice(&scan.functions);
        }
        drop(scans);
        for variables in [&mut variables, &mut library_variables] {
            variables.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
        }
        functions.sort_unstable();
        let files = std::iter::once((exe, 0)).chain(libraries.iter().copied());
        let symbols =
            files.flat_map(|(file, shift)| file.symbols().map(move |(n, s)| (n, s.address.wrapping_add(shift))));
        let generics = Generics::read(symbols, &types);
        Ok(Self {
            types,
            variables,
            library_variables,
            constants,
            incidents,
            architecture: Some(exe.architecture()),
            sections,
            units,
            type_offsets,
            functions,
            generics,
            variables_by_pc: DashMap::default(),
        })
    }

    /// Whether `exe` has any, in itself or in its debug file.
    #[must_use]
    pub fn is_in(exe: &Executable<'_>) -> bool {
        exe.has_debug_info() || exe.debug_file().is_some()
    }

    /// Whether it describes the program itself, and not only its libraries or what cgo has compiled.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.units.iter().any(|unit| unit.file.index == 0)
    }

    /// What is known of an executable without debug information, in the same form: no function has variables.
    ///
    /// * `variables`: by address; an opaque type stands for one that nobody knows.
    #[must_use]
    pub fn without_dwarf(types: TypeTable, variables: Vec<GlobalVariable>, constants: FxHashMap<String, i64>) -> Self {
        Self { types, variables, constants, ..Self::default() }
    }

    /// Whether this is what DWARF says; else it is what is known without.
    #[must_use]
    pub fn is_dwarf(&self) -> bool {
        !self.units.is_empty()
    }

    /// Whether a dictionary of generic code lies at this link-time address; `None` if the symbols that tell are gone.
    #[must_use]
    pub fn is_dictionary(&self, address: u64) -> Option<bool> {
        self.generics.is_dictionary(address)
    }

    /// The sections that `unit` is in.
    fn sections(&self, unit: &Unit) -> &Sections<'img> {
        &self.sections[unit.file.index]
    }

    /// The Go unit that holds offset `at` of `.debug_info`.
    fn unit_at(&self, at: usize) -> Option<&Unit> {
        let unit = &self.units[self.units.partition_point(|unit| unit.offset <= at).checked_sub(1)?];
        (at < unit.end).then_some(unit)
    }
}

/// Scans all units; results in section order. The largest go first, so that none is left alone at the end.
fn scan_units<'s>(sections: &'s [Sections<'_>], units: &[Unit]) -> Vec<UnitScan<'s>> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(units[i].end - units[i].offset));
    let mut scanned: Vec<(usize, UnitScan<'s>)> = order
        .par_iter()
        .with_max_len(1)
        .map(|&i| (i, scan::scan_unit(&sections[units[i].file.index], &units[i])))
        .collect();
    scanned.sort_by_key(|(i, _)| *i);
    scanned.into_iter().map(|(_, scan)| scan).collect()
}
