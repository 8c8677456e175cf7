//! The read-only file mapping: the one place that maps files, and the one `unsafe` of the image stage.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;

use memmap2::{Advice, Mmap};

use crate::error::{Context, Error, Result};

/// A whole file, mapped read-only.
#[derive(Debug)]
pub struct FileMap {
    map: Mmap,
}

/// What to do about an empty file.
pub(super) const EMPTY: &str = "copy or dump it again, where there is room for all of it";

impl FileMap {
    /// Maps `file` as it is now; later growth is not seen.
    ///
    /// * `what`: names the file in messages.
    pub(crate) fn new(file: &File, what: &str) -> Result<Self> {
        let len = file.metadata().context(|| format!("{what}: cannot read the file size"))?.len();
        if len == 0 {
            return Err(Error::new(format!("{what}: the file is empty")).remedy(EMPTY));
        }
        // SAFETY: opened read-only; the map outlives every borrow because `Inputs` owns it and hands out borrows of itself. Nobody
        // can promise that the file is not truncated or rewritten meanwhile: that gives SIGBUS or wrong bytes. The checks of length
        // and mtime in `Inputs::verify_unchanged` narrow this, not close it. Temporary files are unlinked, so nobody else finds them.
        let map = unsafe { Mmap::map(file) }.context(|| format!("{what}: cannot map {len} bytes"))?;
        Ok(Self { map })
    }

    /// Tells the kernel that `offset..offset + len` will be read in random order (no read-ahead).
    pub fn advise_random(&self, offset: u64, len: u64) {
        self.advise(Advice::Random, offset, len);
    }

    /// Tells the kernel that `offset..offset + len` will be read in address order (more read-ahead).
    pub fn advise_sequential(&self, offset: u64, len: u64) {
        self.advise(Advice::Sequential, offset, len);
    }

    /// Starts reading `offset..offset + len` in the background.
    pub fn advise_will_need(&self, offset: u64, len: u64) {
        self.advise(Advice::WillNeed, offset, len);
    }

    /// Advice only changes speed, so a kernel that refuses it is no error.
    fn advise(&self, advice: Advice, offset: u64, len: u64) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.map.len());
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.map.len() - offset);
        if len > 0 {
            let _ = self.map.advise_range(advice, offset, len);
        }
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
