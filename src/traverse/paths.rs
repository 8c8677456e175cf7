//! The path tree: a node is (parent, step). Nodes are numbered here and nowhere else, in canonical order, between the parallel phases.
//!
//! *Folding*: an edge that repeats a (label, type) already on the path reuses that ancestor's node, so a list of ten million nodes has one
//! path and a tree one per shape. *Budgets*: below `max_depth` frames, and beyond [`MAX_NODES`] nodes, an edge takes its parent's one
//! `(deeper)` node. Objects stay counted in every case.

use super::labels::{LabelId, Labels};
use super::scan::{NO_TYPE, Step};
use rustc_hash::FxHashMap;

/// Path nodes before every new edge goes to a `(deeper)` node. 4 Mi nodes cost about 250 MB with their index and are far beyond
/// what a person or pprof can use; real programs stay under 100 000 with folding.
pub const MAX_NODES: usize = 1 << 22;

/// Index of a path node.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId(pub u32);

/// Parent of a root.
pub const NO_PARENT: u32 = u32::MAX;

/// One node with what is counted on it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Parent node, [`NO_PARENT`] for roots.
    pub parent: u32,
    /// Frame text.
    pub label: LabelId,
    /// Type of the value that the frame names.
    pub ty: crate::model::types::TypeId,
    /// Frames from the root, itself included.
    pub depth: u32,
    /// On or below a `$sub_objects$` frame.
    pub masked: bool,
    /// Objects counted here.
    pub objects: u64,
    /// Their slots' bytes.
    pub bytes: u64,
}

/// The tree.
#[derive(Debug)]
pub struct Paths {
    nodes: Vec<Node>,
    children: FxHashMap<(u32, Step), PathId>,
    max_depth: u32,
    fold: bool,
    deeper: Step,
    sub_objects: Step,
    /// Edges that went to a `(deeper)` node for lack of path nodes.
    pub over_budget: u64,
}

impl Paths {
    /// An empty tree. `max_depth` counts frames, at least 1.
    #[must_use]
    pub fn new(labels: &mut Labels, max_depth: u32, fold: bool) -> Self {
        let step = |label| Step { label, ty: NO_TYPE };
        Self {
            nodes: Vec::new(),
            children: FxHashMap::default(),
            max_depth: max_depth.max(1),
            fold,
            deeper: step(labels.intern("(deeper)")),
            sub_objects: step(labels.intern("$sub_objects$")),
            over_budget: 0,
        }
    }

    /// The step of `$sub_objects$`.
    #[must_use]
    pub fn sub_objects(&self) -> Step {
        self.sub_objects
    }

    /// The root node for `step`.
    pub fn root(&mut self, step: Step) -> PathId {
        self.insert(NO_PARENT, step, 1)
    }

    /// The node that an edge labelled `step` leads to from `from`.
    pub fn child(&mut self, from: PathId, step: Step) -> PathId {
        if let Some(id) = self.children.get(&(from.0, step)) {
            return *id;
        }
        let parent = &self.nodes[from.0 as usize];
        if parent.label == self.deeper.label {
            return from;
        }
        // `$sub_objects$` repeats along every chain of untyped objects, so it folds even where folding is off: an untyped list
        // must not make a path per node.
        if let Some(ancestor) = self.repeated(from, step) {
            // Remembered like a child: the next level of a list asks again.
            self.children.insert((from.0, step), ancestor);
            return ancestor;
        }
        let depth = parent.depth + 1;
        if depth >= self.max_depth || self.nodes.len() >= MAX_NODES {
            self.over_budget += u64::from(depth < self.max_depth);
            return self.deeper(from);
        }
        self.insert(from.0, step, depth)
    }

    /// The one `(deeper)` child of `from`, or `from` itself if even that frame would be one too many.
    fn deeper(&mut self, from: PathId) -> PathId {
        let depth = self.nodes[from.0 as usize].depth + 1;
        if depth > self.max_depth {
            return from;
        }
        self.insert(from.0, self.deeper, depth)
    }

    /// The nearest node from `from` upwards that carries `step`, if such edges fold.
    fn repeated(&self, from: PathId, step: Step) -> Option<PathId> {
        if !self.fold && step != self.sub_objects {
            return None;
        }
        let mut at = from.0;
        while at != NO_PARENT {
            let node = &self.nodes[at as usize];
            if node.label == step.label && node.ty == step.ty && node.parent != NO_PARENT {
                return Some(PathId(at));
            }
            at = node.parent;
        }
        None
    }

    fn insert(&mut self, parent: u32, step: Step, depth: u32) -> PathId {
        if let Some(id) = self.children.get(&(parent, step)) {
            return *id;
        }
        let masked = step == self.sub_objects || (parent != NO_PARENT && self.nodes[parent as usize].masked);
        let id = PathId(u32::try_from(self.nodes.len()).expect("path nodes are bounded by the budget"));
        self.nodes.push(Node { parent, label: step.label, ty: step.ty, depth, masked, objects: 0, bytes: 0 });
        self.children.insert((parent, step), id);
        id
    }

    /// Counts objects on a node.
    pub fn count(&mut self, id: PathId, objects: u64, bytes: u64) {
        let node = &mut self.nodes[id.0 as usize];
        node.objects += objects;
        node.bytes += bytes;
    }

    /// All nodes, parents before children.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::TypeId;

    fn tree(max_depth: u32, fold: bool) -> (Labels, Paths) {
        let mut labels = Labels::default();
        let paths = Paths::new(&mut labels, max_depth, fold);
        (labels, paths)
    }

    #[test]
    fn repeated_edge_reuses_the_ancestor() {
        let (mut labels, mut paths) = tree(256, true);
        let root = paths.root(Step { label: labels.intern("main.head"), ty: TypeId(1) });
        let next = Step { label: labels.intern("next. (*main.Node)"), ty: TypeId(1) };
        let first = paths.child(root, next);
        assert_ne!(first, root);
        assert_eq!(paths.child(first, next), first);
        let other = Step { label: labels.intern("prev. (*main.Node)"), ty: TypeId(1) };
        let prev = paths.child(first, other);
        assert_ne!(prev, first);
        assert_eq!(paths.child(prev, next), first);
    }

    #[test]
    fn unfolded_paths_stop_at_max_depth() {
        let (mut labels, mut paths) = tree(4, false);
        let root = paths.root(Step { label: labels.intern("r"), ty: TypeId(1) });
        let next = Step { label: labels.intern("n"), ty: TypeId(1) };
        let mut at = root;
        for _ in 0..100 {
            at = paths.child(at, next);
        }
        let texts: Vec<_> = paths.nodes().iter().map(|n| labels.text(n.label)).collect();
        assert_eq!(texts, ["r", "n", "n", "(deeper)"]);
        assert_eq!(at, PathId(3));
    }
}
