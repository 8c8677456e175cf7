//! The stats file of `--stats`: one JSON object with stable keys, read by benchmark jobs.
//!
//! The meaning of each key is on the field of `Stats` with that name. Keys are added, never renamed or given another
//! meaning; `schema` grows when one must be removed.

use std::io::{self, Write};
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{RunResult, Summary};
use crate::aggregate::{Amount, Beside, Check, ClassTotals, Garbage, GarbageClass, Queues, Totals, TypeTotal};
use crate::incident::Incidents;
use crate::live::Stops;
use crate::timing::Phases;

/// The whole file.
#[derive(Serialize)]
struct Stats<'a> {
    /// Version of this list of keys: 1.
    schema: u32,
    /// Version of this program.
    version: &'static str,
    /// `runtime.buildVersion` of the dumped program.
    go_version: &'a str,
    /// Worker threads (`--threads`).
    threads: usize,
    /// Wall time by phase, in the order of the pipeline. Phases do not overlap.
    phase_seconds: PhaseSeconds<'a>,
    /// Sum of `phase_seconds`.
    total_seconds: f64,
    /// Reachable objects.
    live_objects: u64,
    /// Their slot bytes.
    live_bytes: u64,
    /// Levels of the walk, over all strata.
    levels: u64,
    /// Pointer words that were looked up.
    candidates: u64,
    /// Path nodes before `--max-stacks`.
    path_nodes: u64,
    /// Stacks before `--max-stacks`.
    stacks_before: u64,
    /// Stacks after it, `(other)` not counted.
    stacks_after: u64,
    /// Stacks that end in `(other)`.
    other_stacks: u64,
    /// Samples in the profile: `stacks_after + other_stacks`.
    profile_samples: u64,
    /// Distinct frames in the profile.
    profile_locations: u64,
    /// Size of the profile before compression.
    profile_raw_bytes: u64,
    /// Highest `RssAnon + VmSwap` of this process, sampled every 20 ms: private pages, so without the mapped core (which is
    /// page cache) and without an unpacked copy of it in `--tmpdir`. `null` if the system does not tell.
    peak_private_bytes: Option<u64>,
    /// Roots scanned conservatively.
    conservative_roots: u64,
    /// The books.
    totals: TotalsOut,
    /// The same by span class; classes without spans are left out.
    span_classes: &'a [ClassTotals],
    /// Bytes outside of the heap in use.
    beside_heap: &'a Beside,
    /// The runtime's own counters against the spans.
    runtime_counters: Vec<CheckOut<'a>>,
    /// What the unreachable objects are.
    garbage: GarbageOut<'a>,
    /// What finalizers and cleanups hold, and who runs them.
    finalizers: &'a Queues,
    /// How a live process was stopped, and for how long; `null` for a core.
    pause: Option<PauseOut<'a>>,
    /// Soft errors by cause.
    incidents: IncidentCounts<'a>,
    /// Sentences that say what is missing; empty means exit status 0.
    partial: &'a [String],
}

/// `heap_in_use = reachable + unreachable + free_slots + span_overhead_bytes + unread`.
#[derive(Serialize)]
struct TotalsOut {
    /// Pages and slots of all in-use spans.
    heap_in_use: Amount,
    /// What the walk reached: `typed + sub_objects`.
    reachable: Amount,
    /// Reached with a known path of types.
    typed: Amount,
    /// Reached only through pointers that no type explains.
    sub_objects: Amount,
    /// Allocated, not reached.
    unreachable: Amount,
    /// Not allocated.
    free_slots: Amount,
    /// In-use pages that are no slot.
    span_overhead_bytes: u64,
    /// In in-use spans, but not in the core.
    unread: Amount,
    /// The part of `reachable` that only conservatively scanned words hold; no term of the sum.
    conservative: Amount,
    /// Whether the equation holds in bytes and slots.
    balanced: bool,
}

/// `fork`: the stop of all threads that made the snapshot, then the stop of one thread that reaped it.
#[derive(Serialize)]
struct PauseOut<'a> {
    /// `fork`, `copy` or `whole`.
    mode: &'static str,
    /// Why this one.
    why: &'a str,
    /// Each stop, in order.
    stops: Vec<StopOut>,
}

#[derive(Serialize)]
struct StopOut {
    /// `snapshot` and `reap`, or `hold`.
    what: &'static str,
    seconds: f64,
}

