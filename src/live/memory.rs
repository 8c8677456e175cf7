//! [`LiveImage`]: the memory of a process that stands still.
//!
//! A call into the kernel costs as much as copying a few kilobytes, so what is asked for in small ranges is copied once, with all that lies
//! around it, into a [`Window`], and lent out from there like the bytes of a core. It never gets stale: the process does not run. Large
//! ranges, frames that one unit of work asks for almost whole, and all when the window has taken its part of the machine's memory, are copied
//! for that unit: [`Image::load`] lays them out in one buffer, used again by the next unit, and joins those that are near.
//!
//! If the process is to go on, what it may write is copied into the window before ([`LiveImage::copy`]), and what is asked for later comes
//! there too, from where it is then ([`Uncopied`]).

use std::sync::OnceLock;

use rayon::prelude::*;

use super::pages::Pages;
use super::proc::Mapping;
use super::reader::Reader;
use super::uncopied::Uncopied;
use crate::address::{Addr, AddrRange};
use crate::error::{Error, Result};
use crate::image::window::{FRAME, Window};
use crate::image::{Base, Image, MAX_RANGE, MAX_SPILL, Missing, Place, ReadError, Scratch, UnitBytes};

/// Ranges above are read for themselves: nothing else lies in their frames.
const LARGE: u64 = 4 * FRAME as u64;

/// Bytes that are copied into the window by one call, about: enough for many ranges, not so much that it is all of a small process.
const AT_ONCE: u64 = 1 << 20;

/// Of frames of which this much is asked for at once, in percent, little is left that could be asked for later: reading that again costs
/// less than memory of ours for all of it (perf/notes/0009).
const ALMOST_ALL: u64 = 75;

/// A hole that is read along: cheaper than another piece, for which the kernel looks its page up again.
const HOLE: u64 = 2048;

/// Bytes of address space that the window may have, and that one of its parts may have: more is no heap, but the shadow of a race detector.
const MOST_WINDOW: u64 = 1 << 42;
const MOST_PART: u64 = 1 << 40;

/// The memory of a stopped or frozen process.
#[derive(Debug)]
pub struct LiveImage {
    reader: Reader,
    /// What can be read, sorted, neighbours joined.
    parts: Vec<Part>,
    window: Option<Window>,
    /// Set once the process may go on: what it can write is in the window then.
    uncopied: OnceLock<Uncopied>,
    mappings: Vec<Mapping>,
    missing: Missing,
}

/// Memory without holes.
#[derive(Copy, Clone, Debug)]
struct Part {
    range: AddrRange,
    /// Where it lies in the window.
    at: Option<u64>,
}

impl Part {
    fn holds(&self, range: AddrRange) -> bool {
        self.range.start <= range.start
            && range.len <= self.range.len
            && range.start.0 - self.range.start.0 <= self.range.len - range.len
    }

    /// Of frames that begin at `offset` of a window, in which the part begins at `at`, the bytes that belong to it, and their address: those
    /// at its ends reach beyond it.
    fn within<T>(&self, at: u64, offset: u64, bytes: &mut [u8], then: impl FnOnce(u64, &mut [u8]) -> T) -> T {
        let (start, end) = (offset.max(at), (offset + bytes.len() as u64).min(at + self.range.len));
        then(self.range.start.0 + (start - at), &mut bytes[(start - offset) as usize..(end - offset) as usize])
    }
}

/// Bytes of address space that a window for all that can be read takes.
pub(super) fn space(mappings: &[Mapping]) -> u64 {
    parts(mappings).1
}

/// Lays out what can be read; returns the length of a window for it as well.
fn parts(mappings: &[Mapping]) -> (Vec<Part>, u64) {
    let mut parts: Vec<Part> = Vec::new();
    for mapping in mappings.iter().filter(|m| m.is_readable() && !m.is_special()) {
        match parts.last_mut() {
            Some(last) if last.range.end() == mapping.range.start => last.range.len += mapping.range.len,
            _ => parts.push(Part { range: mapping.range, at: None }),
        }
    }
    let mut len = 0u64;
    for part in &mut parts {
        // No frame is shared by two, and addresses and offsets are aligned alike.
        let at = len + part.range.start.0 % FRAME as u64;
        if part.range.len <= MOST_PART && at + part.range.len <= MOST_WINDOW {
            part.at = Some(at);
            len = (at + part.range.len).next_multiple_of(FRAME as u64);
        }
    }
    (parts, len)
}

