//! The books beside the totals: span classes and the runtime's own counters, from spans and marks.

use crate::aggregate::{Amount, Beside, Check, ClassTotals};
use crate::model::heap::{Heap, HeapTotals, PAGE_SIZE, RuntimeCounters, SpanId, SpecialKind};
use rayon::prelude::*;

/// Span classes: 68 size classes, with pointers and without.
const SPAN_CLASSES: usize = 136;

const STOPPED_INSIDE: &str = "equal unless a thread was stopped inside the allocator or the sweeper";
const AS_OF_FLUSH: &str = "equal unless a thread was stopped inside the allocator or the sweeper; as of the last flush of the \
                           allocation caches";
const PACER: &str = "the pacer's estimate: tails of spans taken since the last collection, finalizers set since, and what finalizers \
                     revived make a difference";

/// The totals by span class.
///
/// * `reached`: number of marks by span.
pub(super) fn classes(heap: &Heap, reached: &[u32]) -> Vec<ClassTotals> {
    let count = |mut rows: Vec<ClassTotals>, (id, &reached): (usize, &u32)| {
        let id = SpanId(id as u32);
        let (span, bytes) = (heap.span(id), heap.details(id).npages * PAGE_SIZE);
        let Some(row) = rows.get_mut(usize::from(span.span_class)) else { return rows };
        let slots = |objects: u64| Amount { objects, bytes: objects * span.elem_size() };
        let (reached, slots_all) = (u64::from(reached), u64::from(span.nelems));
        let allocated: u64 = heap.alloc_bits(id).iter().map(|w| u64::from(w.count_ones())).sum();
        row.slot_bytes = if span.is_large() { 0 } else { span.elem_size() };
        row.spans += 1;
        row.heap_in_use_bytes += bytes;
        row.reachable += slots(reached);
        row.unreachable += slots(allocated.saturating_sub(reached));
        row.free_slots += slots(slots_all - allocated);
        row.span_overhead_bytes += bytes - slots(slots_all).bytes;
        rows
    };
    let empty = || vec![ClassTotals::default(); SPAN_CLASSES];
    let sum = reached.par_iter().enumerate().fold(empty, count).reduce(empty, |mut a, b| {
        for (a, b) in a.iter_mut().zip(&b) {
            add(a, b);
        }
        a
    });
    let numbered = (0u8..).zip(sum).filter(|(_, row)| row.spans > 0);
    numbered.map(|(class, row)| ClassTotals { span_class: class, noscan: class & 1 != 0, ..row }).collect()
}

fn add(a: &mut ClassTotals, b: &ClassTotals) {
    a.slot_bytes = a.slot_bytes.max(b.slot_bytes);
    a.spans += b.spans;
    a.heap_in_use_bytes += b.heap_in_use_bytes;
    a.reachable += b.reachable;
    a.unreachable += b.unreachable;
    a.free_slots += b.free_slots;
    a.span_overhead_bytes += b.span_overhead_bytes;
}

/// Memory that is no heap in use.
pub(super) fn beside(counters: &RuntimeCounters) -> Beside {
    let stats = counters.stats.clone().unwrap_or_default();
    let buffers = stats.in_work_bufs.wrapping_add(stats.in_ptr_scalar_bits);
    Beside {
        stacks: stats.in_stacks,
        thread_stacks: counters.stacks_sys.unwrap_or(0),
        heap_free: counters.heap_free.unwrap_or(0),
        heap_released: counters.heap_released.unwrap_or(0),
        mspan_inuse: counters.mspan_inuse.unwrap_or(0),
        mspan_sys: counters.mspan_sys.unwrap_or(0),
        mcache_inuse: counters.mcache_inuse.unwrap_or(0),
        mcache_sys: counters.mcache_sys.unwrap_or(0),
        buckhash_sys: counters.buckhash_sys.unwrap_or(0),
        gc_sys: counters.gc_misc_sys.unwrap_or(0).saturating_add(buffers),
        other_sys: counters.other_sys.unwrap_or(0),
    }
}

/// Every counter of the runtime that follows from the spans.
pub(super) fn checks(heap: &Heap) -> Vec<Check> {
    let (totals, counters) = (heap.totals(), heap.counters());
    let mut checks = Vec::new();
    let mut check = |counter, unit, spans, runtime: Option<u64>, note| {
        let exact = note != PACER;
        checks.extend(runtime.map(|runtime| Check { counter, unit, spans, runtime, exact, note }));
    };
    let (in_use, inside) = (totals.in_use_bytes, STOPPED_INSIDE);
    let pages = counters.pages_in_use.map(|pages| pages.saturating_mul(PAGE_SIZE));
    check("mheap_.pagesInUse", "bytes", in_use, pages, inside);
    check("gcController.heapInUse", "bytes", in_use, counters.heap_in_use, inside);
    check("mspan.allocCount", "objects", totals.allocated_objects, Some(totals.alloc_count), inside);
    if let Some(stats) = &counters.stats {
        check("heapStats.inHeap", "bytes", in_use, Some(stats.in_heap), inside);
        let manual = Some(stats.manual_bytes());
        check("heapStats.inStacks + inWorkBufs + inPtrScalarBits", "bytes", totals.manual_bytes, manual, inside);
        let flushed = |class: usize| totals.flushed.get(class).copied().unwrap_or(0);
        check("heapStats.largeAllocCount - largeFreeCount", "objects", flushed(0), Some(stats.large_objects), inside);
        check("heapStats.largeAlloc - largeFree", "bytes", totals.large_bytes, Some(stats.large_bytes), inside);
        // One line for all size classes, but a surplus in one must not hide a lack in another.
        let small = stats.small_objects.iter().enumerate().skip(1);
        let differ: i128 = small.clone().map(|(c, n)| i128::from(*n).abs_diff(i128::from(flushed(c))) as i128).sum();
        let spans: u64 = totals.flushed.iter().skip(1).sum();
        let counted: u64 = small.fold(0, |sum, (_, n)| sum.wrapping_add(*n));
        let counted = if counted == spans { spans.saturating_add(differ as u64) } else { counted };
        check("heapStats.smallAllocCount - smallFreeCount", "objects", spans, Some(counted), AS_OF_FLUSH);
    }
    check("gcController.totalAlloc - totalFree", "bytes", totals.flushed_bytes, counters.heap_alloc, AS_OF_FLUSH);
    check("gcController.heapLive", "bytes", live(heap, totals), counters.heap_live, PACER);
    checks
}

/// What `gcController.heapLive` is, if every finalizer was set before the last collection: the collector scans an object
/// with a finalizer once more for what it refers to. What a finalizer revived in the last cycle was never marked; nothing tells.
fn live(heap: &Heap, totals: &HeapTotals) -> u64 {
    let finalizers = heap.specials().iter().filter(|s| matches!(s.kind, SpecialKind::Finalizer { .. }));
    let scanned = finalizers.map(|s| heap.span(s.span)).filter(|span| !span.noscan());
    let twice: u64 = scanned.map(|span| span.elem_size()).fold(0, u64::saturating_add);
    totals.heap_live.saturating_add(twice)
}
