//! Reads the heap: `mheap_.allspans`, then every `mspan` in use, in bulk and in parallel.
//!
//! `mspan` structs lie scattered in persistently allocated memory, so a unit of work loads some thousand of them at once.
//! Results are put into address order before anything is numbered: neither threads nor the order of `allspans` matter.

use super::arenas::Arenas;
use super::counters::RuntimeCounters;
use super::geometry::{self, Bitmaps, Record};
use super::span::{Span, SpanDetails, SpanId};
use super::totals::HeapTotals;
use super::{Heap, MAX_SHARDS, PAGE_SIZE, SHARD_REACH, alloc, shards, specials};
use crate::address::{Addr, AddrRange};
use crate::error::{Context, Error, Result};
use crate::image::{Image, Scratch};
use crate::incident::Incidents;
use crate::model::layout::RuntimeLayout;
use rayon::prelude::*;

/// Entries of `allspans` per unit of work: 4096 * 160 bytes of `mspan` stay in a cache.
const SPANS_PER_UNIT: u64 = 4 << 10;

/// `_GCoff`: no collection is marking.
const GC_OFF: u32 = 0;

/// Pointers per range that is loaded: a page of them.
const POINTERS_PER_PIECE: u64 = 512;

/// More entries cannot be real: that many spans would be 32 TiB of heap.
const MAX_ALLSPANS: u64 = 1 << 32;

/// In-use spans of one unit, and what became of the others.
#[derive(Default)]
struct Unit {
    good: Vec<(Span, SpanDetails)>,
    /// Pages of in-use spans that cannot be used.
    bad: Vec<(u64, u64)>,
    /// Spans that the runtime manages by hand: start and pages.
    manual: Vec<(u64, u64)>,
    incidents: Incidents,
}

impl Heap {
    /// Reads all spans, their allocation bits and specials.
    ///
    /// Damaged spans are skipped, counted as incidents, and their pages accounted for as unread.
    ///
    /// # Errors
    /// `mheap_` itself cannot be read, or the heap has no span in use.
    pub fn read(image: &dyn Image, layout: &RuntimeLayout) -> Result<Self> {
        let counters = RuntimeCounters::read(image, layout)?;
        let (array, len) = allspans(image, layout)?;

        let starts: Vec<u64> = (0..len).step_by(SPANS_PER_UNIT as usize).collect();
        let units: Vec<Unit> = starts
            .into_par_iter()
            .map(|first| {
                read_unit(image, layout, counters.sweepgen, array + first * 8, SPANS_PER_UNIT.min(len - first))
            })
            .collect();

        let mut all = Unit::default();
        all.good.reserve_exact(units.iter().map(|unit| unit.good.len()).sum());
        for unit in units {
            all.good.extend(unit.good);
            all.bad.extend(unit.bad);
            all.manual.extend(unit.manual);
            all.incidents.merge(&unit.incidents);
        }
        let Unit { mut good, bad, manual, mut incidents } = all;
        good.par_sort_unstable_by_key(|(span, d)| (span.start, d.mspan));
        let unread_pages = drop_overlaps(&mut good, bad, Bitmaps::new(layout), &mut incidents);
        let (mut spans, mut details): (Vec<Span>, Vec<SpanDetails>) = good.into_iter().unzip();

        let cut = shards::cut(&mut spans, &details);
        let beyond: u64 = details[cut.kept..].iter().map(|d| d.npages).sum();
        incidents.add("span.too_many_shards", (spans.len() - cut.kept) as u64);
        spans.truncate(cut.kept);
        details.truncate(cut.kept);
        if spans.is_empty() {
            return Err(Error::new(format!(
                "heap: none of the {len} spans of mheap_.allspans at {:#x} is in use and readable",
                layout.globals.mheap
            ))
            .remedy("check that the core is complete and that the executable is the one that wrote it"));
        }

        let arenas = Arenas::read(image, layout, &spans, &details, &mut incidents);
        let bits = read_alloc_bits(image, layout, &counters, &spans, &mut details);
        incidents.merge(&bits.incidents);
        let mut heap = Self {
            spans,
            details,
            alloc_words: bits.words,
            dead_words: bits.dead,
            shards: cut.shards,
            pages: cut.pages,
            bitmaps: Bitmaps::new(layout),
            arenas,
            malloc_header_size: layout.constants.malloc_header_size,
            specials: Vec::new(),
            manual: Vec::new(),
            totals: HeapTotals::default(),
            counters,
            incidents,
        };
        specials::read(&mut heap, image, layout);
        heap.totals = HeapTotals::sum(&heap, image, unread_pages.saturating_add(beyond).saturating_mul(PAGE_SIZE));
        let pages = manual.iter().fold(0u64, |sum, (_, npages)| sum.saturating_add(*npages));
        heap.totals.manual_bytes = pages.saturating_mul(PAGE_SIZE);
        heap.manual = manual;
        heap.count_lost_spans();
        Ok(heap)
    }

