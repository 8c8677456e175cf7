//! Memory of the heap that a walk does not read: pages in no span, and objects without pointers.
//!
//! Two kinds of objects without pointers are read all the same: pointer masks and names of types that `reflect` made while the program ran. They
//! never change, and are found only by walking.

use super::{ARENA_SIZE, Heap, PAGE_SIZE};
use crate::address::{Addr, AddrRange};

impl Heap {
    /// Spans without pointers, in address order, and the size of their slots.
    pub fn memory_without_pointers(&self) -> impl Iterator<Item = (AddrRange, u64)> {
        let spans = self.spans.iter().zip(&self.details).filter(|(span, _)| span.noscan());
        spans.map(|(span, details)| {
            (AddrRange { start: Addr(span.start), len: details.npages * PAGE_SIZE }, span.elem_size())
        })
    }

    /// Memory in no span, in address order, of the arenas that have spans in use. Nothing if some spans could not be read.
    #[must_use]
    pub fn free_memory(&self) -> Vec<AddrRange> {
        if self.totals.unread_bytes > 0 {
            return Vec::new();
        }
        let in_use = self.spans.iter().zip(&self.details).map(|(span, d)| (span.start, d.npages));
        let mut taken: Vec<AddrRange> = in_use
            .chain(self.manual.iter().copied())
            .map(|(start, npages)| AddrRange { start: Addr(start), len: npages.saturating_mul(PAGE_SIZE) })
            .collect();
        taken.sort_unstable_by_key(|range| range.start);
        let mut free: Vec<AddrRange> = Vec::new();
        // Up to where all is known.
        let mut at = 0;
        for span in &self.spans {
            let arena = span.start - span.start % ARENA_SIZE;
            let end = arena.saturating_add(ARENA_SIZE);
            if end <= at {
                continue;
            }
            at = at.max(arena);
            let from = taken.partition_point(|t| t.start.0 < arena);
            // One that began before may reach into this arena.
            let before = taken[..from].last().map_or(0, |t| t.end().0);
            at = at.max(before);
            for t in taken[from..].iter().take_while(|t| t.start.0 < end) {
                free.push(AddrRange::from_bounds(Addr(at), t.start));
                at = at.max(t.end().0);
            }
            free.push(AddrRange::from_bounds(Addr(at), Addr(end)));
            at = at.max(end);
        }
        free.retain(|range| range.len > 0);
        free
    }
}
