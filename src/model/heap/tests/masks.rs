//! Pointer masks of types and objects.

use super::*;

/// Types: a pair {pointer, scalar}; an array of 130 pairs and a struct around it, both on demand.
pub(super) fn types() -> [(u64, Vec<u64>); 7] {
    let on_demand_array = 16 | 17 << 8;
    let on_demand_struct = 16 | 25 << 8;
    [
        (TYPES, vec![16, 8, 25 << 8, TYPES + 0x800]),
        (TYPES + 0x100, vec![16 * 130, 16 * 129 + 8, on_demand_array, TYPES + 0x900, TYPES, 130]),
        (TYPES + 0x200, vec![16 * 130 + 16, 16 * 130, on_demand_struct, TYPES + 0x908, TYPES + 0x300, 2]),
        (TYPES + 0x300, vec![TYPES + 0x400, 0, TYPES + 0x100, 8]),
        (TYPES + 0x400, vec![8, 0, 6 << 8, 0]),
        (TYPES + 0x800, vec![1]),
        // The slots of the two masks: never built, and being built.
        (TYPES + 0x900, vec![0, 0x1200]),
    ]
}

#[test]
fn masks_on_demand_are_built() {
    let world = types().into_iter().fold(World::new(vec![]), |w, (at, words)| w.with(at, &words));
    let image = world.image();
    let masks = TypeMasks::new(&layout(), 1 << 20);
    let array = masks.get(&image, TYPES + 0x100).expect("the array's mask");
    assert_eq!(array.ptr_words, 259);
    assert!((0..259).all(|i| (array.bits[i / 64] >> (i % 64) & 1 != 0) == (i % 2 == 0)));
    let around = masks.get(&image, TYPES + 0x200).expect("the struct's mask");
    assert!((0..260).all(|i| (around.bits[i / 64] >> (i % 64) & 1 != 0) == (i % 2 == 1)));
    assert!(TypeMasks::new(&layout(), 100).get(&image, TYPES + 0x100).is_none(), "larger than any slot");
    assert!(masks.get(&image, 0).is_none());
}

#[test]
fn cyclic_types_have_no_mask() {
    let on_demand_struct = 16 | 25 << 8;
    let world = World::new(vec![])
        .with(TYPES, &[64, 64, on_demand_struct, TYPES + 0x900, TYPES + 0x300, u64::MAX])
        .with(TYPES + 0x300, &[TYPES, 0].repeat(20))
        .with(TYPES + 0x900, &[0]);
    assert!(TypeMasks::new(&layout(), 1 << 20).get(&world.image(), TYPES).is_none());
}

#[test]
fn object_masks_of_every_source() {
    let in_span = TestSpan::small(ARENA, 48, 165, 10);
    let header = TestSpan::small(ARENA + PAGE_SIZE, 640, 12, 50);
    let mut large = TestSpan::small(ARENA + 2 * PAGE_SIZE, 5 * PAGE_SIZE, 1, 0);
    (large.npages, large.limit, large.large_type) = (5, large.start + 33_000, TYPES);
    let noscan = TestSpan::small(ARENA + 8 * PAGE_SIZE, 48, 168 - 3, 11);
    let mut world =
        types().into_iter().fold(World::new(vec![in_span, header, large, noscan]), |w, (at, words)| w.with(at, &words));
    // The bitmap lies below the inline marks; slot 11 starts at bit 66.
    let mut page = vec![0u8; PAGE_SIZE as usize];
    page[8192 - 256 + 8] = 0b1001_0100;
    world.memory.push((ARENA, page));
    world = world.with(ARENA + PAGE_SIZE + 640, &[TYPES]);
    let (heap, image) = read(&world);
    let types = TypeMasks::new(&layout(), heap.largest_slot());
    let mut out = Vec::new();

    assert_eq!(heap.mask_source(SpanId(0)), MaskSource::InSpan { bitmap: ARENA + 8192 - 256 });
    assert!(heap.object_mask(&image, &types, SpanId(0), 11, &mut out));
    assert_eq!(out, [0b10_0101]);

    assert!(heap.object_mask(&image, &types, SpanId(1), 1, &mut out));
    assert_eq!(out.len(), 2);
    let set: Vec<u32> = (0..80).filter(|i| out[*i as usize / 64] >> (i % 64) & 1 != 0).collect();
    assert_eq!(set, (0..40).map(|k| 1 + 2 * k).filter(|&w| w < 80).collect::<Vec<u32>>());
    assert!(!heap.object_mask(&image, &types, SpanId(1), 2, &mut out), "a header of 0 is no type");
    assert_eq!(out, [0, 0]);
    assert_eq!(heap.recorded_type(&image, SpanId(1), 1), Some(TYPES));
    assert_eq!(heap.object_offset(SpanId(1)), 8);

    assert!(heap.object_mask(&image, &types, SpanId(2), 0, &mut out));
    let ones: u32 = out.iter().map(|w| w.count_ones()).sum();
    assert_eq!(ones, 33_000 / 16 + 1, "up to the requested size");
    let mut part = Vec::new();
    assert!(heap.object_mask_words(&image, &types, SpanId(2), 0, 100, 70, &mut part));
    assert!((0..70).all(|i| (part[i / 64] >> (i % 64) & 1) == (out[(100 + i) / 64] >> ((100 + i) % 64) & 1)));

    assert_eq!(heap.mask_source(SpanId(3)), MaskSource::Noscan);
}
