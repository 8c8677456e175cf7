//! Spans in odd places, spans that make no sense, and bytes of any kind.

use super::masks::types;
use super::*;

#[test]
fn damaged_spans_are_unread_not_fatal() {
    let good = TestSpan::small(ARENA, 48, 165, 10);
    let mut bad = Vec::new();
    for i in 0..8u64 {
        let mut s = TestSpan::small(ARENA + (i + 1) * PAGE_SIZE, 48, 165, 10);
        match i {
            0 => s.nelems = 171,
            1 => s.elem_size = 0,
            2 => s.elem_size = 4,
            3 => (s.limit, s.free_index) = (5, 1),
            4 => s.free_index = 166,
            5 => s.class = 200,
            6 => s.elem_size = u64::MAX - 7,
            _ => s.nelems = 0,
        }
        bad.push(s);
    }
    let mut wild = TestSpan::small(ARENA + 100 * PAGE_SIZE, 48, 165, 10);
    wild.npages = u64::MAX / 2;
    let overlapping =
        TestSpan { start: ARENA + 50 * PAGE_SIZE, npages: 4, ..TestSpan::small(ARENA, PAGE_SIZE * 2, 2, 10) };
    let over = TestSpan::small(ARENA + 51 * PAGE_SIZE, 48, 165, 10);
    let mut spans = vec![good, wild, TestSpan { limit: ARENA + 54 * PAGE_SIZE, ..overlapping }, over];
    spans.extend(bad);
    let (heap, _) = read(&World::new(spans));
    assert_eq!(heap.spans().len(), 2);
    assert_eq!(heap.incidents().get("span.bad_geometry"), 9);
    assert_eq!(heap.incidents().get("span.overlap"), 1);
    assert_eq!(heap.totals().unread_bytes, 8 * PAGE_SIZE);
    assert_eq!(heap.totals().in_use_bytes, 13 * PAGE_SIZE);
}

#[test]
fn lost_spans_are_unread() {
    let world = World::new(vec![TestSpan::small(ARENA, 48, 165, 10), TestSpan::small(ARENA + PAGE_SIZE, 48, 165, 10)]);
    let mut ranges = vec![(ARENA, vec![0; 2 * PAGE_SIZE as usize])];
    ranges.extend(world.metadata());
    // The second mspan is cut off; mheap_.pagesInUse says 7.
    ranges.iter_mut().find(|(at, _)| *at == MSPANS).expect("mspans").1.truncate(MSPAN_SIZE + 60);
    let heap = Heap::read(&Bytes::new(ranges), &layout()).expect("a heap");
    assert_eq!(heap.incidents().get("span.mspan_unread"), 1);
    assert_eq!((heap.totals().in_use_bytes, heap.totals().unread_bytes), (7 * PAGE_SIZE, 6 * PAGE_SIZE));
}

#[test]
fn spans_that_cross_arenas_keep_them_in_one_shard() {
    let at = |arena: u64, page: u64| ARENA + arena * ARENA_SIZE + page * PAGE_SIZE;
    let mut crossing = TestSpan::small(at(0, 8190), 4 * PAGE_SIZE, 1, 1);
    (crossing.npages, crossing.limit) = (4, crossing.start + 4 * PAGE_SIZE);
    let spans = vec![
        TestSpan::small(at(0, 0), 48, 165, 10),
        crossing,
        TestSpan::small(at(1, 2), 48, 165, 10),
        TestSpan::small(at(2, 0), 48, 165, 10),
        TestSpan::small(at(2000, 5), 48, 165, 10),
    ];
    let (heap, _) = read(&World::new(spans));
    let shards: Vec<_> = heap.shards().iter().map(|s| (s.base, s.end, s.spans.clone(), s.slots)).collect();
    assert_eq!(
        shards,
        [(at(0, 0), at(2, 0), 0..3, 331), (at(2, 0), at(3, 0), 3..4, 165), (at(2000, 0), at(2001, 0), 4..5, 165),]
    );
    assert_eq!(heap.shard_of(at(1, 100)), Some(0));
    assert_eq!(heap.shard_of(at(1000, 0)), None);
    assert_eq!(heap.find_object(at(1, 1)), Some((SpanId(1), 0)));
    assert_eq!(heap.find_object(at(2000, 5)), Some((SpanId(4), 0)));
}