impl<'a> From<&'a Stops> for PauseOut<'a> {
    fn from(stops: &'a Stops) -> Self {
        let stop = |(what, stopped): &(&'static str, Duration)| StopOut { what, seconds: seconds(*stopped) };
        Self { mode: stops.choice.pause.name(), why: &stops.choice.why, stops: stops.stops.iter().map(stop).collect() }
    }
}

/// A counter with its difference.
#[derive(Serialize)]
struct CheckOut<'a> {
    #[serde(flatten)]
    check: &'a Check,
    /// `runtime - spans`.
    difference: i64,
}

impl<'a> From<&'a Check> for CheckOut<'a> {
    fn from(check: &'a Check) -> Self {
        let bound = |d: i128| d.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Self { check, difference: bound(check.difference()) }
    }
}

/// Shares and kinds of `totals.unreachable`.
#[derive(Serialize)]
struct GarbageOut<'a> {
    /// Found dead by the last collection, not swept yet.
    unswept: Amount,
    /// With a finalizer, which the next collection queues.
    finalizable: Amount,
    /// With a cleanup, which the next collection queues.
    with_cleanup: Amount,
    /// By recorded type, heaviest first.
    types: Vec<TypeOut<'a>>,
    /// Without a recorded type: by slot size (0: large objects) and `noscan`, heaviest first.
    classes: &'a [GarbageClass],
}

#[derive(Serialize)]
struct TypeOut<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    objects: u64,
    bytes: u64,
}

impl<'a> From<&'a Garbage> for GarbageOut<'a> {
    fn from(g: &'a Garbage) -> Self {
        let ty = |t: &'a TypeTotal| TypeOut { name: &t.name, objects: t.objects, bytes: t.bytes };
        Self {
            unswept: g.unswept,
            finalizable: g.finalizable,
            with_cleanup: g.with_cleanup,
            types: g.types.iter().map(ty).collect(),
            classes: &g.classes,
        }
    }
}

impl From<&Totals> for TotalsOut {
    fn from(t: &Totals) -> Self {
        Self {
            heap_in_use: t.heap_in_use,
            reachable: t.reachable(),
            typed: t.typed,
            sub_objects: t.sub_objects,
            unreachable: t.unreachable,
            free_slots: t.free_slots,
            span_overhead_bytes: t.span_overhead_bytes,
            unread: t.unread,
            conservative: t.conservative,
            balanced: t.balanced(),
        }
    }
}

/// An object with one key per phase, in order.
struct PhaseSeconds<'a>(&'a Phases);

impl Serialize for PhaseSeconds<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, elapsed) in self.0.iter() {
            map.serialize_entry(name, &seconds(elapsed))?;
        }
        map.end()
    }
}

/// An object with one key per cause, in alphabetical order.
struct IncidentCounts<'a>(&'a Incidents);

impl Serialize for IncidentCounts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// Whole microseconds: more digits are noise.
fn seconds(elapsed: Duration) -> f64 {
    elapsed.as_micros() as f64 / 1e6
}

/// Writes the stats file.
///
/// # Errors
/// Whatever `out` fails with.
pub(crate) fn write_stats(mut out: impl Write, result: &RunResult, summary: &Summary) -> io::Result<()> {
    let live = result.totals.reachable();
    let stats = Stats {
        schema: 1,
        version: env!("CARGO_PKG_VERSION"),
        go_version: &result.target.go_version,
        threads: summary.threads,
        phase_seconds: PhaseSeconds(&result.phases),
        total_seconds: seconds(result.phases.iter().map(|(_, elapsed)| elapsed).sum()),
        live_objects: live.objects,
        live_bytes: live.bytes,
        levels: result.walk.levels,
        candidates: result.walk.candidates,
        path_nodes: result.walk.path_nodes,
        stacks_before: summary.stacks_before,
        stacks_after: summary.stacks_after,
        other_stacks: summary.other_stacks,
        profile_samples: summary.profile.samples,
        profile_locations: summary.profile.locations,
        profile_raw_bytes: summary.profile.raw_bytes,
        peak_private_bytes: summary.peak_private_bytes,
        conservative_roots: result.walk.conservative_roots,
        totals: TotalsOut::from(&result.totals),
        span_classes: &result.books.classes,
        beside_heap: &result.books.beside,
        runtime_counters: result.books.checks.iter().map(CheckOut::from).collect(),
        garbage: GarbageOut::from(&result.books.garbage),
        finalizers: &result.books.queues,
        pause: result.stops.as_ref().map(PauseOut::from),
        incidents: IncidentCounts(&result.incidents),
        partial: &result.partial,
    };
    serde_json::to_writer_pretty(&mut out, &stats).map_err(io::Error::from)?;
    out.write_all(b"\n")
}
