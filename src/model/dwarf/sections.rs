//! The debug sections of an executable, decompressed in parallel.
//!
//! Go's linker compresses `.debug_*` with zlib (`SHF_COMPRESSED`, before Go 1.19 `.zdebug_*`); external linkers may use zstd. A
//! section that was left uncompressed is borrowed from the file.

use crate::error::{Context, Error, Result};
use crate::incident::Incidents;
use flate2::{Decompress, FlushDecompress, Status};
use gimli::{EndianSlice, LittleEndian};
use object::read::CompressionFormat;
use object::{Object, ObjectSection};
use rayon::prelude::*;
use std::borrow::Cow;
use std::io::Read;

/// What gimli reads from.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Largest believable ratio of a section's size to its compressed size. DWARF deflates to a quarter or a tenth; more than this is
/// a decompression bomb.
const MAX_RATIO: u64 = 64;

/// Sections read, in the order of the fields of [`Sections`].
const NAMES: [&str; 9] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_addr",
    ".debug_str",
    ".debug_line_str",
    ".debug_loc",
    ".debug_loclists",
    ".debug_ranges",
    ".debug_rnglists",
];

/// Bytes of the debug sections; a section that the file lacks is empty.
pub(super) struct Sections<'img> {
    bytes: [Cow<'img, [u8]>; NAMES.len()],
}

impl<'img> Sections<'img> {
    /// Finds and decompresses the sections of the ELF file `file`.
    pub(super) fn read(file: &'img [u8], incidents: &mut Incidents) -> Result<Self> {
        let elf = object::File::parse(file).context(|| "cannot read the section table of the executable".to_owned())?;
        let read_one = |name: &&str| -> Result<Cow<'img, [u8]>> {
            let Some(section) = elf.section_by_name(name) else { return Ok(Cow::Borrowed(&[])) };
            let packed = section.compressed_data().context(|| format!("section {name} of the executable"))?;
            match packed.format {
                CompressionFormat::None => Ok(Cow::Borrowed(packed.data)),
                format => inflate(packed.data, packed.uncompressed_size, format)
                    .context(|| format!("section {name} of the executable"))
                    .map(Cow::Owned),
            }
        };
        let read: Vec<Result<Cow<'img, [u8]>>> = NAMES.par_iter().with_max_len(1).map(read_one).collect();
        let mut bytes: [Cow<'img, [u8]>; NAMES.len()] = Default::default();
        for (i, section) in read.into_iter().enumerate() {
            match section {
                Ok(data) => bytes[i] = data,
                // Without these two there are no types; the others only lose variables.
                Err(error) if i < 2 => return Err(error),
                Err(_) => incidents.count("dwarf.unreadable_section"),
            }
        }
        if bytes[0].is_empty() || bytes[1].is_empty() {
            return Err(Error::new("the executable has no DWARF debug information (.debug_info)")
                .remedy("build the program without -ldflags=-w or -s, and do not strip it"));
        }
        Ok(Self { bytes })
    }

    fn slice(&self, i: usize) -> Slice<'_> {
        EndianSlice::new(&self.bytes[i], LittleEndian)
    }

    pub(super) fn info(&self) -> gimli::DebugInfo<Slice<'_>> {
        self.slice(0).into()
    }

    pub(super) fn abbrev(&self) -> gimli::DebugAbbrev<Slice<'_>> {
        self.slice(1).into()
    }

    pub(super) fn addr(&self) -> gimli::DebugAddr<Slice<'_>> {
        self.slice(2).into()
    }

    pub(super) fn str(&self) -> gimli::DebugStr<Slice<'_>> {
        self.slice(3).into()
    }

    pub(super) fn line_str(&self) -> gimli::DebugLineStr<Slice<'_>> {
        self.slice(4).into()
    }

    pub(super) fn locations(&self) -> gimli::LocationLists<Slice<'_>> {
        gimli::LocationLists::new(self.slice(5).into(), self.slice(6).into())
    }

    pub(super) fn ranges(&self) -> gimli::RangeLists<Slice<'_>> {
        gimli::RangeLists::new(self.slice(7).into(), self.slice(8).into())
    }
}

/// Decompresses `data` to exactly `size` bytes.
fn inflate(data: &[u8], size: u64, format: CompressionFormat) -> Result<Vec<u8>> {
    let most = (data.len() as u64).saturating_mul(MAX_RATIO).saturating_add(4096);
    if size > most {
        return Err(Error::new(format!("claims to decompress from {} to {size} bytes, expected at most {most}", data.len())));
    }
    let size = usize::try_from(size).context(|| "decompressed size".to_owned())?;
    let mut out = Vec::new();
    out.try_reserve_exact(size).context(|| format!("cannot allocate {size} bytes"))?;
    match format {
        CompressionFormat::Zlib => {
            let mut zlib = Decompress::new(true);
            let status =
                zlib.decompress_vec(data, &mut out, FlushDecompress::Finish).context(|| "bad zlib data".to_owned())?;
            if status != Status::StreamEnd {
                return Err(Error::new(format!("zlib data ends early: {} of {size} bytes", out.len())));
            }
        }
        CompressionFormat::Zstandard => {
            let decoder = zstd::stream::read::Decoder::new(data).context(|| "bad zstd data".to_owned())?;
            decoder.take(size as u64).read_to_end(&mut out).context(|| "bad zstd data".to_owned())?;
        }
        _ => return Err(Error::new("unknown compression format")),
    }
    if out.len() == size {
        Ok(out)
    } else {
        Err(Error::new(format!("decompressed to {} bytes, expected {size}", out.len())))
    }
}
