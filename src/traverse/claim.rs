//! Hot: a shard's owner settles which candidate gets which object. Candidates are visited in key order, so the first one wins.
//!
//! A winner counts the object, and goes to the next level if its type leads anywhere. A type that does not cover the whole slot
//! (`&srv.mu`, `s[3:5]`, `unsafe.Pointer`) leaves the other mask words *open*; a later candidate whose type explains open words scans
//! just those, without counting the object again.

use super::ask::{ASKS, Answer, Ask, Question, resolve};
use super::expand::Output;
use super::items::{Depot, Item, Stretch};
use super::observe::{Edge, Holder, ObjectId, Observer, Operation, Outcome};
use super::segments::{Candidates, Run};
use super::shard::{Claimed, Open, Own, ShardState, Tally};
use super::targets::{Retype, Target, Targets};
use super::visited::Visited;
use super::world::World;
use crate::address::{Addr, AddrRange};
use crate::image::Scratch;
use crate::model::heap::{MaskSource, PAGE_SIZE, SpanId};
use crate::prefetch::prefetch;

/// Slot sizes by size class, class 0 (large) excepted. The same in every release (`internal/runtime/gc/sizeclasses.go`).
const CLASS_SIZES: [u16; 68] = [
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448,
    480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096,
    4864, 5120, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072,
    20480, 21760, 24576, 27264, 28672,
];

/// Words more than 32 GiB past their shard's base, which only one object of more than that pushes so far, are not followed.
pub(super) const BEYOND_SHARD: &str = "walk.beyond_shard";

/// Candidates that are looked up together: enough to hide the latency of a load, few enough to stay in the first cache.
const BATCH: usize = 64;
/// Instead of an ordinal: there is no object. No shard has so many slots that it is one's ordinal.
const NOT_AN_OBJECT: u32 = u32::MAX;
/// Instead of a span: none covers the page.
const NO_SPAN: u32 = u32::MAX;
/// Values that do not fill an object over 512 bytes whose type nothing records, and are scanned nevertheless: each costs a look at the
/// whole object.
const RESCANS: u64 = 8;
/// Words of the largest slot without a header: 512 bytes.
const SMALL_WORDS: u16 = 64;

/// Settles all candidates of `shard` in one wave. What comes out is in `state.claimed` and `state.gathered`.
pub fn claim_shard<O: Observer>(
    (world, depot): (&World<'_>, &Depot),
    shard: u16,
    outputs: &[&Output],
    targets: &Targets,
    state: &mut ShardState<O::Shard>,
    observer: &O,
    scratch: &mut Scratch,
) {
    state.visited.warm();
    let mut runs = std::mem::take(&mut state.claimed.runs);
    for (w, output) in outputs.iter().enumerate() {
        let segment = &output.segments[usize::from(shard)];
        // Key, unit, worker, position: one number, because sorting tuples took three percent of a walk. Equal keys of one unit are one
        // worker's, in order of emission. A wave has about 64 units, and `--threads` 16 bits.
        let packed = |(i, run): (usize, &Run)| {
            let unit = u128::from(run.unit as u16);
            u128::from(run.key) << 64 | unit << 48 | u128::from(w as u16) << 32 | u128::from(i as u32)
        };
        runs.extend(segment.runs().iter().enumerate().map(packed));
    }
    if !runs.is_sorted() {
        runs.sort_unstable();
    }
    let base = world.heap.shards()[usize::from(shard)].base;
    for run in runs.drain(..) {
        let (key, w, i) = ((run >> 64) as u64, (run >> 32) as u16, run as u32);
        let number = targets.number(key);
        let candidates = outputs[usize::from(w)].segments[usize::from(shard)].candidates(i as usize);
        let claim = Claim { world, depot, shard, base, number, target: targets.target(number) };
        claim.run(candidates, targets.operation(number), state, observer, scratch);
    }
    state.claimed.runs = runs;
    resolve((world, depot), state, scratch);
}

struct Claim<'w> {
    world: &'w World<'w>,
    depot: &'w Depot,
    shard: u16,
    base: u64,
    /// The target and its number.
    number: u32,
    target: &'w Target,
}

