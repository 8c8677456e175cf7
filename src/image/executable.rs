//! The executable file: sections (uncompressed on demand), symbols, build ids, entry.
//!
//! All addresses are link-time addresses: add the load bias for the process.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use object::elf;
use rustc_hash::FxHashMap;

use super::elf::{Header, SectionHeader, Segment, bytes_at, string_at, u16_at, u32_at, u64_at};
use super::notes::{BuildIds, Notes};
use crate::architecture::Architecture;
use crate::error::{Error, Result};

/// A parsed executable, borrowing its file mapping.
#[derive(Debug)]
pub struct Executable<'img> {
    data: &'img [u8],
    path: PathBuf,
    header: Header,
    segments: Vec<Segment>,
    sections: Vec<Section<'img>>,
    build_ids: BuildIds<'img>,
    symbols: OnceLock<FxHashMap<&'img [u8], Symbol>>,
}

/// One section as it is in the file.
#[derive(Copy, Clone, Debug)]
pub struct Section<'img> {
    /// Section name; empty if it is not UTF-8.
    pub name: &'img str,
    /// Link-time address, 0 for sections that are not loaded.
    pub address: u64,
    /// Size in memory, or of the (maybe compressed) contents.
    pub size: u64,
    header: SectionHeader,
    data: &'img [u8],
}

impl<'img> Section<'img> {
    /// The bytes in the file: empty for `.bss` and the like and for sections cut off, compressed if the section is
    /// (see [`Executable::section_data`]).
    #[must_use]
    pub fn data(&self) -> &'img [u8] {
        self.data
    }
}

/// A symbol of the symbol table.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Link-time address.
    pub address: u64,
    /// Size in bytes, 0 if unknown.
    pub size: u64,
}

impl<'img> Executable<'img> {
    /// Parses headers; sections and symbols are read when asked for.
    ///
    /// # Errors
    /// Not an ELF executable of a supported machine, or its program headers are damaged. Missing sections and symbols are no error.
    pub fn parse(data: &'img [u8], path: &Path) -> Result<Self> {
        let what = format!("executable {}", path.display());
        let header = Header::parse(data, &what)?;
        if header.e_type != elf::ET_EXEC.0 && header.e_type != elf::ET_DYN.0 {
            let error = Error::new(format!("{what}: expected an executable, found {}", header.type_name()));
            let swapped = header.e_type == elf::ET_CORE.0;
            return Err(if swapped { error.remedy("give the executable first, then the core dump") } else { error });
        }
        let segments = header.segments(data, &what)?;
        if !segments.iter().any(Segment::is_load) {
            return Err(Error::new(format!("{what}: expected an executable, found no loadable segment")));
        }
        let (headers, names) = header.sections(data);
        let section = |h: &SectionHeader| {
            let name = string_at(names, h.sh_name).and_then(|n| std::str::from_utf8(n).ok()).unwrap_or("");
            let bytes = if h.sh_type == elf::SHT_NOBITS.0 { None } else { bytes_at(data, h.sh_offset, h.sh_size) };
            Section { name, address: h.sh_addr, size: h.sh_size, header: *h, data: bytes.unwrap_or(&[]) }
        };
        let sections: Vec<Section<'img>> = headers.iter().map(section).collect();
        let mut build_ids = BuildIds::default();
        for s in segments.iter().filter(|s| s.is_note()) {
            build_ids.read(Notes::new(bytes_at(data, s.p_offset, s.p_filesz).unwrap_or(&[]), s.p_align));
        }
        for s in sections.iter().filter(|s| s.header.sh_type == elf::SHT_NOTE.0) {
            build_ids.read(Notes::new(s.data, 4));
        }
        Ok(Self { data, path: path.to_owned(), header, segments, sections, build_ids, symbols: OnceLock::new() })
    }

