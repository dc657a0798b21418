//! The servers of one database: a primary and its standbys, any of which may be the primary next.
//!
//! Which one is, PostgreSQL says itself. Whoever promotes a standby, by hand or by a program such as Patroni, tells nobody
//! here: connections to the old primary end, and the next ones go to the server that is not in recovery.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Error};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{OpenError, Pools};

/// How often the primary is asked whether it still is.
const LOOK: Duration = Duration::from_millis(500);
/// A server that takes longer for an answer is not there.
const ANSWER: Duration = Duration::from_secs(2);

/// At least one.
#[derive(Debug)]
pub(super) struct Servers(Vec<PgConnectOptions>);

impl From<PgConnectOptions> for Servers {
    fn from(server: PgConnectOptions) -> Self {
        Self(vec![server])
    }
}

impl Servers {
    /// Reads `postgres://USER@HOST:PORT,HOST:PORT/DATABASE`, as libpq does. (PostgreSQL, 34.1.1.2 "Connection URIs")
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let (scheme, rest) = url.split_once("://").ok_or(OpenError::Scheme)?;
        if !["postgres", "postgresql"].contains(&scheme) {
            return Err(OpenError::Scheme);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let server = |host: &str| {
            let url = format!("{scheme}://{user}{host}{path}");
            let options: PgConnectOptions = url.parse().map_err(OpenError::Url)?;
            // The brackets belong to the URL; no name with them is ever found.
            let address = options.get_host().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let address = address.map(str::to_owned);
            Ok(address.into_iter().fold(options, |options, address| options.host(&address)))
        };
        hosts.split(',').map(server).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn map(self, change: impl FnMut(PgConnectOptions) -> PgConnectOptions) -> Self {
        Self(self.0.into_iter().map(change).collect())
    }

    /// Connects to the primary.
    ///
    /// # Errors
    /// What the last server said. [`Error::Io`] for one that is in recovery.
    pub(super) async fn connect(&self) -> Result<(PgConnectOptions, PgConnection), Error> {
        let mut last = Error::PoolClosed;
        for options in &self.0 {
            let connected = async {
                let mut connection = options.connect().await?;
                refuse_standby(&mut connection).await.map(|()| connection)
            };
            match self.in_time(connected).await {
                Ok(connection) => return Ok((options.clone(), connection)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A single server may take its time: there is no other to go to.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.0.len() {
            1 => answer.await,
            _ => timeout(ANSWER, answer).await.unwrap_or_else(|elapsed| Err(Error::Io(elapsed.into()))),
        }
    }

    /// Lets the pools connect to whichever server is the primary, until `shutdown`.
    pub(super) async fn follow_the_primary(self, pools: Pools, shutdown: CancellationToken) {
        if self.0.len() > 1 {
            tokio::select! {
                () = self.follow(pools) => {}
                () = shutdown.cancelled() => {}
            }
        } else {
            shutdown.cancelled().await;
        }
    }

    async fn follow(&self, pools: Pools) {
        let mut primary: Option<PgConnection> = None;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Some(connection) = &mut primary
                && self.in_time(refuse_standby(connection)).await.is_ok()
            {
                continue;
            }
            primary = None;
            match self.connect().await {
                Ok((options, connection)) => {
                    use_server(&pools, &options);
                    primary = Some(connection);
                }
                Err(error) => tracing::warn!(%error, "no PostgreSQL is the primary"),
            }
        }
    }
}

fn use_server(pools: &Pools, options: &PgConnectOptions) {
    if address(options) == address(&pools.own.connect_options()) {
        return;
    }
    tracing::warn!(host = options.get_host(), port = options.get_port(), "another PostgreSQL is the primary");
    for pool in pools.each() {
        pool.set_connect_options(options.clone());
        // A machine that vanished did not end its connections. Nobody shall wait for an answer from there.
        for _ in 0..pool.size() {
            pool.try_acquire().map(PoolConnection::detach);
        }
    }
}

fn address(options: &PgConnectOptions) -> (&str, u16, Option<&Path>) {
    (options.get_host(), options.get_port(), options.get_socket().map(PathBuf::as_path))
}

/// Nothing can be written on a standby, and what can be read there may be old.
///
/// # Errors
/// [`Error::Io`], which is "try again", when it is one.
pub(super) async fn refuse_standby(connection: &mut PgConnection) -> Result<(), Error> {
    let is_standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await?;
    match is_standby {
        true => Err(Error::Io(std::io::Error::other("this PostgreSQL is a standby"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Vec<(String, u16, String, Option<String>)> {
        let servers = Servers::parse(url).unwrap().0;
        let told = |one: &PgConnectOptions| {
            let database = one.get_database().map(str::to_owned);
            (one.get_host().to_owned(), one.get_port(), one.get_username().to_owned(), database)
        };
        servers.iter().map(told).collect()
    }

    #[test]
    fn each_host_of_an_address_is_a_server() {
        let server = |host: &str, port| (host.to_owned(), port, "u".to_owned(), Some("d".to_owned()));
        assert_eq!(parsed("postgres://u:p@one/d"), [server("one", 5432)]);
        let two = [server("one", 5432), server("2001:db8::2", 6000)];
        assert_eq!(parsed("postgresql://u:p%40,@one,[2001:db8::2]:6000/d?sslmode=require"), two);
        for bad in ["mysql://u@one/d", "one,two", "postgres://u@one,two:x/d", "postgres://u@one, two/d"] {
            let error = Servers::parse(bad).unwrap_err();
            assert!(matches!(error, OpenError::Scheme | OpenError::Url(_)), "{bad}: {error}");
        }
    }
}
