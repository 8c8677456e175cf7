//! The goroutines of `runtime.allgs` and where each one's stack is to be unwound from.
//!
//! A goroutine that does not run has its PC and SP in `g.sched`, or in `g.syscallpc` and `g.syscallsp`. A running one needs its
//! thread: the registers if SP is on the goroutine's stack, the interrupted context if it handles a signal, `g.sched` if it switched
//! to the system stack (`systemstack`, `mcall` and `asmcgocall` fill it).

use super::code::{FrameCodes, Role};
use super::layout::StackLayout;
use super::memory::StackMemory;
use super::unwind::{Start, unwind};
use crate::address::{Addr, AddrRange};
use crate::architecture::Architecture;
use crate::image::{Image, Scratch, Thread};
use crate::incident::Incidents;
use rustc_hash::FxHashMap;

/// `_Gidle`: just allocated.
const G_IDLE: u32 = 0;
/// `_Grunning`.
const G_RUNNING: u32 = 2;
/// `_Gwaiting`.
const G_WAITING: u32 = 4;
/// `_Gdead`.
const G_DEAD: u32 = 6;
/// `_Gdeadextra` (Go 1.26+).
const G_DEAD_EXTRA: u32 = 11;
/// `_Gscan`, a bit beside the status.
const G_SCAN: u32 = 0x1000;
/// Longest stack that is loaded: what one image read may ask for.
const MAX_STACK_BYTES: u64 = 1 << 30;

/// One goroutine whose stack the collector scans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goroutine {
    /// Address of the `g`.
    pub addr: u64,
    /// `goid`.
    pub goid: u64,
    /// `atomicstatus` without the scan bit.
    pub status: u32,
    /// `[stack.lo, stack.hi)`.
    pub stack: AddrRange,
    /// `sched.sp`.
    pub sched_sp: u64,
    /// `sched.pc`.
    pub sched_pc: u64,
    /// `sched.lr`: where a function that has not saved its return address yet was called, 0 if that is on the stack.
    pub sched_lr: u64,
    /// `sched.ctxt`: a closure register that the scheduler saved.
    pub sched_ctxt: u64,
    /// `syscallsp`.
    pub syscallsp: u64,
    /// `syscallpc`.
    pub syscallpc: u64,
    /// `m`.
    pub m: u64,
    /// `_defer`.
    pub defer: u64,
    /// `_panic`.
    pub panic: u64,
    /// `startpc`.
    pub startpc: u64,
    /// `waiting`: the channel operations it is blocked in.
    pub waiting: u64,
    /// Extended registers of an asynchronously preempted goroutine, if the collector scans them.
    pub xregs: Option<AddrRange>,
}

impl Goroutine {
    /// Parses a `g` of `layout.g_size` bytes; `None` if the collector does not scan its stack.
    fn parse(addr: u64, bytes: &[u8], layout: &StackLayout) -> Option<Self> {
        let word = |offset: u64| {
            let from = offset as usize;
            u64::from_le_bytes(bytes[from..from + 8].try_into().expect("8 bytes"))
        };
        let at = layout.g_atomicstatus as usize;
        let status = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) & !G_SCAN;
        if matches!(status, G_IDLE | G_DEAD | G_DEAD_EXTRA) {
            return None;
        }
        let preempted = layout.g_async_safe_point.is_some_and(|offset| bytes[offset as usize] != 0);
        let xregs = layout.g_xregs_state.filter(|_| preempted).map(word).filter(|state| *state != 0);
        Some(Self {
            addr,
            goid: word(layout.g_goid),
            status,
            stack: AddrRange::from_bounds(Addr(word(layout.g_stack_lo)), Addr(word(layout.g_stack_hi))),
            sched_sp: word(layout.g_sched_sp),
            sched_pc: word(layout.g_sched_pc),
            sched_lr: word(layout.g_sched_lr),
            sched_ctxt: word(layout.g_sched_ctxt),
            syscallsp: word(layout.g_syscallsp),
            syscallpc: word(layout.g_syscallpc),
            m: word(layout.g_m),
            defer: word(layout.g_defer),
            panic: word(layout.g_panic),
            startpc: word(layout.g_startpc),
            waiting: layout.waiting.map_or(0, |w| word(w.g_waiting)),
            xregs: xregs.zip(layout.xregs_size).map(|(state, len)| AddrRange { start: Addr(state), len }),
        })
    }

    /// Whether it occupies a thread.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.status == G_RUNNING
    }
}

