//! The table of extents: for every address of the process, where its bytes are.
//!
//! A core does not hold all memory of the process, and what it leaves out means different things:
//!
//! * File-backed pages that were never written (`p_filesz < p_memsz` of a kernel core; no PT_LOAD at all in a gdb core): their bytes
//!   are in the file. They are taken from EXE and from libraries with Go code. Other files are not read: *missing*.
//! * Anonymous writable memory that was never written: the kernel leaves it out (`vma_dump_size`: no `anon_vma`), the process
//!   would have read zeros. This is only certain if the dump filter includes private anonymous memory, so it is believed only
//!   if the core holds any such memory; otherwise *missing* and in the totals.
//! * Memory without any access (address space that Go only reserved): never dumped by the kernel, unreadable for the process too:
//!   *not mapped*.
//! * Bytes that a segment declares but that lie beyond the end of the core file: the file was cut off. Read-only
//!   segments of these files replace them, everything else is *missing* and in the totals.

use super::FileMapping;
use super::elf::Segment;
use crate::address::{Addr, AddrRange};
use crate::incident::Incidents;

/// Where bytes come from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Core file.
    Core,
    /// A file that was mapped: 0 is EXE, the others follow in the order of [`Sources::backing`].
    File(u16),
    /// Never written: zeros.
    Zero,
    /// The process had them, nobody else has.
    Missing,
}

/// A range of addresses with one source. `start + len` never wraps.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Offset in the core or mapped file, 0 for other sources.
    pub(crate) offset: u64,
    pub(crate) source: Source,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The finished table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents {
    /// Sorted by address, not overlapping, neighbours merged where their bytes are neighbours too.
    pub(crate) list: Vec<Extent>,
    /// What counts as missing, sorted and merged.
    pub(crate) missing: Vec<AddrRange>,
    /// The process had writable anonymous memory, the core holds none of it: excluded by the dump filter.
    pub(crate) filtered: bool,
}

/// A range of addresses that a mapped file describes.
#[derive(Copy, Clone, Debug)]
struct Backing {
    file: u16,
    start: u64,
    end: u64,
    /// File offset; `None` for the tail that the loader fills with zeros (bss).
    offset: Option<u64>,
    writable: bool,
}

/// What the core says about a range whose bytes it does not hold.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Absent {
    /// Declared, but cut off by the end of the file.
    CutOff,
    /// Left out on purpose: writable anonymous memory.
    Writable,
    /// Left out on purpose: mapped from some file, or not writable.
    Other,
    /// No access.
    Reserved,
    /// No segment covers it.
    Gap,
}

/// A file that was mapped into the process.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BackingFile<'a> {
    /// Its program headers.
    pub(crate) segments: &'a [Segment],
    /// Its length in bytes.
    pub(crate) len: u64,
    /// Where it was loaded, relative to its link-time addresses.
    pub(crate) load_bias: u64,
}

/// What the table is made from.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Sources<'a> {
    /// Program headers of the core.
    pub(crate) core_segments: &'a [Segment],
    /// Length of the core file.
    pub(crate) core_len: u64,
    /// EXE, then the other files that are at hand.
    pub(crate) backing: &'a [BackingFile<'a>],
    /// NT_FILE, sorted by address.
    pub(crate) files: &'a [FileMapping],
}

/// Builds the table. O(n log n) in the number of segments.
pub(crate) fn build(sources: Sources<'_>, incidents: &mut Incidents) -> Extents {
    let mut segments: Vec<Segment> = sources.core_segments.iter().filter(|s| s.is_load()).copied().collect();
    segments.sort_by_key(|s| (s.p_vaddr, s.p_offset));
    let file_at = |addr: u64| {
        let after = sources.files.partition_point(|f| f.range.start.0 <= addr);
        after > 0 && sources.files[after - 1].range.contains(Addr(addr))
    };
    let is_anonymous = |s: &&Segment| s.is_writable() && !file_at(s.p_vaddr);
    let has_anonymous = segments.iter().filter(is_anonymous).any(|s| s.p_filesz > 0);
    let filtered = !has_anonymous && segments.iter().any(|s| is_anonymous(&s));
    let out = Extents { filtered, ..Extents::default() };
    let mut builder = Builder { backings: backings(&sources), has_anonymous, never_written: 0, out };
    let mut cursor = 0;
    for s in &segments {
        if s.p_filesz > s.p_memsz {
            incidents.count("core.bad_segment");
        }
        // The last byte of the address space is given up so that ends never wrap.
        let end = s.p_vaddr.saturating_add(s.p_memsz);
        if s.p_vaddr < cursor || end - s.p_vaddr != s.p_memsz {
            incidents.count("core.bad_segment");
        }
        let start = s.p_vaddr.max(cursor);
        if start >= end {
            continue;
        }
        builder.absent(cursor, start, Absent::Gap);
        let declared = s.p_vaddr.saturating_add(s.p_filesz).min(end);
        let in_file = sources.core_len.saturating_sub(s.p_offset);
        let held = s.p_vaddr.saturating_add(in_file).min(declared);
        if start < held {
            let offset = s.p_offset + (start - s.p_vaddr);
            builder.push(Extent { start, len: held - start, offset, source: Source::Core });
        }
        if held < declared {
            incidents.count("core.cut_off_segment");
        }
        builder.absent(start.max(held), declared, Absent::CutOff);
        let why = if s.is_reserved() {
            Absent::Reserved
        } else if s.is_writable() && !file_at(s.p_vaddr) {
            Absent::Writable
        } else {
            Absent::Other
        };
        builder.absent(start.max(declared), end, why);
        cursor = end;
    }
    builder.absent(cursor, u64::MAX, Absent::Gap);
    incidents.add("core.memory_taken_as_never_written", builder.never_written);
    builder.out
}

