//! Writes a core of a process that runs, from the same snapshot that an analysis reads.
//!
//! With `--go-only` the snapshot is analyzed first, by an image that notes what is read. Left out of the core is what a core of the same
//! state can do without: free pages of the heap, objects without pointers that the analysis did not ask for, and the heap of C.

use super::opened::{Opened, Program};
use super::{model_and_walk_with, result};
use crate::address::AddrRange;
use crate::config::{Capture, Config};
use crate::error::Result;
use crate::image::recording::{RecordingImage, Watched};
use crate::live::{Frozen, Subject};
use crate::model::heap::Heap;
use crate::output::file::Destination;
use crate::output::{Outcome, report};
use crate::progress::Progress;
use crate::timing::Phases;
use crate::traverse::observe::Silent;

/// Memory outside of Go's heap is left out or not by pages.
const PAGE: u64 = 4096;

/// Captures a process.
///
/// # Errors
/// It cannot be attached to, is no Go program though only Go's memory is wanted, or the file cannot be written. It goes on unharmed
/// then.
pub fn capture(config: &Capture, progress: &Progress) -> Result<Outcome> {
    let destination = Destination::prepare(&config.output)?;
    let subject = Subject::inspect(config.pid)?;
    let mut phases = Phases::default();
    let analysis = config.analysis();
    let opened = match config.go_only {
        true => Some(Opened::open(&subject, &analysis.exe, &analysis.search, None, progress)?),
        false => None,
    };
    let program = opened.as_ref().map(|opened| opened.program(progress, &mut phases)).transpose()?;
    progress.phase("stopping the process");
    let frozen = Frozen::freeze(&subject, config.pause, config.max_pause, true)?;
    let auxv = frozen.auxv()?;
    let left_out = match (&opened, program) {
        (Some(opened), Some(program)) => unread(config, opened, program, &subject, &frozen, progress, &mut phases)?,
        _ => Vec::new(),
    };
    progress.phase("writing the core");
    let packed = config.output.extension().is_some_and(|ext| ext == "zst");
    destination.write_file(|file| frozen.write_core(&auxv, &left_out, file, packed))?;
    let stops = frozen.release()?;
    let left_out = opened.is_some().then(|| left_out.iter().fold(0u64, |sum, range| sum.saturating_add(range.len)));
    Ok(Outcome { report: report::capture(&stops, &subject.exe_path, &config.output, left_out), partial: Vec::new() })
}

/// Memory that no analysis needs, in address order.
fn unread(
    config: &Capture,
    opened: &Opened,
    program: Program<'_>,
    subject: &Subject,
    frozen: &Frozen,
    progress: &Progress,
    phases: &mut Phases,
) -> Result<Vec<AddrRange>> {
    let (process, debug) = opened.process(program, subject, frozen)?;
    let image = RecordingImage::new(&process.image);
    let watch = |heap: &Heap| {
        image.watch(watched(heap, frozen, config.with_data));
        Ok(())
    };
    let analysis: Config = config.analysis();
    let (model, walked, roots, _) =
        model_and_walk_with(debug, &process, &image, &analysis, &Silent, &watch, progress, phases)
            .map_err(|e| frozen.explain(e))?;
    let _ = result(&process, &image, &model, walked, &roots);
    Ok(image.unread())
}

/// What may be left out if it is not read.
fn watched(heap: &Heap, frozen: &Frozen, with_data: bool) -> Vec<Watched> {
    let mut watched: Vec<Watched> = heap.free_memory().into_iter().map(|range| Watched { range, unit: PAGE }).collect();
    if !with_data {
        watched.extend(heap.memory_without_pointers().map(|(range, unit)| Watched { range, unit: unit.max(1) }));
        // What malloc(3) has its first memory from.
        let of_c = frozen.mappings().iter().filter(|m| m.path == "[heap]");
        watched.extend(of_c.map(|m| Watched { range: m.range, unit: PAGE }));
    }
    watched.sort_unstable_by_key(|w| w.range.start);
    watched
}
