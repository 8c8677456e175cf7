//! [`Undertaker`]: hears of the ends of threads while we wait inside the kernel to trace another one.
//!
//! A thread that executes a program holds a lock of its process until all others have ended, and of those that are traced, until their tracer
//! has heard of it. `PTRACE_SEIZE` waits for that lock: who has stopped some threads and seizes the next one then waits for a
//! thread that waits for him. The kernel lets any thread of the tracer hear.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::super::{proc, ptrace};

/// Between looks: as long as a process stands still for longer than usual.
const BETWEEN: Duration = Duration::from_millis(20);

/// Dropping it ends it, without waiting for that.
#[derive(Debug)]
pub(super) struct Undertaker {
    _end: Sender<()>,
}

impl Undertaker {
    /// For the threads of `pid`. `None` if no thread can be started: then we do without.
    pub(super) fn start(pid: u32) -> Option<Self> {
        let (end, ended) = channel();
        thread::Builder::new().name("undertaker".into()).spawn(move || watch(pid, &ended)).ok()?;
        Some(Self { _end: end })
    }
}

fn watch(pid: u32, ended: &Receiver<()>) {
    while ended.recv_timeout(BETWEEN) == Err(RecvTimeoutError::Timeout) {
        // Who executes a program does without the first one, and takes its id over.
        for tid in proc::threads(pid).unwrap_or_default().into_iter().filter(|tid| *tid != pid) {
            ptrace::hear_end(tid.cast_signed());
        }
    }
}
