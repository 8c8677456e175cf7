//! Variables known by the code that uses them: the write barrier's flag, and the queues of finalizers and cleanups.

use super::Search;
use super::words::{PIECE, each_piece};
use crate::address::{Addr, AddrRange, WORD};
use crate::model::chain::Chain;
use crate::model::modules::Func;
use rustc_hash::FxHashMap;

/// Code in which tests of a flag are counted.
const MAX_CODE: u64 = 16 << 20;
/// A code that tests nothing as often as the write barrier's flag is no Go program; real ones have hundreds of tests.
const MIN_FLAG_TESTS: u32 = 50;
/// Blocks of a queue that are followed.
const MAX_BLOCKS: u64 = 1 << 20;
/// Bytes of a queue's block of finalizers (`finBlockSize`) and of cleanups (`cleanupBlockSize`).
const FIN_BLOCK_SIZE: u64 = 4096;
const CLEANUP_BLOCK_SIZE: u64 = 512;

/// A queue that is kept as a list of blocks, and how they are known.
struct Queue {
    /// A function that refers to it.
    user: &'static str,
    /// Field of the variable that leads to the first block.
    head: u64,
    /// Bytes of a block.
    size: u64,
    /// Field with the number of a block's entries, and how many there may be.
    count: u64,
    capacity: u64,
    /// Field that leads to the next block.
    next: u64,
}

impl Search<'_> {
    /// `runtime.writeBarrier`: compiled code tests it before it stores pointers, and nothing else that often.
    pub(super) fn write_barrier(&self, text: AddrRange) -> Option<u64> {
        let mut counts = FxHashMap::default();
        let text = AddrRange { len: text.len.min(MAX_CODE), ..text };
        each_piece(self.image, text, 0, &mut |start, _, code| {
            self.machine.count_flag_tests(code, start.0, &mut counts);
        });
        let mut counts: Vec<(u32, u64)> = counts.into_iter().map(|(at, n)| (n, at)).collect();
        counts.sort_unstable_by_key(|&(n, at)| (std::cmp::Reverse(n), at));
        let (n, at) = *counts.first()?;
        let second = counts.get(1).map_or(0, |(n, _)| *n);
        let value = self.half(at, 0)?;
        (n >= MIN_FLAG_TESTS && n / 4 >= second && self.is_static(at) && value <= 1).then_some(at)
    }

    /// What the function `name` refers to in static memory. Words only.
    fn referred_by(&self, name: &str) -> Vec<u64> {
        let Some(Func { entry, end, .. }) = self.modules.func_named(self.image, name) else { return Vec::new() };
        let code = AddrRange { start: Addr(entry), len: end.saturating_sub(entry).min(PIECE) };
        let mut found = Vec::new();
        each_piece(self.image, code, 0, &mut |start, _, code| {
            found.extend(self.machine.references(code, start.0, &self.statics));
        });
        found.retain(|at| at.is_multiple_of(WORD));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// `runtime.allfin`. With no block at all, any that is nil is as good.
    pub(super) fn finalizer_queue(&self) -> Option<u64> {
        let at = &self.layout.finblock;
        self.longest(&Queue {
            user: "runtime.queuefinalizer",
            head: 0,
            size: FIN_BLOCK_SIZE,
            count: at.cnt,
            capacity: FIN_BLOCK_SIZE.saturating_sub(at.fin) / self.layout.finalizer.size.max(1),
            next: at.alllink,
        })
    }

    /// `runtime.gcCleanups` (Go 1.25 and later), if it has blocks.
    pub(super) fn cleanup_queue(&self) -> Option<u64> {
        let (queue, at) = (self.layout.cleanup_queue.as_ref()?, self.layout.cleanup_block.as_ref()?);
        let size = self.layout.cleanup_fn.as_ref().map_or(WORD, |at| at.size.max(1));
        let found = self.longest(&Queue {
            // A method of the queue, written out.
            user: "runtime.runCleanups",
            head: queue.all,
            size: CLEANUP_BLOCK_SIZE,
            count: at.n,
            capacity: CLEANUP_BLOCK_SIZE.saturating_sub(at.cleanups) / size,
            next: at.alllink,
        })?;
        (self.word(found, queue.all)? != 0).then_some(found)
    }

    /// Of what the queue's user refers to, the start of the longest list of its blocks.
    fn longest(&self, queue: &Queue) -> Option<u64> {
        let length = |at: u64| {
            let mut chain = Chain::new(self.word(at, queue.head)?);
            let mut n = 0u64;
            while let Some(block) = chain.current() {
                n += 1;
                if n > MAX_BLOCKS || !chain.advance(self.next_block(block, queue)?) {
                    return None;
                }
            }
            Some(n)
        };
        let lists = self.referred_by(queue.user).into_iter().filter_map(|at| Some((length(at)?, at)));
        lists.min_by_key(|&(n, at)| (std::cmp::Reverse(n), at)).map(|(_, at)| at)
    }

    /// The block behind `block`, 0 at the end; `None` if that is none of the queue's.
    fn next_block(&self, block: u64, queue: &Queue) -> Option<u64> {
        let count = self.half(block, queue.count)?;
        // The whole block is there, and the runtime's own memory is not static.
        self.word(block, queue.size - WORD)?;
        let sound = block.is_multiple_of(WORD) && !self.is_static(block) && u64::from(count) <= queue.capacity;
        sound.then(|| self.word(block, queue.next))?
    }
}