impl LiveImage {
    /// * `mappings`: of the process; it must stand still as long as this is used.
    /// * `budget`: bytes that may be kept of it.
    /// * `longest`: bytes of address space that may be reserved for that; what would take more is not kept.
    pub(super) fn new(reader: Reader, mappings: &[Mapping], budget: u64, longest: u64) -> Self {
        let (parts, len) = parts(mappings);
        let window = if len <= longest { Window::reserve(len, budget) } else { None };
        let uncopied = OnceLock::new();
        Self { reader, parts, window, uncopied, mappings: mappings.to_vec(), missing: Missing::default() }
    }

    /// Copies all that the process may write, so that it may go on.
    ///
    /// * `unneeded`: ranges that will not be read any more, or in which only what never changes will be, sorted. They are read from
    ///   the process.
    ///
    /// # Errors
    /// There is no address space for a copy.
    pub fn copy(&self, unneeded: &[AddrRange]) -> Result<()> {
        let Some(window) = &self.window else {
            let bytes: u64 = self.parts.iter().map(|part| part.range.len).sum();
            return Err(Error::new(format!(
                "process {}: cannot reserve {bytes} bytes of address space to copy its memory",
                self.reader.pid()
            ))
            .remedy(
                "raise the limit of goref-fast (ulimit -v, ulimit -d; vm.overcommit_ratio if vm.overcommit_memory is 2), or use --pause whole",
            ));
        };
        let pages = Pages::open(self.reader.pid());
        let (uncopied, pieces) = Uncopied::new(self.reader.pid(), &self.mappings, pages.as_ref(), unneeded);
        window.lift_budget();
        pieces.into_par_iter().flat_map_iter(|piece| uncopied.to_copy(piece, pages.as_ref())).for_each(|range| {
            if let Some((part, at)) = self.part(range).and_then(|part| Some((part, part.at?))) {
                window.fill_all(at + (range.start.0 - part.range.start.0), range.len, |offset, bytes| {
                    part.within(at, offset, bytes, |addr, bytes| {
                        self.reader.what_can_be(addr, bytes);
                        true
                    })
                });
            }
        });
        // The first one stays: there is no second.
        let _ = self.uncopied.set(uncopied);
        Ok(())
    }

    /// The part that holds all of `range`.
    fn part(&self, range: AddrRange) -> Option<&Part> {
        let after = self.parts.partition_point(|part| part.range.start <= range.start);
        self.parts.get(after.checked_sub(1)?).filter(|part| part.holds(range))
    }

    /// A place of a range in the window, if it was copied.
    #[inline]
    fn in_window(&self, part: &Part, range: AddrRange) -> Option<Place> {
        let (window, at) = (self.window.as_ref()?, part.at?);
        window.place(at + (range.start.0 - part.range.start.0), range.len)
    }

    /// Copies the first of `ranges`, which is not there yet, into the window, together with those that follow closely, if that is worth it.
    #[cold]
    fn keep(&self, part: &Part, ranges: &[AddrRange]) -> Kept {
        let range = ranges[0];
        let (Some(window), Some(at)) = (&self.window, part.at) else { return Kept::Not };
        // Without room, not for each range again a look at all that follow.
        if range.len > LARGE || !window.has_room() {
            return Kept::Not;
        }
        let frame = FRAME as u64;
        let (mut end, mut asked) = (range.end().0, range.len);
        for next in &ranges[1..] {
            let near = range.start <= next.start && next.start.0 <= end.next_multiple_of(frame);
            if !near || next.len > LARGE || !part.holds(*next) || end - range.start.0 > AT_ONCE {
                break;
            }
            asked += next.end().0.saturating_sub(end.max(next.start.0));
            end = end.max(next.end().0);
        }
        let start = (range.start.0 - range.start.0 % frame).max(part.range.start.0);
        let frames = AddrRange { start: Addr(start), len: end.next_multiple_of(frame).min(part.range.end().0) - start };
        if asked * 100 >= frames.len * ALMOST_ALL {
            return Kept::Once(frames);
        }
        let from = at + (range.start.0 - part.range.start.0);
        window.fill(from, end - range.start.0, |offset, bytes| {
            part.within(at, offset, bytes, |addr, bytes| self.reader.exact(addr, bytes))
        });
        window.place(from, range.len).map_or(Kept::Not, Kept::At)
    }

