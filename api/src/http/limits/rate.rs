//! A rate for each of many callers: a bucket of so many requests, refilled at so many a second (governor's
//! GCRA).

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use governor::clock::{Clock, Reference as _};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

/// Time that only goes forward. The clock of the machine may be set back, and would then lock everybody out
/// until it has caught up.
#[derive(Clone)]
pub struct Ticks(Arc<dyn Fn() -> Nanos + Send + Sync>);

impl Ticks {
    /// The time since now.
    pub fn monotonic() -> Self {
        let start = Instant::now();
        Self(Arc::new(move || start.elapsed().into()))
    }

    /// Seconds that a test counts.
    #[cfg(test)]
    pub(crate) fn of_seconds(seconds: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || std::time::Duration::from_secs(seconds()).into()))
    }
}

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        (self.0)()
    }
}

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, Ticks, StateInformationMiddleware>;

/// One limit, counted for each key on its own.
pub(super) struct Rate<K: Hash + Eq + Clone> {
    name: &'static str,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    limiter: Limiter<K>,
    ticks: Ticks,
}

/// Where a key stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    name: &'static str,
    quota: u32,
    window: u32,
    remaining: u32,
    /// Seconds until the bucket is full or, when it is empty, until there is a request in it.
    pub reset: u32,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    /// None when the rate is 0.
    pub(super) fn new(name: &'static str, per_second: u32, burst: u32, ticks: &Ticks) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = Limiter::new(quota, DashMapStateStore::default(), ticks.clone());
        Some(Self { name, per_second, burst, limiter, ticks: ticks.clone() })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    pub(super) fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// Takes one request out of the key's bucket; an error when it is empty.
    pub(super) fn check(&self, key: &K) -> Result<Standing, Standing> {
        match self.limiter.check_key(key) {
            Ok(snapshot) => Ok(self.standing(&snapshot)),
            Err(refusal) => {
                let wait = refusal.earliest_possible().duration_since(self.ticks.now());
                let reset = wait.as_u64().div_ceil(1_000_000_000).clamp(1, u64::from(u32::MAX));
                Err(Standing { remaining: 0, reset: reset as u32, ..self.full() })
            }
        }
    }

    fn standing(&self, snapshot: &StateSnapshot) -> Standing {
        let remaining = snapshot.remaining_burst_capacity();
        let missing = self.burst.get().saturating_sub(remaining);
        Standing { remaining, reset: missing.div_ceil(self.per_second.get()), ..self.full() }
    }

    fn full(&self) -> Standing {
        let quota = self.burst.get();
        let window = quota.div_ceil(self.per_second.get());
        Standing { name: self.name, quota, window, remaining: quota, reset: 0 }
    }

    /// Drops the buckets that are full again.
    pub(super) fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl Standing {
    /// An item of `RateLimit-Policy`: so many requests in so many seconds.
    pub(super) fn policy(&self) -> String {
        format!("\"{}\";q={};w={}", self.name, self.quota, self.window)
    }

    /// An item of `RateLimit`.
    pub(super) fn left(&self) -> String {
        format!("\"{}\";r={};t={}", self.name, self.remaining, self.reset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    fn rate(per_second: u32, burst: u32) -> (Rate<u8>, Arc<AtomicU64>) {
        let seconds = Arc::new(AtomicU64::new(0));
        let ticks = Ticks::of_seconds({
            let seconds = Arc::clone(&seconds);
            move || seconds.load(SeqCst)
        });
        (Rate::new("test", per_second, burst, &ticks).unwrap(), seconds)
    }

    #[test]
    fn a_bucket_empties_and_refills() {
        let (rate, seconds) = rate(2, 5);
        let standings: Vec<_> = (0..5).map(|_| rate.check(&1).unwrap()).collect();
        assert_eq!(standings.iter().map(|s| s.remaining).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
        assert_eq!(standings.iter().map(|s| s.reset).collect::<Vec<_>>(), [1, 1, 2, 2, 3]);
        assert_eq!(standings[0].policy(), r#""test";q=5;w=3"#);
        let refused = rate.check(&1).unwrap_err();
        assert_eq!(refused.left(), r#""test";r=0;t=1"#);
        assert_eq!(rate.check(&2).unwrap().remaining, 4, "another key has a bucket of its own");
        // A refusal costs nothing.
        for _ in 0..100 {
            rate.check(&1).unwrap_err();
        }
        seconds.store(1, SeqCst);
        assert_eq!((rate.check(&1).is_ok(), rate.check(&1).is_ok()), (true, true));
        rate.check(&1).unwrap_err();
    }

    #[test]
    fn full_buckets_are_forgotten_and_others_kept() {
        let (rate, seconds) = rate(1, 10);
        for key in 0..100 {
            rate.check(&key).unwrap();
        }
        for _ in 0..9 {
            rate.check(&7).unwrap();
        }
        rate.forget_idle();
        assert_eq!(rate.limiter.len(), 100);
        seconds.store(2, SeqCst);
        rate.forget_idle();
        assert_eq!(rate.limiter.len(), 1);
        assert_eq!(rate.check(&7).unwrap().remaining, 1);
        seconds.store(60, SeqCst);
        rate.forget_idle();
        assert!(rate.limiter.is_empty());
    }

    #[test]
    fn nothing_is_limited_at_rate_0() {
        assert!(Rate::<u8>::new("test", 0, 5, &Ticks::monotonic()).is_none());
    }
}
