//! The pipeline on a live process: what its files tell is read first, then the process is made to stand still, read and let go.

use std::cell::RefCell;

use super::opened::Opened;
use super::{model_and_walk_with, result};
use crate::address::AddrRange;
use crate::config::{Attach, Config};
use crate::error::Result;
use crate::live::{Frozen, Pause, Subject};
use crate::model::heap::Heap;
use crate::output::RunResult;
use crate::progress::Progress;
use crate::timing::Phases;
use crate::traverse::observe::Silent;

/// Analyzes a process that runs.
///
/// # Errors
/// It cannot be attached to, ends meanwhile, or the analysis fails. It goes on unharmed then.
pub(super) fn analyze(attach: &Attach, config: &Config, progress: &Progress, phases: &mut Phases) -> Result<RunResult> {
    let subject = Subject::inspect(attach.pid)?;
    let opened = Opened::open(&subject, &config.exe, &config.search, config.tmpdir.as_deref(), progress)?;
    let program = opened.program(progress, phases)?;
    progress.phase("stopping the process");
    let frozen = phases.time("stop", || Frozen::freeze(&subject, attach.pause, attach.max_pause, false))?;
    let pause = frozen.choice().pause;
    let copies = pause == Pause::Copy;
    let (process, debug) = opened.process(program, &subject, &frozen)?;
    let frozen = RefCell::new(Some(frozen));
    let stops = RefCell::new(None);
    let release = || {
        let Some(frozen) = frozen.take() else { return Ok(()) };
        stops.replace(Some(frozen.release()?));
        Ok(())
    };
    let modelled = |heap: &Heap| {
        if !copies {
            return Ok(());
        }
        // Of objects without pointers only masks are read, which `reflect` made for good: the process can be asked for them later.
        let unneeded: Vec<AddrRange> = heap.memory_without_pointers().map(|(range, _)| range).collect();
        process.image.copy(&unneeded)?;
        subject.check_alive()?;
        release()
    };
    let (model, walked, roots, _) =
        model_and_walk_with(debug, &process, &process.image, config, &Silent, &modelled, progress, phases).map_err(
            |e| match frozen.borrow().as_ref() {
                Some(frozen) => frozen.explain(e),
                None => e,
            },
        )?;
    let found = phases.time("totals", || result(&process, &process.image, &model, walked, &roots));
    if pause == Pause::Whole {
        subject.check_alive()?;
    }
    phases.time("release", release)?;
    opened.verify_unchanged()?;
    Ok(RunResult { stops: stops.take(), ..found })
}
