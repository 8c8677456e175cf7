//! What differs between machines: the general registers of a thread (`NT_PRSTATUS`, in words) and how a system call is made with them.

use crate::image::Thread;

#[cfg(target_arch = "x86_64")]
use amd64 as imp;
#[cfg(target_arch = "aarch64")]
use arm64 as imp;

pub(super) use imp::{ARCHITECTURE, CLONE, SYSCALL, VECTORS, WAIT4, call, may_call_at, rank, result, sites, vectors};

/// `__NR_close_range`, the same on all machines.
pub(super) const CLOSE_RANGE: u64 = 436;

/// The [`rank`] of a thread outside of a system call.
pub(super) const OUTSIDE: u8 = 3;

/// The thread as the model wants it; `None` if there are fewer registers (a 32-bit thread).
pub(super) fn thread(tid: u32, regs: &[u64]) -> Option<Thread> {
    let saved = &ARCHITECTURE.prstatus;
    let word = |offset: u64| regs.get(usize::try_from(offset.checked_sub(saved.offset)? / 8).ok()?).copied();
    let (pc, dwarf_regs) = saved.read(word)?;
    Some(Thread { tid, pc, sp: ARCHITECTURE.stack_pointer(&dwarf_regs), dwarf_regs, signal: 0 })
}

// Those that are not this machine's are compiled for their tests.
#[cfg(any(target_arch = "x86_64", test))]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only tested"))]
mod amd64 {
    use super::OUTSIDE;
    use crate::architecture::{AMD64, Architecture};

    /// The machine that we run on, and so what we trace.
    pub(in crate::live) const ARCHITECTURE: &Architecture = &AMD64;
    /// The instruction.
    pub(in crate::live) const SYSCALL: &[u8] = &[0x0f, 0x05];
    /// `__NR_clone`.
    pub(in crate::live) const CLONE: u64 = 56;
    /// `__NR_wait4`.
    pub(in crate::live) const WAIT4: u64 = 61;

    /// Register sets that a system call destroys, though no code expects that which makes none: none here.
    pub(in crate::live) const VECTORS: &[i32] = &[];

    /// Words of `struct user_regs_struct`, and positions in it.
    const WORDS: usize = 27;
    const RAX: usize = 10;
    const ORIG_RAX: usize = 15;
    const RIP: usize = 16;
    /// rdi, rsi, rdx, r10, r8, r9.
    const ARGUMENTS: [usize; 6] = [14, 13, 12, 7, 9, 8];

    /// Results with which the kernel asks itself to make the call again once nothing else is to do.
    const ERESTARTSYS: i64 = -512;
    const ERESTARTNOINTR: i64 = -513;
    const ERESTARTNOHAND: i64 = -514;
    const ERESTART_RESTARTBLOCK: i64 = -516;

    /// How well a stopped thread suits for a call: lower is better, `None` not at all (32-bit code). In a call that the kernel just
    /// repeats, nothing is lost; code outside of a call may be in a restartable sequence (`rseq(2)`), which must not be left.
    pub(in crate::live) fn rank(regs: &[u64], _: &dyn Fn(u64) -> bool) -> Option<u8> {
        if regs.len() != WORDS {
            return None;
        }
        if regs[ORIG_RAX].cast_signed() < 0 {
            return Some(OUTSIDE);
        }
        Some(match regs[RAX].cast_signed() {
            ERESTARTSYS | ERESTARTNOINTR => 0,
            ERESTARTNOHAND | ERESTART_RESTARTBLOCK => 2,
            _ => 1,
        })
    }

    /// Where the thread's last system call instruction may be.
    pub(in crate::live) fn sites(regs: &[u64]) -> Vec<u64> {
        regs.get(RIP).map(|rip| rip.wrapping_sub(2)).into_iter().collect()
    }

    /// Whether a thread with these registers may make our call by the instruction at `at`.
    pub(in crate::live) fn may_call_at(_regs: &[u64], _at: u64) -> bool {
        true
    }

    /// Registers with which a thread makes a call and nothing else.
    pub(in crate::live) fn call(regs: &[u64], at: u64, number: u64, arguments: [u64; 6]) -> Vec<u64> {
        let mut regs = regs.to_vec();
        regs[RIP] = at;
        regs[RAX] = number;
        // Not in a system call: the kernel must not repeat the one that was interrupted before ours was made.
        regs[ORIG_RAX] = u64::MAX;
        for (i, value) in ARGUMENTS.into_iter().zip(arguments) {
            regs[i] = value;
        }
        regs
    }

    /// What a finished call returned.
    pub(in crate::live) fn result(regs: &[u64]) -> i64 {
        regs.get(RAX).map_or(-1, |rax| rax.cast_signed())
    }

