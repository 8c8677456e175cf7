//! The door to `ptrace(2)`, `waitpid(2)` and `setpriority(2)`: typed calls over these system calls, nothing more. Tracees are threads, by their id in
//! our own PID namespace; every call must come from the thread that seized them,
//! but for [`hear_end`].
//!
//! Not `nix::sys::ptrace`: it knows no signal masks, and its `waitpid` loses stops by real-time signals.
#![allow(unsafe_code)]

use std::ptr;

use nix::errno::Errno;
use nix::libc;

/// Report system call stops as such.
pub(super) const TRACE_SYSCALL_GOOD: i32 = libc::PTRACE_O_TRACESYSGOOD;
/// Trace what the tracee clones, from its first instruction.
pub(super) const TRACE_CLONE: i32 = libc::PTRACE_O_TRACECLONE;
/// The tracee dies with its tracer.
pub(super) const EXIT_KILL: i32 = libc::PTRACE_O_EXITKILL;
/// The tracee's seccomp filters do not apply while it is traced; needs CAP_SYS_ADMIN.
pub(super) const SUSPEND_SECCOMP: i32 = 1 << 21;

/// `NT_PRSTATUS`: general registers.
pub(super) const GENERAL: i32 = 1;
/// `NT_PRFPREG`: floating-point registers.
pub(super) const FLOATING: i32 = 2;

/// Kernel signal sets have 64 bits on all 64-bit machines.
const SIGSET_BYTES: usize = 8;

/// Why a tracee reported.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It ended.
    Gone,
    /// It enters or leaves a system call.
    Syscall,
    /// `PTRACE_EVENT_*`.
    Event(i32),
    /// A signal is about to be delivered; it is lost unless it is passed on.
    Signal(i32),
}

/// `PTRACE_EVENT_CLONE`.
pub(super) const EVENT_CLONE: i32 = libc::PTRACE_EVENT_CLONE;

/// Puts this process before others, if the system lets us: while it works, another one stands still.
pub(super) fn hurry() {
    // SAFETY: setpriority takes numbers only. A refusal changes nothing.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

/// Requests whose `data` is a number.
fn request(request: libc::c_uint, tid: i32, data: usize) -> Result<(), Errno> {
    // SAFETY: none of the requests of this file that come here dereferences `addr` or `data`.
    let done = unsafe { libc::ptrace(request as _, tid, ptr::null_mut::<libc::c_void>(), data as *mut libc::c_void) };
    Errno::result(done).map(drop)
}

/// Starts to trace without stopping.
pub(super) fn seize(tid: i32, options: i32) -> Result<(), Errno> {
    request(libc::PTRACE_SEIZE as _, tid, options as usize)
}

/// Asks for a stop, wherever the tracee is.
pub(super) fn interrupt(tid: i32) -> Result<(), Errno> {
    request(libc::PTRACE_INTERRUPT as _, tid, 0)
}

/// Resumes with a signal, 0 for none.
pub(super) fn resume(tid: i32, signal: i32) -> Result<(), Errno> {
    request(libc::PTRACE_CONT as _, tid, signal as usize)
}

/// Resumes to the next system call stop.
pub(super) fn resume_to_syscall(tid: i32) -> Result<(), Errno> {
    request(libc::PTRACE_SYSCALL as _, tid, 0)
}

/// Stops tracing and resumes with a signal, 0 for none.
pub(super) fn detach(tid: i32, signal: i32) -> Result<(), Errno> {
    request(libc::PTRACE_DETACH as _, tid, signal as usize)
}

/// Replaces the options.
pub(super) fn set_options(tid: i32, options: i32) -> Result<(), Errno> {
    request(libc::PTRACE_SETOPTIONS as _, tid, options as usize)
}

/// What belongs to the last event: for a clone, the new thread's id.
pub(super) fn event_message(tid: i32) -> Result<u64, Errno> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: PTRACE_GETEVENTMSG writes one unsigned long, which `message` is.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_GETEVENTMSG,
            tid,
            ptr::null_mut::<libc::c_void>(),
            (&raw mut message).cast::<libc::c_void>(),
        )
    };
    Errno::result(done).map(|_| message)
}

/// A register set ([`GENERAL`], [`FLOATING`]) in words of eight bytes, as a core's notes have it.
pub(super) fn registers(tid: i32, set: i32) -> Result<Vec<u64>, Errno> {
    // None of these is larger: the legacy area of amd64 has 512 bytes, that of arm64 528.
    long_registers(tid, set, 128)
}

