//! How many connections may be open, in all and from one neighbour.
//!
//! A connection costs a file descriptor and some memory, and nobody has signed in yet. Whoever has too many
//! is refused further ones; the others do not notice.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::TrustedProxies;
use super::proxies::neighbourhood;

/// Who is refused may try a thousand times a second.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// Options of `cumulo-api serve`. They count for each of the two listeners on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct ConnectionLimits {
    /// Open connections.
    #[arg(long, env = "CUMULO_MAX_CONNECTIONS", default_value_t = 4096, value_parser = at_least_one)]
    pub max_connections: usize,
    /// Open connections of one address, or of one /64 of IPv6. Trusted proxies may have any number.
    #[arg(long, env = "CUMULO_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 256, value_parser = at_least_one)]
    pub max_connections_per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { max_connections: 4096, max_connections_per_address: 256 }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a number from 1".to_owned())
}

/// The slots of a listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limits: ConnectionLimits,
    proxies: TrustedProxies,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_neighbour: HashMap<IpAddr, usize>,
    /// When the log last spoke of one that was refused.
    told: Option<Instant>,
}

/// Room for one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    neighbour: Option<IpAddr>,
}

impl Slots {
    pub(super) fn new(limits: ConnectionLimits, proxies: TrustedProxies) -> Self {
        Self(Arc::new(Shared { limits, proxies, taken: Mutex::default() }))
    }

    /// Room for a connection from this address, if there is any.
    pub(super) fn take(&self, address: IpAddr) -> Option<Slot> {
        let Shared { limits, proxies, taken } = &*self.0;
        // A proxy brings the connections of many.
        let neighbour = (!proxies.contains(address.to_canonical())).then(|| neighbourhood(address));
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_neighbour = neighbour.and_then(|n| taken.by_neighbour.get(&n)).copied().unwrap_or(0);
        let reason = if taken.all >= limits.max_connections {
            "all"
        } else if of_neighbour >= limits.max_connections_per_address {
            "address"
        } else {
            taken.all += 1;
            if let Some(neighbour) = neighbour {
                taken.by_neighbour.insert(neighbour, of_neighbour + 1);
            }
            return Some(Slot { slots: self.clone(), neighbour });
        };
        let is_news = taken.told.is_none_or(|told| told.elapsed() > BETWEEN_WARNINGS);
        if is_news {
            taken.told = Some(Instant::now());
        }
        drop(taken);
        metrics::counter!("cumulo_connections_refused_total", "limit" => reason).increment(1);
        if is_news {
            tracing::warn!(%address, limit = reason, "refused one connection too many; others are not told for a minute");
        }
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        let Some(neighbour) = self.neighbour else { return };
        if let Some(count) = taken.by_neighbour.get_mut(&neighbour) {
            *count -= 1;
            if *count == 0 {
                taken.by_neighbour.remove(&neighbour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_run_out_and_come_back() {
        let limits = ConnectionLimits { max_connections: 5, max_connections_per_address: 2 };
        let slots = Slots::new(limits, "192.0.2.1".parse().unwrap());
        let take = |address: &str| slots.take(address.parse().unwrap());
        let first = take("2001:db8::1").unwrap();
        let _second = take("2001:db8::2").unwrap();
        assert!(take("2001:db8::3").is_none(), "one /64 is one neighbour");
        drop(first);
        let _third = take("2001:db8::3").unwrap();
        // A proxy is bound by the sum alone.
        let proxied: Vec<_> = (0..3).map(|_| take("::ffff:192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").is_none());
        assert!(take("198.51.100.1").is_none());
        drop(proxied);
        assert!(take("198.51.100.1").is_some());
        let left = slots.0.taken.lock().unwrap();
        assert_eq!((left.all, left.by_neighbour.len()), (2, 1), "{left:?}");
    }
}
