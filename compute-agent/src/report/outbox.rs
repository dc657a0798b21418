//! The latest word about every instance, kept until the control plane has acknowledged it.
//!
//! Reports replace each other, so only the newest is kept; it is found again by looking, so it need not be
//! on disk. The steps of an operation's trail happened once and are written down at once: each is told
//! once per operation, also across a restart of the agent.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use camino::Utf8PathBuf;
use protocol::agent::{
    InstanceReport, MAX_DETAIL_CHARS, MigrationReport, NetworkReport, ObservedBatch, ObservedState, Step,
    StepReport, UnknownGuest,
};
use protocol::{Generation, InstanceId, MigrationId, OperationId, RemovalId, Sha256};
use serde::{Deserialize, Serialize};
use sha2::Digest;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::durable::{self, Survive};

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    folder: Utf8PathBuf,
    items: Mutex<HashMap<InstanceId, Item>>,
    network: Mutex<Word<NetworkReport>>,
    unknown_guests: Mutex<Word<Vec<UnknownGuest>>>,
    /// Removals that are carried out, until the control plane knows.
    removed: Mutex<BTreeSet<RemovalId>>,
    /// The newest word about each migration, and whether it was told. Nothing of it is in the digest: as long as the feed
    /// tells of a migration, an agent that starts anew says it again.
    migrations: Mutex<HashMap<InstanceId, (MigrationReport, bool)>>,
    /// Deletions that the control plane knows to be done, until nothing is wanted of these instances any more.
    gone: Mutex<HashMap<InstanceId, Generation>>,
    /// The same of disks on their way.
    disks: Mutex<HashMap<MigrationId, (MigrationReport, bool)>>,
    /// Held while a trail is written, so that an older one cannot replace a newer one.
    disk: Mutex<()>,
    dirty: Notify,
}

#[derive(Debug, Default)]
struct Item {
    latest: Option<InstanceReport>,
    /// What the control plane has.
    stored: Option<InstanceReport>,
    trail: Trail,
    /// Counts the changes of `latest` and `trail`.
    version: u64,
    sent_version: u64,
}

/// The word about something that the host has one of.
#[derive(Debug)]
struct Word<T> {
    latest: Option<T>,
    /// Counts the changes of `latest`.
    version: u64,
    sent_version: u64,
}

impl<T> Default for Word<T> {
    fn default() -> Self {
        Self { latest: None, version: 0, sent_version: 0 }
    }
}

impl<T: Clone + PartialEq> Word<T> {
    /// Whether it is another one than before.
    fn replace(&mut self, word: T) -> bool {
        let differs = self.latest.as_ref() != Some(&word);
        if differs {
            self.latest = Some(word);
            self.version += 1;
        }
        differs
    }

    /// What has not been told.
    fn due(&self) -> Option<T> {
        self.latest.clone().filter(|_| self.version > self.sent_version)
    }
}

/// The steps of the operations on one instance.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Trail {
    operation_id: Option<OperationId>,
    /// The steps of that operation that have been noted, acknowledged or not.
    noted: Vec<Step>,
    unacknowledged: Vec<StepReport>,
}

/// Reports on their way.
#[derive(Debug)]
pub struct Outgoing {
    pub reports: Vec<InstanceReport>,
    versions: Vec<u64>,
    pub network: Option<NetworkReport>,
    network_version: u64,
    pub unknown_guests: Option<Vec<UnknownGuest>>,
    unknown_version: u64,
    pub removed: Vec<RemovalId>,
    pub migrations: Vec<MigrationReport>,
}

impl Outbox {
    /// Opens the outbox in `folder`, which is made when it is missing.
    pub fn open(folder: Utf8PathBuf) -> io::Result<Self> {
        durable::make_folder(&folder)?;
        let items = durable::read_json_folder(&folder)?
            .into_iter()
            .map(|(id, trail)| (id, Item { trail, ..Item::default() }))
            .collect();
        Ok(Self {
            folder,
            items: Mutex::new(items),
            network: Mutex::default(),
            unknown_guests: Mutex::default(),
            removed: Mutex::default(),
            migrations: Mutex::default(),
            gone: Mutex::default(),
            disks: Mutex::default(),
            disk: Mutex::default(),
            dirty: Notify::new(),
        })
    }

