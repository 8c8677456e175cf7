//! Unreachable objects explained, and what finalizers and cleanups hold: from allocation bits, marks, specials, and the path tree.

use super::Model;
use crate::address::Addr;
use crate::aggregate::{Amount, Busy, Garbage, GarbageClass, Held, PathTree, Queues, ROOT, TypeTotal};
use crate::image::Image;
use crate::model::heap::{Heap, Span, SpanId, Special, SpecialKind};
use crate::model::types::TypeTable;
use crate::roots::{Roots, specials};
use rayon::prelude::*;
use roaring::RoaringBitmap;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// Amounts by the address of a type, and by slot size and noscan.
#[derive(Default)]
struct Found {
    types: FxHashMap<u64, Amount>,
    classes: FxHashMap<(u64, bool), Amount>,
}

impl Found {
    fn merge(mut self, other: Self) -> Self {
        for (rtype, amount) in other.types {
            *self.types.entry(rtype).or_default() += amount;
        }
        for (class, amount) in other.classes {
            *self.classes.entry(class).or_default() += amount;
        }
        self
    }
}

/// What the allocated objects are that the walk did not reach.
///
/// * `reached`: marks by shard; `reached_in`: their number by span.
pub(super) fn explain(
    image: &dyn Image,
    model: &Model,
    reached: &[RoaringBitmap],
    reached_in: &[u32],
    all: Amount,
) -> Garbage {
    let heap = &model.heap;
    let found = reached_in.par_iter().enumerate().fold(Found::default, |mut found, (id, &reached_here)| {
        let id = SpanId(id as u32);
        let span = heap.span(id);
        let allocated: u64 = heap.alloc_bits(id).iter().map(|w| u64::from(w.count_ones())).sum();
        let mut rest = allocated.saturating_sub(u64::from(reached_here));
        if rest == 0 {
            return found;
        }
        let one = Amount { objects: 1, bytes: span.elem_size() };
        // Types are recorded for whole spans or not at all.
        if heap.object_offset(id) > 0 || heap.details(id).large_type != 0 {
            for slot in unreached(heap, reached, id) {
                if let Some(rtype) = heap.recorded_type(image, id, slot) {
                    *found.types.entry(rtype).or_default() += one;
                    rest = rest.saturating_sub(1);
                }
            }
        }
        if rest > 0 {
            let slot_bytes = if span.is_large() { 0 } else { span.elem_size() };
            *found.classes.entry((slot_bytes, span.noscan())).or_default() +=
                Amount { objects: rest, bytes: rest * span.elem_size() };
        }
        found
    });
    let found = found.reduce(Found::default, Found::merge);
    let mut classes: Vec<GarbageClass> = found
        .classes
        .into_iter()
        .map(|((slot_bytes, noscan), amount)| GarbageClass { slot_bytes, noscan, amount })
        .collect();
    classes.sort_unstable_by_key(|c| (u64::MAX - c.amount.bytes, c.slot_bytes, c.noscan));
    let totals = heap.totals();
    let with = |what: fn(&SpecialKind) -> bool| with_special(heap, reached, what);
    Garbage {
        all,
        unswept: Amount { objects: totals.dead_objects, bytes: totals.dead_bytes },
        finalizable: with(|kind| matches!(kind, SpecialKind::Finalizer { .. })),
        with_cleanup: with(|kind| matches!(kind, SpecialKind::Cleanup { .. })),
        types: named(image, model, found.types),
        classes,
    }
}

fn is_unreached(heap: &Heap, reached: &[RoaringBitmap], id: SpanId, slot: u32) -> bool {
    let span: &Span = heap.span(id);
    let marked = reached.get(usize::from(span.shard())).is_some_and(|marks| marks.contains(span.slot_base + slot));
    heap.is_allocated(id, slot) && !marked
}

fn unreached<'a>(heap: &'a Heap, reached: &'a [RoaringBitmap], id: SpanId) -> impl Iterator<Item = u32> + 'a {
    (0..u32::from(heap.span(id).nelems)).filter(move |slot| is_unreached(heap, reached, id, *slot))
}

/// Unreached objects that have a special of this kind, each once.
fn with_special(heap: &Heap, reached: &[RoaringBitmap], what: fn(&SpecialKind) -> bool) -> Amount {
    let mut last = None;
    let specials = heap.specials().iter().filter(|s| what(&s.kind));
    // Those of one object follow each other: a tiny block may have several.
    let objects = specials.filter(|s: &&Special| last.replace((s.span, s.slot)) != Some((s.span, s.slot)));
    let unreached = objects.filter(|s| is_unreached(heap, reached, s.span, s.slot));
    unreached.map(|s| Amount { objects: 1, bytes: heap.span(s.span).elem_size() }).sum()
}

/// By full type name, heaviest first.
fn named(image: &dyn Image, model: &Model, types: FxHashMap<u64, Amount>) -> Vec<TypeTotal> {
    // The walk has used up the type table; descriptors carry the same names.
    let (descriptors, mut table) = (model.descriptors.detached(), TypeTable::default());
    let mut names: BTreeMap<String, Amount> = BTreeMap::new();
    let mut rtypes: Vec<(u64, Amount)> = types.into_iter().collect();
    rtypes.sort_unstable_by_key(|(rtype, _)| *rtype);
    for (rtype, amount) in rtypes {
        let ty = descriptors.type_of(image, &model.module_types, &mut table, Addr(rtype));
        let name = ty.map_or_else(|| "(unknown type)".to_owned(), |ty| table.get(ty).name.to_string());
        *names.entry(name).or_default() += amount;
    }
    let mut totals: Vec<TypeTotal> =
        names.into_iter().map(|(name, Amount { objects, bytes })| TypeTotal { name, objects, bytes }).collect();
    totals.sort_by_key(|t| u64::MAX - t.bytes);
    totals
}

