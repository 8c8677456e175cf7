//! [`MappedCore`]: the memory of the process, spliced from the mapped core file, EXE, libraries and zeros.
//!
//! A read that lies in one piece of the core borrows from the file mapping; only reads across pieces, from other files or of zeros
//! are copied.

use super::extents::{Extent, Extents, Source};
use super::map::FileMap;
use super::{Base, Image, MAX_RANGE, MAX_SPILL, Missing, Place, ReadError, Scratch, UnitBytes};
use crate::address::{Addr, AddrRange};

/// The memory of a dumped process, borrowing its core and executable file.
#[derive(Debug)]
pub struct MappedCore<'img> {
    core: &'img [u8],
    /// The mapping of `core`, for advice.
    map: Option<&'img FileMap>,
    /// EXE and libraries.
    files: Vec<&'img [u8]>,
    extents: Vec<Extent>,
    missing: Missing,
}

impl<'img> MappedCore<'img> {
    /// * `files`: in the order that the extents were built with.
    /// * `extents`: their offsets lie inside the files (see `extents::build`).
    pub(crate) fn new(core: &'img [u8], files: Vec<&'img [u8]>, extents: Extents) -> Self {
        Self { core, map: None, files, extents: extents.list, missing: Missing { ranges: extents.missing } }
    }

    /// The same, with the mapping that holds the core file, for advice to the kernel.
    pub(crate) fn with_map(self, map: &'img FileMap) -> Self {
        Self { map: Some(map), ..self }
    }

    /// Borrows `range` if it lies in one piece of the core or executable file: for large tables, without copying them.
    #[must_use]
    pub fn borrow(&self, range: AddrRange) -> Option<&'img [u8]> {
        let extent = self.find(range.start.0)?;
        self.borrow_in(extent, range)
    }

    /// As [`MappedCore::borrow`], but only what the core file itself holds: evidence about the process, not about EXE.
    pub(crate) fn borrow_dumped(&self, range: AddrRange) -> Option<&'img [u8]> {
        let extent = self.find(range.start.0).filter(|e| e.source == Source::Core)?;
        self.borrow_in(extent, range)
    }

    /// The parts of `range` that the core file itself holds.
    pub(crate) fn dumped_in(&self, range: AddrRange) -> impl Iterator<Item = (Addr, &'img [u8])> + '_ {
        let from = self.extents.partition_point(|e| e.end() <= range.start.0);
        let inside = self.extents[from..].iter().take_while(move |e| e.start < range.end().0);
        inside.filter(|e| e.source == Source::Core).filter_map(move |e| {
            let start = e.start.max(range.start.0);
            let len = e.end().min(range.end().0) - start;
            Some((Addr(start), self.borrow_in(e, AddrRange { start: Addr(start), len })?))
        })
    }

    fn borrow_in(&self, extent: &Extent, range: AddrRange) -> Option<&'img [u8]> {
        let skip = range.start.0 - extent.start;
        if range.len > extent.len - skip {
            return None;
        }
        let file = match extent.source {
            Source::Core => self.core,
            Source::File(i) => self.files.get(usize::from(i))?,
            Source::Zero | Source::Missing => return None,
        };
        let from = (extent.offset + skip) as usize;
        file.get(from..from + range.len as usize)
    }

    /// The extent that contains `addr`.
    #[inline]
    fn find(&self, addr: u64) -> Option<&Extent> {
        self.extents.get(self.find_index(addr)?)
    }

    #[inline]
    fn find_index(&self, addr: u64) -> Option<usize> {
        let index = self.extents.partition_point(|e| e.start <= addr).checked_sub(1)?;
        (addr - self.extents[index].start < self.extents[index].len).then_some(index)
    }

    /// Calls `f` for each piece of `addr..addr + len`: bytes, or a number of zeros.
    fn for_pieces(&self, addr: u64, len: u64, mut f: impl FnMut(Result<&[u8], usize>)) -> Result<(), ReadError> {
        let (mut at, mut left) = (addr, len);
        let mut index = self.find_index(at);
        while left > 0 {
            let extent = index.and_then(|i| self.extents.get(i)).filter(|e| e.start <= at);
            let extent = extent.ok_or(ReadError::Unmapped(Addr(at)))?;
            let skip = at - extent.start;
            let n = left.min(extent.len - skip);
            let from = (extent.offset + skip) as usize;
            let bytes = |file: &'img [u8]| file.get(from..from + n as usize).ok_or(ReadError::Missing(Addr(at)));
            match extent.source {
                Source::Core => f(Ok(bytes(self.core)?)),
                Source::File(i) => {
                    let file = self.files.get(usize::from(i)).ok_or(ReadError::Missing(Addr(at)))?;
                    f(Ok(bytes(file)?));
                }
                Source::Zero => f(Err(n as usize)),
                Source::Missing => return Err(ReadError::Missing(Addr(at))),
            }
            left -= n;
            // Cannot wrap while bytes are left: no extent reaches the end of the address space.
            at = extent.end();
            index = index.map(|i| i + 1);
        }
        Ok(())
    }

    /// Copies a range that is not in one piece of the core; empty if any byte of it is lacking.
    #[cold]
    fn copy(&self, range: AddrRange, spill: &mut Vec<u8>) -> Place {
        let offset = spill.len();
        if range.len > MAX_RANGE || offset + range.len as usize > MAX_SPILL {
            return Place::NOWHERE;
        }
        // Looked up twice, so that a range that cannot be read costs no memory.
        if self.for_pieces(range.start.0, range.len, |_| {}).is_err() {
            return Place::NOWHERE;
        }
        let copied = self.for_pieces(range.start.0, range.len, |piece| match piece {
            Ok(bytes) => spill.extend_from_slice(bytes),
            Err(zeros) => spill.resize(spill.len() + zeros, 0),
        });
        match copied {
            Ok(()) => Place::in_spill(offset, range.len),
            Err(_) => Place::NOWHERE,
        }
    }
}