/// Where a goroutine's innermost frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Unwind from here; `registers` (DWARF numbering) belong to the innermost frame if it is at any PC.
    Unwind {
        /// PC and SP.
        start: Start,
        /// Empty at a safe point.
        registers: Vec<u64>,
    },
    /// Nothing tells where it stands: every word of its stack may be live.
    Unknown,
}

impl Entry {
    /// At any instruction.
    fn at_registers(pc: u64, registers: Vec<u64>, architecture: &Architecture) -> Self {
        Self::Unwind { start: Start::at_registers(pc, &registers, architecture), registers }
    }
}

/// Reads the goroutines at `addrs` (elements of `allgs`); dead ones are left out.
pub fn read_goroutines(
    image: &dyn Image,
    layout: &StackLayout,
    addrs: &[u64],
    scratch: &mut Scratch,
    incidents: &mut Incidents,
) -> Vec<Goroutine> {
    if !layout.g_fits() {
        incidents.add("stack.bad_g_layout", addrs.len() as u64);
        return Vec::new();
    }
    let ranges: Vec<_> = addrs.iter().map(|g| AddrRange { start: Addr(*g), len: layout.g_size }).collect();
    let bytes = image.load(&ranges, scratch);
    let mut goroutines = Vec::with_capacity(addrs.len());
    for (i, addr) in addrs.iter().enumerate() {
        let g = bytes.get(i);
        if g.len() as u64 != layout.g_size {
            incidents.count("stack.unreadable_g");
        } else if let Some(g) = Goroutine::parse(*addr, g, layout) {
            if g.stack.len == 0 || g.stack.len > MAX_STACK_BYTES {
                incidents.count("stack.bad_bounds");
            } else {
                goroutines.push(g);
            }
        }
    }
    goroutines
}

/// Threads of the dumped process by Linux thread id.
#[derive(Debug)]
pub struct Threads<'a> {
    list: &'a [Thread],
    by_tid: FxHashMap<u64, usize>,
}

/// How far up a signal stack is unwound; the runtime's own is 32 KiB.
const SIGNAL_STACK_BYTES: u64 = 64 << 10;
/// Signal handlers that are followed within each other: each needs a kilobyte of the signal stack for its context alone.
const NESTED_SIGNALS: usize = 16;

impl<'a> Threads<'a> {
    /// Indexes `list`.
    #[must_use]
    pub fn new(list: &'a [Thread]) -> Self {
        Self { list, by_tid: list.iter().enumerate().map(|(i, t)| (u64::from(t.tid), i)).collect() }
    }

