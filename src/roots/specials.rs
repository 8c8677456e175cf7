//! Roots outside of stacks and segments: finalizers, cleanups, weak handles, their queues, open tiny blocks (`markrootSpans`,
//! `gcScanFinalizer`, `gcMarkTinyAllocs` in mgcmark.go).

use super::cleanups::Arguments;
use super::store::{Head, Store};
use super::{RootKind, Sources, Stratum};
use crate::address::{Addr, AddrRange, WORD};
use crate::image::Scratch;
use crate::model::heap::{Special, SpecialKind};
use crate::model::types::{Kind, TypeId};

const FINALIZER_OBJECT: &str = "runtime.SetFinalizer.obj";
const FINALIZER_FUNCTION: &str = "runtime.SetFinalizer.fn";
const CLEANUP_FUNCTION: &str = "runtime.AddCleanup.fn";
const CLEANUP_ARGUMENT: &str = "runtime.AddCleanup.arg";
/// The names of what finalizers (the first two) and cleanups keep alive.
pub const KEPT: [&str; 4] = [FINALIZER_OBJECT, FINALIZER_FUNCTION, CLEANUP_FUNCTION, CLEANUP_ARGUMENT];
/// The frame behind those names for records that wait to run, which hold the more the longer they wait.
pub const QUEUED: &str = "(queued)";
const WEAK_HANDLE: &str = "runtime.weakHandle";
const TINY_BLOCK: &str = "runtime.mcache.tiny";

/// Adds all of them.
pub(super) fn collect(sources: &Sources<'_, '_>, store: &mut Store) {
    let (func, arguments) = (any_func(sources), Arguments::default());
    let mut collector = Collector { sources, func, arguments, scratch: Scratch::default(), mask: Vec::new() };
    for special in sources.heap.specials() {
        collector.special(special, store);
    }
    for record in &sources.queues.finalizers {
        let fields = [("fn", record.func), ("fint", record.fint), ("ot", record.ot)];
        for (name, word) in fields {
            let ty = collector.func.filter(|_| name == "fn");
            single(store, RootKind::FinalizerFunction, &[FINALIZER_FUNCTION, QUEUED], ty, word, record.addr);
        }
        let ty = collector.pointer_type(record.ot);
        single(store, RootKind::FinalizerObject, &[FINALIZER_OBJECT, QUEUED], ty, record.arg, record.addr);
    }
    for record in &sources.queues.cleanups {
        collector.cleanup([record.call, record.func, record.arg], &[QUEUED], record.addr, store);
    }
    for tiny in &sources.queues.tiny {
        single(store, RootKind::TinyBlock, &[TINY_BLOCK], None, tiny.block, tiny.addr);
    }
}

/// Any func type: what a func value refers to is found by its code pointer, whatever the signature.
pub(super) fn any_func(sources: &Sources<'_, '_>) -> Option<TypeId> {
    let types = &sources.debug.types;
    let is_func = |id: &TypeId| matches!(types.get(*id).kind, Kind::Func);
    types.find("func()").filter(is_func).or_else(|| (0..types.len() as u32).map(TypeId).find(is_func))
}

fn single(store: &mut Store, kind: RootKind, name: &[&str], ty: Option<TypeId>, word: u64, addr: u64) {
    if word != 0 {
        let label = store.chain(name);
        let stratum = Stratum::Specials;
        store.single(Head { stratum, kind, conservative: false, label, ty, goid: 0, addr: Addr(addr) }, word);
    }
}

struct Collector<'s, 'a, 'img> {
    sources: &'s Sources<'a, 'img>,
    func: Option<TypeId>,
    arguments: Arguments,
    scratch: Scratch,
    mask: Vec<u64>,
}

impl Collector<'_, '_, '_> {
    /// The type whose descriptor lies at `rtype`, if it is a pointer type that DWARF knows.
    fn pointer_type(&self, rtype: u64) -> Option<TypeId> {
        let types = &self.sources.debug.types;
        let main = self.sources.modules.list.iter().find(|m| m.is_main && m.types.contains(Addr(rtype)))?;
        let id = types.find_rtype(rtype - main.types.start.0)?;
        matches!(types.get(id).kind, Kind::Pointer(_)).then_some(id)
    }

    fn special(&mut self, special: &Special, store: &mut Store) {
        match special.kind {
            SpecialKind::Finalizer { func, ot, .. } => {
                // Only fn is scanned: the types of a special are kept alive by whoever set it.
                single(store, RootKind::FinalizerFunction, &[FINALIZER_FUNCTION], self.func, func, special.addr);
                self.finalizer_object(special, ot, store);
            }
            SpecialKind::Cleanup { call, func, arg } => self.cleanup([call, func, arg], &[], special.addr, store),
            SpecialKind::WeakHandle { handle } => {
                single(store, RootKind::WeakHandle, &[WEAK_HANDLE], None, handle, special.addr);
            }
        }
    }

    /// * `state`: frames behind the names.
    fn cleanup(&mut self, [call, func, arg]: [u64; 3], state: &[&str], addr: u64, store: &mut Store) {
        let name = |name| [&[name], state].concat();
        for word in [func, call] {
            single(store, RootKind::CleanupFunction, &name(CLEANUP_FUNCTION), self.func, word, addr);
        }
        let ty = if arg == 0 { None } else { self.arguments.pointer(self.sources, func) };
        single(store, RootKind::CleanupArgument, &name(CLEANUP_ARGUMENT), ty, arg, addr);
    }

    /// What the object's words reach, but not the object itself. Its value begins at the special's offset (behind a malloc header,
    /// or inside a tiny block, which has no pointers).
    fn finalizer_object(&mut self, special: &Special, ot: u64, store: &mut Store) {
        let heap = self.sources.heap;
        let span = heap.span(special.span);
        if span.noscan() {
            return;
        }
        let base = heap.slot_addr(special.span, special.slot);
        self.mask.clear();
        heap.object_mask(self.sources.image, self.sources.masks, special.span, special.slot, &mut self.mask);
        let value = span.start.saturating_add(special.offset);
        let skip = value.wrapping_sub(base) / WORD;
        let Some(last) = self.mask.iter().rposition(|w| *w != 0) else { return };
        // Words behind the last pointer matter to the type of the last value only: a slice's length and capacity.
        let nwords = ((last as u64 + 1) * 64).min(span.elem_size() / WORD);
        if skip >= nwords {
            return;
        }
        let range = AddrRange { start: Addr(base + skip * WORD), len: (nwords - skip) * WORD };
        let loaded = self.sources.image.load(&[range], &mut self.scratch);
        let bytes = loaded.get(0);
        if bytes.is_empty() {
            store.incidents.count("specials.unreadable_object");
            return;
        }
        let first = store.words.len();
        for (i, word) in (skip..nwords).zip(bytes.chunks_exact(8)) {
            let pointer = self.mask[(i / 64) as usize] >> (i % 64) & 1 != 0;
            store.push(u64::from_le_bytes(word.try_into().expect("8 bytes")), pointer);
        }
        let types = &self.sources.debug.types;
        let ty = self.pointer_type(ot).and_then(|id| match types.get(id).kind {
            Kind::Pointer(elem) => Some(elem),
            _ => None,
        });
        let label = store.label(FINALIZER_OBJECT);
        let (stratum, kind) = (Stratum::Specials, RootKind::FinalizerObject);
        store.finish(first, Head { stratum, kind, conservative: false, label, ty, goid: 0, addr: range.start });
    }
}
