//! What the runtime itself counted, for reconciliation: `mheap_`, `gcController`, `memstats` and its consistent heap statistics.

use crate::address::Addr;
use crate::error::{Context, Result};
use crate::image::Image;
use crate::model::layout::RuntimeLayout;

/// Longest `heapStatsDelta`, most of them, and most size classes, that are believed.
const MAX_DELTA: u64 = 64 << 10;
const MAX_DELTAS: u64 = 16;
const MAX_SIZE_CLASSES: u64 = 256;

/// The runtime's counters. `None`: the release has no such field or the image lacks it.
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
    /// `gcController.heapFree`: pages in no span that are still backed, bytes.
    pub heap_free: Option<u64>,
    /// `gcController.heapReleased`: pages in no span that were given back to the system, bytes.
    pub heap_released: Option<u64>,
    /// `gcController.heapLive`: what the pacer takes for live, bytes.
    pub heap_live: Option<u64>,
    /// `gcController.heapMarked`, bytes.
    pub heap_marked: Option<u64>,
    /// `gcController.totalAlloc - totalFree`, bytes: allocated bytes as of the last flush of the allocation caches.
    pub heap_alloc: Option<u64>,
    /// `mheap_.spanalloc.inuse`: `mspan` structs, bytes.
    pub mspan_inuse: Option<u64>,
    /// `mheap_.cachealloc.inuse`: `mcache` structs, bytes.
    pub mcache_inuse: Option<u64>,
    /// `memstats.stacks_sys`: stacks of threads that the runtime made, bytes.
    pub stacks_sys: Option<u64>,
    /// `memstats.mspan_sys`.
    pub mspan_sys: Option<u64>,
    /// `memstats.mcache_sys`.
    pub mcache_sys: Option<u64>,
    /// `memstats.buckhash_sys`: buckets of the runtime's profiles.
    pub buckhash_sys: Option<u64>,
    /// `memstats.gcMiscSys`: bitmaps and tables of the collector.
    pub gc_misc_sys: Option<u64>,
    /// `memstats.other_sys`.
    pub other_sys: Option<u64>,
    /// `memstats.heapStats`.
    pub stats: Option<HeapStats>,
}

/// `memstats.heapStats`: the sum of its deltas, as `(*consistentHeapStats).unsafeRead` makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapStats {
    /// `inHeap`: pages of in-use spans, bytes.
    pub in_heap: u64,
    /// `inStacks`: spans of goroutine stacks, bytes.
    pub in_stacks: u64,
    /// `inWorkBufs`: spans of the collector's work buffers, bytes.
    pub in_work_bufs: u64,
    /// `inPtrScalarBits` (up to 1.24): spans of unrolled GC programs, bytes.
    pub in_ptr_scalar_bits: u64,
    /// `largeAllocCount - largeFreeCount`.
    pub large_objects: u64,
    /// `largeAlloc - largeFree`.
    pub large_bytes: u64,
    /// `smallAllocCount - smallFreeCount` by size class, as of the last flush of the allocation caches.
    pub small_objects: Vec<u64>,
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
        let (controller, stats, mheap) = (&layout.gc_controller, &layout.mstats, &layout.mheap);
        let total_alloc = u64_at(g.gc_controller, controller.total_alloc);
        let total_free = u64_at(g.gc_controller, controller.total_free);
        Ok(Self {
            build_version: g.build_version.and_then(|at| read_string(image, at)),
            sweepgen: needed("mheap_.sweepgen", g.mheap.wrapping_add(mheap.sweepgen))?,
            gcphase: needed("gcphase", g.gcphase)?,
            pages_in_use: u64_at(g.mheap, Some(mheap.pages_in_use)),
            last_gc_unix: u64_at(g.memstats, stats.last_gc_unix).unwrap_or(0),
            numgc: stats.numgc.and_then(|field| image.read_u32(Addr(g.memstats).add(field)).ok()),
            heap_in_use: u64_at(g.gc_controller, controller.heap_in_use),
            heap_free: u64_at(g.gc_controller, controller.heap_free),
            heap_released: u64_at(g.gc_controller, controller.heap_released),
            heap_live: u64_at(g.gc_controller, controller.heap_live),
            heap_marked: u64_at(g.gc_controller, controller.heap_marked),
            heap_alloc: total_alloc.zip(total_free).map(|(alloc, free)| alloc.wrapping_sub(free)),
            mspan_inuse: u64_at(g.mheap, mheap.spanalloc_inuse),
            mcache_inuse: u64_at(g.mheap, mheap.cachealloc_inuse),
            stacks_sys: u64_at(g.memstats, stats.stacks_sys),
            mspan_sys: u64_at(g.memstats, stats.mspan_sys),
            mcache_sys: u64_at(g.memstats, stats.mcache_sys),
            buckhash_sys: u64_at(g.memstats, stats.buckhash_sys),
            gc_misc_sys: u64_at(g.memstats, stats.gc_misc_sys),
            other_sys: u64_at(g.memstats, stats.other_sys),
            stats: HeapStats::read(image, layout),
        })
    }
}

