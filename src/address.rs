//! Addresses of the dumped process: newtypes shared by every stage.

use std::fmt;

/// Bytes in a machine word of the target. Only 64-bit little-endian targets are supported.
pub const WORD: u64 = 8;

/// A virtual address in the dumped process. Hostile: may hold any value read from the image.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr(pub u64);

impl Addr {
    /// The nil pointer.
    pub const NULL: Self = Self(0);

    /// `self + by`, wrapping: a sum that wraps is simply not mapped and fails where it is read.
    #[must_use]
    pub const fn add(self, by: u64) -> Self {
        Self(self.0.wrapping_add(by))
    }

    /// `self + by` for a signed displacement, wrapping like [`Addr::add`].
    #[must_use]
    pub const fn offset(self, by: i64) -> Self {
        Self(self.0.wrapping_add_signed(by))
    }

    /// True for address 0.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// `len` bytes from `start`. The end may not wrap: [`AddrRange::end`] saturates.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct AddrRange {
    /// First byte.
    pub start: Addr,
    /// Length in bytes.
    pub len: u64,
}

impl AddrRange {
    /// The range `[start, end)`, empty if `end <= start`.
    #[must_use]
    pub const fn from_bounds(start: Addr, end: Addr) -> Self {
        Self { start, len: end.0.saturating_sub(start.0) }
    }

    /// One past the last byte, saturating at the top of the address space.
    #[must_use]
    pub const fn end(self) -> Addr {
        Addr(self.start.0.saturating_add(self.len))
    }

    /// Whether `addr` lies inside.
    #[must_use]
    pub const fn contains(self, addr: Addr) -> bool {
        addr.0 >= self.start.0 && addr.0 - self.start.0 < self.len
    }
}
