//! STAGE 1, again: the memory of a process that runs, instead of a core's. Knows Linux and ELF, knows nothing of Go.
//!
//! [`Subject::inspect`] says whether a process can be attached to at all. [`Frozen::freeze`] makes its memory stand still: in a
//! copy-on-write snapshot that the process is made to fork (`snapshot`), or by holding all its threads. [`Frozen::image`] reads that memory
//! ([`LiveImage`]); [`Frozen::release`] undoes all. Tracing is done by a process of its own ([`guard`]), so that none of our
//! ways to end harms the subject.
//!
//! What differs between machines is in `machine`; what is unsafe is in `ptrace`.

mod choose;
mod core_file;
pub mod guard;
mod machine;
mod memory;
mod pages;
mod proc;
mod ptrace;
mod reader;
mod snapshot;
mod subject;
mod tracee;
mod uncopied;

pub use choose::{Choice, Pause};
pub use memory::LiveImage;
pub use proc::Mapping;
pub use subject::Subject;

use std::fs::File;
use std::time::Duration;

use crate::address::AddrRange;
use crate::error::{Error, Result};
use crate::image::{FileMapping, Thread};
use guard::{Guard, Order, Refusal, Registers};
use reader::Reader;

/// A process whose memory stands still. Dropping it lets everything go.
#[derive(Debug)]
pub struct Frozen {
    guard: Guard,
    mappings: Vec<Mapping>,
    choice: Choice,
    max_pause: Option<Duration>,
    pid: u32,
    _first: FirstToGo,
}

/// What we allocate must not cost the process its life: while this lives, the kernel takes us first if memory runs out. The guard, started
/// before, keeps its place.
#[derive(Debug)]
struct FirstToGo {
    before: Option<String>,
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

impl FirstToGo {
    fn volunteer() -> Self {
        let before = std::fs::read_to_string(OOM_SCORE).ok();
        // Raising it needs no right, nor does going back.
        let _ = std::fs::write(OOM_SCORE, "1000");
        Self { before }
    }
}

impl Drop for FirstToGo {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(OOM_SCORE, before);
        }
    }
}

/// How long the process stood still, and why in this way.
#[derive(Clone, Debug)]
pub struct Stops {
    /// How.
    pub choice: Choice,
    /// Each stop: what for, and how long.
    pub stops: Vec<(&'static str, Duration)>,
    /// A dead child of the process is left; the next attach removes it.
    pub left: bool,
    /// The limit that a stop did not keep: the kernel's copy of page tables cannot be broken off.
    pub exceeded: Option<Duration>,
}

impl Stops {
    /// * `limit`: for each stop.
    fn new(choice: Choice, stops: Vec<(&'static str, Duration)>, left: bool, limit: Option<Duration>) -> Self {
        let exceeded = limit.filter(|limit| stops.iter().any(|(_, stopped)| stopped > limit));
        Self { choice, stops, left, exceeded }
    }
}

impl Frozen {
    /// Makes the memory of `subject` stand still.
    ///
    /// * `wanted`: how; `None` chooses.
    /// * `for_core`: whether a core is to be written: with floating-point registers, and from memory that stands still to the end.
    ///
    /// # Errors
    /// It ended, may not be traced, does not stop, or `max_pause` cannot be kept. It goes on then.
    pub fn freeze(
        subject: &Subject,
        wanted: Option<Pause>,
        max_pause: Option<Duration>,
        for_core: bool,
    ) -> Result<Self> {
        let mut choice = Choice::make(subject, wanted);
        choice.check(subject, max_pause)?;
        let mut order = Order {
            pid: subject.pid,
            fork: choice.pause == Pause::Fork,
            filtered: subject.filtered,
            nested: subject.inner_pid != subject.pid,
            floating: for_core,
            max_pause,
        };
        let guard = match Guard::start(&order) {
            Err(Refusal::NoSnapshot(e)) if wanted.is_none() => {
                let space = if for_core { None } else { Some(memory::space(&subject::mappings(subject.pid)?)) };
                choice = choice.instead(subject, &e, space);
                order.fork = false;
                Guard::start(&order)
            }
            other => other,
        };
        let guard = guard.map_err(|(Refusal::NoSnapshot(e) | Refusal::Failed(e))| e)?;
        subject.check_same(guard.frozen)?;
        let mappings = subject::mappings(guard.frozen)?;
        Ok(Self { guard, mappings, choice, max_pause, pid: subject.pid, _first: FirstToGo::volunteer() })
    }

