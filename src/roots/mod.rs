//! STAGE 3: the words where the collector starts, as copied values with names and types, in a canonical order.
//!
//! The set of words is exactly the collector's (`markroot` in mgcmark.go): the pointer words of data and bss, the live words of
//! goroutine stacks, specials of spans and their queues, open tiny blocks. Names come from DWARF and never add a word. Each root is
//! one value: a package variable, a local variable, a run of words that nothing names. Values are copied because they lie in
//! registers, in several frame slots, or in stack memory that nobody else looks at; so the walk needs no knowledge of stacks.
//!
//! `globals` covers the modules' segments, `plan` names the slots of a frame once per PC (`pieces` repairs what DWARF says about
//! split variables), `stacks` applies plans to goroutines in parallel (`goroutine` one after the other, `objects` their stack objects,
//! `closures` those among them), `specials` adds what hangs off spans and queues, `cleanups` types their
//! arguments, `labels` holds names and call chains.

mod cleanups;
mod closures;
mod globals;
mod goroutine;
mod labels;
mod objects;
mod pieces;
mod plan;
pub mod specials;
mod spill;
mod stacks;
mod store;

pub use cleanups::declare_arguments;
pub use globals::Segment;
pub use labels::{Label, Labels};

use crate::address::Addr;
use crate::error::Result;
use crate::image::executable::Executable;
use crate::image::{Image, Thread};
use crate::incident::Incidents;
use crate::model::descriptors::Descriptors;
use crate::model::dwarf::DebugInfo;
use crate::model::heap::{Heap, TypeMasks};
use crate::model::modules::Modules;
use crate::model::queues::Queues;
use crate::model::types::{TypeId, TypeTable};
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// The order in which roots are walked, each stratum to its end before the next (in a breadth-first walk every root is at distance
/// zero, so an unlucky kind of root would steal what a variable holds).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stratum {
    /// Package variables outside of the runtime, then frame slots that variables name.
    Package,
    /// Variables of the runtime: package variables, then those of its functions' frames.
    Runtime,
    /// Live frame slots that no variable names.
    Unnamed,
    /// Finalizers, cleanups, weak handles, their queues, open tiny blocks.
    Specials,
    /// Data and bss words that no variable names.
    Segments,
    /// Words that are pointers only by their looks: the innermost frames of running and preempted threads and their registers.
    /// Last, so that exactly the objects that nothing else holds are credited here.
    Conservative,
}

/// What a root is; orders roots inside a stratum.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootKind {
    /// A package variable.
    Global,
    /// A local variable, argument or result.
    FrameVariable,
    /// Frame words, defer records and saved registers without a variable.
    FrameSlot,
    /// What the fields of an object with a finalizer reach.
    FinalizerObject,
    /// The function of a finalizer, and the types that its record holds.
    FinalizerFunction,
    /// The function of a cleanup.
    CleanupFunction,
    /// The argument of a cleanup.
    CleanupArgument,
    /// A weak pointer's handle.
    WeakHandle,
    /// The open tiny block of a P.
    TinyBlock,
    /// Words of a data segment.
    Data,
    /// Words of a bss segment.
    Bss,
}

/// One root value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// When it is walked.
    pub stratum: Stratum,
    /// What it is.
    pub kind: RootKind,
    /// Its words are pointers only by their looks.
    pub conservative: bool,
    /// Index into [`Roots::labels`].
    pub label: u32,
    /// Type of the value; `None`: every masked word is an untyped pointer.
    pub ty: Option<TypeId>,
    /// Length in words.
    pub nwords: u32,
    /// Index of its first word in [`Roots::words`].
    pub first_word: u64,
    /// Goroutine, 0 if none.
    pub goid: u64,
    /// Address of the value or of its first part in memory.
    pub addr: Addr,
}

/// All roots.
#[derive(Default, Debug)]
pub struct Roots {
    /// In canonical order: stratum, kind, label text, type name; inside those goroutine id and address.
    pub roots: Vec<Root>,
    /// Copied words of all values. A word whose mask bit is clear and that the process no longer has is 0.
    pub words: Vec<u64>,
    /// Bit `i % 64` of element `i / 64`: `words[i]` is a pointer to the collector and not nil.
    pub mask: Vec<u64>,
    /// Names and call chains.
    pub labels: Labels,
    /// Data and bss of all modules.
    pub segments: Vec<Segment>,
    /// Goroutines whose stacks were scanned.
    pub goroutines: u64,
    /// Physical frames of theirs.
    pub frames: u64,
    /// What could not be read or resolved.
    pub incidents: Incidents,
}

