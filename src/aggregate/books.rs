//! What stands beside the totals: span classes, memory outside of the heap, the runtime's own counters, what the garbage is made of,
//! and what finalizers and cleanups hold.
//!
//! Everything here is derived from the same spans and marks as [`super::Totals`]; nothing is a term of its equation.

use serde::Serialize;

use super::{Amount, TypeTotal};

/// The books beside the totals.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// The totals by span class, in ascending order, classes without spans left out.
    pub classes: Vec<ClassTotals>,
    /// Memory that is no heap in use.
    pub beside: Beside,
    /// What the runtime counted itself, against the spans.
    pub checks: Vec<Check>,
    /// What the unreachable objects are.
    pub garbage: Garbage,
    /// What finalizers and cleanups hold.
    pub queues: Queues,
}

/// The totals of one span class: `heap_in_use_bytes = reachable + unreachable + free_slots + span_overhead_bytes`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClassTotals {
    /// `sizeclass << 1 | noscan`.
    pub span_class: u8,
    /// Bytes of a slot; 0 for large objects (size class 0), which have spans of their own.
    pub slot_bytes: u64,
    /// Whether the objects have no pointers.
    pub noscan: bool,
    /// In-use spans.
    pub spans: u64,
    /// Their pages.
    pub heap_in_use_bytes: u64,
    /// What the walk reached.
    pub reachable: Amount,
    /// Allocated, not reached.
    pub unreachable: Amount,
    /// Slots without an object.
    pub free_slots: Amount,
    /// Bytes that are no slot.
    pub span_overhead_bytes: u64,
}

/// Bytes outside of the heap in use, as `runtime.MemStats` has them; 0 where the core or the release does not tell.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// Goroutine stacks (`StackInuse`).
    pub stacks: u64,
    /// Stacks of threads that the runtime made (`StackSys - StackInuse`).
    pub thread_stacks: u64,
    /// Heap pages in no span, still backed (`HeapIdle - HeapReleased`).
    pub heap_free: u64,
    /// Heap pages in no span, given back to the system (`HeapReleased`).
    pub heap_released: u64,
    /// `mspan` structs in use (`MSpanInuse`), a share of `mspan_sys`.
    pub mspan_inuse: u64,
    /// Memory for `mspan` structs (`MSpanSys`).
    pub mspan_sys: u64,
    /// `mcache` structs in use (`MCacheInuse`), a share of `mcache_sys`.
    pub mcache_inuse: u64,
    /// Memory for `mcache` structs (`MCacheSys`).
    pub mcache_sys: u64,
    /// Buckets of the runtime's profiles (`BuckHashSys`).
    pub buckhash_sys: u64,
    /// Bitmaps, tables and work buffers of the collector (`GCSys`).
    pub gc_sys: u64,
    /// Other memory of the runtime (`OtherSys`).
    pub other_sys: u64,
}

impl Beside {
    /// What the runtime keeps for itself.
    #[must_use]
    pub fn runtime_internal(&self) -> u64 {
        let parts = [self.mspan_sys, self.mcache_sys, self.buckhash_sys, self.gc_sys, self.other_sys];
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }
}

/// One counter of the runtime and what it must be by the spans.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The counter, by its names in the runtime.
    pub counter: &'static str,
    /// Bytes or objects.
    pub unit: &'static str,
    /// What the spans say.
    pub spans: u64,
    /// What the runtime counted.
    pub runtime: u64,
    /// Whether the two are equal at every stop of the process outside of allocator and sweeper; otherwise the runtime estimates.
    pub exact: bool,
    /// Why they may differ.
    pub note: &'static str,
}

impl Check {
    /// Whether they differ.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.spans != self.runtime
    }

    /// The difference, with its sign.
    #[must_use]
    pub fn difference(&self) -> i128 {
        i128::from(self.runtime) - i128::from(self.spans)
    }
}

/// What the unreachable objects are. `unswept`, `finalizable` and `with_cleanup` are shares, `types` and `classes` all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// All of it: [`super::Totals::unreachable`].
    pub all: Amount,
    /// What the last collection found dead and the sweeper has not freed yet.
    pub unswept: Amount,
    /// What waits for a finalizer that is set: the next collection queues it, and only one after that can free the object.
    pub finalizable: Amount,
    /// What has a cleanup: the next collection queues that and frees the object.
    pub with_cleanup: Amount,
    /// By the type that malloc headers and large spans record (that of the element if it is an array), heaviest first.
    pub types: Vec<TypeTotal>,
    /// Those without a recorded type, by slot size and kind, heaviest first.
    pub classes: Vec<GarbageClass>,
}

/// Unreachable objects of which only slot size and kind are known.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GarbageClass {
    /// Bytes of a slot; 0 for large objects.
    pub slot_bytes: u64,
    /// Whether they have no pointers.
    pub noscan: bool,
    /// Objects and bytes.
    #[serde(flatten)]
    pub amount: Amount,
}

/// What finalizers and cleanups hold: objects first reached through them, as in the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Queues {
    /// Finalizers that are set.
    pub set_finalizers: Held,
    /// Cleanups that are set.
    pub set_cleanups: Held,
    /// Finalizers that wait to run (`runtime.allfin`; up to Go 1.24 cleanups too).
    pub queued_finalizers: Held,
    /// Cleanups that wait to run (`runtime.gcCleanups`).
    pub queued_cleanups: Held,
    /// The goroutines that run them and are not idle.
    pub goroutines: Vec<Busy>,
}

/// Records and what they hold.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Number of records.
    pub records: u64,
    /// What was first reached through them.
    pub held: Amount,
}

/// A goroutine in a finalizer or cleanup function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Busy {
    /// Its number.
    pub goid: u64,
    /// `finalizers` or `cleanups`.
    pub runs: &'static str,
    /// `runtime.waitReasonStrings`, or its status.
    pub state: String,
    /// What was first reached through variables and slots of its frames.
    pub held: Amount,
    /// Whether other roots have some of these names too: those are left out, nobody knows whose share is how large.
    pub shared: bool,
    /// The heaviest of those names.
    pub through: String,
}