/// Where heaps begin differs between machines and releases; arm64 kernels may have 39 bits of user addresses, or 48.
#[test]
fn spans_may_be_anywhere_below_48_bits() {
    let arm64 = 0x40_0000_0000;
    let ends = [1 << 39, 1 << 42, 1 << 47, 1 << 48];
    let starts = ends.map(|end| end - PAGE_SIZE);
    let all: Vec<u64> = [ARENA_SIZE, arm64].into_iter().chain(starts).collect();
    let (heap, _) = read(&World::new(all.iter().map(|at| TestSpan::small(*at, 48, 165, 10)).collect()));
    assert!(heap.incidents().is_empty(), "{:?}", heap.incidents());
    for (i, start) in all.iter().enumerate() {
        assert_eq!(heap.find_object(start + 48 * 164 + 47), Some((SpanId(i as u32), 164)), "{start:#x}");
        assert_eq!(heap.find_object(start + PAGE_SIZE), None);
        // The same address with a tag in its uppermost byte is no pointer of Go's.
        assert_eq!(heap.find_object(start | 1 << 56), None);
    }
    let mut beyond = TestSpan::small(1 << 48, 48, 165, 10);
    beyond.limit = beyond.start + 48 * 165;
    let (heap, _) = read(&World::new(vec![TestSpan::small(arm64, 48, 165, 10), beyond]));
    assert_eq!((heap.spans().len(), heap.incidents().is_empty()), (1, false));
}

#[test]
fn many_arenas_share_shards() {
    let spans = (0..600).map(|i| TestSpan::small(ARENA + i * ARENA_SIZE, 48, 165, 10)).collect();
    let (heap, _) = read(&World::new(spans));
    assert_eq!(heap.shards().len(), 200);
    assert!(heap.shards().iter().all(|s| s.spans.len() == 3 && s.slots == 3 * 165 && !s.oversized));
    let far = (0..300).map(|i| TestSpan::small(ARENA + i * SHARD_REACH, 48, 165, 10)).collect();
    let (heap, _) = read(&World::new(far));
    assert_eq!((heap.shards().len(), heap.spans().len()), (MAX_SHARDS, MAX_SHARDS));
    assert_eq!(heap.totals().unread_bytes, 44 * PAGE_SIZE);
    assert_eq!(heap.find_object(ARENA + 299 * SHARD_REACH), None);
}

#[test]
fn damage_anywhere_never_panics() {
    let mut a = TestSpan::small(ARENA, 48, 165, 10);
    (a.free_index, a.specials) = (20, SPECIALS);
    let header = TestSpan { free_index: 12, ..TestSpan::small(ARENA + PAGE_SIZE, 640, 12, 50) };
    let mut large = TestSpan::small(ARENA + 2 * PAGE_SIZE, 5 * PAGE_SIZE, 1, 0);
    (large.npages, large.limit, large.large_type, large.free_index) = (5, large.start + 33_000, TYPES + 0x200, 1);
    let world = types()
        .into_iter()
        .fold(World::new(vec![a, header, large]), |w, (at, words)| w.with(at, &words))
        .with(SPECIALS, &[0, 100, 2, 0xf, 0x1, 0x2]);
    let mut clean = world.memory.clone();
    clean.extend(world.metadata());
    clean.push((ARENA, TYPES.to_le_bytes().repeat(7 * 1024)));

    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..1000 {
        let mut ranges = clean.clone();
        for _ in 0..1 + random() % 4 {
            let i = random() as usize % ranges.len();
            let bytes = &mut ranges[i].1;
            let at = random() as usize % bytes.len().max(1);
            match random() % 3 {
                _ if bytes.is_empty() => {}
                0 => bytes[at] ^= 1 << (random() % 8),
                1 => bytes[at] = random() as u8,
                _ => bytes.truncate(at),
            }
        }
        let image = Bytes::new(ranges);
        let Ok(heap) = Heap::read(&image, &layout()) else { continue };
        let types = TypeMasks::new(&layout(), heap.largest_slot());
        let mut out = Vec::new();
        for (id, span) in (0..).map(SpanId).zip(heap.spans()) {
            for slot in 0..u32::from(span.nelems).min(200) {
                heap.object_mask_words(&image, &types, id, slot, 0, 4096, &mut out);
            }
            assert!(span.slot_of(span.limit - 1) < u32::from(span.nelems) || span.limit == span.start);
        }
        let t = heap.totals();
        assert_eq!(t.allocated_bytes + t.free_bytes + t.overhead_bytes + t.unread_bytes, t.in_use_bytes);
        let free: u64 = (0..heap.shards().len()).map(|s| heap.free_slots(s as u16).len()).sum();
        assert_eq!(free, t.free_objects + t.dead_objects);
    }
}

#[test]
fn threads_do_not_matter() {
    let spans: Vec<TestSpan> =
        (0..500).map(|i| TestSpan::small(ARENA + (i * 7919 % 500) * PAGE_SIZE, 48, 165, 10)).collect();
    let world = World::new(spans);
    let image = world.image();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let heap = pool.install(|| Heap::read(&image, &layout())).expect("a heap");
        heap.spans().iter().map(|s| (s.start, s.slot_base)).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(5));
    assert!(image.missing().bytes_in(AddrRange { start: Addr(ARENA), len: 1 << 30 }) == 0);
}