    /// Replaces the word about an instance. `steps` of the report are ignored: see [`Self::note`].
    pub fn report(&self, mut report: InstanceReport) {
        report.steps.clear();
        report.detail = report.detail.map(|detail| detail.chars().take(MAX_DETAIL_CHARS).collect());
        let mut items = self.lock();
        let item = items.entry(report.id).or_default();
        if item.latest.as_ref() != Some(&report) {
            item.latest = Some(report);
            item.version += 1;
            self.dirty.notify_one();
        }
    }

    /// Replaces the word about the host's networks.
    pub fn report_network(&self, mut report: NetworkReport) {
        for fault in &mut report.faults {
            fault.detail = fault.detail.chars().take(MAX_DETAIL_CHARS).collect();
        }
        if let Some(first) = report.check.as_mut().and_then(|check| check.first.as_mut()) {
            *first = first.chars().take(MAX_DETAIL_CHARS).collect();
        }
        if self.network().replace(report) {
            self.dirty.notify_one();
        }
    }

    /// Replaces the word about guests of which nothing is wanted.
    pub fn report_unknown_guests(&self, guests: Vec<UnknownGuest>) {
        if self.unknown_guests().replace(guests) {
            self.dirty.notify_one();
        }
    }

    /// What was told of them counts no more: the control plane may have been restored from a backup. The next word is told, whatever it is.
    pub fn forget_unknown_guests(&self) {
        self.unknown_guests().latest = None;
    }

    /// Replaces the word about the migration of an instance; nothing is said of one that is over.
    pub fn report_migration(&self, id: InstanceId, report: Option<MigrationReport>) {
        let mut migrations = self.migrations();
        let Some(report) = report else {
            migrations.remove(&id);
            return;
        };
        if migrations.get(&id).is_none_or(|(known, _)| *known != report) {
            migrations.insert(id, (report, false));
            self.dirty.notify_one();
        }
    }

    /// Replaces the word about disks on their way.
    pub fn report_disks(&self, report: MigrationReport) {
        self.disks().insert(report.id, (report, false));
        self.dirty.notify_one();
    }

    /// Nothing more is said of others than these.
    pub fn keep_only_disks(&self, wanted: &HashSet<MigrationId>) {
        self.disks().retain(|id, _| wanted.contains(id));
    }

    /// Nothing is left of what a [`protocol::agent::DesiredBody::RemoveLayers`] named.
    pub fn report_removed(&self, removal: RemovalId) {
        self.removed().insert(removal);
        self.dirty.notify_one();
    }

    /// Adds steps to an operation's trail; those that are in it already are left out.
    pub fn note(
        &self,
        id: InstanceId,
        operation_id: OperationId,
        steps: &[Step],
        at: OffsetDateTime,
    ) -> io::Result<()> {
        {
            let mut items = self.lock();
            let item = items.entry(id).or_default();
            if !item.trail.note(operation_id, steps, at) {
                return Ok(());
            }
            item.version += 1;
        }
        self.dirty.notify_one();
        self.write_trail(id)
    }

    /// Whether [`Self::note`] would add anything.
    pub fn is_news(&self, id: InstanceId, operation_id: OperationId, steps: &[Step]) -> bool {
        let items = self.lock();
        let trail = items.get(&id).map(|item| &item.trail).filter(|t| t.operation_id == Some(operation_id));
        trail.is_none_or(|trail| steps.iter().any(|step| !trail.noted.contains(step)))
    }

    /// What has to be sent, at most `limit` reports of instances, as many removals and as many migrations.
    pub fn outgoing(&self, limit: usize) -> Option<Outgoing> {
        let items = self.lock();
        let due = items.values().filter(|item| item.version > item.sent_version);
        let (reports, versions): (Vec<_>, Vec<_>) = due
            .filter_map(|item| {
                let steps = item.trail.unacknowledged.clone();
                Some((InstanceReport { steps, ..item.latest.clone()? }, item.version))
            })
            .take(limit)
            .unzip();
        let network = self.network();
        let (network_version, network) = (network.version, network.due());
        let unknown = self.unknown_guests();
        // There may be much of it, and a message has bounds.
        let (unknown_version, unknown) = (unknown.version, unknown.due().filter(|_| reports.is_empty()));
        let removed: Vec<_> = self.removed().iter().copied().take(limit).collect();
        let (migrations, disks) = (self.migrations(), self.disks());
        let untold = migrations.values().chain(disks.values()).filter(|(_, told)| !told);
        let untold = untold.map(|(report, _)| report.clone());
        let migrations: Vec<_> = untold.take(limit).collect();
        let is_due = !reports.is_empty()
            || network.is_some()
            || unknown.is_some()
            || !removed.is_empty()
            || !migrations.is_empty();
        is_due.then_some(Outgoing {
            reports,
            versions,
            network,
            network_version,
            unknown_guests: unknown,
            unknown_version,
            removed,
            migrations,
        })
    }

