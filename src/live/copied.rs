//! [`Copied`]: memory that was copied while the process stood still, in blocks, for reading after it went on.
//!
//! Copied is all private memory (code and read-only data as well: the process may end while we read), without ranges that the caller does
//! not need, and without pages that nobody ever touched (`/proc/PID/pagemap`), which are zeros. Blocks without such a page cost nothing.

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::memory;
use super::pages::Pages;
use super::proc::Mapping;
use crate::address::{Addr, AddrRange};

/// Bytes of a block: a unit of parallel work.
const BLOCK: u64 = 2 << 20;

/// Copied memory.
#[derive(Debug)]
pub(super) struct Copied {
    /// What was copied, sorted; what is not in `blocks` is zeros.
    ranges: Vec<AddrRange>,
    /// What was left out, sorted.
    unneeded: Vec<AddrRange>,
    blocks: FxHashMap<u64, Box<[u8]>>,
}

/// What became of a read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The bytes are there.
    All,
    /// A part was left out.
    LeftOut,
    /// That is no memory that was copied.
    Elsewhere,
}

impl Copied {
    /// Copies in parallel.
    ///
    /// * `unneeded`: sorted; what lies there cannot be read.
    pub(super) fn take(pid: u32, mappings: &[Mapping], unneeded: &[AddrRange]) -> Self {
        let pages = Pages::open(pid);
        let private = |m: &&Mapping| m.is_readable() && !m.shared && !m.is_special();
        let mut ranges: Vec<AddrRange> = Vec::new();
        let mut pieces: Vec<(AddrRange, bool)> = Vec::new();
        for m in mappings.iter().filter(private) {
            match ranges.last_mut() {
                Some(last) if last.end() == m.range.start => last.len += m.range.len,
                _ => ranges.push(m.range),
            }
            let mut at = m.range.start.0;
            while at < m.range.end().0 {
                let end = (at - at % BLOCK + BLOCK).min(m.range.end().0);
                pieces.push((AddrRange::from_bounds(Addr(at), Addr(end)), m.inode == 0));
                at = end;
            }
        }
        let copied: Vec<(AddrRange, Box<[u8]>)> = pieces
            .into_par_iter()
            .filter_map(|(piece, anonymous)| {
                copy_piece(pid, piece, pages.as_ref().filter(|_| anonymous), unneeded).map(|bytes| (piece, bytes))
            })
            .collect();
        let mut blocks: FxHashMap<u64, Box<[u8]>> = FxHashMap::default();
        for (piece, bytes) in copied {
            if piece.len == BLOCK {
                blocks.insert(piece.start.0 / BLOCK, bytes);
                continue;
            }
            let from = (piece.start.0 % BLOCK) as usize;
            let block = blocks.entry(piece.start.0 / BLOCK).or_insert_with(|| vec![0; BLOCK as usize].into());
            block[from..from + bytes.len()].copy_from_slice(&bytes);
        }
        Self { ranges, unneeded: unneeded.to_vec(), blocks }
    }

    /// Fills `buf` from `addr` on.
    pub(super) fn read(&self, addr: u64, buf: &mut [u8]) -> Found {
        let after = self.ranges.partition_point(|r| r.start.0 <= addr);
        let Some(range) = after.checked_sub(1).map(|i| self.ranges[i]) else { return Found::Elsewhere };
        let skip = addr - range.start.0;
        if skip > range.len || buf.len() as u64 > range.len - skip {
            return Found::Elsewhere;
        }
        let next = self.unneeded.partition_point(|r| r.end().0 <= addr);
        if self.unneeded.get(next).is_some_and(|r| r.start.0 < addr + buf.len() as u64) {
            return Found::LeftOut;
        }
        let mut done = 0;
        while done < buf.len() {
            let at = addr + done as u64;
            let from = (at % BLOCK) as usize;
            let len = (buf.len() - done).min(BLOCK as usize - from);
            match self.blocks.get(&(at / BLOCK)) {
                Some(block) => buf[done..done + len].copy_from_slice(&block[from..from + len]),
                None => buf[done..done + len].fill(0),
            }
            done += len;
        }
        Found::All
    }
}

/// The bytes of a piece; `None` if all of it is zeros or unneeded.
///
/// * `pages`: of memory that is zeros where nobody touched it.
fn copy_piece(pid: u32, piece: AddrRange, pages: Option<&Pages>, unneeded: &[AddrRange]) -> Option<Box<[u8]>> {
    let touched = pages.and_then(|pages| pages.touched(piece)).unwrap_or_else(|| vec![piece]);
    let runs = without(&touched, unneeded);
    if runs.is_empty() {
        return None;
    }
    let mut bytes = vec![0; piece.len as usize];
    for run in runs {
        let from = (run.start.0 - piece.start.0) as usize;
        memory::read_what_can_be(pid, run.start.0, &mut bytes[from..from + run.len as usize]);
    }
    Some(bytes.into())
}

/// What is left of `ranges` without `holes`; both sorted.
fn without(ranges: &[AddrRange], holes: &[AddrRange]) -> Vec<AddrRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut at = range.start;
        let from = holes.partition_point(|h| h.end() <= range.start);
        for hole in holes[from..].iter().take_while(|h| h.start < range.end()) {
            left.push(AddrRange::from_bounds(at, hole.start));
            at = at.max(hole.end());
        }
        left.push(AddrRange::from_bounds(at, range.end()));
    }
    left.retain(|r| r.len > 0);
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::proc;

    #[test]
    fn holes_are_cut_out() {
        let range = |(start, end)| AddrRange::from_bounds(Addr(start), Addr(end));
        let cut = |ranges: &[(u64, u64)], holes: &[(u64, u64)]| {
            let list = |l: &[(u64, u64)]| l.iter().map(|r| range(*r)).collect::<Vec<_>>();
            without(&list(ranges), &list(holes)).iter().map(|r| (r.start.0, r.end().0)).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[(10, 20), (30, 40)], &[]), [(10, 20), (30, 40)]);
        assert_eq!(
            cut(&[(10, 20), (30, 40)], &[(0, 12), (15, 16), (18, 33), (39, 50)]),
            [(12, 15), (16, 18), (33, 39)]
        );
        assert_eq!(cut(&[(10, 20)], &[(5, 30)]), []);
    }

    #[test]
    fn copies_what_is_needed() {
        let mut data: Vec<u8> = (0..5_000_000u32).map(|i| (i % 253) as u8 + 1).collect();
        let base = data.as_ptr() as u64;
        let unneeded = AddrRange { start: Addr(base.next_multiple_of(4096) + 4096), len: 3 * 4096 };
        let pid = std::process::id();
        let copied = Copied::take(pid, &proc::mappings(pid).expect("maps"), &[unneeded]);
        let before = data.clone();
        data.fill(0);
        let (first, second) = (unneeded.start.0 - base, unneeded.end().0 - base);
        let (first, second) = (first as usize, second as usize);
        let mut buf = vec![0; data.len()];
        assert_eq!(copied.read(base, &mut buf[..first]), Found::All);
        assert_eq!(copied.read(base + second as u64, &mut buf[second..]), Found::All);
        assert_eq!((&buf[..first], &buf[second..]), (&before[..first], &before[second..]));
        assert_eq!(copied.read(base, &mut buf), Found::LeftOut);
        assert_eq!(copied.read(unneeded.end().0 - 1, &mut [0]), Found::LeftOut);
        assert_eq!(copied.read(8, &mut [0; 8]), Found::Elsewhere);
    }
}