    /// Reads all ranges.
    ///
    /// * `keep`: in the window, if they are small.
    #[inline]
    fn load_and<'s>(&'s self, keep: bool, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        scratch.begin(ranges.len());
        let base = self.window.as_ref().map_or(Base::NONE, Base::window);
        if let Some(uncopied) = self.uncopied.get() {
            let place = |range: &AddrRange| self.in_copy(uncopied, *range).unwrap_or(Place::NOWHERE);
            scratch.places.extend(ranges.iter().map(place));
            return scratch.unit(base);
        }
        let mut pieces = Pieces::default();
        // The part of the last one: units come in address order.
        let mut part: Option<&Part> = None;
        for (i, range) in ranges.iter().enumerate() {
            if !part.is_some_and(|part| part.holds(*range)) {
                part = self.part(*range);
            }
            let place = match part.filter(|part| range.len > 0 && part.holds(*range)) {
                None => Place::NOWHERE,
                Some(part) => {
                    let known = self.in_window(part, *range).or_else(|| pieces.within(i, *range));
                    let kept = || if keep { self.keep(part, &ranges[i..]) } else { Kept::Not };
                    known.unwrap_or_else(|| match kept() {
                        Kept::At(place) => place,
                        Kept::Once(frames) => {
                            pieces.whole(frames, &mut scratch.spill);
                            pieces.add(i, *range, part, &mut scratch.spill)
                        }
                        Kept::Not => pieces.add(i, *range, part, &mut scratch.spill),
                    })
                }
            };
            scratch.places.push(place);
        }
        pieces.read(&self.reader, ranges, scratch);
        scratch.unit(base)
    }

    /// A place of `range` in the window, now that the process goes on.
    fn in_copy(&self, uncopied: &Uncopied, range: AddrRange) -> Option<Place> {
        let part = self.part(range).filter(|_| range.len > 0 && range.len <= MAX_RANGE)?;
        let (window, at) = (self.window.as_ref()?, part.at?);
        let from = at + (range.start.0 - part.range.start.0);
        window.place(from, range.len).or_else(|| {
            window.fill_all(from, range.len, |offset, bytes| {
                part.within(at, offset, bytes, |addr, bytes| uncopied.read(&self.reader, addr, bytes))
            });
            window.place(from, range.len)
        })
    }
}

/// What became of a range that was to be kept.
enum Kept {
    /// It lies there.
    At(Place),
    /// [`ALMOST_ALL`] of these frames is asked for, so they are to be read for this time only.
    Once(AddrRange),
    /// It is large, or there is no room.
    Not,
}

/// Makes room; false if that would be too much.
fn grow(spill: &mut Vec<u8>, by: u64) -> bool {
    let fits = by <= MAX_RANGE && spill.len() + by as usize <= MAX_SPILL;
    if fits {
        spill.resize(spill.len() + by as usize, 0);
    }
    fits
}

/// Ranges that are read as one piece: pieces lie in the buffer one after the other.
#[derive(Default)]
struct Pieces {
    ranges: Vec<AddrRange>,
    /// Where each lies.
    offsets: Vec<usize>,
    /// Which of the asked ranges lie in them, by piece: those that are in the window are not among them.
    members: Vec<Member>,
}

/// A range that lies in a piece.
#[derive(Copy, Clone)]
struct Member {
    /// Which range.
    index: usize,
    /// Which piece.
    piece: usize,
    offset: usize,
}

impl Pieces {
    /// A range that lies in one of the pieces; found if these come in the order of their addresses.
    fn within(&mut self, index: usize, range: AddrRange) -> Option<Place> {
        let piece = self.ranges.partition_point(|piece| piece.start <= range.start).checked_sub(1)?;
        let found = self.ranges[piece];
        if range.start < found.start || range.end() > found.end() {
            return None;
        }
        let offset = self.offsets[piece] + (range.start.0 - found.start.0) as usize;
        self.members.push(Member { index, piece, offset });
        Some(Place::in_spill(offset, range.len))
    }

    /// Takes a piece in of which most is asked for, if there is room.
    fn whole(&mut self, piece: AddrRange, spill: &mut Vec<u8>) {
        let offset = spill.len();
        if grow(spill, piece.len) {
            self.offsets.push(offset);
            self.ranges.push(piece);
        }
    }

