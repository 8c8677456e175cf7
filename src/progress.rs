//! Progress on standard error: the phase that runs, and objects per second. Only on a terminal, never with `-q`.

use std::time::Duration;

use crate::image::Watch;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A line that shows what is going on. All methods may be called from any thread and cost little; hot loops report sums.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shows progress if standard error is a terminal.
    #[must_use]
    pub fn new() -> Self {
        // Hidden by itself when standard error is no terminal; 5 Hz is enough to see that it lives.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar.set_style(ProgressStyle::default_spinner());
        Self { bar }
    }

    /// Shows nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// Begins a phase without a count.
    pub fn phase(&self, name: &'static str) {
        self.begin(name, "{spinner} {msg} {elapsed}");
        self.bar.unset_length();
    }

    /// Begins a phase that counts objects.
    ///
    /// * `expected`: how many there will be at most, 0 if unknown.
    pub fn counted_phase(&self, name: &'static str, expected: u64) {
        if expected == 0 {
            self.begin(name, "{spinner} {msg} {elapsed} {human_pos} objects, {rate}");
            self.bar.unset_length();
        } else {
            self.begin(name, "{spinner} {msg} {elapsed} {human_pos}/{human_len} objects, {rate}");
            self.bar.set_length(expected);
        }
    }

    /// Begins a phase that reads bytes.
    ///
    /// * `expected`: how many there will be, 0 if unknown.
    pub fn bytes_phase(&self, name: &'static str, expected: u64) {
        if expected == 0 {
            self.begin(name, "{spinner} {msg} {elapsed} {bytes}, {bytes_per_sec}");
            self.bar.unset_length();
        } else {
            self.begin(name, "{spinner} {msg} {elapsed} {bytes}/{total_bytes}, {bytes_per_sec}");
            self.bar.set_length(expected);
        }
    }

    /// Counts `n` more objects of the current phase.
    pub fn objects(&self, n: u64) {
        self.bar.inc(n);
    }

    /// Takes the line away, so that what is printed next stands alone.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn begin(&self, name: &'static str, template: &str) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.reset();
        self.bar.set_message(name);
        // The templates are constants of this file; a wrong one only costs its look.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        // `{per_sec}` has four digits after the point.
        self.bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
        }));
    }
}

impl Watch for Progress {
    fn begin(&self, step: &'static str, bytes: u64) {
        self.bytes_phase(step, bytes);
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
