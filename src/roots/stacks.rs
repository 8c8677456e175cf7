//! Roots of goroutine stacks: what `scanstack` (mgcmark.go) marks, with names.
//!
//! Goroutines are cut into batches of a fixed number, so that neither threads nor timing can show in the result; a batch loads its
//! goroutines and stacks together (a live process answers many ranges at once) and fills a [`Store`] of its own. Pointers into the
//! goroutine's own stack are not roots: they make the stack object that they hit one, transitively.

use super::Sources;
use super::closures::FrameClosure;
use super::goroutine::{GoroutineScan, Work};
use super::labels::Interner;
use super::plan::{self, Plan};
use super::specials::any_func;
use super::store::Store;
use crate::address::{Addr, AddrRange};
use crate::error::Result;
use crate::image::Scratch;
use crate::model::closures::Closures;
use crate::model::stacks::{
    CodeCache, CodeId, Entry, FrameCode, FrameMode, Goroutine, LocalCodes, StackLayout, StackMemory, Threads,
    read_goroutines,
};
use crate::model::types::TypeId;
use dashmap::DashMap;
use rayon::prelude::*;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::sync::Arc;

/// Goroutines of a batch. Large enough that looking up what the goroutines share (codes, plans, labels) disappears in the cost of
/// their frames; small enough to spread a few thousand goroutines over the workers. Part of the result's order only through goid.
const BATCH: usize = 256;
/// Stack bytes loaded at once, unless a single stack is larger: what a live process must copy.
const LOAD_BYTES: u64 = 1 << 20;

/// Elements from here on share a name.
const MANY: usize = 10;

/// Plans shared by the workers.
type Plans = DashMap<(u64, FrameMode), Arc<Plan>, FxBuildHasher>;

/// Scans all goroutines into `store`; returns how many, and their frames.
///
/// # Errors
/// The debug information does not describe goroutines.
pub(super) fn collect(sources: &Sources<'_, '_>, store: &mut Store) -> Result<(u64, u64)> {
    // Go 1.27 scans `g.xRegs.state`; 1.26 has the field, but its collector does not look there.
    let scans_xregs = sources.modules.func_named(sources.image, "runtime.xRegScan").is_some();
    let layout = StackLayout::find(&sources.debug.types, scans_xregs)?;
    let allgs = read_allgs(sources, store);
    let codes = CodeCache::new(sources.executable.architecture(), sources.image, sources.modules);
    let plans = Plans::default();
    let threads = Threads::new(sources.threads);
    let types = SavedTypes { func: any_func(sources), defer: sources.debug.types.find("*runtime._defer") };
    let shared = Shared {
        sources,
        layout: &layout,
        codes: &codes,
        plans: &plans,
        threads: &threads,
        types,
        closures: Closures::default(),
    };
    let batches: Vec<Batch<'_>> = allgs.par_chunks(BATCH).map(|gs| shared.scan_batch(gs)).collect();
    let mut totals = (0, 0);
    for batch in batches {
        totals.0 += batch.goroutines;
        totals.1 += batch.frames;
        let labels = merge_labels(&mut store.labels, &batch.labels.list);
        store.append(batch.store, &labels);
    }
    Ok(totals)
}

/// The elements of `runtime.allgs`.
fn read_allgs(sources: &Sources<'_, '_>, store: &mut Store) -> Vec<u64> {
    let Some(variable) = sources.debug.variables.iter().find(|v| &*v.name == "runtime.allgs") else {
        store.incidents.count("stack.no_allgs");
        return Vec::new();
    };
    let header = Addr(variable.address.wrapping_add(sources.load_bias));
    let words = (sources.image.read_u64(header), sources.image.read_u64(header.add(8)));
    let (Ok(array), Ok(len)) = words else {
        store.incidents.count("stack.unreadable_allgs");
        return Vec::new();
    };
    let mut scratch = Scratch::default();
    let range = AddrRange { start: Addr(array), len: len.saturating_mul(8) };
    let bytes = if range.len > 1 << 30 { &[][..] } else { sources.image.load(&[range], &mut scratch).get(0) };
    if bytes.is_empty() && len > 0 {
        store.incidents.count("stack.unreadable_allgs");
    }
    bytes.chunks_exact(8).map(|g| u64::from_le_bytes(g.try_into().expect("8 bytes"))).collect()
}

