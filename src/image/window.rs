//! [`Window`]: a reservation that becomes a copy of another memory, frame by frame, each when it is first asked for.
//!
//! What was copied is lent out like the bytes of a mapped core, so nothing is copied twice and nothing is looked up but one byte of state
//! per frame. Frames never leave: whoever fills it gives a budget, and reads what is beyond it in another way.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::unit::Place;

/// Bytes of a frame, what is copied at a time, at least: a page of Go, so that memory without pointers is not copied along.
pub(crate) const FRAME: usize = 8 << 10;

/// Nobody asked for it.
const ABSENT: u8 = 0;
/// Somebody copies it.
const FILLING: u8 = 1;
/// It is there, and never written again.
const PRESENT: u8 = 2;
/// It could not be copied.
const BROKEN: u8 = 3;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Window {
    map: MmapRaw,
    /// One of the above for each frame.
    frames: Box<[AtomicU8]>,
    /// Bytes that may still be taken.
    budget: AtomicI64,
}

impl Window {
    /// * `len`: bytes; costs address space only.
    /// * `budget`: bytes of memory that it may take.
    ///
    /// `None` if the system refuses.
    pub(crate) fn reserve(len: u64, budget: u64) -> Option<Self> {
        let len = usize::try_from(len).ok()?.checked_next_multiple_of(FRAME)?;
        // No huge pages: to find them the kernel may move memory about for seconds (perf/notes/0009).
        let map: MmapRaw = MmapOptions::new().len(len).no_reserve_swap().map_anon().ok()?.into();
        let budget = AtomicI64::new(i64::try_from(budget).unwrap_or(i64::MAX));
        Some(Self { map, frames: zeros(len / FRAME), budget })
    }

    pub(super) fn start(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// `len` bytes at `at`, if they are there.
    #[inline]
    pub(crate) fn place(&self, at: u64, len: u64) -> Option<Place> {
        let (first, end) = self.frames_of(at, len)?;
        let present = self.frames[first..end].iter().all(|f| f.load(Ordering::Acquire) == PRESENT);
        present.then(|| Place::in_base(at, len))
    }

    /// Whether it may take another frame.
    pub(crate) fn has_room(&self) -> bool {
        self.budget.load(Ordering::Relaxed) >= FRAME as i64
    }

    fn frames_of(&self, at: u64, len: u64) -> Option<(usize, usize)> {
        let end = at.checked_add(len).filter(|end| *end <= self.map.len() as u64 && len > 0)?;
        Some((at as usize / FRAME, (end as usize).div_ceil(FRAME)))
    }

    /// Copies what is absent of `len` bytes at `at`, unless another is just doing that, as far as the budget goes.
    ///
    /// * `read`: copies the bytes at an offset of the window; false if it cannot.
    #[cold]
    pub(crate) fn fill(&self, at: u64, len: u64, read: impl Fn(u64, &mut [u8]) -> bool) {
        self.fill_those(&[ABSENT], at, len, read);
    }

    fn fill_those(&self, states: &[u8], at: u64, len: u64, read: impl Fn(u64, &mut [u8]) -> bool) {
        let Some((mut at, end)) = self.frames_of(at, len) else { return };
        while at < end {
            let from = at;
            while at < end && states.iter().any(|state| self.claim(at, *state)) {
                at += 1;
            }
            if from == at {
                at += 1;
                continue;
            }
            // SAFETY: inside of the map. Nobody else has these bytes: they are no part of a place before their frames are PRESENT, which
            // they stay, and only who made a frame FILLING gets here with it.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(from * FRAME), (at - from) * FRAME) };
            let mut filling = Filling { frames: &self.frames[from..at], becomes: BROKEN };
            if read((from * FRAME) as u64, bytes) {
                filling.becomes = PRESENT;
            }
        }
    }

    /// As [`Window::fill`], tries again what could not be copied before, and waits for what others are just copying.
    #[cold]
    pub(crate) fn fill_all(&self, at: u64, len: u64, read: impl Fn(u64, &mut [u8]) -> bool) {
        self.fill_those(&[ABSENT, BROKEN], at, len, read);
        let Some((first, end)) = self.frames_of(at, len) else { return };
        for frame in &self.frames[first..end] {
            while frame.load(Ordering::Acquire) == FILLING {
                std::thread::yield_now();
            }
        }
    }

    /// From now on it may take all that it needs.
    pub(crate) fn lift_budget(&self) {
        self.budget.store(i64::MAX, Ordering::Relaxed);
    }

    /// Whether the frame, if it is in that state, is now the caller's to fill.
    fn claim(&self, frame: usize, state: u8) -> bool {
        let frame = &self.frames[frame];
        if frame.load(Ordering::Relaxed) != state || !self.has_room() {
            return false;
        }
        let claimed = frame.compare_exchange(state, FILLING, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if claimed {
            // Those who take the last of it at once take a frame each too much, not more.
            self.budget.fetch_sub(FRAME as i64, Ordering::Relaxed);
        }
        claimed
    }
}

/// Frames that somebody fills. However that ends, nobody waits for them for ever.
struct Filling<'w> {
    frames: &'w [AtomicU8],
    becomes: u8,
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        self.frames.iter().for_each(|frame| frame.store(self.becomes, Ordering::Release));
    }
}