    /// The control plane has what was sent; what it `ignored` need not be told again, but it is not stored
    /// there and so not in the digest. See [`Self::gone`].
    ///
    /// # Errors
    /// When not all of it could be written down: the steps are told again after a restart, which does no harm.
    pub fn acknowledge(&self, sent: &Outgoing, ignored: &[InstanceId]) -> io::Result<()> {
        if sent.network.is_some() {
            let mut network = self.network();
            network.sent_version = network.sent_version.max(sent.network_version);
        }
        if sent.unknown_guests.is_some() {
            let mut unknown = self.unknown_guests();
            unknown.sent_version = unknown.sent_version.max(sent.unknown_version);
        }
        self.removed().retain(|removal| !sent.removed.contains(removal));
        for (known, told) in self.migrations().values_mut().chain(self.disks().values_mut()) {
            *told |= sent.migrations.contains(known);
        }
        let mut written = Ok(());
        for (report, version) in sent.reports.iter().zip(&sent.versions) {
            let Some((trail_changed, all_told)) = self
                .lock()
                .get_mut(&report.id)
                .map(|item| item.acknowledge(report, *version, ignored.contains(&report.id)))
            else {
                continue;
            };
            if trail_changed {
                written = written.and(self.write_trail(report.id));
            }
            if all_told && report.state == ObservedState::Absent {
                self.lock_gone().insert(report.id, report.generation);
            }
        }
        written
    }

    /// The instances that the control plane knows to be gone, with the generation that said so, of which there is nothing
    /// left to tell. Named until [`Self::let_go`]: nobody reports them a second time.
    pub fn gone(&self) -> Vec<(InstanceId, Generation)> {
        self.lock_gone().iter().map(|(id, generation)| (*id, *generation)).collect()
    }

    /// Nothing is wanted of it any more, or something else than its deletion.
    pub fn let_go(&self, id: InstanceId, generation: Generation) {
        let mut gone = self.lock_gone();
        if gone.get(&id) == Some(&generation) {
            gone.remove(&id);
        }
    }

    /// The control plane asked for everything again.
    pub fn resend_all(&self) {
        self.lock().values_mut().for_each(|item| item.version += 1);
        self.network().version += 1;
        self.unknown_guests().version += 1;
        self.migrations().values_mut().chain(self.disks().values_mut()).for_each(|(_, told)| *told = false);
        self.dirty.notify_one();
    }

    /// Returns when there may be something to send.
    pub async fn dirty(&self) {
        self.dirty.notified().await;
    }

    /// SHA-256 of [`ObservedBatch::digest_input`] of everything that the control plane has. It drops what is
    /// absent as soon as it hears of it.
    pub fn digest(&self) -> Sha256 {
        let items = self.lock();
        let stored = items.values().filter_map(|item| item.stored.as_ref());
        let text = ObservedBatch::digest_input(stored.filter(|report| report.state != ObservedState::Absent));
        Sha256::from_bytes(sha2::Sha256::digest(text).into())
    }

    /// Nothing will be said about that instance any more.
    pub fn forget(&self, id: InstanceId) -> io::Result<()> {
        let _disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock().remove(&id);
        durable::remove(&self.path(id))
    }

    fn write_trail(&self, id: InstanceId) -> io::Result<()> {
        let _disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(trail) = self.lock().get(&id).map(|item| item.trail.clone()) else { return Ok(()) };
        durable::write(&self.path(id), &serde_json::to_vec(&trail)?, Survive::Process)
    }

    fn path(&self, id: InstanceId) -> Utf8PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_gone(&self) -> MutexGuard<'_, HashMap<InstanceId, Generation>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown_guests(&self) -> MutexGuard<'_, Word<Vec<UnknownGuest>>> {
        self.unknown_guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self) -> MutexGuard<'_, Word<NetworkReport>> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removed(&self) -> MutexGuard<'_, BTreeSet<RemovalId>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn migrations(&self) -> MutexGuard<'_, HashMap<InstanceId, (MigrationReport, bool)>> {
        self.migrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disks(&self) -> MutexGuard<'_, HashMap<MigrationId, (MigrationReport, bool)>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest word about the migration of an instance.
    #[cfg(test)]
    pub fn migration(&self, id: InstanceId) -> Option<MigrationReport> {
        self.migrations().get(&id).map(|(report, _)| report.clone())
    }

