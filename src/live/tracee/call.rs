//! How one thread of a stopped process makes a system call for us.
//!
//! A thread that suits is sent to a system call instruction that the process has anyway (the one that some thread stands behind),
//! with all signals blocked, from one system call stop to the next: it executes that instruction and nothing else. Then it
//! gets its registers back and is interrupted once more, so that it stands where it stood: before the kernel decides
//! whether an interrupted call is repeated, which it then does as it would have done without us.

use std::time::Instant;

use nix::errno::Errno;
use nix::libc;

use super::super::ptrace::{self, Stop};
use super::super::reader::Reader;
use super::super::{machine, proc};
use super::{NAP, SPIN, Thread, Tracee, raw};
use crate::error::{Error, Result};

/// Stops on the way through one system call that are not the call itself.
const MAX_STOPS: usize = 1000;

/// Words of the longest set of vector registers: 32 of 256 bytes on arm64, and less than a tenth of that for what belongs to them.
const MAX_VECTORS: usize = 2048;

/// Of `struct rseq`: the field that is set in a restartable sequence, and for a while behind it.
const RSEQ_CS: u64 = 8;

impl Tracee {
    /// The thread that suits a system call best, and the address of an instruction for it.
    ///
    /// # Errors
    /// No thread may be used now, or there is no such instruction.
    pub(in crate::live) fn caller(&self) -> Result<(usize, u64)> {
        let is_call = |at: u64| {
            let mut found = [0u8; 4];
            let found = &mut found[..machine::SYSCALL.len()];
            Reader::new(self.pid).exact(at, found) && *found == *machine::SYSCALL
        };
        let ranked = self.threads.iter().enumerate();
        let mut ranked: Vec<(u8, usize)> =
            ranked.filter_map(|(i, t)| Some((machine::rank(&t.regs, &is_call)?, i))).collect();
        ranked.sort_unstable();
        let usable = |&&(rank, i): &&(u8, usize)| rank < machine::OUTSIDE || !self.in_sequence(self.threads[i].tid);
        let Some(&(_, best)) = ranked.iter().find(usable) else {
            return Err(Error::new(format!("process {}: no thread of it can make a system call just now", self.pid))
                .remedy("try again, or use --pause whole or --pause copy"));
        };
        let regs = &self.threads[best].regs;
        let near = ranked.iter().flat_map(|&(_, i)| machine::sites(&self.threads[i].regs));
        let site = near.filter(|at| machine::may_call_at(regs, *at)).find(|at| is_call(*at));
        let site = site.or_else(|| self.search_vdso(regs));
        site.map(|site| (best, site)).ok_or_else(|| {
            Error::new(format!("process {}: found no system call instruction in its memory", self.pid))
                .remedy("use --pause whole or --pause copy")
        })
    }

    /// Whether a thread may be in a restartable sequence: the kernel forgets that as soon as the thread executes anything else.
    fn in_sequence(&self, tid: u32) -> bool {
        let mut field = [0; 8];
        ptrace::rseq(raw(tid))
            .is_some_and(|rseq| !Reader::new(self.pid).exact(rseq.wrapping_add(RSEQ_CS), &mut field) || field != [0; 8])
    }

    /// A system call instruction in the kernel's own page of code.
    fn search_vdso(&self, regs: &[u64]) -> Option<u64> {
        let vdso = proc::mappings(self.pid).ok()?.into_iter().find(|m| m.path == "[vdso]")?.range;
        let mut code = vec![0; usize::try_from(vdso.len).ok().filter(|len| *len <= 1 << 20)?];
        if !Reader::new(self.pid).exact(vdso.start.0, &mut code) {
            return None;
        }
        let len = machine::SYSCALL.len();
        // Instructions of fixed width lie at multiples of it.
        let step = if len == 4 { 4 } else { 1 };
        let found = (0..=code.len().checked_sub(len)?).step_by(step).filter(|&i| code[i..i + len] == *machine::SYSCALL);
        found.map(|i| vdso.start.0 + i as u64).find(|at| machine::may_call_at(regs, *at))
    }

    /// Lets thread `index` make a system call.
    ///
    /// * `options`: ptrace options besides those for system call stops.
    /// * Returns its result (negative: an errno), and the thread or process that it made, which is stopped and traced, if the options
    ///   ask for that.
    ///
    /// # Errors
    /// The thread died, or did something that no thread does. Its registers are as before, if it lives.
    pub(in crate::live) fn call(
        &mut self,
        index: usize,
        site: u64,
        number: u64,
        arguments: [u64; 6],
        options: i32,
    ) -> Result<(i64, Option<u32>)> {
        let Thread { tid, regs: saved } = self.threads[index].clone();
        let tid = raw(tid);
        let failed = |e: Errno| {
            let error =
                Error::new(format!("process {}: thread {tid} could not make a system call for us: {e}", self.pid));
            if e == Errno::ESRCH {
                error.remedy("it ended just then, or the process executed a program: try again")
            } else {
                error
            }
        };
        let mask = ptrace::blocked_signals(tid).map_err(failed)?;
        let vectors = vectors(tid);
        let mut stop_again = false;
        let called = (|| {
            ptrace::set_blocked_signals(tid, u64::MAX)?;
            ptrace::set_options(tid, options | ptrace::TRACE_SYSCALL_GOOD)?;
            one_call(tid, &saved, site, number, arguments, &mut stop_again)
        })();
        // Whatever happened, the thread gets back what it had.
        let restored = restore(tid, &saved, mask, &mut stop_again);
        let restored = vectors.iter().fold(restored, |done, (set, words)| {
            let written = ptrace::set_registers(tid, *set, words);
            done.and(written)
        });
        let _ = ptrace::set_options(tid, options & ptrace::SUSPEND_SECCOMP);
        self.stop_again |= stop_again;
        let result = called.map_err(failed)?;
        restored.map_err(failed)?;
        Ok(result)
    }
}

