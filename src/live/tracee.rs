//! [`Tracee`]: all threads of a process, seized and stopped, and a way to have one of them make a system call as if nothing had happened.
//!
//! *Stopping.* `PTRACE_SEIZE` does not disturb; `PTRACE_INTERRUPT` stops a thread where the kernel would deliver a signal. The list
//! of threads is read again until it has no new one twice: at that moment no thread runs that could make another. Signals that arrive meanwhile
//! stay pending in the kernel; one that was about to be delivered is passed on at once, which sets up its handler and runs
//! none of it. If we die, the kernel detaches all threads and they go on.
//!
//! *Calls.* A thread that suits is sent to a system call instruction that the process has anyway (the one that some thread stands behind),
//! with all signals blocked, from one system call stop to the next: it executes that instruction and nothing else. Then it
//! gets its registers back and is interrupted once more, so that it stands where it stood: before the kernel decides
//! whether an interrupted call is repeated, which it then does as it would have done without us.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use rustc_hash::FxHashSet;

use super::machine;
use super::proc::{self, Status};
use super::ptrace::{self, Stop};
use super::reader::Reader;
use crate::error::{Error, Result};

/// Waiting for stops is a loop until then, because the pause counts; afterwards we sleep between looks. For all threads together: they need
/// the processor that we take, and of a thousand half would wait for us to give it back, one after the other.
const SPIN: Duration = Duration::from_millis(2);

/// Between looks.
const NAP: Duration = Duration::from_micros(200);

/// A thread that has not stopped by then waits for a disk or a driver.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rounds of looking for new threads; each stops those of the round before.
const MAX_ROUNDS: usize = 1000;

/// Stops on the way through one system call that are not the call itself.
const MAX_STOPS: usize = 1000;

/// Words of the longest set of vector registers: 32 of 256 bytes on arm64, and less than a tenth of that for what belongs to them.
const MAX_VECTORS: usize = 2048;

/// Of `struct rseq`: the field that is set in a restartable sequence, and for a while behind it.
const RSEQ_CS: u64 = 8;

/// A stopped thread.
#[derive(Clone, Debug)]
pub(super) struct Thread {
    pub(super) tid: u32,
    /// General registers at the stop.
    pub(super) regs: Vec<u64>,
}

/// A process with all threads stopped. Dropping it lets them go.
#[derive(Debug)]
pub(super) struct Tracee {
    pid: u32,
    pub(super) threads: Vec<Thread>,
    /// Seized, in any state.
    seized: FxHashSet<u32>,
    /// SIGSTOP cannot be blocked: sent again when all is done.
    stop_again: bool,
    /// When the first thread was stopped.
    pub(super) since: Instant,
}

fn raw(tid: u32) -> i32 {
    tid.cast_signed()
}

