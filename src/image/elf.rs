//! ELF headers, field by field: what EXE and CORE have in common.
//!
//! Fields are picked from bytes at any alignment, because the notes and compressed sections of Go executables and the segments of
//! gdb cores start at odd offsets. Constants come from `object`.

use object::elf;

use crate::architecture::Architecture;
use crate::error::{Error, Result};

/// The little-endian u16 at `at`, if it lies inside `data`; likewise the other widths.
pub(crate) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

/// `len` bytes from file offset `offset`, if all of them exist.
pub(crate) fn bytes_at(data: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    data.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

/// The smallest page size: load addresses are multiples of it, also where the kernel has larger pages.
pub(crate) const PAGE_SIZE: u64 = 4096;

pub(super) const EHDR_SIZE: usize = 64;
pub(crate) const PHDR_SIZE: usize = 56;
pub(super) const SHDR_SIZE: usize = 64;

/// `e_phnum` when the real number of program headers is in `sh_info` of section 0.
pub(super) const PN_XNUM: u16 = 0xffff;

/// The fields of the ELF file header that are used here.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) architecture: &'static Architecture,
    pub(crate) e_type: u16,
    pub(crate) e_entry: u64,
    pub(crate) e_phoff: u64,
    e_shoff: u64,
    e_phentsize: u16,
    e_phnum: u16,
    e_shentsize: u16,
    e_shnum: u16,
    e_shstrndx: u16,
}

/// One program header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) p_type: u32,
    pub(crate) p_flags: u32,
    pub(crate) p_offset: u64,
    pub(crate) p_vaddr: u64,
    pub(crate) p_filesz: u64,
    pub(crate) p_memsz: u64,
    pub(crate) p_align: u64,
}

impl Segment {
    pub(crate) fn is_load(&self) -> bool {
        self.p_type == elf::PT_LOAD.0
    }

    pub(crate) fn is_note(&self) -> bool {
        self.p_type == elf::PT_NOTE.0
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.p_flags & elf::PF_W.0 != 0
    }

    /// Loaded machine code.
    pub(crate) fn is_text(&self) -> bool {
        self.is_load() && self.p_flags & elf::PF_X.0 != 0
    }

    /// No access at all: address space that the process only reserved.
    pub(crate) fn is_reserved(&self) -> bool {
        self.p_flags & (elf::PF_R.0 | elf::PF_W.0 | elf::PF_X.0) == 0
    }

    /// Parses the header at the start of `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            p_type: u32_at(bytes, 0)?,
            p_flags: u32_at(bytes, 4)?,
            p_offset: u64_at(bytes, 8)?,
            p_vaddr: u64_at(bytes, 16)?,
            // 24: p_paddr
            p_filesz: u64_at(bytes, 32)?,
            p_memsz: u64_at(bytes, 40)?,
            p_align: u64_at(bytes, 48)?,
        })
    }
}

/// One section header; `sh_name` is an offset into the section names.
#[derive(Copy, Clone, Debug)]
pub(crate) struct SectionHeader {
    pub(crate) sh_name: u32,
    pub(crate) sh_type: u32,
    pub(crate) sh_flags: u64,
    pub(crate) sh_addr: u64,
    pub(crate) sh_offset: u64,
    pub(crate) sh_size: u64,
    pub(crate) sh_link: u32,
    pub(crate) sh_info: u32,
}

impl SectionHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            sh_name: u32_at(bytes, 0)?,
            sh_type: u32_at(bytes, 4)?,
            sh_flags: u64_at(bytes, 8)?,
            sh_addr: u64_at(bytes, 16)?,
            sh_offset: u64_at(bytes, 24)?,
            sh_size: u64_at(bytes, 32)?,
            sh_link: u32_at(bytes, 40)?,
            sh_info: u32_at(bytes, 44)?,
        })
    }
}

