//! A guard that says what a test wants, and kills nobody.

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, Name};
use uuid::Uuid;

use super::super::clock::Moment;
use super::super::entries::{self, Fenced};
use super::super::lock::ProcessId;
use super::super::status::{Status, StatusFile};
use super::super::terms::Offence;
use super::super::{Entry, FOLDER, Times};

pub(crate) struct FakeGuard {
    folder: Utf8PathBuf,
    file: StatusFile,
    pub(in crate::guard) status: Status,
    counter: u64,
}

impl FakeGuard {
    pub(crate) fn new(state_dir: &Utf8Path, machine_boot: Uuid) -> Self {
        let folder = state_dir.join(FOLDER);
        entries::make(&folder).unwrap();
        let file = StatusFile::open(&folder, None).unwrap();
        let status = Status::new(machine_boot, ProcessId::own().unwrap());
        Self { folder, file, status, counter: 0 }
    }

    /// What is written down.
    pub(crate) fn entry(&self, id: InstanceId) -> Option<Entry> {
        entries::read(&self.folder)
            .unwrap()
            .into_iter()
            .find(|(it, _)| *it == id)
            .map(|(_, entry)| entry.unwrap())
    }

    /// Looks at what is guarded, and says so.
    pub(crate) fn look(&mut self, now: Moment) {
        self.status.at = now;
        let entries = entries::read(&self.folder).unwrap().into_iter();
        self.status.guests = entries.map(|(id, entry)| (id, entry.unwrap().written)).collect();
        self.file.write(&self.status).unwrap();
    }

    /// A write into the pool has completed.
    pub(crate) fn renew(&mut self, now: Moment) {
        self.renew_in(pool(), now);
    }

    pub(crate) fn renew_in(&mut self, pool: Name, now: Moment) {
        self.counter += 1;
        self.status.pools.insert(pool.clone(), format!("/srv/{pool}").into());
        let lease = self.status.leases.entry(pool).or_default();
        lease.completed(self.counter, now, now, Times::default().lease);
    }

    /// Was told to end, and waits until no guest is guarded any more.
    pub(crate) fn end(&mut self) {
        self.status.ending = true;
    }

    /// Says that the pool is elsewhere; gives where it was.
    pub(crate) fn move_pool(&mut self, root: &str) -> String {
        let before = self.status.pools.insert(pool(), root.into()).unwrap();
        self.file.write(&self.status).unwrap();
        before.into_string()
    }

    /// Kills a guest, as far as its agent can know.
    pub(crate) fn fence(&self, id: InstanceId, boot: i64) {
        let fenced = Fenced::now(boot, &pool(), Offence::Lapsed);
        entries::put_fenced(&self.folder, id, &fenced).unwrap();
    }

    /// Whether it holds of a guest that was fenced.
    pub(crate) fn has_record(&self, id: InstanceId) -> bool {
        entries::fenced(&self.folder, id).unwrap().is_some()
    }
}

pub(crate) fn pool() -> Name {
    "fast".parse().unwrap()
}
