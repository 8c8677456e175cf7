//! The runtime's variables in a process whose executable has no symbols: found by what lies there.
//!
//! `runtime.firstmoduledata` starts with the address of the function tables and describes the sections around it; it has a section of its own
//! since Go 1.26. It says where static memory is, and what functions are called. In that memory `mheap_` is known by its list of spans,
//! `allgs`, `allp` and `allm` by the structs that they lead to, the statistics by sums that must agree. The rest is found by the code that
//! uses it: no address is tested more often than `writeBarrier`, whose flag says what `gcphase` says; the queues of finalizers and cleanups
//! are what the functions refer to that fill them.
//!
//! Every answer is checked against more facts than it was found by; what is not found is not guessed.

use super::references::Machine;
use crate::address::{Addr, AddrRange, WORD};
use crate::error::{Error, Result};
use crate::image::executable::Executable;
use crate::image::{Image, Scratch};
use crate::model::chain::Chain;
use crate::model::layout::RuntimeLayout;
use crate::model::modules::{Func, Modules};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// Bytes of static memory or code looked at in one piece.
const PIECE: u64 = 1 << 20;
/// Static memory that is searched: the linker puts large variables last, and the runtime's are not that large.
const MAX_STATIC: u64 = 1 << 30;
/// Code in which tests of a flag are counted.
const MAX_CODE: u64 = 16 << 20;
/// Where sums are searched word by word.
const MAX_SUMMED: u64 = 16 << 20;
/// Words that are read behind pointers in all: a real program of any size takes some millions, and each word of a forged one may lead
/// to a list of a million.
const MAX_READS: u64 = 1 << 30;
/// Spans, goroutines and processors that are looked at before a list is believed.
const SAMPLE: u64 = 64;
/// Longer lists are not the runtime's.
const MAX_LIST: u64 = 1 << 32;
/// Threads and queue blocks that are followed.
const MAX_CHAIN: u64 = 1 << 20;
/// A code that tests nothing as often as the write barrier's flag is no Go program; real ones have hundreds of tests.
const MIN_FLAG_TESTS: u32 = 50;
const PAGE_SIZE: u64 = 8192;
/// `_Gscan`, a bit beside a goroutine's status; and the highest status of any release.
const G_SCAN: u32 = 0x1000;
const LAST_STATUS: u32 = 11;
/// Bytes of a queue's block of finalizers (`finBlockSize`) and of cleanups (`cleanupBlockSize`).
const FIN_BLOCK_SIZE: u64 = 4096;
const CLEANUP_BLOCK_SIZE: u64 = 512;
/// `waitReasonStrings[1]`, the first that is not empty.
const FIRST_WAIT_REASON: &str = "GC assist marking";

