//! Hot: a shard's owner settles which candidate gets which object. Candidates are visited in key order, so the first one wins.
//!
//! A winner counts the object, and goes to the next level if its type leads anywhere. A type that does not cover the whole slot
//! (`&srv.mu`, `s[3:5]`, `unsafe.Pointer`) leaves the other mask words *open*; a later candidate whose type explains open words scans
//! just those, without counting the object again.

use super::expand::Output;
use super::frontier::{Item, TAIL};
use super::targets::{Retype, Target};
use super::visited::Visited;
use super::world::World;
use crate::address::{Addr, AddrRange};
use crate::image::Scratch;
use crate::incident::Incidents;
use crate::model::heap::{MaskSource, SpanId};
use rustc_hash::FxHashMap;

/// Slot sizes by size class, class 0 (large) excepted. The same in every release (`internal/runtime/gc/sizeclasses.go`).
const CLASS_SIZES: [u16; 68] = [
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448,
    480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096,
    4864, 5120, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072,
    20480, 21760, 24576, 27264, 28672,
];

/// Words more than 32 GiB past their shard's base, which only one object of more than that pushes so far, are not followed.
const BEYOND_SHARD: &str = "walk.beyond_shard";

/// Mask words of a partial object that no claimant explained yet.
#[derive(Copy, Clone, Debug)]
pub struct Open {
    /// Bit per word of the slot.
    pub words: u64,
    /// Path on which the object is counted; `u32::MAX` until the wave's paths are numbered.
    pub path: u32,
}

/// A shard while it is walked.
#[derive(Debug)]
pub struct ShardState {
    /// Marks.
    pub visited: Visited,
    /// Partial objects by ordinal.
    pub open: FxHashMap<u32, Open>,
    /// Bit per ordinal: has an entry in `open`. Empty while there is none, so that duplicates cost no hash lookup.
    open_bits: Vec<u64>,
}

impl ShardState {
    /// An untouched shard.
    #[must_use]
    pub fn new(visited: Visited) -> Self {
        Self { visited, open: FxHashMap::default(), open_bits: Vec::new() }
    }

    /// Opens words of an object, unless it is partial already.
    pub fn open(&mut self, ordinal: u32, open: Open) {
        let word = ordinal as usize / 64;
        if self.open_bits.len() <= word {
            self.open_bits.resize(word + 1, 0);
        }
        self.open_bits[word] |= 1 << (ordinal % 64);
        self.open.entry(ordinal).or_insert(open);
    }

    /// Takes all open words: the masked walk follows them.
    pub fn take_open(&mut self) -> Vec<(u32, Open)> {
        self.open_bits = Vec::new();
        let mut all: Vec<_> = self.open.drain().collect();
        all.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        all
    }

    #[inline]
    fn is_partial(&self, ordinal: u32) -> bool {
        self.open_bits.get(ordinal as usize / 64).is_some_and(|w| w >> (ordinal % 64) & 1 != 0)
    }
}

/// Objects counted by one key.
#[derive(Copy, Clone, Debug)]
pub struct Tally {
    /// The key.
    pub key: u64,
    /// Objects.
    pub objects: u64,
    /// Their slots' bytes.
    pub bytes: u64,
}

/// Items for the next level, from one key.
#[derive(Copy, Clone, Debug)]
pub struct ClaimPart {
    /// The key.
    pub key: u64,
    /// What the object's own memory says of its type.
    pub own: Own,
    /// First item in [`Claimed::items`].
    pub start: usize,
    /// Number of items.
    pub len: usize,
    /// Bytes of the objects, if `own` says more than the key.
    pub bytes: u64,
}

/// An object's type by its own memory.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Own {
    /// It says nothing: the edge's target holds.
    Nothing,
    /// Dynamic type number of its allocation type.
    Header(u32),
    /// Code pointer of a closure, and the bytes that its slot has for it.
    Closure(u64, u32),
    /// First byte of a trie node: 1 for an entry, 2 for an inner node.
    Trie(u32),
}

/// What one shard's claims of a wave produced.
#[derive(Default, Debug)]
pub struct Claimed {
    /// Counts by key; a key may come several times.
    pub tallies: Vec<Tally>,
    /// Items for the next level.
    pub items: Vec<Item>,
    /// Their keys.
    pub parts: Vec<ClaimPart>,
    /// Partial objects opened in this wave, with the key that says their path.
    pub opened: Vec<(u32, u64)>,
    /// Soft errors.
    pub incidents: Incidents,
}

/// An object whose own memory is to say its type.
struct Ask {
    key: u64,
    /// Where the word that says it lies.
    addr: u64,
    item: Item,
    /// Slot size.
    bytes: u64,
    question: Question,
}

#[derive(Copy, Clone)]
enum Question {
    /// Its malloc header, for this many bytes of object.
    Header(u64),
    /// Its code pointer; bytes as in [`Own::Closure`].
    Closure(u32),
    /// Its first byte.
    Trie,
}

/// The answer to an [`Ask`].
struct Answer {
    key: u64,
    own: Own,
    item: Item,
    bytes: u64,
}

