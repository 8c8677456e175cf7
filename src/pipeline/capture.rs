//! Writes a core of a process that runs, from the same snapshot that an analysis reads.

use crate::config::Capture;
use crate::error::Result;
use crate::live::{Frozen, Subject};
use crate::output::file::Destination;
use crate::output::{Outcome, report};
use crate::progress::Progress;

/// Captures a process.
///
/// # Errors
/// It cannot be attached to, or the file cannot be written. It goes on unharmed then.
pub fn capture(config: &Capture, progress: &Progress) -> Result<Outcome> {
    let destination = Destination::prepare(&config.output)?;
    let subject = Subject::inspect(config.pid)?;
    progress.phase("stopping the process");
    let frozen = Frozen::freeze(&subject, config.pause, config.max_pause, true)?;
    progress.phase("writing the core");
    let auxv = frozen.auxv()?;
    let packed = config.output.extension().is_some_and(|ext| ext == "zst");
    destination.write_file(|file| frozen.write_core(&auxv, file, packed))?;
    let stops = frozen.release()?;
    Ok(Outcome { report: report::capture(&stops, &subject.exe_path, &config.output), partial: Vec::new() })
}
