//! What arguments of cleanups are. A record (Go 1.26 and later) has the cleanup's function and a pointer to its argument, which no
//! descriptor describes: the function's own parameter says it.

use super::Sources;
use crate::address::Addr;
use crate::image::Image;
use crate::model::dwarf::DebugInfo;
use crate::model::heap::{Heap, SpecialKind};
use crate::model::queues::Queues;
use crate::model::types::{Kind, Type, TypeId, TypeTable};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Adds the types of pointers to arguments of cleanups that the executable does not name itself: of all that are set or queued.
///
/// * `load_bias`: what to add to the executable's addresses.
pub fn declare_arguments(debug: &mut DebugInfo<'_>, image: &dyn Image, heap: &Heap, queues: &Queues, load_bias: u64) {
    let set = heap.specials().iter().filter_map(|special| match special.kind {
        SpecialKind::Cleanup { func, arg, .. } if arg != 0 => Some(func),
        _ => None,
    });
    let queued = queues.cleanups.iter().filter(|record| record.arg != 0).map(|record| record.func);
    let mut arguments = Arguments::default();
    let types: BTreeSet<TypeId> =
        set.chain(queued).filter_map(|func| arguments.of(debug, image, load_bias, func)).collect();
    // Numbers of types enter no answer, but are to be the same for the same heap wherever its objects are.
    let mut names: Vec<(Box<str>, TypeId)> = types.into_iter().map(|ty| (pointer_name(&debug.types, ty), ty)).collect();
    names.sort();
    for (name, to) in names {
        if debug.types.find(&name).is_none() {
            debug.types.push(Type { name, size: 8, kind: Kind::Pointer(to), rtype_offset: 0 });
        }
    }
}

/// What the functions of cleanups take, by the address of their code.
#[derive(Default)]
pub(super) struct Arguments(FxHashMap<u64, Option<TypeId>>);

impl Arguments {
    /// The type of a pointer to what the cleanup `func` (a func value) takes; `None` if debug information does not say it.
    pub(super) fn pointer(&mut self, sources: &Sources<'_, '_>, func: u64) -> Option<TypeId> {
        let types = &sources.debug.types;
        let to = self.of(sources.debug, sources.image, sources.load_bias, func)?;
        let pointer = types.find(&pointer_name(types, to))?;
        matches!(types.get(pointer).kind, Kind::Pointer(elem) if elem == to).then_some(pointer)
    }

    fn of(&mut self, debug: &DebugInfo<'_>, image: &dyn Image, load_bias: u64, func: u64) -> Option<TypeId> {
        let code = image.read_u64(Addr(func)).ok()?;
        *self.0.entry(code).or_insert_with(|| {
            let ty = debug.only_parameter(code.wrapping_sub(load_bias))?;
            // A shape stands for all types that look alike.
            (!debug.types.get(ty).name.contains("go.shape.")).then_some(ty)
        })
    }
}

fn pointer_name(types: &TypeTable, to: TypeId) -> Box<str> {
    format!("*{}", types.get(to).name).into()
}