/// What was first reached through finalizers and cleanups, set and queued, and through the goroutines that run them.
pub(super) fn queues(model: &Model, roots: &Roots, tree: &PathTree) -> Queues {
    let busy: Vec<_> = model.queues.runners.iter().filter(|r| !r.idle).collect();
    let mut names = Names::default();
    let queued = |root: &'static str| vec![root, specials::QUEUED];
    for root in specials::KEPT {
        names.want(vec![root]);
        names.want(queued(root));
    }
    let mut labels: FxHashMap<u64, Vec<u32>> = busy.iter().map(|r| (r.goid, Vec::new())).collect();
    for root in &roots.roots {
        if let Some(list) = labels.get_mut(&root.goid) {
            list.push(root.label);
        }
    }
    for list in labels.values_mut() {
        list.sort_unstable();
        list.dedup();
        for label in list {
            names.want(roots.labels.frames(*label));
        }
    }
    let sums = names.sums(tree);
    let sum = |name: &[&str]| sums.get(&names.number(name)).copied().unwrap_or_default();
    let held = |queue: bool, roots: &[&'static str], records: u64| {
        let of = |root: &&'static str| {
            let (all, queued) = (sum(&[root]), sum(&queued(root)));
            let set = Amount { objects: all.objects - queued.objects, bytes: all.bytes - queued.bytes };
            if queue { queued } else { set }
        };
        Held { records, held: roots.iter().map(of).sum() }
    };
    let set = |what: fn(&SpecialKind) -> bool| model.heap.specials().iter().filter(|s| what(&s.kind)).count() as u64;
    let (finalizers, cleanups) = (&specials::KEPT[..2], &specials::KEPT[2..]);
    // Records that have run are cleared and stay until their block is done.
    let waiting = (
        model.queues.finalizers.iter().filter(|r| r.func != 0).count() as u64,
        model.queues.cleanups.iter().filter(|r| r.func != 0 || r.call != 0).count() as u64,
    );
    let goroutines = busy.iter().map(|runner| {
        let own: FxHashSet<u32> = labels[&runner.goid].iter().copied().collect();
        let others: FxHashSet<u32> =
            roots.roots.iter().filter(|r| r.goid != runner.goid && own.contains(&r.label)).map(|r| r.label).collect();
        let own = labels[&runner.goid].iter().filter(|label| !others.contains(label));
        let mut frames: Vec<Vec<&str>> = own.map(|label| roots.labels.frames(*label)).collect();
        frames.sort();
        // What lies below a name is in its sum already.
        frames.dedup_by(|longer, shorter| longer.starts_with(shorter));
        let heaviest = frames.iter().max_by_key(|name| (sum(name).bytes, std::cmp::Reverse(*name)));
        Busy {
            goid: runner.goid,
            runs: if runner.cleanups { "cleanups" } else { "finalizers" },
            state: runner.state.clone(),
            held: frames.iter().map(|name| sum(name)).sum(),
            shared: !others.is_empty(),
            through: heaviest.filter(|name| !sum(name).is_zero()).map_or_else(String::new, |name| name.join(" -> ")),
        }
    });
    Queues {
        set_finalizers: held(false, finalizers, set(|kind| matches!(kind, SpecialKind::Finalizer { .. }))),
        set_cleanups: held(false, cleanups, set(|kind| matches!(kind, SpecialKind::Cleanup { .. }))),
        queued_finalizers: held(true, finalizers, waiting.0),
        queued_cleanups: held(true, cleanups, waiting.1),
        goroutines: goroutines.collect(),
    }
}

/// Names of one or several frames, and what the path tree counts at and below them.
#[derive(Default)]
struct Names<'a> {
    /// Number of a name: that of the frames before its last one, and that frame. 0 is the empty name.
    numbers: FxHashMap<(u32, &'a str), u32>,
}

impl<'a> Names<'a> {
    fn want(&mut self, frames: Vec<&'a str>) {
        let mut number = 0;
        for frame in frames {
            let next = self.numbers.len() as u32 + 1;
            number = *self.numbers.entry((number, frame)).or_insert(next);
        }
    }

    /// 0: nobody wanted it.
    fn number(&self, frames: &[&str]) -> u32 {
        let mut number = 0;
        for frame in frames {
            match self.numbers.get(&(number, *frame)) {
                Some(next) => number = *next,
                None => return 0,
            }
        }
        number
    }

    /// Cumulative amounts by number of the name.
    fn sums(&self, tree: &PathTree) -> FxHashMap<u32, Amount> {
        // Which nodes are wanted; parents come before their children.
        let mut wanted: FxHashMap<u32, u32> = FxHashMap::default();
        for (node, path) in (0u32..).zip(&tree.nodes) {
            let parent = if path.parent == ROOT { Some(&0) } else { wanted.get(&path.parent) };
            let Some(parent) = parent else { continue };
            if let Some(number) = self.numbers.get(&(*parent, &*tree.labels[path.label as usize])) {
                wanted.insert(node, *number);
            }
        }
        let mut below: Vec<Amount> = tree.nodes.iter().map(crate::aggregate::PathNode::own).collect();
        for (node, path) in tree.nodes.iter().enumerate().rev() {
            if path.parent != ROOT {
                let own = below[node];
                below[path.parent as usize] += own;
            }
        }
        let mut sums: FxHashMap<u32, Amount> = FxHashMap::default();
        for (node, number) in wanted {
            *sums.entry(number).or_default() += below[node as usize];
        }
        sums
    }
}
