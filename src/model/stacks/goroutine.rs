//! The goroutines of `runtime.allgs` and where each one's stack is to be unwound from.
//!
//! A goroutine that does not run has its PC and SP in `g.sched`, or in `g.syscallpc` and `g.syscallsp`. A running one needs its
//! thread: the registers if SP is on the goroutine's stack, the interrupted context if it handles a signal, `g.sched` if it switched
//! to the system stack (`systemstack`, `mcall` and `asmcgocall` fill it).

use super::code::{FrameCodes, Role};
use super::interrupted::interrupted;
use super::layout::StackLayout;
use super::unwind::Start;
use crate::address::{Addr, AddrRange};
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
    /// At a safe point: a PC and a SP that the runtime saved.
    fn saved(pc: u64, sp: u64, lr: u64) -> Self {
        Self::Unwind { start: Start { pc, sp, lr, is_syscall: false, any_pc: false }, registers: Vec::new() }
    }

    /// At the PC and SP of a system call.
    fn in_syscall(g: &Goroutine) -> Self {
        let start = Start { pc: g.syscallpc, sp: g.syscallsp, lr: 0, is_syscall: true, any_pc: false };
        Self::Unwind { start, registers: Vec::new() }
    }

    /// At any instruction of `g` with SP on its stack.
    ///
    /// * `g0`: that of its thread.
    ///
    /// Where the runtime switches from a stack or to one, `g.sched` says more than the registers do.
    fn at_registers(g: &Goroutine, g0: u64, pc: u64, registers: Vec<u64>, codes: &mut dyn FrameCodes) -> Self {
        let architecture = codes.architecture();
        let start = Start::at_registers(pc, &registers, architecture);
        // In `mcall`, `systemstack` or `morestack`, which have saved the goroutine and are on the way off its stack: the link register
        // may be that of their own calls, and without a frame they keep no other.
        let g_register = architecture.dwarf_g.and_then(|i| registers.get(i)).copied();
        if g0 != 0 && g_register == Some(g0) && g.sched_sp == start.sp {
            return Self::saved(g.sched_pc, g.sched_sp, g.sched_lr);
        }
        let mut role = |pc| codes.find(pc).map(|id| codes.code(id).role);
        if role(pc) == Some(Role::Gogo) {
            // Taken from `sched` and then cleared there, one after the other: SP, the link register (until then that of a call that
            // `gogo` made itself), the closure register.
            let taken = role(start.lr) != Some(Role::Gogo);
            let lr = if g.sched_lr == 0 && taken { start.lr } else { g.sched_lr };
            let mut only_ctxt = vec![0; registers.len()];
            if let (Some(to), Some(ctxt)) =
                (only_ctxt.get_mut(architecture.dwarf_ctxt), registers.get(architecture.dwarf_ctxt))
            {
                *to = *ctxt;
            }
            let start = Start { pc: g.sched_pc, sp: start.sp, lr, is_syscall: false, any_pc: false };
            return Self::Unwind { start, registers: only_ctxt };
        }
        Self::Unwind { start, registers }
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

impl<'a> Threads<'a> {
    /// Indexes `list`.
    #[must_use]
    pub fn new(list: &'a [Thread]) -> Self {
        Self { list, by_tid: list.iter().enumerate().map(|(i, t)| (u64::from(t.tid), i)).collect() }
    }

    /// Finds where `g` stands.
    pub fn entry(&self, g: &Goroutine, image: &dyn Image, layout: &StackLayout, codes: &mut dyn FrameCodes) -> Entry {
        let on_stack = |sp: u64| g.stack.contains(Addr(sp));
        let thread = self.find(g, image, layout);
        // One that ends a collection is declared to wait, so that its stack can be scanned, and goes on on the system stack and off it
        // again. One that waits in earnest has no thread.
        let runs = g.is_running() || (g.status == G_WAITING && thread.is_some());
        if !runs {
            return if g.syscallsp != 0 && on_stack(g.syscallsp) {
                Entry::in_syscall(g)
            } else if on_stack(g.sched_sp) {
                Entry::saved(g.sched_pc, g.sched_sp, g.sched_lr)
            } else {
                Entry::Unknown
            };
        }
        let m_word = |offset: Option<u64>| offset.and_then(|o| image.read_u64(Addr(g.m).add(o)).ok()).unwrap_or(0);
        if let Some(thread) = thread {
            // What a signal interrupted comes before `g.sched`: that keeps the PC and SP of the last system call (`entersyscall`) until
            // the next switch of stacks, however many frames have come and gone since.
            let here = || (thread.pc, thread.dwarf_regs.clone());
            let at = on_stack(thread.sp).then(here).or_else(|| interrupted(thread, &on_stack, image, codes));
            if let Some((pc, registers)) = at {
                return Entry::at_registers(g, m_word(Some(layout.m_g0)), pc, registers, codes);
            }
        }
        // In a VDSO call on the system stack, which leaves `g.sched` alone: the caller's PC and SP.
        let (vdso_pc, vdso_sp) = (m_word(layout.m_vdso_pc), m_word(layout.m_vdso_sp));
        if on_stack(vdso_sp) && codes.find(vdso_pc).is_some() {
            return Entry::saved(vdso_pc, vdso_sp, 0);
        }
        if on_stack(g.sched_sp) {
            return Entry::saved(g.sched_pc, g.sched_sp, g.sched_lr);
        }
        if on_stack(g.syscallsp) {
            return Entry::in_syscall(g);
        }
        Entry::Unknown
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{AMD64, ARM64, Architecture};
    use crate::model::stacks::testing::Codes;

    const G0: u64 = 0x5000;

    /// Where a goroutine with `sched` at PC 2, SP 0x7010 and this link register stands by its registers. PC 1 is a function of its, PC 3
    /// is `gogo`.
    fn standing(machine: &'static Architecture, pc: u64, sched_lr: u64, set: &[(usize, u64)]) -> Entry {
        let g = Goroutine { sched_pc: 2, sched_sp: 0x7010, sched_lr, ..Goroutine::default() };
        let mut codes = Codes::of(machine);
        codes.add(1, 0, 0, Role::Normal).add(3, 0, 0, Role::Gogo);
        let mut registers = vec![9; machine.prstatus.dwarf.len()];
        for (register, value) in set {
            registers[*register] = *value;
        }
        Entry::at_registers(&g, G0, pc, registers, &mut codes)
    }

    fn start_of(entry: Entry) -> (u64, u64, u64, bool, Vec<u64>) {
        let Entry::Unwind { start, registers } = entry else { panic!("{entry:?}") };
        (start.pc, start.sp, start.lr, start.any_pc, registers)
    }

    #[test]
    fn a_goroutine_that_leaves_its_stack_is_saved_already() {
        // In `save_g`, called by `mcall`, whose own return address is gone.
        let entry = standing(&ARM64, 1, 0, &[(31, 0x7010), (28, G0), (30, 3)]);
        assert_eq!(entry, Entry::saved(2, 0x7010, 0));
        assert_eq!(standing(&ARM64, 1, 7, &[(31, 0x7010), (28, G0)]), Entry::saved(2, 0x7010, 7), "in a prologue");
        // What is saved is older.
        let at = standing(&ARM64, 1, 0, &[(31, 0x7000), (28, G0), (30, 8)]);
        assert_eq!(start_of(at).0, 1);
        let at = start_of(standing(&ARM64, 1, 0, &[(31, 0x7010), (28, 0x5100), (30, 8)]));
        assert_eq!((at.0, at.1, at.2, at.3), (1, 0x7010, 8, true));
        // R14 of amd64 is any register to assembly.
        assert_eq!(start_of(standing(&AMD64, 1, 0, &[(7, 0x7010), (14, G0)])).0, 1);
    }

    #[test]
    fn a_goroutine_that_comes_to_its_stack_is_where_sched_says() {
        let at = start_of(standing(&AMD64, 3, 0, &[(7, 0x7010), (1, 0xc0de)]));
        assert_eq!((at.0, at.1, at.2, at.3), (2, 0x7010, 0, false));
        let mut only_ctxt = vec![0; 16];
        only_ctxt[1] = 0xc0de;
        assert_eq!(at.4, only_ctxt);
        // The link register: still that of its own call, taken, taken and cleared in `sched`, none.
        for (register, sched, is) in [(3, 7, 7), (7, 7, 7), (7, 0, 7), (3, 0, 0), (0, 0, 0)] {
            let at = start_of(standing(&ARM64, 3, sched, &[(31, 0x7010), (30, register)]));
            assert_eq!((at.0, at.1, at.2, at.3), (2, 0x7010, is, false), "{register} {sched}");
        }
    }
}
