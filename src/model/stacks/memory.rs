//! The words of one goroutine stack, loaded once.

/// Bytes `[base, base + bytes.len())` of a stack; addresses are hostile.
#[derive(Copy, Clone, Debug)]
pub struct StackMemory<'s> {
    base: u64,
    bytes: &'s [u8],
}

impl<'s> StackMemory<'s> {
    /// `bytes` loaded from address `base`.
    #[must_use]
    pub const fn new(base: u64, bytes: &'s [u8]) -> Self {
        Self { base, bytes }
    }

    /// First address.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// One past the last address.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.base.saturating_add(self.bytes.len() as u64)
    }

    /// The word at `addr`; `None` unless all of it was loaded.
    #[inline]
    #[must_use]
    pub fn word(&self, addr: u64) -> Option<u64> {
        let from = usize::try_from(addr.checked_sub(self.base)?).ok()?;
        let bytes = self.bytes.get(from..from.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}
