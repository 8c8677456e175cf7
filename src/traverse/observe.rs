//! What may watch a walk without being a second walker: every pointer that was followed, with its holder and what became of it.
//!
//! Totals and paths need no holders, so the ordinary walk runs with [`Silent`], for which the compiler leaves all of this out.
//! Dominators, "who else holds this" and type-to-type edges are observers.

use super::items::POOL;
use super::scan::ProgramId;

/// Who holds a pointer.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Holder {
    /// A root, a value of data or bss, or a word that no type explains: its first word in the walk's pool of copied words.
    Root(u32),
    /// An object of the heap.
    Object(ObjectId),
}

/// A slot of the heap.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId {
    /// Number of its shard.
    pub shard: u16,
    /// Its ordinal there: [`crate::model::heap::Heap::locate`] has span and slot.
    pub ordinal: u32,
}

/// Which word of the holder it is.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Operation {
    /// How the holder is scanned.
    pub program: ProgramId,
    /// Operation of that program; 0 for masked programs, whose words are all alike.
    pub op: u32,
    /// Element label: 0 to 9, or 10 for all others. 0 where elements have no labels.
    pub bucket: u32,
    /// Dynamic type number, 0 if there is none.
    pub number: u32,
}

/// What became of a candidate.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It counts the object.
    Won,
    /// The object was counted before, or is a free slot.
    Lost,
}

/// One pointer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// Who holds it.
    pub holder: Holder,
    /// Where in the holder.
    pub operation: Operation,
    /// Where it points to.
    pub target: ObjectId,
    /// Whether it counts the target.
    pub outcome: Outcome,
}

/// Watches a walk. Each shard of targets has a state of its own, touched by one thread at a time and in canonical order.
pub trait Observer: Sync {
    /// Whether [`Observer::edge`] wants to be called: candidates then carry their holders, 8 bytes each.
    const EDGES: bool;
    /// What is learned about the targets in one shard.
    type Shard: Default + Send;
    /// Sees a pointer to an object in the shard of `state`.
    fn edge(&self, state: &mut Self::Shard, edge: &Edge) {
        let _ = (state, edge);
    }
}

/// Sees nothing, costs nothing.
#[derive(Copy, Clone, Debug)]
pub struct Silent;

impl Observer for Silent {
    const EDGES: bool = false;
    type Shard = ();
}

impl Holder {
    /// Eight bytes of a candidate.
    #[inline]
    pub(super) fn pack(shard: u16, id: u32) -> u64 {
        u64::from(shard) << 32 | u64::from(id)
    }

    /// The reverse of [`Holder::pack`].
    pub(super) fn unpack(packed: u64) -> Self {
        let (shard, id) = ((packed >> 32) as u16, packed as u32);
        if shard == POOL { Self::Root(id) } else { Self::Object(ObjectId { shard, ordinal: id }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_survive_packing() {
        assert_eq!(Holder::unpack(Holder::pack(POOL, 7)), Holder::Root(7));
        let object = ObjectId { shard: 255, ordinal: u32::MAX };
        assert_eq!(Holder::unpack(Holder::pack(object.shard, object.ordinal)), Holder::Object(object));
    }
}
