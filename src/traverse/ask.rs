//! Objects that say themselves what they are: by a malloc header, the code pointer of a closure over 512 bytes (shorter ones are asked
//! later: `closures.rs`), the first byte of a trie node. They are asked in batches, so that the answers come from memory all at once.

use super::claim::BEYOND_SHARD;
use super::items::{Depot, Item, TAIL};
use super::shard::{Claimed, Own, ShardState};
use super::world::World;
use crate::address::{Addr, AddrRange};
use crate::image::Scratch;
use crate::prefetch::prefetch;

/// Objects that are asked together: enough to hide the latency of the answers.
pub(super) const ASKS: usize = 512;

/// An object whose own memory is to say its type.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) target: u32,
    /// Where the word that says it lies.
    pub(super) addr: u64,
    pub(super) item: Item,
    /// Slot size.
    pub(super) bytes: u64,
    pub(super) question: Question,
}

#[derive(Copy, Clone, Debug)]
pub(super) enum Question {
    /// Its malloc header, for this many bytes of object.
    Header(u64),
    /// Its code pointer; bytes as in [`Own::Closure`].
    Closure(u32),
    /// Its first byte.
    Trie,
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) target: u32,
    pub(super) own: Own,
    pub(super) item: Item,
    pub(super) bytes: u64,
}

/// What a shard asks and learns in one wave.
#[derive(Default, Debug)]
pub(super) struct Dialog {
    pub(super) asks: Vec<Ask>,
    pub(super) answers: Vec<Answer>,
}

impl Claimed {
    /// Answers for an object of allocation type `rtype` with `size` usable bytes: it is tiled by that type.
    ///
    /// * `answer`: its type and count are to be found here.
    pub(super) fn header(&mut self, world: &World<'_>, answer: Answer, rtype: u64, size: u64) {
        if rtype == 0 {
            // Just being allocated: the collector sees no pointers either.
            return;
        }
        let Some(mask) = world.masks.get(world.image, rtype) else {
            self.incidents.count("walk.unreadable_allocation_type");
            return;
        };
        if mask.size > size {
            self.incidents.count("walk.allocation_type_larger_than_object");
            return;
        }
        if mask.ptr_words == 0 {
            return;
        }
        let count = (size / mask.size).clamp(1, u64::from(TAIL - 1));
        // An object longer than a shard may reach is followed up to there.
        let reach = (u64::from(u32::MAX - answer.item.granule) * 8 / mask.size).max(1);
        if count > reach {
            self.incidents.count(BEYOND_SHARD);
        }
        let count = count.min(reach) as u32;
        let own = Own::Header(world.type_number(rtype));
        self.dialog.answers.push(Answer { own, item: Item { count, ..answer.item }, ..answer });
    }
}

/// Reads what objects say of themselves, all at once, and adds them to the next level.
pub(super) fn resolve<S>((world, depot): (&World<'_>, &Depot), state: &mut ShardState<S>, scratch: &mut Scratch) {
    let claimed = &mut state.claimed;
    if claimed.dialog.asks.is_empty() && claimed.dialog.answers.is_empty() {
        return;
    }
    let mut asks = std::mem::take(&mut claimed.dialog.asks);
    let ranges: Vec<_> = asks.iter().map(|a| AddrRange { start: Addr(a.addr), len: 8 }).collect();
    // Of a large object this is one word of many, and of small ones nobody knows whether the rest will be asked for.
    let unit = world.image.load_once(&ranges, scratch);
    for i in 0..asks.len() {
        if let Some(byte) = unit.get(i).first() {
            prefetch(byte);
        }
    }
    for (i, Ask { target, item, bytes, question, .. }) in asks.drain(..).enumerate() {
        let Ok(word) = unit.get(i).try_into().map(u64::from_le_bytes) else {
            claimed.incidents.count("walk.object_not_in_core");
            continue;
        };
        let own = match question {
            Question::Header(size) => {
                claimed.header(world, Answer { target, own: Own::Nothing, item, bytes }, word, size);
                continue;
            }
            Question::Closure(room) => Own::Closure(word, room),
            // `isEntry` is a bool.
            Question::Trie => Own::Trie(if word & 0xff != 0 { 1 } else { 2 }),
        };
        claimed.dialog.answers.push(Answer { target, own, item, bytes });
    }
    claimed.dialog.asks = asks;
    let mut answers = std::mem::take(&mut claimed.dialog.answers);
    let order = |a: &Answer| (a.target, a.own);
    if !answers.is_sorted_by_key(order) {
        answers.sort_by_key(order);
    }
    let mut items = Vec::new();
    for run in answers.chunk_by(|a, b| order(a) == order(b)) {
        items.clear();
        items.extend(run.iter().map(|a| a.item));
        let stretch = state.gathered.items.push(depot, &items);
        claimed.add(run[0].target, run[0].own, stretch, run.iter().map(|a| a.bytes).sum());
    }
    answers.clear();
    claimed.dialog.answers = answers;
}
