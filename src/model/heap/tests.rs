//! Tests on a small process written by hand: its struct layouts are the test's own, not those of any Go release.

mod damage;
mod masks;

use super::*;
use crate::address::{Addr, AddrRange};
use crate::image::Image;
use crate::model::layout::RuntimeLayout;
use crate::model::modules::testing::Bytes;

const MHEAP: u64 = 0x1000;
const GCPHASE: u64 = 0x1100;
const ALLSPANS: u64 = 0x2000;
const MSPANS: u64 = 0x10_000;
const BITS: u64 = 0x20_000;
const TYPES: u64 = 0x30_000;
const SPECIALS: u64 = 0x40_000;
const ARENA: u64 = 0xc0_0000_0000;
const SWEEPGEN: u32 = 20;
const MSPAN_SIZE: usize = 128;

fn layout() -> RuntimeLayout {
    let mut l = RuntimeLayout::default();
    l.globals.mheap = MHEAP;
    l.globals.gcphase = GCPHASE;
    l.globals.in_progress = Some(0x1200);
    l.mheap.sweepgen = 0;
    l.mheap.allspans = 8;
    l.mheap.pages_in_use = 32;
    l.mspan.size = MSPAN_SIZE as u64;
    l.mspan.start_addr = 8;
    l.mspan.npages = 16;
    l.mspan.elemsize = 24;
    l.mspan.limit = 32;
    l.mspan.alloc_bits = 40;
    l.mspan.gcmark_bits = 48;
    l.mspan.specials = 56;
    l.mspan.large_type = Some(64);
    l.mspan.free_index = 72;
    l.mspan.nelems = 74;
    l.mspan.free_index_for_scan = Some(76);
    l.mspan.count_bytes = 2;
    l.mspan.alloc_count = 78;
    l.mspan.sweepgen = 80;
    l.mspan.spanclass = 84;
    l.mspan.state = 85;
    l.abi_type.size_ = 0;
    l.abi_type.ptr_bytes = 8;
    l.abi_type.tflag = 16;
    l.abi_type.kind = 17;
    l.abi_type.gcdata = 24;
    l.array_type.elem = 32;
    l.array_type.len = 40;
    l.struct_type.fields = 32;
    l.struct_field.size = 16;
    l.struct_field.typ = 0;
    l.struct_field.offset = 8;
    l.special.next = 0;
    l.special.offset = 8;
    l.special.kind = 16;
    l.special.offset_bytes = 8;
    l.specialfinalizer.func = 24;
    l.specialfinalizer.fint = 32;
    l.specialfinalizer.ot = 40;
    l.constants.kind_special_finalizer = 2;
    l.constants.min_size_for_malloc_header = 512;
    l.constants.malloc_header_size = 8;
    l.inline_mark_bits_size = 128;
    l
}

/// One span as a test writes it.
#[derive(Clone, Default)]
struct TestSpan {
    start: u64,
    npages: u64,
    elem_size: u64,
    limit: u64,
    nelems: u16,
    class: u8,
    free_index: u16,
    alloc: Vec<u8>,
    marks: Vec<u8>,
    sweepgen: u32,
    large_type: u64,
    specials: u64,
    state: u8,
}

impl TestSpan {
    /// Small objects from `start` on.
    fn small(start: u64, elem_size: u64, nelems: u16, class: u8) -> Self {
        let limit = start + elem_size * u64::from(nelems);
        let (npages, sweepgen) = (1, SWEEPGEN);
        Self { start, npages, elem_size, limit, nelems, class, sweepgen, state: 1, ..Self::default() }
    }
}

/// A process being written.
struct World {
    memory: Vec<(u64, Vec<u8>)>,
    spans: Vec<TestSpan>,
    phase: u32,
}

impl World {
    fn new(spans: Vec<TestSpan>) -> Self {
        Self { memory: Vec::new(), spans, phase: 0 }
    }

    fn with(mut self, at: u64, words: &[u64]) -> Self {
        self.memory.push((at, words.iter().flat_map(|w| w.to_le_bytes()).collect()));
        self
    }