impl Tracee {
    /// Stops all threads.
    ///
    /// * `options`: ptrace options for each.
    /// * `deadline`: gives up then; all goes on.
    ///
    /// # Errors
    /// The process is gone or may not be traced, a thread does not stop, or `deadline` passes.
    pub(super) fn stop(pid: u32, options: i32, deadline: Option<Instant>) -> Result<Self> {
        let now = Instant::now();
        let mut tracee = Self { pid, threads: Vec::new(), seized: FxHashSet::default(), stop_again: false, since: now };
        let limit = deadline.unwrap_or(now + PATIENCE).min(now + PATIENCE);
        // A thread that ends while the list is read can hide its neighbour, so one list without news is not enough.
        let mut quiet = 0;
        for round in 0..MAX_ROUNDS {
            let mut new: Vec<u32> = tracee.list()?.into_iter().filter(|tid| !tracee.seized.contains(tid)).collect();
            // Who waits for a disk, or for a child made by vfork, cannot stop: until it can, the others run.
            let asleep: Vec<u32> = new.iter().copied().filter(|tid| round == 0 && is_asleep(pid, *tid)).collect();
            let alone = !asleep.is_empty();
            if alone {
                new = asleep;
            }
            let mut fresh = Vec::new();
            for tid in new {
                let mut seized = ptrace::seize(raw(tid), options);
                if seized == Err(Errno::EPERM) && !is_ending(pid, tid) {
                    // It was dead a moment ago: a thread that executes a program takes the id of the first one over.
                    seized = ptrace::seize(raw(tid), options);
                }
                match seized {
                    Ok(()) => fresh.push(tid),
                    // It ended, or is about to.
                    Err(Errno::ESRCH) => {}
                    Err(Errno::EPERM) if is_ending(pid, tid) => {}
                    // We have it already, under the id that it had before it executed a program.
                    Err(Errno::EPERM) if is_ours(pid, tid) => {
                        // Its stop was seen under that id, too, or is still to come.
                        if ptrace::detach(raw(tid), 0).is_err() {
                            tracee.seized.insert(tid);
                        }
                        return Err(Error::new(format!(
                            "process {pid}: executed its program anew while it was stopped"
                        ))
                        .remedy("try again"));
                    }
                    Err(e) => return Err(cannot_seize(pid, tid, e)),
                }
            }
            if fresh.is_empty() {
                quiet += 1;
                if quiet < 2 {
                    continue;
                }
                tracee.threads.sort_unstable_by_key(|thread| thread.tid);
                return if tracee.threads.is_empty() { Err(vanished(pid)) } else { Ok(tracee) };
            }
            quiet = 0;
            tracee.seized.extend(&fresh);
            if round == 0 {
                tracee.since = Instant::now();
            }
            fresh.retain(|tid| ptrace::interrupt(raw(*tid)).is_ok());
            tracee.wait_stopped(fresh, limit, deadline)?;
            if alone {
                tracee.since = Instant::now();
            }
        }
        Err(Error::new(format!("process {pid}: makes threads faster than they can be stopped")).remedy("try again"))
    }

    /// Stops one thread only: to reap what a snapshot left.
    pub(super) fn stop_one(pid: u32, tid: u32, options: i32, patience: Duration) -> Result<Self> {
        let now = Instant::now();
        let mut tracee = Self { pid, threads: Vec::new(), seized: FxHashSet::default(), stop_again: false, since: now };
        ptrace::seize(raw(tid), options).map_err(|e| cannot_seize(pid, tid, e))?;
        tracee.seized.insert(tid);
        tracee.since = Instant::now();
        if ptrace::interrupt(raw(tid)).is_ok() {
            tracee.wait_stopped(vec![tid], now + patience, None)?;
        }
        if tracee.threads.is_empty() { Err(vanished(pid)) } else { Ok(tracee) }
    }

    fn list(&self) -> Result<Vec<u32>> {
        proc::threads(self.pid).map_err(|_| vanished(self.pid))
    }

    /// Waits for the stops that were asked for, and adds the threads that have not ended instead.
    ///
    /// All in turns, the stopped ones included: a thread that executes another program waits until we have heard of the end of all others.
    fn wait_stopped(&mut self, mut pending: Vec<u32>, limit: Instant, deadline: Option<Instant>) -> Result<()> {
        let start = Instant::now();
        loop {
            let threads = &mut self.threads;
            pending.retain(|&tid| match ptrace::wait(raw(tid), false) {
                Ok(Some(Stop::Event(_))) => {
                    // ESRCH: killed since.
                    threads.extend(ptrace::registers(raw(tid), ptrace::GENERAL).ok().map(|regs| Thread { tid, regs }));
                    false
                }
                Ok(Some(Stop::Signal(signal))) => {
                    let _ = ptrace::resume(raw(tid), signal);
                    true
                }
                Ok(Some(Stop::Syscall)) => {
                    let _ = ptrace::resume(raw(tid), 0);
                    true
                }
                Ok(Some(Stop::Gone)) | Err(_) => false,
                Ok(None) => true,
            });
            let Some(&first) = pending.first() else { return Ok(()) };
            if start.elapsed() < SPIN {
                std::thread::yield_now();
                continue;
            }
            // A stopped thread has nothing to tell but its end.
            threads.retain(|thread| !matches!(ptrace::wait(raw(thread.tid), false), Ok(Some(Stop::Gone)) | Err(_)));
            if is_ending(self.pid, first) {
                pending.remove(0);
            } else if Instant::now() > limit {
                return Err(self.stuck(first, deadline));
            } else {
                std::thread::sleep(NAP);
            }
        }
    }