/// Numbers of a batch's labels in `into`.
fn merge_labels(into: &mut Interner, labels: &[(Option<u32>, Arc<str>)]) -> Vec<u32> {
    let mut place: Vec<u32> = Vec::with_capacity(labels.len());
    for (parent, name) in labels {
        place.push(into.intern(parent.map(|p| place[p as usize]), name));
    }
    place
}

/// What all batches read.
pub(super) struct Shared<'s, 'a, 'img> {
    pub(super) sources: &'s Sources<'a, 'img>,
    pub(super) layout: &'s StackLayout,
    pub(super) codes: &'s CodeCache<'s>,
    pub(super) types: SavedTypes,
    /// What closures are allocated as.
    pub(super) closures: Closures,
    plans: &'s Plans,
    threads: &'s Threads<'s>,
}

/// Types of what a goroutine's own records refer to.
#[derive(Copy, Clone)]
pub(super) struct SavedTypes {
    /// Any func type.
    pub(super) func: Option<TypeId>,
    /// `*runtime._defer`.
    pub(super) defer: Option<TypeId>,
}

impl<'s> Shared<'s, '_, '_> {
    fn scan_batch(&self, gs: &[u64]) -> Batch<'s> {
        let mut batch = Batch {
            store: Store::default(),
            codes: LocalCodes::new(self.codes),
            plans: FxHashMap::default(),
            labels: BatchLabels::default(),
            closures: FxHashMap::default(),
            dictionaries: FxHashMap::default(),
            goroutines: 0,
            frames: 0,
        };
        let mut scratch = Scratch::default();
        let (image, layout) = (self.sources.image, self.layout);
        let goroutines = read_goroutines(image, layout, gs, &mut scratch, &mut batch.store.incidents);
        let entries: Vec<Entry> =
            goroutines.iter().map(|g| self.threads.entry(g, image, layout, &mut batch.codes)).collect();
        let ranges: Vec<AddrRange> = goroutines.iter().zip(&entries).map(|(g, e)| stack_range(g, e)).collect();
        let mut work = Work::default();
        let mut from = 0;
        while from < goroutines.len() {
            let mut to = from + 1;
            let mut bytes = ranges[from].len;
            while to < goroutines.len() && bytes + ranges[to].len <= LOAD_BYTES {
                bytes += ranges[to].len;
                to += 1;
            }
            let loaded = image.load(&ranges[from..to], &mut scratch);
            for i in from..to {
                let bytes = loaded.get(i - from);
                if (bytes.len() as u64) < ranges[i].len {
                    batch.store.incidents.count("stack.unreadable");
                }
                let memory = StackMemory::new(ranges[i].start.0, bytes);
                GoroutineScan { shared: self, batch: &mut batch, work: &mut work, g: &goroutines[i], memory }
                    .run(&entries[i]);
            }
            from = to;
        }
        batch
    }

    /// The plan of frames at `code`.
    pub(super) fn plan(&self, code: &FrameCode, mode: FrameMode) -> BatchPlan {
        let key = (code.pc, mode);
        if let Some(known) = self.plans.get(&key) {
            return BatchPlan(known.clone());
        }
        let plan = Arc::new(self.build_plan(code, mode));
        // Two workers may build the same plan: the contents are equal, so either may stay.
        BatchPlan(self.plans.entry(key).or_insert(plan).clone())
    }

    fn build_plan(&self, code: &FrameCode, mode: FrameMode) -> Plan {
        let continues = match mode {
            FrameMode::Trapped => code.deferreturn_pc.and_then(|pc| self.codes.get(pc)),
            _ => None,
        };
        let maps = if mode == FrameMode::Trapped { continues.as_deref() } else { Some(code) };
        // A return address may already lie in the next scope; an interrupted instruction is where it is.
        let at_call = matches!(mode, FrameMode::Exact | FrameMode::Conservative) && code.pc != code.entry;
        let (debug, architecture) = (self.sources.debug, self.sources.executable.architecture());
        let link_pc = code.pc.wrapping_sub(self.sources.load_bias);
        let here = debug.variables_at(link_pc);
        if at_call {
            plan::build(
                architecture,
                code,
                maps,
                mode,
                &debug.variables_at(link_pc.wrapping_sub(1)),
                &here,
                &debug.types,
            )
        } else {
            plan::build(architecture, code, maps, mode, &here, &[], &debug.types)
        }
    }
}