    /// Reads what stands still: the snapshot if there is one.
    fn reader(&self) -> Reader {
        let frozen = self.guard.frozen;
        if self.guard.stopped.is_some() { Reader::of_snapshot(frozen) } else { Reader::new(frozen) }
    }

    /// Its memory.
    #[must_use]
    pub fn image(&self) -> LiveImage {
        let longest = choose::window_length(self.choice.pause);
        LiveImage::new(self.reader(), &self.mappings, choose::window_budget(), longest)
    }

    /// How it was made to stand still.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Its mappings.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// Its auxiliary vector.
    ///
    /// # Errors
    /// It is gone.
    pub fn auxv(&self) -> Result<Vec<(u64, u64)>> {
        proc::auxv(self.guard.frozen).map_err(|e| subject::denied_or(e, self.pid, &proc::Status::default()))
    }

    /// Its file mappings, as a core has them.
    #[must_use]
    pub fn files(&self) -> Vec<FileMapping> {
        self.mappings.iter().filter_map(Mapping::file).collect()
    }

    /// All registers of all threads.
    #[must_use]
    pub fn registers(&self) -> &[Registers] {
        &self.guard.threads
    }

    /// Its threads, as the model wants them.
    ///
    /// # Errors
    /// A thread runs 32-bit code.
    pub fn threads(&self) -> Result<Vec<Thread>> {
        let thread = |r: &Registers| machine::thread(r.tid, &r.general);
        self.guard.threads.iter().map(thread).collect::<Option<_>>().ok_or_else(|| {
            Error::new(format!("process {}: a thread has registers of another size: it runs 32-bit code", self.pid))
                .remedy("only 64-bit Go programs can be read")
        })
    }

    /// Writes it as an ELF core with all threads.
    ///
    /// * `auxv`: the auxiliary vector.
    /// * `left_out`: memory that the core shall not hold, sorted.
    /// * `packed`: compress with zstd; else zeros are holes of the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_core(
        &self,
        auxv: &[(u64, u64)],
        left_out: &[AddrRange],
        file: File,
        packed: bool,
    ) -> std::io::Result<()> {
        let source = core_file::Source {
            reader: self.reader(),
            pid: self.pid,
            mappings: &self.mappings,
            registers: &self.guard.threads,
            auxv,
            left_out,
        };
        core_file::write_file(&source, file, packed)
    }

    /// Why reading failed, if it did because the memory is gone; else `error`.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match self.killed() {
            Some((e, remedy)) => e.cause(error).remedy(remedy),
            None => error,
        }
    }

    /// Dead, it has no memory to read.
    fn killed(&self) -> Option<(Error, &'static str)> {
        let dead = proc::stat(self.guard.frozen).is_none_or(|s| matches!(s.state, 'Z' | 'X' | 'x'));
        let which = if self.guard.stopped.is_some() { "its snapshot" } else { "it" };
        dead.then(|| {
            (
                Error::new(format!("process {}: {which} was killed while it was read", self.pid)),
                "if memory ran out, the kernel kills the snapshot first: try when there is more, or --pause whole",
            )
        })
    }

    /// Lets everything go, and says how long the process stood still.
    ///
    /// # Errors
    /// `max_pause` passed before: what was read since is worthless.
    pub fn release(self) -> Result<Stops> {
        let killed = self.killed();
        let Self { guard, choice, max_pause, pid, .. } = self;
        let first = guard.stopped;
        let released = guard.release()?;
        if released.expired {
            return Err(Error::new(format!(
                "process {pid}: was not read within --max-pause; it goes on after {:.1} ms",
                released.stopped.as_secs_f64() * 1e3
            ))
            .remedy("give a longer --max-pause, or let it make a snapshot: --pause fork"));
        }
        if let Some((e, remedy)) = killed {
            return Err(e.remedy(remedy));
        }
        let mut stops = Vec::new();
        match first {
            Some(first) => stops.extend([("snapshot", first), ("reap", released.stopped)]),
            None => stops.push(("hold", released.stopped)),
        }
        Ok(Stops::new(choice, stops, released.left, max_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_beyond_the_limit_is_said() {
        let choice = Choice { pause: Pause::Fork, why: String::new() };
        let ms = Duration::from_millis;
        let exceeded =
            |limit| Stops::new(choice.clone(), vec![("snapshot", ms(30)), ("reap", ms(1))], false, limit).exceeded;
        assert_eq!(exceeded(Some(ms(29))), Some(ms(29)));
        assert_eq!(exceeded(Some(ms(30))), None);
        assert_eq!(exceeded(None), None);
    }
}
