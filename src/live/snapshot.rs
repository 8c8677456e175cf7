//! [`Snapshot`]: a frozen child that shares the process's memory copy-on-write, made by the process itself.
//!
//! `clone` with an exit signal that is none ([`EXIT_SIGNAL`]): nothing is sent when it dies, plain `wait` does not see it, and it is known for
//! ours as long as anything of it exists. The table of open files is shared at first, which
//! takes no time; when the process runs again, the child gets an empty one, so that nothing stays open because of it. The child is traced
//! from its birth and executes nothing but that one call: all signals blocked, its stack pointer in a page that is never mapped, so that
//! its first use of the stack would end it if nobody held it. Once it is seen it dies with its tracer, and it is the first that the
//! kernel takes if memory runs out. When it is dead, the process itself must `wait4` for it: that is the second stop, of one thread.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::proc;
use super::ptrace::{self, Stop};
use super::tracee::{self, Tracee};
use super::{machine, proc::Status};
use crate::error::{Error, Result};

/// What the parent gets at its end: a number beyond all signals, so nothing, as with 0. But 0 has what others make as well, such as Go's
/// package `os` to try CLONE_PIDFD: taking that away would make it do without. This one is in `/proc/PID/stat` from the birth of the
/// child until it is reaped, whoever else dies meanwhile. The kernel checks it in `clone3` only; the lowest byte of `clone`'s flags
/// may be any.
pub(super) const EXIT_SIGNAL: u8 = b'g';

/// `CLONE_FS | CLONE_FILES`; the lowest byte is the exit signal.
const FLAGS: u64 = 0x200 | 0x400 | EXIT_SIGNAL as u64;

/// No process has memory there (`vm.mmap_min_addr`), and no push fits below. Aligned as arm64 wants it.
const NO_STACK: u64 = 16;

/// `WNOHANG | __WCLONE`: children without SIGCHLD only, so never one that the process itself waits for.
const REAP: u64 = 1 | 0x8000_0000;

/// `CLOSE_RANGE_UNSHARE`.
const UNSHARE: u64 = 2;

const ECHILD: i64 = -10;

/// A thread that does not stop by then is passed over: another can reap as well.
const ONE_THREAD: Duration = Duration::from_millis(200);

/// If none of them does, because others have all processors, so many get more time. A thread runs until it stops, so waiting harms nobody.
const PATIENT: usize = 16;
const PATIENCE: Duration = Duration::from_secs(2);

/// The frozen child. Dropping it kills it and leaves a dead child to the process: see [`Snapshot::remove`].
#[derive(Debug)]
pub(super) struct Snapshot {
    parent: u32,
    /// As we see it.
    pub(super) pid: u32,
    /// As its parent sees it.
    inner: u64,
    /// The thread that made it.
    maker: u32,
    /// The instruction that it was made by.
    site: u64,
    alive: bool,
    options: i32,
}

impl Snapshot {
    /// Has the stopped process make its copy.
    ///
    /// * `options`: ptrace options that the threads were seized with.
    ///
    /// # Errors
    /// The kernel refuses: too many processes, too little memory.
    pub(super) fn take(parent: u32, tracee: &mut Tracee, options: i32) -> Result<Self> {
        let (index, site) = tracee.caller()?;
        let maker = tracee.threads[index].tid;
        let arguments = [FLAGS, NO_STACK, 0, 0, 0, 0];
        let (result, made) = tracee.call(index, site, machine::CLONE, arguments, options | ptrace::TRACE_CLONE)?;
        match (result, made) {
            (1.., Some(pid)) => {
                Ok(Self { parent, pid, inner: result.cast_unsigned(), maker, site, alive: true, options })
            }
            (errno, _) => {
                let e = nix::errno::Errno::from_raw(errno.unsigned_abs().try_into().unwrap_or(0));
                Err(Error::new(format!("process {parent}: cannot be copied by fork: {e}")).remedy(
                    "a limit of processes (RLIMIT_NPROC, pids of its cgroup) or of memory is in the way; use --pause copy or --pause whole",
                ))
            }
        }
    }

    /// Takes from it what the process might miss. Called when that runs again.
    pub(super) fn strip(&self) {
        // Raising it needs no right. The kernel kills the copy before it kills the original.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", self.pid), "1000");
        // A table of its own without any file: otherwise ports and pipes stay open as long as it lives, should the process end. Closes
        // nothing, so it cannot wait. Before Linux 5.9 there is no such call.
        let arguments = [0, u32::MAX.into(), UNSHARE, 0, 0, 0];
        let options = self.options | ptrace::EXIT_KILL;
        let _ = tracee::call_by_snapshot(self.pid, self.site, machine::CLOSE_RANGE, arguments, options);
    }

    /// Kills the copy, and has the process reap it, with `others` that earlier runs left. Returns how long one thread stood still for that.
    ///
    /// # Errors
    /// The process is gone, or none of its threads could be used: a dead child is left, which the next attach removes.
    pub(super) fn remove(mut self, others: &[u32]) -> Result<Duration> {
        self.kill();
        let mut dead = vec![self.inner];
        dead.extend(others.iter().filter_map(|pid| inner_id(*pid)));
        reap(self.parent, self.maker, &dead, self.options)
    }

    fn kill(&mut self) {
        if !std::mem::take(&mut self.alive) {
            return;
        }
        let pid = self.pid.cast_signed();
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        // A tracer hears of the end before the parent does.
        while !matches!(ptrace::wait(pid, true), Ok(Some(Stop::Gone)) | Err(_)) {}
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The id of a dead child as its parent sees it.
fn inner_id(pid: u32) -> Option<u64> {
    Status::read(pid, None).ok()?.inner_id().map(u64::from)
}

/// Has `parent` wait for dead children; returns how long one of its threads was stopped.
///
/// * `first`: the thread that is tried first, unless it runs.
///
/// # Errors
/// As [`Snapshot::remove`].
fn reap(parent: u32, first: u32, dead: &[u64], options: i32) -> Result<Duration> {
    let mut last = Error::new(format!("process {parent}: has no thread that can reap the snapshot"));
    let mut tids = proc::threads(parent).unwrap_or_default();
    // What waits in a system call stops at once, and suits best.
    let runs = |tid: u32| Status::read(parent, Some(tid)).map_or(true, |s| s.state() != 'S');
    tids.sort_by_cached_key(|tid| (runs(*tid), *tid != first, *tid));
    let again = tids.iter().take(PATIENT).map(|tid| (*tid, PATIENCE));
    for (tid, time) in tids.iter().map(|tid| (*tid, ONE_THREAD)).chain(again) {
        let reaped = Tracee::stop_one(parent, tid, options, time).and_then(|mut tracee| {
            let (index, site) = tracee.caller()?;
            for child in dead {
                let (result, _) = tracee.call(index, site, machine::WAIT4, [*child, 0, REAP, 0, 0, 0], options)?;
                if result != child.cast_signed() && result != ECHILD {
                    return Err(Error::new(format!("process {parent}: cannot reap the snapshot: {result}")));
                }
            }
            Ok(tracee.resume())
        });
        match reaped {
            Ok(stopped) => return Ok(stopped),
            Err(e) => last = e,
        }
    }
    Err(last)
}
