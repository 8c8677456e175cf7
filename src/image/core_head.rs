//! The head of a core as bytes: file header, program headers and note records, laid out as [`super::elf`] and [`super::notes`] read
//! them. More than 65534 program headers are counted in section header 0, which comes before them here.

use object::elf;

use super::FileMapping;
use super::elf::{EHDR_SIZE, PHDR_SIZE, PN_XNUM, SHDR_SIZE, Segment};
use super::notes::{CORE_NAME, prstatus};
use crate::architecture::Architecture;

/// Kinds of segments.
pub(crate) const PT_LOAD: u32 = elf::PT_LOAD.0;
pub(crate) const PT_NOTE: u32 = elf::PT_NOTE.0;

/// Kinds of note records.
pub(crate) const NT_PRSTATUS: u32 = elf::NT_PRSTATUS.0;
pub(crate) const NT_FPREGSET: u32 = elf::NT_FPREGSET.0;
pub(crate) const NT_PRPSINFO: u32 = elf::NT_PRPSINFO.0;
pub(crate) const NT_AUXV: u32 = elf::NT_AUXV.0;
pub(crate) const NT_FILE: u32 = elf::NT_FILE.0;

/// Whether so many segments are too many for the file header.
fn is_extended(segments: usize) -> bool {
    segments >= usize::from(PN_XNUM)
}

/// Bytes of the headers of a core with so many segments.
pub(crate) fn headers_len(segments: usize) -> u64 {
    let section_0 = if is_extended(segments) { SHDR_SIZE } else { 0 };
    (EHDR_SIZE + section_0 + segments * PHDR_SIZE) as u64
}

/// Appends the headers of a core.
///
/// * `segments`: less than 2^32, the notes first: a reader finds their number by that if the rest is cut off.
pub(crate) fn append_headers(out: &mut Vec<u8>, architecture: &Architecture, segments: &[Segment]) {
    let many = is_extended(segments.len());
    let (shoff, shentsize, shnum) = if many { (EHDR_SIZE, SHDR_SIZE, 1) } else { (0, 0, 0) };
    let phoff = EHDR_SIZE + shentsize;
    let phnum = if many { PN_XNUM } else { segments.len() as u16 };
    out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend(elf::ET_CORE.0.to_le_bytes());
    out.extend(architecture.e_machine.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for word in [0, phoff as u64, shoff as u64] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [EHDR_SIZE as u16, PHDR_SIZE as u16, phnum, shentsize as u16, shnum, 0] {
        out.extend(half.to_le_bytes());
    }
    if many {
        let mut section_0 = [0u8; SHDR_SIZE];
        // sh_info
        section_0[44..48].copy_from_slice(&(segments.len() as u32).to_le_bytes());
        out.extend(section_0);
    }
    for s in segments {
        out.extend(s.p_type.to_le_bytes());
        out.extend(s.p_flags.to_le_bytes());
        out.extend(words([s.p_offset, s.p_vaddr, 0, s.p_filesz, s.p_memsz, s.p_align]));
    }
}

/// Appends a note record of a core to others.
pub(crate) fn append_note(out: &mut Vec<u8>, n_type: u32, desc: &[u8]) {
    for word in [CORE_NAME.len() as u32 + 1, desc.len() as u32, n_type] {
        out.extend(word.to_le_bytes());
    }
    // Each part is padded; the name ends with a zero.
    let pad = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(4), 0);
    out.extend(CORE_NAME);
    out.push(0);
    pad(out);
    out.extend(desc);
    pad(out);
}

/// NT_PRSTATUS of a thread. What is neither given nor known is 0.
///
/// * `registers`: all of `pr_reg`.
/// * `floating`: an NT_FPREGSET follows.
pub(crate) fn prstatus(architecture: &Architecture, tid: u32, ppid: u32, registers: &[u64], floating: bool) -> Vec<u8> {
    let mut desc = vec![0; architecture.prstatus.offset as usize];
    desc[prstatus::PID..][..4].copy_from_slice(&tid.to_le_bytes());
    desc[prstatus::PPID..][..4].copy_from_slice(&ppid.to_le_bytes());
    desc.extend(words(registers.iter().copied()));
    desc.extend(u64::from(floating).to_le_bytes());
    desc
}

