//! [`UnitBytes`]: what one [`super::Image::load`] found, without copying what lies in one piece already.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::window::Window;

/// Where a requested range lies; nowhere if the image could not read all of it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Place {
    /// Into the base or, with [`IN_SPILL`] set, into the spilled bytes.
    offset: u64,
    /// Bytes present.
    len: u32,
}

const IN_SPILL: u64 = 1 << 63;

impl Place {
    /// The range could not be read.
    pub(crate) const NOWHERE: Self = Self { offset: IN_SPILL, len: 0 };

    /// `len` bytes of the base from `offset` on.
    ///
    /// If the base is a [`Window`], only that may make it: see [`Window::place`].
    pub(crate) fn in_base(offset: u64, len: u64) -> Self {
        debug_assert!(offset & IN_SPILL == 0 && len <= super::MAX_RANGE);
        Self { offset, len: len as u32 }
    }

    /// `len` copied bytes.
    pub(crate) fn in_spill(offset: usize, len: u64) -> Self {
        debug_assert!(len <= super::MAX_RANGE);
        Self { offset: offset as u64 | IN_SPILL, len: len as u32 }
    }

    /// Whether the bytes were not copied.
    #[cfg(test)]
    pub(crate) fn is_borrowed(self) -> bool {
        self.offset & IN_SPILL == 0
    }
}

/// Reusable buffers for [`super::Image::load`]: one per worker, never shared.
#[derive(Default, Debug)]
pub struct Scratch {
    /// One for each requested range.
    pub(crate) places: Vec<Place>,
    /// Copied bytes: ranges that are not contiguous in the base.
    pub(crate) spill: Vec<u8>,
}

impl Scratch {
    /// Empties it for `ranges` ranges.
    pub(crate) fn begin(&mut self, ranges: usize) {
        self.places.clear();
        self.spill.clear();
        self.places.reserve(ranges);
    }

    /// What was put in it, with places that point into `base`.
    pub(crate) fn unit<'s>(&'s self, base: Base<'s>) -> UnitBytes<'s> {
        UnitBytes { base, spill: &self.spill, places: &self.places }
    }
}

/// Memory that places point into.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Base<'s> {
    start: *const u8,
    len: usize,
    life: PhantomData<&'s [u8]>,
}

impl<'s> Base<'s> {
    /// All is copied.
    pub(crate) const NONE: Self = Self::of(&[]);

    /// Bytes that never change.
    pub(crate) const fn of(bytes: &'s [u8]) -> Self {
        Self { start: bytes.as_ptr(), len: bytes.len(), life: PhantomData }
    }

    /// Frames of which some are still to be filled.
    pub(crate) fn window(window: &'s Window) -> Self {
        Self { start: window.start(), len: window.len(), life: PhantomData }
    }

    /// The bytes of a place that was made for it, and is not in the spilled bytes.
    #[inline]
    pub(crate) fn slice(self, place: Place) -> &'s [u8] {
        let (from, len) = (place.offset as usize, place.len as usize);
        assert!(from <= self.len && len <= self.len - from, "a place outside of its base");
        // SAFETY: inside of the base, as just checked, and that lives as long as 's. Bytes of a slice never change. In a window a place
        // is made only of frames that are filled (`Window::place`), and those are not written again.
        unsafe { std::slice::from_raw_parts(self.start.add(from), len) }
    }
}

/// The bytes of one [`super::Image::load`], in the order of the requested ranges.
#[derive(Copy, Clone, Debug)]
pub struct UnitBytes<'s> {
    base: Base<'s>,
    spill: &'s [u8],
    places: &'s [Place],
}

impl<'s> UnitBytes<'s> {
    /// The bytes of range `i`; empty if the image lacks any byte of it (the caller counts that).
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> &'s [u8] {
        let place = self.places[i];
        if place.offset & IN_SPILL == 0 {
            return self.base.slice(place);
        }
        let from = (place.offset & !IN_SPILL) as usize;
        &self.spill[from..from + place.len as usize]
    }

    /// Copied bytes.
    #[cfg(test)]
    pub(crate) fn spilled(&self) -> usize {
        self.spill.len()
    }

    /// Where range `i` lies.
    #[cfg(test)]
    pub(crate) fn place(&self, i: usize) -> Place {
        self.places[i]
    }
}
