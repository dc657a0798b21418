//! The machine's time since its boot, which goes on while the machine sleeps.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Milliseconds of `CLOCK_BOOTTIME`. All processes of a machine agree on it until its next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Nothing when that is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Shared by all who ask.
pub type SharedBootClock = Arc<dyn BootClock>;

pub trait BootClock: Send + Sync + 'static {
    fn now(&self) -> Moment;
}

#[cfg(test)]
impl BootClock for crate::clock::ManualClock {
    /// The machine had started an hour before.
    fn now(&self) -> Moment {
        let since = crate::clock::Clock::now(self) - time::macros::datetime!(2030-01-01 00:00 UTC);
        Moment(0) + Duration::from_secs(3600) + since.try_into().unwrap()
    }
}

/// The kernel's.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelClock;

impl BootClock for KernelClock {
    fn now(&self) -> Moment {
        let time = clock_gettime(ClockId::Boottime);
        let whole = u64::try_from(time.tv_sec).unwrap_or_default().saturating_mul(1000);
        Moment(whole + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or_default())
    }
}
