//! A control plane in memory, as strict about sessions as the real one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::agent::{
    DesiredBody, DesiredObject, DesiredPage, DesiredQuery, DriftAccepted, DriftReport,
    EARLIEST_PROTOCOL_VERSION, Epoch, Heartbeat, HeartbeatReply, HostNetwork, HostRequest, ImageStatus,
    InsightAccepted, InsightBatch, InstanceReport, Inventory, MAX_REPORTS, NetworkReport, ObservedAccepted,
    ObservedBatch, ObservedState, OpenSession, PROTOCOL_VERSION, Refusal, RefusalReason, Sending,
    SessionOpened, Step, StepReport, UnknownGuest, VolumeSpec,
};
use protocol::{ConsoleId, HostId, InstanceId, Revision, Sha256, TransferId};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use uuid::Uuid;

use super::{ControlPlane, ControlPlaneError};
use crate::consoles;
use crate::host_storage::ByteStream;

#[derive(Debug)]
pub struct FakeControlPlane {
    state: Mutex<State>,
    /// Counts the changes, for whoever waits for one.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    epoch: i64,
    /// What the host was said to offer when the session was opened.
    inventory: Option<Inventory>,
    revision: i64,
    objects: BTreeMap<InstanceId, DesiredObject>,
    networks: Option<DesiredObject>,
    network_report: Option<NetworkReport>,
    transfers_asked: Vec<DesiredObject>,
    blobs: HashMap<Sha256, Bytes>,
    blobs_sent: u32,
    /// Blobs that are not sent before they are released.
    held: Vec<Sha256>,
    /// No report is answered before that is over.
    reports_held: bool,
    /// What the agent saw last of the desired state.
    seen: Revision,
    unreachable: bool,
    removed: bool,
    /// It speaks the version before alone.
    of_release_before: bool,
    /// What is spoken in the newest session.
    spoken: u32,
    /// What a control plane of the release before was told.
    heard: Vec<(&'static str, serde_json::Value)>,
    /// How often the host was told that it is removed.
    told_removed: u32,
    reports: BTreeMap<InstanceId, InstanceReport>,
    steps: Vec<StepReport>,
    last_heartbeat: Option<Heartbeat>,
    /// What was last told in this session of guests that are left alone.
    unknown_guests: Option<Vec<UnknownGuest>>,
    insight: Vec<InsightBatch>,
    drift: Vec<DriftReport>,
    drift_unwanted: bool,
    transfers: HashMap<TransferId, Vec<u8>>,
    images_asked: BTreeMap<TransferId, DesiredObject>,
    images: HashMap<TransferId, Vec<u8>>,
    sending: Vec<(TransferId, Sending)>,
    /// So many images break off in their middle.
    broken_images: u32,
    consoles_asked: Vec<(Revision, HostRequest)>,
    /// The user's ends of the consoles that were brought, and the replicas that were dialled.
    consoles: HashMap<ConsoleId, (DuplexStream, Option<String>)>,
    /// Nobody takes consoles.
    consoles_unwanted: bool,
    refusals: HashMap<TransferId, RefusalReason>,
    ask_for_everything: bool,
}

impl Default for FakeControlPlane {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl FakeControlPlane {
    pub fn want(&self, id: InstanceId, body: DesiredBody) {
        self.change(|state| {
            state.revision += 1;
            state.objects.insert(id, DesiredObject { revision: Revision(state.revision), body });
        });
    }

    /// The networks of the host, with the revision that they got.
    pub fn want_networks(&self, networks: &HostNetwork) -> Revision {
        let mut revision = Revision(0);
        self.change(|state| {
            state.revision += 1;
            revision = Revision(state.revision);
            let body = DesiredBody::Network(Box::new(networks.clone()));
            state.networks = Some(DesiredObject { revision, body });
        });
        revision
    }

    /// From now on it is of the release before this one, or of this one.
    pub fn be_of_release_before(&self, before: bool) {
        self.change(|state| state.of_release_before = before);
    }

    /// The version of the newest session.
    pub fn spoken(&self) -> u32 {
        self.lock().spoken
    }

