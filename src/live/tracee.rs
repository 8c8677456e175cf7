//! [`Tracee`]: all threads of a process, seized and stopped, and a way to have one of them make a system call as if nothing had happened.
//!
//! *Stopping.* `PTRACE_SEIZE` does not disturb; `PTRACE_INTERRUPT` stops a thread where the kernel would deliver a signal. The list
//! of threads is read again until it has no new one twice: at that moment no thread runs that could make another. Signals that arrive meanwhile
//! stay pending in the kernel; one that was about to be delivered is passed on at once, which sets up its handler and runs
//! none of it. If we die, the kernel detaches all threads and they go on.
//!
//! *Calls* are in `call`.

mod call;
mod undertaker;

use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustc_hash::FxHashSet;

use super::proc::{self, Status};
use super::ptrace::{self, Stop};
pub(super) use call::call_by_snapshot;
use undertaker::Undertaker;

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
    /// Seized, and about to end.
    ending: Vec<u32>,
    /// SIGSTOP cannot be blocked: sent again when all is done.
    stop_again: bool,
    /// When the first thread was stopped.
    pub(super) since: Instant,
}

fn raw(tid: u32) -> i32 {
    tid.cast_signed()
}

impl Tracee {
    fn of(pid: u32) -> Self {
        let (threads, ending) = (Vec::new(), Vec::new());
        Self { pid, threads, ending, seized: FxHashSet::default(), stop_again: false, since: Instant::now() }
    }

    /// Stops all threads.
    ///
    /// * `options`: ptrace options for each.
    /// * `deadline`: gives up then; all goes on.
    ///
    /// # Errors
    /// The process is gone or may not be traced, it executes a program, a thread does not stop, or `deadline` passes.
    pub(super) fn stop(pid: u32, options: i32, deadline: Option<Instant>) -> Result<Self> {
        let _undertaker = Undertaker::start(pid);
        let mut tracee = Self::of(pid);
        let limit = tracee.since + PATIENCE;
        let limit = deadline.unwrap_or(limit).min(limit);
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
                if tracee.seize(tid, options)? {
                    fresh.push(tid);
                }
            }
            if fresh.is_empty() {
                quiet += 1;
                if quiet < 2 {
                    continue;
                }
                return tracee.settled();
            }
            quiet = 0;
            if round == 0 {
                tracee.since = Instant::now();
            }
            tracee.interrupt(fresh, limit, deadline)?;
            if alone {
                tracee.since = Instant::now();
            }
        }
        Err(Error::new(format!("process {pid}: makes threads faster than they can be stopped")).remedy("try again"))
    }

    /// Stops one thread only: to reap what a snapshot left.
    pub(super) fn stop_one(pid: u32, tid: u32, options: i32, patience: Duration) -> Result<Self> {
        let mut tracee = Self::of(pid);
        ptrace::seize(raw(tid), options).map_err(|e| cannot_seize(pid, tid, e))?;
        tracee.seized.insert(tid);
        tracee.since = Instant::now();
        tracee.interrupt(vec![tid], tracee.since + patience, None)?;
        if tracee.threads.is_empty() { Err(vanished(pid)) } else { Ok(tracee) }
    }

    fn list(&self) -> Result<Vec<u32>> {
        proc::threads(self.pid).map_err(|_| vanished(self.pid))
    }

    /// Begins to trace a thread. `false`: it ended, or is about to.
    fn seize(&mut self, tid: u32, options: i32) -> Result<bool> {
        let mut seized = ptrace::seize(raw(tid), options);
        if seized == Err(Errno::EPERM) && !is_ending(self.pid, tid) {
            // It was dead a moment ago: a thread that executes a program takes the id of the first one over.
            seized = ptrace::seize(raw(tid), options);
        }
        match seized {
            Ok(()) => Ok(self.seized.insert(tid)),
            Err(Errno::ESRCH) => Ok(false),
            Err(Errno::EPERM) if is_ending(self.pid, tid) => Ok(false),
            // We have it already, under the id that it had before.
            Err(Errno::EPERM) if is_ours(self.pid, tid) => {
                self.seized.insert(tid);
                Err(executed(self.pid))
            }
            Err(e) => Err(cannot_seize(self.pid, tid, e)),
        }
    }

    /// Stops seized threads.
    fn interrupt(&mut self, mut tids: Vec<u32>, limit: Instant, deadline: Option<Instant>) -> Result<()> {
        tids.retain(|&tid| {
            let alive = ptrace::interrupt(raw(tid)).is_ok();
            if !alive {
                self.ending.push(tid);
            }
            alive
        });
        self.wait_stopped(tids, limit, deadline)
    }

    /// Waits for the stops that were asked for, and adds the threads that have not ended instead.
    ///
    /// All in turns, the stopped ones included: a thread that executes another program waits until we have heard of the end of all others.
    fn wait_stopped(&mut self, mut pending: Vec<u32>, limit: Instant, deadline: Option<Instant>) -> Result<()> {
        let start = Instant::now();
        loop {
            let (threads, ending) = (&mut self.threads, &mut self.ending);
            pending.retain(|&tid| match ptrace::wait(raw(tid), false) {
                Ok(Some(Stop::Event(_))) => {
                    match ptrace::registers(raw(tid), ptrace::GENERAL) {
                        Ok(regs) => threads.push(Thread { tid, regs }),
                        // Killed since.
                        Err(_) => ending.push(tid),
                    }
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
            self.hear()?;
            if is_ending(self.pid, first) {
                self.ending.push(pending.remove(0));
            } else if Instant::now() > limit {
                return Err(self.stuck(first, deadline));
            } else {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Takes note of the ends of threads, stopped ones included: one that is stopped has nothing else to tell.
    fn hear(&mut self) -> Result<()> {
        self.ending.retain(|tid| matches!(ptrace::wait(raw(*tid), false), Ok(None)));
        let mut replaced = false;
        self.threads.retain(|thread| match ptrace::wait(raw(thread.tid), false) {
            Ok(None) => true,
            Ok(Some(Stop::Gone)) | Err(_) => false,
            // Another one, that was to stop, has got its id. Its stop is told only once: it is let go here.
            Ok(Some(stop)) => {
                let signal = if let Stop::Signal(signal) = stop { signal } else { 0 };
                let _ = ptrace::detach(raw(thread.tid), signal);
                replaced = true;
                false
            }
        });
        if replaced { Err(executed(self.pid)) } else { Ok(()) }
    }

    /// All that are left are stopped, and are who they were. A thread that executes a program becomes the first one of its process, whose id it
    /// takes over; it may run, and what we have of the first one's registers would not be its.
    fn settled(mut self) -> Result<Self> {
        self.hear()?;
        let same = match self.threads.iter().find(|thread| thread.tid == self.pid) {
            Some(first) => ptrace::registers(raw(first.tid), ptrace::GENERAL).is_ok_and(|regs| regs == first.regs),
            None => is_ending(self.pid, self.pid),
        };
        if !same {
            return Err(executed(self.pid));
        }
        self.threads.sort_unstable_by_key(|thread| thread.tid);
        if self.threads.is_empty() { Err(vanished(self.pid)) } else { Ok(self) }
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
                    Ok(None) => {
                        // Nobody has asked it to stop under the id that it has now, if it executed a program.
                        let _ = ptrace::interrupt(raw(*tid));
                        true
                    }
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

fn executed(pid: u32) -> Error {
    Error::new(format!("process {pid}: executed its program anew while it was stopped")).remedy("try again")
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