    /// Spans whose `mspan` the image lacks are known only by the runtime's own count of pages: the difference is unread.
    fn count_lost_spans(&mut self) {
        let lost = ["span.allspans_unread", "span.mspan_unread"].iter().any(|cause| self.incidents.get(cause) > 0);
        let counted = self.counters.pages_in_use.unwrap_or(0).saturating_mul(PAGE_SIZE);
        let beyond = counted.saturating_sub(self.totals.in_use_bytes);
        // A counter beyond all shards is damage itself.
        if lost && beyond <= MAX_SHARDS as u64 * SHARD_REACH {
            self.totals.in_use_bytes += beyond;
            self.totals.unread_bytes += beyond;
        }
    }
}

/// Address and length of `mheap_.allspans`.
fn allspans(image: &dyn Image, layout: &RuntimeLayout) -> Result<(u64, u64)> {
    let at = Addr(layout.globals.mheap).add(layout.mheap.allspans);
    let array = image.read_u64(at).context(|| format!("heap: reading mheap_.allspans at {at}"))?;
    let len = image.read_u64(at.add(8)).context(|| format!("heap: reading mheap_.allspans at {at}"))?;
    if len > MAX_ALLSPANS || array.checked_add(len * 8).is_none() {
        return Err(Error::new(format!(
            "heap: mheap_.allspans at {at} has length {len}, expected at most {MAX_ALLSPANS}"
        ))
        .remedy("check that the executable is the one that wrote the core"));
    }
    Ok((array, len))
}

fn read_unit(image: &dyn Image, layout: &RuntimeLayout, sweepgen: u32, array: u64, len: u64) -> Unit {
    let mut unit = Unit::default();
    // In pieces of a page: of an image that lacks a part, the rest is used.
    let pieces: Vec<AddrRange> = (0..len)
        .step_by(POINTERS_PER_PIECE as usize)
        .map(|i| AddrRange { start: Addr(array + i * 8), len: POINTERS_PER_PIECE.min(len - i) * 8 })
        .collect();
    let mut scratch = Scratch::default();
    let loaded = image.load(&pieces, &mut scratch);
    let mut records: Vec<AddrRange> = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        let bytes = loaded.get(i);
        if bytes.is_empty() {
            unit.incidents.add("span.allspans_unread", piece.len / 8);
        }
        let pointers = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")));
        records.extend(pointers.map(|p| AddrRange { start: Addr(p), len: layout.mspan.size }));
    }
    // A reused mspan lies anywhere among the others; neighbours are read together.
    records.sort_unstable_by_key(|record| record.start);
    let mut scratch = Scratch::default();
    let loaded = image.load_once(&records, &mut scratch);
    let mut ends = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let bytes = loaded.get(i);
        if bytes.is_empty() {
            unit.incidents.count("span.mspan_unread");
            continue;
        }
        let parsed = geometry::parse(bytes, record.start.0, &layout.mspan, Bitmaps::new(layout));
        match parsed {
            Record::NotInUse => {}
            Record::Manual { start, npages } => unit.manual.push((start, npages)),
            // A span that is being made is of this cycle: its thread cannot be stopped for the next one before that is done.
            Record::Unpublished(span, details) if details.sweepgen != sweepgen => {
                unit.incidents.count("span.bad_geometry");
                unit.bad.push((span.start, details.npages));
            }
            Record::Good(span, details) | Record::Unpublished(span, details) => {
                let last = span.start + details.npages * PAGE_SIZE - 1;
                ends.extend([span.start, last].map(|at| AddrRange { start: Addr(at), len: 1 }));
                unit.good.push((span, details));
            }
            Record::BadSlots { start, npages } => {
                unit.incidents.count("span.bad_geometry");
                unit.bad.push((start, npages));
            }
            Record::BadPages => unit.incidents.count("span.bad_geometry"),
        }
    }

    // A span that does not begin and end where the process had memory is damage: tables are sized by spans. Asking costs nothing:
    // nothing is read.
    let present = image.present(&ends);
    let mut i = 0;
    unit.good.retain(|(span, d)| {
        let page = |n: u64| AddrRange { start: Addr(span.start + n * PAGE_SIZE), len: PAGE_SIZE };
        let known = [page(0), page(d.npages - 1)]
            .into_iter()
            .enumerate()
            .all(|(end, page)| present[i + end] || image.missing().bytes_in(page) > 0);
        i += 2;
        if !known {
            unit.incidents.count("span.unmapped");
        }
        known
    });
    unit
}

