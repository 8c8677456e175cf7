//! From paths to a profile: the heaviest stacks, and their encoding.

use super::stage;
use criterion::{Criterion, Throughput};
use goref_fast::aggregate::{PathNode, PathTree, ROOT, select_stacks};
use goref_fast::output::Target;
use goref_fast::output::pprof::write_profile;
use rayon::ThreadPool;

/// Groups "path aggregation" (path nodes a second) and "pprof encoding" (bytes a second, before compression).
pub fn measure(
    criterion: &mut Criterion,
    name: &str,
    pools: &[ThreadPool],
    tree: &PathTree,
    target: &Target,
    max_stacks: usize,
) {
    let selection = select_stacks(tree.clone(), max_stacks);
    assert_eq!(selection.tree.total(), tree.total(), "{name}: selecting stacks loses nothing");
    assert!(selection.stacks_after <= max_stacks as u64, "{name}: more stacks than were asked for");
    let nodes = Throughput::Elements(tree.nodes.len() as u64);
    stage(criterion, ("path aggregation", name), nodes, pools, || tree.clone(), |tree| select_stacks(tree, max_stacks));

    let encode = || {
        let mut out = Vec::new();
        let size = write_profile(&mut out, &selection.tree, target, &[]).expect("a vector takes all");
        (out, size)
    };
    let (bytes, size) = encode();
    assert_eq!(size.samples, selection.tree.stacks() as u64, "{name}: samples against stacks");
    assert!(bytes == encode().0, "{name}: the same profile twice");
    stage(criterion, ("pprof encoding", name), Throughput::Bytes(size.raw_bytes), pools, || (), |()| encode());
}

/// A tree larger than folding leaves of real heaps: a million nodes, so that the budget for stacks cuts.
pub fn measure_synthetic(criterion: &mut Criterion, pools: &[ThreadPool]) {
    const NODES: u32 = 1 << 20;
    const LABELS: u32 = 5000;
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |n: u32| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % u64::from(n)) as u32
    };
    let nodes = (0..NODES).map(|i| {
        // Parents come from the later half of what is there: paths of some twenty frames.
        let parent = if i < 100 { ROOT } else { i - 1 - below(i / 2) };
        let own_objects = u64::from(below(1 << 10).saturating_sub(200));
        PathNode { parent, label: below(LABELS), own_objects, own_bytes: own_objects * 48 }
    });
    let tree = PathTree {
        nodes: nodes.collect(),
        labels: (0..LABELS).map(|i| format!("field{i}. (*main.Type{})", i % 700).into_boxed_str()).collect(),
    };
    measure(criterion, "a million paths", pools, &tree, &Target::default(), 50_000);
}
