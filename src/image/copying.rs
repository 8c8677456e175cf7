//! [`CopyingImage`]: any image, but every byte is copied before it is handed out, as a live process would need it.

use super::{Base, Image, MAX_RANGE, MAX_SPILL, Missing, Place, ReadError, Scratch, UnitBytes};
use crate::address::{Addr, AddrRange};

/// Copies all bytes of the image behind it. Used by tests to prove that no result depends on borrowing from the core.
pub struct CopyingImage<'a>(&'a dyn Image);

/// Bytes read at a time, so that a damaged length fails before it sizes an allocation.
const CHUNK: u64 = 64 << 10;

impl<'a> CopyingImage<'a> {
    /// Wraps `image`.
    #[must_use]
    pub fn new(image: &'a dyn Image) -> Self {
        Self(image)
    }

    fn copy(&self, range: AddrRange, spill: &mut Vec<u8>) -> Option<()> {
        if range.len > MAX_RANGE || spill.len() + range.len as usize > MAX_SPILL {
            return None;
        }
        let mut done = 0;
        while done < range.len {
            let n = (range.len - done).min(CHUNK) as usize;
            let addr = range.start.0.checked_add(done)?;
            let at = spill.len();
            spill.resize(at + n, 0);
            self.0.read(Addr(addr), &mut spill[at..]).ok()?;
            done += n as u64;
        }
        Some(())
    }
}

impl Image for CopyingImage<'_> {
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        scratch.begin(ranges.len());
        let Scratch { places, spill } = scratch;
        for range in ranges {
            let offset = spill.len();
            let place = match self.copy(*range, spill) {
                Some(()) => Place::in_spill(offset, range.len),
                None => {
                    spill.truncate(offset);
                    Place::NOWHERE
                }
            };
            places.push(place);
        }
        scratch.unit(Base::NONE)
    }

    fn read(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.0.read(addr, buf)
    }

    fn missing(&self) -> &Missing {
        self.0.missing()
    }
}

impl std::fmt::Debug for CopyingImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CopyingImage")
    }
}