    /// Takes a range in, if there is room.
    fn add(&mut self, index: usize, range: AddrRange, part: &Part, spill: &mut Vec<u8>) -> Place {
        if let Some(last) = self.ranges.last_mut()
            && last.start <= range.start
            && range.start.0 <= last.end().0.saturating_add(HOLE)
            && part.holds(*last)
        {
            let more = range.end().0.saturating_sub(last.end().0);
            let offset = spill.len() - last.len as usize + (range.start.0 - last.start.0) as usize;
            if last.len + more <= MAX_RANGE && grow(spill, more) {
                last.len += more;
                self.members.push(Member { index, piece: self.ranges.len() - 1, offset });
                return Place::in_spill(offset, range.len);
            }
        }
        let offset = spill.len();
        if !grow(spill, range.len) {
            return Place::NOWHERE;
        }
        self.members.push(Member { index, piece: self.ranges.len(), offset });
        self.offsets.push(offset);
        self.ranges.push(range);
        Place::in_spill(offset, range.len)
    }

    /// Reads them all. Of a piece that cannot be read whole each range is tried alone.
    fn read(&mut self, reader: &Reader, ranges: &[AddrRange], scratch: &mut Scratch) {
        let Scratch { places, spill } = scratch;
        let mut failed = Vec::new();
        reader.all(&self.ranges, spill, |piece| failed.push(piece));
        if !failed.is_empty() {
            self.members.sort_by_key(|m| m.piece);
        }
        for piece in failed {
            let from = self.members.partition_point(|m| m.piece < piece);
            for member in self.members[from..].iter().take_while(|m| m.piece == piece) {
                let range = ranges[member.index];
                let buf = &mut spill[member.offset..member.offset + range.len as usize];
                if !reader.exact(range.start.0, buf) {
                    places[member.index] = Place::NOWHERE;
                }
            }
        }
    }
}

