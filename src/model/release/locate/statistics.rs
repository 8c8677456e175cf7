//! `runtime.gcController` and `runtime.memstats`, known by sums that agree with the spans. They only reconcile: without them a profile is
//! the same.

use super::words::each_word;
use super::{PAGE_SIZE, Search};
use crate::address::AddrRange;

/// Where sums are searched word by word.
const MAX_SUMMED: u64 = 16 << 20;
/// `consistentHeapStats` has one set of deltas per collection phase, which are three.
const MAX_DELTAS: u64 = 8;
/// Nanoseconds since 1970: the years 2001 to 2128.
const TIMES: std::ops::Range<u64> = 1_000_000_000_000_000_000..5_000_000_000_000_000_000;

impl Search<'_> {
    /// `gcController` and `memstats`: both know how many bytes the spans in use have.
    ///
    /// * `mheap`: address of `runtime.mheap_`.
    pub(super) fn statistics(&self, mheap: u64) -> (Option<u64>, Option<u64>) {
        let (controller, stats) = (&self.layout.gc_controller, &self.layout.mstats);
        let Some(pages) = self.word(mheap, self.layout.mheap.pages_in_use) else { return (None, None) };
        let in_use = pages.wrapping_mul(PAGE_SIZE);
        let mut found = (None, None);
        let delta = self.layout.heap_stats_delta.as_ref();
        let in_heap = delta.and_then(|d| Some((stats.heap_stats?, d.size, d.in_heap?)));
        for range in self.statics {
            let range = AddrRange { len: range.len.min(MAX_SUMMED), ..range };
            each_word(self.image, range, &mut |at, [word, ..]| {
                let candidate = controller.heap_in_use.map(|field| at.wrapping_sub(field));
                if found.0.is_none()
                    && word == in_use
                    && let Some(base) = candidate.filter(|base| self.is_controller(*base, in_use))
                {
                    found.0 = Some(base);
                }
                // The first of the deltas, unless it is 0, starts the sum.
                if found.1.is_none()
                    && let Some((first, size, field)) = in_heap
                {
                    found.1 = (0..self.layout.heap_stats_len.min(MAX_DELTAS)).find_map(|i| {
                        let base = at.wrapping_sub(first).wrapping_sub(i * size).wrapping_sub(field);
                        self.is_memstats(base, in_use).then_some(base)
                    });
                }
            });
        }
        found
    }

    fn is_controller(&self, base: u64, in_use: u64) -> bool {
        let at = &self.layout.gc_controller;
        let word = |field: Option<u64>| self.word(base, field?);
        let (Some(alloc), Some(free)) = (word(at.total_alloc), word(at.total_free)) else { return false };
        let pages = |field| word(field).is_some_and(|bytes| bytes.is_multiple_of(PAGE_SIZE));
        alloc >= free && alloc - free <= in_use && alloc != 0 && pages(at.heap_free) && pages(at.heap_released)
    }

    fn is_memstats(&self, base: u64, in_use: u64) -> bool {
        let (at, Some(delta)) = (&self.layout.mstats, self.layout.heap_stats_delta.as_ref()) else { return false };
        let Some(first) = at.heap_stats else { return false };
        // Each delta may be anything; together they are what there is.
        let sum = |field: Option<u64>| {
            let field = field?;
            (0..self.layout.heap_stats_len.min(MAX_DELTAS))
                .try_fold(0u64, |sum, i| Some(sum.wrapping_add(self.word(base, first + i * delta.size + field)?)))
        };
        let check = || {
            // First what tells nearly every word of static memory apart.
            if sum(delta.in_heap)? != in_use {
                return None;
            }
            let pages = |bytes: u64| bytes < 1 << 48 && bytes.is_multiple_of(4096);
            let committed = sum(delta.committed)?;
            let (stacks, work_bufs) = (sum(delta.in_stacks)?, sum(delta.in_work_bufs)?);
            let large = sum(delta.large_alloc)?.wrapping_sub(sum(delta.large_free)?);
            let large_count = sum(delta.large_alloc_count)?.wrapping_sub(sum(delta.large_free_count)?);
            let last_gc = self.word(base, at.last_gc_unix?)?;
            let sound = [committed, stacks, work_bufs, large].into_iter().all(pages)
                && sum(delta.released).is_some_and(pages)
                && stacks > 0
                && large <= in_use
                && large / PAGE_SIZE >= large_count
                && committed >= in_use.saturating_add(stacks).saturating_add(work_bufs)
                && (last_gc == 0 || TIMES.contains(&last_gc));
            Some(sound)
        };
        check().unwrap_or(false)
    }
}