/// Name and address in the process of a variable of the runtime, without its package.
pub type Located = Vec<(&'static str, u64)>;

/// Finds them.
///
/// * `layout`: offsets by the release's table; its variables are not used.
/// * `version`: `runtime.buildVersion`.
///
/// # Errors
/// Names the first variable without which nothing can be read.
pub fn variables(
    exe: &Executable<'_>,
    image: &dyn Image,
    bias: u64,
    layout: &RuntimeLayout,
    version: &str,
) -> Result<Located> {
    let mut layout = layout.clone();
    let machine = Machine::of(exe.architecture()).ok_or_else(|| lost("code"))?;
    let first = moduledata(exe, image, bias, &layout).ok_or_else(|| lost("firstmoduledata"))?;
    layout.globals.firstmoduledata = first;
    let modules = Modules::read(image, &layout)?;
    let main = modules.list.first().ok_or_else(|| lost("firstmoduledata"))?;
    let statics = [main.noptrdata, main.data, main.bss, main.noptrbss].map(|range| {
        let start = Addr(range.start.0.next_multiple_of(WORD));
        AddrRange { start, len: range.end().0.saturating_sub(start.0).min(MAX_STATIC) }
    });
    let search = Search { image, layout: &layout, modules: &modules, machine, statics, reads: Cell::new(MAX_READS) };
    let by_structure = search.structures(version);
    let needed = |found: Option<u64>, name: &str| found.ok_or_else(|| lost(name));
    let mheap = needed(by_structure.mheap, "mheap_")?;
    let flag = needed(search.write_barrier(main.text), "writeBarrier")?;
    let allfin = needed(search.finalizer_queue(), "allfin")?;
    let (controller, memstats) = search.statistics(mheap);
    let mut located = vec![
        ("firstmoduledata", first),
        ("mheap_", mheap),
        ("allgs", needed(by_structure.allgs.map(|(_, at)| at), "allgs")?),
        ("allm", needed(by_structure.allm.map(|(_, at)| at), "allm")?),
        ("allp", needed(by_structure.allp, "allp")?),
        // Not zero while a collection marks; which of its phases, nobody asks.
        ("gcphase", flag),
        ("allfin", allfin),
    ];
    let optional = [
        ("gcController", controller),
        ("memstats", memstats),
        ("buildVersion", by_structure.build_version),
        ("waitReasonStrings", by_structure.wait_reasons),
        ("gcCleanups", search.cleanup_queue()),
    ];
    located.extend(optional.into_iter().filter_map(|(name, at)| Some((name, at?))));
    Ok(located)
}

fn lost(name: &str) -> Error {
    Error::new(format!(
        "executable without symbols: runtime.{name} was not found in the process's memory by what it should contain"
    ))
    .remedy("give the executable as it was before it was stripped; it may have the same build id")
}

/// Addresses known by what lies there; lists with their lengths.
#[derive(Default)]
struct Structures {
    mheap: Option<u64>,
    allgs: Option<(u64, u64)>,
    allm: Option<(u64, u64)>,
    allp: Option<u64>,
    build_version: Option<u64>,
    wait_reasons: Option<u64>,
}

struct Search<'s> {
    image: &'s dyn Image,
    layout: &'s RuntimeLayout,
    modules: &'s Modules,
    machine: Machine,
    /// noptrdata, data, bss, noptrbss.
    statics: [AddrRange; 4],
    /// What is left of [`MAX_READS`]; then nothing more is found.
    reads: Cell<u64>,
}

