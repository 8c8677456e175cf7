//! Forged memory: what the program has may look much like what the runtime has, and may be half made.

use super::*;
use crate::architecture::AMD64;
use crate::model::modules::testing::Bytes;
use crate::model::release::table::Table;
use crate::model::release::{TABLES, layout_of};

const STATIC: u64 = 0x10_0000;
const HEAP: u64 = 0xc0_0000_0000;
const STACK: u64 = 0xc0_0800_0000;

/// Memory of a process of Go 1.26, to be written: static words and 1 MiB of other memory.
struct Forged {
    layout: RuntimeLayout,
    data: Vec<u8>,
    heap: Vec<u8>,
    reads: u64,
}

impl Forged {
    fn new() -> Self {
        let (_, text) = TABLES.iter().find(|(minor, _)| *minor == 26).expect("a table");
        let layout = layout_of(&mut Table::parse(text, |_| false).expect("a table")).expect("a layout");
        Self { layout, data: vec![0; 0x8000], heap: vec![0; 1 << 20], reads: MAX_READS }
    }

    fn put<const N: usize>(&mut self, at: u64, bytes: [u8; N]) {
        let (memory, start) = if at < HEAP { (&mut self.data, STATIC) } else { (&mut self.heap, HEAP) };
        let from = (at - start) as usize;
        memory[from..from + N].copy_from_slice(&bytes);
    }

    fn word(&mut self, at: u64, value: u64) {
        self.put(at, value.to_le_bytes());
    }

    fn half(&mut self, at: u64, value: u32) {
        self.put(at, value.to_le_bytes());
    }

    /// A slice at `at` whose array is at `array`.
    fn list(&mut self, at: u64, array: u64, elements: &[u64]) {
        for (at, word) in (at..).step_by(8).zip([array, elements.len() as u64, elements.len() as u64]) {
            self.word(at, word);
        }
        for (at, element) in (array..).step_by(8).zip(elements) {
            self.word(at, *element);
        }
    }

    fn goroutine(&mut self, g: u64, goid: u64) {
        let at = self.layout.g.clone();
        let stack = STACK + goid * 0x2000;
        self.word(g + at.stack_lo, stack);
        self.word(g + at.stack_hi, stack + 0x2000);
        self.word(g + at.sched_sp, stack + 0x1f00);
        self.word(g + at.goid, goid);
        self.half(g + at.atomicstatus, 4);
    }

    fn processor(&mut self, p: u64, id: u32, mcache: u64) {
        let at = self.layout.p.clone();
        self.half(p + at.id.expect("an offset"), id);
        self.word(p + at.mcache, mcache);
    }

    /// A thread with its two goroutines behind it.
    fn thread(&mut self, m: u64, next: u64) {
        let (at, back) = (self.layout.m.clone(), self.layout.g.m);
        for (field, g) in [(at.g0, m + 0x800), (at.gsignal, m + 0xc00)] {
            self.word(m + field, g);
            self.word(g + back, m);
        }
        self.word(m + at.alllink, next);
    }

