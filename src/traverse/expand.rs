//! Hot: expands a unit of items into candidates. Read-only.
//!
//! A unit finds its items' spans, loads their bytes and masks at once, and hands them to the program's operations
//! (`operations.rs`), which append a candidate for each pointer to the worker's segment *for the target's shard*.
//!
//! The mask of an object up to 512 bytes is in its span (or arena): one or two words, loaded with the object. A larger object was
//! given its allocation type's own program when it was claimed, so its mask needs no second look; where releases do not record that
//! type, it is scanned word by word (`Run::checked`).

use super::arrange::MAX_RUN;
use super::frontier::{Frontier, Part, Slice};
use super::items::{Item, POOL, Stretch, TAIL};
use super::observe::Holder;
use super::operations::{Emit, Sink, Value, low_bits, word_at};
use super::pool::Pool;
use super::scan::Program;
use super::segments::{Chunk, Segment};
use super::world::World;
use crate::address::{Addr, AddrRange};
use crate::image::{Scratch, UnitBytes};
use crate::incident::Incidents;
use crate::model::heap::MaskSource;
use crate::prefetch::prefetch;

/// Bytes of an item that are asked for ahead of its scan; behind them the hardware has seen the pattern.
const AHEAD: usize = 512;

/// A candidate in data or bss, where no heap object is: rare.
#[derive(Copy, Clone, Debug)]
pub struct StaticCandidate {
    /// As `Run::key`.
    pub key: u64,
    /// As `Run::unit`.
    pub unit: u32,
    /// Target address.
    pub addr: u64,
    /// Elements.
    pub count: u32,
}

/// Mask words that the type an object was claimed as does not explain, found while it was scanned.
#[derive(Copy, Clone, Debug)]
pub struct LateOpen {
    /// Group that the object is in.
    pub group: u32,
    /// Its shard.
    pub shard: u16,
    /// Its ordinal.
    pub ordinal: u32,
    /// The words, from the slot's start.
    pub words: u64,
}

/// A pointer that no type explains, outside of partial objects.
#[derive(Copy, Clone, Debug)]
pub struct Loose {
    /// Group of the item that holds it.
    pub group: u32,
    /// Where it lies: orders loose words of one path.
    pub at: u64,
    /// The pointer.
    pub value: u64,
    /// It waits until the runtime's own roots are exhausted: see [`super::scan::Edge::Later`].
    pub later: bool,
}

/// Everything that one worker emits in a wave.
#[derive(Default, Debug)]
pub struct Output {
    /// By shard; only those in `touched` are not empty.
    pub segments: Vec<Segment>,
    /// Shards with candidates, each once.
    pub touched: Vec<u16>,
    /// Chunks for segments to take.
    spare: Vec<Chunk>,
    /// See [`StaticCandidate`].
    pub statics: Vec<StaticCandidate>,
    /// See [`LateOpen`].
    pub opens: Vec<LateOpen>,
    /// See [`Loose`].
    pub loose: Vec<Loose>,
    /// Candidates emitted.
    pub candidates: u64,
    /// Soft errors.
    pub incidents: Incidents,
}

impl Output {
    /// Ready for a heap of `shards`.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        let mut output = Self::default();
        output.segments.resize_with(shards, Segment::default);
        output
    }

    /// Empties what the last wave left, keeping the memory. Costs what the wave touched.
    pub fn clear(&mut self) {
        for shard in self.touched.drain(..) {
            self.segments[usize::from(shard)].clear(&mut self.spare);
        }
        self.statics.clear();
        self.opens.clear();
        self.loose.clear();
        self.candidates = 0;
    }
}

impl Sink for Output {
    #[inline(always)]
    fn push(&mut self, world: &World<'_>, at: (u64, u32), addr: u64, count: Option<u64>, holder: Option<u64>) {
        let (key, unit) = at;
        let count = count.map(element_count);
        match world.heap.shard_of(addr) {
            Some(shard) => {
                let segment = &mut self.segments[usize::from(shard)];
                if segment.is_empty() {
                    self.touched.push(shard);
                }
                segment.push(&mut self.spare, key, unit, addr);
                if let Some(count) = count {
                    segment.count(count);
                }
                if let Some(holder) = holder {
                    segment.holder(holder);
                }
            }
            None if world.in_segments(addr) => {
                self.statics.push(StaticCandidate { key, unit, addr, count: count.unwrap_or(1) });
            }
            None => {}
        }
    }

