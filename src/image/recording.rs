//! [`RecordingImage`]: any image, and a note of which parts of some memory are read: the rest can be left out of a capture.

use std::sync::{Mutex, OnceLock, PoisonError};

use rustc_hash::FxHashSet;

use super::{Image, Missing, ReadError, Scratch, UnitBytes};
use crate::address::{Addr, AddrRange};

/// Memory that is watched.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Where it is.
    pub range: AddrRange,
    /// Bytes that are read or not as a whole, counted from the start of `range`; not 0.
    pub unit: u64,
}

/// An image that notes what is read.
pub struct RecordingImage<'a> {
    inner: &'a dyn Image,
    watched: OnceLock<Vec<Watched>>,
    read: Mutex<FxHashSet<AddrRange>>,
}

impl<'a> RecordingImage<'a> {
    /// Wraps `inner`; notes nothing before [`RecordingImage::watch`].
    #[must_use]
    pub fn new(inner: &'a dyn Image) -> Self {
        Self { inner, watched: OnceLock::new(), read: Mutex::default() }
    }

    /// Begins to note.
    ///
    /// * `watched`: in address order, not overlapping; the first call counts.
    pub fn watch(&self, watched: Vec<Watched>) {
        self.watched.get_or_init(|| watched);
    }

    /// What of the watched memory was not read so far, in address order, neighbours joined.
    #[must_use]
    pub fn unread(&self) -> Vec<AddrRange> {
        let mut read: Vec<AddrRange> =
            self.read.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        read.sort_unstable_by_key(|range| range.start);
        let mut all: Vec<AddrRange> = Vec::new();
        for watched in self.watched.get().into_iter().flatten() {
            match all.last_mut() {
                Some(last) if last.end() == watched.range.start => last.len += watched.range.len,
                _ => all.push(watched.range),
            }
        }
        without(&all, &read)
    }

    fn note(&self, range: AddrRange) {
        let Some(watched) = self.watched.get() else { return };
        let from = watched.partition_point(|w| w.range.end() <= range.start);
        for w in watched[from..].iter().take_while(|w| w.range.start < range.end()) {
            let first = range.start.0.saturating_sub(w.range.start.0);
            let end = range.end().min(w.range.end()).0 - w.range.start.0;
            let first = first - first % w.unit;
            let end = end.checked_next_multiple_of(w.unit).map_or(w.range.len, |end| end.min(w.range.len));
            let units = AddrRange { start: w.range.start.add(first), len: end - first };
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(units);
        }
    }
}

impl Image for RecordingImage<'_> {
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        ranges.iter().for_each(|range| self.note(*range));
        self.inner.load(ranges, scratch)
    }

    fn load_once<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        ranges.iter().for_each(|range| self.note(*range));
        self.inner.load_once(ranges, scratch)
    }

    fn present(&self, ranges: &[AddrRange]) -> Vec<bool> {
        self.inner.present(ranges)
    }

    fn read(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.note(AddrRange { start: addr, len: buf.len() as u64 });
        self.inner.read(addr, buf)
    }

    fn missing(&self) -> &Missing {
        self.inner.missing()
    }
}

impl std::fmt::Debug for RecordingImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordingImage")
    }
}

/// What is left of `ranges` without `holes`; both sorted by their starts, `ranges` do not overlap.
#[must_use]
pub fn without(ranges: &[AddrRange], holes: &[AddrRange]) -> Vec<AddrRange> {
    let mut left = Vec::new();
    // Holes before this one end before the range.
    let mut from = 0;
    for range in ranges {
        let mut at = range.start;
        while holes.get(from).is_some_and(|h| h.end() <= range.start) {
            from += 1;
        }
        for hole in holes[from..].iter().take_while(|h| h.start < range.end()) {
            left.push(AddrRange::from_bounds(at, hole.start));
            at = at.max(hole.end());
        }
        left.push(AddrRange::from_bounds(at, range.end()));
    }
    left.retain(|r| r.len > 0);
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Base;

    fn range((start, end): (u64, u64)) -> AddrRange {
        AddrRange::from_bounds(Addr(start), Addr(end))
    }

    fn pairs(ranges: &[AddrRange]) -> Vec<(u64, u64)> {
        ranges.iter().map(|r| (r.start.0, r.end().0)).collect()
    }

    #[test]
    fn holes_are_cut_out() {
        let cut = |ranges: &[(u64, u64)], holes: &[(u64, u64)]| {
            let list = |l: &[(u64, u64)]| l.iter().map(|r| range(*r)).collect::<Vec<_>>();
            pairs(&without(&list(ranges), &list(holes)))
        };
        assert_eq!(cut(&[(10, 20), (30, 40)], &[]), [(10, 20), (30, 40)]);
        assert_eq!(
            cut(&[(10, 20), (30, 40)], &[(0, 12), (15, 16), (18, 33), (39, 50)]),
            [(12, 15), (16, 18), (33, 39)]
        );
        assert_eq!(cut(&[(10, 20), (20, 30)], &[(5, 25)]), [(25, 30)]);
        // One in another.
        assert_eq!(cut(&[(10, 90)], &[(20, 60), (30, 40)]), [(10, 20), (60, 90)]);
    }

    struct Nothing(Missing);

    impl Image for Nothing {
        fn load<'s>(&'s self, _: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
            scratch.unit(Base::NONE)
        }

        fn read(&self, addr: Addr, _: &mut [u8]) -> Result<(), ReadError> {
            Err(ReadError::Unmapped(addr))
        }

        fn missing(&self) -> &Missing {
            &self.0
        }
    }

    #[test]
    fn what_is_read_is_noted_in_whole_units() {
        let nothing = Nothing(Missing::default());
        let image = RecordingImage::new(&nothing);
        assert!(image.read(Addr(0), &mut [0]).is_err());
        let watched = |(start, end), unit| Watched { range: range((start, end)), unit };
        image.watch(vec![watched((100, 200), 16), watched((200, 300), 50), watched((1000, 2000), 1000)]);
        assert_eq!(pairs(&image.unread()), [(100, 300), (1000, 2000)]);
        let _ = image.read(Addr(130), &mut [0; 4]);
        let _ = image
            .load(&[range((190, 201)), range((400, 500)), range((u64::MAX - 4, u64::MAX))], &mut Scratch::default());
        assert_eq!(pairs(&image.unread()), [(100, 116), (148, 180), (250, 300), (1000, 2000)]);
        let _ = image.read(Addr(0), &mut [0; 5000]);
        assert_eq!(pairs(&image.unread()), []);
    }
}