impl Header {
    /// Parses the file header and rejects everything but a 64-bit little-endian file of a supported machine.
    ///
    /// * `what`: names the file in messages, such as `core dump core.17`.
    pub(crate) fn parse(data: &[u8], what: &str) -> Result<Self> {
        if data.is_empty() {
            return Err(Error::new(format!("{what}: the file is empty")).remedy(super::map::EMPTY));
        }
        if !data.starts_with(&elf::ELFMAG) {
            return Err(not_elf(data, what));
        }
        let short = || {
            Error::new(format!("{what}: cut off in the ELF header: expected {EHDR_SIZE} bytes, found {}", data.len()))
        };
        let header = data.get(..EHDR_SIZE).ok_or_else(short)?;
        let (class, encoding) = (header[4], header[5]);
        let big_endian = encoding == elf::ELFDATA2MSB.0;
        let machine =
            if big_endian { u16::from_be_bytes([header[18], header[19]]) } else { u16_at(header, 18).unwrap_or(0) };
        let found = machine_name(machine);
        if class != elf::ELFCLASS64.0 {
            return Err(unsupported(what, &format!("a 32-bit ELF file ({found})")));
        }
        if big_endian {
            return Err(unsupported(what, &format!("a big-endian ELF file ({found})")));
        }
        let architecture = Architecture::of_machine(machine).ok_or_else(|| unsupported(what, &found))?;
        let parse = || {
            Some(Self {
                architecture,
                e_type: u16_at(header, 16)?,
                e_entry: u64_at(header, 24)?,
                e_phoff: u64_at(header, 32)?,
                e_shoff: u64_at(header, 40)?,
                e_phentsize: u16_at(header, 54)?,
                e_phnum: u16_at(header, 56)?,
                e_shentsize: u16_at(header, 58)?,
                e_shnum: u16_at(header, 60)?,
                e_shstrndx: u16_at(header, 62)?,
            })
        };
        parse().ok_or_else(short)
    }

    /// The type in words, for messages.
    pub(crate) fn type_name(&self) -> String {
        match self.e_type {
            t if t == elf::ET_CORE.0 => "a core dump".into(),
            t if t == elf::ET_EXEC.0 => "an executable".into(),
            t if t == elf::ET_DYN.0 => "a position-independent executable or shared library".into(),
            t if t == elf::ET_REL.0 => "an object file".into(),
            t => format!("an ELF file of type {t}"),
        }
    }

    /// All program headers, also more than 65534 (`PN_XNUM`).
    pub(crate) fn segments(&self, data: &[u8], what: &str) -> Result<Vec<Segment>> {
        let count = match self.e_phnum {
            PN_XNUM => self.extended_phnum(data, what)?,
            n => n.into(),
        };
        if count == 0 {
            return Ok(Vec::new());
        }
        if usize::from(self.e_phentsize) != PHDR_SIZE {
            let found = self.e_phentsize;
            return Err(Error::new(format!("{what}: size of a program header: expected {PHDR_SIZE}, found {found}")));
        }
        // The table must lie in the file before anything is sized by its count.
        let table = bytes_at(data, self.e_phoff, count.saturating_mul(PHDR_SIZE as u64)).ok_or_else(|| {
            Error::new(format!(
                "{what}: {count} program headers at file offset {:#x} reach beyond the end of the file at {:#x}",
                self.e_phoff,
                data.len()
            ))
            .remedy("the file is probably cut off; copy or dump it again")
        })?;
        Ok(table.chunks_exact(PHDR_SIZE).filter_map(Segment::parse).collect())
    }

    /// The number of program headers that `e_phnum` cannot hold.
    ///
    /// The kernel writes section header 0, which has it, at the very end of a core, so it is the first thing that a size limit
    /// takes away. But the notes are the first segment then, and their contents begin where the program headers end.
    fn extended_phnum(&self, data: &[u8], what: &str) -> Result<u64> {
        let section_0 = bytes_at(data, self.e_shoff, SHDR_SIZE as u64).filter(|_| self.e_shoff != 0);
        if let Some(section_0) = section_0.and_then(SectionHeader::parse) {
            return Ok(section_0.sh_info.into());
        }
        let first = bytes_at(data, self.e_phoff, PHDR_SIZE as u64).and_then(Segment::parse).filter(Segment::is_note);
        let table = first.and_then(|notes| notes.p_offset.checked_sub(self.e_phoff));
        let count = table.filter(|len| len % PHDR_SIZE as u64 == 0).map(|len| len / PHDR_SIZE as u64);
        count.filter(|n| *n >= PN_XNUM.into()).ok_or_else(|| {
            Error::new(format!(
                "{what}: the number of program headers is kept in section header 0 at file offset {:#x}, but the file ends at {:#x}",
                self.e_shoff,
                data.len()
            ))
            .remedy("the file is probably cut off; copy or dump it again")
        })
    }

