//! Hot: the inner loops of an expansion. A program's operations outside, items inside, so that candidates come out in key order.
//!
//! For each edge whose mask bit is set and whose word is not nil, the target address is appended to the worker's segment for the
//! target's shard, in runs of one key: claims then visit candidates in key order without a key per candidate.

use super::expand::{Dynamic, LateOpen, Located, Loose};
use super::items::TAIL;
use super::observe::Holder;
use super::scan::{Edge, FLAG_INDIR, Guard, INDEXED, INDIRECT, Op, Program, ProgramKey, for_each_rep};
use super::world::World;
use crate::image::UnitBytes;

/// Where candidates go, and what else an expansion finds.
pub(super) trait Sink {
    /// A candidate.
    ///
    /// * `at`: its key, and the unit that orders equal keys.
    /// * `count`: elements behind the pointer, if its edge has them.
    /// * `holder`: who holds it, if somebody asked.
    fn push(&mut self, world: &World<'_>, at: (u64, u32), addr: u64, count: Option<u64>, holder: Option<u64>);
    /// A pointer that no type explains, outside of partial objects.
    fn loose(&mut self, loose: Loose);
    /// Words that the type an object was claimed as does not explain.
    fn open(&mut self, open: LateOpen);
    /// A soft error.
    fn incident(&mut self, cause: &'static str);
    /// A pointer word is followed.
    fn follow(&mut self);
}

/// How the items of one group are turned into candidates.
#[derive(Copy, Clone)]
pub(super) struct Emit<'w, const HOLDERS: bool> {
    pub(super) world: &'w World<'w>,
    /// Orders equal keys.
    pub(super) unit: u32,
    /// First edge ordinal of the group.
    pub(super) base: u32,
    pub(super) program: &'w Program,
    pub(super) group: u32,
    /// Follow storage edges instead of the others.
    pub(super) storage: bool,
}

/// One value with a mask of any length.
pub(super) struct Value<'v> {
    pub(super) bytes: &'v [u8],
    /// Bit per word of `bytes`.
    pub(super) mask: &'v [u64],
    /// Where it lies: orders loose words.
    pub(super) at: u64,
    /// As [`Holder::pack`].
    pub(super) holder: u64,
}

/// One word that may be an edge.
#[derive(Copy, Clone)]
struct Word<'v> {
    /// The value or element run that it lies in.
    bytes: &'v [u8],
    /// Its offset there.
    at: u64,
    word: u64,
    holder: u64,
}

#[inline]
pub(super) fn word_at(bytes: &[u8], offset: u64) -> Option<u64> {
    let at = usize::try_from(offset).ok()?;
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().expect("eight bytes")))
}

#[inline]
pub(super) fn low_bits(n: u32) -> u64 {
    if n >= 64 { !0 } else { (1 << n) - 1 }
}

/// `minTopHash`: smaller bytes are marks of cells that are empty or were evacuated.
const MIN_TOP_HASH: u8 = 5;

/// A byte for each of a bucket's `tophash` bytes: its top bit says that there is nothing in the cell.
fn not_full(tophash: u64) -> u64 {
    u64::from_le_bytes(tophash.to_le_bytes().map(|byte| if byte < MIN_TOP_HASH { 0x80 } else { 0 }))
}

/// Whether the word at `at` is in a mask of one word; all ones stand for any length.
#[inline]
fn in_mask(mask: u64, at: u64) -> bool {
    (mask >> ((at / 8) & 63)) & 1 != 0 && (at < 512 || mask == !0)
}

