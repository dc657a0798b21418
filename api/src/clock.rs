//! Time and new ids are parameters, so that tests decide what time it is.

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

/// Tells the time in UTC, to the microsecond that PostgreSQL keeps.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn system() -> Self {
        Self(Arc::new(OffsetDateTime::now_utc))
    }

    /// A clock that says what the function says.
    pub fn from_fn(now: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub fn now(&self) -> OffsetDateTime {
        let now = (self.0)();
        now.replace_nanosecond(now.microsecond() * 1000).unwrap_or(now)
    }

    /// A new UUID, version 7: sorts by the time at which it was made.
    pub fn new_id<T: From<Uuid>>(&self) -> T {
        let now = (self.0)();
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        T::from(Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond())))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
