//! The two questions that a walk asks most: which object does this word point into, and which words of this object are pointers?

use super::dump::Model;
use super::stage;
use criterion::{Criterion, Throughput};
use goref_fast::address::{Addr, WORD};
use goref_fast::image::Image;
use goref_fast::model::heap::{Heap, Span, SpanId};
use rayon::ThreadPool;
use rayon::prelude::*;

/// Lookups of one round, at most.
const MAX_WORDS: usize = 4 << 20;
/// Lookups or spans that a worker takes at a time.
const CHUNK: usize = 1 << 14;

/// Groups "address lookup" (words a second) and "mask reading" (bytes of slots a second).
pub fn measure(criterion: &mut Criterion, name: &str, pools: &[ThreadPool], image: &dyn Image, model: &Model<'_>) {
    let heap = &model.heap;
    let words = pointer_words(image, model);
    let found = look_up(heap, &words, |addr| heap.find_object(addr));
    assert_eq!(found, look_up(heap, &words, |addr| search(heap, addr)), "{name}: lookups against a binary search");
    let throughput = Throughput::Elements(words.len() as u64);
    let lookups = |()| look_up(heap, &words, |addr| heap.find_object(addr));
    stage(criterion, ("address lookup", name), throughput, pools, || (), lookups);

    let whole = pointers(heap, |id, slot, out| {
        assert!(heap.object_mask(image, &model.masks, id, slot, out), "a mask");
    });
    // The same masks in windows of a word of bits.
    let windows = pointers(heap, |id, slot, out| {
        let (mut all, words) = (Vec::new(), heap.span(id).elem_size() / WORD);
        for first in (0..words).step_by(64) {
            assert!(heap.object_mask_words(image, &model.masks, id, slot, first, 64, out), "a mask");
            all.append(out);
        }
        *out = all;
    });
    assert_eq!(whole, windows, "{name}: masks against their windows");
    let bytes = scanned(heap).map(|(id, slots)| slots.len() as u64 * heap.span(id).elem_size()).sum();
    stage(
        criterion,
        ("mask reading", name),
        Throughput::Bytes(bytes),
        pools,
        || (),
        |()| {
            pointers(heap, |id, slot, out| {
                heap.object_mask(image, &model.masks, id, slot, out);
            })
        },
    );
}

/// Spans with pointers, each with its allocated slots.
fn scanned(heap: &Heap) -> impl Iterator<Item = (SpanId, Vec<u32>)> + '_ {
    let spans = (0..).map(SpanId).zip(heap.spans()).filter(|(_, span)| !span.noscan());
    spans.map(|(id, span)| (id, (0..u32::from(span.nelems)).filter(|slot| heap.is_allocated(id, *slot)).collect()))
}

/// The values of pointer words in the order of the objects that hold them, as a walk of one level meets them.
fn pointer_words(image: &dyn Image, model: &Model<'_>) -> Vec<u64> {
    let (mut words, mut mask) = (Vec::new(), Vec::new());
    for (id, slots) in scanned(&model.heap) {
        for slot in slots {
            let start = model.heap.slot_addr(id, slot);
            assert!(model.heap.object_mask(image, &model.masks, id, slot, &mut mask), "a mask");
            for (i, bits) in (0..).zip(&mask) {
                let set = (0..64).filter(|bit| bits >> bit & 1 != 0);
                words.extend(set.filter_map(|bit| image.read_u64(Addr(start + (i * 64 + bit) * WORD)).ok()));
            }
            if words.len() >= MAX_WORDS {
                words.truncate(MAX_WORDS);
                return words;
            }
        }
    }
    words
}

/// How many words point to objects, and a sum over which.
fn look_up(heap: &Heap, words: &[u64], find: impl Fn(u64) -> Option<(SpanId, u32)> + Sync) -> (u64, u64) {
    let chunk = |words: &[u64]| {
        words.iter().filter_map(|addr| find(*addr)).fold((0, 0u64), |(n, sum), (id, slot)| {
            (n + 1, sum.wrapping_add(u64::from(heap.span(id).slot_base) + u64::from(slot)))
        })
    };
    words.par_chunks(CHUNK).map(chunk).reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1.wrapping_add(b.1)))
}

/// [`Heap::find_object`] without its tables.
fn search(heap: &Heap, addr: u64) -> Option<(SpanId, u32)> {
    let i = heap.spans().partition_point(|span| span.start <= addr).checked_sub(1)?;
    let span: &Span = &heap.spans()[i];
    (addr < span.limit).then(|| (SpanId(i as u32), ((addr - span.start) / span.elem_size()) as u32))
}

/// Sum of all pointer bits of all allocated objects, and of their places.
fn pointers(heap: &Heap, mask: impl Fn(SpanId, u32, &mut Vec<u64>) + Sync) -> (u64, u64) {
    let spans: Vec<u32> = (0..heap.spans().len() as u32).collect();
    let of_span = |out: &mut Vec<u64>, id: SpanId| {
        let span = heap.span(id);
        let (mut bits, mut places) = (0, 0u64);
        if span.noscan() {
            return (bits, places);
        }
        for slot in (0..u32::from(span.nelems)).filter(|slot| heap.is_allocated(id, *slot)) {
            mask(id, slot, out);
            for (i, word) in (1..).zip(&*out) {
                bits += u64::from(word.count_ones());
                places = places.wrapping_add(word.wrapping_mul(i));
            }
        }
        (bits, places)
    };
    let chunk = |ids: &[u32]| {
        let mut out = Vec::new();
        ids.iter().map(|id| of_span(&mut out, SpanId(*id))).fold((0, 0), add)
    };
    spans.par_chunks(CHUNK / 256).map(chunk).reduce(|| (0, 0), add)
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1.wrapping_add(b.1))
}
