//! Names of roots: one frame, or a call chain. Chains share prefixes, so they are nodes with a parent: a recursion of a hundred
//! thousand calls costs a hundred thousand nodes, not their square.

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// One frame of a name; the frames before it are its parent's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// Index of the label that names the frames before this one.
    pub parent: Option<u32>,
    /// Text of the frame.
    pub name: Arc<str>,
}

/// All labels. In [`crate::roots::Roots`] a label's index is its rank in text order (frame by frame), and parents come first.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    list: Vec<Label>,
}

impl Labels {
    /// The label `id`.
    #[must_use]
    pub fn get(&self, id: u32) -> &Label {
        &self.list[id as usize]
    }

    /// Number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The frames of label `id`, outermost first.
    #[must_use]
    pub fn frames(&self, id: u32) -> Vec<&str> {
        let mut frames: Vec<&str> =
            std::iter::successors(Some(id), |id| self.get(*id).parent).map(|id| &*self.get(id).name).collect();
        frames.reverse();
        frames
    }
}

/// Builds [`Labels`]: equal names get equal numbers.
#[derive(Default, Debug)]
pub(super) struct Interner {
    list: Vec<Label>,
    index: FxHashMap<Label, u32>,
}

impl Interner {
    /// The number of `name` below `parent`.
    pub(super) fn intern(&mut self, parent: Option<u32>, name: &Arc<str>) -> u32 {
        let label = Label { parent, name: name.clone() };
        if let Some(id) = self.index.get(&label) {
            return *id;
        }
        let id = u32::try_from(self.list.len()).expect("fewer than 2^32 labels");
        self.list.push(label.clone());
        self.index.insert(label, id);
        id
    }

    /// Labels in text order, and the place of each old number in it.
    pub(super) fn sorted(self) -> (Labels, Vec<u32>) {
        drop(self.index);
        let mut children: Vec<u32> = (0..self.list.len() as u32).collect();
        // Siblings together, in text order; a preorder walk of that forest is the order of whole chains.
        children.sort_unstable_by(|a, b| {
            let (a, b) = (&self.list[*a as usize], &self.list[*b as usize]);
            a.parent.cmp(&b.parent).then_with(|| a.name.cmp(&b.name))
        });
        let siblings = |parent: Option<u32>| {
            let from = children.partition_point(|c| self.list[*c as usize].parent < parent);
            let len = children[from..].partition_point(|c| self.list[*c as usize].parent == parent);
            &children[from..from + len]
        };
        let mut place = vec![0; self.list.len()];
        let mut list: Vec<Label> = Vec::with_capacity(self.list.len());
        let mut stack: Vec<u32> = siblings(None).iter().rev().copied().collect();
        while let Some(old) = stack.pop() {
            place[old as usize] = list.len() as u32;
            let label = &self.list[old as usize];
            list.push(Label { parent: label.parent.map(|p| place[p as usize]), name: label.name.clone() });
            stack.extend(siblings(Some(old)).iter().rev());
        }
        (Labels { list }, place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_by_whole_chains_with_parents_first() {
        let mut interner = Interner::default();
        let b = interner.intern(None, &"b".into());
        let bz = interner.intern(Some(b), &"z".into());
        let a = interner.intern(None, &"a".into());
        let ba = interner.intern(Some(b), &"a".into());
        assert_eq!(interner.intern(Some(b), &"z".into()), bz);
        let bzq = interner.intern(Some(bz), &"q".into());
        let (labels, place) = interner.sorted();
        let text = |old: u32| labels.frames(place[old as usize]).join(";");
        assert_eq!([text(a), text(b), text(ba), text(bz), text(bzq)], ["a", "b", "b;a", "b;z", "b;z;q"]);
        assert_eq!([a, b, ba, bz, bzq].map(|old| place[old as usize]), [0, 1, 2, 3, 4]);
        assert_eq!(labels.len(), 5);
    }
}
