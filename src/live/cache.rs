//! [`PageCache`]: pages of a process that stands still, for what is read in small pieces; and [`Credit`], whether it pays.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::unistd::Pid;
use rustc_hash::FxHashMap;

use super::memory::read_exact_at;
use super::proc::Mapping;
use crate::address::{Addr, AddrRange};

pub(super) const PAGE: u64 = 4096;

/// Pages that one miss of the cache reads.
pub(super) const READ_AHEAD: u64 = 4;

const CACHE_SHARDS: usize = 64;

/// Pages that a shard of the cache keeps: 256 MiB in all.
const CACHE_PAGES: usize = 1024;

type Page = Box<[u8; PAGE as usize]>;

/// The cache, and what can be read at all.
#[derive(Debug)]
pub(super) struct PageCache {
    pid: Pid,
    /// What can be read, sorted, neighbours joined.
    readable: Vec<AddrRange>,
    shards: Vec<Mutex<FxHashMap<u64, Page>>>,
    pub(super) credit: Credit,
}

impl PageCache {
    /// An empty one.
    pub(super) fn new(pid: Pid, mappings: &[Mapping]) -> Self {
        let mut readable: Vec<AddrRange> = Vec::new();
        for mapping in mappings.iter().filter(|m| m.is_readable() && !m.is_special()) {
            match readable.last_mut() {
                Some(last) if last.end() == mapping.range.start => last.len += mapping.range.len,
                _ => readable.push(mapping.range),
            }
        }
        let shards = (0..CACHE_SHARDS).map(|_| Mutex::default()).collect();
        Self { pid, readable, shards, credit: Credit::default() }
    }

    /// The readable range that holds all of `range`.
    pub(super) fn readable(&self, range: AddrRange) -> Option<AddrRange> {
        let after = self.readable.partition_point(|r| r.start <= range.start);
        let found = *self.readable.get(after.checked_sub(1)?)?;
        (range.start.0 - found.start.0 <= found.len && range.len <= found.end().0 - range.start.0).then_some(found)
    }

    /// Copies from the cache, whether the page was there or not; `None` if the bytes cannot be read.
    fn read_page(&self, addr: u64, buf: &mut [u8]) -> Option<Cached> {
        let number = addr / PAGE;
        let from = (addr % PAGE) as usize;
        let shard = &self.shards[(number / READ_AHEAD) as usize % CACHE_SHARDS];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = lock().get(&number) {
            buf.copy_from_slice(&page[from..from + buf.len()]);
            return Some(Cached::Hit);
        }
        // The group of pages that this one belongs to, as far as it can be read: mappings begin and end at pages.
        let mapped = self.readable(AddrRange { start: Addr(number * PAGE), len: PAGE })?;
        let first = (number - number % READ_AHEAD).max(mapped.start.0 / PAGE);
        let end = (number - number % READ_AHEAD + READ_AHEAD).min(mapped.end().0 / PAGE);
        let mut bytes = [0u8; (PAGE * READ_AHEAD) as usize];
        let mut bytes = &mut bytes[..((end - first) * PAGE) as usize];
        let mut start = first;
        if !read_exact_at(self.pid, first * PAGE, bytes) {
            // A page of the group is damaged, or lies beyond the end of its file.
            start = number;
            bytes = &mut bytes[..PAGE as usize];
            if !read_exact_at(self.pid, number * PAGE, bytes) {
                return None;
            }
        }
        let mut cached = lock();
        if cached.len() >= CACHE_PAGES {
            cached.clear();
        }
        for (i, page) in bytes.chunks_exact(PAGE as usize).enumerate() {
            let page: Page = Box::new(page.try_into().expect("a page"));
            if start + i as u64 == number {
                buf.copy_from_slice(&page[from..from + buf.len()]);
            }
            cached.insert(start + i as u64, page);
        }
        Some(Cached::Miss)
    }

    /// Fills `buf` from `addr` by pages of the cache; false if any byte cannot be read.
    ///
    /// * `found`: hits and misses are added to it.
    pub(super) fn read_by_pages(&self, addr: u64, buf: &mut [u8], found: &mut [i64; 2]) -> bool {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.wrapping_add(done as u64);
            let len = (buf.len() - done).min((PAGE - at % PAGE) as usize);
            match self.read_page(at, &mut buf[done..done + len]) {
                Some(cached) => found[cached as usize] += 1,
                None => return false,
            }
            done += len;
        }
        true
    }
}

/// Where a page was found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Cached {
    Hit,
    Miss,
}

/// Whether the cache pays: a miss reads four pages for one piece. It earns by hits, pays by misses, and gets another chance from time to
/// time. This decides how bytes are read, never what is read.
#[derive(Debug)]
pub(super) struct Credit(AtomicI64);

impl Credit {
    pub(super) const MOST: i64 = 1 << 16;
    /// A miss costs about as much as three or four pieces of a large call.
    const PER_MISS: i64 = 4;
    /// So many pieces that were read without the cache buy one look at it.
    const PIECES_PER_LOOK: i64 = 8;

    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    pub(super) fn settle(&self, [hits, misses]: [i64; 2]) {
        self.add(hits - Self::PER_MISS * misses);
    }

    pub(super) fn without(&self, pieces: usize) {
        self.add(pieces as i64 / Self::PIECES_PER_LOOK + 1);
    }

    fn add(&self, by: i64) {
        // Not exact if several do it at once, which harms nothing.
        let credit = self.0.load(Ordering::Relaxed).saturating_add(by);
        self.set(credit.clamp(-Self::MOST, Self::MOST));
    }

    pub(super) fn set(&self, credit: i64) {
        self.0.store(credit, Ordering::Relaxed);
    }
}

impl Default for Credit {
    fn default() -> Self {
        Self(AtomicI64::new(Self::MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_does_not_pay_is_left_alone_for_a_while() {
        let credit = Credit::default();
        assert!(credit.is_left());
        for _ in 0..100 {
            credit.settle([100, 900]);
        }
        assert!(!credit.is_left());
        for _ in 0..1000 {
            credit.without(1000);
        }
        assert!(credit.is_left(), "another chance");
        credit.settle([1_000_000, 10]);
        credit.settle([0, 1000]);
        assert!(credit.is_left(), "it paid for long");
    }
}