    fn stuck(&self, tid: u32, deadline: Option<Instant>) -> Error {
        let state = Status::read(self.pid, Some(tid)).map_or('?', |s| s.state());
        let wait = std::fs::read_to_string(format!("/proc/{}/task/{tid}/wchan", self.pid)).unwrap_or_default();
        let error = Error::new(format!(
            "process {}: thread {tid} did not stop in time (state {state}, waiting in the kernel at {:?}); the process goes on",
            self.pid, wait
        ));
        error.remedy(match deadline {
            Some(_) => "give a longer --max-pause, or try again when the machine is less busy",
            None => "it probably waits for a disk or network file system; try again",
        })
    }

    /// The registers of `tid` of the given set, for those who want more than the general ones.
    pub(super) fn registers(tid: u32, set: i32) -> Vec<u64> {
        ptrace::registers(raw(tid), set).unwrap_or_default()
    }

    /// The thread that suits a system call best, and the address of an instruction for it.
    ///
    /// # Errors
    /// No thread may be used now, or there is no such instruction.
    pub(super) fn caller(&self) -> Result<(usize, u64)> {
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
    pub(super) fn call(
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

    /// Lets all threads go on.
    pub(super) fn resume(mut self) -> Duration {
        self.let_go();
        self.since.elapsed()
    }

    fn let_go(&mut self) {
        let mut left = std::mem::take(&mut self.seized);
        let stopped: FxHashSet<u32> = self.threads.iter().map(|t| t.tid).collect();
        let start = Instant::now();
        // In turns, not one after the other: of a killed process the first thread reports last, when all others were heard. Who does
        // not report at all is let go by the kernel when we end.
        while !left.is_empty() && start.elapsed() < PATIENCE {
            left.retain(|tid| {
                if stopped.contains(tid) && ptrace::detach(raw(*tid), 0).is_ok() {
                    return false;
                }
                // Only a stop that was looked at may be ended: it may be a signal on its way, which would be lost. One that was killed
                // is no longer stopped.
                match ptrace::wait(raw(*tid), false) {
                    Ok(Some(Stop::Signal(signal))) => ptrace::detach(raw(*tid), signal).is_err(),
                    Ok(Some(Stop::Gone)) | Err(_) => false,
                    Ok(Some(_)) => ptrace::detach(raw(*tid), 0).is_err(),
                    Ok(None) => true,
                }
            });
            if !left.is_empty() {
                std::thread::sleep(NAP);
            }
        }
        if std::mem::take(&mut self.stop_again) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(raw(self.pid)), nix::sys::signal::Signal::SIGSTOP);
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        self.let_go();
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
pub(super) fn call_by_snapshot(
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

/// Whether a thread is on its way out: such a one cannot be traced.
fn is_ending(pid: u32, tid: u32) -> bool {
    Status::read(pid, Some(tid)).map_or(true, |s| matches!(s.state(), 'Z' | 'X' | 'x'))
}

/// Whether it is us who trace a thread.
fn is_ours(pid: u32, tid: u32) -> bool {
    Status::read(pid, Some(tid)).is_ok_and(|s| s.number("TracerPid") == Some(u64::from(std::process::id())))
}

/// Whether a thread sleeps in a way that nothing interrupts.
fn is_asleep(pid: u32, tid: u32) -> bool {
    Status::read(pid, Some(tid)).is_ok_and(|s| s.state() == 'D')
}

fn vanished(pid: u32) -> Error {
    Error::new(format!("process {pid}: ended before it could be stopped")).remedy("check the id with ps")
}

fn cannot_seize(pid: u32, tid: u32, e: Errno) -> Error {
    let status = Status::read(pid, Some(tid)).unwrap_or_default();
    if let Some(tracer) = status.number("TracerPid").filter(|t| *t != 0 && *t != u64::from(std::process::id())) {
        return Error::new(format!("process {pid}: process {tracer} traces its thread {tid} already"))
            .remedy("a process has one tracer at a time: end the debugger, strace or profiler that holds it");
    }
    match e {
        Errno::EPERM | Errno::EACCES => super::subject::denied(pid, &status),
        e => Error::new(format!("process {pid}: cannot trace thread {tid}")).cause(e),
    }
}

#[cfg(test)]
mod tests;
