//! The pipeline on a live process: what the executable tells is read first, then the process is made to stand still, read and let go.

use std::cell::RefCell;

use super::{debug_information, model_and_walk_with, result};
use crate::config::{Attach, Config};
use crate::error::Result;
use crate::image::executable::Executable;
use crate::image::{Input, Process, Separate, check_same_program};
use crate::incident::Incidents;
use crate::live::{Frozen, Pause, Subject};
use crate::model::heap::Heap;
use crate::output::RunResult;
use crate::progress::Progress;
use crate::timing::Phases;
use crate::traverse::observe::Silent;

/// Slots without pointers of this size or more are not copied: no mask is that long, except of types of 128 KiB and more.
const LEFT_OUT: u64 = 2048;

/// Analyzes a process that runs.
///
/// # Errors
/// It cannot be attached to, ends meanwhile, or the analysis fails. It goes on unharmed then.
pub(super) fn analyze(attach: &Attach, config: &Config, progress: &Progress, phases: &mut Phases) -> Result<RunResult> {
    let subject = Subject::inspect(attach.pid)?;
    let what = format!("process {}", attach.pid);
    progress.phase("opening the executable");
    let tmpdir = config.tmpdir.as_deref();
    // The file that it runs, wherever that is now.
    let running = Input::executable(&subject.exe, tmpdir, progress)?.known_as(&subject.exe_path);
    let given = match config.exe.as_os_str().is_empty() {
        true => None,
        false => Some(Input::executable(&config.exe, tmpdir, progress)?),
    };
    let exe = given.as_ref().unwrap_or(&running);
    let executable = Executable::parse(exe.data(), exe.path())?;
    if given.is_some() {
        check_same_program(&executable, &Executable::parse(running.data(), running.path())?, &what)?;
    }
    let mut incidents = Incidents::default();
    let separate = Separate::find(&executable, None, &config.search, tmpdir, progress)?;
    let executable = separate.join(executable, &mut incidents)?;
    let debug = debug_information(&executable, &[], progress, phases)?;
    progress.phase("stopping the process");
    let frozen = phases.time("stop", || Frozen::freeze(&subject, attach.pause, attach.max_pause, false))?;
    let auxv = frozen.auxv()?;
    let pause = frozen.choice().pause;
    let copies = pause == Pause::Copy;
    let mut process = Process::assemble(executable, frozen.image(), frozen.threads()?, frozen.files(), auxv, &what)?;
    process.incidents.merge(&incidents);
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
        process.image.copy(&heap.memory_without_pointers(LEFT_OUT).collect::<Vec<_>>());
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
    exe.verify_unchanged()?;
    Ok(RunResult { stops: stops.take(), ..found })
}
