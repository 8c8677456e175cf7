//! Writes the frozen memory as an ELF core, which gdb, delve and this program open.
//!
//! Held are, but for what the caller leaves out: the private memory that may have been written, and of every other file mapping its first page if that is an ELF
//! header (build ids). What was never touched is known from `/proc/PID/pagemap` and not read; pages of zeros become holes of the file. The
//! layout is fixed before anything is written: headers, notes ([`crate::image::core_head`]), then the segments, each at a multiple of the
//! page size.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use super::guard::Registers;
use super::machine;
use super::pages::Pages;
use super::proc::{Mapping, Status};
use super::reader::Reader;
use crate::address::{Addr, AddrRange};
use crate::image::core_head::{self, NT_AUXV, NT_FILE, NT_FPREGSET, NT_PRPSINFO, NT_PRSTATUS, PT_LOAD, PT_NOTE};
use crate::image::elf;
use crate::image::recording::without;

const PAGE: u64 = 4096;
/// Bytes that are read at a time.
const CHUNK: u64 = 1 << 20;

/// Where a core is written to.
trait CoreSink: Write {
    /// Goes on `zeros` bytes later; what lies between reads as zeros.
    fn skip(&mut self, zeros: u64) -> io::Result<()>;
}

/// A sink of bytes that cannot have holes, such as a compressor.
#[derive(Debug)]
struct Dense<W>(W);

impl<W: Write> Write for Dense<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> CoreSink for Dense<W> {
    fn skip(&mut self, zeros: u64) -> io::Result<()> {
        io::copy(&mut io::Read::take(io::repeat(0), zeros), &mut self.0).map(drop)
    }
}

impl CoreSink for File {
    fn skip(&mut self, zeros: u64) -> io::Result<()> {
        let at = self.seek(SeekFrom::Current(zeros.cast_signed()))?;
        // A hole at the end is part of the file, too.
        self.set_len(at)
    }
}

/// Writes a core to `file`: with holes, or compressed with zstd.
///
/// # Errors
/// Whatever the file system reports.
pub(super) fn write_file(source: &Source<'_>, mut file: File, packed: bool) -> io::Result<()> {
    if !packed {
        return write(source, &mut file);
    }
    // The level of the fastest pass: most of a core is zeros and pointers.
    let mut out = Dense(zstd::Encoder::new(io::BufWriter::with_capacity(CHUNK as usize, file), 1)?);
    write(source, &mut out)?;
    out.0.finish()?.flush()
}

/// What a core holds.
pub(super) struct Source<'a> {
    /// Reads what stands still.
    pub(super) reader: Reader,
    /// The process that it is of.
    pub(super) pid: u32,
    pub(super) mappings: &'a [Mapping],
    pub(super) registers: &'a [Registers],
    pub(super) auxv: &'a [(u64, u64)],
    /// What is not held, sorted: as if it had never been touched.
    pub(super) left_out: &'a [AddrRange],
}

/// What is left out gets a segment of its own, without contents, from this length on; shorter parts become zeros.
const OWN_SEGMENT: u64 = 64 << 10;

/// One program header of memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Segment {
    range: AddrRange,
    flags: u32,
    offset: u64,
    /// Bytes that the file holds.
    held: u64,
    /// Memory that nobody touched is zeros.
    anonymous: bool,
}

impl Segment {
    fn header(&self) -> elf::Segment {
        elf::Segment {
            p_type: PT_LOAD,
            p_flags: self.flags,
            p_offset: self.offset,
            p_vaddr: self.range.start.0,
            p_filesz: self.held,
            p_memsz: self.range.len,
            p_align: PAGE,
        }
    }
}