/// The executable's own `moduledata`.
fn moduledata(exe: &Executable<'_>, image: &dyn Image, bias: u64, layout: &RuntimeLayout) -> Option<u64> {
    let address = |name: &str| exe.section(name).map(|s| s.address.wrapping_add(bias));
    let tables = address(".gopclntab").or_else(|| address(".data.rel.ro.gopclntab"))?;
    if let Some(own) = address(".go.module").filter(|at| is_moduledata(image, *at, tables, layout)) {
        return Some(own);
    }
    let field = layout.moduledata.pc_header;
    for section in [".noptrdata", ".data", ".go.module"].iter().filter_map(|name| exe.section(name)) {
        let range = AddrRange { start: Addr(section.address.wrapping_add(bias)), len: section.size.min(MAX_STATIC) };
        let mut found = None;
        each_word(image, range, &mut |at, words| {
            let candidate = at.wrapping_sub(field);
            if found.is_none() && words[0] == tables && is_moduledata(image, candidate, tables, layout) {
                found = Some(candidate);
            }
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether a `moduledata` lies at `at` whose function tables are at `tables` and whose parts agree with each other.
fn is_moduledata(image: &dyn Image, at: u64, tables: u64, layout: &RuntimeLayout) -> bool {
    let (md, header) = (&layout.moduledata, &layout.pc_header);
    let word = |field: u64| image.read_u64(Addr(at).add(field)).ok();
    let check = || {
        let ordered = |fields: &[u64]| {
            let words: Option<Vec<u64>> = fields.iter().map(|field| word(*field)).collect();
            words.is_some_and(|words| words.is_sorted() && words[0] != 0)
        };
        let mask = |field: u64, start: u64, end: u64| {
            let n = image.read_u32(Addr(at).add(field).add(layout.bitvector.n)).ok()?;
            Some(u64::from(n) == word(end)?.checked_sub(word(start)?)? / WORD)
        };
        let nfunc = image.read_u64(Addr(tables).add(header.nfunc)).ok()?;
        let sound = word(md.pc_header)? == tables
            && image.read_u32(Addr(tables).add(header.magic)).ok()? >= 0xffff_fff0
            && image.read_u8(Addr(tables).add(header.ptr_size)).ok()? == 8
            && word(md.ftab + 8)? == nfunc.checked_add(1)?
            && ordered(&[md.text, md.etext])
            && ordered(&[md.minpc, md.maxpc])
            && ordered(&[md.noptrdata, md.enoptrdata])
            && ordered(&[md.types, md.etypes])
            && ordered(&[md.data, md.edata])
            && ordered(&[md.bss, md.ebss])
            && mask(md.gcdatamask, md.data, md.edata)?
            && mask(md.gcbssmask, md.bss, md.ebss)?;
        Some(sound)
    };
    check().unwrap_or(false)
}

/// Calls `f` with each aligned word of `range` that is not 0, and the two behind it (0 at the end).
fn each_word(image: &dyn Image, range: AddrRange, f: &mut dyn FnMut(u64, [u64; 3])) {
    let mut scratch = Scratch::default();
    for from in (0..range.len).step_by(PIECE as usize) {
        let whole = (range.len - from).min(PIECE + 2 * WORD);
        let piece = AddrRange { start: range.start.add(from), len: whole };
        let loaded = image.load(&[piece], &mut scratch);
        let bytes = loaded.get(0);
        let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
        for at in (0..bytes.len().min(PIECE as usize)).step_by(WORD as usize) {
            let first = word(at);
            if first != 0 {
                f(piece.start.0.wrapping_add(at as u64), [first, word(at + 8), word(at + 16)]);
            }
        }
    }
}

impl Search<'_> {
    fn word(&self, base: u64, field: u64) -> Option<u64> {
        self.reads.set(self.reads.get().checked_sub(1)?);
        self.image.read_u64(Addr(base).add(field)).ok()
    }

    /// One pass over static memory.
    fn structures(&self, version: &str) -> Structures {
        let mut found = Structures::default();
        for range in self.statics {
            each_word(self.image, range, &mut |at, [pointer, len, cap]| {
                if !pointer.is_multiple_of(WORD) {
                    return self.strings(at, pointer, len, version, &mut found);
                }
                if len > 0 && len <= cap && cap <= MAX_LIST {
                    self.lists(at, pointer, len, &mut found);
                }
                if let Some(n) = self.threads(pointer)
                    && found.allm.is_none_or(|(known, _)| n > known)
                {
                    found.allm = Some((n, at));
                }
                self.strings(at, pointer, len, version, &mut found);
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
        } else if found.allp.is_none() && self.sample(array, len, |p, i| self.is_processor(p, i)) {
            found.allp = Some(at);
        }
    }

    /// Whether the first elements and the last one of a list of pointers are as they should be.
    fn sample(&self, array: u64, len: u64, is: impl Fn(u64, u64) -> bool) -> bool {
        let element =
            |i: u64| self.word(array, i.wrapping_mul(WORD)).is_some_and(|element| element != 0 && is(element, i));
        (0..len.min(SAMPLE)).all(element) && element(len - 1)
    }

    fn is_span(&self, span: u64) -> bool {
        let at = &self.layout.mspan;
        let check = || {
            let state = self.image.read_u8(Addr(span).add(at.state)).ok()?;
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
            let sweepgen = self.image.read_u32(Addr(mheap).add(at.sweepgen)).ok()?;
            let pages = self.word(mheap, at.pages_in_use)?;
            let in_use = (0..len.min(SAMPLE)).any(|i| {
                let span = self.word(array, i * WORD).unwrap_or(0);
                self.image.read_u8(Addr(span).add(self.layout.mspan.state)).is_ok_and(|state| state == 1)
            });
            Some(sweepgen.is_multiple_of(2) && pages > 0 && pages < 1 << 36 && in_use)
        };
        check().unwrap_or(false) && self.sample(array, len, |span, _| self.is_span(span))
    }

    fn status(&self, g: u64) -> Option<u32> {
        Some(self.image.read_u32(Addr(g).add(self.layout.g.atomicstatus)).ok()? & !G_SCAN)
    }

    fn is_goroutine(&self, g: u64) -> bool {
        let at = &self.layout.g;
        let check = || {
            let (low, high) = (self.word(g, at.stack_lo)?, self.word(g, at.stack_hi)?);
            // A dead one may have lost its stack.
            let stack = low < high && high - low <= 1 << 40 && low.is_multiple_of(1024) || (low, high) == (0, 0);
            let m = self.word(g, at.m)?;
            let thread = m == 0 || self.word(m, self.layout.m.g0)? != 0;
            // All of it is there.
            self.word(g, at.size.saturating_sub(WORD))?;
            Some(stack && thread && self.status(g)? <= LAST_STATUS && self.word(g, at.goid)? < 1 << 48)
        };
        check().unwrap_or(false)
    }

    /// Whether a goroutine runs, waits or may run: memory full of zeros looks like one that does not.
    fn is_alive(&self, g: u64) -> bool {
        let at = &self.layout.g;
        let word = |field| self.word(g, field).unwrap_or(0);
        let status = self.status(g).unwrap_or(0);
        word(at.stack_hi) != 0 && word(at.goid) != 0 && word(at.sched_sp) != 0 && (1..=4).contains(&status)
    }

    fn is_processor(&self, p: u64, index: u64) -> bool {
        let at = &self.layout.p;
        let check = || {
            let read = |field: u64| self.image.read_u32(Addr(p).add(field)).ok().map(u64::from);
            let mcache = self.word(p, at.mcache)?;
            let tiny = self.word(mcache, self.layout.mcache.tinyoffset)?;
            self.word(p, at.size.saturating_sub(WORD))?;
            Some(read(at.id?)? == index && read(at.status?)? <= 4 && mcache.is_multiple_of(WORD) && tiny <= 16)
        };
        check().unwrap_or(false)
    }

    /// The number of threads if `m` is one, in a list (`m.alllink`) whose last is the first thread, a static variable.
    fn threads(&self, m: u64) -> Option<u64> {
        let mut chain = Chain::new(m);
        let mut n = 0;
        let mut last = 0;
        while let Some(m) = chain.current() {
            let g0 = self.word(m, self.layout.m.g0).filter(|g0| *g0 != 0 && g0.is_multiple_of(WORD))?;
            let back = self.word(g0, self.layout.g.m)?;
            n += 1;
            last = m;
            let next = self.word(m, self.layout.m.alllink)?;
            if back != m || n > MAX_CHAIN || !chain.advance(next) {
                return None;
            }
        }
        self.statics.iter().any(|range| range.contains(Addr(last))).then_some(n)
    }

    fn strings(&self, at: u64, data: u64, len: u64, version: &str, found: &mut Structures) {
        let is = |text: &str| {
            let mut bytes = [0; 256];
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

    /// `runtime.writeBarrier`: compiled code tests it before it stores pointers, and nothing else that often.
    fn write_barrier(&self, text: AddrRange) -> Option<u64> {
        let mut counts = FxHashMap::default();
        let mut scratch = Scratch::default();
        for from in (0..text.len.min(MAX_CODE)).step_by(PIECE as usize) {
            let piece = AddrRange { start: text.start.add(from), len: (text.len - from).min(PIECE) };
            let loaded = self.image.load(&[piece], &mut scratch);
            self.machine.count_flag_tests(loaded.get(0), piece.start.0, &mut counts);
        }
        let mut counts: Vec<(u32, u64)> = counts.into_iter().map(|(at, n)| (n, at)).collect();
        counts.sort_unstable_by_key(|&(n, at)| (std::cmp::Reverse(n), at));
        let (n, at) = *counts.first()?;
        let second = counts.get(1).map_or(0, |(n, _)| *n);
        let value = self.image.read_u32(Addr(at)).ok()?;
        let placed = self.statics.iter().any(|range| range.contains(Addr(at)));
        (n >= MIN_FLAG_TESTS && n / 4 >= second && placed && value <= 1).then_some(at)
    }

    /// What the functions named refer to in static memory. Words only.
    fn referred_by(&self, functions: &[&str]) -> Vec<u64> {
        let mut scratch = Scratch::default();
        let mut found = Vec::new();
        for Func { entry, end, .. } in functions.iter().filter_map(|name| self.modules.func_named(self.image, name)) {
            let code = AddrRange { start: Addr(entry), len: end.saturating_sub(entry).min(PIECE) };
            let loaded = self.image.load(&[code], &mut scratch);
            found.extend(self.machine.references(loaded.get(0), entry, &self.statics));
        }
        found.retain(|at| at.is_multiple_of(WORD));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// `runtime.allfin`: of what `queuefinalizer` refers to, the start of the longest list of blocks. With no block at all, any that is
    /// nil is as good.
    fn finalizer_queue(&self) -> Option<u64> {
        let at = &self.layout.finblock;
        let capacity = FIN_BLOCK_SIZE.saturating_sub(at.fin) / self.layout.finalizer.size.max(1);
        let block = |block: u64| {
            let cnt = self.image.read_u32(Addr(block).add(at.cnt)).ok()?;
            // The whole block is there, and the runtime's own memory is not static.
            self.word(block, FIN_BLOCK_SIZE - WORD)?;
            let own = self.statics.iter().all(|range| !range.contains(Addr(block)));
            (own && u64::from(cnt) <= capacity).then_some(())?;
            self.word(block, at.alllink)
        };
        self.longest(&self.referred_by(&["runtime.queuefinalizer"]), 0, block)
    }

    /// `runtime.gcCleanups` (Go 1.25 and later), if it has blocks.
    fn cleanup_queue(&self) -> Option<u64> {
        let (queue, at) = (self.layout.cleanup_queue.as_ref()?, self.layout.cleanup_block.as_ref()?);
        let size = self.layout.cleanup_fn.as_ref().map_or(WORD, |at| at.size.max(1));
        let capacity = CLEANUP_BLOCK_SIZE.saturating_sub(at.cleanups) / size;
        let block = |block: u64| {
            let n = self.image.read_u32(Addr(block).add(at.n)).ok()?;
            self.word(block, CLEANUP_BLOCK_SIZE - WORD)?;
            let own = self.statics.iter().all(|range| !range.contains(Addr(block)));
            (own && u64::from(n) <= capacity).then_some(())?;
            self.word(block, at.alllink)
        };
        // A method of the queue, written out.
        let found = self.longest(&self.referred_by(&["runtime.runCleanups"]), queue.all, block)?;
        (self.word(found, queue.all)? != 0).then_some(found)
    }

    /// The one of `candidates` whose word at `field` starts the longest list; `next` checks an element and says which one follows.
    fn longest(&self, candidates: &[u64], field: u64, next: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let length = |at: u64| {
            let mut chain = Chain::new(self.word(at, field)?);
            let mut n = 0u64;
            while let Some(element) = chain.current() {
                n += 1;
                if !element.is_multiple_of(WORD) || n > MAX_CHAIN || !chain.advance(next(element)?) {
                    return None;
                }
            }
            Some(n)
        };
        let lists = candidates.iter().filter_map(|at| Some((length(*at)?, *at)));
        lists.min_by_key(|&(n, at)| (std::cmp::Reverse(n), at)).map(|(_, at)| at)
    }

    /// `runtime.gcController` and `runtime.memstats`: both know how many bytes the spans in use have.
    fn statistics(&self, mheap: u64) -> (Option<u64>, Option<u64>) {
        let (controller, stats) = (&self.layout.gc_controller, &self.layout.mstats);
        let Some(pages) = self.word(mheap, self.layout.mheap.pages_in_use) else { return (None, None) };
        let in_use = pages.wrapping_mul(PAGE_SIZE);
        let mut found = (None, None);
        let delta = self.layout.heap_stats_delta.as_ref();
        let in_heap = delta.and_then(|d| Some((stats.heap_stats?, d.size, d.in_heap?)));
        for range in self.statics {
            let range = AddrRange { len: range.len.min(MAX_SUMMED), ..range };
            each_word(self.image, range, &mut |at, [word, ..]| {
                let candidate = controller.heap_in_use.map(|field| at.wrapping_sub(field));
                if found.0.is_none()
                    && word == in_use
                    && let Some(base) = candidate.filter(|base| self.is_controller(*base, in_use))
                {
                    found.0 = Some(base);
                }
                // The first of the deltas, unless it is 0, starts the sum.
                if found.1.is_none()
                    && let Some((first, size, field)) = in_heap
                {
                    found.1 = (0..self.layout.heap_stats_len.min(8)).find_map(|i| {
                        let base = at.wrapping_sub(first).wrapping_sub(i * size).wrapping_sub(field);
                        self.is_memstats(base, in_use).then_some(base)
                    });
                }
            });
        }
        found
    }

    fn is_controller(&self, base: u64, in_use: u64) -> bool {
        let at = &self.layout.gc_controller;
        let word = |field: Option<u64>| self.word(base, field?);
        let (Some(alloc), Some(free)) = (word(at.total_alloc), word(at.total_free)) else { return false };
        let pages = |field| word(field).is_some_and(|bytes| bytes.is_multiple_of(PAGE_SIZE));
        alloc >= free && alloc - free <= in_use && alloc != 0 && pages(at.heap_free) && pages(at.heap_released)
    }

    fn is_memstats(&self, base: u64, in_use: u64) -> bool {
        let (at, Some(delta)) = (&self.layout.mstats, self.layout.heap_stats_delta.as_ref()) else { return false };
        let Some(first) = at.heap_stats else { return false };
        // Each delta may be anything; together they are what there is.
        let sum = |field: Option<u64>| {
            let field = field?;
            (0..self.layout.heap_stats_len.min(8))
                .try_fold(0u64, |sum, i| Some(sum.wrapping_add(self.word(base, first + i * delta.size + field)?)))
        };
        let check = || {
            let pages = |bytes: u64| bytes < 1 << 48 && bytes.is_multiple_of(4096);
            let committed = sum(delta.committed)?;
            let (stacks, work_bufs) = (sum(delta.in_stacks)?, sum(delta.in_work_bufs)?);
            let large = sum(delta.large_alloc)?.wrapping_sub(sum(delta.large_free)?);
            let large_count = sum(delta.large_alloc_count)?.wrapping_sub(sum(delta.large_free_count)?);
            let last_gc = self.word(base, at.last_gc_unix?)?;
            let sound = sum(delta.in_heap)? == in_use
                && [committed, stacks, work_bufs, large].into_iter().all(pages)
                && sum(delta.released).is_some_and(pages)
                && stacks > 0
                && large <= in_use
                && large / PAGE_SIZE >= large_count
                && committed >= in_use.saturating_add(stacks).saturating_add(work_bufs)
                // Nanoseconds since 1970: years 2001 to 2128.
                && (last_gc == 0 || (1_000_000_000_000_000_000..5_000_000_000_000_000_000).contains(&last_gc));
            Some(sound)
        };
        check().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::AMD64;
    use crate::model::modules::testing::Bytes;

    /// Lists without an end that all lead to each other: the search gives up instead of following each of them to its end.
    #[test]
    fn reads_are_bounded() {
        let layout = RuntimeLayout::default();
        let image = Bytes::new(vec![(0x1000, vec![0xff; 64])]);
        let modules = Modules::read(&image, &layout);
        let Ok(modules) = modules else { panic!("a module of nothing: {:?}", modules.err()) };
        let machine = Machine::of(&AMD64).expect("amd64");
        let search = Search {
            image: &image,
            layout: &layout,
            modules: &modules,
            machine,
            statics: [AddrRange { start: Addr(0), len: 0 }; 4],
            reads: Cell::new(2),
        };
        assert_eq!(
            [search.word(0x1000, 0), search.word(0x1000, 8), search.word(0x1000, 16)],
            [Some(u64::MAX), Some(u64::MAX), None]
        );
        assert_eq!(search.threads(0x1000), None);
    }
}