    /// Finds where `g` stands.
    pub fn entry(&self, g: &Goroutine, image: &dyn Image, layout: &StackLayout, codes: &mut dyn FrameCodes) -> Entry {
        let saved = |pc, sp, lr, is_syscall| {
            let start = Start { pc, sp, lr, is_syscall, any_pc: false };
            Entry::Unwind { start, registers: Vec::new() }
        };
        let architecture = codes.architecture();
        if !g.is_running() && !self.holds_thread(g, image, layout) {
            return if g.syscallsp != 0 && g.stack.contains(Addr(g.syscallsp)) {
                saved(g.syscallpc, g.syscallsp, 0, true)
            } else if g.stack.contains(Addr(g.sched_sp)) {
                saved(g.sched_pc, g.sched_sp, g.sched_lr, false)
            } else {
                Entry::Unknown
            };
        }
        let on_stack = |sp: u64| g.stack.contains(Addr(sp));
        let thread = self.find(g, image, layout);
        if let Some(thread) = thread.filter(|t| on_stack(t.sp)) {
            return Entry::at_registers(thread.pc, thread.dwarf_regs.clone(), architecture);
        }
        // What a signal interrupted comes before `g.sched`: that keeps the PC and SP of the last system call (`entersyscall`) until
        // the next switch of stacks, however many frames have come and gone since.
        if let Some((pc, registers)) = thread.and_then(|t| interrupted(t, &on_stack, image, codes)) {
            return Entry::at_registers(pc, registers, architecture);
        }
        // In a VDSO call on the system stack, which leaves `g.sched` alone: the caller's PC and SP.
        let m_word = |offset: Option<u64>| offset.and_then(|o| image.read_u64(Addr(g.m).add(o)).ok()).unwrap_or(0);
        let (vdso_pc, vdso_sp) = (m_word(layout.m_vdso_pc), m_word(layout.m_vdso_sp));
        if on_stack(vdso_sp) && codes.find(vdso_pc).is_some() {
            return saved(vdso_pc, vdso_sp, 0, false);
        }
        if on_stack(g.sched_sp) {
            return saved(g.sched_pc, g.sched_sp, g.sched_lr, false);
        }
        if on_stack(g.syscallsp) {
            return saved(g.syscallpc, g.syscallsp, 0, true);
        }
        Entry::Unknown
    }

    /// Whether a waiting goroutine runs: one that ends a collection is declared to wait, so that its stack can be scanned, and then
    /// goes on on the system stack and off it again.
    fn holds_thread(&self, g: &Goroutine, image: &dyn Image, layout: &StackLayout) -> bool {
        g.status == G_WAITING
            && g.m != 0
            && self.find(g, image, layout).is_some_and(|thread| g.stack.contains(Addr(thread.sp)))
    }

    /// The thread that runs `g`: by `m.procid`, else (another PID namespace) by a SP on the goroutine's or its system stack.
    fn find(&self, g: &Goroutine, image: &dyn Image, layout: &StackLayout) -> Option<&'a Thread> {
        let m = Addr(g.m);
        let read = |addr: Addr| image.read_u64(addr).ok();
        if g.m == 0 || read(m.add(layout.m_curg))? != g.addr {
            return None;
        }
        if let Some(i) = self.by_tid.get(&read(m.add(layout.m_procid))?) {
            return self.list.get(*i);
        }
        let stack_of = |g: u64| {
            let (lo, hi) = (read(Addr(g).add(layout.g_stack_lo))?, read(Addr(g).add(layout.g_stack_hi))?);
            Some(AddrRange::from_bounds(Addr(lo), Addr(hi)))
        };
        let mut stacks = vec![g.stack];
        stacks.extend(read(m.add(layout.m_g0)).and_then(stack_of));
        stacks.extend(layout.m_gsignal.and_then(|o| read(m.add(o))).and_then(stack_of));
        stacks.iter().find_map(|stack| self.list.iter().find(|t| stack.contains(Addr(t.sp))))
    }
}

/// PC and registers of a goroutine that a signal interrupted, if `thread` is in a signal handler of the runtime and SP was on the
/// goroutine's stack (`on_stack`). Handlers may be nested: one that dies of its signal raises it once more, and is handled again.
fn interrupted(
    thread: &Thread,
    on_stack: &dyn Fn(u64) -> bool,
    image: &dyn Image,
    codes: &mut dyn FrameCodes,
) -> Option<(u64, Vec<u64>)> {
    let architecture = codes.architecture();
    let (mut pc, mut registers) = (thread.pc, thread.dwarf_regs.clone());
    for _ in 0..NESTED_SIGNALS {
        (pc, registers) = interrupted_at(Start::at_registers(pc, &registers, architecture), image, codes)?;
        if on_stack(architecture.stack_pointer(&registers)) {
            return Some((pc, registers));
        }
    }
    None
}