impl Image for LiveImage {
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        self.load_and(true, ranges, scratch)
    }

    fn load_once<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        self.load_and(false, ranges, scratch)
    }

    fn present(&self, ranges: &[AddrRange]) -> Vec<bool> {
        ranges.iter().map(|range| range.len > 0 && self.part(*range).is_some()).collect()
    }

    fn read(&self, addr: Addr, buf: &mut [u8]) -> Result<(), ReadError> {
        let range = AddrRange { start: addr, len: buf.len() as u64 };
        let kept = match self.uncopied.get() {
            Some(uncopied) => self.in_copy(uncopied, range),
            None => self.part(range).filter(|_| range.len > 0).and_then(|part| {
                self.in_window(part, range).or_else(|| match self.keep(part, &[range]) {
                    Kept::At(place) => Some(place),
                    _ => None,
                })
            }),
        };
        let found = match (kept, &self.window) {
            (Some(place), Some(window)) => {
                buf.copy_from_slice(Base::window(window).slice(place));
                true
            }
            _ => {
                let asked = buf.is_empty() || self.uncopied.get().is_none();
                asked && self.part(range).is_some() && self.reader.exact(addr.0, buf)
            }
        };
        if found { Ok(()) } else { Err(ReadError::Unmapped(addr)) }
    }

    fn missing(&self) -> &Missing {
        &self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::proc;
    use nix::unistd::{SysconfVar, sysconf};

    fn image(budget: u64) -> LiveImage {
        let pid = std::process::id();
        LiveImage::new(Reader::new(pid), &proc::mappings(pid).expect("maps"), budget, u64::MAX)
    }

    /// Our own memory is as good as another's.
    #[test]
    fn loads_and_reads_agree_with_memory() {
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let base = data.as_ptr() as u64;
        let range = |from: u64, len: u64| AddrRange { start: Addr(base + from), len };
        let mut ranges: Vec<AddrRange> = (0..5000).map(|i| range(i * 56, 24 + i % 64)).collect();
        let known = ranges.len();
        // Nothing there, an empty one, an overlapping one, one before the others.
        ranges.extend([
            AddrRange { start: Addr(16), len: 8 },
            range(5, 0),
            range(100, 70_000),
            range(120, 8),
            range(0, 8),
        ]);
        ranges.push(AddrRange { start: Addr(u64::MAX - 4), len: 8 });
        // All at once, and few far apart: from the window, without one, and with one that is full soon.
        let every = |step: usize| (0..ranges.len()).filter(|i| i % step == 0 || *i >= known).collect::<Vec<_>>();
        for (step, budget, most_kept) in
            [(1, u64::MAX, false), (90, u64::MAX, true), (1, 0, false), (90, 0, false), (7, 2 * FRAME as u64, false)]
        {
            let image = image(budget);
            let mut kept = 0;
            let chosen = every(step);
            let asked: Vec<AddrRange> = chosen.iter().map(|i| ranges[*i]).collect();
            let mut scratch = Scratch::default();
            // First once, then to be kept.
            let once = image.load_once(&asked, &mut scratch);
            let mut other = Scratch::default();
            let unit = image.load(&asked, &mut other);
            let present = image.present(&asked);
            for (at, &i) in chosen.iter().enumerate() {
                let r = ranges[i];
                assert_eq!(once.get(at), unit.get(at), "{r:?}");
                assert!(once.get(at).is_empty() || !once.place(at).is_borrowed(), "{r:?}");
                kept += usize::from(unit.place(at).is_borrowed());
                assert_eq!(present[at], !unit.get(at).is_empty(), "{r:?}");
                if i == known || i > known + 4 {
                    assert!(unit.get(at).is_empty(), "{r:?}");
                } else if r.len > 0 {
                    let from = (r.start.0 - base) as usize;
                    assert_eq!(unit.get(at), &data[from..from + r.len as usize], "{i} {r:?}");
                }
            }
            assert_eq!(kept > known / step, most_kept, "{step} {budget}: {kept}");
        }
        let image = image(u64::MAX);
        let mut buf = vec![0; 9000];
        image.read(Addr(base + 77), &mut buf).expect("mapped");
        assert_eq!(buf, data[77..9077]);
        let mut buf = vec![0; 200_000];
        image.read(Addr(base + 1), &mut buf).expect("mapped");
        assert_eq!(buf, data[1..200_001]);
        assert_eq!(image.read_u64(Addr(16)), Err(ReadError::Unmapped(Addr(16))));
    }

    /// As the walk asks: small objects in the order of their addresses, then the bitmaps at the ends of their spans.
    #[test]
    fn what_is_asked_for_almost_whole_is_read_for_one_time() {
        const FRAMES: usize = 40;
        let data: Vec<u8> = (0..(FRAMES + 2) * FRAME).map(|i| (i % 251) as u8).collect();
        let first = data.as_ptr().align_offset(FRAME);
        let range = |from: usize, len: u64| AddrRange { start: Addr(data.as_ptr() as u64 + from as u64), len };
        let slots = |frame: usize| (0..FRAME / 64 - 2).map(move |slot| first + frame * FRAME + slot * 64);
        // Which objects of 64 bytes, by frame and place: all of them, all of every second frame, every second one, and all but every eighth.
        type Choice = fn(usize, usize) -> bool;
        let ways: [(Choice, usize); 4] = [
            (|_, _| true, FRAMES),
            (|frame, _| frame % 2 == 0, FRAMES / 2),
            (|_, at| at / 64 % 2 == 0, 0),
            (|_, at| at / 64 % 8 > 0, FRAMES),
        ];
        for (chosen, once) in ways {
            let image = image(u64::MAX);
            let objects = (0..FRAMES).flat_map(|f| slots(f).filter(move |s| chosen(f, *s)));
            let bitmaps =
                (0..FRAMES).map(|f| first + (f + 1) * FRAME - 128).filter(|at| chosen((at - first) / FRAME, *at));
            let asked: Vec<usize> = objects.chain(bitmaps).collect();
            let ranges: Vec<AddrRange> = asked.iter().map(|at| range(*at, 64)).collect();
            let mut scratch = Scratch::default();
            let unit = image.load(&ranges, &mut scratch);
            for (i, at) in asked.iter().enumerate() {
                assert_eq!(unit.get(i), &data[*at..at + 64], "{i}");
                assert_eq!(unit.place(i).is_borrowed(), once == 0, "{i}");
            }
            // Each byte once, also of the bitmaps.
            assert_eq!(unit.spilled(), once * FRAME);
        }
    }

    /// A page in the middle of a mapping that cannot be read: behind the end of its file.
    #[test]
    fn a_hole_costs_only_its_own_ranges() {
        let page = sysconf(SysconfVar::PAGE_SIZE).expect("sysconf").expect("a size") as u64;
        let file = tempfile::tempfile().expect("a file");
        file.set_len(3 * page).expect("length");
        let map = crate::image::FileMap::new(&file, "test").expect("map");
        let base = map.as_ptr() as u64;
        file.set_len(page).expect("length");
        let ranges: Vec<AddrRange> =
            [0, 64, page - 8, page, 2 * page, 128].map(|at| AddrRange { start: Addr(base + at), len: 8 }).to_vec();
        let image = image(u64::MAX);
        let mut scratch = Scratch::default();
        let unit = image.load(&ranges, &mut scratch);
        let found: Vec<bool> = (0..ranges.len()).map(|i| !unit.get(i).is_empty()).collect();
        assert_eq!(found, [true, true, true, false, false, true]);
        assert_eq!(image.read_u64(Addr(base)), Ok(0));
        assert!(image.read_u64(Addr(base + page)).is_err());
    }

    /// Two pieces, the first one with a hole, and at last a range of each part of it again, as bitmaps come.
    #[test]
    fn a_hole_in_what_is_read_for_one_time_costs_only_its_own_ranges() {
        let frame = FRAME as u64;
        let file = tempfile::tempfile().expect("a file");
        file.set_len(64 * frame).expect("length");
        let map = crate::image::FileMap::new(&file, "test").expect("map");
        let base = map.as_ptr() as u64;
        let end = 8 * frame;
        file.set_len(end).expect("length");
        let all = |from: u64, to: u64| (from * frame / 64..to * frame / 64).map(|i| i * 64);
        let again = [3 * frame, end + 3 * frame, 5 * frame];
        let ranges = all(0, 16).chain(all(32, 48)).chain(again).map(|at| AddrRange { start: Addr(base + at), len: 64 });
        let ranges: Vec<AddrRange> = ranges.collect();
        let image = image(u64::MAX);
        let mut scratch = Scratch::default();
        let unit = image.load(&ranges, &mut scratch);
        for (i, range) in ranges.iter().enumerate() {
            assert!(!unit.place(i).is_borrowed(), "{i}");
            assert_eq!(!unit.get(i).is_empty(), range.start.0 < base + end, "{i}");
        }
    }

    #[test]
    fn what_was_copied_stays_when_the_process_goes_on() {
        let mut data: Vec<u8> = (0..5_000_000u32).map(|i| (i % 253) as u8 + 1).collect();
        let base = data.as_ptr() as u64;
        let frame = FRAME as u64;
        let unneeded = AddrRange { start: Addr(base.next_multiple_of(frame) + frame), len: 3 * frame };
        let mut untouched = vec![0u8; 4 << 20];
        let image = image(0);
        image.read_u64(Addr(base)).expect("mapped");
        image.copy(&[unneeded]).expect("address space");
        let before = data.clone();
        data.fill(0);
        untouched.fill(1);
        let (first, second) = ((unneeded.start.0 - base) as usize, (unneeded.end().0 - base) as usize);
        let mut buf = vec![0; data.len()];
        image.read(Addr(base), &mut buf).expect("mapped");
        assert_eq!((&buf[..first], &buf[second..]), (&before[..first], &before[second..]));
        assert!(buf[first..second].iter().all(|b| *b == 0), "as it is now");
        let ranges: Vec<AddrRange> = [(second as u64, 8), (second as u64 + 5, 2_000_000), (0, 0), (9, frame - 9)]
            .map(|(at, len)| AddrRange { start: Addr(base + at), len })
            .into_iter()
            .chain([
                AddrRange { start: Addr(8), len: 8 },
                AddrRange { start: Addr(untouched.as_ptr() as u64), len: 4 << 20 },
            ])
            .collect();
        for once in [false, true] {
            let mut scratch = Scratch::default();
            let unit = if once { image.load_once(&ranges, &mut scratch) } else { image.load(&ranges, &mut scratch) };
            for (i, r) in ranges[..4].iter().enumerate() {
                let from = (r.start.0 - base) as usize;
                assert_eq!(unit.get(i), &before[from..from + r.len as usize]);
                assert!(r.len == 0 || unit.place(i).is_borrowed());
            }
            assert!(unit.get(4).is_empty());
            assert!(unit.get(5).len() == 4 << 20 && unit.get(5).iter().all(|b| *b == 0), "nobody had touched it");
        }
        let mut nothing = [];
        assert_eq!(image.read(Addr(base), &mut nothing), Ok(()));
        assert!(image.read_u64(Addr(8)).is_err());
    }
}