/// What a shard asks and learns in one wave.
#[derive(Default)]
struct Dialog {
    asks: Vec<Ask>,
    answers: Vec<Answer>,
}

/// Settles all candidates of `shard` in one wave.
pub fn claim_shard(
    world: &World<'_>,
    shard: u16,
    outputs: &[&Output],
    targets: &FxHashMap<u64, Target>,
    state: &mut ShardState,
    scratch: &mut Scratch,
) -> Claimed {
    let mut claimed = Claimed::default();
    state.visited.warm();
    let mut runs: Vec<(u64, u32, u32, u32)> = Vec::new();
    for (w, output) in outputs.iter().enumerate() {
        let segment = &output.segments[usize::from(shard)];
        runs.extend(segment.runs().iter().enumerate().map(|(i, run)| (run.key, run.unit, w as u32, i as u32)));
    }
    // Equal keys of one unit are one worker's, in order of emission.
    if !runs.is_sorted() {
        runs.sort_unstable();
    }
    let base = world.heap.shards()[usize::from(shard)].base;
    let mut dialog = Dialog::default();
    for (key, _, w, i) in runs {
        let segment = &outputs[w as usize].segments[usize::from(shard)];
        let (addrs, counts) = segment.candidates(i as usize);
        let counts = (!counts.is_empty()).then_some(counts);
        let target = &targets[&key];
        let claim = Claim { world, base, key, target };
        claim.run(addrs, counts, state, &mut dialog, &mut claimed, scratch);
    }
    resolve(world, dialog, &mut claimed, scratch);
    claimed
}

struct Claim<'w> {
    world: &'w World<'w>,
    base: u64,
    key: u64,
    target: &'w Target,
}

impl Claim<'_> {
    fn run(
        &self,
        addrs: &[u64],
        counts: Option<&[u32]>,
        state: &mut ShardState,
        dialog: &mut Dialog,
        claimed: &mut Claimed,
        scratch: &mut Scratch,
    ) {
        let heap = self.world.heap;
        let first_item = claimed.items.len();
        let (mut objects, mut bytes) = (0u64, 0u64);
        for (i, &addr) in addrs.iter().enumerate() {
            let Some((id, slot)) = heap.find_object(addr) else { continue };
            let span = heap.span(id);
            let ordinal = span.slot_base + slot;
            let count = counts.map_or(1, |c| c[i]);
            if !state.visited.insert(ordinal) {
                if state.is_partial(ordinal) {
                    self.refill(addr, count, id, slot, state, claimed);
                }
                continue;
            }
            let elem_size = span.elem_size();
            objects += 1;
            bytes += elem_size;
            if span.noscan() {
                continue;
            }
            let offset = addr - span.start - u64::from(slot) * elem_size;
            // Over 512 bytes only the start of the slot matters.
            let at = if elem_size > 512 { addr - offset } else { addr };
            let Ok(granule) = u32::try_from((at - self.base) / 8) else {
                // Behind the one span that is longer than a shard may reach.
                claimed.incidents.count(BEYOND_SHARD);
                continue;
            };
            if elem_size > 512 {
                self.large(id, granule, elem_size, dialog, claimed);
                continue;
            }
            let count = self.clamp(count, elem_size - offset);
            let item = Item { granule, count, restrict: !0 };
            let question = match self.target.retype {
                Retype::No => None,
                Retype::Closure => Some(Question::Closure(elem_size as u32)),
                Retype::TrieNode(_) => Some(Question::Trie),
            };
            if let Some(question) = question {
                dialog.asks.push(Ask { key: self.key, addr, item, bytes: elem_size, question });
                continue;
            }
            if self.target.masked {
                let granule = ((addr - offset - self.base) / 8) as u32;
                claimed.items.push(Item::one(granule));
                continue;
            }
            let total = self.target.size.saturating_mul(u64::from(count));
            let class = usize::from(span.span_class >> 1);
            let fits = offset == 0 && total > u64::from(CLASS_SIZES[class - 1]) && self.target.typed != 0;
            if fits || self.partial(offset, count, id, slot, state, claimed, scratch) {
                claimed.items.push(item);
            }
        }
        if objects > 0 {
            claimed.tallies.push(Tally { key: self.key, objects, bytes });
        }
        let len = claimed.items.len() - first_item;
        if len > 0 {
            claimed.parts.push(ClaimPart { key: self.key, own: Own::Nothing, start: first_item, len, bytes: 0 });
        }
    }

    /// A winner whose type does not cover the slot: opens what it leaves. True if it explains anything at all.
    #[expect(clippy::too_many_arguments, reason = "a rare branch of the claim loop")]
    #[cold]
    fn partial(
        &self,
        offset: u64,
        count: u32,
        id: SpanId,
        slot: u32,
        state: &mut ShardState,
        claimed: &mut Claimed,
        scratch: &mut Scratch,
    ) -> bool {
        let mask = object_bits(self.world, id, slot, scratch);
        let explained = mask & self.explained(offset, count);
        let ordinal = self.world.heap.span(id).slot_base + slot;
        if mask & !explained != 0 {
            state.open(ordinal, Open { words: mask & !explained, path: u32::MAX });
            claimed.opened.push((ordinal, self.key));
        }
        explained != 0
    }

    /// A candidate for an object that is counted already but has open words.
    #[cold]
    fn refill(&self, addr: u64, count: u32, id: SpanId, slot: u32, state: &mut ShardState, claimed: &mut Claimed) {
        if self.target.untyped || self.target.masked || self.target.retype != Retype::No {
            return;
        }
        let span = self.world.heap.span(id);
        let offset = addr - span.start - u64::from(slot) * span.elem_size();
        let explained = self.explained(offset, count);
        let Some(open) = state.open.get_mut(&(span.slot_base + slot)) else { return };
        let words = open.words & explained;
        if words == 0 {
            return;
        }
        open.words &= !words;
        let Ok(granule) = u32::try_from((addr - self.base) / 8) else { return };
        let count = self.clamp(count, span.elem_size() - offset);
        claimed.items.push(Item { granule, count, restrict: words >> (offset / 8) });
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

    /// An object over 512 bytes: its allocation type replaces the edge's.
    fn large(&self, id: SpanId, granule: u32, elem_size: u64, dialog: &mut Dialog, claimed: &mut Claimed) {
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
                dialog.asks.push(Ask { key: self.key, addr, item, bytes: elem_size, question });
            }
            MaskSource::Large { rtype } if rtype != 0 => {
                let size = heap.span(id).limit.saturating_sub(start).min(elem_size);
                dialog.header(self.world, self.key, rtype, Item::one(granule), size, elem_size, claimed);
            }
            // No type yet: the collector sees no pointers either.
            _ => {}
        }
    }
}