    /// The words of a set of [`VECTORS`] that are to be written back after a call; `None` if it holds nothing.
    pub(in crate::live) fn vectors(_set: &[u64]) -> Option<&[u64]> {
        None
    }
}

#[cfg(any(target_arch = "aarch64", test))]
#[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "only tested"))]
mod arm64 {
    use super::OUTSIDE;
    use crate::architecture::{ARM64, Architecture};

    /// The machine that we run on, and so what we trace.
    pub(in crate::live) const ARCHITECTURE: &Architecture = &ARM64;
    /// `svc #0`.
    pub(in crate::live) const SYSCALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
    /// `__NR_clone`.
    pub(in crate::live) const CLONE: u64 = 220;
    /// `__NR_wait4`.
    pub(in crate::live) const WAIT4: u64 = 260;

    /// Register sets that a system call destroys, though no code expects that which makes none: `NT_ARM_SVE` and, of the streaming mode,
    /// `NT_ARM_SSVE`. A call keeps no more of the vectors than their lowest 128 bits, and ends the streaming mode.
    pub(in crate::live) const VECTORS: &[i32] = &[0x405, 0x40b];

    /// Words of `struct user_pt_regs`: x0..x30, sp, pc, pstate; and positions in it.
    const WORDS: usize = 34;
    const NUMBER: usize = 8;
    const PC: usize = 32;
    const PSTATE: usize = 33;
    /// `PSTATE.BTYPE`: set by an indirect branch until the next instruction, which must be a landing pad in guarded pages.
    const BTYPE: u64 = 3 << 10;
    /// The fourth argument of futex: how long to wait.
    const FUTEX_TIMEOUT: usize = 3;

    const PSELECT6: u64 = 72;
    const PPOLL: u64 = 73;
    const FUTEX: u64 = 98;
    const NANOSLEEP: u64 = 101;
    const CLOCK_NANOSLEEP: u64 = 115;
    const RESTART_SYSCALL: u64 = 128;
    const RT_SIGSUSPEND: u64 = 133;
    const FUTEX_WAITV: u64 = 449;

    /// How well a stopped thread suits for a call: lower is better, `None` not at all (32-bit code).
    ///
    /// Before a tracer sees a thread, the kernel has wound a call that it will repeat back to its instruction, and forgets why once the
    /// thread makes ours: then it is repeated whatever comes. A futex without an end does not mind, as its callers look whether they are
    /// meant, nor does a call that is over. Others would not see a signal that came meanwhile, if its handler is to end them (no
    /// `SA_RESTART`); and those that sleep for a time would sleep the whole time again, or wait for a signal that was handled.
    pub(in crate::live) fn rank(regs: &[u64], is_call: &dyn Fn(u64) -> bool) -> Option<u8> {
        if regs.len() != WORDS {
            return None;
        }
        if is_call(regs[PC]) {
            return Some(match regs[NUMBER] {
                PSELECT6 | PPOLL | NANOSLEEP | CLOCK_NANOSLEEP | RESTART_SYSCALL | RT_SIGSUSPEND | FUTEX_WAITV => 2,
                FUTEX if regs[FUTEX_TIMEOUT] != 0 => 2,
                FUTEX => 0,
                _ => 1,
            });
        }
        Some(if is_call(regs[PC].wrapping_sub(4)) { 0 } else { OUTSIDE })
    }

    /// Where the thread's last system call instruction may be.
    pub(in crate::live) fn sites(regs: &[u64]) -> Vec<u64> {
        regs.get(PC).map_or(Vec::new(), |pc| vec![pc.wrapping_sub(4), *pc])
    }

    /// Whether a thread with these registers may make our call by the instruction at `at`: not by its own. If it returns to that one,
    /// the kernel believes that the interrupted call is to be repeated, and puts `restart_syscall` in the place of our number.
    pub(in crate::live) fn may_call_at(regs: &[u64], at: u64) -> bool {
        regs.get(PC) != Some(&at)
    }

    /// Registers with which a thread makes a call and nothing else.
    pub(in crate::live) fn call(regs: &[u64], at: u64, number: u64, arguments: [u64; 6]) -> Vec<u64> {
        let mut regs = regs.to_vec();
        regs[PC] = at;
        regs[NUMBER] = number;
        regs[PSTATE] &= !BTYPE;
        regs[..6].copy_from_slice(&arguments);
        regs
    }

    /// What a finished call returned.
    pub(in crate::live) fn result(regs: &[u64]) -> i64 {
        regs.first().map_or(-1, |x0| x0.cast_signed())
    }