    fn loose(&mut self, loose: Loose) {
        self.loose.push(loose);
    }

    fn open(&mut self, open: LateOpen) {
        self.opens.push(open);
    }

    fn incident(&mut self, cause: &'static str) {
        self.incidents.count(cause);
    }

    #[inline]
    fn follow(&mut self) {
        self.candidates += 1;
    }
}

/// An element count as items have it.
#[inline]
pub(super) fn element_count(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(TAIL - 1).min(TAIL - 1)
}

/// One item, located.
#[derive(Copy, Clone, Debug)]
pub(super) struct Located {
    /// Where it starts.
    pub(super) addr: u64,
    /// Elements that fit its slot, with [`TAIL`].
    pub(super) count: u32,
    /// The object's ordinal.
    pub(super) ordinal: u32,
    /// Range of the span's bitmap among the loaded ranges, `u32::MAX` if not needed.
    bitmap: u32,
    /// First word in that bitmap.
    word: u32,
    /// Words from `addr` to the end of the slot.
    words: u32,
    /// It starts where its slot starts.
    front: bool,
}

/// What one worker keeps between units.
#[derive(Default)]
pub struct Buffers {
    scratch: Scratch,
    ranges: Vec<AddrRange>,
    bitmaps: Vec<AddrRange>,
    items: Vec<Located>,
    /// By item: mask bits from its start on; all ones if the program is the allocation type's own.
    masks: Vec<u64>,
    mask: Vec<u64>,
    /// See [`Dynamic`].
    dynamic: Dynamic,
}

/// Interface edges of one operation, until they are sorted by dynamic type.
#[derive(Default)]
pub(super) struct Dynamic {
    /// (dynamic type number, data word, holder).
    pub(super) edges: Vec<(u32, u64, u64)>,
    /// The itab met last and its number: neighbours mostly have the same.
    pub(super) last_itab: (u64, u32),
    /// The same for words that are only taken for type words. Not one memory for both: such a word is believed less.
    pub(super) last_word: (u64, u32),
}

/// One wave's constants.
#[derive(Copy, Clone)]
pub struct Wave<'w> {
    /// Surroundings.
    pub world: &'w World<'w>,
    /// The level.
    pub frontier: &'w Frontier,
    /// All programs.
    pub programs: &'w [Program],
    /// First edge ordinal of each group from `first_group` on.
    pub bases: &'w [u32],
    /// Group of `bases[0]`.
    pub first_group: u32,
    /// Follow storage edges (a map's and channel's own memory) instead of the others.
    pub storage: bool,
    /// Copied values.
    pub pool: &'w Pool,
}

/// Expands the slices of one unit. `HOLDERS`: candidates carry who holds them.
pub fn expand_unit<const HOLDERS: bool>(
    wave: &Wave<'_>,
    unit: u32,
    slices: &[Slice],
    buffers: &mut Buffers,
    out: &mut Output,
) {
    for slice in slices {
        let part = &wave.frontier.parts[slice.part as usize];
        let group = &wave.frontier.groups[part.group as usize];
        let program = &wave.programs[group.program.0 as usize];
        let base = wave.bases[(part.group - wave.first_group) as usize];
        let emit = Emit { world: wave.world, unit, base, program, group: part.group, storage: wave.storage };
        let run = Run::<HOLDERS> { wave, emit, part };
        if part.shard == POOL {
            run.pool(slice, buffers, out);
        } else if group.checked {
            run.checked(slice, buffers, out);
        } else {
            let items = wave.frontier.items(part);
            match part.stretch {
                // Nearly all parts: nothing but places.
                Stretch { counts: None, restrict: None, start, .. } => {
                    emit.objects(part.shard, items.plain(start + slice.from, slice.len), buffers, out);
                }
                stretch => {
                    let values = (slice.from..slice.from + slice.len).map(|i| items.get(&stretch, i));
                    emit.objects(part.shard, values, buffers, out);
                }
            }
        }
    }
}

/// A slice of one part being expanded.
struct Run<'w, const HOLDERS: bool> {
    wave: &'w Wave<'w>,
    emit: Emit<'w, HOLDERS>,
    part: &'w Part,
}