    /// What it was told as one of the release before, with the names of the messages.
    pub fn heard(&self) -> Vec<(&'static str, serde_json::Value)> {
        self.lock().heard.clone()
    }

    fn hear(&self, name: &'static str, message: &impl serde::Serialize) {
        let mut state = self.lock();
        if state.of_release_before {
            state.heard.push((name, serde_json::to_value(message).unwrap()));
        }
    }

    pub fn network_report(&self) -> Option<NetworkReport> {
        self.lock().network_report.clone()
    }

    /// As after the restore of an older database.
    pub fn know_nothing_of(&self, id: InstanceId) {
        self.change(|state| drop(state.objects.remove(&id)));
    }

    pub fn ask_for_serial_log(&self, transfer_id: TransferId, instance_id: InstanceId) {
        self.change(|state| {
            state.revision += 1;
            let body = DesiredBody::SendSerialLog { transfer_id, instance_id, max_bytes: 1000 };
            state.transfers_asked.push(DesiredObject { revision: Revision(state.revision), body });
        });
    }

    pub fn ask_for_image(&self, transfer_id: TransferId, source: &VolumeSpec) {
        self.change(|state| {
            state.revision += 1;
            let body = DesiredBody::SendImage { transfer_id, source: Box::new(source.clone()) };
            let object = DesiredObject { revision: Revision(state.revision), body };
            state.images_asked.insert(transfer_id, object);
        });
    }

    /// Asks for the request, which names this instance, as often as the agent looks after it.
    pub fn ask_for_console(&self, request: HostRequest) {
        self.change(|state| {
            state.revision += 1;
            state.consoles_asked.push((Revision(state.revision), request));
        });
    }

    /// Whether somebody takes the consoles that are brought.
    pub fn want_consoles(&self, wanted: bool) {
        self.change(|state| state.consoles_unwanted = !wanted);
    }

    /// The user's end of a console that was brought, and where.
    pub fn take_console(&self, id: ConsoleId) -> Option<(DuplexStream, Option<String>)> {
        self.lock().consoles.remove(&id)
    }

    pub fn has_console(&self, id: ConsoleId) -> bool {
        self.lock().consoles.contains_key(&id)
    }

    /// Why something was not done.
    pub fn refusal(&self, id: TransferId) -> Option<RefusalReason> {
        self.lock().refusals.get(&id).copied()
    }

    /// Nobody wants the image any more.
    pub fn cancel_image(&self, id: TransferId) {
        self.change(|state| drop(state.images_asked.remove(&id)));
    }

    /// The next so many images that are sent break off.
    pub fn break_images(&self, times: u32) {
        self.change(|state| state.broken_images = times);
    }

    /// What was sent, as a whole.
    pub fn image(&self, id: TransferId) -> Option<Vec<u8>> {
        self.lock().images.get(&id).cloned()
    }

    /// What was said of an image, in order.
    pub fn said_of_image(&self, id: TransferId) -> Vec<Sending> {
        self.lock().sending.iter().filter(|(of, _)| *of == id).map(|(_, said)| said.clone()).collect()
    }

    pub fn store_blob(&self, sha256: Sha256, bytes: Bytes) {
        self.change(|state| drop(state.blobs.insert(sha256, bytes)));
    }

    /// How often a blob was asked for and sent.
    pub fn blobs_sent(&self) -> u32 {
        self.lock().blobs_sent
    }

    pub fn hold_blob(&self, sha256: Sha256) {
        self.change(|state| state.held.push(sha256));
    }

    pub fn release_blobs(&self) {
        self.change(|state| state.held.clear());
    }

    /// Whether reports are left without an answer, and unread, for now.
    pub fn hold_reports(&self, held: bool) {
        self.change(|state| state.reports_held = held);
    }

    /// Whether the agent asks for what comes after all that was ever wanted.
    pub fn has_seen_everything(&self) -> bool {
        let state = self.lock();
        state.seen.0 == state.revision
    }

    pub fn set_reachable(&self, reachable: bool) {
        self.change(|state| state.unreachable = !reachable);
    }

