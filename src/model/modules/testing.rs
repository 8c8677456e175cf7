//! A small image for unit tests: a few ranges of bytes.

use crate::address::{Addr, AddrRange};
use crate::image::{Base, Image, Missing, Place, ReadError, Scratch, UnitBytes};

/// Bytes at addresses.
pub(crate) struct Bytes {
    ranges: Vec<(u64, Vec<u8>)>,
    missing: Missing,
}

impl Bytes {
    pub(crate) fn new(ranges: Vec<(u64, Vec<u8>)>) -> Self {
        Self { ranges, missing: Missing::default() }
    }

    /// The first range that holds all of it.
    fn find(&self, range: AddrRange) -> Option<&[u8]> {
        let len = usize::try_from(range.len).ok()?;
        self.ranges.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(range.start.0.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(len)?)
        })
    }
}

impl Image for Bytes {
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        scratch.begin(ranges.len());
        for &range in ranges {
            let bytes = self.find(range).unwrap_or_default();
            let offset = scratch.spill.len();
            scratch.spill.extend_from_slice(bytes);
            scratch.places.push(Place::in_spill(offset, bytes.len() as u64));
        }
        scratch.unit(Base::NONE)
    }

    fn read(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        let range = AddrRange { start: addr, len: buf.len() as u64 };
        buf.copy_from_slice(self.find(range).ok_or(ReadError::Unmapped(addr))?);
        Ok(())
    }

    fn missing(&self) -> &Missing {
        &self.missing
    }
}