impl<const HOLDERS: bool> Run<'_, HOLDERS> {
    fn item(&self, i: usize) -> Item {
        self.wave.frontier.items(self.part).get(&self.part.stretch, i)
    }

    /// Items whose mask must be looked up word by word: copied values.
    fn pool(&self, slice: &Slice, buffers: &mut Buffers, out: &mut Output) {
        let pool = self.wave.pool;
        let program = self.emit.program;
        for i in slice.from..slice.from + slice.len {
            let item = self.item(i);
            let first = item.granule as usize;
            let count = u64::from(item.count & !TAIL);
            let size = if program.is_masked() { 8 } else { program.size };
            let words = usize::try_from(count.saturating_mul(size) / 8).unwrap_or(usize::MAX);
            let end = first.saturating_add(words).min(pool.words());
            let Some(bytes) = pool.bytes.get(first * 8..end * 8) else { continue };
            let mask = &mut buffers.mask;
            mask.clear();
            mask.resize((end - first).div_ceil(64), 0);
            for word in 0..end - first {
                mask[word / 64] |= u64::from(pool.is_pointer(first + word)) << (word % 64);
            }
            let value = Value { bytes, mask, at: first as u64 * 8, holder: Holder::pack(POOL, item.granule) };
            self.emit.one(&value, item.count, &mut buffers.dynamic, out);
        }
    }

    /// Items in the heap whose program does not say what their mask says, or may not: see [`super::frontier::Group::checked`].
    fn checked(&self, slice: &Slice, buffers: &mut Buffers, out: &mut Output) {
        let World { heap, masks, image, .. } = *self.emit.world;
        let size = self.emit.program.size;
        let base = heap.shards()[usize::from(self.part.shard)].base;
        for i in slice.from..slice.from + slice.len {
            let item = self.item(i);
            let addr = base + u64::from(item.granule) * 8;
            let Some((id, slot)) = heap.find_object(addr) else { continue };
            let span = heap.span(id);
            let start = heap.slot_addr(id, slot);
            let slot_end = (start + span.elem_size()).min(span.limit.max(start));
            // A run of a longer object ends with its elements; only the last one takes what is left of the slot.
            let run = u64::from(item.count & !TAIL).saturating_mul(size);
            let next = addr.saturating_add(run);
            // Only a full run has a successor: masked and untyped programs know no elements, and a closure's known captures may
            // end before its object does.
            let full = item.count & !TAIL == MAX_RUN && size > 0;
            let more = full && next.saturating_add(size) <= slot_end;
            let end = if more { next } else { slot_end };
            let Buffers { mask, scratch, dynamic, .. } = &mut *buffers;
            if !heap.object_mask_words(image, masks, id, slot, (addr - start) / 8, (end - addr) / 8, mask) {
                out.incidents.count("walk.unreadable_mask");
            }
            let unit = image.load(&[AddrRange { start: Addr(addr), len: end - addr }], scratch);
            if unit.get(0).is_empty() {
                out.incidents.count("walk.object_not_in_core");
            }
            let holder = Holder::pack(self.part.shard, span.slot_base + slot);
            let value = Value { bytes: unit.get(0), mask, at: addr, holder };
            self.emit.one(&value, item.count, dynamic, out);
        }
    }
}

