//! Wake-up calls: "look again", never "here is what changed".
//!
//! A transaction that changes what somebody may be waiting for ends with a `NOTIFY`; each replica listens
//! and wakes those who wait for that topic. Losing a nudge costs time, never correctness: whoever waits
//! reads the truth from the tables, and looks again by itself now and then.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::{HostId, OperationId, TransferId};
use sqlx::postgres::PgListener;
use sqlx::{Executor as _, PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

const CHANNEL: &str = "cumulo";
/// When nobody has nudged for so long, PostgreSQL is asked whether it is there, and has as long to answer.
const SILENCE: Duration = Duration::from_secs(10);

/// What one can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The desired state of a host.
    Host(HostId),
    /// The end of an operation.
    Operation(OperationId),
    /// The arrival of bytes from a host.
    Transfer(TransferId),
    /// Something may be placed, or has to be.
    Placement,
    /// Something of the networks changed that hosts have to hear of. Sent by the triggers that note it.
    Networks,
    /// A host is to be emptied, or not any more.
    Drains,
    /// Something is there to be swept.
    Sweep,
    /// Layers may be merged, or have been.
    Merges,
    /// A snapshot may have failed, or its time may have come.
    Snapshots,
    /// An image is to be imported, or not any more.
    Imports,
    /// Events wait for their positions. Sent by the trigger that writes them.
    Events,
    /// The log of a project or, all zeros, of the cloud has grown.
    EventLog(Uuid),
    /// Audit records wait for their place in the chain.
    Notary,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(id) => write!(f, "host {id}"),
            Self::Operation(id) => write!(f, "operation {id}"),
            Self::Transfer(id) => write!(f, "transfer {id}"),
            Self::Placement => f.write_str("placement -"),
            Self::Networks => f.write_str("networks -"),
            Self::Drains => f.write_str("drains -"),
            Self::Sweep => f.write_str("sweep -"),
            Self::Merges => f.write_str("merges -"),
            Self::Snapshots => f.write_str("snapshots -"),
            Self::Imports => f.write_str("imports -"),
            Self::Events => f.write_str("events -"),
            Self::EventLog(id) => write!(f, "event_log {id}"),
            Self::Notary => f.write_str("notary -"),
        }
    }
}

impl FromStr for Topic {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, id) = text.split_once(' ').ok_or(())?;
        match kind {
            "host" => id.parse().map(Self::Host).map_err(drop),
            "operation" => id.parse().map(Self::Operation).map_err(drop),
            "transfer" => id.parse().map(Self::Transfer).map_err(drop),
            "placement" => Ok(Self::Placement),
            "networks" => Ok(Self::Networks),
            "drains" => Ok(Self::Drains),
            "sweep" => Ok(Self::Sweep),
            "merges" => Ok(Self::Merges),
            "snapshots" => Ok(Self::Snapshots),
            "imports" => Ok(Self::Imports),
            "events" => Ok(Self::Events),
            "event_log" => id.parse().map(Self::EventLog).map_err(drop),
            "notary" => Ok(Self::Notary),
            _ => Err(()),
        }
    }
}

/// Nudges everybody who waits for the topic, when this transaction commits.
pub async fn send(conn: &mut PgConnection, topic: Topic) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, topic.to_string()).execute(conn).await?;
    Ok(())
}

/// The same for several topics.
pub async fn send_all(conn: &mut PgConnection, topics: &[Topic]) -> Result<(), sqlx::Error> {
    let topics: Vec<_> = topics.iter().map(Topic::to_string).collect();
    sqlx::query!("SELECT pg_notify($1, topic) FROM unnest($2::text[]) topic", CHANNEL, &topics)
        .execute(conn)
        .await?;
    Ok(())
}

/// Who waits in this process.
#[derive(Clone, Default)]
pub struct Nudges(Arc<Mutex<HashMap<Topic, watch::Sender<()>>>>);

/// Waits for one topic. Made before the first look at the tables, so that no nudge falls in between.
pub struct Waiter {
    receiver: watch::Receiver<()>,
    topic: Topic,
    nudges: Nudges,
}

