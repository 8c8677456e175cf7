//! Command line: argv -> `Args` (as typed) -> [`Config`] (as meant), and the way back: messages and exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, Verbosity};
use crate::error::{Error, Result};
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
Take a core (the program goes on afterwards), analyze it, look at it:
  gcore -o core PID
  goref-fast core ./app core.PID
  go tool pprof -http=:5079 grf.out

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
}

#[derive(Debug, clap::Args)]
struct CoreArgs {
    /// The executable that ran; with debug information fields and local variables have names; may be compressed with zstd or gzip
    exe: PathBuf,

    /// Its core dump, from gcore or from the kernel; may be compressed with zstd or gzip
    core: PathBuf,

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

impl CoreArgs {
    /// Fills in defaults and refuses what cannot be meant.
    fn into_config(self) -> Result<Config, String> {
        if is_same(&self.exe, &self.core) {
            return Err(format!("EXE and CORE are the same file: {}", self.exe.display()));
        }
        // The result would replace what it was made from.
        for written in [Some(&self.output), self.stats.as_ref()].into_iter().flatten() {
            for read in [&self.exe, &self.core] {
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
            exe: self.exe,
            core: self.core,
            output: self.output,
            threads: self.threads.and_then(|n| NonZeroUsize::new(n.into())).unwrap_or(available),
            max_depth: self.max_depth,
            max_stacks: self.max_stacks as usize,
            fold: !self.no_fold,
            types: !self.no_types,
            stats: self.stats,
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

/// Parses the command line. The error says what to print and how to exit (`--help` is such an error, with status 0).
fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Config, clap::Error> {
    let Args { command: Command::Core(args) } = Args::try_parse_from(argv)?;
    args.into_config().map_err(|message| {
        let mut command = Args::command();
        command.build();
        let sub = command.find_subcommand_mut("core").expect("the subcommand exists");
        sub.error(ErrorKind::ValueValidation, message)
    })
}

/// The program: parses the command line, lets `run` do the work, prints and picks the exit status.
pub fn main(run: impl FnOnce(&Config, &Progress) -> Result<Outcome>) -> ExitCode {
    let config = match parse(std::env::args_os()) {
        Ok(config) => config,
        Err(e) => {
            // Nobody left to tell if this fails.
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let quiet = config.verbosity == Verbosity::Quiet;
    let progress = if quiet { Progress::silent() } else { Progress::new() };
    let outcome = run(&config, &progress);
    progress.finish();
    let mut stderr = io::stderr().lock();
    match outcome.and_then(|outcome| print_report(quiet, outcome)) {
        Ok(partial) => {
            for sentence in &partial {
                let _ = writeln!(stderr, "goref-fast: partial result: {}", printable(sentence));
            }
            if partial.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_PARTIAL) }
        }
        Err(e) => {
            let _ = write!(stderr, "{}", render_error(&e));
            ExitCode::from(EXIT_FAILED)
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
        parse(std::iter::once("goref-fast").chain(words.iter().copied()).map(OsString::from))
    }

    #[test]
    fn defaults() {
        let config = parse_words(&["core", "app", "core.1"]).expect("valid");
        assert_eq!(config.exe, Path::new("app"));
        assert_eq!(config.core, Path::new("core.1"));
        assert_eq!(config.output, Path::new("grf.out"));
        assert_eq!((config.max_depth, config.max_stacks), (256, 50_000));
        assert!(config.fold && config.types && config.stats.is_none() && config.tmpdir.is_none());
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
        assert_eq!(config.output, Path::new("p.out"));
        assert_eq!(config.verbosity, Verbosity::Verbose);
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
