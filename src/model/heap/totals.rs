//! The books of the heap: where the pages of in-use spans go, and the runtime's own counters to reconcile them with.

use super::{Heap, PAGE_SIZE, read};
use crate::address::{Addr, AddrRange};
use crate::error::{Context, Result};
use crate::image::Image;
use crate::model::layout::RuntimeLayout;

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
}

/// What the runtime itself counted, for reconciliation. `None`: the release has no such field or the image lacks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeCounters {
    /// `runtime.buildVersion`.
    pub build_version: Option<String>,
    /// `mheap_.sweepgen`.
    pub sweepgen: u32,
    /// `gcphase`: 0 off, 1 mark, 2 mark termination.
    pub gcphase: u32,
    /// `mheap_.pagesInUse`.
    pub pages_in_use: Option<u64>,
    /// `memstats.last_gc_unix`, nanoseconds; 0 if no collection ended yet.
    pub last_gc_unix: u64,
    /// `memstats.numgc`.
    pub numgc: Option<u32>,
    /// `gcController.heapInUse`, bytes.
    pub heap_in_use: Option<u64>,
    /// `gcController.heapMarked`, bytes.
    pub heap_marked: Option<u64>,
    /// `gcController.totalAlloc - totalFree`, bytes: allocated bytes as of the last flush of the allocation caches.
    pub heap_alloc: Option<u64>,
}

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
        }
        t
    }
}

fn ones(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

impl RuntimeCounters {
    /// Reads what is there.
    ///
    /// # Errors
    /// `mheap_.sweepgen` or `gcphase` cannot be read: without them nobody knows which slots are allocated.
    pub fn read(image: &dyn Image, layout: &RuntimeLayout) -> Result<Self> {
        let g = &layout.globals;
        let needed =
            |what: &str, at: u64| image.read_u32(Addr(at)).context(|| format!("heap: reading {what} at {at:#x}"));
        let u64_at = |base: u64, field: Option<u64>| image.read_u64(Addr(base).add(field?)).ok();
        let (controller, stats) = (&layout.gc_controller, &layout.mstats);
        let total_alloc = u64_at(g.gc_controller, controller.total_alloc);
        let total_free = u64_at(g.gc_controller, controller.total_free);
        Ok(Self {
            build_version: g.build_version.and_then(|at| read_string(image, at)),
            sweepgen: needed("mheap_.sweepgen", g.mheap.wrapping_add(layout.mheap.sweepgen))?,
            gcphase: needed("gcphase", g.gcphase)?,
            pages_in_use: u64_at(g.mheap, Some(layout.mheap.pages_in_use)),
            last_gc_unix: u64_at(g.memstats, stats.last_gc_unix).unwrap_or(0),
            numgc: stats.numgc.and_then(|field| image.read_u32(Addr(g.memstats).add(field)).ok()),
            heap_in_use: u64_at(g.gc_controller, controller.heap_in_use),
            heap_marked: u64_at(g.gc_controller, controller.heap_marked),
            heap_alloc: total_alloc.zip(total_free).map(|(alloc, free)| alloc.wrapping_sub(free)),
        })
    }
}

/// The Go string whose header is at `at`, if it is a short one.
fn read_string(image: &dyn Image, at: u64) -> Option<String> {
    let data = image.read_u64(Addr(at)).ok()?;
    let len = usize::try_from(image.read_u64(Addr(at).add(8)).ok()?).ok().filter(|&len| len <= 256)?;
    let mut bytes = vec![0; len];
    image.read(Addr(data), &mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}