    /// Calls `f` with a search of this memory, and says how many reads it took.
    fn search<T>(self, f: impl FnOnce(&Search<'_>) -> T) -> (T, u64) {
        let image = Bytes::new(vec![(STATIC, self.data.clone()), (HEAP, self.heap)]);
        let modules = Modules::read(&image, &RuntimeLayout::default()).expect("a module of nothing");
        let nothing = AddrRange { start: Addr(0), len: 0 };
        let search = Search {
            image: &image,
            layout: &self.layout,
            modules: &modules,
            machine: Machine::of(&AMD64).expect("amd64"),
            statics: [nothing, nothing, AddrRange { start: Addr(STATIC), len: self.data.len() as u64 }, nothing],
            reads: Cell::new(self.reads),
        };
        (f(&search), self.reads - search.reads.get())
    }

    fn structures(self) -> structures::Structures {
        self.search(|search| search.structures("go1.26.6")).0
    }
}

/// Lists without an end that all lead to each other: the search gives up instead of following each of them to its end.
#[test]
fn reads_are_bounded() {
    let mut forged = Forged::new();
    forged.thread(HEAP, HEAP + 0x1000);
    forged.thread(HEAP + 0x1000, STATIC + 0x1000);
    forged.thread(STATIC + 0x1000, 0);
    forged.reads = 9;
    // Three threads of three words each.
    let read = |search: &Search<'_>| (search.threads(HEAP), search.threads(HEAP), search.word(HEAP, 0));
    assert_eq!(forged.search(read).0, (Some(3), None, None));
}

/// A list of the program's before `allp`: numbered, with a pointer where a processor has its cache, but closer together.
#[test]
fn numbered_nodes_are_no_processors() {
    for (distance, found) in [(0x40, STATIC + 0x400), (0x4000, STATIC + 0x200)] {
        let mut forged = Forged::new();
        let nodes: Vec<u64> = (0..4).map(|i| HEAP + 0x1000 + i * distance).collect();
        for (id, node) in (0..).zip(&nodes) {
            forged.processor(*node, id, HEAP + 0x4_0000 + u64::from(id) * 0x1000);
        }
        forged.list(STATIC + 0x200, HEAP + 0x8_0000, &nodes);
        let real: Vec<u64> = (0..2).map(|i| HEAP + 0x9_0000 + i * 0x4000).collect();
        for (id, p) in (0..).zip(&real) {
            forged.processor(*p, id, HEAP + 0xc_0000 + u64::from(id) * 0x1000);
        }
        forged.list(STATIC + 0x400, HEAP + 0xd_0000, &real);
        assert_eq!(forged.structures().allp, Some(found), "nodes {distance:#x} apart");
    }
}

/// `allgs` while it grows: its last element is not written yet. And a longer list of the program's: structs that start with 0 and a
/// number, and have small numbers further on.
#[test]
fn goroutines_are_told_from_numbers() {
    let mut forged = Forged::new();
    let real: Vec<u64> = (0..5).map(|i| HEAP + i * 0x400).collect();
    for (goid, g) in (1..).zip(&real) {
        forged.goroutine(*g, goid);
    }
    forged.list(STATIC + 0x400, HEAP + 0x8_0000, &[&real[..], &[0]].concat());
    let numbers: Vec<u64> = (0..9).map(|i| HEAP + 0x1_0000 + i * 0x400).collect();
    for g in &numbers {
        forged.goroutine(*g, 3);
        let at = forged.layout.g.clone();
        forged.word(g + at.stack_lo, 0);
        forged.word(g + at.stack_hi, 100);
        forged.word(g + at.sched_sp, 5);
    }
    forged.list(STATIC + 0x200, HEAP + 0x9_0000, &numbers);
    assert_eq!(forged.structures().allgs, Some((6, STATIC + 0x400)));
}

/// Zeros are no goroutines, whatever else is right; neither is a list of nothing but nil.
#[test]
fn zeros_are_nothing() {
    let mut forged = Forged::new();
    forged.list(STATIC + 0x200, HEAP + 0x9_0000, &[HEAP, HEAP + 0x400, HEAP + 0x800]);
    forged.list(STATIC + 0x400, HEAP + 0x8_0000, &[0, 0]);
    let found = forged.structures();
    assert_eq!((found.allgs, found.allp, found.mheap, found.allm), (None, None, None, None));
}

/// `allm` while a thread is made (no `g0` yet) and while another ends (no `gsignal` any more); a thread with neither ends the list.
#[test]
fn threads_half_made() {
    let three = || {
        let mut forged = Forged::new();
        forged.thread(HEAP, HEAP + 0x2000);
        forged.thread(HEAP + 0x2000, STATIC + 0x1000);
        forged.thread(STATIC + 0x1000, 0);
        // An idle thread (`sched.midle`), and the list.
        forged.word(STATIC + 0x100, HEAP + 0x2000);
        forged.word(STATIC + 0x200, HEAP);
        forged
    };
    let mut forged = three();
    let at = forged.layout.m.clone();
    forged.word(HEAP + at.g0, 0);
    forged.word(HEAP + 0x2000 + at.gsignal, 0);
    assert_eq!(forged.structures().allm, Some((3, STATIC + 0x200)));
    let mut forged = three();
    forged.word(HEAP + at.g0, 0);
    forged.word(HEAP + at.gsignal, 0);
    assert_eq!(forged.structures().allm, Some((2, STATIC + 0x100)));
}

/// The spans in use tell nearly all words apart: what else `memstats` has is not read for each.
#[test]
fn sums_are_cheap() {
    let mut forged = Forged::new();
    for at in (STATIC..STATIC + 0x8000).step_by(8) {
        forged.word(at, at);
    }
    let words = forged.data.len() as u64 / 8;
    let deltas = forged.layout.heap_stats_len;
    // `mheap_` is longer than this memory: its count of pages is not.
    let mheap = (STATIC + 0x4000).wrapping_sub(forged.layout.mheap.pages_in_use);
    let (found, reads) = forged.search(|search| search.statistics(mheap));
    assert_eq!((found, deltas), ((None, None), 3));
    // Each word may be in one of three deltas, whose sum has three terms.
    let most = words * deltas * deltas;
    assert!((most / 2..=most + 100).contains(&reads), "{reads} reads for {words} words");
}

/// Sections of any kind, at the end of the address space too.
#[test]
fn sections_are_searched_by_words() {
    let range = |start: u64, len: u64| AddrRange { start: Addr(start), len };
    for (section, expected) in [
        (range(0x1000, 0x20), range(0x1000, 0x20)),
        (range(0x1003, 0x20), range(0x1008, 0x1b)),
        (range(0x1003, 2), range(0x1008, 0)),
        (range(u64::MAX - 3, 3), range(0, 0)),
        (range(u64::MAX - 31, u64::MAX), range(u64::MAX - 31, 31)),
        (range(0x1000, u64::MAX - 0x2000), range(0x1000, MAX_STATIC)),
    ] {
        assert_eq!(whole_words(section), expected, "{section:x?}");
    }
}