/// Makes the call between two system call stops. Repeated if the kernel wants to look at signals first.
fn one_call(
    tid: i32,
    saved: &[u64],
    site: u64,
    number: u64,
    arguments: [u64; 6],
    stop_again: &mut bool,
) -> Result<(i64, Option<u32>), Errno> {
    /// The kernel's wish to make the call again.
    const ERESTARTNOINTR: i64 = -513;
    let mut stops = 0..MAX_STOPS;
    loop {
        ptrace::set_registers(tid, ptrace::GENERAL, &machine::call(saved, site, number, arguments))?;
        let mut made = None;
        let mut entered = false;
        loop {
            stops.next().ok_or(Errno::EAGAIN)?;
            ptrace::resume_to_syscall(tid)?;
            match next_stop(tid)? {
                Stop::Syscall if entered => break,
                Stop::Syscall => entered = true,
                Stop::Event(ptrace::EVENT_CLONE) => {
                    let id = u32::try_from(ptrace::event_message(tid)?).map_err(|_| Errno::EINVAL)?;
                    // Dies with us from here on; until then its first instruction would kill it (see snapshot.rs).
                    next_stop(raw(id))?;
                    ptrace::set_options(raw(id), ptrace::EXIT_KILL)?;
                    made = Some(id);
                }
                // Left from stopping, or job control.
                Stop::Event(_) => {}
                Stop::Signal(libc::SIGSTOP) => *stop_again = true,
                Stop::Signal(_) => {}
                Stop::Gone => return Err(Errno::ESRCH),
            }
        }
        let result = machine::result(&ptrace::registers(tid, ptrace::GENERAL)?);
        if result != ERESTARTNOINTR {
            return Ok((result, made));
        }
    }
}

/// Makes a call by a snapshot, which is stopped from its birth: nothing of it has to be restored.
///
/// * `options`: ptrace options to keep.
pub(in crate::live) fn call_by_snapshot(
    pid: u32,
    site: u64,
    number: u64,
    arguments: [u64; 6],
    options: i32,
) -> Result<i64, Errno> {
    let tid = raw(pid);
    let regs = ptrace::registers(tid, ptrace::GENERAL)?;
    ptrace::set_options(tid, options | ptrace::TRACE_SYSCALL_GOOD)?;
    one_call(tid, &regs, site, number, arguments, &mut false).map(|(result, _)| result)
}

/// Gives the thread back registers and signal mask, in a stop like the one that it was taken from.
fn restore(tid: i32, saved: &[u64], mask: u64, stop_again: &mut bool) -> Result<(), Errno> {
    ptrace::set_registers(tid, ptrace::GENERAL, saved)?;
    ptrace::interrupt(tid)?;
    for _ in 0..MAX_STOPS {
        ptrace::resume(tid, 0)?;
        match next_stop(tid)? {
            Stop::Event(event) if event != ptrace::EVENT_CLONE => {
                // What the kernel did to the registers between the stops must not stay.
                ptrace::set_registers(tid, ptrace::GENERAL, saved)?;
                return ptrace::set_blocked_signals(tid, mask);
            }
            Stop::Gone => return Err(Errno::ESRCH),
            Stop::Signal(libc::SIGSTOP) => *stop_again = true,
            _ => {}
        }
    }
    Err(Errno::EAGAIN)
}

/// Register sets with more than a system call keeps: of a thread that was stopped outside of one.
fn vectors(tid: i32) -> Vec<(i32, Vec<u64>)> {
    let of_set = |set: &i32| {
        // A machine without them has no such set.
        let words = ptrace::long_registers(tid, *set, MAX_VECTORS).ok()?;
        Some((*set, machine::vectors(&words)?.to_vec()))
    };
    machine::VECTORS.iter().filter_map(of_set).collect()
}

/// Waits for the next stop of a thread that runs for us.
fn next_stop(tid: i32) -> Result<Stop, Errno> {
    let start = Instant::now();
    loop {
        if let Some(stop) = ptrace::wait(tid, false)? {
            return Ok(stop);
        }
        if start.elapsed() < SPIN {
            std::thread::yield_now();
            continue;
        }
        // The first thread of a killed process reports only when all others were heard: do not wait for that.
        if proc::stat(tid.cast_unsigned()).is_none_or(|s| matches!(s.state, 'Z' | 'X' | 'x')) {
            return Ok(Stop::Gone);
        }
        std::thread::sleep(NAP);
    }
}