impl Roots {
    /// The words of `root`.
    #[must_use]
    pub fn values(&self, root: &Root) -> &[u64] {
        &self.words[root.first_word as usize..][..root.nwords as usize]
    }

    /// Whether word `i` of `root` is a pointer.
    #[must_use]
    pub fn is_pointer(&self, root: &Root, i: u32) -> bool {
        let at = root.first_word + u64::from(i);
        self.mask[(at / 64) as usize] >> (at % 64) & 1 != 0
    }

    /// The words of `root` that are pointers.
    pub fn pointers<'r>(&'r self, root: &'r Root) -> impl Iterator<Item = u64> + 'r {
        let pointers = (0..root.nwords).filter(|i| self.is_pointer(root, *i));
        pointers.map(|i| self.words[(root.first_word + u64::from(i)) as usize])
    }
}

/// What roots are collected from.
#[derive(Copy, Clone)]
pub struct Sources<'a, 'img> {
    /// The process's memory.
    pub image: &'a dyn Image,
    /// Its threads.
    pub threads: &'a [Thread],
    /// The executable.
    pub executable: &'a Executable<'img>,
    /// Its debug information.
    pub debug: &'a DebugInfo<'img>,
    /// The process's modules.
    pub modules: &'a Modules,
    /// The heap.
    pub heap: &'a Heap,
    /// Type descriptors.
    pub descriptors: &'a Descriptors,
    /// Masks of runtime types.
    pub masks: &'a TypeMasks,
    /// Finalizer and cleanup queues, open tiny blocks.
    pub queues: &'a Queues,
    /// What to add to the executable's addresses.
    pub load_bias: u64,
}

/// Collects all roots, in parallel over goroutines; the result does not depend on the number of threads.
///
/// # Errors
/// The debug information lacks a structure or field of the runtime that describes goroutines.
pub fn collect(sources: &Sources<'_, '_>) -> Result<Roots> {
    let mut store = store::Store::default();
    let segments = globals::collect(sources, &mut store);
    specials::collect(sources, &mut store);
    let scanned = stacks::collect(sources, &mut store)?;
    let store::Store { mut roots, words, mask, labels, incidents } = store;
    let (labels, place) = labels.sorted();
    for root in &mut roots {
        root.label = place[root.label as usize];
    }
    sort(&mut roots, &sources.debug.types);
    let (goroutines, frames) = scanned;
    Ok(Roots { roots, words, mask, labels, segments, goroutines, frames, incidents })
}

/// Canonical order. Label indices are in text order already.
fn sort(roots: &mut [Root], types: &TypeTable) {
    let mut used: Vec<TypeId> = roots.iter().filter_map(|r| r.ty).collect();
    used.sort_unstable();
    used.dedup();
    used.sort_by(|a, b| types.get(*a).name.cmp(&types.get(*b).name).then(a.cmp(b)));
    let rank: FxHashMap<TypeId, u32> = used.iter().zip(1..).map(|(ty, rank)| (*ty, rank)).collect();
    let rank = |root: &Root| root.ty.map_or(0, |ty| rank[&ty]);
    let key = |r: &Root| (r.stratum, r.kind, r.label, rank(r), r.goid, r.addr.0, r.first_word);
    roots.par_sort_unstable_by(|a, b| key(a).cmp(&key(b)));
}

/// Whether a package is the runtime's: `runtime`, `runtime/...`, `internal/runtime/...`.
fn is_runtime_package(package: &str) -> bool {
    package == "runtime" || package.starts_with("runtime/") || package.starts_with("internal/runtime/")
}

/// Whether `symbol` (a variable or function, `pkg/path.name`) belongs to a package of the runtime by its name.
#[must_use]
pub fn is_runtime_symbol(symbol: &str) -> bool {
    // The package path ends at the first dot behind its last slash; type arguments may contain both.
    let head = symbol.split('[').next().unwrap_or(symbol);
    let last = head.rfind('/').map_or(0, |i| i + 1);
    let package = head[last..].find('.').map_or(head, |dot| &head[..last + dot]);
    is_runtime_package(package)
}

#[cfg(test)]
mod tests {
    use super::is_runtime_symbol;

    #[test]
    fn runtime_packages() {
        for name in ["runtime.allgs", "runtime.(*mheap).alloc", "runtime/pprof.x", "internal/runtime/maps.(*Map).Get"] {
            assert!(is_runtime_symbol(name), "{name}");
        }
        for name in ["main.runtime", "example.com/runtime.x", "main.F[runtime.g]", "runtimes.x", "internal/runtimex.y"]
        {
            assert!(!is_runtime_symbol(name), "{name}");
        }
    }
}