    /// All section headers and the section names; empty if the file has none or they are cut off.
    pub(crate) fn sections<'a>(&self, data: &'a [u8]) -> (Vec<SectionHeader>, &'a [u8]) {
        let none = (Vec::new(), &[][..]);
        if self.e_shoff == 0 || usize::from(self.e_shentsize) != SHDR_SIZE {
            return none;
        }
        let Some(section_0) = bytes_at(data, self.e_shoff, SHDR_SIZE as u64).and_then(SectionHeader::parse) else {
            return none;
        };
        // Numbers that do not fit the header live in section 0, as for program headers.
        let count = if self.e_shnum == 0 { section_0.sh_size } else { self.e_shnum.into() };
        let names = if self.e_shstrndx == 0xffff { section_0.sh_link } else { self.e_shstrndx.into() };
        let table = count.checked_mul(SHDR_SIZE as u64).and_then(|len| bytes_at(data, self.e_shoff, len));
        let Some(table) = table else {
            return none;
        };
        let headers: Vec<SectionHeader> = table.chunks_exact(SHDR_SIZE).filter_map(SectionHeader::parse).collect();
        let names = headers.get(names as usize).and_then(|s| bytes_at(data, s.sh_offset, s.sh_size));
        (headers, names.unwrap_or(&[]))
    }
}

/// The zero-terminated string at `offset` of a string table.
pub(crate) fn string_at(table: &[u8], offset: u32) -> Option<&[u8]> {
    let tail = table.get(offset as usize..)?;
    Some(&tail[..tail.iter().position(|b| *b == 0)?])
}

fn unsupported(what: &str, found: &str) -> Error {
    Error::new(format!(
        "{what}: unsupported machine: expected linux/amd64 (64-bit x86-64) or linux/arm64 (AArch64), found {found}"
    ))
    .remedy("only programs built with GOOS=linux and GOARCH=amd64 or arm64 can be analyzed")
}

fn machine_name(machine: u16) -> String {
    let name = match machine {
        m if m == elf::EM_386.0 => "386",
        m if m == elf::EM_X86_64.0 => "x86-64",
        m if m == elf::EM_ARM.0 => "arm",
        m if m == elf::EM_AARCH64.0 => "arm64",
        m if m == elf::EM_PPC64.0 => "ppc64",
        m if m == elf::EM_S390.0 => "s390x",
        m if m == elf::EM_MIPS.0 => "mips",
        m if m == elf::EM_RISCV.0 => "riscv",
        m if m == elf::EM_LOONGARCH.0 => "loong64",
        m => return format!("ELF machine number {m}"),
    };
    name.to_owned()
}

fn not_elf(data: &[u8], what: &str) -> Error {
    // Formats that users mix up with ELF, by magic.
    let known = match data {
        [b'B', b'Z', b'h', ..] => Some("bzip2-compressed data; decompress it first"),
        [b'M', b'Z', ..] => Some("a Windows program"),
        [0xcf, 0xfa, 0xed, 0xfe, ..] => Some("a macOS program"),
        [b'#', b'!', ..] => Some("a script"),
        _ => None,
    };
    let error = match known {
        Some(found) => Error::new(format!("{what}: expected an ELF file, found {found}")),
        None => {
            let start: Vec<String> = data.iter().take(4).map(|b| format!("{b:02x}")).collect();
            Error::new(format!("{what}: expected an ELF file, found one that starts with bytes {}", start.join(" ")))
        }
    };
    error.remedy("give the executable that ran, then its core dump")
}
