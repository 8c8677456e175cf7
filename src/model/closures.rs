//! What closures captured. Since Go 1.23 debug information says where a captured variable lies in the object; before, and for closures that
//! the compiler makes (`gowrap`, `deferwrap`), it does not. But a closure that is allocated has a type of its own, and the code that makes
//! it names both:
//!
//! ```text
//! LEAQ type:struct { F uintptr; X0 *T }(SB), AX
//! CALL runtime.newobject
//! LEAQ pkg.F.func1(SB), CX
//! MOVQ CX, (AX)
//! ```
//!
//! So in the functions of the package, the function address that follows the descriptor of such a struct, with no other descriptor or
//! function between, is the code of closures of that type. Code that makes the closure in a frame names no type, and one function's
//! closures all have one type: it is an error of ours if two are found, and then there is none.

use crate::address::{Addr, AddrRange};
use crate::image::{Image, Scratch};
use crate::model::descriptors::{Descriptors, ModuleTypes};
use crate::model::dwarf::{Capture, DebugInfo};
use crate::model::modules::Modules;
use crate::model::release::references::Machine;
use crate::model::types::{Kind, TypeId, TypeTable};
use dashmap::DashMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::sync::Arc;

/// Longest function that is searched, in bytes; generated ones have some hundred kilobytes.
const MAX_CODE: u64 = 16 << 20;

/// What is read to know closures.
#[derive(Copy, Clone)]
pub struct Surroundings<'a, 'img> {
    /// The process's memory.
    pub image: &'a dyn Image,
    /// Its modules.
    pub modules: &'a Modules,
    /// The executable's debug information.
    pub debug: &'a DebugInfo<'img>,
    /// Type descriptors.
    pub descriptors: &'a Descriptors,
    /// What to add to the executable's addresses.
    pub load_bias: u64,
}

/// By the entry of a closure's code the descriptor of its objects; `None` if there seem to be two.
type Sites = FxHashMap<u64, Option<Addr>>;

/// What the code of packages says of closures; read when one of the package is met.
#[derive(Default)]
pub struct Closures {
    packages: DashMap<usize, Arc<Sites>, FxBuildHasher>,
}

impl Closures {
    /// The captures of closure objects with `room` bytes whose code starts at `entry` (an address of the process), by offset, and the
    /// function's name as debug information has it.
    ///
    /// * `types`: the table of the debug information; extended by types that only descriptors know. Call this in canonical order.
    pub fn captures(
        &self,
        from: &Surroundings<'_, '_>,
        types: &mut TypeTable,
        entry: u64,
        room: u64,
    ) -> (Option<Box<str>>, Vec<Capture>) {
        let link_pc = entry.wrapping_sub(from.load_bias);
        let Some(layout) = from.debug.closure_layout(types, link_pc) else { return (None, Vec::new()) };
        let mut captures = layout.captures_in(types, room).into_owned();
        let allocated =
            self.descriptor(from, entry).and_then(|rtype| from.descriptors.closure_struct(from.image, rtype));
        if let Some(allocated) = allocated.filter(|allocated| allocated.size <= room) {
            let variables = from.debug.closure_variables(link_pc);
            let said = captures.len();
            let modules = from.modules.list.iter();
            let modules: Vec<_> =
                modules.map(|m| ModuleTypes { types: m.types.start, etypes: m.types.end() }).collect();
            let mut more = Vec::new();
            for (name, offset, rtype) in allocated.captures {
                let Some(ty) = from.descriptors.type_of(from.image, &modules, types, rtype) else { continue };
                let ty = from.debug.without_shapes(types, &layout.function, ty);
                let end = offset.saturating_add(types.get(ty).size);
                let is_new = captures.iter().all(|(_, at, known)| end <= *at || at + types.get(*known).size <= offset);
                if is_new && end <= allocated.size {
                    more.push((name.into(), offset, ty));
                }
            }
            if said == 0 {
                name_captures(types, &mut more, &variables);
            }
            captures.extend(more);
            captures.sort_by_key(|(_, offset, _)| *offset);
        }
        (Some(layout.function), captures)
    }

    /// The descriptor of closure objects whose code starts at `entry` (an address of the process), if the code that makes them was found.
    #[must_use]
    pub fn descriptor(&self, from: &Surroundings<'_, '_>, entry: u64) -> Option<Addr> {
        let (package, code) = from.debug.package_code(entry.wrapping_sub(from.load_bias))?;
        let known = self.packages.get(&package).map(|sites| Arc::clone(&sites));
        let sites = known.unwrap_or_else(|| {
            let sites = Arc::new(find_sites(from, code));
            Arc::clone(&self.packages.entry(package).or_insert(sites))
        });
        *sites.get(&entry)?
    }
}

