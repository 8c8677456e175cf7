//! What differs between machines: the general registers of a thread (`NT_PRSTATUS`, in words) and how a system call is made with them.

use crate::image::Thread;

pub(super) use imp::{ARCHITECTURE, CLONE, SYSCALL, WAIT4, call, rank, result, sites};

/// The thread as the model wants it; `None` if there are fewer registers (a 32-bit thread).
pub(super) fn thread(tid: u32, regs: &[u64]) -> Option<Thread> {
    let saved = &ARCHITECTURE.prstatus;
    let word = |offset: u64| regs.get(usize::try_from(offset.checked_sub(saved.offset)? / 8).ok()?).copied();
    let (pc, dwarf_regs) = saved.read(word)?;
    Some(Thread { tid, pc, sp: ARCHITECTURE.stack_pointer(&dwarf_regs), dwarf_regs, signal: 0 })
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use crate::architecture::{AMD64, Architecture};

    /// The machine that we run on, and so what we trace.
    pub(in crate::live) const ARCHITECTURE: &Architecture = &AMD64;
    /// The instruction.
    pub(in crate::live) const SYSCALL: &[u8] = &[0x0f, 0x05];
    /// `__NR_clone`.
    pub(in crate::live) const CLONE: u64 = 56;
    /// `__NR_wait4`.
    pub(in crate::live) const WAIT4: u64 = 61;

    /// Positions in `struct user_regs_struct`.
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

    /// How well a stopped thread suits for a call: lower is better. In a call that the kernel just repeats, nothing is lost; code
    /// outside of a call may be in a restartable sequence (`rseq(2)`), which must not be left.
    pub(in crate::live) fn rank(regs: &[u64]) -> u8 {
        if regs[ORIG_RAX].cast_signed() < 0 {
            return 3;
        }
        match regs[RAX].cast_signed() {
            ERESTARTSYS | ERESTARTNOINTR => 0,
            ERESTARTNOHAND | ERESTART_RESTARTBLOCK => 2,
            _ => 1,
        }
    }

    /// Where the thread's last system call instruction may be.
    pub(in crate::live) fn sites(regs: &[u64]) -> [u64; 2] {
        [regs[RIP].wrapping_sub(2); 2]
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
        regs[RAX].cast_signed()
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use crate::architecture::{ARM64, Architecture};

    /// The machine that we run on, and so what we trace.
    pub(in crate::live) const ARCHITECTURE: &Architecture = &ARM64;
    /// `svc #0`.
    pub(in crate::live) const SYSCALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
    /// `__NR_clone`.
    pub(in crate::live) const CLONE: u64 = 220;
    /// `__NR_wait4`.
    pub(in crate::live) const WAIT4: u64 = 260;

    /// Positions in `struct user_pt_regs`: x0..x30, sp, pc, pstate.
    const NUMBER: usize = 8;
    const PC: usize = 32;

    /// All threads suit: before a tracer sees them, the kernel has wound a call that it will repeat back to its instruction.
    pub(in crate::live) fn rank(_regs: &[u64]) -> u8 {
        0
    }

    /// Where the thread's last system call instruction may be.
    pub(in crate::live) fn sites(regs: &[u64]) -> [u64; 2] {
        [regs[PC].wrapping_sub(4), regs[PC]]
    }

    /// Registers with which a thread makes a call and nothing else.
    pub(in crate::live) fn call(regs: &[u64], at: u64, number: u64, arguments: [u64; 6]) -> Vec<u64> {
        let mut regs = regs.to_vec();
        regs[PC] = at;
        regs[NUMBER] = number;
        regs[..6].copy_from_slice(&arguments);
        regs
    }

    /// What a finished call returned.
    pub(in crate::live) fn result(regs: &[u64]) -> i64 {
        regs[0].cast_signed()
    }
}
