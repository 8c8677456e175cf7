//! Hot: expands a unit of items into candidates. Read-only; loops over operations outside, over items inside.
//!
//! For each edge whose mask bit is set and whose word is not nil, the target address is appended to the worker's segment *for the
//! target's shard*. A segment is cut into runs of one key, so that claims can visit candidates in key order without a key per candidate.
//!
//! The mask of an object up to 512 bytes is in its span: one or two words, loaded with the object. A larger object was
//! given its allocation type's own program when it was claimed, so its mask needs no second look.

use super::frontier::{Frontier, Item, MAX_RUN, POOL, Part, Slice, TAIL};
use super::scan::{Edge, INDEXED, Op, Program, ProgramKey, for_each_rep};
use super::segments::{Chunk, Segment};
use super::world::World;
use crate::address::{Addr, AddrRange};
use crate::image::{Scratch, UnitBytes};
use crate::incident::Incidents;
use crate::model::heap::MaskSource;

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

    #[inline]
    fn push(&mut self, world: &World<'_>, key: u64, unit: u32, addr: u64) {
        match world.heap.shard_of(addr) {
            Some(shard) => {
                let segment = &mut self.segments[usize::from(shard)];
                if segment.is_empty() {
                    self.touched.push(shard);
                }
                segment.push(&mut self.spare, key, unit, addr);
            }
            None if world.in_segments(addr) => {
                self.statics.push(StaticCandidate { key, unit, addr, count: 1 });
            }
            None => {}
        }
    }

    fn push_counted(&mut self, world: &World<'_>, key: u64, unit: u32, addr: u64, count: u64) {
        let count = u32::try_from(count).unwrap_or(TAIL - 1).min(TAIL - 1);
        match world.heap.shard_of(addr) {
            Some(shard) => {
                let segment = &mut self.segments[usize::from(shard)];
                if segment.is_empty() {
                    self.touched.push(shard);
                }
                segment.push_counted(&mut self.spare, key, unit, addr, count);
            }
            None if world.in_segments(addr) => self.statics.push(StaticCandidate { key, unit, addr, count }),
            None => {}
        }
    }
}

/// Values copied out of stacks, data and bss, with their pointer bits.
#[derive(Default, Debug)]
pub struct Pool {
    /// The words, little-endian as in the image.
    pub bytes: Vec<u8>,
    /// Bit `i % 64` of word `i / 64`: word `i` of the pool is a root word.
    pub mask: Vec<u64>,
}

impl Pool {
    /// Number of words.
    #[must_use]
    pub fn words(&self) -> usize {
        self.bytes.len() / 8
    }

    /// Appends a word; `pointer` sets its bit.
    pub fn push(&mut self, word: u64, pointer: bool) {
        let i = self.words();
        if i.is_multiple_of(64) {
            self.mask.push(0);
        }
        self.mask[i / 64] |= u64::from(pointer) << (i % 64);
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }

    fn is_pointer(&self, word: usize) -> bool {
        self.mask.get(word / 64).is_some_and(|m| m >> (word % 64) & 1 != 0)
    }
}

/// One item, located.
#[derive(Copy, Clone, Debug)]
struct Located {
    addr: u64,
    /// Mask bits from `addr` on; all ones if the program is the allocation type's own.
    mask: u64,
    count: u32,
    /// Words from the slot's start to `addr`, and the object's ordinal.
    words_before: u32,
    ordinal: u32,
    /// Range of the span's bitmap among the loaded ranges, `u32::MAX` if not needed.
    bitmap: u32,
    /// First word in that bitmap.
    word: u32,
    /// Words from `addr` to the end of the slot.
    words: u32,
    restrict: u64,
}

/// What one worker keeps between units.
#[derive(Default)]
pub struct Buffers {
    scratch: Scratch,
    ranges: Vec<AddrRange>,
    items: Vec<Located>,
    dynamic: Vec<(u32, u64)>,
    mask: Vec<u64>,
    last_itab: (u64, u32),
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

/// Expands the slices of one unit.
pub fn expand_unit(wave: &Wave<'_>, unit: u32, slices: &[Slice], buffers: &mut Buffers, out: &mut Output) {
    for slice in slices {
        let part = &wave.frontier.parts[slice.part as usize];
        let group = &wave.frontier.groups[part.group as usize];
        let program = &wave.programs[group.program.0 as usize];
        let emit =
            Emit { wave, unit, base: wave.bases[(part.group - wave.first_group) as usize], program, group: part.group };
        if part.shard == POOL {
            emit.pool(part, slice, buffers, out);
        } else if group.checked {
            emit.checked(part, slice, buffers, out);
        } else {
            emit.objects(part, slice, buffers, out);
        }
    }
}

struct Emit<'w> {
    wave: &'w Wave<'w>,
    unit: u32,
    base: u32,
    program: &'w Program,
    group: u32,
}

