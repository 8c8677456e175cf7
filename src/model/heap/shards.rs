//! Cuts the heap's address space into shards of whole arenas, and maps addresses to shards and spans.
//!
//! The cut depends on the spans alone, never on threads. Arenas that one span joins stay in one shard.

use super::span::SpanId;
use super::{ARENA_SIZE, MAX_SHARDS, PAGE_SIZE, SHARD_REACH, Span, SpanDetails};
use std::ops::Range;

/// Consecutive arenas with an owner of their own in every wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Start of its first arena.
    pub base: u64,
    /// End of its last arena.
    pub end: u64,
    /// Slot ordinals of the shard are `0..slots`.
    pub slots: u32,
    /// Its spans: ids are consecutive because spans are sorted by address.
    pub spans: Range<u32>,
    /// It holds one span longer than [`SHARD_REACH`]: the one case in which addresses lie farther from `base`.
    pub oversized: bool,
}

const ARENA_SHIFT: u32 = ARENA_SIZE.trailing_zeros();
const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();
const PAGES_PER_ARENA: u64 = ARENA_SIZE / PAGE_SIZE;

/// Address to shard and span.
#[derive(Debug, Default)]
pub(super) struct PageTable {
    /// Number of the arena (`address / ARENA_SIZE`) of `arenas[0]`.
    first_arena: u64,
    /// 0: no arena. Else `shard << 32 | (position in pages / PAGES_PER_ARENA + 1)`. Zero means absent, so that the allocator can
    /// hand out untouched zero pages where arenas lie far apart.
    arenas: Vec<u64>,
    /// Per page of the known arenas: 0 or the id of the span that covers it, plus 1.
    pages: Vec<u32>,
}

impl PageTable {
    fn entry(&self, addr: u64) -> Option<u64> {
        let arena = (addr >> ARENA_SHIFT).wrapping_sub(self.first_arena);
        self.arenas.get(usize::try_from(arena).ok()?).copied().filter(|&entry| entry != 0)
    }

    #[inline]
    pub(super) fn shard_of(&self, addr: u64) -> Option<u16> {
        self.entry(addr).map(|entry| (entry >> 32) as u16)
    }

    /// The span that covers the page of `addr`, whether `addr` lies before its limit or not.
    #[inline]
    pub(super) fn span_at(&self, addr: u64) -> Option<SpanId> {
        let table = u64::from(self.entry(addr)? as u32) - 1;
        let page = table * PAGES_PER_ARENA + ((addr >> PAGE_SHIFT) & (PAGES_PER_ARENA - 1));
        let id = *self.pages.get(page as usize)?;
        id.checked_sub(1).map(SpanId)
    }
}

/// Arenas that belong together because spans join them, with their spans.
struct Group {
    arenas: Range<u64>,
    spans: Range<u32>,
    slots: u64,
}

impl Group {
    fn reach(&self) -> u64 {
        (self.arenas.end - self.arenas.start) << ARENA_SHIFT
    }
}

fn end_of(span: &Span, details: &SpanDetails) -> u64 {
    span.start + details.npages * PAGE_SIZE
}

fn groups_of(spans: &[Span], details: &[SpanDetails]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (id, (span, details)) in (0u32..).zip(spans.iter().zip(details)) {
        let first = span.start >> ARENA_SHIFT;
        let end = ((end_of(span, details) - 1) >> ARENA_SHIFT) + 1;
        match groups.last_mut() {
            Some(group) if first < group.arenas.end => {
                group.arenas.end = group.arenas.end.max(end);
                group.spans.end = id + 1;
                group.slots += u64::from(span.nelems);
            }
            _ => groups.push(Group { arenas: first..end, spans: id..id + 1, slots: u64::from(span.nelems) }),
        }
    }
    groups
}

/// What [`cut`] makes.
pub(super) struct Cut {
    pub(super) shards: Vec<Shard>,
    pub(super) pages: PageTable,
    /// Spans from here on found no shard: more than [`MAX_SHARDS`] would be needed. Only a heap of over 8 TiB, or scattered over
    /// hundreds of places 32 GiB apart, comes here.
    pub(super) kept: usize,
}

/// Cuts sorted, disjoint spans into shards: sets their `shard` and `slot_base`, and builds the page table.
pub(super) fn cut(spans: &mut [Span], details: &[SpanDetails]) -> Cut {
    let groups = groups_of(spans, details);
    let narenas: u64 = groups.iter().map(|g| g.arenas.end - g.arenas.start).sum();
    let arenas_per_shard = narenas.div_ceil(MAX_SHARDS as u64).max(1);

    // A shard is closed once it has its number of arenas, or when the next group would stretch it too far.
    let mut shards: Vec<Shard> = Vec::new();
    let mut filled = u64::MAX;
    let mut kept = 0;
    for group in &groups {
        let base = group.arenas.start << ARENA_SHIFT;
        let end = group.arenas.end << ARENA_SHIFT;
        let joins = filled < arenas_per_shard
            && shards.last().is_some_and(|s| {
                end - s.base <= SHARD_REACH && u64::from(s.slots) + group.slots <= u64::from(u32::MAX)
            });
        if !joins {
            if shards.len() == MAX_SHARDS {
                break;
            }
            let spans = group.spans.start..group.spans.start;
            shards.push(Shard { base, end, slots: 0, spans, oversized: group.reach() > SHARD_REACH });
            filled = 0;
        }
        let number = (shards.len() - 1) as u8;
        let shard = shards.last_mut().expect("one was pushed");
        for span in &mut spans[group.spans.start as usize..group.spans.end as usize] {
            span.shard = number;
            span.slot_base = shard.slots;
            shard.slots += u32::from(span.nelems);
        }
        shard.end = end;
        shard.spans.end = group.spans.end;
        filled += group.arenas.end - group.arenas.start;
        kept = group.spans.end as usize;
    }

    let pages = page_table(&groups, &spans[..kept], details);
    Cut { shards, pages, kept }
}

fn page_table(groups: &[Group], spans: &[Span], details: &[SpanDetails]) -> PageTable {
    let groups = &groups[..groups.partition_point(|g| (g.spans.end as usize) <= spans.len())];
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return PageTable::default() };
    let first_arena = first.arenas.start;
    let narenas: u64 = groups.iter().map(|g| g.arenas.end - g.arenas.start).sum();
    let mut table = PageTable {
        first_arena,
        arenas: vec![0; (last.arenas.end - first_arena) as usize],
        pages: vec![0; (narenas * PAGES_PER_ARENA) as usize],
    };
    let mut position = 0u64;
    for group in groups {
        let shard = u64::from(spans[group.spans.start as usize].shard);
        for arena in group.arenas.clone() {
            table.arenas[(arena - first_arena) as usize] = shard << 32 | (position + 1);
            position += 1;
        }
        let group_first = (position - (group.arenas.end - group.arenas.start)) * PAGES_PER_ARENA;
        let group_base = group.arenas.start << ARENA_SHIFT;
        for id in group.spans.clone() {
            let from = group_first + ((spans[id as usize].start - group_base) >> PAGE_SHIFT);
            let to = from + details[id as usize].npages;
            table.pages[from as usize..to as usize].fill(id + 1);
        }
    }
    table
}
