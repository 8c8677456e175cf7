//! A copy of a core whose headers the tests rewrite; the offsets are those of the ELF specification.

use super::sparse;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a program header.
const PHDR: u64 = 56;
/// Fields of a program header.
const OFFSET: usize = 8;
const VADDR: usize = 16;
const FILESZ: usize = 32;
const MEMSZ: usize = 40;

pub struct Rewritten {
    pub file: File,
    pub path: PathBuf,
    /// As they were at first.
    pub headers: Vec<[u8; PHDR as usize]>,
    _dir: tempfile::TempDir,
}

impl Rewritten {
    /// A copy of `core`.
    pub fn of(core: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core");
        sparse::copy(&mut File::open(core).unwrap(), &path).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut ehdr = [0; 64];
        file.read_exact_at(&mut ehdr, 0).unwrap();
        let (offset, count) = (word(&ehdr, 32), u16::from_le_bytes(ehdr[56..58].try_into().unwrap()));
        let headers = (0..u64::from(count)).map(|i| {
            let mut header = [0; PHDR as usize];
            file.read_exact_at(&mut header, offset + PHDR * i).unwrap();
            header
        });
        let headers = headers.collect();
        Self { file, path, headers, _dir: dir }
    }

    /// The file offset of the description of the note with this type, and its length.
    pub fn note(&self, n_type: u32) -> (u64, u64) {
        let notes = self.headers.iter().find(|h| h[0] == 4).expect("PT_NOTE");
        let (mut at, end) = (word(notes, OFFSET), word(notes, OFFSET) + word(notes, FILESZ));
        while at < end {
            let mut header = [0; 12];
            self.file.read_exact_at(&mut header, at).unwrap();
            let [name, desc, found] = [0, 4, 8].map(|i| u32::from_le_bytes(header[i..i + 4].try_into().unwrap()));
            let (desc_at, desc_len) = (at + 12 + u64::from(name.next_multiple_of(4)), u64::from(desc));
            if found == n_type {
                return (desc_at, desc_len);
            }
            at = desc_at + desc_len.next_multiple_of(4);
        }
        panic!("no note of type {n_type:#x}");
    }

    /// Cuts every segment of memory where `pieces` says.
    ///
    /// * `pieces`: the parts of a segment by its addresses, in order; `false` for one whose bytes the file shall not have.
    pub fn cut(&self, pieces: impl Fn(Range<u64>) -> Vec<(Range<u64>, bool)>) {
        let end = self.file.metadata().unwrap().len();
        let mut table = Vec::new();
        for header in &self.headers {
            if header[0] != 1 {
                table.extend(header);
                continue;
            }
            let [offset, vaddr, filesz, memsz] = [OFFSET, VADDR, FILESZ, MEMSZ].map(|at| word(header, at));
            for (piece, held) in pieces(vaddr..vaddr + memsz) {
                let from = piece.start - vaddr;
                let in_file = filesz.saturating_sub(from).min(piece.end - piece.start);
                // Beyond the end of the file: that is what a core looks like that was cut off.
                let offset = if held { offset + from } else { end.next_multiple_of(4096) + (1 << 40) };
                let mut header = *header;
                for (at, value) in
                    [(OFFSET, offset), (VADDR, piece.start), (FILESZ, in_file), (MEMSZ, piece.end - piece.start)]
                {
                    header[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                table.extend(header);
            }
        }
        self.set_table(&table);
    }

    /// Takes the bytes of some pages away.
    ///
    /// * `lost`: ranges of addresses, in order; each lies in one segment.
    pub fn lose(&self, lost: &[Range<u64>]) {
        self.cut(|segment| {
            let mut pieces = Vec::new();
            let mut at = segment.start;
            for gap in lost.iter().filter(|gap| gap.start >= segment.start && gap.end <= segment.end) {
                pieces.extend([(at..gap.start, true), (gap.clone(), false)]);
                at = gap.end;
            }
            pieces.push((at..segment.end, true));
            pieces.retain(|(piece, _)| !piece.is_empty());
            pieces
        });
    }

    /// Puts another table of program headers behind everything; if it is too long for the file header, it is counted in section
    /// header 0.
    fn set_table(&self, table: &[u8]) {
        let count = table.len() as u64 / PHDR;
        let mut section_0 = [0; 64];
        section_0[44..48].copy_from_slice(&(count as u32).to_le_bytes());
        let end = self.file.metadata().unwrap().len();
        let sections = end + table.len() as u64;
        self.file.write_all_at(table, end).unwrap();
        self.file.write_all_at(&section_0, sections).unwrap();
        self.file.write_all_at(&end.to_le_bytes(), 32).unwrap();
        self.file.write_all_at(&sections.to_le_bytes(), 40).unwrap();
        // e_phnum, e_shentsize, e_shnum, e_shstrndx
        let phnum = count.min(0xffff) as u16;
        for (at, half) in [(56, phnum), (58, 64), (60, 1), (62, 0)] {
            self.file.write_all_at(&half.to_le_bytes(), at).unwrap();
        }
    }
}

/// The little-endian word at `at`.
pub fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
