//! Closures say what they are by the code pointer in their first word. A claim leaves them undecided, in groups of the program
//! [`ProgramKey::Funcval`]; when a level is arranged, each such group is split by function. By then its items are in slot order, and all
//! threads read; a claim that did it would keep its shard waiting (perf/notes/0008).
//!
//! Only objects of up to 512 bytes come this way: longer ones are asked for their allocation type anyhow (`ask.rs`).

use super::Walker;
use super::frontier::{Frontier, Group, Part};
use super::items::{Depot, Items, Stretch};
use super::observe::Observer;
use super::paths::PathId;
use super::scan::{ProgramId, ProgramKey};
use super::world::World;
use crate::address::{Addr, AddrRange};
use crate::image::Scratch;
use crate::model::heap::SpanId;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// Items that one thread reads at once: enough to hide the latency of the answers, few enough to stay in the first cache. Their code
/// pointers are told apart by 16 bits.
const CHUNK: usize = 512;
/// Instead of a number in [`Chunk::which`]: the core does not hold the item.
const UNREAD: u16 = u16::MAX;
/// A func value whose code pointer is no function's entry.
pub(super) const NO_FUNCTION: &str = "walk.closure_without_function";

/// What a closure's program is chosen by.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Code {
    /// Its code pointer.
    pc: u64,
    /// Size of its slot.
    room: u32,
}

/// The code pointers of some consecutive items of a part.
#[derive(Default)]
struct Chunk {
    /// Those that occur, each once, in order of occurrence.
    codes: Vec<Code>,
    /// By item: number among `codes`, or [`UNREAD`]. Empty if all are the same.
    which: Vec<u16>,
    /// Number of items.
    len: usize,
}

impl Chunk {
    /// Reads the first words of items of `shard`.
    fn read(world: &World<'_>, shard: u16, granules: impl Iterator<Item = u32>, scratch: &mut Scratch) -> Self {
        let heap = world.heap;
        let base = heap.shards()[usize::from(shard)].base;
        let (mut ranges, mut rooms) = (Vec::with_capacity(CHUNK), Vec::new());
        let mut last: Option<(SpanId, u32)> = None;
        for granule in granules {
            let addr = base + u64::from(granule) * 8;
            ranges.push(AddrRange { start: Addr(addr), len: 8 });
            // In slot order: most lie in the span of the one before.
            let room = match last {
                Some((span, room)) if heap.contains(span, addr) => room,
                _ => {
                    let span = heap.find_span(addr);
                    let room = span.map_or(0, |id| u32::try_from(heap.span(id).elem_size()).unwrap_or(u32::MAX));
                    last = span.map(|id| (id, room));
                    room
                }
            };
            match rooms.last_mut() {
                Some((same, items)) if *same == room => *items += 1,
                _ => rooms.push((room, 1usize)),
            }
        }
        let unit = world.image.load(&ranges, scratch);
        let mut chunk = Self { len: ranges.len(), ..Self::default() };
        let rooms = rooms.iter().flat_map(|&(room, items)| std::iter::repeat_n(room, items));
        let mut numbers: FxHashMap<Code, u16> = FxHashMap::default();
        let mut last: Option<(Code, u16)> = None;
        for (i, room) in rooms.enumerate() {
            let number = match unit.get(i).try_into().map(u64::from_le_bytes) {
                Err(_) => UNREAD,
                Ok(pc) => match (Code { pc, room }, last) {
                    (code, Some((same, number))) if same == code => number,
                    (code, _) => {
                        let number = *numbers.entry(code).or_insert_with(|| {
                            chunk.codes.push(code);
                            chunk.codes.len() as u16 - 1
                        });
                        last = Some((code, number));
                        number
                    }
                },
            };
            if chunk.which.is_empty() && (number == UNREAD || number > 0) {
                chunk.which = vec![0; i];
                chunk.which.reserve(chunk.len - i);
            }
            if number == UNREAD || !chunk.which.is_empty() {
                chunk.which.push(number);
            }
        }
        chunk
    }

    /// By item its number among the codes.
    fn numbers(&self) -> impl Iterator<Item = u16> {
        (0..self.len).map(|i| self.which.get(i).copied().unwrap_or(0))
    }
}