/// The same of a set that may be longer, up to `words`. What lies behind the set's own length is zeros.
pub(super) fn long_registers(tid: i32, set: i32, words: usize) -> Result<Vec<u64>, Errno> {
    let mut words = vec![0u64; words];
    let mut iov = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: words.len() * 8 };
    // SAFETY: `iov` describes `words`, which outlives the call; the kernel writes at most `iov_len` bytes and says how many.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET,
            tid,
            set as usize as *mut libc::c_void,
            (&raw mut iov).cast::<libc::c_void>(),
        )
    };
    Errno::result(done)?;
    words.truncate(iov.iov_len / 8);
    Ok(words)
}

/// Writes a register set that [`registers`] or [`long_registers`] returned.
pub(super) fn set_registers(tid: i32, set: i32, words: &[u64]) -> Result<(), Errno> {
    let mut iov = libc::iovec { iov_base: words.as_ptr().cast_mut().cast(), iov_len: words.len() * 8 };
    // SAFETY: `iov` describes `words`, from which PTRACE_SETREGSET only reads.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET,
            tid,
            set as usize as *mut libc::c_void,
            (&raw mut iov).cast::<libc::c_void>(),
        )
    };
    Errno::result(done).map(drop)
}

/// The set of blocked signals, bit n - 1 for signal n.
pub(super) fn blocked_signals(tid: i32) -> Result<u64, Errno> {
    let mut mask = 0u64;
    // SAFETY: PTRACE_GETSIGMASK writes the number of bytes that `addr` says, which is the size of `mask`.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_GETSIGMASK as _,
            tid,
            SIGSET_BYTES as *mut libc::c_void,
            (&raw mut mask).cast::<libc::c_void>(),
        )
    };
    Errno::result(done).map(|_| mask)
}

/// Replaces the set of blocked signals; the kernel leaves SIGKILL and SIGSTOP out.
pub(super) fn set_blocked_signals(tid: i32, mask: u64) -> Result<(), Errno> {
    let mut mask = mask;
    // SAFETY: PTRACE_SETSIGMASK reads the number of bytes that `addr` says, which is the size of `mask`.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_SETSIGMASK as _,
            tid,
            SIGSET_BYTES as *mut libc::c_void,
            (&raw mut mask).cast::<libc::c_void>(),
        )
    };
    Errno::result(done).map(drop)
}

/// Where the thread's `struct rseq` is (`rseq(2)`); `None` if it has none, or the kernel does not tell (before Linux 5.13).
pub(super) fn rseq(tid: i32) -> Option<u64> {
    const GET_RSEQ_CONFIGURATION: u32 = 0x420f;
    // struct ptrace_rseq_configuration: the address, then size, signature, flags and padding of four bytes each.
    let mut words = [0u64; 3];
    // SAFETY: the kernel writes at most the number of bytes that `addr` says, which is the size of `words`.
    let done = unsafe {
        libc::ptrace(
            GET_RSEQ_CONFIGURATION as _,
            tid,
            size_of_val(&words) as *mut libc::c_void,
            words.as_mut_ptr().cast::<libc::c_void>(),
        )
    };
    Errno::result(done).ok().map(|_| words[0]).filter(|address| *address != 0)
}

/// Takes the report of the end of `tid`, if it ended and we trace it; a stop stays to be heard. From any thread.
pub(super) fn hear_end(tid: i32) {
    let Ok(id) = libc::id_t::try_from(tid) else { return };
    let hear = |flags| {
        // SAFETY: zeros are a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::__WALL | flags;
        // SAFETY: waitid writes one siginfo_t, which `info` is.
        let heard = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) };
        if heard == 0 { info.si_code } else { 0 }
    };
    // Stops of who is traced are told, and taken, whether they are asked for or not.
    if matches!(hear(libc::WNOWAIT), libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED) {
        hear(0);
    }
}

/// The next report of `tid`; `None` if there is none yet and `block` is not set.
pub(super) fn wait(tid: i32, block: bool) -> Result<Option<Stop>, Errno> {
    let mut status = 0;
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: waitpid writes one int, which `status` is.
        match Errno::result(unsafe { libc::waitpid(tid, &raw mut status, flags) }) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    let event = status >> 16;
    Ok(Some(if !libc::WIFSTOPPED(status) {
        Stop::Gone
    } else if event != 0 {
        Stop::Event(event)
    } else if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
        Stop::Syscall
    } else {
        Stop::Signal(libc::WSTOPSIG(status))
    }))
}
