//! Command line: argv -> [`Config`] or [`Capture`] (`arguments`), and the way back: messages and exit status.

mod arguments;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::{Capture, Config, Verbosity};
use crate::error::{Error, Result};
use crate::live::guard;
use crate::output::Outcome;
use crate::output::file::ignore_broken_pipe;
use crate::output::report::printable;
use crate::progress::Progress;
use arguments::{Job, parse};

/// Cannot do it.
const EXIT_FAILED: u8 = 1;
/// Wrong usage.
const EXIT_USAGE: u8 = 2;
/// Done, but the result is partial or its books do not balance.
const EXIT_PARTIAL: u8 = 3;

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
