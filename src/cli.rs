//! Command line: argv -> `Args` (as typed) -> [`Config`] (as meant), and the way back: messages and exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Attach, Capture, Config, Verbosity};
use crate::error::{Error, Result};
use crate::image::Search;
use crate::image::debuginfod::Debuginfod;
use crate::live::{Pause, guard};
use crate::output::Outcome;
use crate::output::file::{ignore_broken_pipe, same_file};
use crate::output::report::printable;
use crate::progress::Progress;

/// Cannot do it.
const EXIT_FAILED: u8 = 1;
/// Wrong usage.
const EXIT_USAGE: u8 = 2;
/// Done, but the result is partial or its books do not balance.
const EXIT_PARTIAL: u8 = 3;

const ABOUT: &str = "\
Who holds my memory? Reads a core dump of a Go program, walks its heap as the garbage collector would, and writes a pprof \
profile in which every live object is counted once, on the shortest path of variables, fields and elements that leads to it.";

// Lines of at most 78 columns: clap wraps longer ones without regard to their indentation.
const TEACHING: &str = "\
Analyze a process that runs (it stops for milliseconds), look at it:
  goref-fast attach PID
  go tool pprof -http=:5079 grf.out

Or take a core (the program goes on afterwards) and analyze that:
  gcore -o core PID
  goref-fast core ./app core.PID

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
  whole  until the analysis is done
By default fork, and another where that is impossible; the report says which and why";

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(name = "goref-fast", version, about = ABOUT, after_help = TEACHING, arg_required_else_help = true)]
#[command(max_term_width = 120)]
struct Args {
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
    /// The process
    pid: u32,

    /// Its executable, if the one that it runs was stripped: the same build, with DWARF [default: the process's own]
    exe: Option<PathBuf>,

    /// How long it stands still: fork, copy or whole [default: fork if possible]
    #[arg(long, value_name = "HOW", value_parser = pause, long_help = PAUSE_HELP)]
    pause: Option<Pause>,

    /// Give up, and let the process go on, rather than stop it for longer: 50ms, 2s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_pause: Option<Duration>,

    #[command(flatten)]
    again: Again,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
struct CaptureArgs {
    /// The process
    pid: u32,

    /// Where the core goes; compressed if it ends in .zst
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// How long it stands still: fork, or whole (until all is written) [default: fork if possible]
    #[arg(long, value_name = "HOW", value_parser = pause)]
    pause: Option<Pause>,

    /// Give up, and let the process go on, rather than stop it for longer: 50ms, 2s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
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
    /// Do it again and again, from start to start; files are numbered: grf.1.out, grf.2.out
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "count")]
    every: Option<Duration>,

    /// How often
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

