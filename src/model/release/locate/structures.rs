//! Variables that lead to structs of a known shape, all in one pass over static memory: `mheap_` by its list of spans, `allgs`, `allp` and
//! `allm` by what is in them, `buildVersion` and `waitReasonStrings` by their text.
//!
//! The program has lists, too, and memory full of zeros looks like much. So a list is the runtime's only if its elements lead back to each
//! other (`m.g0.m == m`), fit what they describe (a stack pointer inside the stack) and lie as the runtime lays them out (a `p` is ten
//! kilobytes, so two are not neighbours).

use super::words::each_word;
use super::{PAGE_SIZE, SAMPLE, Search};
use crate::address::{Addr, WORD};
use crate::model::chain::Chain;

/// Longer lists are not the runtime's.
const MAX_LIST: u64 = 1 << 32;
/// Threads that are followed.
const MAX_THREADS: u64 = 1 << 20;
/// `_Gscan`, a bit beside a goroutine's status; and the highest status of any release (`_Gdeadextra`).
const G_SCAN: u32 = 0x1000;
const LAST_STATUS: u32 = 11;
/// `waitReasonStrings[1]`, the first that is not empty.
const FIRST_WAIT_REASON: &str = "GC assist marking";
/// Longest text that is compared.
const MAX_TEXT: usize = 256;
/// No stack lies in the first page.
const FIRST_STACK: u64 = 4096;
/// `_TinySize`: what `mcache.tiny` is a multiple of, and `tinyoffset` at most.
const TINY_SIZE: u64 = 16;

/// Addresses known by what lies there; lists with their lengths.
#[derive(Default)]
pub(super) struct Structures {
    pub(super) mheap: Option<u64>,
    pub(super) allgs: Option<(u64, u64)>,
    pub(super) allm: Option<(u64, u64)>,
    pub(super) allp: Option<u64>,
    pub(super) build_version: Option<u64>,
    pub(super) wait_reasons: Option<u64>,
}

