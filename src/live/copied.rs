//! [`Copied`]: memory that was copied while the process stood still, in blocks, for reading after it went on.
//!
//! Copied is all private memory, without ranges that the caller does not need, and without pages that nobody ever touched
//! (`/proc/PID/pagemap`), which are zeros. Blocks without such a page cost nothing. Pages of a file that the process did not write (code,
//! read-only data) are read from the file afterwards, which does not need the process either: it may end while we read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::pages::Pages;
use super::proc::{self, Mapping};
use super::reader::Reader;
use crate::address::{Addr, AddrRange};
use crate::image::recording::without;

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
    /// Parts of `ranges` that are in files, sorted.
    files: Vec<InFile>,
}

/// A private mapping of a file.
#[derive(Debug)]
struct InFile {
    range: AddrRange,
    file: File,
    /// File offset of the first byte.
    offset: u64,
    /// What the process has written, sorted: that was copied.
    own: Vec<AddrRange>,
}

impl InFile {
    /// `None` if the file is not at hand, or the system does not tell what the process has written.
    fn open(pid: u32, m: &Mapping, pages: Option<&Pages>) -> Option<Self> {
        if m.inode == 0 {
            return None;
        }
        let is_it = |file: &File| file.metadata().is_ok_and(|metadata| m.is_of(&metadata));
        let [mapping, named] = proc::paths(pid, m.range, &m.path);
        let running = || {
            let exe = format!("/proc/{pid}/exe");
            let same = fs::read_link(&exe).is_ok_and(|path| path.as_os_str() == m.path.as_str());
            same.then(|| File::open(exe).ok()).flatten()
        };
        let named = || File::open(named).ok().filter(is_it);
        let file = File::open(mapping).ok().or_else(running).or_else(named)?;
        Some(Self { range: m.range, file, offset: m.offset, own: pages?.own(m.range)? })
    }

    /// Fills `buf` from `addr` on, if that is in the file. Returns how many bytes were filled: up to what was copied.
    fn read(&self, addr: u64, buf: &mut [u8]) -> usize {
        let next = self.own.partition_point(|own| own.end().0 <= addr);
        let end = self.own.get(next).map_or(self.range.end().0, |own| own.start.0.max(addr));
        let len = buf.len().min(usize::try_from(end - addr).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = self.offset.saturating_add(addr - self.range.start.0 + done as u64);
            match self.file.read_at(&mut buf[done..len], at) {
                Ok(n) if n > 0 => done += n,
                // Behind the end of the file a page has zeros.
                _ => break,
            }
        }
        buf[done..len].fill(0);
        len
    }
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
    pub(super) fn take(reader: &Reader, mappings: &[Mapping], unneeded: &[AddrRange]) -> Self {
        let pid = reader.pid();
        let pages = Pages::open(pid);
        let mut files: Vec<InFile> = Vec::new();
        let private = |m: &&Mapping| m.is_readable() && !m.shared && !m.is_special();
        let mut ranges: Vec<AddrRange> = Vec::new();
        let mut pieces: Vec<(AddrRange, bool)> = Vec::new();
        for m in mappings.iter().filter(private) {
            match ranges.last_mut() {
                Some(last) if last.end() == m.range.start => last.len += m.range.len,
                _ => ranges.push(m.range),
            }
            let in_file = InFile::open(pid, m, pages.as_ref());
            let own = in_file.as_ref().map_or_else(|| vec![m.range], |in_file| in_file.own.clone());
            files.extend(in_file);
            for part in own {
                let mut at = part.start.0;
                while at < part.end().0 {
                    let end = (at - at % BLOCK + BLOCK).min(part.end().0);
                    pieces.push((AddrRange::from_bounds(Addr(at), Addr(end)), m.inode == 0));
                    at = end;
                }
            }
        }
        let copied: Vec<(AddrRange, Box<[u8]>)> = pieces
            .into_par_iter()
            .filter_map(|(piece, anonymous)| {
                copy_piece(reader, piece, pages.as_ref().filter(|_| anonymous), unneeded).map(|bytes| (piece, bytes))
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
        Self { ranges, unneeded: unneeded.to_vec(), blocks, files }
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
            let mut len = (buf.len() - done).min(BLOCK as usize - from);
            let file = self.files.partition_point(|f| f.range.end().0 <= at);
            if let Some(f) = self.files.get(file) {
                if f.range.start.0 <= at {
                    let filled = f.read(at, &mut buf[done..done + len]);
                    if filled > 0 {
                        done += filled;
                        continue;
                    }
                    let own = f.own.partition_point(|own| own.end().0 <= at);
                    len = len.min(f.own.get(own).map_or(usize::MAX, |own| (own.end().0 - at) as usize));
                } else {
                    len = len.min((f.range.start.0 - at) as usize);
                }
            }
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
fn copy_piece(reader: &Reader, piece: AddrRange, pages: Option<&Pages>, unneeded: &[AddrRange]) -> Option<Box<[u8]>> {
    let touched = pages.and_then(|pages| pages.touched(piece)).unwrap_or_else(|| vec![piece]);
    let runs = without(&touched, unneeded);
    if runs.is_empty() {
        return None;
    }
    let mut bytes = vec![0; piece.len as usize];
    for run in runs {
        let from = (run.start.0 - piece.start.0) as usize;
        reader.what_can_be(run.start.0, &mut bytes[from..from + run.len as usize]);
    }
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::proc;

    #[test]
    fn copies_what_is_needed() {
        let mut data: Vec<u8> = (0..5_000_000u32).map(|i| (i % 253) as u8 + 1).collect();
        let base = data.as_ptr() as u64;
        let unneeded = AddrRange { start: Addr(base.next_multiple_of(4096) + 4096), len: 3 * 4096 };
        let pid = std::process::id();
        let copied = Copied::take(&Reader::new(pid), &proc::mappings(pid).expect("maps"), &[unneeded]);
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

    /// A private mapping of a file: what was written is copied, the rest is the file's, also behind its end.
    #[test]
    fn pages_of_files_are_read_from_files() {
        let pid = std::process::id();
        let exe = fs::read_link("/proc/self/exe").expect("ourselves");
        let exe = exe.to_str().expect("UTF-8");
        let maps = proc::mappings(pid).expect("maps");
        let copied = Copied::take(&Reader::new(pid), &maps, &[]);
        let mut in_files = 0;
        for m in maps.iter().filter(|m| m.path == exe && m.is_readable() && !m.shared) {
            let file = copied.files.iter().find(|f| f.range == m.range);
            let own = file.map_or(0, |f| f.own.iter().map(|own| own.len).sum());
            in_files += if file.is_some() { m.range.len - own } else { 0 };
            // Writable memory may have changed since.
            if m.is_writable() {
                continue;
            }
            let (mut found, mut expected) = (vec![0; m.range.len as usize], vec![0; m.range.len as usize]);
            assert_eq!(copied.read(m.range.start.0, &mut found), Found::All);
            assert!(Reader::new(pid).exact(m.range.start.0, &mut expected));
            assert!(found == expected, "{m:?}");
        }
        assert!(in_files > 1 << 20, "code is read from the file: {in_files}");
    }
}
