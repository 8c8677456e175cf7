//! The executable file: sections (uncompressed on demand), symbols, build ids, entry.
//!
//! Its debug information may be in a file of its own ([`DebugFile`], found by `separate`): DWARF and symbols are then read from that
//! one, contents always from the executable.
//!
//! All addresses are link-time addresses: add the load bias for the process.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use object::elf;
use rustc_hash::FxHashMap;

use super::elf::{Header, SectionHeader, Segment, bytes_at, string_at, u16_at, u32_at, u64_at};
use super::notes::{BuildIds, Notes, show_id};
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
    debug: Option<DebugFile<'img>>,
    refused: Vec<String>,
    symbols: OnceLock<FxHashMap<&'img [u8], Symbol>>,
}

/// A file with the debug information of an executable, as `objcopy --only-keep-debug` makes it: the same section headers, but only
/// DWARF and symbols have contents.
#[derive(Debug)]
pub struct DebugFile<'img> {
    path: PathBuf,
    entry: u64,
    sections: Vec<Section<'img>>,
    build_ids: BuildIds<'img>,
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
        let sections = read_sections(&header, data);
        // Every section header is there, the contents are not.
        let is_code = |s: &&Section<'_>| s.header.sh_flags & elf::SHF_EXECINSTR.0 != 0;
        if sections.iter().find(is_code).is_some_and(|s| s.header.sh_type == elf::SHT_NOBITS.0) {
            return Err(Error::new(format!(
                "{what}: expected an executable, found its debug information without the code"
            ))
            .remedy("give the executable that ran as EXE, and this file with --debug-file"));
        }
        let mut build_ids = BuildIds::default();
        for s in segments.iter().filter(|s| s.is_note()) {
            build_ids.read(Notes::new(bytes_at(data, s.p_offset, s.p_filesz).unwrap_or(&[]), s.p_align));
        }
        read_section_ids(&sections, &mut build_ids);
        let path = path.to_owned();
        Ok(Self {
            data,
            path,
            header,
            segments,
            sections,
            build_ids,
            debug: None,
            refused: Vec::new(),
            symbols: OnceLock::new(),
        })
    }

    /// The same, with its debug information in `debug`, which belongs to it.
    #[must_use]
    pub fn with_debug_file(self, debug: DebugFile<'img>) -> Self {
        Self { debug: Some(debug), symbols: OnceLock::new(), ..self }
    }

    /// The file that the debug information comes from, if not from the executable itself.
    #[must_use]
    pub fn debug_file(&self) -> Option<&Path> {
        self.debug.as_ref().map(|d| &*d.path)
    }

    /// The same, with what was found and does not belong to it: one line each.
    #[must_use]
    pub(crate) fn with_refused_debug_files(self, refused: Vec<String>) -> Self {
        Self { refused, ..self }
    }

    /// Files with debug information that exist and do not belong to it, and servers that have none: one line each.
    #[must_use]
    pub fn refused_debug_files(&self) -> &[String] {
        &self.refused
    }

    /// Whether the executable itself holds debug information.
    #[must_use]
    pub fn has_debug_info(&self) -> bool {
        has_debug_info(&self.sections)
    }

    /// Name and CRC of the file that `.gnu_debuglink` names.
    pub(crate) fn debuglink(&self) -> Option<(&'img str, u32)> {
        let data = self.section(".gnu_debuglink")?.data;
        let name = std::str::from_utf8(string_at(data, 0)?).ok()?;
        let crc = u32_at(data, (name.len() + 1).next_multiple_of(4))?;
        // A name, never a path.
        (!name.is_empty() && !name.contains('/') && name != "." && name != "..").then_some((name, crc))
    }

    /// Checks that `debug` was made from this executable; `Ok` says whether build ids prove it, `Err` why it cannot be.
    pub(crate) fn check_debug_file(&self, debug: &DebugFile<'_>) -> Result<bool, String> {
        let (ours, theirs) = (self.build_ids, debug.build_ids);
        let mut proved = false;
        for (kind, expected, found) in [("GNU build id", ours.gnu, theirs.gnu), ("Go build id", ours.go, theirs.go)] {
            if let (Some(expected), Some(found)) = (expected, found) {
                if expected != found {
                    let (expected, found) = (show_id(expected), show_id(found));
                    return Err(format!("{kind}: the executable has {expected}, this file {found}"));
                }
                proved = true;
            }
        }
        let code = |sections: &[Section<'_>]| {
            sections.iter().find(|s| s.name == ".text").map_or((0, 0), |s| (s.address, s.size))
        };
        let (ours, theirs) = ((self.entry(), code(&self.sections)), (debug.entry, code(&debug.sections)));
        if !proved && ours != theirs {
            return Err(format!(
                "entry and code: the executable has {:#x}, {} bytes at {:#x}; this file {:#x}, {} bytes at {:#x}",
                ours.0, ours.1.1, ours.1.0, theirs.0, theirs.1.1, theirs.1.0
            ));
        }
        Ok(proved)
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

    /// Whether Go's linker wrote it: every Go program has its function table, stripped or not, however it was linked. In plugins and
    /// shared libraries of older releases it has no section of its own; their notes remain.
    #[must_use]
    pub fn is_go(&self) -> bool {
        self.build_ids.go.is_some()
            || self
                .sections
                .iter()
                .any(|s| s.name.ends_with(".gopclntab") || matches!(s.name, ".go.buildinfo" | ".note.go.abihash"))
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

    /// The first section with this name; DWARF is looked for in the file that has it.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<Section<'img>> {
        let is_dwarf = name.starts_with(".debug_") || name.starts_with(".zdebug_");
        let separate = self.debug.as_ref().filter(|_| is_dwarf).map(|d| &d.sections);
        separate.unwrap_or(&self.sections).iter().find(|s| s.name == name).copied()
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
        self.entries(elf::SHT_SYMTAB.0).filter_map(defined)
    }

    /// What it defines for other files of the process (`.dynsym`), also when it is stripped; as [`Executable::symbols`].
    pub fn exports(&self) -> impl Iterator<Item = (&'img [u8], Symbol)> + '_ {
        self.entries(elf::SHT_DYNSYM.0).filter_map(defined)
    }

    /// Whether it has the runtime from a shared library: it was linked with `-linkshared`.
    #[must_use]
    pub fn imports_runtime(&self) -> bool {
        let is_import = |sym: &[u8]| u16_at(sym, 6) == Some(elf::SHN_UNDEF.0);
        self.entries(elf::SHT_DYNSYM.0).any(|(name, sym)| name.starts_with(b"runtime.") && is_import(sym))
    }

    /// Whether it is a library (`-buildmode=shared`) with the runtime of programs that are linked with `-linkshared`.
    #[must_use]
    pub fn is_shared_runtime(&self) -> bool {
        let Some(list) = self.section(".note.go.pkg-list") else { return false };
        Notes::new(list.data, 4).any(|note| note.desc.split(|b| *b == b'\n').any(|package| package == b"runtime"))
    }

    /// Names and entries of the symbol table of this type.
    fn entries(&self, sh_type: u32) -> impl Iterator<Item = (&'img [u8], &'img [u8])> + '_ {
        const SYM_SIZE: usize = 24;
        let tables = self.debug.iter().map(|d| &d.sections).chain([&self.sections]);
        let mut found = tables.filter_map(|sections| {
            let is_table = |s: &&Section<'_>| s.header.sh_type == sh_type && !s.data.is_empty();
            Some((sections, sections.iter().find(is_table)?))
        });
        let (table, names) = found.next().map_or((None, &[][..]), |(sections, table)| {
            (Some(table), sections.get(table.header.sh_link as usize).map_or(&[][..], |s| s.data))
        });
        let entries = table.map_or(&[][..], |t| t.data).chunks_exact(SYM_SIZE);
        entries.filter_map(move |sym| Some((string_at(names, u32_at(sym, 0)?)?, sym)))
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

impl<'img> DebugFile<'img> {
    /// Parses the headers of a debug file.
    ///
    /// # Errors
    /// Not a 64-bit ELF file for the machine, or one without DWARF.
    pub fn parse(data: &'img [u8], path: &Path) -> Result<Self> {
        let what = format!("debug file {}", path.display());
        let header = Header::parse(data, &what)?;
        let sections = read_sections(&header, data);
        if !has_debug_info(&sections) {
            return Err(Error::new(format!("{what}: expected debug information (.debug_info), found none"))
                .remedy("give what objcopy --only-keep-debug made of the executable before it was stripped"));
        }
        let mut build_ids = BuildIds::default();
        read_section_ids(&sections, &mut build_ids);
        Ok(Self { path: path.to_owned(), entry: header.e_entry, sections, build_ids })
    }
}

fn read_sections<'img>(header: &Header, data: &'img [u8]) -> Vec<Section<'img>> {
    let (headers, names) = header.sections(data);
    let section = |h: &SectionHeader| {
        let name = string_at(names, h.sh_name).and_then(|n| std::str::from_utf8(n).ok()).unwrap_or("");
        let bytes = if h.sh_type == elf::SHT_NOBITS.0 { None } else { bytes_at(data, h.sh_offset, h.sh_size) };
        Section { name, address: h.sh_addr, size: h.sh_size, header: *h, data: bytes.unwrap_or(&[]) }
    };
    headers.iter().map(section).collect()
}

fn read_section_ids<'img>(sections: &[Section<'img>], ids: &mut BuildIds<'img>) {
    for s in sections.iter().filter(|s| s.header.sh_type == elf::SHT_NOTE.0) {
        ids.read(Notes::new(s.data, 4));
    }
}

/// Name, address and size of a symbol that is defined here.
fn defined<'img>((name, sym): (&'img [u8], &[u8])) -> Option<(&'img [u8], Symbol)> {
    let defined = u16_at(sym, 6)? != elf::SHN_UNDEF.0;
    (defined && !name.is_empty()).then_some((name, Symbol { address: u64_at(sym, 8)?, size: u64_at(sym, 16)? }))
}

fn has_debug_info(sections: &[Section<'_>]) -> bool {
    sections.iter().any(|s| matches!(s.name, ".debug_info" | ".zdebug_info") && !s.data.is_empty())
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
