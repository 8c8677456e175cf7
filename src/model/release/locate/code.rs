//! Variables known by the code that uses them: the write barrier's flag, and the queues of finalizers and cleanups.

use super::Search;
use super::words::{PIECE, each_piece};
use crate::address::{Addr, AddrRange, WORD};
use crate::model::chain::Chain;
use crate::model::modules::Func;
use crate::model::queues::Blocks;
use rustc_hash::FxHashMap;

/// Code in which tests of a flag are counted.
const MAX_CODE: u64 = 16 << 20;
/// A code that tests nothing as often as the write barrier's flag is no Go program; real ones have hundreds of tests.
const MIN_FLAG_TESTS: u32 = 50;
/// Blocks of a queue that are followed.
const MAX_BLOCKS: u64 = 1 << 20;

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
        self.longest("runtime.queuefinalizer", 0, Blocks::finalizers(self.layout))
    }

    /// `runtime.gcCleanups` (Go 1.25 and later), if it has blocks.
    pub(super) fn cleanup_queue(&self) -> Option<u64> {
        let (queue, blocks) = (self.layout.cleanup_queue.as_ref()?, Blocks::cleanups(self.layout)?);
        // A method of the queue, written out.
        let found = self.longest("runtime.runCleanups", queue.all, blocks)?;
        (self.word(found, queue.all)? != 0).then_some(found)
    }

    /// Of what the function `user` refers to, the variable that starts the longest list of blocks.
    ///
    /// * `head`: its field that leads to the first block.
    fn longest(&self, user: &str, head: u64, blocks: Blocks) -> Option<u64> {
        let length = |at: u64| {
            let mut chain = Chain::new(self.word(at, head)?);
            let mut n = 0u64;
            while let Some(block) = chain.current() {
                n += 1;
                if n > MAX_BLOCKS || !chain.advance(self.next_block(block, blocks)?) {
                    return None;
                }
            }
            Some(n)
        };
        let lists = self.referred_by(user).into_iter().filter_map(|at| Some((length(at)?, at)));
        lists.min_by_key(|&(n, at)| (std::cmp::Reverse(n), at)).map(|(_, at)| at)
    }

    /// The block behind `block`, 0 at the end; `None` if that is no such block.
    fn next_block(&self, block: u64, blocks: Blocks) -> Option<u64> {
        let count = self.half(block, blocks.count)?;
        // The whole block is there, and the runtime's own memory is not static.
        self.word(block, blocks.size - WORD)?;
        let sound = block.is_multiple_of(WORD) && !self.is_static(block) && u64::from(count) <= blocks.capacity();
        sound.then(|| self.word(block, blocks.next))?
    }
}
