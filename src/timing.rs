//! Wall time per phase, for `--stats`, `-v` and the benches.

use std::time::{Duration, Instant};

/// Phases in the order in which they ended first, each with its summed wall time.
#[derive(Clone, Debug, Default)]
pub struct Phases {
    phases: Vec<(&'static str, Duration)>,
}

impl Phases {
    /// Runs `f` and adds its wall time to the phase `name`.
    pub fn time<T>(&mut self, name: &'static str, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = f();
        self.add(name, start.elapsed());
        result
    }

    /// Adds `elapsed` to the phase `name`.
    pub fn add(&mut self, name: &'static str, elapsed: Duration) {
        match self.phases.iter_mut().find(|(n, _)| *n == name) {
            Some((_, sum)) => *sum += elapsed,
            None => self.phases.push((name, elapsed)),
        }
    }

    /// All phases so far.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        self.phases.iter().copied()
    }
}
