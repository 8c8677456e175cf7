//! [`LiveImage`]: the memory of a process that stands still, read by `process_vm_readv`.
//!
//! A call into the kernel, and each piece that it is asked for, costs as much as copying a few kilobytes, so both are few:
//! [`Image::load`] lays all ranges of a unit out in one buffer, joins those that are near, and asks for a thousand pieces per call. Single
//! structures, and units of small pieces far apart, come from a cache of pages: what the next level needs often lies beside them. Where it
//! does not, the cache is left alone for a while ([`Credit`]). It never gets stale: the process does not run. If it is to go on,
//! what it may write is copied before ([`Copied`]).

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustc_hash::FxHashMap;

use super::copied::{Copied, Found};
use super::proc::Mapping;
use crate::address::{Addr, AddrRange};
use crate::image::{IN_SPILL, Image, MAX_RANGE, MAX_SPILL, Missing, Place, ReadError, Scratch, UnitBytes};

/// Pieces of one system call (`UIO_MAXIOV`).
const PIECES: usize = 1024;

/// Bytes of one system call; the kernel's limit is 2 GiB.
const CALL_BYTES: usize = 1 << 30;

/// A hole that is read along: cheaper than another piece, for which the kernel looks its page up again.
const HOLE: u64 = 2048;

/// Units with pieces that are shorter on average are read by pages.
const SPARSE: usize = 1024;

const PAGE: u64 = 4096;

/// Pages that one miss of the cache reads.
const READ_AHEAD: u64 = 4;

const CACHE_SHARDS: usize = 64;

/// Pages that a shard of the cache keeps: 256 MiB in all.
const CACHE_PAGES: usize = 1024;

type Page = Box<[u8; PAGE as usize]>;

/// The memory of a stopped or frozen process.
#[derive(Debug)]
pub struct LiveImage {
    pid: Pid,
    /// What can be read, sorted, neighbours joined.
    readable: Vec<AddrRange>,
    cache: Vec<Mutex<FxHashMap<u64, Page>>>,
    credit: Credit,
    /// Set once the process goes on: from then on only what it cannot write is read from it.
    copied: OnceLock<Copied>,
    mappings: Vec<Mapping>,
    missing: Missing,
}

impl LiveImage {
    /// * `pid`: the process; it must stand still as long as this is used.
    /// * `mappings`: its mappings.
    pub(super) fn new(pid: u32, mappings: &[Mapping]) -> Self {
        let mut readable: Vec<AddrRange> = Vec::new();
        for mapping in mappings.iter().filter(|m| m.is_readable() && !m.is_special()) {
            match readable.last_mut() {
                Some(last) if last.end() == mapping.range.start => last.len += mapping.range.len,
                _ => readable.push(mapping.range),
            }
        }
        let cache = (0..CACHE_SHARDS).map(|_| Mutex::default()).collect();
        let mappings = mappings.to_vec();
        let pid = Pid::from_raw(pid.cast_signed());
        let (copied, missing) = (OnceLock::new(), Missing::default());
        Self { pid, readable, cache, credit: Credit::default(), copied, mappings, missing }
    }

    /// Copies all that the process may write, so that it may go on.
    ///
    /// * `unneeded`: ranges that will not be read any more, or in which only what never changes will be, sorted. They are read from
    ///   the process.
    pub fn copy(&self, unneeded: &[AddrRange]) {
        self.copied.get_or_init(|| Copied::take(self.pid.as_raw().cast_unsigned(), &self.mappings, unneeded));
    }

