//! Time and new ids are parameters, so that tests decide what time it is.

use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use uuid::timestamp::context::ContextV7;
use uuid::{Timestamp, Uuid};

/// Tells the time in UTC, to the microsecond that PostgreSQL keeps.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> OffsetDateTime + Send + Sync>,
    /// Counts the ids of a millisecond.
    ids: Arc<Mutex<ContextV7>>,
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn system() -> Self {
        Self::from_fn(OffsetDateTime::now_utc)
    }

    /// A clock that says what the function says.
    pub fn from_fn(now: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), ids: Arc::new(Mutex::new(ContextV7::new())) }
    }

    pub fn now(&self) -> OffsetDateTime {
        let now = (self.now)();
        now.replace_nanosecond(now.microsecond() * 1000).unwrap_or(now)
    }

    /// A new UUID, version 7: sorts by the time at which it was made, also within a millisecond of one process.
    pub fn new_id<T: From<Uuid>>(&self) -> T {
        let now = (self.now)();
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        T::from(Uuid::new_v7(Timestamp::from_unix(&*ids, seconds, now.nanosecond())))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
