//! What can be typed: argv -> `Args` (as typed) -> [`Job`] (as meant). Also all of `--help`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Attach, Capture, Config, Verbosity};
use crate::image::Search;
use crate::image::debuginfod::Debuginfod;
use crate::live::{Pause, guard};
use crate::output::file::same_file;

const ABOUT: &str = "\
Who holds my memory? Reads a core dump of a Go program, walks its heap as the garbage collector would, and writes a pprof \
profile in which every live object is counted once, on the shortest path of variables, fields and elements that leads to it.";

// Lines of at most 78 columns: clap wraps longer ones without regard to their indentation.
const TEACHING: &str = "\
Analyze a process that runs (it stops for milliseconds), look at it:
  goref-fast attach PID
  go tool pprof -http=:5079 grf.out

Or take a core with the same short stop, and analyze it later or elsewhere:
  goref-fast capture PID -o app.core.zst
  goref-fast core ./app app.core.zst

A program that crashes leaves a core with:
  ulimit -c unlimited; GOTRACEBACK=crash ./app

Reading the profile:
  inuse_space, inuse_objects: slots of the heap, as the allocator rounds them.
  A stack leads from a root to the object:
    main.cache -> items. (map[string]*main.Item) -> $mapval. (*main.Item)
  Cumulative bytes of a frame: what was first reached through it, by the
  fewest pointers. That is not what would be freed if it were cut: something
  else may hold the same objects, as near or further away.
  $sub_objects$   reached through pointers that no type explains
  (deeper)        beyond --max-depth, or beyond the budget for paths
  (other)         folded by --max-stacks

Exit status:
  0  done
  1  cannot do it: the message says what was read, where, expected against
     found, and what to do
  2  wrong usage
  3  done, but the result is partial (the message says what is missing and how
     much) or its books do not balance";

const DEBUG_FILE_HELP: &str = "\
The executable's debug information, if it was taken out (objcopy --only-keep-debug). Its build id must be the executable's. \
Without this option an executable that has none is looked up as debuggers do it: DIR/.build-id/xx/yyyy.debug, the file that \
.gnu_debuglink names (below DIR, beside the executable, in .debug/), and the servers in DEBUGINFOD_URLS, if that is set";

const ATTACH_ABOUT: &str = "\
Analyzes a running process. It is stopped for milliseconds, in which it makes a copy-on-write snapshot of itself; the snapshot is \
read while the process goes on. Both stops are measured and printed. Whatever happens to goref-fast, the process goes on.";

const PAUSE_HELP: &str = "\
How long the process stands still:
  fork   until it has made a snapshot of itself (about 30 ms per GiB)
  copy   until what the analysis needs is copied
  whole  until the analysis is done; takes no memory for a copy
By default fork, and another where that is impossible; the report says which and why";

const MAX_PAUSE_HELP: &str = "\
Longest stop: 50ms, 2s, 1min. A snapshot that is likely to take longer is not begun, and when the time is over before all threads stand \
still, or before a process that is held was read, it goes on and there is no result. Only making the snapshot cannot be broken off: if \
that takes longer than expected, the result stands, and the report says that the limit was not kept";

const CAPTURE_ABOUT: &str = "\
Writes a core of a running process, for gdb, delve and `goref-fast core`: all threads and all private memory, without pages that were never \
touched. The process stands still as shortly as for attach: for milliseconds, in which it makes a copy-on-write snapshot of itself. \
Whatever happens to goref-fast, the process goes on.";

// Lines of at most 78 columns, as above.
const CAPTURE_TEACHING: &str = "\
Take a core, and analyze it here or on another machine with the same
executable:
  goref-fast capture PID -o app.core.zst
  goref-fast core ./app app.core.zst

gdb and delve take uncompressed ones (the file has holes and takes less room
than its length says):
  goref-fast capture PID -o app.core
  dlv core ./app app.core

Exit status:
  0  done
  1  cannot do it: the message says why, and what to do
  2  wrong usage";

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(name = "goref-fast", version, about = ABOUT, after_help = TEACHING, arg_required_else_help = true)]
#[command(max_term_width = 120)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Analyze a core dump
    #[command(after_help = TEACHING)]
    Core(CoreArgs),

    /// Analyze a running process: stop it for milliseconds, take a snapshot, read that while it goes on
    #[command(after_help = TEACHING, long_about = ATTACH_ABOUT)]
    Attach(AttachArgs),

    /// Write a core of a running process: the same short stop as attach, for gdb, delve and `goref-fast core`
    #[command(after_help = CAPTURE_TEACHING, long_about = CAPTURE_ABOUT)]
    Capture(CaptureArgs),

    /// Trace a process on behalf of attach and capture
    #[command(hide = true)]
    Guard { order: Vec<String> },
}

