//! Two witnesses of what closures captured: the type that the code that makes them allocates, and debug information (Go 1.23+); and a
//! third, the bits that the collector follows.

use super::dump::Dump;
use super::heap::Object;
use super::values::What;
use super::values::size_of;
use std::collections::{BTreeMap, HashSet};

/// What was compared.
#[derive(Debug, Default)]
pub struct Compared {
    /// Functions whose closures are among the objects and have a known type.
    pub functions: usize,
    /// Captures that debug information has, too.
    pub captures: usize,
    /// What contradicts.
    pub wrong: Vec<String>,
}

/// Compares all closures among `reached`, of at most 512 bytes: what begins with the entry of a function whose closures are allocated.
pub fn compare(dump: &mut Dump<'_, '_>, reached: &HashSet<Object>) -> Compared {
    let memory = dump.memory();
    let mut by_code: BTreeMap<u64, Vec<Object>> = BTreeMap::new();
    for object in reached.iter().filter(|o| !memory.noscan(**o) && (16..=512).contains(&memory.size(**o))) {
        let code = memory.word(object.addr);
        let is_entry = dump.modules.list.iter().any(|m| m.text.contains(goref_fast::address::Addr(code)))
            && dump.function(code).is_some_and(|(entry, _)| entry == code);
        if is_entry {
            by_code.entry(code).or_default().push(*object);
        }
    }
    let mut compared = Compared::default();
    for (code, objects) in by_code {
        let Some((rtype, allocated)) = dump.closure_struct(code) else { continue };
        let memory = dump.memory();
        let name = dump.function(code).map_or_else(String::new, |(_, name)| name);
        compared.functions += 1;
        let mask = dump.masks.get(memory.image, rtype).map_or(0, |mask| mask.bits.first().copied().unwrap_or(0));
        for object in objects {
            let words = memory.pointer_words(object).into_iter().map(|at| 1u64 << ((at - object.addr) / 8));
            let words = words.fold(0, |a, b| a | b);
            if words != mask || allocated.size > memory.size(object) {
                let size = memory.size(object);
                compared
                    .wrong
                    .push(format!("{name}: {size} bytes with pointers {words:b}, allocated as {mask:b} {allocated:?}"));
            }
        }
        let link_pc = code.wrapping_sub(dump.process.load_bias);
        let Some(layout) = dump.debug.closure_layout(&dump.types, link_pc) else { continue };
        for (variable, offset, ty) in layout.captures_in(&dump.types, allocated.size).iter() {
            compared.captures += 1;
            let field = allocated.captures.iter().find(|(_, at, _)| at == offset);
            let known = field.and_then(|(_, _, rtype)| dump.type_of(rtype.0));
            let (said, known) = (dump.types.get(*ty), known.map(|ty| (ty, dump.types.get(ty))));
            let shape = |name: &str| name.contains("go.shape.");
            let same = known.is_some_and(|(ty, known)| {
                let size = size_of(&dump.types, &What::Value(ty));
                size == said.size && (known.name == said.name || shape(&known.name))
            });
            if !same {
                let known = known.map(|(_, known)| &known.name);
                compared.wrong.push(format!("{name}: {variable} at {offset} is {}, allocated as {known:?}", said.name));
            }
        }
    }
    compared
}