/// Zeroed by the system when first touched: most of a large window's frames never are.
fn zeros(len: usize) -> Box<[AtomicU8]> {
    let bytes: Box<[u8]> = vec![0u8; len].into();
    let raw = Box::into_raw(bytes);
    // SAFETY: AtomicU8 has the size, alignment and bit validity of u8, and the box is ours alone.
    unsafe { Box::from_raw(raw as *mut [AtomicU8]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unit::Base;

    const FRAME64: u64 = FRAME as u64;
    const FRAMES: u64 = 100;

    fn window(budget: u64) -> Window {
        Window::reserve(FRAMES * FRAME64, budget).expect("address space")
    }

    /// A byte for an offset.
    fn byte(at: u64) -> u8 {
        (at % 251) as u8
    }

    fn copy(at: u64, bytes: &mut [u8]) -> bool {
        bytes.iter_mut().zip(at..).for_each(|(b, at)| *b = byte(at));
        true
    }

    /// Whether the bytes are there; they are right then.
    fn has(window: &Window, at: u64, len: u64) -> bool {
        window.place(at, len).is_some_and(|place| {
            let bytes = Base::window(window).slice(place);
            assert_eq!(bytes.len() as u64, len);
            assert!(bytes.iter().zip(at..).all(|(b, at)| *b == byte(at)), "{at} {len}");
            true
        })
    }

    #[test]
    fn frames_are_copied_once() {
        let window = window(u64::MAX);
        let calls = AtomicI64::new(0);
        let fill = |at: u64, len: u64| {
            window.fill(at, len, |at, bytes| {
                calls.fetch_add(1, Ordering::Relaxed);
                copy(at, bytes)
            });
            assert!(has(&window, at, len), "{at} {len}");
        };
        assert!(!has(&window, FRAME64 + 5, 100));
        fill(FRAME64 + 5, 100);
        fill(FRAME64, FRAME64);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert!(!has(&window, 3, 3 * FRAME64));
        // Frame 1 is there: one call before it, one behind.
        fill(3, 3 * FRAME64);
        assert_eq!(calls.load(Ordering::Relaxed), 3);
        fill(FRAMES * FRAME64 - 1, 1);
        for (at, len) in [(FRAMES * FRAME64 - 1, 2), (u64::MAX, 2), (0, 0), (FRAMES * FRAME64, 1)] {
            window.fill(at, len, copy);
            assert!(window.place(at, len).is_none(), "{at} {len}");
        }
    }

    #[test]
    fn nothing_beyond_the_budget_and_nothing_that_cannot_be_copied() {
        let window = window(3 * FRAME64 + 5);
        let frame = |i: u64| i * FRAME64;
        window.fill(frame(3), 8, |_, _| false);
        window.fill(frame(3), 8, copy);
        assert!(!has(&window, frame(3), 8), "asked once");
        window.fill(frame(7), frame(3), copy);
        assert!(has(&window, frame(7), frame(2)) && !has(&window, frame(9), 1));
        window.lift_budget();
        window.fill_all(0, FRAMES * FRAME64, copy);
        assert!(has(&window, 0, FRAMES * FRAME64), "also what was broken");
    }

    #[test]
    fn who_waits_for_others_gets_all() {
        let window = window(u64::MAX);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..FRAMES - 8 {
                        window.fill_all(i * FRAME64, 8 * FRAME64, |at, bytes| {
                            std::thread::yield_now();
                            copy(at, bytes)
                        });
                        assert!(has(&window, i * FRAME64, 8 * FRAME64), "{i}");
                    }
                });
            }
        });
    }

    #[test]
    fn many_ask_at_once() {
        let window = window(u64::MAX);
        let found: u64 = std::thread::scope(|scope| {
            let ask = |seed: u64| {
                let window = &window;
                scope.spawn(move || {
                    let mut found = 0;
                    for i in 0..20_000u64 {
                        let at = (i * 7919 + seed * 104_729) * 64 % (FRAMES * FRAME64 - 4096);
                        window.fill(at, 4096, copy);
                        found += u64::from(has(window, at, 4096));
                    }
                    found
                })
            };
            let threads: Vec<_> = (0..4).map(ask).collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).sum()
        });
        // The others were being copied just then.
        assert!(found > 70_000, "{found}");
    }
}