    /// The operator removes the host.
    pub fn remove_host(&self) {
        self.change(|state| state.removed = true);
    }

    pub fn told_removed(&self) -> u32 {
        self.lock().told_removed
    }

    /// Another agent with the same identity opens a session.
    pub fn take_session_over(&self) {
        self.change(|state| state.epoch += 1);
    }

    pub fn ask_for_everything(&self) {
        self.change(|state| {
            state.reports.clear();
            state.ask_for_everything = true;
        });
    }

    pub fn epoch(&self) -> i64 {
        self.lock().epoch
    }

    pub fn inventory(&self) -> Option<Inventory> {
        self.lock().inventory.clone()
    }

    pub fn report(&self, id: InstanceId) -> Option<InstanceReport> {
        self.lock().reports.get(&id).cloned()
    }

    pub fn state(&self, id: InstanceId) -> Option<ObservedState> {
        self.report(id).map(|report| report.state)
    }

    /// The trail as it was told, in order, of all operations.
    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.iter().map(|step| step.step).collect()
    }

    pub fn transfer(&self, id: TransferId) -> Option<Vec<u8>> {
        self.lock().transfers.get(&id).cloned()
    }

    /// What is asked of heartbeats from now on is answered by new ones.
    pub fn forget_heartbeat(&self) {
        self.change(|state| state.last_heartbeat = None);
    }

    /// What was measured since this was asked last.
    /// What was told in this session of guests that are left alone.
    pub fn unknown_guests(&self) -> Option<Vec<UnknownGuest>> {
        self.lock().unknown_guests.clone()
    }

    /// What was told to differ.
    pub fn take_drift(&self) -> Vec<DriftReport> {
        std::mem::take(&mut self.lock().drift)
    }

    /// Whether anybody wants to know, as in an earlier release nobody does.
    pub fn want_drift(&self, wanted: bool) {
        self.change(|state| state.drift_unwanted = !wanted);
    }

    pub fn take_insight(&self) -> Vec<InsightBatch> {
        std::mem::take(&mut self.lock().insight)
    }

    /// Something of the last heartbeat.
    pub fn heartbeat<T>(&self, read: impl FnOnce(&Heartbeat) -> T) -> Option<T> {
        self.lock().last_heartbeat.as_ref().map(read)
    }

    /// Returns when `condition` holds; panics when that takes longer than a patient person would wait.
    pub async fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        let met = async {
            while !condition(self) {
                changes.changed().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), met).await.is_ok(), "never happened: {what}");
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self, call: &'static str) -> Result<MutexGuard<'_, State>, ControlPlaneError> {
        let mut state = self.lock();
        if state.unreachable {
            Err(ControlPlaneError::Unreachable { call, source: "cut off".into() })
        } else if state.removed {
            state.told_removed += 1;
            drop(state);
            self.changes.send_modify(|count| *count += 1);
            Err(ControlPlaneError::Removed)
        } else {
            Ok(state)
        }
    }

    fn in_session(
        &self,
        call: &'static str,
        epoch: Epoch,
    ) -> Result<MutexGuard<'_, State>, ControlPlaneError> {
        let state = self.reached(call)?;
        if state.epoch == epoch.0 { Ok(state) } else { Err(ControlPlaneError::StaleEpoch) }
    }
}

impl State {
    fn is_asked(&self, call: &'static str, image: TransferId) -> Result<(), ControlPlaneError> {
        let gone = || ControlPlaneError::Refused { call, status: 404, code: "not_found".to_owned() };
        self.images_asked.get(&image).map(drop).ok_or_else(gone)
    }

    fn page(&self, after: Revision) -> Option<DesiredPage> {
        let mut objects: Vec<_> = self
            .objects
            .values()
            .chain(&self.networks)
            .chain(&self.transfers_asked)
            .chain(self.images_asked.values())
            .filter(|o| o.revision > after)
            .cloned()
            .collect();
        objects.sort_by_key(|object| object.revision);
        let complete = after == Revision(0);
        let requests = self.consoles_asked.iter().filter(|(revision, _)| *revision > after);
        let requests: Vec<_> = requests.map(|(_, request)| request.clone()).collect();
        (complete || !objects.is_empty() || !requests.is_empty()).then_some(DesiredPage {
            revision: Revision(self.revision.max(1)),
            complete,
            objects,
            requests,
        })
    }
}

