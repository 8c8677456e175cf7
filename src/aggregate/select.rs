//! `--max-stacks`: keeps the heaviest stacks, folds the rest into `(other)`, conserves every total exactly.
//!
//! pprof needs about 25 s and 7 GB for a profile of a million stacks, so a profile holds the N stacks that weigh most:
//!
//! 1. Rank the stacks (nodes with objects of their own) by own bytes, then own objects, then path id; a partial selection
//!    finds the N heaviest in linear time.
//! 2. Every frame of a kept stack stays. What is dropped moves to one `(other)` frame under the nearest frame that stayed:
//!    the dropped stack's own last frame if it lies on a kept stack, else its nearest ancestor that does; a dropped stack
//!    that shares no frame with a kept one goes to a root-level `(other)`.
//!
//! So every frame that stays keeps its cumulative objects and bytes, and the sum of all samples is unchanged.
//! The working memory is 8 bytes per node and 16 per node that stays.

use super::{Amount, PathNode, PathTree, ROOT};

/// The frame of what `--max-stacks` folded away.
pub const OTHER: &str = "(other)";

/// A tree cut down to the heaviest stacks.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The tree to show: kept stacks, their frames, and `(other)` nodes after all others.
    pub tree: PathTree,
    /// Stacks of the full tree.
    pub stacks_before: u64,
    /// Stacks of the result, `(other)` stacks not counted.
    pub stacks_after: u64,
    /// How many of the result's stacks end in `(other)`.
    pub other_stacks: u64,
}

/// Keeps the `max_stacks` heaviest stacks of `tree`.
///
/// * A tree with no more stacks than that comes back unchanged.
/// * Cost: a few passes over the nodes; labels are moved, never copied.
#[must_use]
pub fn select_stacks(mut tree: PathTree, max_stacks: usize) -> Selection {
    // Node ids are u32 by construction of the tree (`parent` could not name others).
    let mut ranked: Vec<u32> = (0u32..).zip(&tree.nodes).filter(|(_, n)| n.is_stack()).map(|(id, _)| id).collect();
    let before = ranked.len();
    if before <= max_stacks {
        let stacks = before as u64;
        return Selection { tree, stacks_before: stacks, stacks_after: stacks, other_stacks: 0 };
    }
    if max_stacks > 0 {
        let nodes = &tree.nodes;
        ranked.select_nth_unstable_by(max_stacks - 1, |&a, &b| {
            let (x, y) = (&nodes[a as usize], &nodes[b as usize]);
            y.own_bytes.cmp(&x.own_bytes).then(y.own_objects.cmp(&x.own_objects)).then(a.cmp(&b))
        });
    }
    ranked.truncate(max_stacks);

    let mut keep = vec![Keep::No; tree.nodes.len()];
    for id in ranked {
        keep[id as usize] = Keep::Stack;
    }
    let (nodes, others) = rebuild(&tree.nodes, &mut keep);
    tree.nodes = nodes;
    let other_stacks = append_others(&mut tree, &others);
    Selection { tree, stacks_before: before as u64, stacks_after: max_stacks as u64, other_stacks }
}

/// What becomes of a node.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Keep {
    /// It goes; its own objects move to an `(other)`.
    No,
    /// It stays because a kept stack runs through it; its own objects move to an `(other)`.
    Frame,
    /// It stays with its own objects.
    Stack,
}

/// The nodes that stay, renumbered densely in their old order, and what each must take into its `(other)`.
/// The last entry of the second list is the root's.
fn rebuild(old: &[PathNode], keep: &mut [Keep]) -> (Vec<PathNode>, Vec<Amount>) {
    // Parents have lower ids than their children, so one backward pass marks all frames of kept stacks.
    for id in (0..old.len()).rev() {
        let parent = old[id].parent;
        if keep[id] != Keep::No && parent != ROOT && keep[parent as usize] == Keep::No {
            keep[parent as usize] = Keep::Frame;
        }
    }
    let staying = keep.iter().filter(|k| **k != Keep::No).count();
    let mut nodes: Vec<PathNode> = Vec::with_capacity(staying);
    let mut others = vec![Amount::default(); staying + 1];
    // New id of each node, or of its nearest ancestor that stays, or ROOT.
    let mut place: Vec<u32> = Vec::with_capacity(old.len());
    for (node, keep) in old.iter().zip(keep.iter()) {
        let parent = if node.parent == ROOT { ROOT } else { place[node.parent as usize] };
        let here = match keep {
            Keep::No => parent,
            Keep::Frame | Keep::Stack => {
                let own = if *keep == Keep::Stack { node.own() } else { Amount::default() };
                nodes.push(PathNode { parent, label: node.label, own_objects: own.objects, own_bytes: own.bytes });
                // Not more nodes than before, whose ids fit.
                nodes.len() as u32 - 1
            }
        };
        place.push(here);
        if *keep != Keep::Stack {
            others[if here == ROOT { staying } else { here as usize }] += node.own();
        }
    }
    (nodes, others)
}