/// Reads the code of a package.
fn find_sites(from: &Surroundings<'_, '_>, code: impl Iterator<Item = (u64, u64)>) -> Sites {
    let mut sites = Sites::default();
    let machine = from.debug.architecture.and_then(Machine::of);
    let (Some(machine), Some(main)) = (machine, from.modules.list.first()) else { return sites };
    let mut scratch = Scratch::default();
    for (start, end) in code {
        let start = start.wrapping_add(from.load_bias);
        let range = AddrRange::from_bounds(Addr(start), Addr(end.wrapping_add(from.load_bias)));
        if !main.text.contains(Addr(start)) || range.len > MAX_CODE {
            continue;
        }
        let loaded = from.image.load(&[range], &mut scratch);
        let mut last = None;
        machine.each_address(loaded.get(0), start, |addr| {
            if main.descriptors.contains(Addr(addr)) {
                last = Some(Addr(addr)).filter(|rtype| from.descriptors.closure_struct(from.image, *rtype).is_some());
            } else if main.text.contains(Addr(addr))
                && let Some(rtype) = last.take()
            {
                let site = sites.entry(addr).or_insert(Some(rtype));
                if *site != Some(rtype) {
                    *site = None;
                }
            }
        });
    }
    sites
}

/// Gives captures the names of the variables that they are, where one variable and one capture are alone with their type.
///
/// * `variables`: of the closure's body, `&x` for one that the object has the address of, or that is too large for registers.
fn name_captures(types: &TypeTable, captures: &mut [Capture], variables: &[(Box<str>, TypeId)]) {
    let same = |a: TypeId, b: TypeId| a == b || types.get(a).name == types.get(b).name;
    // The name that a variable would give to a capture of type `ty`.
    let given = |(name, of): &(Box<str>, TypeId), ty: TypeId| match (name.strip_prefix('&'), &types.get(*of).kind) {
        (Some(plain), Kind::Pointer(to)) if same(*to, ty) => Some(Box::from(plain)),
        _ => same(*of, ty).then(|| name.clone()),
    };
    let named: Vec<Option<Box<str>>> = captures
        .iter()
        .map(|(field, _, ty)| {
            let numbered = field.strip_prefix('X').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            if !numbered {
                // Up to Go 1.20 fields have the names of variables, without what tells a reference.
                return variables
                    .iter()
                    .find_map(|v| given(v, *ty).filter(|name| name.strip_prefix('&') == Some(field)));
            }
            let mut fitting = variables.iter().filter(|variable| given(variable, *ty).is_some());
            let variable = fitting.next().filter(|_| fitting.next().is_none())?;
            let taken = captures.iter().filter(|(_, _, ty)| given(variable, *ty).is_some()).count();
            if taken == 1 { given(variable, *ty) } else { None }
        })
        .collect();
    for (capture, name) in captures.iter_mut().zip(named) {
        capture.0 = name.unwrap_or_else(|| std::mem::take(&mut capture.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::Type;

    /// Types by name; `*T` points to `T`.
    fn table(names: &[&str]) -> TypeTable {
        let mut types = TypeTable::default();
        for name in names {
            let kind =
                name.strip_prefix('*').map_or(Kind::Scalar, |of| Kind::Pointer(types.find(of).expect("listed before")));
            types.push(Type { name: (*name).into(), size: 8, kind, rtype_offset: 0 });
        }
        types
    }

    fn named(fields: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<String> {
        let types = table(&["int", "T", "*T", "**T"]);
        let ty = |name: &str| types.find(name).expect("in the table");
        let mut captures: Vec<Capture> = fields.iter().map(|(name, of)| ((*name).into(), 8, ty(of))).collect();
        let variables: Vec<_> = variables.iter().map(|(name, of)| ((*name).into(), ty(of))).collect();
        name_captures(&types, &mut captures, &variables);
        captures.into_iter().map(|(name, ..)| name.into_string()).collect()
    }

    #[test]
    fn a_variable_and_a_field_alone_with_their_type() {
        assert_eq!(named(&[("X0", "*T"), ("X1", "int")], &[("t", "*T"), ("n", "int")]), ["t", "n"]);
        // By reference; by value, but too large for registers.
        assert_eq!(named(&[("X0", "*T"), ("X1", "int")], &[("&t", "*T")]), ["&t", "X1"]);
        assert_eq!(named(&[("X0", "T")], &[("&t", "*T")]), ["t"]);
        // The compiler's own.
        assert_eq!(named(&[("R", "*T"), (".dict", "int")], &[("t", "*T"), ("n", "int")]), ["R", ".dict"]);
    }

    #[test]
    fn doubtful_ones_keep_the_name_of_their_field() {
        assert_eq!(named(&[("X0", "*T"), ("X1", "*T")], &[("t", "*T")]), ["X0", "X1"]);
        assert_eq!(named(&[("X0", "*T")], &[("t", "*T"), ("local", "*T")]), ["X0"]);
        // One variable, which may be either.
        assert_eq!(named(&[("X0", "*T"), ("X1", "T")], &[("&t", "*T")]), ["X0", "X1"]);
        assert_eq!(named(&[("X0", "*T")], &[]), ["X0"]);
    }

    #[test]
    fn fields_named_by_variables() {
        assert_eq!(named(&[("t", "*T"), ("u", "*T"), ("v", "T")], &[("&t", "*T"), ("u", "*T")]), ["&t", "u", "v"]);
    }
}
