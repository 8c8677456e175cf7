//! STAGE 6: what the user gets: the profile, the stats file and the report.
//!
//! In: a [`RunResult`], the value that the pipeline has when the walk is done. Out: files on disk and an [`Outcome`] with the
//! report's text and everything that makes the result partial, which decides the exit status. Usage:
//!
//! ```text
//! let outputs = Outputs::prepare(config)?;            // before the work: can the files be written at all?
//! ... the pipeline ...
//! let outcome = outputs.write_all(config, result)?;   // at the end
//! ```

mod books;
pub mod file;
pub mod memory;
pub mod pprof;
pub mod proto;
mod release;
pub mod report;
pub mod stats;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::aggregate::{Books, PathTree, Row, Totals, TypeTotal, heaviest_roots, heaviest_types, select_stacks};
use crate::config::{Config, Verbosity};
use crate::error::Result;
use crate::incident::Incidents;
use crate::live::Stops;
use crate::timing::Phases;

use file::Destination;
use memory::MemorySampler;
use pprof::ProfileSize;

/// Rows of each table of the report.
const TABLE_ROWS: usize = 15;

/// The dumped program, as far as the outputs name it.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// File name of the executable in the dumped process, without folder.
    pub exe_name: String,
    /// The file that its debug information is from, if that is not the executable. Only shown, not in the profile.
    pub debug_file: Option<String>,
    /// GNU build id in lower-case hex, if the executable has one (pprof compares it with that note and no other).
    pub build_id: Option<String>,
    /// `runtime.buildVersion`, such as `go1.26.6`.
    pub go_version: String,
    /// The executable's text mapping.
    pub mapping: TextMapping,
    /// `runtime.memstats.last_gc_unix`: nanoseconds since 1970, 0 if no collection ever ran.
    pub last_gc_unix_nanos: u64,
}

/// Where the executable's text lay in the dumped process.
#[derive(Copy, Clone, Debug, Default)]
pub struct TextMapping {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub limit: u64,
    /// File offset of the first address.
    pub offset: u64,
}

/// Numbers about the walk, for the stats file.
#[derive(Copy, Clone, Debug, Default)]
pub struct WalkStats {
    /// Levels of the breadth-first walk, over all strata.
    pub levels: u64,
    /// Candidates (non-nil pointer words that were looked up).
    pub candidates: u64,
    /// Path nodes, before `--max-stacks`.
    pub path_nodes: u64,
    /// Roots that were scanned conservatively, because their frame has no pointer map at its pc.
    pub conservative_roots: u64,
}

/// An object that only conservatively scanned words hold, with one such word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConservativeHold {
    /// Address of the word, or of the value that it is in; 0 for a register.
    pub slot: u64,
    /// Goroutine.
    pub goid: u64,
    /// Its frame: the call chain, outermost function first.
    pub frame: String,
    /// Address of the object's slot.
    pub object: u64,
    /// Bytes of the object's slot.
    pub bytes: u64,
}

/// Everything the outputs need, as the pipeline has it after the walk.
#[derive(Clone, Debug, Default)]
pub struct RunResult {
    /// All paths with what was counted on them.
    pub tree: PathTree,
    /// What was counted by type.
    pub types: Vec<TypeTotal>,
    /// The books.
    pub totals: Totals,
    /// What stands beside them.
    pub books: Books,
    /// The dumped program.
    pub target: Target,
    /// The walk.
    pub walk: WalkStats,
    /// Wall time of the phases so far; writing adds its own.
    pub phases: Phases,
    /// Soft errors of all stages.
    pub incidents: Incidents,
    /// See [`ConservativeHold`]; shown with `-v`.
    pub conservative_holds: Vec<ConservativeHold>,
    /// A sentence about what has no names, if the executable has no debug information.
    pub missing_names: Option<String>,
    /// Files of the process that hold a Go runtime of their own, which is not analyzed.
    pub other_runtimes: Vec<String>,
    /// How long a live process stood still.
    pub stops: Option<Stops>,
    /// Sentences about what is missing and how much. Each makes the result partial. What [`Totals`] shows (unread bytes, books
    /// that do not balance) is added here by [`Outputs::write_all`].
    pub partial: Vec<String>,
}

/// What is left to do for the caller: print, and exit with the right status.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The report for standard output, ends with a newline; empty if the profile itself went there.
    pub report: String,
    /// What makes the result partial; empty if nothing does.
    pub partial: Vec<String>,
}

/// Numbers that the report and the stats file show besides the [`RunResult`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    roots: Vec<Row>,
    types: Vec<Row>,
    stacks_before: u64,
    stacks_after: u64,
    other_stacks: u64,
    profile: ProfileSize,
    peak_private_bytes: Option<u64>,
    threads: usize,
    /// Where the profile went; `None` for standard output.
    path: Option<PathBuf>,
}

