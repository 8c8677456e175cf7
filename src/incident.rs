//! Soft errors, counted by cause: every large dump has some, none may end the analysis or vanish silently.
//!
//! Workers count into their own [`Incidents`]; the sums are merged where workers join.

use std::collections::BTreeMap;

/// Causes by which a root, or what an object holds, may be missing from the profile. The others cost a name or precision.
const LOSSES: [&str; 36] = [
    "globals.unreadable",
    "module.bad_segment",
    "module.mask_unread",
    "module.pclntab_unread",
    "module.unread",
    "queue.bad_allp",
    "queue.bad_block",
    "queue.cycle",
    "queue.unread",
    "roots.beyond_pool",
    "roots.unreadable_segment_word",
    "span.allspans_unread",
    "span.bad_geometry",
    "span.mspan_unread",
    "span.overlap",
    "span.too_many_shards",
    "span.unmapped",
    "special.bad_record",
    "special.cycle",
    "special.unread",
    "specials.unreadable_object",
    "stack.bad_bounds",
    "stack.bad_g_layout",
    "stack.endless_defers",
    "stack.no_allgs",
    "stack.unread_map",
    "stack.unreadable",
    "stack.unreadable_allgs",
    "stack.unreadable_defer",
    "stack.unreadable_g",
    "stack.unreadable_word",
    "stack.unreadable_xregs",
    "walk.allocation_type_larger_than_object",
    "walk.beyond_shard",
    "walk.object_not_in_core",
    "walk.unreadable_allocation_type",
];

/// Counts by cause. Causes are short stable keys such as `span.bad_geometry`: they appear in `-v` and in the stats file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incidents {
    counts: BTreeMap<&'static str, u64>,
}

impl Incidents {
    /// Counts one incident.
    pub fn count(&mut self, cause: &'static str) {
        self.add(cause, 1);
    }

    /// Counts `n` incidents; zero leaves no trace.
    pub fn add(&mut self, cause: &'static str, n: u64) {
        if n > 0 {
            *self.counts.entry(cause).or_default() += n;
        }
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (cause, n) in &other.counts {
            self.add(cause, *n);
        }
    }

    /// Causes in alphabetical order with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(cause, n)| (*cause, *n))
    }

    /// How often `cause` happened.
    #[must_use]
    pub fn get(&self, cause: &str) -> u64 {
        self.counts.get(cause).copied().unwrap_or(0)
    }

    /// The causes among those counted by which something may be missing from the profile.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.iter().filter(|(cause, _)| LOSSES.contains(cause) || cause.starts_with("walk.too_many_"))
    }

    /// True if nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}