    /// Reads all ranges from the copy, or from memory that does not change.
    fn load_copied<'s>(&'s self, copied: &Copied, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        let mut layout = Layout::new(scratch, ranges.len());
        for range in ranges {
            let offset = layout.0.spill.len();
            if self.readable(*range).is_none() || !layout.grow(range.len) {
                layout.skip();
                continue;
            }
            let buf = &mut layout.0.spill[offset..];
            // What was left out holds nothing that changes, as far as it is asked for.
            if copied.read(range.start.0, buf) == Found::All || self.read_process(range.start, buf).is_ok() {
                layout.place(offset, range.len);
            } else {
                layout.0.spill.truncate(offset);
                layout.skip();
            }
        }
        layout.finish()
    }

    /// The readable range that holds all of `range`.
    fn readable(&self, range: AddrRange) -> Option<AddrRange> {
        let after = self.readable.partition_point(|r| r.start <= range.start);
        let found = *self.readable.get(after.checked_sub(1)?)?;
        (range.start.0 - found.start.0 <= found.len && range.len <= found.end().0 - range.start.0).then_some(found)
    }

    /// Copies from the cache, whether the page was there or not; `None` if the bytes cannot be read.
    fn read_page(&self, addr: u64, buf: &mut [u8]) -> Option<Cached> {
        let number = addr / PAGE;
        let from = (addr % PAGE) as usize;
        let shard = &self.cache[(number / READ_AHEAD) as usize % CACHE_SHARDS];
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
    fn read_by_pages(&self, addr: u64, buf: &mut [u8], found: &mut [i64; 2]) -> bool {
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
struct Credit(AtomicI64);

impl Credit {
    const MOST: i64 = 1 << 16;
    /// A miss costs about as much as three or four pieces of a large call.
    const PER_MISS: i64 = 4;
    /// So many pieces that were read without the cache buy one look at it.
    const PIECES_PER_LOOK: i64 = 8;

    fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn settle(&self, [hits, misses]: [i64; 2]) {
        self.add(hits - Self::PER_MISS * misses);
    }

    fn without(&self, pieces: usize) {
        self.add(pieces as i64 / Self::PIECES_PER_LOOK + 1);
    }

    fn add(&self, by: i64) {
        // Not exact if several do it at once, which harms nothing.
        let credit = self.0.load(Ordering::Relaxed).saturating_add(by);
        self.0.store(credit.clamp(-Self::MOST, Self::MOST), Ordering::Relaxed);
    }
}

impl Default for Credit {
    fn default() -> Self {
        Self(AtomicI64::new(Self::MOST))
    }
}

/// Lays ranges out in a [`Scratch`].
struct Layout<'s>(&'s mut Scratch);

impl<'s> Layout<'s> {
    fn new(scratch: &'s mut Scratch, ranges: usize) -> Self {
        scratch.places.clear();
        scratch.spill.clear();
        scratch.places.reserve(ranges);
        Self(scratch)
    }

    /// The next range lies at `offset`.
    fn place(&mut self, offset: usize, len: u64) {
        self.0.places.push(Place { offset: offset as u64 | IN_SPILL, len: len as u32 });
    }

    /// The next range cannot be read.
    fn skip(&mut self) {
        self.0.places.push(Place { offset: IN_SPILL, len: 0 });
    }

    /// Range `i` turned out to be unreadable.
    fn forget(&mut self, i: usize) {
        self.0.places[i] = Place { offset: IN_SPILL, len: 0 };
    }

    /// Makes room; false if that would be too much.
    fn grow(&mut self, by: u64) -> bool {
        let len = self.0.spill.len();
        let fits = by <= MAX_RANGE && len + by as usize <= MAX_SPILL;
        if fits {
            self.0.spill.resize(len + by as usize, 0);
        }
        fits
    }

    fn finish(self) -> UnitBytes<'s> {
        let Scratch { places, spill } = self.0;
        UnitBytes { base: &[], spill, places }
    }
}

/// Ranges that are read as one piece.
#[derive(Copy, Clone)]
struct Piece {
    range: AddrRange,
    /// The first of its ranges, and how many.
    first: usize,
    count: usize,
    /// Where it goes in the buffer.
    offset: usize,
}

