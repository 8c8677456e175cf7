//! The debug sections of an executable, decompressed in parallel.

use crate::error::{Error, Result};
use crate::image::executable::Executable;
use crate::incident::Incidents;
use gimli::{EndianSlice, LittleEndian};
use rayon::prelude::*;
use std::borrow::Cow;

/// What gimli reads from.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

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
#[derive(Default)]
pub(super) struct Sections<'img> {
    bytes: [Cow<'img, [u8]>; NAMES.len()],
}

impl<'img> Sections<'img> {
    /// Finds and decompresses the debug sections of `exe`.
    pub(super) fn read(exe: &Executable<'img>, incidents: &mut Incidents) -> Result<Self> {
        let read: Vec<Result<Option<Cow<'img, [u8]>>>> =
            NAMES.par_iter().with_max_len(1).map(|name| exe.read_section(name)).collect();
        let mut bytes: [Cow<'img, [u8]>; NAMES.len()] = Default::default();
        for (i, section) in read.into_iter().enumerate() {
            match section {
                Ok(data) => bytes[i] = data.unwrap_or_default(),
                // Without these two there are no types; the others only lose variables.
                Err(error) if i < 2 => return Err(error),
                Err(_) => incidents.count("dwarf.unreadable_section"),
            }
        }
        if bytes[0].is_empty() || bytes[1].is_empty() {
            return Err(Error::new("the executable has no DWARF debug information (.debug_info)").remedy(
                "give its debug information with --debug-file, or build without -ldflags=-w or -s and do not strip",
            ));
        }
        Ok(Self { bytes })
    }

    fn slice(&self, i: usize) -> Slice<'_> {
        EndianSlice::new(&self.bytes[i], LittleEndian)
    }

    /// Length of `.debug_info`.
    pub(super) fn info_len(&self) -> usize {
        self.bytes[0].len()
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