    fn metadata(&self) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        out.push((MHEAP, words(&[u64::from(SWEEPGEN), ALLSPANS, self.spans.len() as u64, 0, 7])));
        out.push((GCPHASE, self.phase.to_le_bytes().to_vec()));
        let pointers: Vec<u64> = (0..self.spans.len()).map(|i| MSPANS + (i * MSPAN_SIZE) as u64).collect();
        out.push((ALLSPANS, words(&pointers)));
        let mut mspans = Vec::new();
        let mut bits = Vec::new();
        for s in &self.spans {
            let alloc_at = BITS + bits.len() as u64;
            bits.extend_from_slice(&s.alloc);
            bits.resize(bits.len().next_multiple_of(8) + 128, 0);
            let marks_at = BITS + bits.len() as u64;
            bits.extend_from_slice(&s.marks);
            bits.resize(bits.len().next_multiple_of(8) + 128, 0);
            let mut m =
                words(&[0, s.start, s.npages, s.elem_size, s.limit, alloc_at, marks_at, s.specials, s.large_type]);
            let above = (s.free_index..s.nelems)
                .filter(|i| s.alloc.get(usize::from(i / 8)).is_some_and(|b| b >> (i % 8) & 1 != 0))
                .count() as u16;
            for v in [s.free_index, s.nelems, s.free_index, s.free_index + above] {
                m.extend(v.to_le_bytes());
            }
            m.extend(s.sweepgen.to_le_bytes());
            m.extend([s.class, s.state]);
            m.resize(MSPAN_SIZE, 0);
            mspans.extend(m);
        }
        out.push((MSPANS, mspans));
        out.push((BITS, bits));
        out
    }

    fn image(&self) -> Bytes {
        let mut ranges = self.memory.clone();
        ranges.extend(self.metadata());
        for s in &self.spans {
            ranges.push((s.start, vec![0; (s.npages.min(64) * PAGE_SIZE) as usize]));
        }
        Bytes::new(ranges)
    }
}

fn read(world: &World) -> (Heap, Bytes) {
    let image = world.image();
    (Heap::read(&image, &layout()).expect("a sane heap"), image)
}

#[test]
fn lookups_and_books() {
    let mut a = TestSpan::small(ARENA + PAGE_SIZE, 48, 165, 10);
    a.free_index = 10;
    a.alloc = vec![0, 0b1000, 0, 0, 1];
    let mut large = TestSpan::small(ARENA + 2 * PAGE_SIZE, 3 * PAGE_SIZE, 1, 1);
    large.npages = 3;
    large.limit = large.start + 20_000;
    large.free_index = 1;
    let mut dead = TestSpan::small(ARENA + 8 * PAGE_SIZE, 48, 165, 10);
    dead.state = 0;
    let (heap, _) = read(&World::new(vec![large, dead, a]));

    assert_eq!(heap.spans().len(), 2);
    assert_eq!(heap.find_object(ARENA + PAGE_SIZE - 1), None);
    assert_eq!(heap.find_object(ARENA + PAGE_SIZE), Some((SpanId(0), 0)));
    for byte in 0..48 * 165 {
        assert_eq!(heap.find_object(ARENA + PAGE_SIZE + byte), Some((SpanId(0), (byte / 48) as u32)));
    }
    assert_eq!(heap.find_object(ARENA + PAGE_SIZE + 48 * 165), None, "the tail is no object");
    assert_eq!(heap.find_object(ARENA + 2 * PAGE_SIZE + 19_999), Some((SpanId(1), 0)));
    assert_eq!(heap.find_object(ARENA + 2 * PAGE_SIZE + 20_000), None, "past the requested size");
    assert_eq!(heap.find_object(ARENA + 8 * PAGE_SIZE), None, "not in use");
    assert_eq!(heap.find_object(0), None);
    assert_eq!(heap.find_object(u64::MAX), None);
    assert_eq!(heap.shard_of(ARENA + ARENA_SIZE - 1), Some(0));
    assert_eq!(heap.shard_of(ARENA + ARENA_SIZE), None);

    let allocated: Vec<u32> = (0..165).filter(|&i| heap.is_allocated(SpanId(0), i)).collect();
    assert_eq!(allocated, (0..10).chain([11, 32]).collect::<Vec<u32>>());
    let free = heap.free_slots(0);
    assert_eq!(free.len(), 165 - 12);
    assert!(!free.contains(11) && free.contains(10) && !free.contains(165), "165 is the large object");
    assert_eq!(heap.locate(0, 165), Some((SpanId(1), 0)));
    assert_eq!(heap.locate(0, 164), Some((SpanId(0), 164)));
    assert_eq!(heap.locate(0, 166), None);

    let t = heap.totals();
    assert_eq!(t.in_use_bytes, 4 * PAGE_SIZE);
    assert_eq!((t.allocated_objects, t.allocated_bytes), (13, 12 * 48 + 3 * PAGE_SIZE));
    assert_eq!(t.alloc_count_mismatches, 0);
    assert_eq!(t.allocated_bytes + t.free_bytes + t.overhead_bytes + t.unread_bytes, t.in_use_bytes);
    assert!(heap.incidents().is_empty());
}