#[derive(Debug, clap::Args)]
struct CoreArgs {
    /// The executable that ran; or a directory that was / for the process (a container's root), to find it in by the path that
    /// the core names. May be compressed with zstd, lz4, gzip or xz
    exe: PathBuf,

    /// Its core dump, from gcore, the kernel or systemd-coredump; may be compressed with zstd, lz4, gzip or xz
    core: PathBuf,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
struct AttachArgs {
    /// The process: its id, as `pgrep NAME` prints it
    #[arg(value_parser = process)]
    pid: u32,

    /// Its executable, if the one that it runs was stripped: the same build, with DWARF [default: the process's own]
    exe: Option<PathBuf>,

    /// How long it stands still: fork, copy or whole [default: fork if possible]
    #[arg(long, value_name = "HOW", value_parser = pause, long_help = PAUSE_HELP)]
    pause: Option<Pause>,

    /// Longest stop, such as 50ms or 2s: give up rather than stop it for longer. A snapshot that took longer is reported, not undone
    #[arg(long, value_name = "DURATION", value_parser = duration, long_help = MAX_PAUSE_HELP)]
    max_pause: Option<Duration>,

    #[command(flatten)]
    again: Again,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
struct CaptureArgs {
    /// The process: its id, as `pgrep NAME` prints it
    #[arg(value_parser = process)]
    pid: u32,

    /// Where the core goes; compressed if it ends in .zst
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// How long it stands still: fork, or whole (until all is written) [default: fork if possible]
    #[arg(long, value_name = "HOW", value_parser = pause)]
    pause: Option<Pause>,

    /// Longest stop, such as 50ms or 2s: give up rather than stop it for longer. A snapshot that took longer is reported, not undone
    #[arg(long, value_name = "DURATION", value_parser = duration, long_help = MAX_PAUSE_HELP)]
    max_pause: Option<Duration>,

    /// Leave out what `goref-fast core` never reads: free memory of the heap, contents of objects without pointers (texts, numbers), the
    /// heap of C. Smaller, and fewer secrets; the profile is the same
    #[arg(long)]
    go_only: bool,

    /// With --go-only: keep the contents of objects without pointers, for debuggers
    #[arg(long, requires = "go_only")]
    with_data: bool,

    #[command(flatten)]
    again: Again,

    /// Print no report and no progress
    #[arg(short, long)]
    quiet: bool,
}

/// More than one, for growth over time.
#[derive(Clone, Debug, clap::Args)]
struct Again {
    /// With --count: do it again and again, this long from start to start; files are numbered: NAME.1.out, NAME.2.out
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "count")]
    every: Option<Duration>,

    /// With --every: how often
    #[arg(long, value_name = "N", requires = "every", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Where the profile goes; - is standard output, which then takes no report
    #[arg(short, long, value_name = "FILE", default_value = "grf.out")]
    output: PathBuf,

    /// Worker threads [default: the available cores]; no result depends on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,

    /// Frames of a path; what lies deeper is counted under (deeper)
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_depth: u32,

    /// Stacks in the profile; the lightest beyond that are folded into (other)
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_stacks: u32,

    /// Give each step of a recursive type (lists, trees) a frame of its own
    #[arg(long)]
    no_fold: bool,

    /// Use no types: reach everything by pointer masks alone (the same objects, without names)
    #[arg(long)]
    no_types: bool,

    /// Write numbers about the run to FILE, as JSON
    #[arg(long, value_name = "FILE.json")]
    stats: Option<PathBuf>,

    /// The executable's debug information, if it was taken out (objcopy --only-keep-debug) [default: looked for]
    #[arg(long, value_name = "FILE", long_help = DEBUG_FILE_HELP)]
    debug_file: Option<PathBuf>,

    /// Folder with debug information by build id and by path [default: /usr/lib/debug]
    #[arg(long, value_name = "DIR")]
    debug_dir: Option<PathBuf>,

    /// Unpack compressed inputs here [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    tmpdir: Option<PathBuf>,

    /// Print no report and no progress
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Also print phases, memory and soft errors by cause
    #[arg(short, long)]
    verbose: bool,
}

fn pause(text: &str) -> Result<Pause, String> {
    let known = [Pause::Fork, Pause::Copy, Pause::Whole];
    known.into_iter().find(|p| p.name() == text).ok_or_else(|| "expected fork, copy or whole".into())
}

