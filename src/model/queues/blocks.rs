//! The blocks that the runtime keeps queued finalizers and cleanups in: a list through `alllink`, in each block a number of records.

use crate::address::{Addr, WORD};
use crate::image::{Image, ReadError};
use crate::model::layout::RuntimeLayout;

/// Bytes of a block of finalizers (`finBlockSize`) and of one of cleanups (`cleanupBlockSize`).
const FIN_BLOCK_SIZE: u64 = 4096;
const CLEANUP_BLOCK_SIZE: u64 = 512;

/// How the blocks of one queue are laid out. All numbers are bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(in crate::model) struct Blocks {
    /// Of a block.
    pub(in crate::model) size: u64,
    /// Offset of the number of records, four bytes.
    pub(in crate::model) count: u64,
    /// Offset of the pointer to the next block.
    pub(in crate::model) next: u64,
    /// Offset of the first record.
    pub(in crate::model) records: u64,
    /// Of a record; at least 1.
    pub(in crate::model) record_size: u64,
}

impl Blocks {
    /// Those of `runtime.allfin`.
    pub(in crate::model) fn finalizers(layout: &RuntimeLayout) -> Self {
        let at = &layout.finblock;
        let record_size = layout.finalizer.size.max(1);
        Self { size: FIN_BLOCK_SIZE, count: at.cnt, next: at.alllink, records: at.fin, record_size }
    }

    /// Those of `runtime.gcCleanups`, if the release has it. Up to Go 1.25 a record is a word.
    pub(in crate::model) fn cleanups(layout: &RuntimeLayout) -> Option<Self> {
        let at = layout.cleanup_block.as_ref()?;
        let record_size = layout.cleanup_fn.as_ref().map_or(WORD, |at| at.size.max(1));
        Some(Self { size: CLEANUP_BLOCK_SIZE, count: at.n, next: at.alllink, records: at.cleanups, record_size })
    }

    /// How many records fit a block.
    pub(in crate::model) fn capacity(&self) -> u64 {
        self.size.saturating_sub(self.records) / self.record_size
    }

    /// What a block says of itself: the address of the next one, 0 at the end, and the number of its records, which may be forged.
    pub(super) fn read(&self, image: &dyn Image, block: Addr) -> Result<(u64, u64), ReadError> {
        Ok((image.read_u64(block.add(self.next))?, image.read_u32(block.add(self.count))?.into()))
    }
}
