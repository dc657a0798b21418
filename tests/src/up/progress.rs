//! Calm output: one line for each step, with what became of it and how long it took.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

pub(crate) struct Progress {
    started: Instant,
}

/// A step that is under way.
pub(crate) struct Step {
    name: &'static str,
    started: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// On a terminal the line shows at once; elsewhere only when the step is done.
    pub(crate) fn step(&self, name: &'static str) -> Step {
        if stdout().is_terminal() {
            let _ = write!(stdout(), "  {name:<12} …").and_then(|()| stdout().flush());
        }
        Step { name, started: Instant::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Step {
    pub(crate) fn done(self, outcome: impl std::fmt::Display) {
        let back = if stdout().is_terminal() { "\r" } else { "" };
        let outcome = outcome.to_string();
        say!("{back}  {:<12} {outcome:<56} {:>6.1} s", self.name, self.started.elapsed().as_secs_f32());
    }
}
