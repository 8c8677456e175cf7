//! STAGE 1: the bytes of the dumped process. Knows ELF, knows nothing of Go.
//!
//! An [`Image`] answers reads by virtual address. [`memory::MappedCore`] borrows from the mapped core file (and from the
//! executable for file-backed pages that the core lacks); [`copying::CopyingImage`] copies every byte that it hands out, as a
//! live process would need it, and lets tests prove that nothing depends on borrowing.

pub mod copying;
pub(crate) mod core_head;
pub mod debuginfod;
mod decompress;
pub(crate) mod elf;
pub mod executable;
mod extents;
mod identity;
mod inputs;
mod libraries;
mod map;
pub mod memory;
mod notes;
mod process;
pub mod recording;
mod separate;
#[cfg(test)]
pub(crate) mod synth;
mod sysroot;
#[cfg(test)]
mod tests;
mod unit;
pub(crate) mod window;

pub use identity::check_same_program;
pub use inputs::{Input, Inputs, Request};
pub use libraries::{Library, open_mapped};
pub use map::FileMap;
pub use process::{Loaded, Process};
pub use separate::{Search, Separate};
pub(crate) use unit::{Base, Place};
pub use unit::{Scratch, UnitBytes};

use crate::address::{Addr, AddrRange};

/// Who is told how opening the inputs goes on: files may be decompressed or downloaded first.
pub trait Watch: Sync {
    /// A step begins.
    ///
    /// * `bytes`: how many it will read, 0 if unknown.
    fn begin(&self, step: &'static str, bytes: u64);

    /// The step has read `bytes` more.
    fn advance(&self, bytes: u64);
}

/// Nobody.
#[derive(Copy, Clone, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn begin(&self, _: &'static str, _: u64) {}

    fn advance(&self, _: u64) {}
}

/// Why bytes could not be read. Small and `Copy`: frequent on damaged input.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No mapping of the process covers this address.
    Unmapped(Addr),
    /// The process had memory here, but neither the core nor the executable holds its bytes.
    Missing(Addr),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unmapped(a) => write!(f, "address {a} is not mapped in the process"),
            Self::Missing(a) => write!(f, "the core does not hold the bytes at address {a}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// One thread of the dumped process, as NT_PRSTATUS describes it.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Linux thread id (`pr_pid`).
    pub tid: u32,
    /// Instruction pointer.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// All general registers in DWARF register numbering of the machine (see [`crate::architecture`]).
    pub dwarf_regs: Vec<u64>,
    /// The signal that stopped the thread, 0 if none.
    pub signal: u16,
}

/// A file mapping of NT_FILE.
#[derive(Clone, Debug)]
pub struct FileMapping {
    /// Where it is mapped.
    pub range: AddrRange,
    /// File offset of the first byte, in bytes.
    pub offset: u64,
    /// Path in the dumped process's own view.
    pub path: String,
}

impl FileMapping {
    /// The path without the mark that the kernel appends when the file is no longer there.
    #[must_use]
    pub fn live_path(&self) -> &str {
        self.path.strip_suffix(" (deleted)").unwrap_or(&self.path)
    }
}

/// Incident: nothing in the core could be compared with the executable.
pub const EXECUTABLE_NOT_VERIFIED: &str = "core.executable_not_verified";

/// Bytes of the dumped process that the image lacks, for the totals.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    /// Ranges that the process had and the core file does not hold (cut off by truncation), sorted, not overlapping.
    pub ranges: Vec<AddrRange>,
}

impl Missing {
    /// Sum of all missing bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, r| sum.saturating_add(r.len))
    }

    /// Missing bytes inside `range`.
    #[must_use]
    pub fn bytes_in(&self, range: AddrRange) -> u64 {
        let from = self.ranges.partition_point(|r| r.end() <= range.start);
        let inside = self.ranges[from..].iter().take_while(|r| r.start < range.end());
        inside.map(|r| r.end().min(range.end()).0 - r.start.max(range.start).0).sum()
    }
}

/// The longest range that [`Image::load`] serves.
pub(crate) const MAX_RANGE: u64 = 1 << 30;

/// The most bytes that one call of [`Image::load`] copies. Ordinary units copy almost nothing; this stops damaged lengths that
/// point at huge never-written mappings.
pub(crate) const MAX_SPILL: usize = 4 << 30;

/// The memory of a dumped process. All methods may be called from any worker.
pub trait Image: Sync {
    /// Loads many ranges at once: a borrow for a mapped core, one batched read for a live process.
    ///
    /// * `ranges`: any addresses (hostile), each at most 1 GiB long; a range that cannot be read whole comes back empty.
    /// * Cost: O(ranges) for mapped ranges that lie in one segment; the others are copied into `scratch`.
    ///
    /// Heap bytes are read only through this method; nothing may keep them beyond its unit of work.
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s>;

    /// As [`Image::load`], of memory around which nobody will ask for more, or too little to pay for keeping it: a live process's is not kept.
    /// Ranges in address order are read together.
    fn load_once<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        self.load(ranges, scratch)
    }

    /// Which ranges could be read, without reading them where that can be told.
    fn present(&self, ranges: &[AddrRange]) -> Vec<bool> {
        let mut scratch = Scratch::default();
        let loaded = self.load(ranges, &mut scratch);
        (0..ranges.len()).map(|i| !loaded.get(i).is_empty()).collect()
    }

    /// Whether [`Image::will_need`] does anything: the memory lies in a file.
    fn is_stored(&self) -> bool {
        false
    }

    /// Says that `range` will be read soon: a mapped core starts fetching it from the disk. Changes no result.
    fn will_need(&self, range: AddrRange) {
        let _ = range;
    }

    /// Fills `buf` from `addr`: for metadata, one structure at a time.
    ///
    /// # Errors
    /// The first address that is unmapped or missing; `buf` is then unspecified.
    fn read(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError>;

    /// What the core lacks of the process's memory.
    fn missing(&self) -> &Missing;

    /// Reads a little-endian u64.
    ///
    /// # Errors
    /// As [`Image::read`]; likewise the other integer reads.
    fn read_u64(&self, addr: Addr) -> Result<u64, ReadError> {
        let mut b = [0; 8];
        self.read(addr, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// Reads a little-endian u32.
    #[allow(clippy::missing_errors_doc)]
    fn read_u32(&self, addr: Addr) -> Result<u32, ReadError> {
        let mut b = [0; 4];
        self.read(addr, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Reads a little-endian u16.
    #[allow(clippy::missing_errors_doc)]
    fn read_u16(&self, addr: Addr) -> Result<u16, ReadError> {
        let mut b = [0; 2];
        self.read(addr, &mut b)?;
        Ok(u16::from_le_bytes(b))
    }

    /// Reads one byte.
    #[allow(clippy::missing_errors_doc)]
    fn read_u8(&self, addr: Addr) -> Result<u8, ReadError> {
        let mut b = [0; 1];
        self.read(addr, &mut b)?;
        Ok(b[0])
    }
}
