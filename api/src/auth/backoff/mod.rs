//! Guessing gets slower with every failure.
//!
//! Failed sign-ins are counted in the database, for all replicas, and after a few of them the next has to
//! wait: a second, two, four, up to some minutes. There is no lock, an hour without an attempt forgets
//! everything, and a refused attempt neither counts nor prolongs anything. Nothing but signing in waits:
//! sessions and API keys go on working.
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
//! between has counted one failure too many. What is tried is known by its hash alone, so a name that does not
//! exist is counted and refused like any other.

mod rule;
mod store;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use time::{Duration, OffsetDateTime};

use self::rule::Rule;
pub(crate) use self::store::forget_old;
use crate::http::{ApiError, ErrorCode};
use crate::net::neighbourhood;

const NAME_AND_NETWORK: Rule = Rule { free: 3, longest: Duration::minutes(5) };
const NAME: Rule = Rule { free: 20, longest: Duration::minutes(1) };

/// Networks stay familiar for this long after a sign-in.
const FAMILIAR: Duration = Duration::days(30);

type Key = [u8; 32];

/// An attempt that may go on. It has been counted as a failure; only [`Attempt::succeeded`] takes that back.
#[derive(Debug)]
#[must_use = "a success that is not told stays a failure"]
pub(crate) struct Attempt {
    here: Key,
    /// Absent when the network is familiar.
    anywhere: Option<Key>,
}

/// Lets an attempt to prove that the caller is this user go on, or not yet. `name` is whatever was sent.
///
/// # Errors
/// `sign_in_delayed` with the time to wait.
pub(crate) async fn admit(
    pool: &PgPool,
    name: &str,
    address: IpAddr,
    now: OffsetDateTime,
) -> Result<Attempt, ApiError> {
    let network = neighbourhood(address).to_string();
    let (here, anywhere) = (key(&["network", &network, name]), key(&["name", name]));
    let mut tx = pool.begin().await?;
    // Always in this order, or two attempts would wait for each other.
    let record = store::lock(&mut tx, &here, now).await?;
    let familiar = record.succeeded_at.is_some_and(|at| now - at < FAMILIAR);
    count(&mut tx, &NAME_AND_NETWORK, &here, record.tries, now).await?;
    if !familiar {
        let record = store::lock(&mut tx, &anywhere, now).await?;
        count(&mut tx, &NAME, &anywhere, record.tries, now).await?;
    }
    tx.commit().await?;
    Ok(Attempt { here, anywhere: (!familiar).then_some(anywhere) })
}

async fn count(
    conn: &mut PgConnection,
    rule: &Rule,
    key: &Key,
    tries: rule::Tries,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    match rule.attempt(tries, now) {
        Ok(tries) => Ok(store::update(conn, key, tries).await?),
        Err(wait) => {
            // Whole seconds, upwards: whoever waits so long is let in.
            let seconds = (wait.whole_milliseconds() + 999) / 1000;
            let refusal = ApiError::because(ErrorCode::SignInDelayed, "wait before you try this name again");
            Err(refusal.retry_after(u32::try_from(seconds).unwrap_or(u32::MAX)))
        }
    }
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
