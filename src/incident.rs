//! Soft errors, counted by cause: every large dump has some, none may end the analysis or vanish silently.
//!
//! Workers count into their own [`Incidents`]; the sums are merged where workers join.

use std::collections::BTreeMap;

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

    /// True if nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}
