//! The books of the heap: where the pages of in-use spans go, counted over all spans, in total and by span class.

use super::{Heap, PAGE_SIZE, SpanId, read};
use crate::address::{Addr, AddrRange};
use crate::image::Image;

/// Bytes and objects of all in-use spans. `in_use = allocated + free + overhead + unread`, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapTotals {
    /// In-use spans that were read.
    pub spans: u64,
    /// Pages of in-use spans, in bytes, skipped ones included.
    pub in_use_bytes: u64,
    /// Slots that are allocated: reachable, or garbage not swept yet.
    pub allocated_objects: u64,
    /// Their bytes.
    pub allocated_bytes: u64,
    /// Those of the allocated slots that the last collection left unmarked and the sweeper has not freed yet.
    pub dead_objects: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Slots that are not allocated.
    pub free_objects: u64,
    /// Their bytes.
    pub free_bytes: u64,
    /// Tails of spans, in-span pointer bitmaps and inline mark bits.
    pub overhead_bytes: u64,
    /// In-use spans that could not be used (damaged, or the image lacks them).
    pub unread_bytes: u64,
    /// Bytes inside in-use spans that the image lacks. Not a share of the others: their objects are counted there.
    pub missing_bytes: u64,
    /// `sum(allocCount)`: `MemStats.HeapObjects` after `runtime.ReadMemStats`.
    pub alloc_count: u64,
    /// `sum(allocCount * elemsize)`: `MemStats.HeapAlloc` after `runtime.ReadMemStats`.
    pub alloc_count_bytes: u64,
    /// Spans whose `allocCount` disagrees with their allocation bits.
    pub alloc_count_mismatches: u64,
    /// Pages of spans that the runtime manages by hand (stacks, work buffers), in bytes: no part of the heap in use.
    pub manual_bytes: u64,
    /// `gcController.heapLive` as it follows from the spans: what was marked or allocated since, spans in an allocation cache as full.
    pub heap_live: u64,
    /// By size class: what `memstats.heapStats` must have counted. The allocation caches tell it what was allocated only when they
    /// give a span back, so for a span in a cache this is `allocCountBeforeCache`.
    pub flushed: Vec<u64>,
    /// Bytes of `flushed`; a large object's are the pages of its span.
    pub flushed_bytes: u64,
    /// Bytes of large objects, as `flushed_bytes`.
    pub large_bytes: u64,
}

/// `mspan.sweepgen - mheap_.sweepgen` of a span in an allocation cache: swept before, or to be swept.
const CACHED: [u32; 2] = [3, 1];

impl HeapTotals {
    /// Sums over all spans of `heap`; `unread_bytes` are those of spans that it lacks.
    pub(super) fn sum(heap: &Heap, image: &dyn Image, unread_bytes: u64) -> Self {
        let mut t = Self { unread_bytes, in_use_bytes: unread_bytes, ..Self::default() };
        for id in read::ids(heap) {
            let (span, d) = (heap.span(id), heap.details(id));
            let (bytes, elem_size) = (d.npages * PAGE_SIZE, span.elem_size());
            let allocated = ones(heap.alloc_bits(id));
            let dead = ones(heap.dead_bits(id));
            let free = u64::from(span.nelems) - allocated;
            t.spans += 1;
            t.in_use_bytes += bytes;
            t.allocated_objects += allocated;
            t.allocated_bytes += allocated * elem_size;
            t.dead_objects += dead;
            t.dead_bytes += dead * elem_size;
            t.free_objects += free;
            t.free_bytes += free * elem_size;
            t.overhead_bytes += bytes - u64::from(span.nelems) * elem_size;
            t.missing_bytes += image.missing().bytes_in(AddrRange { start: Addr(span.start), len: bytes });
            t.alloc_count += u64::from(d.alloc_count);
            t.alloc_count_bytes += u64::from(d.alloc_count) * elem_size;
            t.alloc_count_mismatches += u64::from(allocated != u64::from(d.alloc_count));
            let cached = CACHED.contains(&d.sweepgen.wrapping_sub(heap.counters.sweepgen));
            let flushed = u64::from(if cached { d.alloc_count_before_cache } else { d.alloc_count });
            let class = usize::from(span.span_class >> 1);
            if t.flushed.len() <= class {
                t.flushed.resize(class + 1, 0);
            }
            t.flushed[class] += flushed;
            let flushed_bytes = flushed * if span.is_large() && !d.is_user_arena { bytes } else { elem_size };
            t.flushed_bytes += flushed_bytes;
            t.large_bytes += if span.is_large() { flushed_bytes } else { 0 };
            t.count_live(heap, id, allocated - dead);
        }
        t
    }

    /// Adds what span `id` has of `gcController.heapLive`: the pacer counts what was marked and what was allocated since; a span in an
    /// allocation cache counts as full.
    fn count_live(&mut self, heap: &Heap, id: SpanId, live: u64) {
        let (span, d) = (heap.span(id), heap.details(id));
        let full = d.sweepgen.wrapping_sub(heap.counters.sweepgen) == CACHED[0];
        self.heap_live += if full { u64::from(span.nelems) } else { live } * span.elem_size();
    }
}

fn ones(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}
