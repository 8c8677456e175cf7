//! Candidates between expand and claim: one segment for each (worker, shard), cut into runs of one key.
//!
//! A level is expanded in address order, so a wave's candidates crowd in a few shards, and in others the next wave. Segments therefore
//! own no memory of their own: they take chunks of a fixed size from their worker and give them back after the wave. (When each
//! segment kept its own vector, they came to hold half of the private memory of a run: perf/notes/0001.)

/// Candidates of a chunk: 8 KiB of addresses, small enough that 256 shards with one chunk each cost 2 MiB a worker.
const CHUNK: usize = 1024;
/// Chunks that a worker keeps between waves: about what a wave of 2^16 elements with a few pointers each needs of two workers.
const KEPT_CHUNKS: usize = 256;
/// Runs that a segment keeps room for.
const KEPT_RUNS: usize = 4096;
/// No edge has this key: the segment has no chunk yet.
const NO_KEY: u64 = u64::MAX;

/// Consecutive candidates of one segment and chunk with the same key.
#[derive(Copy, Clone, Debug)]
pub struct Run {
    /// Edge ordinal of the wave in the high half, dynamic type number in the low one.
    pub key: u64,
    /// Unit that emitted it: orders equal keys.
    pub unit: u32,
    /// Index of the chunk.
    chunk: u32,
    /// First candidate in the chunk.
    start: u32,
    /// First count in the chunk, if the candidates have counts.
    counts: u32,
}

/// Some candidates.
#[derive(Default, Debug)]
pub struct Chunk {
    addrs: Vec<u64>,
    counts: Vec<u32>,
    holders: Vec<u64>,
}

/// The candidates of one run.
#[derive(Copy, Clone, Debug)]
pub struct Candidates<'s> {
    /// Target addresses.
    pub addrs: &'s [u64],
    /// Element counts, empty if the edge has none.
    pub counts: &'s [u32],
    /// Packed holders, empty if nobody asked.
    pub holders: &'s [u64],
}

/// Candidates of one worker for one shard.
#[derive(Debug)]
pub struct Segment {
    /// Key and unit of the last run.
    key: u64,
    unit: u32,
    /// The chunk that is being filled.
    last: Chunk,
    /// The chunks before it.
    full: Vec<Chunk>,
    runs: Vec<Run>,
}

impl Default for Segment {
    fn default() -> Self {
        Self { key: NO_KEY, unit: 0, last: Chunk::default(), full: Vec::new(), runs: Vec::new() }
    }
}

impl Segment {
    /// Whether there is no candidate.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.key == NO_KEY
    }

    /// Runs in order of emission.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The candidates of run `i`.
    #[must_use]
    pub fn candidates(&self, i: usize) -> Candidates<'_> {
        let run = self.runs[i];
        let chunk = self.full.get(run.chunk as usize).unwrap_or(&self.last);
        let next = self.runs.get(i + 1).filter(|next| next.chunk == run.chunk);
        let start = run.start as usize;
        let end = next.map_or(chunk.addrs.len(), |next| next.start as usize);
        let counts_end = next.map_or(chunk.counts.len(), |next| next.counts as usize);
        Candidates {
            addrs: &chunk.addrs[start..end],
            counts: &chunk.counts[run.counts as usize..counts_end],
            // All candidates of a walk have holders, or none.
            holders: chunk.holders.get(start..end).unwrap_or_default(),
        }
    }

    /// Appends a candidate; chunks come from `spare` while it has any.
    #[inline(always)]
    pub fn push(&mut self, spare: &mut Vec<Chunk>, key: u64, unit: u32, addr: u64) {
        if self.key != key || self.unit != unit || self.last.addrs.len() == CHUNK {
            self.begin(spare, key, unit);
        }
        self.last.addrs.push(addr);
    }

    /// Element count of the candidate pushed last. All candidates of one key have one, or none.
    #[inline]
    pub fn count(&mut self, count: u32) {
        self.last.counts.push(count);
    }

    /// Holder of the candidate pushed last.
    #[inline]
    pub fn holder(&mut self, packed: u64) {
        self.last.holders.push(packed);
    }

    #[cold]
    fn begin(&mut self, spare: &mut Vec<Chunk>, key: u64, unit: u32) {
        if self.key == NO_KEY || self.last.addrs.len() == CHUNK {
            let fresh = || Chunk { addrs: Vec::with_capacity(CHUNK), ..Chunk::default() };
            let chunk = std::mem::replace(&mut self.last, spare.pop().unwrap_or_else(fresh));
            if self.key != NO_KEY {
                self.full.push(chunk);
            }
        }
        (self.key, self.unit) = (key, unit);
        // A wave has fewer than 2^32 elements, and memory for fewer chunks.
        let (start, counts) = (self.last.addrs.len() as u32, self.last.counts.len() as u32);
        self.runs.push(Run { key, unit, chunk: self.full.len() as u32, start, counts });
    }

    /// Gives all chunks back.
    pub fn clear(&mut self, spare: &mut Vec<Chunk>) {
        if self.key == NO_KEY {
            return;
        }
        let last = std::mem::take(&mut self.last);
        for mut chunk in self.full.drain(..).chain([last]) {
            chunk.addrs.clear();
            chunk.counts.clear();
            chunk.holders.clear();
            if spare.len() < KEPT_CHUNKS {
                spare.push(chunk);
            }
        }
        self.key = NO_KEY;
        self.runs.clear();
        self.runs.shrink_to(KEPT_RUNS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_keep_order_across_chunks() {
        let (mut segment, mut spare) = (Segment::default(), Vec::new());
        for addr in 0..2500 {
            segment.push(&mut spare, 7, 0, addr);
            segment.holder(addr * 2);
        }
        for addr in 0..3 {
            segment.push(&mut spare, 8, 0, addr);
            segment.count(addr as u32 + 10);
            segment.holder(addr);
        }
        segment.push(&mut spare, 7, 1, 99);
        segment.holder(5);
        let all = |segment: &Segment| {
            let runs = segment.runs().iter().enumerate();
            runs.map(|(i, run)| (run.key, run.unit, segment.candidates(i).addrs.to_vec())).collect::<Vec<_>>()
        };
        let runs = all(&segment);
        assert_eq!(
            runs.iter().map(|r| (r.0, r.1, r.2.len())).collect::<Vec<_>>(),
            [(7, 0, 1024), (7, 0, 1024), (7, 0, 452), (8, 0, 3), (7, 1, 1)]
        );
        assert_eq!(runs.iter().take(3).flat_map(|r| r.2.clone()).collect::<Vec<_>>(), (0..2500).collect::<Vec<_>>());
        assert_eq!(segment.candidates(1).holders, (1024..2048).map(|a| a * 2).collect::<Vec<_>>());
        assert_eq!((segment.candidates(3).counts, segment.candidates(4).holders), (&[10, 11, 12][..], &[5][..]));
        assert!(segment.candidates(4).counts.is_empty());
        segment.clear(&mut spare);
        assert!(segment.is_empty() && spare.len() == 3);
        segment.push(&mut spare, 1, 0, 5);
        assert_eq!((spare.len(), all(&segment)), (2, vec![(1, 0, vec![5])]));
        assert!(segment.candidates(0).holders.is_empty(), "chunks come back empty");
    }
}