#[async_trait]
impl ControlPlane for FakeControlPlane {
    async fn open_session(&self, request: &OpenSession) -> Result<SessionOpened, ControlPlaneError> {
        let epoch = {
            let mut state = self.reached("the session")?;
            if state.of_release_before && request.protocol_version != EARLIEST_PROTOCOL_VERSION {
                let detail = "upgrade the control plane first".to_owned();
                return Err(ControlPlaneError::UnsupportedProtocol { detail });
            }
            state.spoken = request.protocol_version;
            state.epoch += 1;
            state.unknown_guests = None;
            state.inventory = Some(request.inventory.clone());
            state.epoch
        };
        self.hear("open_session", request);
        self.changes.send_modify(|count| *count += 1);
        let host_id = HostId::from(Uuid::nil());
        let protocol_version = request.protocol_version;
        Ok(SessionOpened { host_id, epoch: Epoch(epoch), heartbeat_seconds: 1, protocol_version })
    }

    async fn desired(&self, query: &DesiredQuery) -> Result<DesiredPage, ControlPlaneError> {
        self.change(|state| state.seen = query.after);
        let mut changes = self.changes.subscribe();
        let poll = async {
            loop {
                changes.borrow_and_update();
                if let Some(page) = self.in_session("the desired state", query.epoch)?.page(query.after) {
                    return Ok(page);
                }
                changes.changed().await.unwrap();
            }
        };
        let nothing =
            DesiredPage { revision: query.after, complete: false, objects: Vec::new(), requests: Vec::new() };
        tokio::time::timeout(Duration::from_secs(query.wait_seconds.into()), poll)
            .await
            .unwrap_or(Ok(nothing))
    }

    async fn observed(&self, batch: &ObservedBatch) -> Result<ObservedAccepted, ControlPlaneError> {
        assert!(batch.reports.len() <= MAX_REPORTS);
        self.changes.subscribe().wait_for(|_| !self.lock().reports_held).await.unwrap();
        drop(self.in_session("the reports", batch.epoch)?);
        self.hear("observed_batch", batch);
        self.change(|state| {
            if batch.network.is_some() {
                state.network_report.clone_from(&batch.network);
            }
            if batch.unknown_guests.is_some() {
                state.unknown_guests.clone_from(&batch.unknown_guests);
            }
            for report in &batch.reports {
                state.steps.extend(report.steps.iter().cloned());
                state.reports.insert(report.id, InstanceReport { steps: Vec::new(), ..report.clone() });
            }
        });
        Ok(ObservedAccepted { ignored: Vec::new() })
    }

    async fn insight(&self, batch: &InsightBatch) -> Result<InsightAccepted, ControlPlaneError> {
        drop(self.in_session("the measurements", batch.epoch)?);
        self.hear("insight_batch", batch);
        let InsightBatch { epoch, samples, guests } = batch;
        let batch = InsightBatch { epoch: *epoch, samples: samples.clone(), guests: guests.clone() };
        self.change(|state| state.insight.push(batch));
        Ok(InsightAccepted { sample_seconds: 1, guest_seconds: 60 })
    }

