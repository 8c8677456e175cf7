//! What the user meant: every default filled in, every contradiction already refused by [`crate::cli`].

use crate::image::Search;
use crate::live::Pause;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// How much is printed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// `-q`: no report, no progress; errors only.
    Quiet,
    /// The report, and progress on a terminal.
    #[default]
    Normal,
    /// `-v`: also phases and incidents.
    Verbose,
}

/// A process to attach to.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Its id.
    pub pid: u32,
    /// How it is stopped; `None` chooses.
    pub pause: Option<Pause>,
    /// Longest stop.
    pub max_pause: Option<Duration>,
}

/// A core to take of a process.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Its id.
    pub pid: u32,
    /// Where the core goes; compressed if it ends in `.zst`.
    pub output: PathBuf,
    /// How it is stopped; `None` chooses.
    pub pause: Option<Pause>,
    /// Longest stop.
    pub max_pause: Option<Duration>,
    /// Whether memory is left out that no analysis reads.
    pub go_only: bool,
    /// Of that, keep the contents of objects without pointers.
    pub with_data: bool,
    /// How much is printed.
    pub verbosity: Verbosity,
}

impl Capture {
    /// The analysis that finds out what is read: with everything that `goref-fast core` does by default.
    #[must_use]
    pub fn analysis(&self) -> Config {
        Config {
            exe: PathBuf::new(),
            core: PathBuf::new(),
            attach: Some(Attach { pid: self.pid, pause: self.pause, max_pause: self.max_pause }),
            output: PathBuf::new(),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_depth: 256,
            max_stacks: 50_000,
            fold: true,
            types: true,
            stats: None,
            search: Search::default(),
            tmpdir: None,
            verbosity: self.verbosity,
        }
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The executable, or a directory to find it in.
    pub exe: PathBuf,
    /// The core dump.
    pub core: PathBuf,
    /// The process that is analyzed instead of a core; `core` is empty then, and `exe` if it is the process's own.
    pub attach: Option<Attach>,
    /// Where the profile goes; `-` is standard output.
    pub output: PathBuf,
    /// Worker threads. No result depends on it.
    pub threads: NonZeroUsize,
    /// Frames of a path before `(deeper)`, at least 1.
    pub max_depth: u32,
    /// Stacks in the profile, `(other)` not counted, at least 1.
    pub max_stacks: usize,
    /// Whether repeated frames of recursive types are folded.
    pub fold: bool,
    /// Whether types are used at all: without them everything is counted by pointer masks alone.
    pub types: bool,
    /// Where the stats file goes, if wanted.
    pub stats: Option<PathBuf>,
    /// Where debug information is looked for that is not in the executable.
    pub search: Search,
    /// Where compressed inputs are unpacked; `None` is the system's folder for temporary files.
    pub tmpdir: Option<PathBuf>,
    /// How much is printed.
    pub verbosity: Verbosity,
}
