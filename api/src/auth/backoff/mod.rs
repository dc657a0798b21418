//! Guessing gets slower with every failure.
//!
//! Failed attempts to prove to be a user (signing in, redeeming a one-time code, changing one's own password) are
//! counted in the database, for all replicas, and after a few of them the next has to wait: a second, two, four,
//! up to some minutes. There is no lock, an hour without an attempt forgets everything, and a refused attempt
//! neither counts nor prolongs anything. Nothing else waits: sessions and API keys go on working.
//!
//! Who would count by user name alone would let anybody keep a user out: one guess whenever the wait is over.
//! Who would count by address alone would let a thousand addresses guess at one name. So there are two counts:
//!
//! - **name and network** (an IPv4 address or a /64 of IPv6), strict: waits after 3 failures, up to 5 minutes.
//!   Only whoever sits in the same network can make a user wait for this.
//! - **name alone**, mild: waits after 20 failures, up to 1 minute. It bounds what many networks together may
//!   guess, to 1,440 passwords a day. Networks from which this user has signed in within 30 days are not held to
//!   it, so that not even that keeps a user out of where they usually are. From a new network, during such an
//!   attack, they may have to try more than once.
//!
//! An attempt is counted as a failure before the password is looked at, on locked rows, and taken back when it
//! succeeds. Guesses at the same time are therefore counted one after the other, and a process that dies in
//! between has counted one failure too many. Sign-ins at the same time take turns ([`Turns`]), so that right ones do not
//! wait for each other's failures. What is tried is known by its hash alone, so a name that does not
//! exist is counted and refused like any other.

mod rule;
mod store;
#[cfg(test)]
mod tests;
mod turns;

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use self::rule::Rule;
pub(crate) use self::store::forget_old;
pub(crate) use self::turns::Turn;
pub use self::turns::Turns;
use crate::http::{ApiError, ErrorCode};
use crate::net::neighbourhood;

const NAME_AND_NETWORK: Rule = Rule { free: 3, longest: Duration::minutes(5) };
const NAME: Rule = Rule { free: 20, longest: Duration::minutes(1) };

/// Networks stay familiar for this long after a sign-in.
const FAMILIAR: Duration = Duration::days(30);

type Key = [u8; 32];

/// Whether somebody may try to prove who they are.
#[derive(Debug)]
pub(crate) enum Admission {
    Open(Attempt),
    Delayed(Delay),
}

/// An attempt that may go on. It has been counted as a failure; only [`Attempt::succeeded`] and
/// [`Attempt::take_back`] change that.
#[derive(Debug)]
#[must_use = "a success that is not told stays a failure"]
pub(crate) struct Attempt {
    here: Key,
    /// Absent when the network is familiar.
    anywhere: Option<Key>,
}

/// An attempt that came too early.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delay {
    pub until: OffsetDateTime,
    /// Whether it is the first to come too early since the last one that was let in. That one alone is
    /// recorded, or whoever may not try could still fill the audit log.
    pub first: bool,
}

/// Lets an attempt to prove that the caller is this user go on, or not yet. `name` is whatever was sent. The
/// count is in the transaction: commit it before the password is looked at, and after a first [`Delay`].
pub(crate) async fn admit(
    conn: &mut PgConnection,
    name: &str,
    address: IpAddr,
    now: OffsetDateTime,
) -> Result<Admission, sqlx::Error> {
    let (here, anywhere) = (here(name, address), key(&["name", name]));
    // Always in this order, or two attempts would wait for each other.
    let record = store::lock(conn, &here, now).await?;
    let near = match NAME_AND_NETWORK.attempt(record.tries, now) {
        Ok(tries) => tries,
        Err(wait) => return refuse(conn, &here, &record, now, wait).await,
    };
    let familiar = record.succeeded_at.is_some_and(|at| now - at < FAMILIAR);
    if !familiar {
        let record = store::lock(conn, &anywhere, now).await?;
        match NAME.attempt(record.tries, now) {
            Ok(far) => store::update(conn, &anywhere, far).await?,
            Err(wait) => return refuse(conn, &anywhere, &record, now, wait).await,
        }
    }
    store::update(conn, &here, near).await?;
    Ok(Admission::Open(Attempt { here, anywhere: (!familiar).then_some(anywhere) }))
}

async fn refuse(
    conn: &mut PgConnection,
    key: &Key,
    record: &store::Record,
    now: OffsetDateTime,
    wait: Duration,
) -> Result<Admission, sqlx::Error> {
    let first = record.refused_at.is_none();
    if first {
        store::note_refusal(conn, key, now).await?;
    }
    Ok(Admission::Delayed(Delay { until: now + wait, first }))
}

impl Delay {
    /// The answer: `sign_in_delayed`.
    pub(crate) fn refusal(&self, now: OffsetDateTime) -> ApiError {
        delayed("too many attempts have failed for this name; try again", self.until, now)
    }
}

/// `sign_in_delayed`: says until when, and with `Retry-After` how long that is. Whole seconds, upwards: whoever
/// waits so long is let in.
pub(super) fn delayed(why: &str, until: OffsetDateTime, now: OffsetDateTime) -> ApiError {
    let seconds = ((until - now).whole_milliseconds() + 999) / 1000;
    let fraction = Duration::nanoseconds(until.nanosecond().into());
    let until = if fraction.is_zero() { until } else { until - fraction + Duration::SECOND };
    let refusal = match until.format(&Rfc3339) {
        Ok(time) => ApiError::because(ErrorCode::SignInDelayed, format!("{why} from {time} on")),
        Err(error) => ApiError::internal(error),
    };
    refusal.retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}

impl Attempt {
    /// It was the right user: in the transaction that lets them in.
    pub(crate) async fn succeeded(
        self,
        conn: &mut PgConnection,
        now: OffsetDateTime,
    ) -> Result<(), sqlx::Error> {
        store::clear(conn, &self.here, now).await?;
        match self.anywhere {
            Some(key) => store::take_back(conn, &key, now).await,
            None => Ok(()),
        }
    }

    /// It was no guess, and no success either.
    pub(crate) async fn take_back(
        self,
        conn: &mut PgConnection,
        now: OffsetDateTime,
    ) -> Result<(), sqlx::Error> {
        for key in [Some(self.here), self.anywhere].into_iter().flatten() {
            store::take_back(conn, &key, now).await?;
        }
        Ok(())
    }
}

/// Of a name and the network of an address.
fn here(name: &str, address: IpAddr) -> Key {
    key(&["network", &neighbourhood(address).to_string(), name])
}

/// A hash that no other list of parts has.
fn key(parts: &[&str]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