/// A candidate's slot, with what a claim wants to know of it.
#[derive(Copy, Clone)]
struct Found {
    /// Ordinal in the shard, or [`NOT_AN_OBJECT`].
    ordinal: u32,
    /// Words of the slot; 0 if they do not fit: look at the span.
    words: u16,
    /// `sizeclass << 1 | noscan`.
    span_class: u8,
    /// The candidate points to the start of its slot.
    front: bool,
}

impl Found {
    const NOTHING: Self = Self { ordinal: NOT_AN_OBJECT, words: 0, span_class: 0, front: false };
}

impl Claim<'_> {
    fn run<O: Observer>(
        &self,
        candidates: Candidates<'_>,
        operation: Operation,
        state: &mut ShardState<O::Shard>,
        observer: &O,
        scratch: &mut Scratch,
    ) {
        let Candidates { addrs, counts, holders } = candidates;
        let mut stretch = state.gathered.items.open(!counts.is_empty());
        let (mut objects, mut bytes) = (0u64, 0u64);
        let mut found = [Found::NOTHING; BATCH];
        for (b, batch) in addrs.chunks(BATCH).enumerate() {
            self.look_up(batch, &state.visited, &mut found);
            for ((i, &addr), &at) in (b * BATCH..).zip(batch).zip(&found) {
                if at.ordinal == NOT_AN_OBJECT {
                    continue;
                }
                let won = state.visited.insert(at.ordinal);
                if O::EDGES {
                    let holder = Holder::unpack(holders.get(i).copied().unwrap_or_default());
                    let outcome = if won { Outcome::Won } else { Outcome::Lost };
                    let target = ObjectId { shard: self.shard, ordinal: at.ordinal };
                    observer.edge(&mut state.observed, &Edge { holder, operation, target, outcome });
                }
                let count = counts.get(i).copied().unwrap_or(1);
                if !won {
                    if state.is_partial(at.ordinal) {
                        self.refill(addr, count, at.ordinal, state);
                    }
                    continue;
                }
                objects += 1;
                bytes += if at.words > 0 { u64::from(at.words) * 8 } else { self.slot_size(addr) };
                if at.span_class & 1 == 0 {
                    self.won(addr, count, at, state, &mut stretch, scratch);
                }
            }
        }
        let claimed = &mut state.claimed;
        if objects > 0 {
            claimed.tallies.push(Tally { target: self.number, objects, bytes });
        }
        claimed.add(self.number, Own::Nothing, stretch, 0);
        if !claimed.refills.is_empty() {
            let stretch = state.gathered.items.push(self.depot, &claimed.refills);
            claimed.refills.clear();
            claimed.add(self.number, Own::Nothing, stretch, 0);
        }
        if claimed.dialog.asks.len() >= ASKS {
            resolve((self.world, self.depot), state, scratch);
        }
    }

    /// Finds the slots of some addresses, one step for all before the next step, so that the loads of each overlap.
    #[inline]
    fn look_up(&self, addrs: &[u64], visited: &Visited, found: &mut [Found; BATCH]) {
        let heap = self.world.heap;
        let mut spans = [NO_SPAN; BATCH];
        // Neighbours often point into one page.
        let (mut page, mut of_page) = (u64::MAX, NO_SPAN);
        for (span, &addr) in spans.iter_mut().zip(addrs) {
            if addr / PAGE_SIZE != page {
                page = addr / PAGE_SIZE;
                of_page = heap.span_at(addr).map_or(NO_SPAN, |id| {
                    prefetch(heap.span(id));
                    id.0
                });
            }
            *span = of_page;
        }
        for ((found, &span), &addr) in found.iter_mut().zip(&spans).zip(addrs) {
            *found = Found::NOTHING;
            if span != NO_SPAN && heap.contains(SpanId(span), addr) {
                let span = heap.span(SpanId(span));
                let slot = span.slot_of(addr);
                *found = Found {
                    ordinal: span.slot_base + slot,
                    words: u16::try_from(span.elem_size() / 8).unwrap_or(0),
                    span_class: span.span_class,
                    front: addr == span.start + u64::from(slot) * span.elem_size(),
                };
                visited.prefetch(found.ordinal);
            }
        }
    }

    /// Bytes of a slot that is too large for [`Found::words`].
    #[cold]
    fn slot_size(&self, addr: u64) -> u64 {
        self.world.heap.find_span(addr).map_or(0, |id| self.world.heap.span(id).elem_size())
    }

    /// Adds an object with pointers, just counted, to the next level.
    #[inline]
    fn won<S>(
        &self,
        addr: u64,
        count: u32,
        at: Found,
        state: &mut ShardState<S>,
        stretch: &mut Stretch,
        scratch: &mut Scratch,
    ) {
        let small = at.words > 0 && at.words <= SMALL_WORDS;
        let plain = at.front && small && self.target.retype == Retype::No && !self.target.masked;
        if plain {
            let count = self.clamp(count, u64::from(at.words) * 8);
            if fills(self.target, count, at.span_class)
                && let Ok(granule) = u32::try_from((addr - self.base) / 8)
            {
                state.gathered.items.add(self.depot, stretch, granule, count);
                return;
            }
        }
        if small
            && self.target.retype == Retype::Closure
            && let Ok(granule) = u32::try_from((addr - self.base) / 8)
        {
            // Its code is looked at when the level is arranged.
            state.gathered.items.add(self.depot, stretch, granule, 1);
            return;
        }
        self.won_otherwise(addr, count, state, stretch, scratch);
    }

    /// As [`Claim::won`] for interior pointers, larger objects, and types that do not say everything.
    fn won_otherwise<S>(
        &self,
        addr: u64,
        count: u32,
        state: &mut ShardState<S>,
        stretch: &mut Stretch,
        scratch: &mut Scratch,
    ) {
        let Some((id, slot)) = self.world.heap.find_object(addr) else { return };
        let span = self.world.heap.span(id);
        let elem_size = span.elem_size();
        let offset = addr - span.start - u64::from(slot) * elem_size;
        // Over 512 bytes only the start of the slot matters.
        let at = if elem_size > 512 { addr - offset } else { addr };
        let Ok(granule) = u32::try_from((at - self.base) / 8) else {
            // Behind the one span that is longer than a shard may reach.
            state.claimed.incidents.count(BEYOND_SHARD);
            return;
        };
        if elem_size > 512 {
            if self.world.heap.mask_source(id) == MaskSource::Arena {
                self.unrecorded(addr, count, (id, slot), state);
            } else {
                self.large(id, granule, elem_size, &mut state.claimed);
            }
            return;
        }
        let count = self.clamp(count, elem_size - offset);
        if let Retype::TrieNode(_) = self.target.retype {
            let item = Item { granule, count, restrict: !0 };
            let question = Question::Trie;
            state.claimed.dialog.asks.push(Ask { target: self.number, addr, item, bytes: elem_size, question });
            return;
        }
        if self.target.masked {
            let granule = ((addr - offset - self.base) / 8) as u32;
            state.gathered.items.add(self.depot, stretch, granule, 1);
            return;
        }
        if let Some(part) = self.target.part
            && offset == part.at
            && fills_class(part.size, span.span_class)
        {
            let item = Item::one(((addr - offset - self.base) / 8) as u32);
            state.claimed.dialog.answers.push(Answer { target: self.number, own: Own::Whole, item, bytes: elem_size });
            return;
        }
        let fits = offset == 0 && fills(self.target, count, span.span_class);
        if fits || self.partial(offset, count, id, slot, state, scratch) {
            state.gathered.items.add(self.depot, stretch, granule, count);
        }
    }

    /// A winner whose type does not cover the slot: opens what it leaves. True if it explains anything at all.
    #[cold]
    fn partial<S>(
        &self,
        offset: u64,
        count: u32,
        id: SpanId,
        slot: u32,
        state: &mut ShardState<S>,
        scratch: &mut Scratch,
    ) -> bool {
        let mask = object_bits(self.world, id, slot, scratch);
        let explained = mask & self.explained(offset, count);
        let ordinal = self.world.heap.span(id).slot_base + slot;
        if mask & !explained != 0 {
            state.open(ordinal, Open { words: mask & !explained, path: u32::MAX });
            state.claimed.opened.push((ordinal, self.number));
        }
        explained != 0
    }

    /// A candidate for an object that is counted already but has open words.
    #[cold]
    fn refill<S>(&self, addr: u64, count: u32, ordinal: u32, state: &mut ShardState<S>) {
        if self.target.untyped || self.target.masked || self.target.retype != Retype::No {
            return;
        }
        let Some((id, slot)) = self.world.heap.find_object(addr) else { return };
        let span = self.world.heap.span(id);
        if span.elem_size() > 512 {
            self.unrecorded(addr, count, (id, slot), state);
            return;
        }
        let offset = addr - span.start - u64::from(slot) * span.elem_size();
        let explained = self.explained(offset, count);
        let Some(open) = state.open.get_mut(&ordinal) else { return };
        let words = open.words & explained;
        if words == 0 {
            return;
        }
        open.words &= !words;
        let Ok(granule) = u32::try_from((addr - self.base) / 8) else { return };
        let count = self.clamp(count, span.elem_size() - offset);
        state.claimed.refills.push(Item { granule, count, restrict: words >> (offset / 8) });
    }

    /// As many of `count` elements as fit into `room` bytes, at least one unless there was none: a slice's capacity may be a stale
    /// or forged word.
    fn clamp(&self, count: u32, room: u64) -> u32 {
        match room.checked_div(self.target.size) {
            Some(fit) if u64::from(count) > fit => (fit as u32).max(1),
            _ => count,
        }
    }

    /// Words of the slot that `count` values at `offset` explain.
    fn explained(&self, offset: u64, count: u32) -> u64 {
        if count == 0 {
            return 0;
        }
        let words = self.target.size / 8;
        let mut tile = self.target.typed;
        if words > 0 && words < 64 && count > 1 {
            let mut at = words;
            for _ in 1..count.min(64) {
                if at >= 64 {
                    break;
                }
                tile |= self.target.typed << at;
                at += words;
            }
        }
        tile.checked_shl((offset / 8) as u32).unwrap_or(0)
    }

    /// An object over 512 bytes whose type nothing records (up to Go 1.21), just counted or open. A value that fills the slot explains it
    /// all. Any other is scanned, and the object stays open for a better one; in the end its mask is walked.
    fn unrecorded<S>(&self, addr: u64, count: u32, (id, slot): (SpanId, u32), state: &mut ShardState<S>) {
        let span = self.world.heap.span(id);
        let start = self.world.heap.slot_addr(id, slot);
        let ordinal = span.slot_base + slot;
        let (offset, room) = (addr - start, (start + span.elem_size()).min(span.limit.max(addr + 8)) - addr);
        let Ok(granule) = u32::try_from((addr - self.base) / 8) else {
            state.claimed.incidents.count(BEYOND_SHARD);
            return;
        };
        let bytes = span.elem_size();
        let count = self.clamp(count, room);
        let total = self.target.size.saturating_mul(u64::from(count));
        let filled = match span.is_large() {
            true => total.saturating_add(8) > room,
            false => total > CLASS_SIZES.get(usize::from(span.span_class >> 1) - 1).map_or(0, |size| u64::from(*size)),
        };
        let closure = self.target.retype == Retype::Closure;
        let whole = self.target.masked || offset == 0 && (filled || closure);
        match state.open.get_mut(&ordinal) {
            // It was scanned by a value that filled it.
            Some(open) if open.words == 0 => return,
            // Nobody wants it scanned again.
            Some(open) if whole => open.words = 0,
            Some(open) if open.words > 1 => open.words -= 1,
            Some(_) => return,
            None if whole => {}
            None => {
                state.open(ordinal, Open { words: RESCANS, path: u32::MAX });
                state.claimed.opened.push((ordinal, self.number));
            }
        }
        let item = Item { granule, count, restrict: !0 };
        if closure && offset == 0 {
            let question = Question::Closure(u32::try_from(bytes).unwrap_or(u32::MAX));
            state.claimed.dialog.asks.push(Ask { target: self.number, addr, item, bytes, question });
        } else if self.target.masked {
            // Whatever it was reached by, all of it is to be followed.
            let granule = granule - (offset / 8) as u32;
            let answer = Answer { target: self.number, own: Own::Unrecorded, item: Item::one(granule), bytes };
            state.claimed.dialog.answers.push(answer);
        } else if !self.target.untyped && self.target.retype == Retype::No {
            state.claimed.dialog.answers.push(Answer { target: self.number, own: Own::Unrecorded, item, bytes });
        }
    }

    /// An object over 512 bytes: its allocation type replaces the edge's.
    fn large(&self, id: SpanId, granule: u32, elem_size: u64, claimed: &mut Claimed) {
        let heap = self.world.heap;
        let start = self.base + u64::from(granule) * 8;
        match heap.mask_source(id) {
            MaskSource::Header => {
                let question = match self.target.retype {
                    Retype::Closure => Question::Closure((elem_size - 8) as u32),
                    _ => Question::Header(elem_size - 8),
                };
                let addr = if matches!(question, Question::Closure(_)) { start + 8 } else { start };
                let item = Item::one(granule + 1);
                claimed.dialog.asks.push(Ask { target: self.number, addr, item, bytes: elem_size, question });
            }
            MaskSource::Large { rtype } if rtype != 0 => {
                let size = heap.span(id).limit.saturating_sub(start).min(elem_size);
                let answer =
                    Answer { target: self.number, own: Own::Nothing, item: Item::one(granule), bytes: elem_size };
                claimed.header(self.world, answer, rtype, size);
            }
            // No type yet: the collector sees no pointers either.
            _ => {}
        }
    }
}

