//! Package variables by `.symtab` (`.dynsym` where that is all there is): name, address and size, no type.

use crate::image::executable::{Executable, Section};
use crate::model::dwarf::GlobalVariable;
use crate::model::types::{Kind, Type, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// Where variables lie. What has no pointers is of interest for the runtime's own.
const SECTIONS: [&str; 5] = [".go.module", ".noptrdata", ".data", ".bss", ".noptrbss"];

/// All variables of `files` with a symbol, by address; of a stripped file, those that it exports. The type of each is opaque and has the
/// symbol's size.
///
/// What only the compiler has names for (`main..stmp_7`, `main..dict.F`) is left out: it belongs to the variable that leads there.
///
/// * `files`: each with what is added to its addresses.
pub(super) fn variables(files: &[(&Executable<'_>, u64)], types: &mut TypeTable) -> Vec<GlobalVariable> {
    let mut opaque: FxHashMap<u64, TypeId> = FxHashMap::default();
    let mut variables = Vec::new();
    for (exe, shift) in files {
        let sections: Vec<&Section<'_>> = exe.sections().filter(|s| SECTIONS.contains(&s.name)).collect();
        let stripped = exe.symbols().next().is_none();
        for (name, symbol) in exe.symbols().chain(exe.exports().filter(|_| stripped)) {
            let inside = |s: &&&Section<'_>| {
                symbol.address.checked_sub(s.address).is_some_and(|at| at < s.size && symbol.size <= s.size - at)
            };
            let Ok(name) = str::from_utf8(name) else { continue };
            if symbol.size == 0 || name.contains("..") || !name.contains('.') || !sections.iter().any(|s| inside(&s)) {
                continue;
            }
            let ty = *opaque.entry(symbol.size).or_insert_with(|| {
                let name = format!("({} bytes)", symbol.size).into();
                types.push(Type { name, size: symbol.size, kind: Kind::Opaque, rtype_offset: 0 })
            });
            let address = symbol.address.wrapping_add(*shift);
            variables.push(GlobalVariable { name: name.into(), address, ty });
        }
    }
    variables.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
    variables
}
