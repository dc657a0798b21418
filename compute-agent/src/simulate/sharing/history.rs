//! What happened in a group of hosts, in its order: appended to a file, a line each, and never changed.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, Name};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::guard;
use crate::hypervisor::simulated::Hearer;

/// Something that happened on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Microseconds of `CLOCK_BOOTTIME`, one clock for all hosts.
    pub(super) at: u64,
    pub(super) host: Name,
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(super) enum What {
    /// A guest begins, `guarded` if its host's guard is told of it. One that `waits` comes from elsewhere, and does not run yet.
    Began {
        instance: InstanceId,
        boot: i64,
        guarded: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        waits: bool,
    },
    /// That guest alone, as at the end of its way to another host.
    GuestStandsStill {
        instance: InstanceId,
        boot: i64,
    },
    GuestGoesOn {
        instance: InstanceId,
        boot: i64,
    },
    Ended {
        instance: InstanceId,
        boot: i64,
    },
    /// The host and its guests.
    StandsStill,
    GoesOn,
    /// After the ends of all that ran.
    PowerLost,
    /// For people: a fault of the ordeal of that seed begins or ends.
    Fault {
        seed: u64,
        fault: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    records: Vec<Record>,
}

impl History {
    /// Goes on with a file, which is made when it is missing.
    pub(super) fn open(path: &Utf8Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut records = Vec::new();
        for line in BufReader::new(&file).lines() {
            records.push(serde_json::from_str(&line?)?);
        }
        Ok(Self { inner: Mutex::new(Inner { file, records }) })
    }

    pub(super) fn add(&self, host: &Name, what: What) {
        let mut inner = self.lock();
        // Within the lock, so that the order is that of the times.
        let record = Record { at: now(), host: host.clone(), what };
        let line = serde_json::to_string(&record).map_err(io::Error::from);
        if let Err(error) = line.and_then(|line| writeln!(inner.file, "{line}")) {
            tracing::error!(%error, "the history cannot be written down");
        }
        inner.records.push(record);
    }

    /// All since it was opened or forgotten.
    pub(super) fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// These instances are gone, and what comes has nothing to do with them. The file keeps it.
    pub(super) fn forget(&self, gone: &BTreeSet<InstanceId>) {
        let is_of = |record: &Record| match record.what {
            What::Began { instance, .. }
            | What::GuestStandsStill { instance, .. }
            | What::GuestGoesOn { instance, .. }
            | What::Ended { instance, .. } => gone.contains(&instance),
            What::StandsStill | What::GoesOn | What::PowerLost | What::Fault { .. } => false,
        };
        self.lock().records.retain(|record| !is_of(record));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Microseconds of `CLOCK_BOOTTIME`.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(time.tv_nsec / 1000).unwrap_or_default()
}

/// Writes down the lives of a host's guests.
#[derive(Debug)]
pub(super) struct Scribe {
    pub(super) history: Arc<History>,
    pub(super) host: Name,
    /// The agent's.
    pub(super) folder: Utf8PathBuf,
}

impl Hearer for Scribe {
    fn began(&mut self, instance: InstanceId, boot: i64, runs: bool) {
        // The entry is written before the guest is started.
        let guarded = self.folder.join(guard::FOLDER).join(format!("{instance}.json")).exists();
        self.history.add(&self.host, What::Began { instance, boot, guarded, waits: !runs });
    }

    fn changed(&mut self, instance: InstanceId, boot: i64, runs: bool) {
        let what = match runs {
            true => What::GuestGoesOn { instance, boot },
            false => What::GuestStandsStill { instance, boot },
        };
        self.history.add(&self.host, what);
    }

    fn ended(&mut self, instance: InstanceId, boot: i64) {
        self.history.add(&self.host, What::Ended { instance, boot });
    }
}
