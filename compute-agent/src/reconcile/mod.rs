//! Making one instance after the other as it is wanted.
//!
//! A [`Reconciler::pass`] looks, decides one step ([`plan`]), does it ([`apply`]), and looks again, until
//! the instance is settled, has to wait, or cannot go on. It takes no input and keeps no promise in memory:
//! whoever kills it anywhere and runs it again gets the same end. [`workers`] runs the passes, [`events`]
//! says when.

mod apply;
pub mod boots;
mod cards;
pub(crate) mod chains;
mod disks;
pub mod events;
mod guarded;
pub mod migrating;
mod observe;
mod pauses;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod underway;
pub mod view;
pub mod workers;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::InstanceId;
use protocol::agent::{InstanceReport, Migration, PauseReason, Step as Told, UnknownGuest, told_of_unknown};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::chain;
use crate::clock::SharedClock;
use crate::control_plane::ControlPlane;
use crate::desired::{DesiredStore, Wanted};
use crate::durable::off_thread;
use crate::guard::{Guards, Unready};
use crate::host_storage::HostStorage;
use crate::hypervisor::{Domain, DomainState, EndCause, Hypervisor, HypervisorError, Transfer};
use crate::migration::Relays;
use crate::networks::Keeper;
use crate::report::Outbox;
use apply::{Limits, StepError};
use boots::{BootRecord, Boots};
use pauses::has_room;
use plan::{Memory, Plan, Seen, Step, plan};
use underway::Underway;
use view::DomainView;

/// More steps than this without rest means that a deed has no effect.
const MAX_STEPS_PER_PASS: u32 = 32;
/// How soon to look whether the control plane has been heard.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const NO_PROGRESS: &str = "The host could not bring the instance to the wanted state yet.";

/// Everything a pass works with.
pub struct Parts {
    pub desired: Arc<DesiredStore>,
    pub boots: Arc<Boots>,
    pub outbox: Arc<Outbox>,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub storage: Arc<dyn HostStorage>,
    pub networks: Arc<Keeper>,
    pub control_plane: Arc<dyn ControlPlane>,
    pub clock: SharedClock,
    pub guards: Arc<Guards>,
    pub relays: Arc<Relays>,
    /// The machine's current boot.
    pub machine_boot: Uuid,
    pub checkpoint: Arc<dyn Checkpoint>,
}

/// See the module.
pub struct Reconciler {
    parts: Parts,
    pub view: Arc<DomainView>,
    pub underway: Underway,
    limits: Limits,
    memories: Mutex<HashMap<InstanceId, Memory>>,
    /// False until the newest wishes are known, and while another agent speaks for this host.
    acting: watch::Sender<bool>,
    /// Whether this process has heard from the control plane itself what is wanted.
    confirmed: AtomicBool,
}

/// How a pass ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// As wanted.
    Settled,
    /// Nothing to do before that time, unless something happens.
    Wait(OffsetDateTime),
    /// A step failed while this was wanted; try again later.
    Failed(Arc<Wanted>),
    /// The hypervisor cannot be seen: no conclusions.
    Blind,
    /// This agent may not act now.
    Paused,
    /// Nothing is wanted of the instance.
    Unknown,
    /// A checkpoint ended the pass.
    Interrupted,
}

/// Where a pass may be cut off, to prove that the next one makes up for it.
pub trait Checkpoint: Send + Sync + 'static {
    fn reached(&self, id: InstanceId, step: &Step, moment: Moment) -> ControlFlow<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Decided, not begun.
    Before,
    /// Done, and nobody knows yet.
    Done,
    /// Done and noted in the trail.
    Noted,
}

/// Passes run to their end.
#[derive(Debug, Clone, Copy)]
pub struct Uninterrupted;

impl Checkpoint for Uninterrupted {
    fn reached(&self, _: InstanceId, _: &Step, _: Moment) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What a single round came to.
enum Round {
    Again,
    End(Outcome),
}

impl Reconciler {
    pub fn new(parts: Parts) -> Self {
        Self {
            view: Arc::new(DomainView::new(Arc::clone(&parts.hypervisor))),
            underway: Underway::default(),
            limits: Limits::default(),
            memories: Mutex::default(),
            acting: watch::Sender::new(false),
            confirmed: AtomicBool::new(false),
            parts,
        }
    }

    /// One instance, from whatever it is towards what it shall be. Never run twice at once for the same one.
    pub async fn pass(&self, id: InstanceId) -> Outcome {
        for _ in 0..MAX_STEPS_PER_PASS {
            let Some(wanted) = self.parts.desired.get(id) else {
                return self.forget(id).await;
            };
            match self.round(&wanted).await {
                Round::Again => {}
                Round::End(outcome) => return outcome,
            }
        }
        match self.parts.desired.get(id) {
            Some(wanted) => self.fail(&wanted, NO_PROGRESS, "no step of the plan has an effect"),
            None => Outcome::Unknown,
        }
    }

