//! Growing, jittered pauses between attempts.

use std::time::Duration;

/// Doubles from `base` to `cap`. Each pause is drawn from the upper half of its range, so that a thousand
/// agents which lost the same control plane do not return in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempts: 0 }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.attempts.min(16)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked: begin at `base` again.
    pub(crate) const fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over_after_a_success() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut backoff = Backoff::new(base, cap);
        for ceiling in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let ceiling = Duration::from_secs(ceiling);
            let pause = backoff.next();
            assert!(pause <= ceiling && pause >= ceiling / 2, "{pause:?} for {ceiling:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= base);
    }
}
