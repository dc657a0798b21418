//! Time as a parameter: the system's, or a hand-wound one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

/// Shared by everything in the agent that asks for the time.
pub type SharedClock = Arc<dyn Clock>;

/// The longest single sleep. Deadlines are wall-clock times, because they outlive a reboot; waking at
/// least this often bounds the harm of a clock that jumps.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

#[async_trait]
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> OffsetDateTime;

    /// Returns at `until`, or earlier: look at the time again.
    async fn sleep_until(&self, until: OffsetDateTime);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    async fn sleep_until(&self, until: OffsetDateTime) {
        // A negative difference does not convert: the time has come already.
        let left = Duration::try_from(until - self.now()).unwrap_or_default();
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

#[cfg(test)]
pub use manual::ManualClock;

#[cfg(test)]
mod manual {
    use super::*;
    use time::macros::datetime;
    use tokio::sync::watch;

    /// Stands still until it is wound.
    #[derive(Debug)]
    pub struct ManualClock(watch::Sender<OffsetDateTime>);

    impl Default for ManualClock {
        fn default() -> Self {
            Self(watch::Sender::new(datetime!(2030-01-01 00:00 UTC)))
        }
    }

    impl ManualClock {
        pub fn advance(&self, by: Duration) {
            self.0.send_modify(|now| *now += by);
        }

        /// Goes to `time`, never backwards.
        pub fn advance_to(&self, time: OffsetDateTime) {
            self.0.send_modify(|now| *now = (*now).max(time));
        }
    }

    #[async_trait]
    impl Clock for ManualClock {
        fn now(&self) -> OffsetDateTime {
            *self.0.borrow()
        }

        async fn sleep_until(&self, until: OffsetDateTime) {
            // The sender lives in `self`, so the channel cannot be closed.
            let _ = self.0.subscribe().wait_for(|now| *now >= until).await;
        }
    }
}