fn write(source: &Source<'_>, out: &mut dyn CoreSink) -> io::Result<()> {
    let notes = notes(source);
    let pages = Pages::open(source.reader.pid());
    let mapped = source.mappings.iter().filter(|m| m.range.len > 0);
    let parts = mapped.flat_map(|m| {
        let whole = segment(source, m, pages.as_ref());
        cut(whole, &absent(whole, source.left_out, pages.as_ref()))
    });
    let mut segments: Vec<Segment> = parts.collect();
    let notes_at = core_head::headers_len(segments.len() + 1);
    let mut at = (notes_at + notes.len() as u64).next_multiple_of(PAGE);
    for s in &mut segments {
        s.offset = at;
        at += s.held;
    }
    let of_notes = elf::Segment {
        p_type: PT_NOTE,
        p_flags: 0,
        p_offset: notes_at,
        p_vaddr: 0,
        p_filesz: notes.len() as u64,
        p_memsz: 0,
        p_align: 4,
    };
    let headers: Vec<elf::Segment> = std::iter::once(of_notes).chain(segments.iter().map(Segment::header)).collect();
    let mut head = Vec::new();
    core_head::append_headers(&mut head, machine::ARCHITECTURE, &headers);
    head.extend(notes);
    head.resize(head.len().next_multiple_of(PAGE as usize), 0);
    out.write_all(&head)?;
    let mut buffer = vec![0; CHUNK as usize];
    let mut hole = 0;
    for s in &segments {
        let mut done = 0;
        while done < s.held {
            let n = CHUNK.min(s.held - done);
            let addr = s.range.start.0 + done;
            done += n;
            let range = AddrRange { start: Addr(addr), len: n };
            let touched = pages.as_ref().filter(|_| s.anonymous).and_then(|pages| pages.touched(range));
            if touched.is_some_and(|touched| touched.is_empty()) {
                hole += n;
                continue;
            }
            let bytes = &mut buffer[..n as usize];
            source.reader.what_can_be(addr, bytes);
            erase(bytes, addr, source.left_out);
            let mut rest: &[u8] = bytes;
            while !rest.is_empty() {
                let zeros = rest.chunks(PAGE as usize).take_while(|page| page.iter().all(|b| *b == 0)).count();
                let (skipped, after) = rest.split_at((zeros * PAGE as usize).min(rest.len()));
                hole += skipped.len() as u64;
                let data = after.chunks(PAGE as usize).take_while(|page| page.iter().any(|b| *b != 0)).count();
                let (written, after) = after.split_at((data * PAGE as usize).min(after.len()));
                if !written.is_empty() {
                    if hole > 0 {
                        out.skip(std::mem::take(&mut hole))?;
                    }
                    out.write_all(written)?;
                }
                rest = after;
            }
        }
    }
    if hole > 0 {
        out.skip(hole)?;
    }
    out.flush()
}

fn segment(source: &Source<'_>, m: &Mapping, pages: Option<&Pages>) -> Segment {
    // Relocated data is read-only by the time we look, and was written.
    let written = || pages.is_some_and(|pages| pages.own(m.range).is_none_or(|own| !own.is_empty()));
    let private = !m.shared && (m.is_writable() || m.inode == 0 || written());
    let held = if !m.is_readable() || m.is_special() {
        0
    } else if private || (m.shared && m.inode == 0) {
        m.range.len
    } else {
        let mut magic = [0; 4];
        let elf = source.reader.exact(m.range.start.0, &mut magic) && magic == *b"\x7fELF";
        if elf { PAGE.min(m.range.len) } else { 0 }
    };
    Segment { range: m.range, flags: m.flags, offset: 0, held, anonymous: m.inode == 0 && !m.shared }
}

/// What the file shall not hold of a segment: what is left out, and then also what was never touched, for a small file that has few
/// holes. Whoever leaves nothing out gets zeros there, which debuggers read.
fn absent(segment: Segment, left_out: &[AddrRange], pages: Option<&Pages>) -> Vec<AddrRange> {
    let from = left_out.partition_point(|r| r.end() <= segment.range.start);
    let inside = left_out[from..].iter().take_while(|r| r.start < segment.range.end());
    let mut absent: Vec<AddrRange> = inside.copied().collect();
    let touched = pages.filter(|_| segment.anonymous && !left_out.is_empty()).and_then(|p| p.touched(segment.range));
    if let Some(touched) = touched {
        absent.extend(without(&[segment.range], &touched));
        absent.sort_unstable_by_key(|range| range.start);
        absent.dedup_by(|next, last| {
            let joined = next.start <= last.end();
            if joined {
                last.len = last.end().max(next.end()).0 - last.start.0;
            }
            joined
        });
    }
    absent
}

/// Parts of a segment: what is left out has none of its bytes in the file.
fn cut(whole: Segment, left_out: &[AddrRange]) -> Vec<Segment> {
    if whole.held < whole.range.len {
        return vec![whole];
    }
    let part = |range: AddrRange, held: u64| Segment { range, held, ..whole };
    let mut parts = Vec::new();
    let mut at = whole.range.start;
    let from = left_out.partition_point(|r| r.end() <= whole.range.start);
    for out in left_out[from..].iter().take_while(|out| out.start < whole.range.end()) {
        let (start, end) =
            (out.start.max(whole.range.start).0.next_multiple_of(PAGE), out.end().min(whole.range.end()).0);
        let out = AddrRange::from_bounds(Addr(start), Addr(end - end % PAGE));
        if out.len >= OWN_SEGMENT {
            let kept = AddrRange::from_bounds(at, out.start);
            parts.push(part(kept, kept.len));
            parts.push(part(out, 0));
            at = out.end();
        }
    }
    let kept = AddrRange::from_bounds(at, whole.range.end());
    parts.push(part(kept, kept.len));
    parts.retain(|part| part.range.len > 0);
    parts
}

