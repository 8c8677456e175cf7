//! [`LiveImage`]: the memory of a process that stands still, read by `process_vm_readv`.
//!
//! A call into the kernel costs as much as copying a few kilobytes, so calls are few: [`Image::load`] lays all ranges of a unit out in
//! one buffer, joins those that are near, and asks for a thousand pieces per call. Structures that are read one at a time come from
//! a cache of pages, which never gets stale: the process does not run. If it is to go on, what it may write is copied before ([`Copied`]).

use std::io::IoSliceMut;
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

/// A hole that is read along: cheaper than another piece.
const HOLE: u64 = 256;

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
        Self { pid, readable, cache, copied: OnceLock::new(), mappings, missing: Missing::default() }
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

    /// Copies from the cache; false if the bytes cannot be read.
    fn read_page(&self, addr: u64, buf: &mut [u8]) -> bool {
        let number = addr / PAGE;
        let from = (addr % PAGE) as usize;
        let shard = &self.cache[(number / READ_AHEAD) as usize % CACHE_SHARDS];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = lock().get(&number) {
            buf.copy_from_slice(&page[from..from + buf.len()]);
            return true;
        }
        // The group of pages that this one belongs to, as far as it can be read: mappings begin and end at pages.
        let Some(mapped) = self.readable(AddrRange { start: Addr(number * PAGE), len: PAGE }) else { return false };
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
                return false;
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
        true
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
                // The kernel stopped at this one: its ranges are read one by one, and those that fail are not there.
                let piece = pieces[at];
                for (i, range) in ranges.iter().enumerate().skip(piece.first).take(piece.count) {
                    let offset = piece.offset + (range.start.0 - piece.range.start.0) as usize;
                    let buf = &mut layout.0.spill[offset..offset + range.len as usize];
                    if !read_exact_at(self.pid, range.start.0, buf) {
                        layout.forget(i);
                    }
                }
                at += 1;
            }
        }
        layout.finish()
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
    /// From the process itself, through the cache.
    fn read_process(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        // Large structures are worth a call of their own.
        if buf.len() > (PAGE * READ_AHEAD) as usize {
            let range = AddrRange { start: addr, len: buf.len() as u64 };
            let read = self.readable(range).is_some() && read_exact_at(self.pid, addr.0, buf);
            return if read { Ok(()) } else { Err(ReadError::Unmapped(addr)) };
        }
        let mut done = 0;
        while done < buf.len() {
            let at = addr.add(done as u64);
            let len = (buf.len() - done).min((PAGE - at.0 % PAGE) as usize);
            if !self.read_page(at.0, &mut buf[done..done + len]) {
                return Err(ReadError::Unmapped(at));
            }
            done += len;
        }
        Ok(())
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
        let mut scratch = Scratch::default();
        let unit = image.load(&ranges, &mut scratch);
        for (i, r) in ranges.iter().enumerate() {
            if i == known || i > known + 4 {
                assert!(unit.get(i).is_empty(), "{r:?}");
            } else {
                let from = (r.start.0 - base) as usize;
                assert_eq!(unit.get(i), &data[from..from + r.len as usize], "{i} {r:?}");
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
