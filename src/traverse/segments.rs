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
}

/// Candidates of one worker for one shard.
#[derive(Default, Debug)]
pub struct Segment {
    chunks: Vec<Chunk>,
    runs: Vec<Run>,
}

impl Segment {
    /// Whether there is no candidate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Runs in order of emission.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The candidates of run `i`: target addresses and, if the edge has them, element counts (else empty).
    #[must_use]
    pub fn candidates(&self, i: usize) -> (&[u64], &[u32]) {
        let run = self.runs[i];
        let chunk = &self.chunks[run.chunk as usize];
        let next = self.runs.get(i + 1).filter(|next| next.chunk == run.chunk);
        let addrs = next.map_or(chunk.addrs.len(), |next| next.start as usize);
        let counts = next.map_or(chunk.counts.len(), |next| next.counts as usize);
        (&chunk.addrs[run.start as usize..addrs], &chunk.counts[run.counts as usize..counts])
    }

    /// Appends a candidate; chunks come from `spare` while it has any.
    #[inline]
    pub fn push(&mut self, spare: &mut Vec<Chunk>, key: u64, unit: u32, addr: u64) {
        self.chunk(spare, key, unit).addrs.push(addr);
    }

    /// As [`Segment::push`] for an edge whose candidates have element counts. All candidates of one key have them, or none.
    pub fn push_counted(&mut self, spare: &mut Vec<Chunk>, key: u64, unit: u32, addr: u64, count: u32) {
        let chunk = self.chunk(spare, key, unit);
        chunk.addrs.push(addr);
        chunk.counts.push(count);
    }

    /// A chunk with room whose last run is this key's and unit's.
    #[inline]
    fn chunk(&mut self, spare: &mut Vec<Chunk>, key: u64, unit: u32) -> &mut Chunk {
        let room = self.chunks.last().is_some_and(|chunk| chunk.addrs.len() < CHUNK);
        if !room || self.runs.last().is_none_or(|run| run.key != key || run.unit != unit) {
            self.begin(spare, key, unit, room);
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }

    #[cold]
    fn begin(&mut self, spare: &mut Vec<Chunk>, key: u64, unit: u32, room: bool) {
        if !room {
            let fresh = || Chunk { addrs: Vec::with_capacity(CHUNK), counts: Vec::new() };
            self.chunks.push(spare.pop().unwrap_or_else(fresh));
        }
        let index = self.chunks.len() - 1;
        let chunk = &self.chunks[index];
        // A wave has fewer than 2^32 elements, and memory for fewer chunks.
        let (start, counts) = (chunk.addrs.len() as u32, chunk.counts.len() as u32);
        self.runs.push(Run { key, unit, chunk: index as u32, start, counts });
    }

    /// Gives all chunks back.
    pub fn clear(&mut self, spare: &mut Vec<Chunk>) {
        for mut chunk in self.chunks.drain(..) {
            chunk.addrs.clear();
            chunk.counts.clear();
            if spare.len() < KEPT_CHUNKS {
                spare.push(chunk);
            }
        }
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
        }
        for addr in 0..3 {
            segment.push_counted(&mut spare, 8, 0, addr, addr as u32 + 10);
        }
        segment.push(&mut spare, 7, 1, 99);
        let all = |segment: &Segment| {
            let runs = segment.runs().iter().enumerate();
            runs.map(|(i, run)| (run.key, run.unit, segment.candidates(i).0.to_vec())).collect::<Vec<_>>()
        };
        let runs = all(&segment);
        assert_eq!(
            runs.iter().map(|r| (r.0, r.1, r.2.len())).collect::<Vec<_>>(),
            [(7, 0, 1024), (7, 0, 1024), (7, 0, 452), (8, 0, 3), (7, 1, 1)]
        );
        assert_eq!(runs.iter().take(3).flat_map(|r| r.2.clone()).collect::<Vec<_>>(), (0..2500).collect::<Vec<_>>());
        assert_eq!(segment.candidates(3).1, [10, 11, 12]);
        assert!(segment.candidates(4).1.is_empty());
        segment.clear(&mut spare);
        assert!(segment.is_empty() && spare.len() == 3);
        segment.push(&mut spare, 1, 0, 5);
        assert_eq!((spare.len(), all(&segment)), (2, vec![(1, 0, vec![5])]));
    }
}