impl HeapStats {
    fn read(image: &dyn Image, layout: &RuntimeLayout) -> Option<Self> {
        let (at, deltas) = (layout.heap_stats_delta.as_ref()?, layout.heap_stats_len);
        let first = Addr(layout.globals.memstats).add(layout.mstats.heap_stats?);
        if at.size > MAX_DELTA || deltas == 0 || deltas > MAX_DELTAS || layout.size_classes > MAX_SIZE_CLASSES {
            return None;
        }
        // All fields are 8-byte counters that wrap, so the deltas add up word by word.
        let mut sum = vec![0u64; (at.size / 8) as usize];
        let mut bytes = vec![0; (at.size * deltas) as usize];
        image.read(first, &mut bytes).ok()?;
        for delta in bytes.chunks_exact(at.size as usize) {
            for (sum, word) in sum.iter_mut().zip(delta.chunks_exact(8)) {
                *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().expect("8 bytes")));
            }
        }
        let word = |offset: u64| sum.get((offset / 8) as usize).copied();
        let field = |offset: Option<u64>| word(offset?);
        let difference = |a: Option<u64>, b: Option<u64>| Some(field(a)?.wrapping_sub(field(b)?));
        let (allocated, freed) = (at.small_alloc_count?, at.small_free_count?);
        let small = |class: u64| Some(word(allocated + class * 8)?.wrapping_sub(word(freed + class * 8)?));
        Some(Self {
            in_heap: field(at.in_heap)?,
            in_stacks: field(at.in_stacks)?,
            in_work_bufs: field(at.in_work_bufs)?,
            in_ptr_scalar_bits: field(at.in_ptr_scalar_bits).unwrap_or(0),
            large_objects: difference(at.large_alloc_count, at.large_free_count)?,
            large_bytes: difference(at.large_alloc, at.large_free)?,
            small_objects: (0..layout.size_classes).map(small).collect::<Option<_>>()?,
        })
    }

    /// Pages of spans that the runtime manages by hand.
    #[must_use]
    pub fn manual_bytes(&self) -> u64 {
        self.in_stacks.wrapping_add(self.in_work_bufs).wrapping_add(self.in_ptr_scalar_bits)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layout::HeapStatsDeltaLayout;
    use crate::model::modules::testing::Bytes;

    /// Three deltas of 12 words with two size classes; counters wrap.
    #[test]
    fn deltas_add_up() {
        let mut layout = RuntimeLayout::default();
        layout.globals.memstats = 0x1000;
        layout.mstats.heap_stats = Some(16);
        (layout.heap_stats_len, layout.size_classes) = (3, 2);
        let at = |i: u64| Some(i * 8);
        layout.heap_stats_delta = Some(HeapStatsDeltaLayout {
            size: 96,
            committed: None,
            released: None,
            in_heap: at(0),
            in_stacks: at(1),
            in_work_bufs: at(2),
            in_ptr_scalar_bits: None,
            large_alloc: at(3),
            large_alloc_count: at(4),
            small_alloc_count: at(5),
            large_free: at(7),
            large_free_count: at(8),
            small_free_count: at(9),
        });
        let minus_one = u64::MAX;
        let deltas: [[u64; 12]; 3] =
            [[8192, 100, 7, 50, 2, 10, 20, 0, 0, 1, 2, 0], [0; 12], [8192, minus_one, 0, 25, 1, 5, 0, 75, 3, 0, 18, 0]];
        let bytes: Vec<u8> = deltas.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
        let image = Bytes::new(vec![(0x1010, bytes.clone())]);
        let stats = HeapStats::read(&image, &layout).expect("stats");
        assert_eq!((stats.in_heap, stats.in_stacks, stats.in_work_bufs), (16384, 99, 7));
        assert_eq!((stats.large_objects, stats.large_bytes), (0, 0));
        assert_eq!(stats.small_objects, [14, 0]);
        assert_eq!(stats.manual_bytes(), 106);
        // A damaged image or layout gives no numbers, and no panic.
        assert_eq!(HeapStats::read(&Bytes::new(vec![(0x1010, bytes[..200].to_vec())]), &layout), None);
        layout.size_classes = 200;
        assert_eq!(HeapStats::read(&image, &layout), None);
        layout.heap_stats_len = 1 << 40;
        assert_eq!(HeapStats::read(&image, &layout), None);
    }
}
