//! Paths of the typed reference: every node knows its frames; folding looks at them one by one.

use super::values::Step;
use std::collections::{BTreeMap, HashMap};

struct Node {
    parent: Option<usize>,
    step: Step,
    depth: usize,
    objects: u64,
    bytes: u64,
}

/// All paths, in order of first use.
#[derive(Default)]
pub struct Paths {
    nodes: Vec<Node>,
    known: HashMap<(Option<usize>, Step), usize>,
    max_depth: usize,
    fold: bool,
}

pub const SUB_OBJECTS: &str = "$sub_objects$";
const DEEPER: &str = "(deeper)";

impl Paths {
    pub fn new(max_depth: u32, fold: bool) -> Self {
        Self { max_depth: max_depth as usize, fold, ..Self::default() }
    }

    pub fn root(&mut self, step: Step) -> usize {
        self.insert(None, step)
    }

    /// The path of an edge from `from`.
    pub fn child(&mut self, from: usize, step: &Step) -> usize {
        if self.nodes[from].step.0 == DEEPER {
            return from;
        }
        // An edge that is on the path already leads to where it was.
        let folds = self.fold || step.0 == SUB_OBJECTS;
        let mut at = Some(from);
        while let Some(i) = at.filter(|_| folds) {
            let node = &self.nodes[i];
            if node.step == *step && node.parent.is_some() {
                return i;
            }
            at = node.parent;
        }
        match self.nodes[from].depth {
            depth if depth + 1 < self.max_depth => self.insert(Some(from), step.clone()),
            depth if depth < self.max_depth => self.insert(Some(from), (DEEPER.to_owned(), None)),
            _ => from,
        }
    }

    fn insert(&mut self, parent: Option<usize>, step: Step) -> usize {
        let depth = parent.map_or(1, |p| self.nodes[p].depth + 1);
        *self.known.entry((parent, step.clone())).or_insert_with(|| {
            self.nodes.push(Node { parent, step, depth, objects: 0, bytes: 0 });
            self.nodes.len() - 1
        })
    }

    pub fn count(&mut self, path: usize, bytes: u64) {
        self.nodes[path].objects += 1;
        self.nodes[path].bytes += bytes;
    }

    /// Whether it is on or below `$sub_objects$`.
    pub fn is_masked(&self, path: usize) -> bool {
        std::iter::successors(Some(path), |i| self.nodes[*i].parent).any(|i| self.nodes[i].step.0 == SUB_OBJECTS)
    }

    /// Its frames, root first, by lines.
    pub fn text(&self, path: usize) -> String {
        let ancestors = std::iter::successors(Some(path), |i| self.nodes[*i].parent);
        let mut frames: Vec<&str> = ancestors.map(|i| self.nodes[i].step.0.as_str()).collect();
        frames.reverse();
        frames.join("\n")
    }

    /// Objects and bytes by the frames' text.
    pub fn counted(&self) -> BTreeMap<String, (u64, u64)> {
        let mut counted = BTreeMap::new();
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.objects > 0) {
            let sum: &mut (u64, u64) = counted.entry(self.text(i)).or_default();
            sum.0 += node.objects;
            sum.1 += node.bytes;
        }
        counted
    }
}