    async fn round(&self, wanted: &Arc<Wanted>) -> Round {
        let seen = match self.look(wanted).await {
            Ok(seen) => seen,
            Err(outcome) => return Round::End(outcome),
        };
        let now = self.parts.clock.now();
        let plan = plan(wanted, &seen, now);
        self.note(wanted, &[Told::AgentReceived]).await;
        // Layers are merged before a start, too.
        let is_stopped = || observe::observe(wanted, &seen).is_some_and(|seen| seen.is_stopped());
        if plan == Plan::Settled || (matches!(plan, Plan::Do(Step::MergeAtRest { .. })) && is_stopped()) {
            // Before the report: when a final state has been acknowledged, its step has been, too.
            self.note(wanted, observe::told_when_settled(wanted, &seen)).await;
        }
        self.report(wanted, &seen);
        match plan {
            Plan::Do(step) => self.step(wanted, &seen, &step).await,
            Plan::Wait(until) => Round::End(Outcome::Wait(until)),
            Plan::Settled => {
                let again = plan::look_again(&seen, now);
                Round::End(again.map_or(Outcome::Settled, Outcome::Wait))
            }
        }
    }

    /// Does one step, and lets the checkpoint cut it off.
    async fn step(&self, wanted: &Arc<Wanted>, seen: &Seen, step: &Step) -> Round {
        if !*self.acting.borrow() {
            return Round::End(Outcome::Paused);
        }
        if let Some(instead) = self.unless_confirmed(wanted, seen, step) {
            return instead;
        }
        let id = wanted.id();
        let cut_off = |moment| self.parts.checkpoint.reached(id, step, moment).is_break();
        if cut_off(Moment::Before) {
            return Round::End(Outcome::Interrupted);
        }
        tracing::debug!(instance = %id, ?step, "begin");
        let _underway = self.underway.begin(id);
        match self.apply(wanted, step).await {
            Ok(()) => {
                tracing::info!(instance = %id, generation = %wanted.generation(), ?step, "done");
                if cut_off(Moment::Done) {
                    return Round::End(Outcome::Interrupted);
                }
                self.remember(id, |memory| {
                    (memory.failure, memory.failing_since) = (None, None);
                    memory.not_taken = memory.not_taken.filter(|_| !matches!(step, Step::Snapshot { .. }));
                });
                self.note(wanted, observe::told_after(step, seen)).await;
                if cut_off(Moment::Noted) { Round::End(Outcome::Interrupted) } else { Round::Again }
            }
            Err(StepError::LookAgain) => Round::Again,
            Err(StepError::Blind(error)) => {
                self.view.set_blind(&error);
                Round::End(Outcome::Blind)
            }
            Err(StepError::Failed { detail, source }) => {
                let outcome = self.fail(wanted, detail, &chain(source.as_ref()));
                self.report_again(wanted, seen);
                Round::End(outcome)
            }
        }
    }

    /// INVARIANT: the event about an end is taken out before the domains are listed. A domain that is
    /// listed as running after that is another one than the event spoke of.
    async fn look(&self, wanted: &Arc<Wanted>) -> Result<Seen, Outcome> {
        let id = wanted.id();
        let ended = self.memory(id).ended;
        let listing = self.view.look().await.map_err(|error| {
            tracing::debug!(instance = %id, error = %chain(&error), "hypervisor not seen");
            Outcome::Blind
        })?;
        let domain = listing.get(&id).cloned();
        if domain.as_ref().is_some_and(|domain| domain.state == DomainState::Unreadable) {
            // As blind as without a connection, but about this one alone.
            tracing::warn!(instance = %id, "its domain cannot be read: nothing is changed or reported");
            return Err(Outcome::Failed(Arc::clone(wanted)));
        }
        let record = self.parts.boots.get(id);
        let is_live = domain.as_ref().is_some_and(|domain| domain.state != DomainState::Off);
        let comes = matches!(wanted.migration(), Some(Migration::Incoming { .. }));
        let (idle, in_use) = match disks::idle(wanted, domain.as_ref().filter(|_| is_live)) {
            // Another host has them open.
            (idle, in_use) if comes => (Vec::new(), [idle, in_use].concat()),
            known => known,
        };
        let files = self.parts.storage.look(id, &idle, &in_use, wanted.doomed()).await;
        let files = files.map_err(|error| {
            let detail = error.detail();
            let outcome = self.fail(wanted, detail, &chain(&error));
            self.remember(id, |memory| memory.failure = Some(detail));
            outcome
        })?;
        let guard = self.look_at_guard(wanted, record.as_ref(), domain.as_ref().filter(|_| is_live)).await?;
        let now = self.parts.clock.now();
        let has_room = self.has_room_for(domain.as_ref()).await;
        let memory = self.remember(id, |memory| {
            let stands_still = domain.as_ref().is_some_and(|it| matches!(it.state, DomainState::Paused(_)));
            memory.paused_since = if stands_still { memory.paused_since.or(Some(now)) } else { None };
            memory.resumed = memory.resumed.and_then(|resumed| resumed.kept(domain.as_ref(), now));
            if is_live && memory.ended == ended {
                memory.ended = None;
            }
            memory.missing_since = if is_live { None } else { memory.missing_since.or(Some(now)) };
            memory.unguarded_since =
                guard.unready.filter(|_| comes).and(memory.unguarded_since.or(Some(now)));
        });
        let ports = self.parts.networks.readiness(wanted.nics().iter().map(|nic| nic.port_id));
        let awaited = wanted.nics().iter().filter(|_| comes).map(|nic| nic.network_id);
        let networks = self.parts.networks.networks(awaited);
        let machine_boot = self.parts.machine_boot;
        let memory_saved = self.is_memory_saved(wanted).await;
        let transfer = self.look_at_transfer(id, record.as_ref(), is_live).await?;
        let expected_at = wanted.migration().and_then(|one| self.parts.relays.expected_at(id, one.id()));
        Ok(Seen {
            domain,
            record,
            files,
            guard,
            ports,
            networks,
            has_room,
            machine_boot,
            memory_saved,
            transfer,
            expected_at,
            memory,
        })
    }