/// NT_AUXV of entries without the terminating AT_NULL.
pub(crate) fn auxv(entries: &[(u64, u64)]) -> Vec<u8> {
    words(entries.iter().chain([&(0, 0)]).flat_map(|&(a_type, value)| [a_type, value]))
}

/// NT_FILE: count, page size, (start, end, offset in pages) each, then the names.
///
/// * `page_size`: of which all offsets are multiples.
pub(crate) fn files(files: &[FileMapping], page_size: u64) -> Vec<u8> {
    let entries = files.iter().flat_map(|f| [f.range.start.0, f.range.end().0, f.offset / page_size]);
    let mut desc = words([files.len() as u64, page_size].into_iter().chain(entries));
    for f in files {
        desc.extend(f.path.as_bytes());
        desc.push(0);
    }
    desc
}

/// Little-endian words.
pub(crate) fn words(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Addr, AddrRange};
    use crate::architecture::{AMD64, ARM64};
    use crate::image::elf::Header;
    use crate::image::notes::{CoreNotes, Notes};
    use crate::incident::Incidents;

    fn segment(i: u64) -> Segment {
        let p_type = if i == 0 { PT_NOTE } else { PT_LOAD };
        Segment { p_type, p_flags: 6, p_offset: i << 12, p_vaddr: i << 13, p_filesz: i, p_memsz: i + 1, p_align: 4096 }
    }

    /// What is written is read, with few and with many segments.
    #[test]
    fn headers_are_read_as_written() {
        for (count, len) in [(1, 120), (3, 232), (0xfffe, 64 + 56 * 0xfffe), (0xffff, 128 + 56 * 0xffff)] {
            let segments: Vec<Segment> = (0..count).map(segment).collect();
            let mut out = Vec::new();
            append_headers(&mut out, &AMD64, &segments);
            assert_eq!((out.len() as u64, headers_len(segments.len())), (len, len));
            let header = Header::parse(&out, "core").expect("a header");
            assert_eq!((header.e_type, header.architecture.name), (elf::ET_CORE.0, "amd64"));
            assert_eq!(header.segments(&out, "core").expect("segments"), segments);
        }
    }

    #[test]
    fn notes_are_read_as_written() {
        for (architecture, registers) in [(&AMD64, 27), (&ARM64, 34)] {
            let registers: Vec<u64> = (100..100 + registers).collect();
            let file = |start, path: &str| FileMapping {
                range: AddrRange { start: Addr(start), len: 0x3000 },
                offset: start / 2,
                path: path.to_owned(),
            };
            let mapped = [file(0x4000, "/bin/a b"), file(0x8000, "/x (deleted)")];
            let mut out = Vec::new();
            append_note(&mut out, NT_PRSTATUS, &prstatus(architecture, 17, 3, &registers, true));
            append_note(&mut out, NT_AUXV, &auxv(&[(3, 64), (9, 0x1000)]));
            append_note(&mut out, NT_FPREGSET, &[7; 5]);
            append_note(&mut out, NT_FILE, &files(&mapped, 4096));
            assert!(out.len().is_multiple_of(4));
            let mut incidents = Incidents::default();
            let mut notes = CoreNotes::new(architecture);
            notes.read(Notes::new(&out, 4), &mut incidents);
            assert!(incidents.is_empty());
            let thread = &notes.threads[0];
            let (pc, dwarf_regs) = architecture
                .prstatus
                .read(|offset| registers.get((offset - architecture.prstatus.offset) as usize / 8).copied())
                .expect("all registers");
            assert_eq!((notes.threads.len(), thread.tid, thread.pc, &thread.dwarf_regs), (1, 17, pc, &dwarf_regs));
            assert_eq!(notes.auxv, [(3, 64), (9, 0x1000)]);
            let read = notes.files.iter().map(|f| (f.range, f.offset, &*f.path));
            assert!(read.eq(mapped.iter().map(|f| (f.range, f.offset, &*f.path))));
        }
    }
}