impl Image for LiveImage {
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        if let Some(copied) = self.copied.get() {
            return self.load_copied(copied, ranges, scratch);
        }
        let mut layout = Layout::new(scratch, ranges.len());
        let mut pieces: Vec<Piece> = Vec::with_capacity(ranges.len());
        // The readable range of the last one: units come in address order.
        let mut mapped = AddrRange::default();
        for (i, range) in ranges.iter().enumerate() {
            let inside = |m: AddrRange| m.start <= range.start && range.end() <= m.end();
            if !inside(mapped) {
                match self.readable(*range) {
                    Some(found) => mapped = found,
                    None => {
                        layout.skip();
                        continue;
                    }
                }
            }
            if range.len == 0 {
                layout.skip();
                continue;
            }
            if let Some(last) = pieces.last_mut()
                && last.first + last.count == i
                && last.range.start <= range.start
                && range.start.0 <= last.range.end().0.saturating_add(HOLE)
                && mapped.start <= last.range.start
            {
                let more = range.end().0.saturating_sub(last.range.end().0);
                if layout.grow(more) {
                    last.range.len += more;
                    last.count += 1;
                    layout.place(last.offset + (range.start.0 - last.range.start.0) as usize, range.len);
                    continue;
                }
            }
            let offset = layout.0.spill.len();
            if !layout.grow(range.len) {
                layout.skip();
                continue;
            }
            layout.place(offset, range.len);
            pieces.push(Piece { range: *range, first: i, count: 1, offset });
        }
        if layout.0.spill.len() < pieces.len() * SPARSE {
            if self.credit.is_left() {
                let mut found = [0; 2];
                for piece in &pieces {
                    let buf = &mut layout.0.spill[piece.offset..piece.offset + piece.range.len as usize];
                    if !self.read_by_pages(piece.range.start.0, buf, &mut found) {
                        self.read_one_by_one(*piece, ranges, &mut layout);
                    }
                }
                self.credit.settle(found);
                return layout.finish();
            }
            self.credit.without(pieces.len());
        }
        let mut at = 0;
        while at < pieces.len() {
            let mut bytes = 0;
            let batch = pieces[at..].iter().take(PIECES).take_while(|p| {
                bytes += p.range.len as usize;
                bytes <= CALL_BYTES || p.offset == pieces[at].offset
            });
            let count = batch.count();
            let batch = &pieces[at..at + count];
            let done = read_batch(self.pid, batch, &mut layout.0.spill);
            at += done;
            if done < count {
                // The kernel stopped at this one.
                self.read_one_by_one(pieces[at], ranges, &mut layout);
                at += 1;
            }
        }
        layout.finish()
    }

    fn present(&self, ranges: &[AddrRange]) -> Vec<bool> {
        ranges.iter().map(|range| range.len > 0 && self.readable(*range).is_some()).collect()
    }

    fn read(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        match self.copied.get().map(|copied| copied.read(addr.0, buf)) {
            Some(Found::All) => Ok(()),
            // What was left out holds nothing that changes, as far as it is asked for.
            Some(Found::LeftOut | Found::Elsewhere) | None => self.read_process(addr, buf),
        }
    }

    fn missing(&self) -> &Missing {
        &self.missing
    }
}

impl LiveImage {
    /// Reads the ranges of a piece that cannot be read whole; those that fail are not there.
    fn read_one_by_one(&self, piece: Piece, ranges: &[AddrRange], layout: &mut Layout<'_>) {
        for (i, range) in ranges.iter().enumerate().skip(piece.first).take(piece.count) {
            let offset = piece.offset + (range.start.0 - piece.range.start.0) as usize;
            let buf = &mut layout.0.spill[offset..offset + range.len as usize];
            if !read_exact_at(self.pid, range.start.0, buf) {
                layout.forget(i);
            }
        }
    }

    /// From the process itself, through the cache.
    fn read_process(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        // Large structures are worth a call of their own.
        if buf.len() > (PAGE * READ_AHEAD) as usize {
            let range = AddrRange { start: addr, len: buf.len() as u64 };
            let read = self.readable(range).is_some() && read_exact_at(self.pid, addr.0, buf);
            return if read { Ok(()) } else { Err(ReadError::Unmapped(addr)) };
        }
        if self.read_by_pages(addr.0, buf, &mut [0; 2]) { Ok(()) } else { Err(ReadError::Unmapped(addr)) }
    }
}

/// Reads pieces whose places in the buffer follow each other. Returns how many were read whole.
fn read_batch(pid: Pid, pieces: &[Piece], buffer: &mut [u8]) -> usize {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return 0 };
    let local = &mut buffer[first.offset..last.offset + last.range.len as usize];
    let remote: Vec<RemoteIoVec> =
        pieces.iter().map(|p| RemoteIoVec { base: p.range.start.0 as usize, len: p.range.len as usize }).collect();
    let mut read = process_vm_readv(pid, &mut [IoSliceMut::new(local)], &remote).unwrap_or(0);
    pieces
        .iter()
        .take_while(|p| {
            let whole = read >= p.range.len as usize;
            read = read.saturating_sub(p.range.len as usize);
            whole
        })
        .count()
}

fn read_exact_at(pid: Pid, addr: u64, buf: &mut [u8]) -> bool {
    let len = buf.len();
    let mut done = 0;
    while done < len {
        let remote = [RemoteIoVec { base: addr as usize + done, len: (len - done).min(CALL_BYTES) }];
        match process_vm_readv(pid, &mut [IoSliceMut::new(&mut buf[done..])], &remote) {
            Ok(n) if n > 0 => done += n,
            _ => return false,
        }
    }
    true
}