#[inline]
fn word_at(bytes: &[u8], offset: u64) -> Option<u64> {
    let at = usize::try_from(offset).ok()?;
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().expect("eight bytes")))
}

fn low_bits(n: u32) -> u64 {
    if n >= 64 { !0 } else { (1 << n) - 1 }
}

impl Emit<'_> {
    /// Items in the heap whose masks are their span's bitmap or their program's own.
    fn objects(&self, part: &Part, slice: &Slice, buffers: &mut Buffers, out: &mut Output) {
        self.locate(part, slice, buffers, out);
        let Buffers { scratch, ranges, items, dynamic, last_itab, .. } = buffers;
        let unit = self.wave.world.image.load(ranges, scratch);
        let masked = self.program.is_masked();
        for (i, item) in items.iter_mut().enumerate() {
            if unit.get(i).is_empty() {
                out.incidents.count("walk.object_not_in_core");
            }
            if item.bitmap == u32::MAX {
                continue;
            }
            item.mask = bits_at(unit.get(item.bitmap as usize), item.word) & low_bits(item.words) & item.restrict;
            if masked || self.wave.storage || item.restrict != !0 || item.words_before != 0 {
                continue;
            }
            let left = item.mask & !self.program.typed_tile(u64::from(item.count & !TAIL));
            if left != 0 {
                let (shard, ordinal) = (part.shard, item.ordinal);
                out.opens.push(LateOpen { group: self.group, shard, ordinal, words: left });
            }
        }
        if masked {
            self.masked_words(items, &unit, dynamic, last_itab, out);
        } else {
            self.operations(items, &unit, dynamic, last_itab, out);
        }
    }

    /// Finds span and slot of each item, and lists what must be loaded: the items' bytes first, then the bitmaps.
    fn locate(&self, part: &Part, slice: &Slice, buffers: &mut Buffers, out: &mut Output) {
        let heap = self.wave.world.heap;
        let base = heap.shards()[usize::from(part.shard)].base;
        let size = self.program.size;
        buffers.items.clear();
        buffers.ranges.clear();
        // (span, its source, index among `bitmaps`)
        let mut last = None;
        let mut bitmaps: Vec<AddrRange> = Vec::new();
        for i in slice.from..slice.from + slice.len {
            let Item { granule, count, restrict } = self.wave.frontier.item(part, i);
            let addr = base + u64::from(granule) * 8;
            let Some((id, slot)) = heap.find_object(addr) else {
                out.incidents.count("walk.item_outside_heap");
                continue;
            };
            let span = heap.span(id);
            let start = span.start + u64::from(slot) * span.elem_size();
            let avail = (start + span.elem_size()).min(span.limit.max(start)) - addr;
            let (elements, bytes) = clamp(u64::from(count & !TAIL), size, avail);
            let (source, bitmap) = match last {
                Some((last_id, source, bitmap)) if last_id == id => (source, bitmap),
                _ => {
                    let source = heap.mask_source(id);
                    let bitmap = if let MaskSource::InSpan { bitmap } = source {
                        let len = heap.details(id).npages.saturating_mul(128);
                        bitmaps.push(AddrRange { start: Addr(bitmap), len });
                        bitmaps.len() as u32 - 1
                    } else {
                        u32::MAX
                    };
                    last = Some((id, source, bitmap));
                    (source, bitmap)
                }
            };
            let whole = self.program.is_masked() && matches!(source, MaskSource::InSpan { .. });
            let len = if whole { avail } else { bytes };
            buffers.ranges.push(AddrRange { start: Addr(addr), len });
            buffers.items.push(Located {
                addr,
                mask: !0,
                count: elements | (count & TAIL),
                words_before: ((addr - start) / 8) as u32,
                ordinal: span.slot_base + slot,
                bitmap,
                word: ((addr - span.start) / 8) as u32,
                words: u32::try_from(avail / 8).unwrap_or(u32::MAX),
                restrict,
            });
        }
        let first = buffers.items.len() as u32;
        for item in &mut buffers.items {
            if item.bitmap != u32::MAX {
                item.bitmap += first;
            }
        }
        buffers.ranges.extend_from_slice(&bitmaps);
    }

    /// The inner loops of a typed walk.
    fn operations(
        &self,
        items: &[Located],
        unit: &UnitBytes<'_>,
        dynamic: &mut Vec<(u32, u64)>,
        last_itab: &mut (u64, u32),
        out: &mut Output,
    ) {
        let size = self.program.size;
        let buckets = if self.program.indexed { INDEXED + 1 } else { 1 };
        let longest = items.iter().map(|i| u64::from(i.count & !TAIL)).max().unwrap_or(0);
        let tails = items.iter().any(|i| i.count & TAIL != 0);
        for bucket in 0..buckets {
            if self.program.indexed && bucket >= longest && !(bucket == INDEXED && tails) {
                continue;
            }
            for (o, op) in self.program.ops.iter().enumerate() {
                if op.storage != self.wave.storage {
                    continue;
                }
                let ordinal = self.base + (bucket as u32) * self.program.ops.len() as u32 + o as u32;
                let key = u64::from(ordinal) << 32;
                for (i, item) in items.iter().enumerate() {
                    let bytes = unit.get(i);
                    let mut element = |e: u64| {
                        let at = e * size + op.offset;
                        if op.reps.is_empty() {
                            if at / 8 >= 64 && item.mask != !0 || item.mask >> ((at / 8) & 63) & 1 == 0 {
                                return;
                            }
                            let Some(word) = word_at(bytes, at) else { return };
                            if word != 0 {
                                self.edge(op, key, bytes, at, word, dynamic, last_itab, out);
                            }
                        } else {
                            self.repeated(op, key, bytes, e * size, item, dynamic, last_itab, out);
                        }
                    };
                    if self.program.indexed {
                        let count = u64::from(item.count & !TAIL);
                        if bucket < INDEXED {
                            if item.count & TAIL == 0 && bucket < count {
                                element(bucket);
                            }
                        } else {
                            let from = if item.count & TAIL == 0 { INDEXED } else { 0 };
                            (from..count).for_each(&mut element);
                        }
                    } else {
                        (0..u64::from(item.count & !TAIL)).for_each(&mut element);
                    }
                }
                self.flush_dynamic(key, dynamic, out);
            }
        }
    }

    /// An operation inside an array by value, or in the slots of a map group.
    #[expect(clippy::too_many_arguments, reason = "an inner loop's state, not an interface")]
    fn repeated(
        &self,
        op: &Op,
        key: u64,
        bytes: &[u8],
        element: u64,
        item: &Located,
        dynamic: &mut Vec<(u32, u64)>,
        last_itab: &mut (u64, u32),
        out: &mut Output,
    ) {
        // The eight control bytes lead a map group; a slot is full if its byte's top bit is clear.
        let control = if op.guarded { word_at(bytes, element).unwrap_or(!0) } else { 0 };
        for_each_rep(&op.reps, op.offset, &mut |offset, slot| {
            let Some(at) = element.checked_add(offset) else { return false };
            let Some(word) = word_at(bytes, at) else { return false };
            let in_mask = item.mask == !0 || (at / 8 < 64 && item.mask >> (at / 8) & 1 != 0);
            if word != 0 && in_mask {
                if op.guarded && control >> ((slot & 7) * 8 + 7) & 1 != 0 {
                    out.loose.push(Loose { group: self.group, at: item.addr.wrapping_add(at), value: word });
                } else {
                    self.edge(op, key, bytes, at, word, dynamic, last_itab, out);
                }
            }
            true
        });
    }

    /// One word that is an edge.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "an inner loop's state, not an interface")]
    fn edge(
        &self,
        op: &Op,
        key: u64,
        bytes: &[u8],
        at: u64,
        word: u64,
        dynamic: &mut Vec<(u32, u64)>,
        last_itab: &mut (u64, u32),
        out: &mut Output,
    ) {
        let world = self.wave.world;
        out.candidates += 1;
        let near = |delta: i64| at.checked_add_signed(delta).and_then(|at| word_at(bytes, at)).unwrap_or(0);
        match op.edge {
            Edge::Pointer => out.push(world, key, self.unit, word),
            Edge::Slice => out.push_counted(world, key, self.unit, word, near(16)),
            Edge::Counted { delta, minus_one } => {
                let count = near(i64::from(delta)).saturating_add(u64::from(minus_one));
                out.push_counted(world, key, self.unit, word, count);
            }
            Edge::MapDir { delta } => match near(i64::from(delta)) {
                0 => out.push_counted(world, key | 1, self.unit, word, 1),
                len => out.push_counted(world, key, self.unit, word, len),
            },
            Edge::Eface => dynamic.push((world.type_number(near(-8)), word)),
            Edge::Iface => {
                let itab = near(-8);
                if last_itab.0 != itab {
                    *last_itab = (itab, world.itab_number(itab));
                }
                dynamic.push((last_itab.1, word));
            }
        }
    }

    /// Emits interface edges by dynamic type number, in item order for each.
    fn flush_dynamic(&self, key: u64, dynamic: &mut Vec<(u32, u64)>, out: &mut Output) {
        if !dynamic.is_sorted_by_key(|d| d.0) {
            dynamic.sort_by_key(|d| d.0);
        }
        for (number, addr) in dynamic.drain(..) {
            out.push(self.wave.world, key | u64::from(number), self.unit, addr);
        }
    }

    /// Every mask word is an edge. A word behind a type word is the data word of an interface, and known by it.
    fn masked_words(
        &self,
        items: &[Located],
        unit: &UnitBytes<'_>,
        dynamic: &mut Vec<(u32, u64)>,
        last_itab: &mut (u64, u32),
        out: &mut Output,
    ) {
        for (i, item) in items.iter().enumerate() {
            // Without a bitmap there is no mask to go by: such objects are walked by `checked`.
            let mut bits = if item.bitmap == u32::MAX { 0 } else { item.mask };
            while bits != 0 {
                let word = u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                let interface = word > 0 && item.mask >> (word - 1) & 1 == 0;
                self.masked_word(unit.get(i), word * 8, interface, dynamic, last_itab, out);
            }
        }
        self.flush_dynamic(u64::from(self.base) << 32, dynamic, out);
    }

    fn masked_word(
        &self,
        bytes: &[u8],
        at: u64,
        interface: bool,
        dynamic: &mut Vec<(u32, u64)>,
        last_itab: &mut (u64, u32),
        out: &mut Output,
    ) {
        let Some(value) = word_at(bytes, at) else { return };
        if value == 0 {
            return;
        }
        out.candidates += 1;
        let mut number = 0;
        if interface
            && self.program.key == ProgramKey::Masked
            && let Some(word) = at.checked_sub(8).and_then(|at| word_at(bytes, at))
            && word != 0
        {
            if last_itab.0 != word {
                let direct = self.wave.world.type_number(word);
                let number = if direct != 0 { direct } else { self.wave.world.itab_number_if_static(word) };
                *last_itab = (word, number);
            }
            number = last_itab.1;
        }
        dynamic.push((number, value));
    }

    /// Items whose mask must be looked up word by word: copied values.
    fn pool(&self, part: &Part, slice: &Slice, buffers: &mut Buffers, out: &mut Output) {
        let pool = self.wave.pool;
        for i in slice.from..slice.from + slice.len {
            let item = self.wave.frontier.item(part, i);
            let first = item.granule as usize;
            let count = u64::from(item.count & !TAIL);
            let size = if self.program.is_masked() { 8 } else { self.program.size };
            let words = usize::try_from(count.saturating_mul(size) / 8).unwrap_or(usize::MAX);
            let end = first.saturating_add(words).min(pool.words());
            let Some(bytes) = pool.bytes.get(first * 8..end * 8) else { continue };
            let mut mask = std::mem::take(&mut buffers.mask);
            mask.clear();
            mask.resize((end - first).div_ceil(64), 0);
            for word in 0..end - first {
                mask[word / 64] |= u64::from(pool.is_pointer(first + word)) << (word % 64);
            }
            self.one(item, bytes, &mask, first as u64 * 8, buffers, out);
            buffers.mask = mask;
        }
    }

    /// Items in the heap whose program does not agree with their allocation type.
    fn checked(&self, part: &Part, slice: &Slice, buffers: &mut Buffers, out: &mut Output) {
        let World { heap, masks, image, .. } = *self.wave.world;
        let base = heap.shards()[usize::from(part.shard)].base;
        for i in slice.from..slice.from + slice.len {
            let item = self.wave.frontier.item(part, i);
            let addr = base + u64::from(item.granule) * 8;
            let Some((id, slot)) = heap.find_object(addr) else { continue };
            let span = heap.span(id);
            let start = heap.slot_addr(id, slot);
            let slot_end = (start + span.elem_size()).min(span.limit.max(start));
            // A run of a longer object ends with its elements; only the last one takes what is left of the slot.
            let run = u64::from(item.count & !TAIL).saturating_mul(self.program.size);
            let next = addr.saturating_add(run);
            // Only a full run has a successor: masked and untyped programs know no elements, and a closure's known captures may
            // end before its object does.
            let full = item.count & !TAIL == MAX_RUN && self.program.size > 0;
            let more = full && next.saturating_add(self.program.size) <= slot_end;
            let end = if more { next } else { slot_end };
            let mut mask = std::mem::take(&mut buffers.mask);
            if !heap.object_mask_words(image, masks, id, slot, (addr - start) / 8, (end - addr) / 8, &mut mask) {
                out.incidents.count("walk.unreadable_mask");
            }
            let mut scratch = std::mem::take(&mut buffers.scratch);
            let unit = image.load(&[AddrRange { start: Addr(addr), len: end - addr }], &mut scratch);
            if unit.get(0).is_empty() {
                out.incidents.count("walk.object_not_in_core");
            }
            self.one(item, unit.get(0), &mask, addr, buffers, out);
            buffers.mask = mask;
            buffers.scratch = scratch;
        }
    }

    /// One item with a mask of any length: typed words are edges, the others loose.
    fn one(&self, item: Item, bytes: &[u8], mask: &[u64], at: u64, buffers: &mut Buffers, out: &mut Output) {
        let in_mask = |offset: u64| {
            let word = offset / 8;
            mask.get((word / 64) as usize).is_some_and(|m| m >> (word % 64) & 1 != 0)
        };
        let mut dynamic = std::mem::take(&mut buffers.dynamic);
        let mut last_itab = buffers.last_itab;
        let words = bytes.len() as u64 / 8;
        if self.program.is_masked() {
            for word in (0..words).filter(|w| in_mask(w * 8)) {
                let interface = word > 0 && !in_mask((word - 1) * 8);
                self.masked_word(bytes, word * 8, interface, &mut dynamic, &mut last_itab, out);
            }
            self.flush_dynamic(u64::from(self.base) << 32, &mut dynamic, out);
        } else {
            let size = self.program.size;
            let count = u64::from(item.count & !TAIL);
            let ops = self.program.ops.len() as u32;
            for e in 0..count {
                let bucket = match (self.program.indexed, item.count & TAIL != 0) {
                    (false, _) => 0,
                    (true, true) => INDEXED,
                    (true, false) => e.min(INDEXED),
                } as u32;
                let Some(element) = e.checked_mul(size).filter(|&at| at < bytes.len() as u64) else { break };
                for (o, op) in self.program.ops.iter().enumerate().filter(|(_, op)| op.storage == self.wave.storage) {
                    let key = u64::from(self.base + bucket * ops + o as u32) << 32;
                    let control = if op.guarded { word_at(bytes, element).unwrap_or(!0) } else { 0 };
                    for_each_rep(&op.reps, op.offset, &mut |offset, slot| {
                        let Some(offset) = element.checked_add(offset) else { return false };
                        let Some(word) = word_at(bytes, offset) else { return false };
                        if word != 0 && in_mask(offset) {
                            if op.guarded && control >> ((slot & 7) * 8 + 7) & 1 != 0 {
                                out.loose.push(Loose { group: self.group, at: at.wrapping_add(offset), value: word });
                            } else {
                                self.edge(op, key, bytes, offset, word, &mut dynamic, &mut last_itab, out);
                            }
                        }
                        true
                    });
                    self.flush_dynamic(key, &mut dynamic, out);
                }
            }
            if !self.wave.storage {
                for word in (0..words).filter(|w| in_mask(w * 8)) {
                    if !self.explains(word, count) {
                        let value = word_at(bytes, word * 8).unwrap_or(0);
                        if value != 0 {
                            out.loose.push(Loose { group: self.group, at: at.wrapping_add(word * 8), value });
                        }
                    }
                }
            }
        }
        buffers.dynamic = dynamic;
        buffers.last_itab = last_itab;
    }

    /// Whether an operation reads this word of an item with `count` elements.
    fn explains(&self, word: u64, count: u64) -> bool {
        let per = self.program.size / 8;
        if per == 0 || word / per >= count {
            return false;
        }
        let word = word % per;
        self.program.typed.get((word / 64) as usize).is_some_and(|t| t >> (word % 64) & 1 != 0)
    }
}

/// Elements and bytes of a run that fit into `avail` bytes of its slot. A value larger than that keeps the front that fits.
fn clamp(count: u64, size: u64, avail: u64) -> (u32, u64) {
    if size == 0 || size > avail {
        return (1, avail.min(size));
    }
    let count = count.clamp(1, avail / size);
    (u32::try_from(count).unwrap_or(TAIL - 1).min(TAIL - 1), count * size)
}

/// 64 bits from bit `word` on; bits beyond the end are 0.
fn bits_at(bitmap: &[u8], word: u32) -> u64 {
    let at = u64::from(word / 64) * 8;
    let low = word_at(bitmap, at).unwrap_or(0);
    match word % 64 {
        0 => low,
        shift => low >> shift | word_at(bitmap, at + 8).unwrap_or(0) << (64 - shift),
    }
}