/// Whether values from the slot's start leave no word of a slot of that class to others: the next smaller class would not hold them.
#[inline]
pub(super) fn fills(target: &Target, count: u32, span_class: u8) -> bool {
    target.typed != 0 && fills_class(target.size.saturating_mul(u64::from(count)), span_class)
}

/// Whether the next smaller class would not hold `total` bytes.
#[inline]
fn fills_class(total: u64, span_class: u8) -> bool {
    let class = usize::from(span_class >> 1);
    class > 0 && class <= CLASS_SIZES.len() && total > u64::from(CLASS_SIZES[class - 1])
}

/// Mask bits of an object of at most 512 bytes.
fn object_bits(world: &World<'_>, id: SpanId, slot: u32, scratch: &mut Scratch) -> u64 {
    let MaskSource::InSpan { bitmap } = world.heap.mask_source(id) else { return 0 };
    if world.heap.masks_in_nibbles() {
        let mut mask = Vec::new();
        world.heap.object_mask(world.image, world.masks, id, slot, &mut mask);
        return mask.first().copied().unwrap_or(0);
    }
    let words = world.heap.span(id).elem_size() / 8;
    let first = u64::from(slot) * words;
    let range = AddrRange { start: Addr(bitmap + first / 64 * 8), len: 16 };
    // The last word of a bitmap may be the last of its page.
    let short = AddrRange { len: 8, ..range };
    let unit = world.image.load(&[range, short], scratch);
    let bytes = if unit.get(0).is_empty() { unit.get(1) } else { unit.get(0) };
    let word =
        |i: usize| bytes.get(i * 8..i * 8 + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().expect("eight bytes")));
    let shift = first % 64;
    let bits = if shift == 0 { word(0) } else { word(0) >> shift | word(1) << (64 - shift) };
    if words >= 64 { bits } else { bits & ((1 << words) - 1) }
}