/// The loaded ranges of mapped files at their addresses in the process, sorted, not overlapping.
fn backings<'a>(sources: &Sources<'a>) -> Vec<Backing> {
    let mut all = Vec::new();
    let loaded = |f: &BackingFile<'a>| f.segments.iter().filter(|s| s.is_load());
    let files = (0u16..).zip(sources.backing);
    for (file, of, s) in files.flat_map(|(i, f)| loaded(f).map(move |s| (i, f, s))) {
        let writable = s.is_writable();
        let start = s.p_vaddr.wrapping_add(of.load_bias);
        let in_file = s.p_filesz.min(s.p_memsz).min(of.len.saturating_sub(s.p_offset));
        let file_end = start.saturating_add(in_file);
        let zero_start = start.saturating_add(s.p_filesz);
        let end = start.saturating_add(s.p_memsz);
        all.push(Backing { file, start, end: file_end, offset: Some(s.p_offset), writable });
        all.push(Backing { file, start: zero_start, end, offset: None, writable });
    }
    all.retain(|b| b.start < b.end);
    all.sort_by_key(|b| (b.start, b.end));
    let mut cursor = 0;
    for b in &mut all {
        let skip = cursor.max(b.start) - b.start;
        b.start += skip;
        b.offset = b.offset.map(|o| o.saturating_add(skip));
        cursor = cursor.max(b.end);
    }
    all.retain(|b| b.start < b.end);
    all
}

struct Builder {
    backings: Vec<Backing>,
    /// Whether the core holds private anonymous memory at all: its dump filter did not exclude it.
    has_anonymous: bool,
    /// Ranges of anonymous memory that are believed to be zeros.
    never_written: u64,
    out: Extents,
}

impl Builder {
    /// Adds `start..end`, which the core does not hold, split where segments of mapped files begin and end.
    fn absent(&mut self, start: u64, end: u64, why: Absent) {
        let mut at = start;
        let mut next = self.backings.partition_point(|b| b.end <= start);
        while at < end {
            let Some(b) = self.backings.get(next).copied().filter(|b| b.start < end) else {
                self.absent_piece(at, end, why, None);
                return;
            };
            if at < b.start {
                self.absent_piece(at, b.start, why, None);
                at = b.start;
            }
            let piece_end = b.end.min(end);
            self.absent_piece(at, piece_end, why, Some(b));
            at = piece_end;
            next += 1;
        }
    }

    fn absent_piece(&mut self, start: u64, end: u64, why: Absent, backing: Option<Backing>) {
        if start >= end {
            return;
        }
        let len = end - start;
        let never_written = why != Absent::CutOff && self.has_anonymous;
        let (source, counts) = match (backing, why) {
            (_, Absent::Reserved) => return,
            (Some(b), _) if !b.writable || never_written => match b.offset {
                Some(_) => (Source::File(b.file), false),
                None => (Source::Zero, false),
            },
            (Some(_), _) => (Source::Missing, true),
            (None, Absent::Gap) => return,
            (None, Absent::Writable) if never_written => {
                self.never_written += 1;
                (Source::Zero, false)
            }
            (None, Absent::CutOff | Absent::Writable) => (Source::Missing, true),
            (None, Absent::Other) => (Source::Missing, false),
        };
        let offset = match (source, backing) {
            (Source::File(_), Some(Backing { start: from, offset: Some(offset), .. })) => {
                offset.saturating_add(start - from)
            }
            _ => 0,
        };
        self.push(Extent { start, len, offset, source });
        if counts {
            match self.out.missing.last_mut() {
                Some(last) if last.end().0 == start => last.len += len,
                _ => self.out.missing.push(AddrRange { start: Addr(start), len }),
            }
        }
    }

    fn push(&mut self, new: Extent) {
        if let Some(last) = self.out.list.last_mut()
            && last.source == new.source
            && last.end() == new.start
            && (matches!(new.source, Source::Zero | Source::Missing) || last.offset + last.len == new.offset)
        {
            last.len += new.len;
        } else {
            self.out.list.push(new);
        }
    }
}