    /// The words of a set of [`VECTORS`] that are to be written back after a call; `None` if it holds nothing.
    ///
    /// It begins with `struct user_sve_header`: two lengths in bytes, of four bytes each (of all that follows and the header, now and at
    /// most), then of two bytes each the length of a vector, its maximum, and flags, the lowest of which is `SVE_PT_REGS_SVE`: there is
    /// more than the lowest bits. The kernel does not say how much it has written.
    pub(in crate::live) fn vectors(set: &[u64]) -> Option<&[u64]> {
        const REGS_SVE: u64 = 1 << 32;
        let [lengths, flags, ..] = *set else { return None };
        set.get(..usize::try_from(lengths & 0xffff_ffff).ok()?.div_ceil(8)).filter(|_| flags & REGS_SVE != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{CLONE, CLOSE_RANGE, OUTSIDE, WAIT4, amd64, arm64};

    #[test]
    fn threads_in_repeated_calls_come_first_on_amd64() {
        let rank = |orig_rax: i64, rax: i64| {
            let mut regs = vec![0; 27];
            (regs[15], regs[10]) = (orig_rax.cast_unsigned(), rax.cast_unsigned());
            amd64::rank(&regs, &|_| false)
        };
        // futex, nanosleep, a call that is over, user code.
        assert_eq!([rank(202, -512), rank(35, -516), rank(0, 5), rank(-1, 7)], [Some(0), Some(2), Some(1), Some(3)]);
        assert_eq!(amd64::rank(&[0; 8], &|_| false), None, "32-bit registers");
        let called = amd64::call(&[9; 27], 0x1000, 61, [1, 2, 3, 4, 5, 6]);
        assert_eq!((called[16], called[10], called[15]), (0x1000, 61, u64::MAX));
        assert_eq!((called[14], called[13], called[12], called[7], called[9], called[8]), (1, 2, 3, 4, 5, 6));
        assert_eq!((called[19], called[21]), (9, 9), "rsp and fs_base stay");
    }

    #[test]
    fn no_thread_calls_by_its_own_instruction_on_arm64() {
        let regs = |pc: u64, number: u64, timeout: u64| {
            let mut regs = vec![0; 34];
            (regs[32], regs[8], regs[3]) = (pc, number, timeout);
            regs
        };
        let rank = |regs: &[u64]| arm64::rank(regs, &|at| at == 0x1000);
        assert_eq!(rank(&regs(0x1000, 98, 0)), Some(0), "futex");
        assert_eq!(rank(&regs(0x1000, 98, 8)), Some(2), "futex with an end");
        assert_eq!(rank(&regs(0x1000, 115, 0)), Some(2), "clock_nanosleep");
        assert_eq!(rank(&regs(0x1000, 63, 0)), Some(1), "read, which a signal may end");
        assert_eq!(rank(&regs(0x1000, 133, 0)), Some(2), "rt_sigsuspend, which every signal ends");
        assert_eq!(rank(&regs(0x1004, 22, 0)), Some(0), "epoll_pwait, which returned EINTR");
        assert_eq!(rank(&regs(0x2000, 0, 0)), Some(OUTSIDE));
        assert_eq!(arm64::rank(&[0; 18], &|_| true), None, "32-bit registers");
        assert!(!arm64::may_call_at(&regs(0x1000, 98, 0), 0x1000) && arm64::may_call_at(&regs(0x1000, 98, 0), 0x2000));
        let called = arm64::call(&[9; 34], 0x1000, 220, [1, 2, 3, 4, 5, 6]);
        assert_eq!((&called[..9], called[31], called[32]), (&[1, 2, 3, 4, 5, 6, 9, 9, 220][..], 9, 0x1000));
        let branched = [0x6000_0c00; 34];
        assert_eq!(
            arm64::call(&branched, 0x1000, 220, [0; 6])[33],
            0x6000_0000,
            "no landing pad is expected at the call"
        );
    }

    #[test]
    fn vectors_are_kept_where_there_are_any_on_arm64() {
        // The header of vectors of 32 bytes: 40 bytes in all, of 48 that were asked for.
        let set = |flags: u64| [40 | 8768 << 32, 32 | 256 << 16 | flags << 32, 1, 2, 3, 0];
        assert_eq!(arm64::vectors(&set(1)), Some(&set(1)[..5]));
        assert_eq!(arm64::vectors(&set(0)), None, "the lowest bits only");
        assert_eq!(arm64::vectors(&set(1)[..4]), None, "cut off");
        assert_eq!((arm64::vectors(&[]), amd64::vectors(&set(1))), (None, None));
    }

    #[test]
    fn numbers_of_system_calls() {
        use nix::libc;
        assert_eq!(
            (CLONE, WAIT4, CLOSE_RANGE),
            (libc::SYS_clone as u64, libc::SYS_wait4 as u64, libc::SYS_close_range as u64)
        );
    }
}