/// Appends an `(other)` node under each node that must take something, in node order, the root's last.
fn append_others(tree: &mut PathTree, others: &[Amount]) -> u64 {
    let label = match tree.labels.iter().position(|l| &**l == OTHER) {
        Some(label) => label as u32,
        None => {
            tree.labels.push(OTHER.into());
            tree.labels.len() as u32 - 1
        }
    };
    let staying = tree.nodes.len();
    for (i, other) in others.iter().enumerate().filter(|(_, o)| !o.is_zero()) {
        let parent = if i == staying { ROOT } else { i as u32 };
        tree.nodes.push(PathNode { parent, label, own_objects: other.objects, own_bytes: other.bytes });
    }
    (tree.nodes.len() - staying) as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Builds a tree from `(parent, label, objects, bytes)`.
    pub(crate) fn tree(nodes: &[(u32, &str, u64, u64)]) -> PathTree {
        let mut tree = PathTree::default();
        for &(parent, text, own_objects, own_bytes) in nodes {
            let label = tree.labels.iter().position(|l| &**l == text).unwrap_or_else(|| {
                tree.labels.push(text.into());
                tree.labels.len() - 1
            });
            tree.nodes.push(PathNode { parent, label: label as u32, own_objects, own_bytes });
        }
        tree
    }

    /// All stacks as `a;b;c objects bytes`, in node order.
    fn stacks(tree: &PathTree) -> Vec<String> {
        let mut lines = Vec::new();
        for node in tree.nodes.iter().filter(|n| n.is_stack()) {
            let mut frames = vec![&*tree.labels[node.label as usize]];
            let mut at = node.parent;
            while at != ROOT {
                let up = &tree.nodes[at as usize];
                frames.push(&tree.labels[up.label as usize]);
                at = up.parent;
            }
            frames.reverse();
            lines.push(format!("{} {} {}", frames.join(";"), node.own_objects, node.own_bytes));
        }
        lines
    }

    /// main.cache(1,100) -> items.(2,50) -> [0].(1,400); items. -> [1].(1,8); main.log(1,16) -> buf.(1,16); main.empty.
    fn sample() -> PathTree {
        tree(&[
            (ROOT, "main.cache", 1, 100),
            (ROOT, "main.log", 1, 16),
            (ROOT, "main.empty", 0, 0),
            (0, "items.", 2, 50),
            (1, "buf.", 1, 16),
            (3, "[0].", 1, 400),
            (3, "[1].", 1, 8),
        ])
    }

    #[test]
    fn enough_room_changes_nothing() {
        for max in [6, 7, usize::MAX] {
            let selection = select_stacks(sample(), max);
            assert_eq!(selection.tree, sample());
            assert_eq!((selection.stacks_before, selection.stacks_after, selection.other_stacks), (6, 6, 0));
        }
    }

    #[test]
    fn drops_fold_under_the_nearest_frame_that_stays() {
        let selection = select_stacks(sample(), 1);
        assert_eq!((selection.stacks_before, selection.stacks_after, selection.other_stacks), (6, 1, 3));
        assert_eq!(
            stacks(&selection.tree),
            [
                "main.cache;items.;[0]. 1 400",
                "main.cache;(other) 1 100",
                "main.cache;items.;(other) 3 58",
                "(other) 2 32",
            ]
        );
    }

    #[test]
    fn equal_bytes_fall_back_to_objects_then_to_path_id() {
        let ties = tree(&[(ROOT, "a", 1, 64), (ROOT, "b", 2, 64), (ROOT, "c", 2, 64), (ROOT, "d", 1, 64)]);
        assert_eq!(stacks(&select_stacks(ties.clone(), 1).tree), ["b 2 64", "(other) 4 192"]);
        assert_eq!(stacks(&select_stacks(ties.clone(), 2).tree), ["b 2 64", "c 2 64", "(other) 2 128"]);
        assert_eq!(stacks(&select_stacks(ties, 3).tree), ["a 1 64", "b 2 64", "c 2 64", "(other) 1 64"]);
    }

    #[test]
    fn zero_keeps_only_other() {
        assert_eq!(stacks(&select_stacks(sample(), 0).tree), ["(other) 7 590"]);
    }

    #[test]
    fn empty_tree_is_fine() {
        let selection = select_stacks(PathTree::default(), 0);
        assert_eq!((selection.stacks_before, selection.tree.nodes.len()), (0, 0));
    }

    #[test]
    fn an_other_label_of_the_walk_is_reused() {
        let selection = select_stacks(tree(&[(ROOT, "(other)", 1, 8), (ROOT, "a", 1, 9)]), 1);
        assert_eq!(stacks(&selection.tree), ["a 1 9", "(other) 1 8"]);
        assert_eq!(selection.tree.labels.len(), 2);
    }

    /// A pseudo-random tree at every limit: totals and the cumulative value of every root that stays are conserved.
    #[test]
    fn conserves_totals_at_every_limit() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut next = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut big = PathTree { nodes: Vec::new(), labels: (0..40).map(|i| format!("l{i}").into()).collect() };
        for id in 0..2000u64 {
            let parent = if id < 20 { ROOT } else { next(id) as u32 };
            let own = next(4) * 16;
            big.nodes.push(PathNode { parent, label: next(40) as u32, own_objects: own / 16, own_bytes: own });
        }
        let total = big.total();
        for max in [0, 1, 2, 3, 10, 99, 500, 1400, 1999, 2000] {
            let selection = select_stacks(big.clone(), max);
            assert_eq!(selection.tree.total(), total, "max {max}");
            let kept = selection.tree.stacks() as u64 - selection.other_stacks;
            assert_eq!(kept, selection.stacks_after, "max {max}");
            assert_eq!(kept, selection.stacks_before.min(max as u64), "max {max}");
            for (id, node) in selection.tree.nodes.iter().enumerate() {
                assert!(node.parent == ROOT || (node.parent as usize) < id);
            }
        }
    }
}
