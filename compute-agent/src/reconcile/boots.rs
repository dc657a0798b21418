//! The record of each instance's boots: what makes a start happen once.
//!
//! Domains are transient, so a missing domain says nothing by itself. The record says whether its boot was
//! never started, or has ended and must not be started again, or was cut off by a reboot of the machine and
//! must be. It is written before and after the deed, and it carries the deadline of a stop that is under
//! way, so that a restarted agent goes on where the last one was.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::EndReason;
use protocol::{InstanceId, MigrationId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::migrating::Outgoing;
use crate::durable::{self, Survive};

/// The newest boot of an instance on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    pub boot: i64,
    /// The machine's own boot during which this was written.
    pub machine_boot: Uuid,
    pub phase: Phase,
    /// When the power of a domain that was asked to go down is cut.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub stop_deadline: Option<OffsetDateTime>,
    /// Its guest has what it began with in memory, and stands still until it is told to go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_resume: bool,
    /// The boot has begun with a memory: its disks have gone on since, so that it never does so again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loaded: bool,
    /// Its guest was to be frozen, and nobody has seen since that it can write again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub freezing: bool,
    /// Its guest was made to stand still because its owner wants that, or is about to be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Its domain waits for a guest of another host, and nothing in it has run here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<MigrationId>,
    /// Its guest was to go to another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<Outgoing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// About to be started: there may or may not be a domain.
    Starting,
    /// Started: if there is no domain, it has ended.
    Started,
    /// Ended: never to be started again.
    Ended(EndReason),
}

/// All boot records, in memory and on disk.
#[derive(Debug)]
pub struct Boots {
    folder: Utf8PathBuf,
    records: Mutex<HashMap<InstanceId, BootRecord>>,
}

impl Boots {
    /// Opens the records in `folder`, which is made when it is missing.
    pub fn open(folder: Utf8PathBuf) -> io::Result<Self> {
        durable::make_folder(&folder)?;
        let records = durable::read_json_folder(&folder)?.into_iter().collect();
        Ok(Self { folder, records: Mutex::new(records) })
    }

    pub fn get(&self, id: InstanceId) -> Option<BootRecord> {
        self.lock().get(&id).cloned()
    }

    /// Every instance with a record.
    pub fn ids(&self) -> Vec<InstanceId> {
        self.lock().keys().copied().collect()
    }

    /// When this returns, the record is on disk.
    pub fn put(&self, id: InstanceId, record: BootRecord) -> io::Result<()> {
        durable::write(&path(&self.folder, id), &serde_json::to_vec(&record)?, Survive::PowerCut)?;
        self.lock().insert(id, record);
        Ok(())
    }

    pub fn forget(&self, id: InstanceId) -> io::Result<()> {
        durable::remove(&path(&self.folder, id))?;
        self.lock().remove(&id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, BootRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(folder: &Utf8Path, id: InstanceId) -> Utf8PathBuf {
    folder.join(format!("{id}.json"))
}