/// Zeros for what is left out of the bytes from `addr` on.
fn erase(bytes: &mut [u8], addr: u64, left_out: &[AddrRange]) {
    let end = addr + bytes.len() as u64;
    let from = left_out.partition_point(|r| r.end().0 <= addr);
    for out in left_out[from..].iter().take_while(|out| out.start.0 < end) {
        let (start, end) = (out.start.0.max(addr) - addr, out.end().0.min(end) - addr);
        bytes[start as usize..end as usize].fill(0);
    }
}

fn notes(source: &Source<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let status = Status::read(source.pid, None).unwrap_or_default();
    // The first thread is the one that debuggers show first.
    let mut threads: Vec<&Registers> = source.registers.iter().collect();
    let leader = status.inner_id().unwrap_or(source.pid);
    threads.sort_by_key(|t| (t.tid != leader, t.tid));
    let ppid = status.number("PPid").unwrap_or(0) as u32;
    for (i, thread) in threads.iter().enumerate() {
        let floating = !thread.floating.is_empty();
        let prstatus = core_head::prstatus(machine::ARCHITECTURE, thread.tid, ppid, &thread.general, floating);
        core_head::append_note(&mut out, NT_PRSTATUS, &prstatus);
        if i == 0 {
            let files: Vec<_> = source.mappings.iter().filter_map(Mapping::file).collect();
            core_head::append_note(&mut out, NT_PRPSINFO, &prpsinfo(source.pid, leader, &status));
            core_head::append_note(&mut out, NT_AUXV, &core_head::auxv(source.auxv));
            core_head::append_note(&mut out, NT_FILE, &core_head::files(&files, PAGE));
        }
        if floating {
            core_head::append_note(&mut out, NT_FPREGSET, &core_head::words(thread.floating.iter().copied()));
        }
    }
    out
}

/// `struct elf_prpsinfo`.
fn prpsinfo(pid: u32, inner: u32, status: &Status) -> Vec<u8> {
    let mut out = vec![0; 136];
    out[1] = status.state() as u8;
    let ids = [status.number("Uid"), status.number("Gid"), Some(inner.into()), status.number("PPid")];
    for (i, id) in ids.into_iter().enumerate() {
        out[16 + 4 * i..20 + 4 * i].copy_from_slice(&(id.unwrap_or(0) as u32).to_le_bytes());
    }
    let mut text = |at: usize, room: usize, bytes: &[u8]| {
        let len = bytes.len().min(room - 1);
        out[at..at + len].copy_from_slice(&bytes[..len]);
    };
    text(40, 16, status.text("Name").as_bytes());
    let mut arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b' ');
    text(56, 80, arguments.trim_ascii_end());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_parts_are_cut_out_and_short_ones_erased() {
        let range = |start: u64, end: u64| AddrRange::from_bounds(Addr(start), Addr(end));
        let whole = |held| Segment { range: range(0x10_0000, 0x20_0000), flags: 6, offset: 0, held, anonymous: true };
        let left_out = [
            range(0, 0x1000),
            range(0xf_0000, 0x11_0000),
            range(0x12_0000, 0x12_1000),
            range(0x14_0001, 0x16_0fff),
            range(0x1f_0000, 0x30_0000),
        ];
        let parts = |held| {
            cut(whole(held), &left_out).iter().map(|s| (s.range.start.0, s.range.end().0, s.held)).collect::<Vec<_>>()
        };
        let expected = [
            (0x10_0000, 0x11_0000, 0),
            (0x11_0000, 0x14_1000, 0x3_1000),
            (0x14_1000, 0x16_0000, 0),
            (0x16_0000, 0x1f_0000, 0x9_0000),
            (0x1f_0000, 0x20_0000, 0),
        ];
        assert_eq!(parts(0x10_0000), expected);
        // One that holds less is no memory of the process's own.
        assert_eq!(parts(0x1000), [(0x10_0000, 0x20_0000, 0x1000)]);
        let mut bytes = [1; 16];
        erase(&mut bytes, 100, &[range(0, 100), range(90, 102), range(105, 106), range(114, 200), range(300, 400)]);
        assert_eq!(bytes, [0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
    }
}
