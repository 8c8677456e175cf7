//! Note records: the threads (NT_PRSTATUS), file mappings (NT_FILE) and auxiliary vector (NT_AUXV) of a core, and build ids.

use object::elf;

use super::elf::{bytes_at, u16_at, u32_at, u64_at};
use super::{FileMapping, Thread};
use crate::address::{Addr, AddrRange};
use crate::architecture::Architecture;
use crate::incident::Incidents;

/// One note record.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Note<'a> {
    /// Without trailing zeros.
    pub(crate) name: &'a [u8],
    pub(crate) n_type: u32,
    pub(crate) desc: &'a [u8],
}

/// The records of a note segment or section; ends at the first record that does not fit.
#[derive(Clone, Debug)]
pub(crate) struct Notes<'a> {
    data: &'a [u8],
    align: usize,
    /// Set if the iteration ended at a damaged record.
    damaged: bool,
}

impl<'a> Notes<'a> {
    /// * `align`: `p_align` or `sh_addralign`; only 8 means 8, everything else is 4, as binutils does.
    pub(crate) fn new(data: &'a [u8], align: u64) -> Self {
        Self { data, align: if align == 8 { 8 } else { 4 }, damaged: false }
    }

    fn parse(&self) -> Option<(Note<'a>, usize)> {
        let name_size = u32_at(self.data, 0)? as usize;
        let desc_size = u32_at(self.data, 4)? as usize;
        let n_type = u32_at(self.data, 8)?;
        let mut name = self.data.get(12..12usize.checked_add(name_size)?)?;
        while let [rest @ .., 0] = name {
            name = rest;
        }
        let desc_start = (12 + name_size).next_multiple_of(self.align);
        let desc_end = desc_start.checked_add(desc_size)?;
        let desc = self.data.get(desc_start..desc_end)?;
        Some((Note { name, n_type, desc }, desc_end.next_multiple_of(self.align)))
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        if self.data.is_empty() {
            return None;
        }
        let Some((note, len)) = self.parse() else {
            // Zero padding at the end of a segment is ordinary.
            self.damaged = self.data.iter().any(|b| *b != 0);
            self.data = &[];
            return None;
        };
        self.data = self.data.get(len..).unwrap_or(&[]);
        Some(note)
    }
}

/// Name of the records of a core that are read.
pub(super) const CORE_NAME: &[u8] = b"CORE";

/// What the notes of a core say.
#[derive(Clone, Debug)]
pub(crate) struct CoreNotes {
    /// The machine that the registers belong to.
    architecture: &'static Architecture,
    /// In file order: the kernel writes the thread that died first.
    pub(crate) threads: Vec<Thread>,
    /// Sorted by address.
    pub(crate) files: Vec<FileMapping>,
    /// Without the terminating AT_NULL.
    pub(crate) auxv: Vec<(u64, u64)>,
}

impl CoreNotes {
    /// Of a core of this machine, nothing read yet.
    pub(crate) fn new(architecture: &'static Architecture) -> Self {
        Self { architecture, threads: Vec::new(), files: Vec::new(), auxv: Vec::new() }
    }

    /// Adds the records of one PT_NOTE segment.
    pub(crate) fn read(&mut self, mut notes: Notes<'_>, incidents: &mut Incidents) {
        for note in &mut notes {
            if note.name != CORE_NAME {
                continue;
            }
            let known = match note.n_type {
                t if t == elf::NT_PRSTATUS.0 => self.read_thread(note.desc),
                t if t == elf::NT_AUXV.0 => self.read_auxv(note.desc),
                t if t == elf::NT_FILE.0 => self.read_files(note.desc),
                _ => continue,
            };
            if known.is_none() {
                incidents.count("core.bad_note");
            }
        }
        if notes.damaged {
            incidents.count("core.bad_note");
        }
        self.files.sort_by_key(|f| f.range.start);
    }

    /// The value of an auxiliary vector entry.
    pub(crate) fn aux(&self, a_type: u64) -> Option<u64> {
        self.auxv.iter().find(|(t, _)| *t == a_type).map(|(_, value)| *value)
    }

    fn read_thread(&mut self, desc: &[u8]) -> Option<()> {
        self.threads.push(parse_prstatus(desc, self.architecture)?);
        Some(())
    }

    fn read_auxv(&mut self, desc: &[u8]) -> Option<()> {
        let entries = desc.chunks_exact(16).filter_map(|e| Some((u64_at(e, 0)?, u64_at(e, 8)?)));
        self.auxv.extend(entries.take_while(|(a_type, _)| *a_type != 0));
        Some(())
    }

    /// NT_FILE: count, page size, (start, end, file offset in pages) each, then the zero-terminated names.
    fn read_files(&mut self, desc: &[u8]) -> Option<()> {
        let count = u64_at(desc, 0)?;
        let page_size = u64_at(desc, 8)?;
        let table = bytes_at(desc, 16, count.checked_mul(24)?)?;
        let mut names = &desc[16 + table.len()..];
        for entry in table.chunks_exact(24) {
            let len = names.iter().position(|b| *b == 0)?;
            let path = String::from_utf8_lossy(&names[..len]).into_owned();
            names = &names[len + 1..];
            let range = AddrRange::from_bounds(Addr(u64_at(entry, 0)?), Addr(u64_at(entry, 8)?));
            let offset = u64_at(entry, 16)?.checked_mul(page_size)?;
            self.files.push(FileMapping { range, offset, path });
        }
        Some(())
    }
}

/// Where `struct elf_prstatus` keeps what is used beside the registers; the same on all 64-bit machines.
pub(super) mod prstatus {
    pub(in crate::image) const CURSIG: usize = 12;
    pub(in crate::image) const PID: usize = 32;
    pub(in crate::image) const PPID: usize = 36;
}

fn parse_prstatus(desc: &[u8], architecture: &Architecture) -> Option<Thread> {
    let word = |offset: u64| u64_at(desc, usize::try_from(offset).ok()?);
    let (pc, dwarf_regs) = architecture.prstatus.read(word)?;
    Some(Thread {
        tid: u32_at(desc, prstatus::PID)?,
        pc,
        sp: architecture.stack_pointer(&dwarf_regs),
        dwarf_regs,
        signal: u16_at(desc, prstatus::CURSIG)?,
    })
}

/// The two build ids that a Go executable may carry.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BuildIds<'a> {
    pub(crate) gnu: Option<&'a [u8]>,
    pub(crate) go: Option<&'a [u8]>,
}

/// Type of the note named `Go` that holds the Go build id (`cmd/link`, `ELF_NOTE_GOBUILDID_TAG`).
const NT_GO_BUILD_ID: u32 = 4;

impl<'a> BuildIds<'a> {
    /// Takes over ids found in `notes`; the first of each kind counts.
    pub(crate) fn read(&mut self, notes: Notes<'a>) {
        for note in notes {
            let slot = match (note.name, note.n_type) {
                (b"GNU", t) if t == elf::NT_GNU_BUILD_ID.0 => &mut self.gnu,
                (b"Go", NT_GO_BUILD_ID) => &mut self.go,
                _ => continue,
            };
            if slot.is_none() && !note.desc.is_empty() {
                *slot = Some(note.desc);
            }
        }
    }
}

/// Go build ids are text, GNU build ids bytes.
pub(crate) fn show_id(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => text.to_owned(),
        _ => id.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