impl Dialog {
    /// Answers for an object of allocation type `rtype` with `size` usable bytes: it is tiled by that type.
    #[expect(clippy::too_many_arguments, reason = "one answer's columns")]
    fn header(
        &mut self,
        world: &World<'_>,
        key: u64,
        rtype: u64,
        item: Item,
        size: u64,
        bytes: u64,
        claimed: &mut Claimed,
    ) {
        if rtype == 0 {
            // Just being allocated: the collector sees no pointers either.
            return;
        }
        let Some(mask) = world.masks.get(world.image, rtype) else {
            claimed.incidents.count("walk.unreadable_allocation_type");
            return;
        };
        if mask.size > size {
            claimed.incidents.count("walk.allocation_type_larger_than_object");
            return;
        }
        if mask.ptr_words == 0 {
            return;
        }
        let count = (size / mask.size).clamp(1, u64::from(TAIL - 1));
        // An object longer than a shard may reach is followed up to there.
        let reach = (u64::from(u32::MAX - item.granule) * 8 / mask.size).max(1);
        if count > reach {
            claimed.incidents.count(BEYOND_SHARD);
        }
        let count = count.min(reach) as u32;
        let own = Own::Header(world.type_number(rtype));
        self.answers.push(Answer { key, own, item: Item { count, ..item }, bytes });
    }
}

/// Reads what objects say of themselves, all at once, and adds them to the next level.
fn resolve(world: &World<'_>, mut dialog: Dialog, claimed: &mut Claimed, scratch: &mut Scratch) {
    let asks = std::mem::take(&mut dialog.asks);
    let ranges: Vec<_> = asks.iter().map(|a| AddrRange { start: Addr(a.addr), len: 8 }).collect();
    let unit = world.image.load(&ranges, scratch);
    for (i, Ask { key, item, bytes, question, .. }) in asks.into_iter().enumerate() {
        let Ok(word) = unit.get(i).try_into().map(u64::from_le_bytes) else {
            claimed.incidents.count("walk.object_not_in_core");
            continue;
        };
        let own = match question {
            Question::Header(size) => {
                dialog.header(world, key, word, item, size, bytes, claimed);
                continue;
            }
            Question::Closure(room) => Own::Closure(word, room),
            // `isEntry` is a bool.
            Question::Trie => Own::Trie(if word & 0xff != 0 { 1 } else { 2 }),
        };
        dialog.answers.push(Answer { key, own, item, bytes });
    }
    let mut answers = dialog.answers;
    answers.sort_by_key(|a| (a.key, a.own));
    for run in answers.chunk_by(|a, b| (a.key, a.own) == (b.key, b.own)) {
        let start = claimed.items.len();
        claimed.items.extend(run.iter().map(|a| a.item));
        let bytes = run.iter().map(|a| a.bytes).sum();
        claimed.parts.push(ClaimPart { key: run[0].key, own: run[0].own, start, len: run.len(), bytes });
    }
}

/// Mask bits of an object of at most 512 bytes.
fn object_bits(world: &World<'_>, id: SpanId, slot: u32, scratch: &mut Scratch) -> u64 {
    let MaskSource::InSpan { bitmap } = world.heap.mask_source(id) else { return 0 };
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
