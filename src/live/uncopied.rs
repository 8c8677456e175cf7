//! [`Uncopied`]: where the bytes of a process that goes on are, apart from those that were copied while it stood still.
//!
//! Copied is all private memory ([`Piece`]) but ranges that the caller does not need, and pages that nobody ever touched
//! (`/proc/PID/pagemap`), which are zeros. Pages of a file that the process did not write (code, read-only data) are read from the file
//! afterwards, which does not need the process either: it may end while we read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::pages::Pages;
use super::proc::{self, Mapping};
use super::reader::Reader;
use crate::address::{Addr, AddrRange};
use crate::image::recording::without;

/// Bytes of a piece: a unit of parallel work.
const PIECE: u64 = 2 << 20;

/// Memory that was not copied.
#[derive(Debug)]
pub(super) struct Uncopied {
    /// Private memory, sorted, neighbours joined.
    private: Vec<AddrRange>,
    /// What was left out, sorted: the process is asked for it.
    unneeded: Vec<AddrRange>,
    /// Parts of `private` that are in files, sorted.
    files: Vec<InFile>,
}

/// Memory of which some is to be copied.
#[derive(Copy, Clone, Debug)]
pub(super) struct Piece {
    range: AddrRange,
    /// Zeros where nobody touched it.
    anonymous: bool,
}

/// Where a byte is.
enum Source<'u> {
    File(&'u InFile),
    Process,
    Zeros,
}

/// A private mapping of a file.
#[derive(Debug)]
struct InFile {
    range: AddrRange,
    file: File,
    /// File offset of the first byte.
    offset: u64,
}

impl InFile {
    /// With what the process has written of it, sorted: that is not in the file. `None` if the file is not at hand, or the system does not
    /// tell.
    fn open(pid: u32, m: &Mapping, pages: Option<&Pages>) -> Option<(Self, Vec<AddrRange>)> {
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
        Some((Self { range: m.range, file, offset: m.offset }, pages?.own(m.range)?))
    }

    /// Fills `buf` from `addr` on. Behind the end of the file a page has zeros.
    fn read(&self, addr: u64, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let at = self.offset.saturating_add(addr - self.range.start.0 + done as u64);
            match self.file.read_at(&mut buf[done..], at) {
                Ok(n) if n > 0 => done += n,
                _ => break,
            }
        }
        buf[done..].fill(0);
    }
}

impl Uncopied {
    /// The process stands still.
    ///
    /// * `unneeded`: ranges that will not be read any more, or in which only what never changes will be, sorted.
    ///
    /// Returns what is to be copied before it goes on, too, sorted.
    pub(super) fn new(
        pid: u32,
        mappings: &[Mapping],
        pages: Option<&Pages>,
        unneeded: &[AddrRange],
    ) -> (Self, Vec<Piece>) {
        let mut all = Self { private: Vec::new(), unneeded: unneeded.to_vec(), files: Vec::new() };
        let mut pieces = Vec::new();
        for m in mappings.iter().filter(|m| m.is_readable() && !m.shared && !m.is_special()) {
            match all.private.last_mut() {
                Some(last) if last.end() == m.range.start => last.len += m.range.len,
                _ => all.private.push(m.range),
            }
            let own = match InFile::open(pid, m, pages) {
                Some((in_file, own)) => {
                    all.files.push(in_file);
                    own
                }
                None => vec![m.range],
            };
            for part in own {
                let mut at = part.start.0;
                while at < part.end().0 {
                    let end = (at - at % PIECE + PIECE).min(part.end().0);
                    let range = AddrRange::from_bounds(Addr(at), Addr(end));
                    pieces.push(Piece { range, anonymous: m.inode == 0 });
                    at = end;
                }
            }
        }
        (all, pieces)
    }

    /// The parts of a piece that must be copied, sorted.
    pub(super) fn to_copy(&self, piece: Piece, pages: Option<&Pages>) -> Vec<AddrRange> {
        let pages = pages.filter(|_| piece.anonymous);
        let touched = pages.and_then(|pages| pages.touched(piece.range)).unwrap_or_else(|| vec![piece.range]);
        let from = self.unneeded.partition_point(|hole| hole.end() <= piece.range.start);
        let len = self.unneeded[from..].partition_point(|hole| hole.start < piece.range.end());
        without(&touched, &self.unneeded[from..from + len])
    }