/// What the innermost signal handler on the stack at `start` interrupted.
fn interrupted_at(start: Start, image: &dyn Image, codes: &mut dyn FrameCodes) -> Option<(u64, Vec<u64>)> {
    let sp = start.sp;
    let mut bytes = Vec::new();
    // The stack may end anywhere; page by page, as far as there is memory.
    let mut page = [0; 4096];
    while (bytes.len() as u64) < SIGNAL_STACK_BYTES {
        let at = Addr(sp).add(bytes.len() as u64);
        let len = 4096 - (at.0 % 4096) as usize;
        if image.read(at, &mut page[..len]).is_err() {
            break;
        }
        bytes.extend_from_slice(&page[..len]);
    }
    let stack = StackMemory::new(sp, &bytes);
    let mut frames = Vec::new();
    unwind(start, stack, codes, &mut frames);
    let handler = frames.iter().find(|f| codes.code(f.code).role == Role::SigTramp)?.cfa;
    codes.architecture().signal_frame.read(|offset| stack.word(handler.wrapping_add(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{AMD64, ARM64};
    use crate::model::modules::testing::Bytes;
    use crate::model::stacks::code::FLAG_TOP_FRAME;
    use crate::model::stacks::testing::Codes;

    /// A thread that died in `raise` (PC 1, no frame), called by a handler (PC 2), called by `sigtramp` (PC 3, with 192 bytes), whose
    /// frame the kernel put its context above.
    fn dying(machine: &'static Architecture, words: Vec<u64>, lr: u64) -> Option<(u64, Vec<u64>)> {
        let mut codes = Codes::of(machine);
        codes.add(1, 0, 0, Role::Normal).add(2, 32, 0, Role::Normal).add(3, 192, FLAG_TOP_FRAME, Role::SigTramp);
        let mut registers = vec![0; machine.prstatus.dwarf.len()];
        registers[machine.dwarf_sp] = 0x1000;
        if let Some(i) = machine.dwarf_lr {
            registers[i] = lr;
        }
        let thread = Thread { tid: 1, pc: 1, sp: 0x1000, dwarf_regs: registers, signal: 6 };
        let image = Bytes::new(vec![(0x1000, words.iter().flat_map(|w| w.to_le_bytes()).collect())]);
        interrupted(&thread, &|sp| (0x7000..0x8000).contains(&sp), &image, &mut codes)
    }

    #[test]
    fn signal_frames_of_arm64() {
        // The frame of PC 2 with its return address, that of sigtramp, siginfo and the ucontext up to fault_address.
        let mut words = vec![3, 0, 0, 0];
        words.resize(4 + 24 + 16 + 22 + 1, 0);
        let regs = words.len();
        words.extend((100..131).chain([0x7010, 77, 0]));
        words.resize(512, 0);
        let (pc, registers) = dying(&ARM64, words.clone(), 2).expect("a handler");
        assert_eq!((pc, registers[0], registers[30], registers[31]), (77, 100, 130, 0x7010));
        // SP on another stack, where no handler is.
        words[regs + 31] = 0x1000;
        assert_eq!(dying(&ARM64, words, 2), None);
        assert_eq!(dying(&ARM64, vec![3; 8], 2), None, "cut off");
    }

    #[test]
    fn signal_frames_of_amd64() {
        let mut words = vec![2, 0, 0, 0, 0, 3];
        // sigtramp's frame, its return address, the ucontext up to its registers.
        words.resize(6 + 24 + 1 + 5, 0);
        words.extend((100..115).chain([0x7010, 77]));
        words.resize(512, 0);
        let (pc, registers) = dying(&AMD64, words, 0).expect("a handler");
        assert_eq!((pc, registers[0], registers[7], registers[8]), (77, 113, 0x7010, 100));
    }
}