    /// The machine that it is for.
    #[must_use]
    pub fn architecture(&self) -> &'static Architecture {
        self.header.architecture
    }

    /// The whole file.
    #[must_use]
    pub fn data(&self) -> &'img [u8] {
        self.data
    }

    /// The path as given by the user.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last component of the path.
    #[must_use]
    pub fn file_name(&self) -> Cow<'_, str> {
        self.path.file_name().map_or(Cow::Borrowed(""), |n| n.to_string_lossy())
    }

    /// Link-time entry address.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.header.e_entry
    }

    /// Whether the process may have been loaded at any address (ET_DYN).
    #[must_use]
    pub fn is_pie(&self) -> bool {
        self.header.e_type == elf::ET_DYN.0
    }

    /// The GNU build id (`.note.gnu.build-id`).
    #[must_use]
    pub fn build_id(&self) -> Option<&'img [u8]> {
        self.build_ids.gnu
    }

    /// The Go build id (`.note.go.buildid`).
    #[must_use]
    pub fn go_build_id(&self) -> Option<&'img str> {
        self.build_ids.go.and_then(|id| std::str::from_utf8(id).ok())
    }

    /// Whether Go's linker wrote it: every Go program has its function table, stripped or not, however it was linked.
    #[must_use]
    pub fn is_go(&self) -> bool {
        self.sections.iter().any(|s| s.name.ends_with(".gopclntab") || s.name == ".go.buildinfo")
    }

    /// Raw contents of `.go.buildinfo`, from which the Go version can be read.
    #[must_use]
    pub fn build_info(&self) -> Option<&'img [u8]> {
        self.section(".go.buildinfo").map(|s| s.data())
    }

    /// All sections in file order.
    pub fn sections(&self) -> impl Iterator<Item = &Section<'img>> + '_ {
        self.sections.iter()
    }

    /// The first section with this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<Section<'img>> {
        self.sections.iter().find(|s| s.name == name).copied()
    }

    /// Contents of a section, uncompressed; `None` if there is no such section or it is damaged.
    #[must_use]
    pub fn section_data(&self, name: &str) -> Option<Cow<'img, [u8]>> {
        self.read_section(name).ok().flatten()
    }

    /// Contents of a section, uncompressed (`SHF_COMPRESSED`, or the older `.zdebug_*` in place of `.debug_*`). Borrowed from the
    /// file if it is not compressed.
    ///
    /// # Errors
    /// The compressed data is damaged or its format unknown. A section that does not exist is `None`.
    pub fn read_section(&self, name: &str) -> Result<Option<Cow<'img, [u8]>>> {
        let failed = |e: Error| Error::new(format!("executable {}: section {name}", self.path.display())).cause(e);
        if let Some(section) = self.section(name) {
            if section.header.sh_flags & elf::SHF_COMPRESSED.0 == 0 {
                return Ok(Some(Cow::Borrowed(section.data)));
            }
            return uncompress_chdr(section.data).map(|d| Some(Cow::Owned(d))).map_err(failed);
        }
        let Some(old) = name.strip_prefix(".debug_").and_then(|rest| self.section(&format!(".zdebug_{rest}"))) else {
            return Ok(None);
        };
        uncompress_zdebug(old.data).map(|d| Some(Cow::Owned(d))).map_err(failed)
    }

    /// Finds a defined symbol by its exact name. The first call indexes the symbol table (about 10 ms for 100 000 symbols).
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        self.symbols.get_or_init(|| self.index_symbols()).get(name.as_bytes()).copied()
    }

    /// All defined symbols of `.symtab` in file order; names are not always UTF-8.
    pub fn symbols(&self) -> impl Iterator<Item = (&'img [u8], Symbol)> + '_ {
        const SYM_SIZE: usize = 24;
        let table = self.sections.iter().find(|s| s.header.sh_type == elf::SHT_SYMTAB.0);
        let names = table.and_then(|t| self.sections.get(t.header.sh_link as usize)).map_or(&[][..], |s| s.data);
        table.map_or(&[][..], |t| t.data).chunks_exact(SYM_SIZE).filter_map(move |sym| {
            let name = string_at(names, u32_at(sym, 0)?)?;
            let defined = u16_at(sym, 6)? != 0;
            (defined && !name.is_empty()).then_some((name, Symbol { address: u64_at(sym, 8)?, size: u64_at(sym, 16)? }))
        })
    }

    fn index_symbols(&self) -> FxHashMap<&'img [u8], Symbol> {
        let mut index = FxHashMap::default();
        for (name, symbol) in self.symbols() {
            index.entry(name).or_insert(symbol);
        }
        index
    }

    /// The file offset of the program headers.
    pub(crate) fn phdrs_offset(&self) -> u64 {
        self.header.e_phoff
    }

    /// All program headers.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn build_ids(&self) -> BuildIds<'img> {
        self.build_ids
    }
}

/// A zlib stream cannot expand by more than this; a larger declared size is a lie that must not size an allocation.
const ZLIB_MAX_RATIO: u64 = 1032;

/// No debug section comes near this, whatever a zstd header says.
const ZSTD_MAX_SIZE: u64 = 16 << 30;

/// A section that starts with `Elf64_Chdr`: ch_type, reserved, ch_size, ch_addralign.
fn uncompress_chdr(data: &[u8]) -> Result<Vec<u8>> {
    let header = || Some((u32_at(data, 0)?, u64_at(data, 8)?, data.get(24..)?));
    let (ch_type, size, packed) = header().ok_or_else(|| Error::new("cut off in the compression header"))?;
    match ch_type {
        t if t == elf::ELFCOMPRESS_ZLIB.0 => inflate(packed, size),
        t if t == elf::ELFCOMPRESS_ZSTD.0 => {
            let failed = |e: std::io::Error| Error::new("zstd data is damaged").cause(e);
            let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?;
            let mut out = Vec::new();
            // Grows as data arrives: the declared size alone allocates nothing.
            decoder.take(size.min(ZSTD_MAX_SIZE) + 1).read_to_end(&mut out).map_err(failed)?;
            check_size(out, size)
        }
        t => Err(Error::new(format!("compression type: expected zlib (1) or zstd (2), found {t}"))),
    }
}

/// The form of Go before 1.19: `ZLIB`, then the size as a big-endian u64.
fn uncompress_zdebug(data: &[u8]) -> Result<Vec<u8>> {
    let bad = || Error::new("expected a compressed section that starts with ZLIB");
    let rest = data.strip_prefix(b"ZLIB").ok_or_else(bad)?;
    let (size, packed) = rest.split_first_chunk().ok_or_else(bad)?;
    inflate(packed, u64::from_be_bytes(*size))
}

fn inflate(packed: &[u8], size: u64) -> Result<Vec<u8>> {
    if size / ZLIB_MAX_RATIO > packed.len() as u64 {
        return Err(Error::new(format!("{} bytes of zlib data cannot hold the declared {size} bytes", packed.len())));
    }
    // One call: the output has room for everything, and zlib-rs runs fastest when it never has to stop. The byte more lets it
    // see the end of the stream, and shows a stream that is longer than declared.
    let mut out = Vec::with_capacity(size as usize + 1);
    let inflated = flate2::Decompress::new(true).decompress_vec(packed, &mut out, flate2::FlushDecompress::Finish);
    inflated.map_err(|e| Error::new("zlib data is damaged").cause(e))?;
    check_size(out, size)
}

fn check_size(out: Vec<u8>, size: u64) -> Result<Vec<u8>> {
    if out.len() as u64 == size {
        return Ok(out);
    }
    Err(Error::new(format!("uncompressed size: expected {size} bytes, found {}", out.len())))
}