impl<const HOLDERS: bool> Emit<'_, HOLDERS> {
    /// Items in the heap whose masks are their span's bitmap or their program's own.
    pub(super) fn objects(
        &self,
        shard: u16,
        values: impl Iterator<Item = Item>,
        buffers: &mut Buffers,
        out: &mut impl Sink,
    ) {
        self.locate(shard, values, buffers, out);
        let Buffers { scratch, ranges, items, masks, dynamic, .. } = buffers;
        let unit = self.world.image.load(ranges, scratch);
        for (i, item) in items.iter().enumerate() {
            let bytes = unit.get(i);
            let ahead = &bytes[..bytes.len().min(AHEAD)];
            ahead.iter().step_by(64).for_each(prefetch);
            // Objects do not start where lines do.
            ahead.last().into_iter().for_each(prefetch);
            if item.bitmap != u32::MAX
                && let Some(byte) = unit.get(item.bitmap as usize).get(item.word as usize / 8)
            {
                prefetch(byte);
            }
        }
        self.load_masks(shard, items, &unit, masks, out);
        let place = (shard, &unit);
        if self.program.is_masked() {
            self.masked_words(items, masks, place, dynamic, out);
        } else {
            self.operations(items, masks, place, dynamic, out);
        }
    }

    /// Reads the masks that are in spans, and says which of their words the program leaves open.
    fn load_masks(&self, shard: u16, items: &[Located], unit: &UnitBytes<'_>, masks: &mut [u64], out: &mut impl Sink) {
        let program = self.program;
        let whole = program.is_masked() || self.storage;
        let first = program.typed_tile(1);
        let nibbles = self.world.heap.masks_in_nibbles();
        for (i, (item, mask)) in items.iter().zip(masks).enumerate() {
            if unit.get(i).is_empty() {
                out.incident("walk.object_not_in_core");
            }
            if item.bitmap == u32::MAX {
                // Without a bitmap there is no mask to go by: masked words of such objects are found by `checked`.
                if program.is_masked() {
                    *mask = 0;
                }
                continue;
            }
            let restrict = *mask;
            let bitmap = unit.get(item.bitmap as usize);
            let bits = match nibbles {
                false => bits_at(bitmap, item.word),
                true => self.world.heap.mask_window(bitmap, u64::from(item.word)),
            };
            *mask &= bits & low_bits(item.words);
            if whole || restrict != !0 || !item.front {
                continue;
            }
            let count = item.count & !TAIL;
            let left = *mask & !if count == 1 { first } else { program.typed_tile(u64::from(count)) };
            if left != 0 {
                out.open(LateOpen { group: self.group, shard, ordinal: item.ordinal, words: left });
            }
        }
    }

    /// Finds span and slot of each item, and lists what must be loaded: the items' bytes first, then the bitmaps.
    fn locate(&self, shard: u16, values: impl Iterator<Item = Item>, buffers: &mut Buffers, out: &mut impl Sink) {
        let heap = self.world.heap;
        let base = heap.shards()[usize::from(shard)].base;
        let size = self.program.size;
        let Buffers { items, masks, ranges, bitmaps, .. } = buffers;
        items.clear();
        masks.clear();
        ranges.clear();
        bitmaps.clear();
        // Items are in slot order: most lie in the span of the one before.
        let mut last = None;
        values.for_each(|Item { granule, count, restrict }| {
            let addr = base + u64::from(granule) * 8;
            let (span, bitmap) = match last {
                Some((span, bitmap)) if heap.contains(span, addr) => (heap.span(span), bitmap),
                _ => {
                    let Some(id) = heap.find_span(addr) else {
                        out.incident("walk.item_outside_heap");
                        return;
                    };
                    let bitmap = match heap.mask_source(id) {
                        MaskSource::InSpan { bitmap } => {
                            bitmaps.push(AddrRange { start: Addr(bitmap), len: heap.in_span_bitmap_len(id) });
                            bitmaps.len() as u32 - 1
                        }
                        _ => u32::MAX,
                    };
                    last = Some((id, bitmap));
                    (heap.span(id), bitmap)
                }
            };
            let slot = span.slot_of(addr);
            let start = span.start + u64::from(slot) * span.elem_size();
            let avail = (start + span.elem_size()).min(span.limit.max(start)) - addr;
            let (elements, bytes) = clamp(u64::from(count & !TAIL), size, avail);
            let whole = bitmap != u32::MAX && self.program.is_masked();
            ranges.push(AddrRange { start: Addr(addr), len: if whole { avail } else { bytes } });
            masks.push(restrict);
            items.push(Located {
                addr,
                count: elements | (count & TAIL),
                ordinal: span.slot_base + slot,
                bitmap,
                word: ((addr - span.start) / 8) as u32,
                words: u32::try_from(avail / 8).unwrap_or(u32::MAX),
                front: addr == start,
            });
        });
        let first = items.len() as u32;
        for item in items {
            if item.bitmap != u32::MAX {
                item.bitmap += first;
            }
        }
        ranges.extend_from_slice(bitmaps);
    }
}

/// Elements and bytes of a run that fit into `avail` bytes of its slot. A value larger than that keeps the front that fits.
#[inline]
fn clamp(count: u64, size: u64, avail: u64) -> (u32, u64) {
    if count <= 1 || size == 0 || size > avail {
        return (1, avail.min(size));
    }
    let count = count.min(avail / size);
    (u32::try_from(count).unwrap_or(TAIL - 1).min(TAIL - 1), count * size)
}

/// 64 bits from bit `word` on; bits beyond the end are 0.
#[inline]
fn bits_at(bitmap: &[u8], word: u32) -> u64 {
    let at = u64::from(word / 64) * 8;
    let low = word_at(bitmap, at).unwrap_or(0);
    match word % 64 {
        0 => low,
        shift => low >> shift | word_at(bitmap, at + 8).unwrap_or(0) << (64 - shift),
    }
}