    /// Fills `buf` from `addr` on, where nothing had to be copied. False if the process is to be asked and does not have it.
    pub(super) fn read(&self, reader: &Reader, addr: u64, buf: &mut [u8]) -> bool {
        let (mut at, mut rest) = (addr, buf);
        while !rest.is_empty() {
            let (source, end) = self.source(at);
            let len = rest.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let (now, after) = rest.split_at_mut(len);
            match source {
                Source::File(file) => file.read(at, now),
                Source::Process if !reader.exact(at, now) => return false,
                Source::Process => {}
                // Fresh memory has them already, and costs nothing as long as it is not written.
                Source::Zeros if now.iter().any(|b| *b != 0) => now.fill(0),
                Source::Zeros => {}
            }
            rest = after;
            at += len as u64;
        }
        true
    }

    /// Where the byte at `at` is, and up to where that holds.
    fn source(&self, at: u64) -> (Source<'_>, u64) {
        let (private, end) = holder(&self.private, |range| *range, at);
        if private.is_none() {
            return (Source::Process, end);
        }
        let (file, file_end) = holder(&self.files, |file| file.range, at);
        let (unneeded, unneeded_end) = holder(&self.unneeded, |range| *range, at);
        match file {
            Some(file) => (Source::File(file), file_end),
            None if unneeded.is_some() => (Source::Process, unneeded_end),
            None => (Source::Zeros, end.min(file_end).min(unneeded_end)),
        }
    }
}

/// Which of some sorted things holds `at`, and where it ends; if none does, where the next begins.
fn holder<T>(sorted: &[T], range: impl Fn(&T) -> AddrRange, at: u64) -> (Option<&T>, u64) {
    let next = sorted.get(sorted.partition_point(|thing| range(thing).end().0 <= at));
    match next.map(|thing| (thing, range(thing))) {
        Some((thing, r)) if r.start.0 <= at => (Some(thing), r.end().0),
        Some((_, r)) => (None, r.start.0),
        None => (None, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A private mapping of a file: what was written is copied, the rest is the file's, also behind its end.
    #[test]
    fn pages_of_files_are_read_from_files() {
        let pid = std::process::id();
        let reader = Reader::new(pid);
        let exe = fs::read_link("/proc/self/exe").expect("ourselves");
        let exe = exe.to_str().expect("UTF-8");
        let maps = proc::mappings(pid).expect("maps");
        let pages = Pages::open(pid);
        let (uncopied, pieces) = Uncopied::new(pid, &maps, pages.as_ref(), &[]);
        let mut in_files = 0;
        for m in maps.iter().filter(|m| m.path == exe && m.is_readable() && !m.shared && !m.is_writable()) {
            let copied: Vec<AddrRange> = pieces
                .iter()
                .filter(|p| m.range.start <= p.range.start && p.range.end() <= m.range.end())
                .map(|p| p.range)
                .collect();
            for part in without(&[m.range], &copied) {
                in_files += part.len;
                let (mut found, mut expected) = (vec![0; part.len as usize], vec![0; part.len as usize]);
                assert!(uncopied.read(&reader, part.start.0, &mut found));
                assert!(reader.exact(part.start.0, &mut expected));
                assert!(found == expected, "{m:?}");
            }
        }
        assert!(in_files > 1 << 20, "code is read from the file: {in_files}");
    }

    #[test]
    fn each_byte_has_its_source() {
        let range = |start: u64, len: u64| AddrRange { start: Addr(start), len };
        let (private, unneeded) = (vec![range(100, 100), range(300, 50)], vec![range(120, 10), range(310, 10)]);
        let files = vec![InFile { range: range(150, 20), file: tempfile::tempfile().expect("a file"), offset: 0 }];
        let uncopied = Uncopied { private, unneeded, files };
        let expected = [
            (0, 'p', 100),
            (100, 'z', 120),
            (120, 'p', 130),
            (130, 'z', 150),
            (150, 'f', 170),
            (170, 'z', 200),
            (200, 'p', 300),
            (300, 'z', 310),
            (310, 'p', 320),
            (320, 'z', 350),
            (350, 'p', u64::MAX),
        ];
        let mut at = 0;
        for (start, what, end) in expected {
            assert_eq!(at, start);
            let found = uncopied.source(at);
            let kind = match found.0 {
                Source::File(_) => 'f',
                Source::Process => 'p',
                Source::Zeros => 'z',
            };
            assert_eq!((kind, found.1), (what, end), "{at}");
            at = end;
        }
        let piece = |anonymous| Piece { range: range(100, 100), anonymous };
        assert_eq!(uncopied.to_copy(piece(false), None), [range(100, 20), range(130, 70)]);
        let mut bytes = [7; 50];
        assert!(uncopied.read(&Reader::new(std::process::id()), 130, &mut bytes) && bytes == [0; 50], "an empty file");
    }
}