/// The places that the results go to.
#[derive(Debug)]
pub struct Outputs {
    profile: Destination,
    stats: Option<Destination>,
    sampler: Option<MemorySampler>,
}

impl Outputs {
    /// Checks that all outputs can be written, and starts to watch memory use if someone will ask for it.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn prepare(config: &Config) -> Result<Self> {
        let profile = Destination::prepare(&config.output)?;
        let stats = config.stats.as_deref().map(Destination::prepare).transpose()?;
        let watched = stats.is_some() || config.verbosity == Verbosity::Verbose;
        Ok(Self { profile, stats, sampler: watched.then(MemorySampler::start) })
    }

    /// Writes the profile and the stats file and composes the report.
    ///
    /// # Errors
    /// A file that cannot be written; the old one is then untouched.
    pub fn write_all(self, config: &Config, mut result: RunResult) -> Result<Outcome> {
        check_books(&mut result);
        let mut summary = Summary { threads: config.threads.get(), ..Summary::default() };
        summary.path = config_path(config, &self.profile);

        let mut phases = std::mem::take(&mut result.phases);
        phases.time("select stacks", || {
            // The tables come from the full tree: exact for every root, whatever is folded afterwards.
            summary.roots = heaviest_roots(&result.tree, TABLE_ROWS);
            summary.types = heaviest_types(&result.types, TABLE_ROWS);
            let selection = select_stacks(std::mem::take(&mut result.tree), config.max_stacks);
            summary.stacks_before = selection.stacks_before;
            summary.stacks_after = selection.stacks_after;
            summary.other_stacks = selection.other_stacks;
            result.tree = selection.tree;
        });
        phases.time("write profile", || {
            let comments = comments(&result);
            self.profile.write(|out| {
                summary.profile = pprof::write_profile(out, &result.tree, &result.target, &comments)?;
                Ok(())
            })
        })?;
        result.phases = phases;

        summary.peak_private_bytes = self.sampler.as_ref().and_then(MemorySampler::peak);
        if let Some(destination) = &self.stats {
            destination.write(|out| stats::write_stats(out, &result, &summary))?;
        }
        let to_stdout = |d: &Destination| *d == Destination::Stdout;
        let taken = to_stdout(&self.profile) || self.stats.as_ref().is_some_and(to_stdout);
        let report = if taken { String::new() } else { report::render(&result, &summary, config.verbosity) };
        Ok(Outcome { report, partial: result.partial })
    }
}

/// The path as the user wrote it, not as links resolve it.
fn config_path(config: &Config, destination: &Destination) -> Option<PathBuf> {
    destination.path().map(|_| config.output.clone())
}

/// Adds to `partial` what the numbers themselves say.
fn check_books(result: &mut RunResult) {
    let totals = &result.totals;
    if !totals.unread.is_zero() {
        result.partial.push(format!(
            "the core lacks {} bytes ({} slots) of in-use spans: what lies there and what only it refers to is not in the \
             profile; take the core again without a size limit (ulimit -c unlimited)",
            totals.unread.bytes, totals.unread.objects
        ));
    }
    if !totals.balanced() {
        let (all, parts) = (totals.heap_in_use, totals.explained());
        result.partial.push(format!(
            "the books do not balance by {} bytes and {} slots: heap in use is {} bytes ({} slots), its parts add up to {} bytes \
             ({} slots)",
            i128::from(parts.bytes) - i128::from(all.bytes),
            i128::from(parts.objects) - i128::from(all.objects),
            all.bytes,
            all.objects,
            parts.bytes,
            parts.objects
        ));
    }
    let (samples, reachable) = (result.tree.total(), totals.reachable());
    if samples != reachable {
        result.partial.push(format!(
            "the books do not balance by {} bytes and {} objects: the profile's samples add up to {} bytes ({} objects), reachable \
             is {} bytes ({} objects)",
            i128::from(samples.bytes) - i128::from(reachable.bytes),
            i128::from(samples.objects) - i128::from(reachable.objects),
            samples.bytes,
            samples.objects,
            reachable.bytes,
            reachable.objects
        ));
    }
    // Two stages may say the same.
    let mut seen = BTreeSet::new();
    result.partial.retain(|sentence| seen.insert(sentence.clone()));
}

/// The profile's comments: `go tool pprof -comments` prints them.
fn comments(result: &RunResult) -> Vec<String> {
    let mut comments = vec![result.totals.to_string(), concat!("goref-fast ", env!("CARGO_PKG_VERSION")).to_owned()];
    comments.extend(result.partial.iter().map(|sentence| format!("partial: {sentence}")));
    comments
}

#[cfg(test)]
mod tests;