    async fn drift(&self, report: &DriftReport) -> Result<DriftAccepted, ControlPlaneError> {
        let mut state = self.in_session("what differs", report.epoch)?;
        if state.drift_unwanted {
            let code = "not_found".to_owned();
            return Err(ControlPlaneError::Refused { call: "what differs", status: 404, code });
        }
        state.drift.push(report.clone());
        Ok(DriftAccepted { look_seconds: 60 })
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ControlPlaneError> {
        drop(self.in_session("the heartbeat", heartbeat.epoch)?);
        self.hear("heartbeat", heartbeat);
        let mut report_all = false;
        self.change(|state| {
            report_all = std::mem::take(&mut state.ask_for_everything);
            state.last_heartbeat = Some(Heartbeat {
                epoch: heartbeat.epoch,
                hypervisor: heartbeat.hypervisor.clone(),
                observed_digest: heartbeat.observed_digest,
                quarantined: heartbeat.quarantined,
                pool: heartbeat.pool,
                shared_pools: heartbeat.shared_pools.clone(),
                guarded_pools: heartbeat.guarded_pools.clone(),
                seen_leases: heartbeat.seen_leases.clone(),
            });
        });
        let before = self.lock().of_release_before;
        let protocol_version = if before { EARLIEST_PROTOCOL_VERSION } else { PROTOCOL_VERSION };
        Ok(HeartbeatReply { report_all, protocol_version })
    }

    async fn blob(&self, sha256: Sha256) -> Result<ByteStream, ControlPlaneError> {
        let mut changes = self.changes.subscribe();
        changes.wait_for(|_| !self.lock().held.contains(&sha256)).await.unwrap();
        let gone =
            ControlPlaneError::Refused { call: "the image", status: 404, code: "not_found".to_owned() };
        let mut state = self.reached("the image")?;
        let bytes = state.blobs.get(&sha256).cloned().ok_or(gone)?;
        state.blobs_sent += 1;
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    async fn transfer(&self, id: TransferId, epoch: Epoch, bytes: Vec<u8>) -> Result<(), ControlPlaneError> {
        drop(self.in_session("the transfer", epoch)?);
        self.change(|state| drop(state.transfers.insert(id, bytes)));
        Ok(())
    }

    async fn send_image(
        &self,
        id: TransferId,
        epoch: Epoch,
        size_bytes: u64,
        bytes: ByteStream,
    ) -> Result<(), ControlPlaneError> {
        const CALL: &str = "the image that was asked for";
        let broken = {
            let mut state = self.in_session(CALL, epoch)?;
            state.is_asked(CALL, id)?;
            let broken = state.broken_images > 0;
            state.broken_images = state.broken_images.saturating_sub(1);
            broken
        };
        let pieces: Vec<Bytes> = bytes.take(if broken { 1 } else { usize::MAX }).try_collect().await.unwrap();
        if broken {
            return Err(ControlPlaneError::Unreachable { call: CALL, source: "broken off".into() });
        }
        let bytes = pieces.concat();
        assert_eq!(bytes.len() as u64, size_bytes);
        self.in_session(CALL, epoch)?.is_asked(CALL, id)?;
        self.change(|state| {
            state.images_asked.remove(&id);
            state.images.insert(id, bytes);
        });
        Ok(())
    }

    async fn bring_console(
        &self,
        id: ConsoleId,
        epoch: Epoch,
        dial: Option<&str>,
    ) -> Result<consoles::Stream, ControlPlaneError> {
        const CALL: &str = "the console that was asked for";
        if self.in_session(CALL, epoch)?.consoles_unwanted {
            return Err(ControlPlaneError::Refused { call: CALL, status: 404, code: "not_found".to_owned() });
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        self.change(|state| drop(state.consoles.insert(id, (ours, dial.map(str::to_owned)))));
        Ok(Box::new(theirs))
    }

    async fn refuse(&self, id: TransferId, epoch: Epoch, refusal: &Refusal) -> Result<(), ControlPlaneError> {
        drop(self.in_session("a refusal", epoch)?);
        self.change(|state| {
            state.refusals.insert(id, refusal.reason);
        });
        Ok(())
    }

    async fn image_status(&self, id: TransferId, status: &ImageStatus) -> Result<(), ControlPlaneError> {
        const CALL: &str = "the state of an image";
        self.in_session(CALL, status.epoch)?.is_asked(CALL, id)?;
        self.change(|state| {
            if matches!(status.status, Sending::Failed { .. }) {
                state.images_asked.remove(&id);
            }
            state.sending.push((id, status.status.clone()));
        });
        Ok(())
    }
}

/// For those who only need somebody to be there.
impl FakeControlPlane {
    pub fn with_blob(sha256: Sha256, bytes: Bytes) -> Arc<Self> {
        let fake = Self::default();
        fake.store_blob(sha256, bytes);
        Arc::new(fake)
    }
}
