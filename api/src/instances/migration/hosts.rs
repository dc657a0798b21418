//! All hosts, for decisions about many guests.

use protocol::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use super::super::store::migrations::{self, HostFacts};
use super::super::store::placement;
use crate::scheduler::Fleet;

/// All hosts as of one moment: read when they are first asked for, and once for everything that is decided with them.
pub(in crate::instances) struct Hosts {
    now: OffsetDateTime,
    read: OnceCell<Read>,
}

/// What was read.
pub(in crate::instances) struct Read {
    /// In the order of their ids.
    pub(super) facts: Vec<HostFacts>,
    pub fleet: Fleet,
}

impl Hosts {
    pub(in crate::instances) fn at(now: OffsetDateTime) -> Self {
        Self { now, read: OnceCell::new() }
    }

    pub(in crate::instances) async fn read(&self, conn: &mut PgConnection) -> Result<&Read, sqlx::Error> {
        self.read
            .get_or_try_init(|| async {
                let facts = migrations::host_facts(conn).await?;
                Ok(Read { facts, fleet: placement::fleet(conn, self.now).await? })
            })
            .await
    }
}

impl Read {
    pub(super) fn facts(&self, id: HostId) -> Option<&HostFacts> {
        let position = self.facts.binary_search_by_key(&id, |host| host.id).ok()?;
        Some(&self.facts[position])
    }
}