/// A number with a unit: `us`, `ms`, `s` or `min`.
fn duration(text: &str) -> Result<Duration, String> {
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
enum Job {
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
fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Job, clap::Error> {
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

/// The program: parses the command line, lets `run` and `capture` do the work, prints and picks the exit status.
pub fn main(
    run: impl Fn(&Config, &Progress) -> Result<Outcome>,
    capture: impl Fn(&Capture, &Progress) -> Result<Outcome>,
) -> ExitCode {
    let code = match parse(std::env::args_os()) {
        Ok(Job::Run(config)) => report(config.verbosity, |progress| run(&config, progress)),
        Ok(Job::Repeat(config, every, count)) => repeat(every, count, |n| {
            let (output, stats) = (numbered(&config.output, n), config.stats.as_ref().map(|path| numbered(path, n)));
            let config = Config { output, stats, ..config.clone() };
            report(config.verbosity, |progress| run(&config, progress))
        }),
        Ok(Job::Capture(config, every, count)) => repeat(every, count, |n| {
            let output = if count > 1 { numbered(&config.output, n) } else { config.output.clone() };
            let config = Capture { output, ..config.clone() };
            report(config.verbosity, |progress| capture(&config, progress))
        }),
        Ok(Job::Guard(order)) => {
            guard::serve(&order);
            0
        }
        Err(e) => {
            // Nobody left to tell if this fails.
            let _ = e.print();
            if e.use_stderr() { EXIT_USAGE } else { 0 }
        }
    };
    ExitCode::from(code)
}

/// Runs `job` with 1, 2, .. `count`, a time of `every` from start to start; the first failure ends it. The worst exit status.
fn repeat(every: Duration, count: u32, mut job: impl FnMut(u32) -> u8) -> u8 {
    let start = Instant::now();
    let mut worst = 0;
    for n in 1..=count {
        std::thread::sleep(every.saturating_mul(n - 1).saturating_sub(start.elapsed()));
        let code = job(n);
        if code == EXIT_FAILED {
            return code;
        }
        worst = worst.max(code);
    }
    worst
}

/// `dir/grf.2.out` for `dir/grf.out`; what is no file keeps its name.
fn numbered(path: &Path, n: u32) -> PathBuf {
    let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| *name != "-") else {
        return path.to_owned();
    };
    if path.starts_with("/dev") {
        return path.to_owned();
    }
    // A dot in front belongs to the name.
    let dot = name.char_indices().skip(1).find(|(_, c)| *c == '.').map_or(name.len(), |(at, _)| at);
    path.with_file_name(format!("{}.{n}{}", &name[..dot], &name[dot..]))
}

/// Does the work, prints what came of it, and gives the exit status.
fn report(verbosity: Verbosity, work: impl FnOnce(&Progress) -> Result<Outcome>) -> u8 {
    let quiet = verbosity == Verbosity::Quiet;
    let progress = if quiet { Progress::silent() } else { Progress::new() };
    let outcome = work(&progress);
    progress.finish();
    let mut stderr = io::stderr().lock();
    match outcome.and_then(|outcome| print_report(quiet, outcome)) {
        Ok(partial) => {
            for sentence in &partial {
                let _ = writeln!(stderr, "goref-fast: partial result: {}", printable(sentence));
            }
            if partial.is_empty() { 0 } else { EXIT_PARTIAL }
        }
        Err(e) => {
            let _ = write!(stderr, "{}", render_error(&e));
            EXIT_FAILED
        }
    }
}

/// Prints the report unless `-q` was given. Returns what makes the result partial.
fn print_report(quiet: bool, outcome: Outcome) -> Result<Vec<String>> {
    if !quiet {
        let mut stdout = io::stdout().lock();
        let done = stdout.write_all(outcome.report.as_bytes()).and_then(|()| stdout.flush());
        ignore_broken_pipe(done).map_err(|e| Error::new("cannot print the report to standard output").cause(e))?;
    }
    Ok(outcome.partial)
}

/// `goref-fast: error: ...` and, on a line of its own, the remedy.
fn render_error(e: &Error) -> String {
    let mut text = format!("goref-fast: error: {}\n", printable(&e.to_string()));
    if let Some(remedy) = e.remedy_text() {
        text.push_str(&format!("  help: {}\n", printable(remedy)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Config, clap::Error> {
        match parse(std::iter::once("goref-fast").chain(words.iter().copied()).map(OsString::from))? {
            Job::Run(config) => Ok(config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults() {
        let config = parse_words(&["core", "app", "core.1"]).expect("valid");
        assert_eq!(config.exe, Path::new("app"));
        assert_eq!(config.core, Path::new("core.1"));
        assert_eq!(config.output, Path::new("grf.out"));
        assert_eq!((config.max_depth, config.max_stacks), (256, 50_000));
        assert!(config.fold && config.types && config.stats.is_none() && config.tmpdir.is_none());
        assert!(config.search.file.is_none() && config.search.dir.is_none());
        assert_eq!(config.verbosity, Verbosity::Normal);
        assert_eq!(Some(config.threads), std::thread::available_parallelism().ok());
    }

    #[test]
    fn every_option() {
        let words = [
            "core",
            "-v",
            "--no-fold",
            "--no-types",
            "--threads",
            "3",
            "--max-depth",
            "8",
            "--max-stacks",
            "9",
            "--stats",
            "s.json",
            "--tmpdir",
            "/tmp",
            "--debug-file",
            "app.debug",
            "--debug-dir",
            "/srv/debug",
            "-o",
            "p.out",
            "app",
            "core.1",
        ];
        let config = parse_words(&words).expect("valid");
        assert_eq!((config.threads.get(), config.max_depth, config.max_stacks), (3, 8, 9));
        assert!(!config.fold && !config.types);
        assert_eq!(config.stats.as_deref(), Some(Path::new("s.json")));
        assert_eq!(config.tmpdir.as_deref(), Some(Path::new("/tmp")));
        assert_eq!(config.search.file.as_deref(), Some(Path::new("app.debug")));
        assert_eq!(config.search.dir.as_deref(), Some(Path::new("/srv/debug")));
        assert_eq!(config.output, Path::new("p.out"));
        assert_eq!(config.verbosity, Verbosity::Verbose);
    }

    #[test]
    fn attach_takes_the_same_options() {
        let config = parse_words(&["attach", "17", "--max-pause", "50ms", "--threads", "3"]).expect("valid");
        let attach = config.attach.expect("attach");
        assert_eq!((attach.pid, attach.pause), (17, None));
        assert_eq!(attach.max_pause, Some(Duration::from_millis(50)));
        assert!(config.exe.as_os_str().is_empty() && config.threads.get() == 3);
        let config = parse_words(&["attach", "17", "app", "--pause", "whole"]).expect("valid");
        assert_eq!(config.attach.expect("attach").pause, Some(Pause::Whole));
        assert_eq!(config.exe, Path::new("app"));
        for words in
            [&["attach"][..], &["attach", "x"], &["attach", "1", "--pause", "no"], &["attach", "1", "--max-pause", "5"]]
        {
            assert_eq!(parse_words(words).expect_err("invalid").exit_code(), 2, "{words:?}");
        }
        assert_eq!(duration("1.5min"), Ok(Duration::from_secs(90)));
        assert!(duration("ms").is_err() && duration("0s").is_err() && duration("-1s").is_err());
    }

    #[test]
    fn captures_and_repetitions() {
        let job =
            |words: &[&str]| parse(std::iter::once("goref-fast").chain(words.iter().copied()).map(OsString::from));
        let words = ["capture", "17", "-o", "x.core.zst", "--every", "30s", "--count", "3"];
        let Ok(Job::Capture(capture, every, 3)) = job(&words) else { panic!("a capture") };
        assert_eq!((capture.pid, every), (17, Duration::from_secs(30)));
        assert!(!capture.go_only && !capture.with_data);
        let words = ["capture", "17", "-o", "x", "--go-only", "--with-data"];
        let Ok(Job::Capture(capture, _, 1)) = job(&words) else { panic!("a capture") };
        assert!(capture.go_only && capture.with_data);
        assert_eq!(numbered(&capture.output, 2), Path::new("x.2.core.zst"));
        assert_eq!(numbered(Path::new("a.b/.c/grf"), 1), Path::new("a.b/.c/grf.1"));
        assert_eq!(numbered(Path::new("-"), 1), Path::new("-"));
        assert_eq!(numbered(Path::new("/dev/null"), 1), Path::new("/dev/null"));
        assert!(matches!(job(&["attach", "17", "--every", "1s", "--count", "2"]), Ok(Job::Repeat(_, _, 2))));
        for words in [
            &["capture", "17"][..],
            &["capture", "17", "-o", "x", "--pause", "copy"],
            &["attach", "1", "--count", "2"],
            &["capture", "17", "-o", "x", "--with-data"],
        ] {
            assert_eq!(job(words).expect_err("invalid").exit_code(), 2, "{words:?}");
        }
    }

    #[test]
    fn wrong_usage_exits_with_2_and_help_with_0() {
        let wrong: [&[&str]; 9] = [
            &[],
            &["core"],
            &["core", "app"],
            &["core", "app", "core.1", "more"],
            &["core", "app", "core.1", "-q", "-v"],
            &["core", "app", "core.1", "--threads", "0"],
            &["core", "app", "core.1", "--max-depth", "0"],
            &["core", "app", "core.1", "--max-stacks", "many"],
            &["core", "app", "core.1", "-o", "x", "--stats", "x"],
        ];
        for words in wrong {
            let e = parse_words(words).expect_err("invalid");
            assert!(e.use_stderr(), "{words:?}");
            assert_eq!(e.exit_code(), 2, "{words:?}");
        }
        for words in [["--help", ""], ["core", "--help"], ["--version", ""]] {
            let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
            assert_eq!(parse_words(&words).expect_err("help").exit_code(), 0, "{words:?}");
        }
    }

    #[test]
    fn inputs_are_never_overwritten() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).expect("write");
            path.to_string_lossy().into_owned()
        };
        let (exe, core) = (path("exe"), path("core"));
        for words in [
            ["core", &exe, &core, "-o", &core],
            ["core", &exe, &core, "--stats", &exe],
            ["core", &exe, &exe, "-o", "x"],
        ] {
            assert_eq!(parse_words(&words).expect_err("refused").exit_code(), 2, "{words:?}");
        }
    }

    #[test]
    fn errors_carry_their_remedy() {
        let e = Error::new("cannot read x").cause("is\u{7} gone").remedy("take it again");
        assert_eq!(render_error(&e), "goref-fast: error: cannot read x: is\\u{7} gone\n  help: take it again\n");
        assert_eq!(render_error(&Error::new("bad")), "goref-fast: error: bad\n");
    }

    #[test]
    fn the_command_is_well_formed() {
        Args::command().debug_assert();
    }
}