impl Image for MappedCore<'_> {
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        scratch.begin(ranges.len());
        // The extent of the previous range: units come in address order from few large segments.
        let mut last = Extent { start: 0, len: 0, offset: 0, source: Source::Missing };
        for range in ranges {
            let mut skip = range.start.0.wrapping_sub(last.start);
            if skip >= last.len
                && let Some(extent) = self.find(range.start.0)
                && extent.source == Source::Core
            {
                last = *extent;
                skip = range.start.0 - last.start;
            }
            let place = if skip < last.len && range.len <= (last.len - skip).min(MAX_RANGE) {
                Place::in_base(last.offset + skip, range.len)
            } else {
                self.copy(*range, &mut scratch.spill)
            };
            scratch.places.push(place);
        }
        scratch.unit(Base::of(self.core))
    }

    fn is_stored(&self) -> bool {
        self.map.is_some()
    }

    fn will_need(&self, range: AddrRange) {
        let Some(map) = self.map else { return };
        let from = self.extents.partition_point(|e| e.end() <= range.start.0);
        for e in self.extents[from..].iter().take_while(|e| e.start < range.end().0) {
            if e.source == Source::Core {
                let start = e.start.max(range.start.0);
                map.advise_will_need(e.offset + (start - e.start), e.end().min(range.end().0) - start);
            }
        }
    }

    fn read(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        // Nearly every structure lies in one piece of one file.
        let range = AddrRange { start: addr, len: buf.len() as u64 };
        if let Some(bytes) = self.borrow(range) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        let mut done = 0;
        self.for_pieces(addr.0, buf.len() as u64, |piece| match piece {
            Ok(bytes) => {
                buf[done..done + bytes.len()].copy_from_slice(bytes);
                done += bytes.len();
            }
            Err(zeros) => {
                buf[done..done + zeros].fill(0);
                done += zeros;
            }
        })
    }

    fn missing(&self) -> &Missing {
        &self.missing
    }
}