/// Leaves of spans that overlap those that add up, or overlap fewer others; returns the pages of bad and dropped spans that no
/// good one covers.
fn drop_overlaps(
    good: &mut Vec<(Span, SpanDetails)>,
    mut bad: Vec<(u64, u64)>,
    bitmaps: Bitmaps,
    incidents: &mut Incidents,
) -> u64 {
    let end_of = |(span, d): &(Span, SpanDetails)| span.start + d.npages * PAGE_SIZE;
    if !good.is_sorted_by(|a, b| end_of(a) <= b.0.start) {
        let adds_up = |(span, d): &(Span, SpanDetails)| geometry::adds_up(span, d, bitmaps);
        let mut kept: Vec<(Span, SpanDetails)> = Vec::with_capacity(good.len());
        for (i, new) in good.iter().enumerate() {
            let mut keep = true;
            while let Some(last) = kept.last()
                && end_of(last) > new.0.start
                && keep
            {
                incidents.count("span.overlap");
                let wide = good.get(i + 1).is_some_and(|next| next.0.start < end_of(last));
                let sound = adds_up(last);
                let last_stays = if sound == adds_up(new) { !wide } else { sound };
                if last_stays {
                    bad.push((new.0.start, new.1.npages));
                    keep = false;
                } else {
                    bad.extend(kept.pop().map(|(span, d)| (span.start, d.npages)));
                }
            }
            if keep {
                kept.push(*new);
            }
        }
        *good = kept;
    }
    bad.sort_unstable();
    let mut unread = 0u64;
    let mut end = 0;
    for (start, npages) in bad {
        let bad_end = start + npages * PAGE_SIZE;
        let after = good.partition_point(|(span, _)| span.start < bad_end);
        let clear = after.checked_sub(1).is_none_or(|i| good[i].0.start + good[i].1.npages * PAGE_SIZE <= start);
        if start >= end && clear {
            unread = unread.saturating_add(npages);
            end = bad_end;
        }
    }
    unread
}

fn read_alloc_bits(
    image: &dyn Image,
    layout: &RuntimeLayout,
    counters: &RuntimeCounters,
    spans: &[Span],
    details: &mut [SpanDetails],
) -> alloc::UnitBits {
    let nwords = alloc::number_words(spans, details);
    let sweep = alloc::Sweep { sweepgen: counters.sweepgen, phase_off: counters.gcphase == GC_OFF };
    let units: Vec<alloc::UnitBits> = spans
        .par_chunks(alloc::SPANS_PER_UNIT)
        .zip(details.par_chunks(alloc::SPANS_PER_UNIT))
        .map(|(spans, details)| alloc::read_unit(image, spans, details, sweep, Bitmaps::new(layout)))
        .collect();
    let mut all = alloc::UnitBits::default();
    all.words.reserve_exact(nwords);
    for unit in units {
        if !unit.dead.is_empty() {
            all.dead.resize(all.words.len(), 0);
            all.dead.extend(unit.dead);
        }
        all.words.extend(unit.words);
        all.incidents.merge(&unit.incidents);
    }
    if !all.dead.is_empty() {
        all.dead.resize(nwords, 0);
    }
    all
}

/// Ids of all spans.
pub(super) fn ids(heap: &Heap) -> impl Iterator<Item = SpanId> + use<> {
    (0..heap.spans.len() as u32).map(SpanId)
}
