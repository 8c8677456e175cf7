//! STAGE 5: from what the walk counted to what is shown.
//!
//! In: a [`PathTree`] (paths with their own objects and bytes) and a [`TypeTotal`] per type. Out: the tree cut down to the
//! heaviest stacks ([`Selection`]), the tables of the heaviest roots and types ([`Row`]), and the books ([`Totals`], [`Books`]).
//! Nothing here depends on thread count or timing: every order is total.

pub mod books;
pub mod select;
pub mod tables;
pub mod totals;

pub use books::{Beside, Books, Busy, Check, ClassTotals, Garbage, GarbageClass, Held, Queues};
pub use select::{OTHER, Selection, select_stacks};
pub use tables::{Row, heaviest_roots, heaviest_types};
pub use totals::{Amount, Totals};

/// The parent of a root-level path node.
pub const ROOT: u32 = u32::MAX;

/// One path: its parent's frames and one more frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PathNode {
    /// Index of the parent node, always lower than the node's own, or [`ROOT`].
    pub parent: u32,
    /// The frame: index into [`PathTree::labels`].
    pub label: u32,
    /// Objects counted on exactly this path.
    pub own_objects: u64,
    /// Slot bytes of those objects.
    pub own_bytes: u64,
}

impl PathNode {
    /// True if objects were counted on exactly this path, so that it is a stack of the profile.
    #[must_use]
    pub fn is_stack(&self) -> bool {
        self.own_objects != 0 || self.own_bytes != 0
    }

    /// What was counted on exactly this path.
    #[must_use]
    pub fn own(&self) -> Amount {
        Amount { objects: self.own_objects, bytes: self.own_bytes }
    }
}

/// All paths of a walk.
///
/// Node ids (indexes) are in canonical order with parents before their children; fewer than `u32::MAX` nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathTree {
    /// The nodes, in canonical order.
    pub nodes: Vec<PathNode>,
    /// Frame texts. Not every label needs a node.
    pub labels: Vec<Box<str>>,
}

impl PathTree {
    /// The sum over all nodes: what the profile's samples add up to.
    #[must_use]
    pub fn total(&self) -> Amount {
        self.nodes.iter().map(PathNode::own).sum()
    }

    /// How many nodes are stacks of the profile.
    #[must_use]
    pub fn stacks(&self) -> usize {
        self.nodes.iter().filter(|n| n.is_stack()).count()
    }
}

/// What the walk counted for one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeTotal {
    /// Full Go type name.
    pub name: String,
    /// Objects of this type.
    pub objects: u64,
    /// Their slot bytes.
    pub bytes: u64,
}