/// From where on a stack is looked at.
fn stack_range(g: &Goroutine, entry: &Entry) -> AddrRange {
    let from = match entry {
        Entry::Unwind { start, .. } => Addr(start.sp),
        Entry::Unknown => g.stack.start,
    };
    AddrRange::from_bounds(from, g.stack.end())
}

/// The result of one batch.
pub(super) struct Batch<'c> {
    pub(super) store: Store,
    pub(super) codes: LocalCodes<'c, 'c>,
    pub(super) plans: FxHashMap<(CodeId, FrameMode), Arc<BatchPlan>>,
    pub(super) labels: BatchLabels,
    /// Closures by entry of their code.
    pub(super) closures: FxHashMap<u64, Option<Arc<FrameClosure>>>,
    /// Types by dictionary and entry.
    pub(super) dictionaries: FxHashMap<(u64, u64), Option<TypeId>>,
    pub(super) goroutines: u64,
    pub(super) frames: u64,
}

/// A batch's own handle of a shared plan: taking it for every frame does not touch a reference count that other workers use.
pub(super) struct BatchPlan(Arc<Plan>);

impl std::ops::Deref for BatchPlan {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// Labels of a batch: found by the identity of shared texts, no string is compared.
#[derive(Default)]
pub(super) struct BatchLabels {
    pub(super) list: Vec<(Option<u32>, Arc<str>)>,
    /// By address of the text, which a plan keeps alive.
    names: FxHashMap<usize, u32>,
    /// By parent and function number.
    chains: FxHashMap<(Option<u32>, u32), u32>,
    /// By parent and element.
    elements: FxHashMap<(u32, usize, TypeId), u32>,
    /// By parent, and code and capture of a closure.
    captures: FxHashMap<(u32, (u64, usize)), u32>,
}

impl BatchLabels {
    /// The label of a variable.
    pub(super) fn name(&mut self, text: &Arc<str>) -> u32 {
        let list = &mut self.list;
        *self.names.entry(Arc::as_ptr(text).cast::<u8>() as usize).or_insert_with(|| {
            list.push((None, text.clone()));
            list.len() as u32 - 1
        })
    }

    /// The label of element `i`, of type `ty` named `elem`, of the slice named `parent`.
    pub(super) fn element(&mut self, parent: u32, i: usize, ty: TypeId, elem: &str) -> u32 {
        let (list, i) = (&mut self.list, i.min(MANY));
        *self.elements.entry((parent, i, ty)).or_insert_with(|| {
            let index = if i < MANY { i.to_string() } else { format!("{MANY}+") };
            list.push((Some(parent), format!("[{index}]. ({elem})").into()));
            list.len() as u32 - 1
        })
    }

    /// The label of a closure's capture `key` below `parent`; `names` makes that of the function and that of the variable.
    pub(super) fn capture(&mut self, parent: u32, key: (u64, usize), names: impl FnOnce() -> [Arc<str>; 2]) -> u32 {
        let list = &mut self.list;
        *self.captures.entry((parent, key)).or_insert_with(|| {
            let [function, variable] = names();
            list.push((Some(parent), function));
            list.push((Some(list.len() as u32 - 1), variable));
            list.len() as u32 - 1
        })
    }

    /// The label of a call chain: `parent` called `code`.
    pub(super) fn call(&mut self, parent: Option<u32>, code: &FrameCode) -> u32 {
        let list = &mut self.list;
        *self.chains.entry((parent, code.func)).or_insert_with(|| {
            list.push((parent, code.name.clone()));
            list.len() as u32 - 1
        })
    }
}