    /// The newest report of an instance and the steps of its open operation.
    #[cfg(test)]
    pub fn latest(&self, id: InstanceId) -> Option<(InstanceReport, Vec<Step>)> {
        let items = self.lock();
        let item = items.get(&id)?;
        Some((item.latest.clone()?, item.trail.noted.clone()))
    }
}

impl Item {
    /// Whether the trail changed, and whether everything is told.
    fn acknowledge(&mut self, report: &InstanceReport, version: u64, is_ignored: bool) -> (bool, bool) {
        self.sent_version = self.sent_version.max(version);
        if !is_ignored {
            self.stored = Some(report.clone());
        }
        let before = self.trail.unacknowledged.len();
        self.trail.unacknowledged.retain(|step| !report.steps.contains(step));
        (self.trail.unacknowledged.len() != before, self.version == self.sent_version)
    }
}

impl Trail {
    /// False when there is nothing new in `steps`.
    fn note(&mut self, operation_id: OperationId, steps: &[Step], at: OffsetDateTime) -> bool {
        if self.operation_id != Some(operation_id) {
            self.operation_id = Some(operation_id);
            self.noted.clear();
        }
        let before = self.noted.len();
        for &step in steps {
            if !self.noted.contains(&step) {
                self.noted.push(step);
                self.unacknowledged.push(StepReport { operation_id, step, at });
            }
        }
        self.noted.len() > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;
    use uuid::Uuid;

    const AT: OffsetDateTime = datetime!(2030-01-01 00:00 UTC);

    fn report(id: InstanceId, state: ObservedState) -> InstanceReport {
        InstanceReport {
            id,
            generation: Generation(1),
            boot: 1,
            state,
            volumes: Vec::new(),
            leaving_cards: None,
            paused: None,
            not_taken: None,
            saved_memory: None,
            detail: None,
            steps: Vec::new(),
        }
    }

    fn steps(outgoing: &Outgoing) -> Vec<Step> {
        outgoing.reports.iter().flat_map(|report| &report.steps).map(|step| step.step).collect()
    }

    fn open(dir: &tempfile::TempDir) -> Outbox {
        Outbox::open(Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn a_word_of_unknown_guests_is_told_once_and_in_the_next_session_only_when_it_is_said_again() {
        let outbox = open(&tempfile::tempdir().unwrap());
        let word = vec![UnknownGuest { id: Uuid::now_v7().into(), runs: true, spec: None }];
        let due = || outbox.outgoing(1);
        outbox.report_unknown_guests(word.clone());
        let sent = due().unwrap();
        assert_eq!(sent.unknown_guests.as_ref(), Some(&word));
        outbox.acknowledge(&sent, &[]).unwrap();
        outbox.report_unknown_guests(word.clone());
        assert!(due().is_none());
        outbox.forget_unknown_guests();
        assert!(due().is_none(), "it may not be so any more");
        outbox.report_unknown_guests(word.clone());
        assert_eq!(due().unwrap().unknown_guests, Some(word));
    }

    #[test]
    fn a_step_is_told_once_per_operation_and_kept_until_acknowledged_across_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (id, operation) = (InstanceId::from(Uuid::now_v7()), OperationId::from(Uuid::now_v7()));
        let outbox = open(&dir);
        outbox.report(report(id, ObservedState::Preparing));
        outbox.note(id, operation, &[Step::AgentReceived], AT).unwrap();

        let outbox = open(&dir);
        outbox.report(report(id, ObservedState::Preparing));
        outbox.note(id, operation, &[Step::AgentReceived, Step::ImageCached], AT).unwrap();
        let sent = outbox.outgoing(10).unwrap();
        assert_eq!(steps(&sent), [Step::AgentReceived, Step::ImageCached]);
        outbox.note(id, operation, &[Step::DiskMade], AT).unwrap();
        outbox.acknowledge(&sent, &[]).unwrap();

        let outbox = open(&dir);
        outbox.report(report(id, ObservedState::Running));
        outbox.note(id, operation, &[Step::AgentReceived], AT).unwrap();
        let sent = outbox.outgoing(10).unwrap();
        assert_eq!(steps(&sent), [Step::DiskMade]);
        outbox.acknowledge(&sent, &[]).unwrap();
        assert!(outbox.outgoing(10).is_none());

        outbox.note(id, OperationId::from(Uuid::now_v7()), &[Step::AgentReceived], AT).unwrap();
        assert_eq!(steps(&outbox.outgoing(10).unwrap()), [Step::AgentReceived], "another operation");
    }

    #[test]
    fn a_change_while_a_batch_is_on_its_way_is_sent_next() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = open(&dir);
        let id = InstanceId::from(Uuid::now_v7());
        outbox.report(report(id, ObservedState::Preparing));
        let sent = outbox.outgoing(10).unwrap();
        outbox.report(report(id, ObservedState::Running));
        outbox.acknowledge(&sent, &[]).unwrap();
        assert_eq!(outbox.outgoing(10).unwrap().reports[0].state, ObservedState::Running);
    }

    #[test]
    fn the_digest_covers_what_was_acknowledged_and_everything_can_be_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = open(&dir);
        let empty = outbox.digest();
        for _ in 0..3 {
            outbox.report(report(InstanceId::from(Uuid::now_v7()), ObservedState::Running));
        }
        assert_eq!(outbox.digest(), empty, "nothing has arrived yet");
        let first = outbox.outgoing(2).unwrap();
        assert_eq!(first.reports.len(), 2);
        outbox.acknowledge(&first, &[]).unwrap();
        let rest = outbox.outgoing(2).unwrap();
        assert_eq!(rest.reports.len(), 1);
        outbox.acknowledge(&rest, &[]).unwrap();
        assert_ne!(outbox.digest(), empty);
        assert!(outbox.outgoing(2).is_none());
        outbox.resend_all();
        assert_eq!(outbox.outgoing(10).unwrap().reports.len(), 3);
        for report in [first, rest].iter().flat_map(|sent| &sent.reports) {
            outbox.forget(report.id).unwrap();
        }
        assert_eq!(outbox.digest(), empty);
    }