impl<O: Observer> Walker<'_, '_, '_, O> {
    /// Replaces each group of undecided closures by one for each function, in the order of code pointers.
    pub(super) fn split_closures(&mut self, frontier: &mut Frontier) {
        let programs = &self.resolver.programs;
        let is_undecided = |group: &Group| programs.get(group.program).key == ProgramKey::Funcval;
        if !frontier.groups.iter().any(is_undecided) {
            return;
        }
        let undecided: Vec<bool> = frontier.groups.iter().map(is_undecided).collect();
        let parts = std::mem::take(&mut frontier.parts);
        let groups = std::mem::take(&mut frontier.groups);
        for run in parts.chunk_by(|a, b| a.group == b.group) {
            let group = groups[run[0].group as usize];
            if undecided[run[0].group as usize] {
                self.split(group, run, frontier);
            } else {
                let rank = frontier.groups.len() as u32;
                frontier.groups.push(group);
                frontier.parts.extend(run.iter().map(|part| Part { group: rank, ..*part }));
            }
        }
    }

    /// Splits the parts of one group.
    fn split(&mut self, undecided: Group, parts: &[Part], frontier: &mut Frontier) {
        let chunks: Vec<Vec<Chunk>> = parts.par_iter().map(|part| read_part(self.world, frontier, part)).collect();
        let mut codes: Vec<Code> = chunks.iter().flatten().flat_map(|chunk| &chunk.codes).copied().collect();
        codes.sort_unstable();
        codes.dedup();
        let first = frontier.groups.len() as u32;
        for code in &codes {
            let (program, path, checked) = self.closure_program(undecided.path, code.pc, code.room);
            frontier.groups.push(Group { path, program, checked });
        }
        let mut counts = vec![0u64; codes.len()];
        let from = frontier.parts.len();
        for (part, chunks) in parts.iter().zip(&chunks) {
            let stretches = match chunks.first().map_or(&[][..], |chunk| &chunk.codes[..]) {
                [only] if chunks.iter().all(|chunk| chunk.which.is_empty() && chunk.codes == [*only]) => {
                    let number = codes.binary_search(only).expect("listed above");
                    vec![(number, part.stretch)]
                }
                _ => {
                    let items = frontier.items_mut(part);
                    sort_by_code(&codes, chunks, part.stretch, items, &self.depot)
                }
            };
            for (number, stretch) in stretches {
                counts[number] += stretch.len as u64;
                frontier.parts.push(Part { group: first + number as u32, shard: part.shard, stretch });
            }
            let unread = chunks.iter().flat_map(Chunk::numbers).filter(|&number| number == UNREAD).count();
            if unread > 0 {
                self.incidents.add("walk.object_not_in_core", unread as u64);
            }
        }
        frontier.parts[from..].sort_unstable_by_key(|part| (part.group, part.shard));
        for ((code, group), count) in codes.iter().zip(&frontier.groups[first as usize..]).zip(counts) {
            self.types.moved(undecided.program, group.program, count, count * u64::from(code.room));
            if group.checked {
                self.incidents.add(NO_FUNCTION, count);
            }
        }
    }

    /// How closures with a code pointer are scanned, and on which path. The flag says that the program does not explain their masks.
    ///
    /// * `room`: as for [`super::targets::Resolver::closure`].
    pub(super) fn closure_program(&mut self, path: PathId, pc: u64, room: u32) -> (ProgramId, PathId, bool) {
        match self.world.modules.find_func(self.world.image, pc) {
            Some(func) => {
                let (program, step) = self.resolver.closure(self.world, &func, room);
                // Over 512 bytes the mask is the allocation type's, which is not the closure's program.
                (program, self.paths.child(path, step), room > 512)
            }
            None => (self.resolver.compile(ProgramKey::Untyped), path, true),
        }
    }
}

/// Reads the code pointers of a part, on all threads.
fn read_part(world: &World<'_>, frontier: &Frontier, part: &Part) -> Vec<Chunk> {
    let (items, Stretch { start, len, .. }) = (frontier.items(part), part.stretch);
    let read = |scratch: &mut Scratch, chunk: usize| {
        let from = chunk * CHUNK;
        Chunk::read(world, part.shard, items.granules(start + from, CHUNK.min(len - from)), scratch)
    };
    (0..len.div_ceil(CHUNK)).into_par_iter().map_init(Scratch::default, read).collect()
}

/// Appends the items of a part to its columns once more, by code; inside a code they stay in slot order. By code that occurs: its number
/// and its items.
fn sort_by_code(
    codes: &[Code],
    chunks: &[Chunk],
    stretch: Stretch,
    items: &mut Items,
    depot: &Depot,
) -> Vec<(usize, Stretch)> {
    let mut lists: Vec<Vec<u32>> = vec![Vec::new(); codes.len()];
    let mut at = stretch.start;
    for chunk in chunks {
        let numbers: Vec<usize> =
            chunk.codes.iter().map(|code| codes.binary_search(code).expect("all are listed")).collect();
        for (granule, number) in items.granules(at, chunk.len).zip(chunk.numbers()) {
            // The others are unread.
            if let Some(&number) = numbers.get(usize::from(number)) {
                lists[number].push(granule);
            }
        }
        at += chunk.len;
    }
    let lists = lists.into_iter().enumerate().filter(|(_, list)| !list.is_empty());
    lists.map(|(number, list)| (number, items.push_plain(depot, &list))).collect()
}