/// An id of a process: a number above 0.
fn process(text: &str) -> Result<u32, String> {
    let pid = text.parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| "expected the id of a process, a number such as `pgrep NAME` prints".into())
}

/// A number with a unit: `us`, `ms`, `s` or `min`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        _ => return Err("expected a number and a unit, such as 50ms, 2s or 1min".into()),
    };
    let number: f64 = number.parse().map_err(|_| format!("not a number: {number:?}"))?;
    Duration::try_from_secs_f64(number * seconds).ok().filter(|d| !d.is_zero()).ok_or_else(|| "out of range".into())
}

impl CoreArgs {
    /// Refuses what cannot be meant.
    fn into_config(self) -> Result<Config, String> {
        if is_same(&self.exe, &self.core) {
            return Err(format!("EXE and CORE are the same file: {}", self.exe.display()));
        }
        self.options.into_config(self.exe, self.core, None)
    }
}

impl AttachArgs {
    /// Refuses what cannot be meant.
    fn into_config(self) -> Result<Config, String> {
        let attach = Attach { pid: self.pid, pause: self.pause, max_pause: self.max_pause };
        self.options.into_config(self.exe.unwrap_or_default(), PathBuf::new(), Some(attach))
    }
}

impl CaptureArgs {
    /// Refuses what cannot be meant.
    fn into_config(self) -> Result<Capture, String> {
        if self.pause == Some(Pause::Copy) {
            return Err("--pause copy: a core holds everything; use fork or whole".into());
        }
        let verbosity = if self.quiet { Verbosity::Quiet } else { Verbosity::Normal };
        let Self { pid, output, pause, max_pause, go_only, with_data, .. } = self;
        Ok(Capture { pid, output, pause, max_pause, go_only, with_data, verbosity })
    }
}

impl Options {
    /// Fills in defaults and refuses what cannot be meant.
    fn into_config(self, exe: PathBuf, core: PathBuf, attach: Option<Attach>) -> Result<Config, String> {
        // The result would replace what it was made from.
        for written in [Some(&self.output), self.stats.as_ref()].into_iter().flatten() {
            for read in [Some(&exe), Some(&core), self.debug_file.as_ref()].into_iter().flatten() {
                if is_same(written, read) {
                    return Err(format!("the output {} is also an input", written.display()));
                }
            }
        }
        if let Some(stats) = &self.stats
            && (*stats == self.output || is_same(stats, &self.output))
            && stats != Path::new("/dev/null")
        {
            return Err(format!("the profile and the stats file are the same file: {}", stats.display()));
        }
        let available = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        Ok(Config {
            exe,
            core,
            attach,
            output: self.output,
            threads: self.threads.and_then(|n| NonZeroUsize::new(n.into())).unwrap_or(available),
            max_depth: self.max_depth,
            max_stacks: self.max_stacks as usize,
            fold: !self.no_fold,
            types: !self.no_types,
            stats: self.stats,
            search: Search { file: self.debug_file, dir: self.debug_dir, debuginfod: Debuginfod::from_env() },
            tmpdir: self.tmpdir,
            verbosity,
        })
    }
}

/// True if both names lead to one existing file.
fn is_same(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => same_file(&a, &b),
        _ => false,
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Job {
    /// An analysis.
    Run(Config),
    /// An analysis, several times.
    Repeat(Config, Duration, u32),
    /// A core, once or several times.
    Capture(Capture, Duration, u32),
    /// To be a guard.
    Guard(guard::Order),
}

/// Parses the command line. The error says what to print and how to exit (`--help` is such an error, with status 0).
pub(super) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Job, clap::Error> {
    let (name, job) = match Args::try_parse_from(argv)?.command {
        Command::Core(args) => ("core", args.into_config().map(Job::Run)),
        Command::Attach(args) => {
            let again = args.again.clone();
            let job = |config| match (again.every, again.count) {
                (Some(every), Some(count)) => Job::Repeat(config, every, count),
                _ => Job::Run(config),
            };
            ("attach", args.into_config().map(job))
        }
        Command::Capture(args) => {
            let (every, count) = (args.again.every.unwrap_or_default(), args.again.count.unwrap_or(1));
            ("capture", args.into_config().map(|capture| Job::Capture(capture, every, count)))
        }
        Command::Guard { order } => (
            "guard",
            guard::Order::parse(&order).map(Job::Guard).ok_or_else(|| "only goref-fast itself calls this".into()),
        ),
    };
    job.map_err(|message| {
        let mut command = Args::command();
        command.build();
        let sub = command.find_subcommand_mut(name).expect("the subcommand exists");
        sub.error(ErrorKind::ValueValidation, message)
    })
}
