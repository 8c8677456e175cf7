//! [`Pages`]: which pages of a process are there, and which are its own (`/proc/PID/pagemap`).
//!
//! Anonymous memory that nobody touched is zeros, and a page of a private file mapping that the process did not write is the file's: neither
//! needs to be read from the process.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::{SysconfVar, sysconf};

use crate::address::{Addr, AddrRange};

/// Bits of a page's entry: in memory, or swapped out.
const TOUCHED: u64 = 3 << 62;
/// It is a page of the file, or shared.
const OF_FILE: u64 = 1 << 61;

/// Entries that are read at a time.
const ENTRIES: usize = 1 << 16;

/// The pages of one process.
#[derive(Debug)]
pub(super) struct Pages {
    map: File,
    /// Bytes of the kernel's pages, not of a core's.
    size: u64,
}

impl Pages {
    /// `None` if the system does not tell.
    pub(super) fn open(pid: u32) -> Option<Self> {
        let map = File::open(format!("/proc/{pid}/pagemap")).ok()?;
        let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?;
        Some(Self { map, size: u64::try_from(size).ok().filter(|size| *size > 0)? })
    }

    /// The parts of `range`, which begins and ends at pages, that are in memory or swapped out. `None` if that cannot be known.
    pub(super) fn touched(&self, range: AddrRange) -> Option<Vec<AddrRange>> {
        self.select(range, |entry| entry & TOUCHED != 0)
    }

    /// Of a private file mapping the parts that the process has written, as [`Pages::touched`].
    pub(super) fn own(&self, range: AddrRange) -> Option<Vec<AddrRange>> {
        self.select(range, |entry| entry & TOUCHED != 0 && entry & OF_FILE == 0)
    }

    fn select(&self, range: AddrRange, wanted: impl Fn(u64) -> bool) -> Option<Vec<AddrRange>> {
        let mut runs: Vec<AddrRange> = Vec::new();
        let (first, end) = (range.start.0 / self.size, range.end().0.div_ceil(self.size));
        let mut buffer = vec![0u8; usize::try_from(end - first).ok()?.min(ENTRIES) * 8];
        let mut at = first;
        while at < end {
            let n = usize::try_from(end - at).ok()?.min(ENTRIES);
            self.map.read_exact_at(&mut buffer[..n * 8], at.checked_mul(8)?).ok()?;
            for (i, entry) in buffer[..n * 8].chunks_exact(8).enumerate() {
                if !wanted(u64::from_le_bytes(entry.try_into().expect("8 bytes"))) {
                    continue;
                }
                let start = (at + i as u64) * self.size;
                match runs.last_mut() {
                    Some(last) if last.end().0 == start => last.len += self.size,
                    _ => runs.push(AddrRange { start: Addr(start), len: self.size }),
                }
            }
            at += n as u64;
        }
        Some(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::FileMap;

    #[test]
    fn tells_what_was_touched_and_what_is_the_files() {
        let pages = Pages::open(std::process::id()).expect("pagemap");
        let size = pages.size as usize;
        let mut memory = vec![0u8; 10_001 * size];
        let first = memory.as_ptr() as usize;
        let first = first.next_multiple_of(size) - first;
        memory[first + 3 * size] = 1;
        memory[first + 4 * size] = 1;
        memory[first + 9000 * size] = 1;
        let start = memory.as_ptr() as u64 + first as u64;
        let range = AddrRange { start: Addr(start), len: 10_000 * pages.size };
        let page =
            |number: u64, count: u64| AddrRange { start: Addr(start + number * pages.size), len: count * pages.size };
        // Huge pages may have come along: then all of it was touched by one write.
        let touched = pages.touched(range).expect("entries");
        for written in [page(3, 2), page(9000, 1)] {
            assert!(touched.iter().any(|t| t.start <= written.start && written.end() <= t.end()), "{touched:?}");
        }
        let file = File::open("/proc/self/exe").expect("ourselves");
        let map = FileMap::new(&file, "test").expect("map");
        let sum: u64 = map.iter().step_by(512).map(|b| u64::from(*b)).sum();
        let range = AddrRange { start: Addr(map.as_ptr() as u64), len: (map.len() as u64) / pages.size * pages.size };
        assert!(sum > 0 && !pages.touched(range).expect("entries").is_empty());
        assert_eq!(pages.own(range), Some(Vec::new()), "a file that is only read");
    }
}