    /// Looks whether there is room if that may be what the guest waits for.
    async fn has_room_for(&self, domain: Option<&Domain>) -> bool {
        let failures = [PauseReason::PoolFull, PauseReason::IoError].map(DomainState::Paused);
        if domain.is_none_or(|domain| !failures.contains(&domain.state)) {
            return true;
        }
        match self.parts.storage.usage().await {
            Ok(usage) => has_room(&usage),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "how much room there is in the pool is not known");
                false
            }
        }
    }

    /// How far a guest is that comes or goes.
    async fn look_at_transfer(
        &self,
        id: InstanceId,
        record: Option<&BootRecord>,
        is_live: bool,
    ) -> Result<Option<Transfer>, Outcome> {
        if !is_live || !migrating::is_underway(record) {
            return Ok(None);
        }
        match self.parts.hypervisor.transfer(id).await {
            Ok(transfer) => Ok(Some(transfer)),
            Err(HypervisorError::NotFound(_)) => Ok(None),
            Err(error) => {
                tracing::warn!(instance = %id, error = %chain(&error), "how far the guest is cannot be seen");
                Err(Outcome::Wait(self.parts.clock.now() + ASK_AGAIN))
            }
        }
    }

    /// Whether the guest's memory is there that is to be kept. What cannot be seen is not there.
    async fn is_memory_saved(&self, wanted: &Wanted) -> bool {
        let Some(save) = wanted.save_memory() else { return false };
        let found = self.parts.storage.memory(&save.file).await;
        found.is_ok_and(|found| found.is_some())
    }

    /// The control plane has said itself what is wanted of this host.
    pub fn confirmed(&self) {
        self.confirmed.store(true, Ordering::Release);
    }

    /// INVARIANT: no guest gets a disk that other hosts reach by what an earlier process had heard. This machine may
    /// have been dead in between, and the disk be another host's.
    ///
    /// Nor while the leases are not held that others go by who would take it over. But a guest leaves: a guard that was told to
    /// end waits for that, and holds them until then.
    fn unless_confirmed(&self, wanted: &Arc<Wanted>, seen: &Seen, step: &Step) -> Option<Round> {
        let uses_disks = match step {
            Step::EnsureVolumes { .. }
            | Step::RecordStarting
            | Step::CreateDomain
            | Step::RecordIncoming { .. }
            | Step::CreateWaiting { .. }
            | Step::Send { .. }
            | Step::AttachDisk { .. }
            | Step::Snapshot { .. }
            | Step::Merge(_)
            | Step::MergeAtRest { .. } => true,
            // Of one that has ended meanwhile nothing goes on, and whoever waits for it has to hear of that.
            Step::RecordArrived => seen.live().is_some(),
            _ => false,
        };
        if !uses_disks || !wanted.is_shared() {
            return None;
        }
        if !self.confirmed.load(Ordering::Acquire) {
            tracing::info!(instance = %wanted.id(), ?step, "waits for the control plane: its disks are shared");
            return Some(Round::End(Outcome::Wait(self.parts.clock.now() + ASK_AGAIN)));
        }
        let may_leave = seen.guard.unready == Some(Unready::Ending) && matches!(step, Step::Send { .. });
        if let Some(unready) = seen.guard.unready.filter(|_| !may_leave) {
            tracing::info!(instance = %wanted.id(), ?step, ?unready, "waits for the guard");
            return Some(Round::End(Outcome::Wait(self.parts.clock.now() + ASK_AGAIN)));
        }
        // Decided before the control plane was heard, perhaps.
        let newest = self.parts.desired.get(wanted.id());
        (!newest.is_some_and(|newest| Arc::ptr_eq(&newest, wanted))).then_some(Round::Again)
    }

    /// A domain's end was announced.
    pub fn ended(&self, id: InstanceId, why: EndCause) {
        self.remember(id, |memory| memory.ended = Some(why));
    }

    /// Allows or forbids steps.
    pub fn set_acting(&self, acting: bool) {
        self.acting.send_if_modified(|before| std::mem::replace(before, acting) != acting);
    }

    /// Follows whether steps are allowed.
    pub fn acting(&self) -> watch::Receiver<bool> {
        self.acting.subscribe()
    }

    async fn until_acting_or(&self, stop: &CancellationToken) {
        let mut acting = self.acting.subscribe();
        tokio::select! {
            // The sender lives in `self`, so the channel cannot be closed.
            _ = acting.wait_for(|acting| *acting) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Domains of ours of which nothing is wanted. They are left alone.
    pub fn quarantined(&self) -> usize {
        self.unknown().map_or(0, |unknown| unknown.len())
    }

    /// The same with what was wanted of them once; `None` as long as nobody knows.
    pub fn unknown_guests(&self) -> Option<Vec<UnknownGuest>> {
        let desired = &self.parts.desired;
        let guests = self.unknown()?.into_iter();
        Some(told_of_unknown(guests.map(|(id, runs)| UnknownGuest { id, runs, spec: desired.last_spec(id) })))
    }

    fn unknown(&self) -> Option<Vec<(InstanceId, bool)>> {
        let wanted: HashSet<_> = self.parts.desired.ids().into_iter().collect();
        self.view.unknown(&wanted)
    }

    fn report(&self, wanted: &Wanted, seen: &Seen) {
        self.parts
            .outbox
            .report_migration(wanted.id(), migrating::told(wanted, seen, self.parts.clock.now()));
        let Some(observation) = observe::observe(wanted, seen) else { return };
        self.parts.outbox.report(InstanceReport {
            id: wanted.id(),
            generation: wanted.generation(),
            boot: observation.boot,
            state: observation.state,
            volumes: observation.volumes,
            leaving_cards: Some(cards::leaving(wanted, seen)),
            paused: observation.paused,
            not_taken: seen.memory.not_taken(wanted.generation()),
            saved_memory: wanted.save_memory().filter(|_| seen.memory_saved).map(|save| save.file.id),
            detail: observation.detail,
            steps: Vec::new(),
        });
    }

    /// The same look, told with what has been learnt since.
    fn report_again(&self, wanted: &Wanted, seen: &Seen) {
        self.report(wanted, &Seen { memory: self.memory(wanted.id()), ..seen.clone() });
    }

    async fn note(&self, wanted: &Wanted, steps: &'static [Told]) {
        let (Some(operation_id), false) = (wanted.operation_id(), steps.is_empty()) else { return };
        let (outbox, id, at) = (Arc::clone(&self.parts.outbox), wanted.id(), self.parts.clock.now());
        if !outbox.is_news(id, operation_id, steps) {
            return;
        }
        if let Err(error) = off_thread(move || outbox.note(id, operation_id, steps, at)).await {
            // The step is told all the same, unless the agent ends before that.
            tracing::warn!(instance = %id, %error, "the trail could not be written down");
        }
    }

    fn fail(&self, wanted: &Arc<Wanted>, detail: &'static str, cause: &str) -> Outcome {
        let id = wanted.id();
        tracing::warn!(instance = %id, generation = %wanted.generation(), cause, "cannot go on: {detail}");
        let now = self.parts.clock.now();
        self.remember(id, |memory| {
            memory.failure = Some(detail);
            memory.failing_since = memory.failing_since.or(Some(now));
        });
        Outcome::Failed(Arc::clone(wanted))
    }

    async fn forget(&self, id: InstanceId) -> Outcome {
        self.memories().remove(&id);
        self.parts.relays.forget(id);
        let outbox = Arc::clone(&self.parts.outbox);
        if let Err(error) = off_thread(move || outbox.forget(id)).await {
            tracing::warn!(instance = %id, %error, "the trail could not be removed");
        }
        Outcome::Unknown
    }

    fn memory(&self, id: InstanceId) -> Memory {
        self.memories().get(&id).cloned().unwrap_or_default()
    }

    fn remember(&self, id: InstanceId, change: impl FnOnce(&mut Memory)) -> Memory {
        let mut memories = self.memories();
        let memory = memories.entry(id).or_default();
        change(memory);
        memory.clone()
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<InstanceId, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