#[test]
fn sweep_states_decide_who_is_dead() {
    let span = |at: u64, sweepgen| {
        let mut s = TestSpan::small(ARENA + at * PAGE_SIZE, 1024, 8, 63);
        (s.free_index, s.alloc, s.marks, s.sweepgen) = (2, vec![0b1_0100], vec![0b1010_0001], sweepgen);
        s
    };
    let mut world = World::new(
        [0, 3, -2, 1, -1].into_iter().zip(0..).map(|(d, i)| span(i, SWEEPGEN.wrapping_add_signed(d))).collect(),
    );
    let (heap, _) = read(&world);
    let bits =
        |heap: &Heap, i| (heap.alloc_bits(SpanId(i))[0], heap.dead_bits(SpanId(i)).first().copied().unwrap_or(0));
    assert_eq!(bits(&heap, 0), (0b1_0111, 0), "swept");
    assert_eq!(bits(&heap, 1), (0b1_0111, 0), "swept and cached");
    assert_eq!(bits(&heap, 2), (0b1_0111, 0b1_0110), "to be swept: the mark decides");
    assert_eq!(bits(&heap, 3), (0b1_0111, 0b1_0110), "cached before the sweep");
    assert_eq!(bits(&heap, 4), (0b1011_0111, 0), "being swept: any of the three");
    assert_eq!(heap.totals().dead_objects, 6);
    assert_eq!(heap.free_slots(0).len(), 4 + 4 + 7 + 7 + 2);

    world.phase = 1;
    let (heap, _) = read(&world);
    assert_eq!(heap.totals().dead_objects, 0, "while marking nothing is known to be dead");
}

#[test]
fn inline_marks_are_the_marks_of_their_spans() {
    let mut s = TestSpan::small(ARENA, 512, 15, 48);
    (s.free_index, s.sweepgen, s.marks) = (3, SWEEPGEN - 2, vec![0xff, 0xff]);
    let mut world = World::new(vec![s]);
    let mut page = vec![0u8; PAGE_SIZE as usize];
    page[8192 - 128 + 64] = 0b101;
    world.memory.push((ARENA, page));
    let (heap, _) = read(&world);
    assert_eq!(heap.dead_bits(SpanId(0)), [0b010]);
}

#[test]
fn specials_belong_to_slots() {
    let mut s = TestSpan::small(ARENA, 48, 165, 10);
    (s.free_index, s.specials) = (165, SPECIALS);
    let world = World::new(vec![s])
        .with(SPECIALS, &[SPECIALS + 0x100, 100, 2, 0xf, 0x1, 0x2])
        .with(SPECIALS + 0x100, &[SPECIALS + 0x200, 100, 4])
        .with(SPECIALS + 0x200, &[SPECIALS, 500, 2, 0xe, 0, 0]);
    let (heap, _) = read(&world);
    let found: Vec<(u32, u64)> = heap.specials().iter().map(|s| (s.slot, s.offset)).collect();
    assert_eq!(found, [(2, 100), (10, 500)]);
    assert_eq!(heap.specials()[0].kind, SpecialKind::Finalizer { func: 0xf, fint: 1, ot: 2 });
    assert!(!heap.incidents().is_empty(), "the list leads back to its head");
}

/// Up to Go 1.23 a span is in use a moment before its limit is set. Its slots are free, and not one of its pages is unread.
#[test]
fn span_that_is_being_made() {
    let full = TestSpan { free_index: 165, ..TestSpan::small(ARENA, 48, 165, 10) };
    let made = TestSpan { limit: 0, ..TestSpan::small(ARENA + PAGE_SIZE, 48, 165, 10) };
    let (heap, _) = read(&World::new(vec![full.clone(), made.clone()]));
    assert_eq!((heap.spans().len(), heap.incidents().get("span.bad_geometry")), (2, 0));
    assert_eq!((heap.totals().free_objects, heap.totals().unread_bytes), (165, 0));
    // Of an earlier cycle: nothing leaves a span like that.
    let (heap, _) = read(&World::new(vec![full, TestSpan { sweepgen: made.sweepgen - 2, ..made }]));
    assert_eq!((heap.spans().len(), heap.incidents().get("span.bad_geometry")), (1, 1));
    assert_eq!(heap.totals().unread_bytes, PAGE_SIZE);
}