impl Search<'_> {
    /// One pass over static memory.
    ///
    /// * `version`: the text of `runtime.buildVersion`.
    pub(super) fn structures(&self, version: &str) -> Structures {
        let mut found = Structures::default();
        for range in self.statics {
            each_word(self.image, range, &mut |at, [pointer, len, cap]| {
                self.strings(at, pointer, len, version, &mut found);
                if !pointer.is_multiple_of(WORD) {
                    return;
                }
                if len > 0 && len <= cap && cap <= MAX_LIST {
                    self.lists(at, pointer, len, &mut found);
                }
                if let Some(n) = self.threads(pointer)
                    && found.allm.is_none_or(|(known, _)| n > known)
                {
                    found.allm = Some((n, at));
                }
            });
        }
        found
    }

    /// What the slice at `at` may be.
    fn lists(&self, at: u64, array: u64, len: u64, found: &mut Structures) {
        let Some(first) = self.word(array, 0).filter(|first| *first != 0 && first.is_multiple_of(WORD)) else { return };
        let mheap = at.wrapping_sub(self.layout.mheap.allspans);
        if found.mheap.is_none() && self.is_span(first) && self.is_mheap(mheap, array, len) {
            found.mheap = Some(mheap);
        } else if self.is_goroutine(first)
            && found.allgs.is_none_or(|(known, _)| len > known)
            && self.sample(array, len, |g, _| self.is_goroutine(g))
            && (0..len.min(SAMPLE)).any(|i| self.word(array, i * WORD).is_some_and(|g| self.is_alive(g)))
        {
            // A collection keeps a copy that may be shorter.
            found.allgs = Some((len, at));
        } else if found.allp.is_none()
            && self.sample(array, len, |p, i| self.is_processor(p, i))
            && self.are_processors(array, len)
        {
            found.allp = Some(at);
        }
    }

    /// Whether the first elements and the last one of a list of pointers are as they should be. A list grows before its last element is
    /// written: that one may still be nil.
    fn sample(&self, array: u64, len: u64, is: impl Fn(u64, u64) -> bool) -> bool {
        let element = |i: u64| {
            let new = i > 0 && i == len - 1;
            self.word(array, i.wrapping_mul(WORD))
                .is_some_and(|element| if element == 0 { new } else { is(element, i) })
        };
        (0..len.min(SAMPLE)).all(element) && element(len - 1)
    }

    fn is_span(&self, span: u64) -> bool {
        let at = &self.layout.mspan;
        let check = || {
            let state = self.byte(span, at.state)?;
            let (start, npages) = (self.word(span, at.start_addr)?, self.word(span, at.npages)?);
            let placed = start != 0 && start.is_multiple_of(PAGE_SIZE) && start < 1 << 48 && npages < 1 << 36;
            // A free one keeps what it was.
            Some(state == 0 || state <= 2 && placed && npages > 0)
        };
        check().unwrap_or(false)
    }

    fn is_mheap(&self, mheap: u64, array: u64, len: u64) -> bool {
        let at = &self.layout.mheap;
        let check = || {
            let sweepgen = self.half(mheap, at.sweepgen)?;
            let pages = self.word(mheap, at.pages_in_use)?;
            let in_use = (0..len.min(SAMPLE)).any(|i| {
                let span = self.word(array, i * WORD).unwrap_or(0);
                self.byte(span, self.layout.mspan.state).is_some_and(|state| state == 1)
            });
            Some(sweepgen.is_multiple_of(2) && pages > 0 && pages < 1 << 36 && in_use)
        };
        check().unwrap_or(false) && self.sample(array, len, |span, _| self.is_span(span))
    }

    fn status(&self, g: u64) -> Option<u32> {
        Some(self.half(g, self.layout.g.atomicstatus)? & !G_SCAN)
    }

    fn is_goroutine(&self, g: u64) -> bool {
        let at = &self.layout.g;
        let check = || {
            let (low, high) = (self.word(g, at.stack_lo)?, self.word(g, at.stack_hi)?);
            let stack = low >= FIRST_STACK && low < high && high - low <= 1 << 40 && low.is_multiple_of(1024);
            let m = self.word(g, at.m)?;
            let thread = m == 0 || self.word(m, self.layout.m.g0)? != 0;
            // All of it is there.
            self.word(g, at.size.saturating_sub(WORD))?;
            // A dead one may have lost its stack.
            let placed = stack || (low, high) == (0, 0);
            Some(placed && thread && self.status(g)? <= LAST_STATUS && self.word(g, at.goid)? < 1 << 48)
        };
        check().unwrap_or(false)
    }

    /// Whether a goroutine runs, waits or may run, and has left off somewhere in its stack: memory full of zeros looks like one that
    /// does not. One that runs may have left off nowhere; but those of the runtime itself, which are first in the list, wait.
    fn is_alive(&self, g: u64) -> bool {
        let at = &self.layout.g;
        let word = |field| self.word(g, field).unwrap_or(0);
        let stack = word(at.stack_lo)..=word(at.stack_hi);
        let status = self.status(g).unwrap_or(0);
        word(at.goid) != 0 && word(at.sched_sp) != 0 && stack.contains(&word(at.sched_sp)) && (1..=4).contains(&status)
    }

    fn is_processor(&self, p: u64, index: u64) -> bool {
        let (at, cache) = (&self.layout.p, &self.layout.mcache);
        let check = || {
            let mcache = self.word(p, at.mcache)?;
            let (tiny, offset) = (self.word(mcache, cache.tiny)?, self.word(mcache, cache.tinyoffset)?);
            // All of both is there.
            self.word(p, at.size.saturating_sub(WORD))?;
            self.word(mcache, cache.size.saturating_sub(WORD))?;
            let known = u64::from(self.half(p, at.id?)?) == index && self.half(p, at.status?)? <= 4;
            let block = tiny.is_multiple_of(TINY_SIZE) && offset <= TINY_SIZE;
            Some(known && mcache != 0 && mcache.is_multiple_of(WORD) && block)
        };
        check().unwrap_or(false)
    }

    /// Whether what looks like processors may be processors side by side: neither they nor their caches overlap.
    fn are_processors(&self, array: u64, len: u64) -> bool {
        let processors: Vec<u64> = (0..len.min(SAMPLE)).filter_map(|i| self.word(array, i * WORD)).collect();
        let caches = processors.iter().filter_map(|p| self.word(*p, self.layout.p.mcache)).collect();
        let apart = |mut structs: Vec<u64>, size: u64| {
            structs.sort_unstable();
            structs.windows(2).all(|two| two[1] - two[0] >= size)
        };
        apart(processors, self.layout.p.size) && apart(caches, self.layout.mcache.size)
    }

    /// The number of threads if `m` is one, in a list (`m.alllink`) whose last is the first thread, a static variable.
    pub(super) fn threads(&self, m: u64) -> Option<u64> {
        let mut chain = Chain::new(m);
        let mut n = 0;
        let mut last = 0;
        while let Some(m) = chain.current() {
            n += 1;
            last = m;
            if !self.is_thread(m) || n > MAX_THREADS || !chain.advance(self.word(m, self.layout.m.alllink)?) {
                return None;
            }
        }
        self.is_static(last).then_some(n)
    }

    /// Whether one of the two goroutines that every thread has leads back to it. A new thread is in the list before it has `g0`
    /// (`allocm`), and one that ends is there without `gsignal` (`mexit`).
    fn is_thread(&self, m: u64) -> bool {
        [self.layout.m.g0, self.layout.m.gsignal].into_iter().any(|field| {
            let own = self.word(m, field).filter(|g| *g != 0 && g.is_multiple_of(WORD));
            own.and_then(|g| self.word(g, self.layout.g.m)) == Some(m)
        })
    }

    /// What the string at `at` may be.
    fn strings(&self, at: u64, data: u64, len: u64, version: &str, found: &mut Structures) {
        let is = |text: &str| {
            let mut bytes = [0; MAX_TEXT];
            len == text.len() as u64
                && bytes
                    .get_mut(..text.len())
                    .is_some_and(|bytes| self.image.read(Addr(data), bytes).is_ok() && *bytes == *text.as_bytes())
        };
        if found.build_version.is_none() && is(version) {
            found.build_version = Some(at);
        } else if found.wait_reasons.is_none() && is(FIRST_WAIT_REASON) {
            found.wait_reasons = Some(at.wrapping_sub(2 * WORD));
        }
    }
}