/// Fills `buf` from `addr` of process `pid`; false if any byte of it cannot be read.
pub(super) fn read_exact(pid: u32, addr: u64, buf: &mut [u8]) -> bool {
    read_exact_at(Pid::from_raw(pid.cast_signed()), addr, buf)
}

/// Fills `buf` from `addr` of process `pid`. Pages that cannot be read, of a file that is shorter now, become zeros.
pub(super) fn read_what_can_be(pid: u32, addr: u64, buf: &mut [u8]) {
    if read_exact(pid, addr, buf) {
        return;
    }
    let mut at = addr;
    let mut rest = buf;
    while !rest.is_empty() {
        let (page, after) = rest.split_at_mut(((PAGE - at % PAGE) as usize).min(rest.len()));
        if !read_exact(pid, at, page) {
            page.fill(0);
        }
        at += page.len() as u64;
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::proc;

    /// Our own memory is as good as another's.
    #[test]
    fn loads_and_reads_agree_with_memory() {
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let pid = std::process::id();
        let image = LiveImage::new(pid, &proc::mappings(pid).expect("maps"));
        let base = data.as_ptr() as u64;
        let range = |from: u64, len: u64| AddrRange { start: Addr(base + from), len };
        let mut ranges: Vec<AddrRange> = (0..5000).map(|i| range(i * 56, 24 + i % 64)).collect();
        let known = ranges.len();
        // Nothing there, an empty one, an overlapping one, one before the others.
        ranges.extend([
            AddrRange { start: Addr(16), len: 8 },
            range(5, 0),
            range(100, 70_000),
            range(120, 8),
            range(0, 8),
        ]);
        ranges.push(AddrRange { start: Addr(u64::MAX - 4), len: 8 });
        // All at once, and few far apart: by pages, and with no credit left by pieces.
        let every = |step: usize| (0..ranges.len()).filter(|i| i % step == 0 || *i >= known).collect::<Vec<_>>();
        for (step, credit) in [(1, Credit::MOST), (90, Credit::MOST), (90, -Credit::MOST)] {
            image.credit.0.store(credit, Ordering::Relaxed);
            let chosen = every(step);
            let asked: Vec<AddrRange> = chosen.iter().map(|i| ranges[*i]).collect();
            let mut scratch = Scratch::default();
            let unit = image.load(&asked, &mut scratch);
            let present = image.present(&asked);
            for (at, &i) in chosen.iter().enumerate() {
                let r = ranges[i];
                assert_eq!(present[at], !unit.get(at).is_empty(), "{r:?}");
                if i == known || i > known + 4 {
                    assert!(unit.get(at).is_empty(), "{r:?}");
                } else if r.len > 0 {
                    let from = (r.start.0 - base) as usize;
                    assert_eq!(unit.get(at), &data[from..from + r.len as usize], "{i} {r:?}");
                }
            }
        }
        let mut buf = vec![0; 9000];
        image.read(Addr(base + 77), &mut buf).expect("mapped");
        assert_eq!(buf, data[77..9077]);
        let mut buf = vec![0; 200_000];
        image.read(Addr(base + 1), &mut buf).expect("mapped");
        assert_eq!(buf, data[1..200_001]);
        assert_eq!(image.read_u64(Addr(16)), Err(ReadError::Unmapped(Addr(16))));
    }

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

    /// A page in the middle of a mapping that cannot be read: behind the end of its file.
    #[test]
    fn a_hole_costs_only_its_own_ranges() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(3 * PAGE).expect("length");
        let map = crate::image::FileMap::new(&file, "test").expect("map");
        let base = map.as_ptr() as u64;
        file.set_len(PAGE).expect("length");
        let pid = std::process::id();
        let image = LiveImage::new(pid, &proc::mappings(pid).expect("maps"));
        let ranges: Vec<AddrRange> =
            [0, 64, PAGE - 8, PAGE, 2 * PAGE, 128].map(|at| AddrRange { start: Addr(base + at), len: 8 }).to_vec();
        let mut scratch = Scratch::default();
        let unit = image.load(&ranges, &mut scratch);
        let found: Vec<bool> = (0..ranges.len()).map(|i| !unit.get(i).is_empty()).collect();
        assert_eq!(found, [true, true, true, false, false, true]);
        assert_eq!(image.read_u64(Addr(base)), Ok(0));
        assert!(image.read_u64(Addr(base + PAGE)).is_err());
    }
}
