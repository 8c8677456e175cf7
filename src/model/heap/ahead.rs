//! Fetches from the disk what a walk is about to read, if it is not in the page cache: in the order of the file, ahead of the walk.
//!
//! A walk reads the heap in the order of its levels. On a cold cache each of its first looks at a page is a wait for the disk, and the
//! kernel's guess of what comes next is wrong. Fetching in the order of the file is as fast as the disk can be, and
//! the walk's large levels come late enough to find most pages there (perf/notes/0004).

use super::{Heap, PAGE_SIZE, SpanId};
use crate::address::{Addr, AddrRange};
use crate::image::Image;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Spans that are looked at to tell whether the core is cached.
const SAMPLES: usize = 64;
/// A page that takes longer comes from a disk: mapping a cached one takes a microsecond or two.
const SLOW: Duration = Duration::from_micros(40);
/// So many slow samples are no accident.
const MANY_SLOW: usize = 3;
/// Holes up to this length are fetched too: skipping them saves no time.
const HOLE: u64 = 512 << 10;
/// Bytes of one request.
const REQUEST: u64 = 4 << 20;

impl Heap {
    /// Runs `f`, which reads the heap and the stacks between its spans, and asks for that memory ahead of it unless it seems to be at
    /// hand. Changes no answer, only when pages come.
    pub fn while_fetching<T>(&self, image: &dyn Image, f: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Without a thread the pages come when they are read.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || self.fetch_ahead(image, &stop));
            let result = f();
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    /// Asks for all memory with pointers. Returns when all is asked for, or soon after `stop` is set.
    fn fetch_ahead(&self, image: &dyn Image, stop: &AtomicBool) {
        if !image.is_stored() || self.seems_cached(image) {
            return;
        }
        for range in requests(self.memory_with_pointers()) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            image.will_need(range);
        }
    }

    /// Spans with pointers, in address order.
    fn memory_with_pointers(&self) -> impl Iterator<Item = AddrRange> {
        let spans = self.spans.iter().zip(&self.details).filter(|(span, _)| !span.noscan());
        spans.map(|(span, details)| AddrRange { start: Addr(span.start), len: details.npages * PAGE_SIZE })
    }

    fn seems_cached(&self, image: &dyn Image) -> bool {
        let mut slow = 0;
        for i in (0..self.spans.len()).step_by(self.spans.len().div_ceil(SAMPLES).max(1)) {
            let span = self.span(SpanId(i as u32));
            let start = Instant::now();
            // Unreadable memory is not worth fetching, and what it says is not asked.
            let _ = image.read_u8(Addr(span.start));
            slow += usize::from(start.elapsed() > SLOW);
            if slow >= MANY_SLOW {
                return false;
            }
        }
        true
    }
}

/// Joins neighbouring ranges and cuts the result into pieces of about [`REQUEST`].
fn requests(ranges: impl Iterator<Item = AddrRange>) -> impl Iterator<Item = AddrRange> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut request = ranges.next()?;
        while request.len < REQUEST
            && let Some(next) = ranges.next_if(|next| next.start.0.saturating_sub(request.end().0) <= HOLE)
        {
            request.len = next.end().0.saturating_sub(request.start.0);
        }
        Some(request)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_request() {
        let range = |start: u64, len: u64| AddrRange { start: Addr(start), len };
        let far = 100 << 20;
        let ranges = [
            range(0, 8192),
            range(8192, 8192),
            range(8192 * 3, 8192),
            range(far, 3 << 20),
            range(far + (4 << 20), 2 << 20),
        ];
        let all: Vec<_> = requests(ranges.into_iter()).collect();
        assert_eq!(all, [range(0, 8192 * 4), range(far, 3 << 20), range(far + (4 << 20), 2 << 20)]);
        let long: Vec<_> = requests((0..2048).map(|i| range(i * 8192, 8192))).collect();
        assert_eq!(long, [0, 1, 2, 3].map(|i| range(i * REQUEST, REQUEST)));
    }
}