impl<const HOLDERS: bool> Emit<'_, HOLDERS> {
    /// The operations of a typed program over many items.
    ///
    /// * `masks`: by item; all ones if every operation's word is a pointer.
    /// * `place`: the items' shard, and their bytes.
    pub(super) fn operations(
        &self,
        items: &[Located],
        masks: &[u64],
        place: (u16, &UnitBytes<'_>),
        dynamic: &mut Dynamic,
        out: &mut impl Sink,
    ) {
        let program = self.program;
        let single = !program.indexed && items.iter().all(|item| item.count & !TAIL == 1);
        let longest = items.iter().map(|i| u64::from(i.count & !TAIL)).max().unwrap_or(0);
        let tails = items.iter().any(|i| i.count & TAIL != 0);
        let buckets = if program.indexed { INDEXED + 1 } else { 1 };
        for bucket in 0..buckets {
            if program.indexed && bucket >= longest && !(bucket == INDEXED && tails) {
                continue;
            }
            for (o, op) in program.ops.iter().enumerate() {
                if op.storage != self.storage {
                    continue;
                }
                let key = self.key(bucket, o);
                if single && op.reps.is_empty() {
                    self.plain(op, key, items, masks, place, dynamic, out);
                } else {
                    self.elements(op, (bucket, key), items, masks, place, dynamic, out);
                }
                self.flush_dynamic(key, dynamic, out);
            }
        }
    }

    /// The key of operation `op` for elements of a bucket.
    fn key(&self, bucket: u64, op: usize) -> u64 {
        u64::from(self.base + bucket as u32 * self.program.ops.len() as u32 + op as u32) << 32
    }

    /// An operation on items of one element: the loop that most objects go through.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "an inner loop's state, not an interface")]
    fn plain(
        &self,
        op: &Op,
        key: u64,
        items: &[Located],
        masks: &[u64],
        (shard, unit): (u16, &UnitBytes<'_>),
        dynamic: &mut Dynamic,
        out: &mut impl Sink,
    ) {
        for (i, &mask) in masks.iter().enumerate() {
            if !in_mask(mask, op.offset) {
                continue;
            }
            let bytes = unit.get(i);
            let Some(word) = word_at(bytes, op.offset) else { continue };
            if word == 0 {
                continue;
            }
            let holder = if HOLDERS { Holder::pack(shard, items[i].ordinal) } else { 0 };
            if op.edge == Edge::Pointer {
                out.follow();
                out.push(self.world, (key, self.unit), word, None, HOLDERS.then_some(holder));
            } else {
                self.edge(op, key, Word { bytes, at: op.offset, word, holder }, dynamic, out);
            }
        }
    }

    /// An operation on items of several elements, or several times in each element.
    #[expect(clippy::too_many_arguments, reason = "an inner loop's state, not an interface")]
    fn elements(
        &self,
        op: &Op,
        (bucket, key): (u64, u64),
        items: &[Located],
        masks: &[u64],
        (shard, unit): (u16, &UnitBytes<'_>),
        dynamic: &mut Dynamic,
        out: &mut impl Sink,
    ) {
        for (i, (item, &mask)) in items.iter().zip(masks).enumerate() {
            let count = u64::from(item.count & !TAIL);
            let tail = item.count & TAIL != 0;
            let elements = match (self.program.indexed, bucket, tail) {
                (false, _, _) | (true, INDEXED, true) => 0..count,
                (true, INDEXED, false) => INDEXED..count,
                (true, bucket, false) => bucket..(bucket + 1).min(count),
                (true, _, true) => 0..0,
            };
            let bytes = unit.get(i);
            let holder = if HOLDERS { Holder::pack(shard, item.ordinal) } else { 0 };
            if op.edge == Edge::Pointer && op.reps.is_empty() {
                // A long slice of pointers is read as fast as memory gives it.
                for start in elements.map(|e| e * self.program.size) {
                    let Some(at) = start.checked_add(op.offset) else { break };
                    let Some(word) = word_at(bytes, at) else { break };
                    if word != 0 && in_mask(mask, at) {
                        out.follow();
                        out.push(self.world, (key, self.unit), word, None, HOLDERS.then_some(holder));
                    }
                }
                continue;
            }
            for e in elements {
                let start = e * self.program.size;
                self.element(
                    op,
                    key,
                    Element { bytes, start, at: item.addr, holder },
                    |at| in_mask(mask, at),
                    dynamic,
                    out,
                );
            }
        }
    }

    /// An operation on one element: once, or as often as its repetitions say (in an array by value, in the slots of a map group).
    #[inline]
    fn element(
        &self,
        op: &Op,
        key: u64,
        element: Element<'_>,
        in_mask: impl Fn(u64) -> bool,
        dynamic: &mut Dynamic,
        out: &mut impl Sink,
    ) {
        let Element { bytes, start, at: value, holder } = element;
        if op.reps.is_empty() {
            let Some(at) = start.checked_add(op.offset) else { return };
            if in_mask(at)
                && let Some(word) = word_at(bytes, at)
                && word != 0
            {
                self.edge(op, key, Word { bytes, at, word, holder }, dynamic, out);
            }
            return;
        }
        // The eight bytes of a map group or bucket, with a top bit that says that the slot is not full.
        let control = match op.guard {
            None => 0,
            Some(Guard::Control) => word_at(bytes, start).unwrap_or(!0),
            Some(Guard::TopHash) => not_full(word_at(bytes, start).unwrap_or(0)),
        };
        for_each_rep(&op.reps, op.offset, &mut |offset, slot| {
            let Some(at) = start.checked_add(offset) else { return false };
            let Some(word) = word_at(bytes, at) else { return false };
            if word != 0 && in_mask(at) {
                if op.guard.is_some() && control >> ((slot & 7) * 8 + 7) & 1 != 0 {
                    out.loose(Loose { group: self.group, at: value.wrapping_add(at), value: word, later: false });
                } else {
                    self.edge(op, key, Word { bytes, at, word, holder }, dynamic, out);
                }
            }
            true
        });
    }

    /// One word that is an edge.
    #[inline]
    fn edge(&self, op: &Op, key: u64, word: Word<'_>, dynamic: &mut Dynamic, out: &mut impl Sink) {
        let world = self.world;
        let Word { bytes, at, word, holder } = word;
        if op.edge == Edge::Later {
            out.loose(Loose { group: self.group, at: word, value: word, later: true });
            return;
        }
        out.follow();
        let near = |delta: i64| at.checked_add_signed(delta).and_then(|at| word_at(bytes, at)).unwrap_or(0);
        let owner = HOLDERS.then_some(holder);
        match op.edge {
            Edge::Pointer | Edge::Later => out.push(world, (key, self.unit), word, None, owner),
            Edge::Slice => out.push(world, (key, self.unit), word, Some(near(16)), owner),
            Edge::Counted { delta, minus_one } => {
                let count = near(i64::from(delta)).saturating_add(u64::from(minus_one));
                out.push(world, (key, self.unit), word, Some(count), owner);
            }
            Edge::Whole => out.push(world, (key, self.unit), word, Some(u64::MAX), owner),
            Edge::MapDir { delta } => match near(i64::from(delta)) {
                0 => out.push(world, (key | 1, self.unit), word, Some(1), owner),
                len => out.push(world, (key, self.unit), word, Some(len), owner),
            },
            Edge::Eface => dynamic.edges.push((world.type_number(near(-8)), word, holder)),
            Edge::Reflected { ty, flag } => {
                let indirect = if near(i64::from(flag)) & FLAG_INDIR != 0 { INDIRECT } else { 0 };
                let number = world.type_number(near(i64::from(ty)));
                dynamic.edges.push((if number == 0 { 0 } else { number | indirect }, word, holder));
            }
            Edge::Iface => {
                let itab = near(-8);
                if dynamic.last_itab.0 != itab {
                    dynamic.last_itab = (itab, world.itab_number(itab));
                }
                dynamic.edges.push((dynamic.last_itab.1, word, holder));
            }
        }
    }

    /// Emits interface edges by dynamic type number, in item order for each.
    fn flush_dynamic(&self, key: u64, dynamic: &mut Dynamic, out: &mut impl Sink) {
        if dynamic.edges.is_empty() {
            return;
        }
        if !dynamic.edges.is_sorted_by_key(|d| d.0) {
            dynamic.edges.sort_by_key(|d| d.0);
        }
        for (number, addr, holder) in dynamic.edges.drain(..) {
            out.push(self.world, (key | u64::from(number), self.unit), addr, None, HOLDERS.then_some(holder));
        }
    }

    /// Every mask word of every item is an edge.
    pub(super) fn masked_words(
        &self,
        items: &[Located],
        masks: &[u64],
        (shard, unit): (u16, &UnitBytes<'_>),
        dynamic: &mut Dynamic,
        out: &mut impl Sink,
    ) {
        for (i, (item, &mask)) in items.iter().zip(masks).enumerate() {
            let holder = if HOLDERS { Holder::pack(shard, item.ordinal) } else { 0 };
            let mut bits = mask;
            while bits != 0 {
                let word = u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                let interface = word > 0 && mask >> (word - 1) & 1 == 0;
                self.masked_word(unit.get(i), word * 8, interface, holder, dynamic, out);
            }
        }
        self.flush_dynamic(self.key(0, 0), dynamic, out);
    }

    /// A word that is an edge because of the mask alone. Behind a type word it is the data word of an interface, and known by it.
    fn masked_word(
        &self,
        bytes: &[u8],
        at: u64,
        interface: bool,
        holder: u64,
        dynamic: &mut Dynamic,
        out: &mut impl Sink,
    ) {
        let Some(value) = word_at(bytes, at) else { return };
        if value == 0 {
            return;
        }
        out.follow();
        let mut number = 0;
        if interface
            && self.program.key == ProgramKey::Masked
            && let Some(word) = at.checked_sub(8).and_then(|at| word_at(bytes, at))
            && word != 0
        {
            if dynamic.last_word.0 != word {
                let direct = self.world.type_number(word);
                let number = if direct != 0 { direct } else { self.world.itab_number_if_static(word) };
                dynamic.last_word = (word, number);
            }
            number = dynamic.last_word.1;
        }
        dynamic.edges.push((number, value, holder));
    }

    /// One value with a mask of any length: typed words are edges, the others loose.
    ///
    /// * `count`: its elements, with [`TAIL`].
    pub(super) fn one(&self, value: &Value<'_>, count: u32, dynamic: &mut Dynamic, out: &mut impl Sink) {
        let Value { bytes, mask, at, holder } = *value;
        let in_mask = |offset: u64| {
            let word = offset / 8;
            mask.get((word / 64) as usize).is_some_and(|m| m >> (word % 64) & 1 != 0)
        };
        let words = bytes.len() as u64 / 8;
        if self.program.is_masked() {
            for word in (0..words).filter(|w| in_mask(w * 8)) {
                let interface = word > 0 && !in_mask((word - 1) * 8);
                self.masked_word(bytes, word * 8, interface, holder, dynamic, out);
            }
            self.flush_dynamic(self.key(0, 0), dynamic, out);
            return;
        }
        let elements = u64::from(count & !TAIL);
        for e in 0..elements {
            let bucket = match (self.program.indexed, count & TAIL != 0) {
                (false, _) => 0,
                (true, true) => INDEXED,
                (true, false) => e.min(INDEXED),
            };
            let Some(start) = e.checked_mul(self.program.size).filter(|&at| at < bytes.len() as u64) else { break };
            for (o, op) in self.program.ops.iter().enumerate().filter(|(_, op)| op.storage == self.storage) {
                let key = self.key(bucket, o);
                self.element(op, key, Element { bytes, start, at, holder }, in_mask, dynamic, out);
                self.flush_dynamic(key, dynamic, out);
            }
        }
        if self.storage {
            return;
        }
        for word in (0..words).filter(|w| in_mask(w * 8)) {
            if !self.explains(word, elements)
                && let Some(value) = word_at(bytes, word * 8)
                && value != 0
            {
                out.loose(Loose { group: self.group, at: at.wrapping_add(word * 8), value, later: false });
            }
        }
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

/// One element of a value.
#[derive(Copy, Clone)]
struct Element<'v> {
    /// The value's bytes.
    bytes: &'v [u8],
    /// Where in them the element starts.
    start: u64,
    /// Where the value lies: orders loose words.
    at: u64,
    holder: u64,
}