    #[test]
    fn what_the_control_plane_ignores_is_told_once_and_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = open(&dir);
        let empty = outbox.digest();
        let id = InstanceId::from(Uuid::now_v7());
        outbox.report(report(id, ObservedState::Running));
        let sent = outbox.outgoing(10).unwrap();
        outbox.acknowledge(&sent, &[id]).unwrap();
        assert!(outbox.outgoing(10).is_none());
        assert_eq!(outbox.digest(), empty);
    }

    #[test]
    fn what_is_gone_is_named_when_all_of_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = open(&dir);
        let (id, empty) = (InstanceId::from(Uuid::now_v7()), outbox.digest());
        outbox.report(report(id, ObservedState::Absent));
        let sent = outbox.outgoing(10).unwrap();
        outbox.note(id, OperationId::from(Uuid::now_v7()), &[Step::Absent], AT).unwrap();
        outbox.acknowledge(&sent, &[]).unwrap();
        assert_eq!(outbox.gone(), [], "a step is left to tell");
        let rest = outbox.outgoing(10).unwrap();
        outbox.acknowledge(&rest, &[id]).unwrap();
        assert_eq!(outbox.gone(), [(id, Generation(1))]);
        assert_eq!(outbox.digest(), empty);
        outbox.let_go(id, Generation(2));
        assert_eq!(outbox.gone(), [(id, Generation(1))], "that is another deletion");
        outbox.let_go(id, Generation(1));
        assert_eq!(outbox.gone(), []);
    }

    #[test]
    fn what_is_gone_is_named_although_nothing_can_be_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Utf8PathBuf::from_path_buf(dir.path().join("outbox")).unwrap();
        let outbox = Outbox::open(folder.clone()).unwrap();
        let ids = [(); 3].map(|()| InstanceId::from(Uuid::now_v7()));
        for id in ids {
            outbox.report(report(id, ObservedState::Absent));
            outbox.note(id, OperationId::from(Uuid::now_v7()), &[Step::Absent], AT).unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
        let sent = outbox.outgoing(10).unwrap();
        outbox.acknowledge(&sent, &[]).unwrap_err();
        let mut gone: Vec<_> = outbox.gone().into_iter().map(|(id, _)| id).collect();
        gone.sort_unstable();
        assert_eq!(gone, ids);
    }
}