impl Nudges {
    pub fn subscribe(&self, topic: Topic) -> Waiter {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = topics.entry(topic).or_insert_with(|| watch::channel(()).0).subscribe();
        Waiter { receiver, topic, nudges: self.clone() }
    }

    /// The hosts whose desired state somebody in this process waits for.
    pub(crate) fn waiting_hosts(&self) -> Vec<HostId> {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.keys().filter_map(|topic| if let Topic::Host(id) = topic { Some(*id) } else { None }).collect()
    }

    /// How many wait for it in this process.
    #[cfg(test)]
    pub(crate) fn waiting_for(&self, topic: Topic) -> usize {
        self.0.lock().unwrap().get(&topic).map_or(0, watch::Sender::receiver_count)
    }

    pub(crate) fn wake(&self, topic: Topic) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&topic) {
            sender.send_replace(());
        }
    }

    fn wake_all(&self) {
        for sender in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            sender.send_replace(());
        }
    }

    /// Listens for ever.
    pub async fn listen(self, pool: PgPool) {
        loop {
            if let Err(error) = self.listen_once(&pool, SILENCE).await {
                tracing::info!(%error, "not listening for nudges; trying again");
            }
            // Whatever was missed in between, everybody looks again.
            self.wake_all();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn listen_once(&self, pool: &PgPool, silence: Duration) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        self.wake_all();
        loop {
            match timeout(silence, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    if let Ok(topic) = notification.payload().parse() {
                        self.wake(topic);
                    }
                }
                Ok(gone) => return gone.map(drop),
                // A server whose machine is gone without a word would be listened to for ever.
                Err(_) => {
                    let asked = timeout(silence, listener.execute("SELECT"));
                    asked.await.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
                }
            }
        }
    }
}

impl Waiter {
    /// Waits for the next nudge, at most this long.
    pub async fn nudged(&mut self, at_most: Duration) {
        // An elapsed time-out is as good as a nudge: the caller looks again either way.
        let _elapsed = timeout(at_most, self.receiver.changed()).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut topics = self.nudges.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Ours is the last receiver.
        if topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 1) {
            topics.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCloud;

    #[test]
    fn topics_survive_their_wire_form() {
        let id = Uuid::from_u128(7);
        let topics = [
            Topic::Host(id.into()),
            Topic::Operation(id.into()),
            Topic::Transfer(id.into()),
            Topic::Placement,
            Topic::Networks,
            Topic::Sweep,
            Topic::Merges,
            Topic::Snapshots,
            Topic::Imports,
            Topic::Drains,
            Topic::Events,
            Topic::EventLog(id),
            Topic::Notary,
        ];
        for topic in topics {
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
        assert_eq!("host x".parse::<Topic>(), Err(()));
    }

    #[tokio::test]
    async fn a_nudge_between_subscribing_and_waiting_is_not_lost() {
        let nudges = Nudges::default();
        let mut waiter = nudges.subscribe(Topic::Placement);
        nudges.wake(Topic::Placement);
        // Would hang for a minute if the nudge were lost.
        let nudged = timeout(Duration::from_secs(5), waiter.nudged(Duration::from_secs(60)));
        assert!(nudged.await.is_ok());
        drop(waiter);
        assert!(nudges.0.lock().unwrap().is_empty());
    }

    /// As when the machine of PostgreSQL is gone: nothing is answered, and no connection is ended.
    #[tokio::test]
    async fn a_server_that_falls_silent_is_listened_to_no_longer() {
        let (cloud, line) = TestCloud::start_on_a_line().await;
        let nudges = Nudges::default();
        let mut waiter = nudges.subscribe(Topic::Placement);
        let listening = tokio::spawn({
            let (nudges, pool) = (nudges.clone(), cloud.app.pool.clone());
            async move { nudges.listen_once(&pool, Duration::from_millis(200)).await }
        });
        waiter.nudged(Duration::from_secs(20)).await;
        // It lives on while nothing happens and PostgreSQL answers.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!listening.is_finished());
        line.fall_silent();
        let ended = timeout(Duration::from_secs(20), listening).await.expect("it listens for ever");
        assert!(ended.unwrap().is_err());
    }
}
