//! Doing one step. Dumb: everything was decided before.

mod disks;
mod migrating;

use std::sync::Arc;

use protocol::agent::{Firmware, InstanceSpec, MemoryFile, Migration};
use protocol::{InstanceId, MacAddress, PortId};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Reconciler;
use super::boots::{BootRecord, Phase};
use super::pauses::Resumed;
use super::plan::{Step, tuning};
use crate::desired::Wanted;
use crate::durable::off_thread;
use crate::host_storage::{BoxError, HostStorageError};
use crate::hypervisor::{DomainSpec, HypervisorError};
use crate::networks::Readiness;

/// Steps that touch the host at the same time; libvirt serves five requests of a connection at once.
const PARALLEL_STEPS: usize = 8;
/// Different images that are fetched at the same time.
const PARALLEL_DOWNLOADS: usize = 4;

const NOT_STARTED: &str = "The host could not start the instance.";
const NOT_ATTACHED: &str = "The host could not plug a network card in.";
const NOT_STOPPED: &str = "The host could not stop the instance.";
const NOT_LOADED: &str = "The host could not load the memory that the instance was to go on from. Nothing of its disks has \
     changed: stop it, and restore the snapshot with `memory` set to false to boot from them.";
const NO_MEMORY: &str = "The memory that the instance was to go on from is not on its host. Stop it, and restore the snapshot with \
     `memory` set to false.";
const NOT_PAUSED: &str = "The host could not pause the instance.";
const NOT_RECORDED: &str = "The host could not write down what it does.";

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum StepError {
    /// The world, or what is wanted of it, is another than it was when the step was decided.
    LookAgain,
    Blind(HypervisorError),
    Failed {
        detail: &'static str,
        source: BoxError,
    },
}

/// Bounds what happens at once.
#[derive(Debug)]
pub(super) struct Limits {
    steps: Semaphore,
    downloads: Arc<Semaphore>,
    /// Merges of volumes that nobody uses, which have time.
    merges: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: Semaphore::new(PARALLEL_STEPS),
            downloads: Arc::new(Semaphore::new(PARALLEL_DOWNLOADS)),
            merges: Semaphore::new(1),
        }
    }
}

impl Reconciler {
    pub(super) async fn apply(&self, wanted: &Arc<Wanted>, step: &Step) -> Result<(), StepError> {
        let id = wanted.id();
        match step {
            Step::EnsureBases => self.ensure_bases(wanted).await,
            Step::EnsureVolumes { volumes } => self.ensure_volumes(instance(wanted)?, volumes).await,
            Step::EnsureNetwork => self.ensure_network(instance(wanted)?).await,
            Step::EnsureSeed => self.ensure_seed(instance(wanted)?).await,
            Step::Guard(entry) => {
                let (guards, entry) = (Arc::clone(&self.parts.guards), entry.clone());
                written(off_thread(move || guards.put(id, &entry)).await)
            }
            Step::Unguard => {
                let guards = Arc::clone(&self.parts.guards);
                written(off_thread(move || guards.remove(id)).await)
            }
            Step::CreateDomain => self.create_domain(instance(wanted)?).await,
            Step::AttachNic { port_id } => self.attach_nic(instance(wanted)?, *port_id).await,
            Step::DetachNic { mac } => self.detach_nic(id, *mac).await,
            Step::AttachDisk { volume } => self.attach_disk(instance(wanted)?, *volume).await,
            Step::DetachDisk { volume } => self.detach_disk(id, *volume).await,
            Step::Snapshot { layers, memory } => self.snapshot(wanted, layers, memory.as_ref()).await,
            Step::Thaw => self.thaw(id).await,
            Step::Merge(merge) => self.merge(instance(wanted)?, merge).await,
            Step::MergeAtRest { volumes } => self.merge_at_rest(wanted, volumes).await,
            Step::TuneDisk { volume } => self.tune_disk(instance(wanted)?, *volume).await,
            Step::RecordPaused { paused } => self.amend_record(id, |record| record.paused = *paused).await,
            Step::Suspend => self.suspend(id).await,
            Step::Resume => self.resume(id).await,
            Step::RecordIncoming { id } => self.record_incoming(instance(wanted)?, *id).await,
            Step::CreateWaiting { id } => self.create_waiting(instance(wanted)?, *id).await,
            Step::Expect { .. } => self.expect(instance(wanted)?).await,
            Step::RecordArrived => self.record_arrived(instance(wanted)?).await,
            Step::RecordOutgoing { id, stage } => self.record_outgoing(instance(wanted)?, *id, *stage).await,
            Step::Send { .. } => self.send(instance(wanted)?).await,
            Step::Mirror { id } => self.mirror(instance(wanted)?, *id).await,
            Step::SwitchOver { id } => self.switch_over(instance(wanted)?, *id).await,
            Step::CallOff { id } => self.call_off(instance(wanted)?, *id).await,
            Step::PressPowerButton => self.press_power_button(id).await,
            Step::DestroyDomain => self.destroy_domain(id).await,
            Step::RemoveFiles => {
                let _turn = self.turn().await;
                self.parts.storage.remove_instance(id).await?;
                Ok(self.parts.storage.remove_layers(wanted.doomed()).await?)
            }
            Step::RecordStarting => self.record_starting(instance(wanted)?).await,
            Step::RecordStarted { boot } => {
                let same = self.parts.boots.get(id).filter(|record| record.boot == *boot);
                let paused = same.as_ref().is_some_and(|record| record.paused);
                let freezing = same.as_ref().is_some_and(|record| record.freezing);
                let loads =
                    instance(wanted).is_ok_and(|spec| spec.boot == *boot && spec.load_memory.is_some());
                // INVARIANT: written down before the guest goes on, or its disks would be those of another moment when
                // it is loaded again.
                let was_loaded = same.as_ref().is_some_and(|record| record.loaded);
                let (loaded, to_resume) = (loads || was_loaded, loads && !was_loaded);
                let outgoing = same.and_then(|record| record.outgoing);
                let new = self.new_record(*boot, Phase::Started);
                self.record(id, Some(BootRecord { freezing, paused, loaded, to_resume, outgoing, ..new }))
                    .await?;
                self.remember(id, |memory| memory.pressed_at = None);
                Ok(())
            }
            Step::RecordResumed => self.amend_record(id, |record| record.to_resume = false).await,
            Step::RecordStopping { deadline } => {
                self.amend_record(id, |record| record.stop_deadline = Some(*deadline)).await
            }
            Step::RecordEnded { reason } => {
                let ended = |record: &mut BootRecord| {
                    record.phase = Phase::Ended(*reason);
                    record.stop_deadline = None;
                    record.freezing = false;
                    record.to_resume = false;
                    record.paused = false;
                };
                self.amend_record(id, ended).await
            }
            Step::ForgetRecord => self.record(id, None).await,
        }
    }

    async fn ensure_seed(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        let _turn = self.turn().await;
        self.parts.storage.ensure_seed(spec).await?;
        self.remember(spec.id, |memory| memory.seed_made = Some(spec.generation));
        Ok(())
    }

    async fn record_starting(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        let same = self.parts.boots.get(spec.id).filter(|record| record.boot == spec.boot);
        let loaded = same.is_some_and(|record| record.loaded);
        let record = BootRecord { loaded, ..self.new_record(spec.boot, Phase::Starting) };
        self.record(spec.id, Some(record)).await?;
        self.remember(spec.id, |memory| memory.starting = Some(spec.boot));
        Ok(())
    }

    async fn create_domain(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        let _turn = self.turn().await;
        // Whatever was heard of an end was about an earlier domain.
        self.remember(spec.id, |memory| {
            memory.ended = None;
            memory.missing_since = None;
            memory.created = None;
            memory.pressed_at = None;
            memory.detaching.clear();
            memory.letting_go.clear();
            memory.merging.clear();
            memory.thaw_again = None;
            memory.tuned.clear();
            memory.resumed = None;
        });
        if let Some(memory) = self.memory_to_load(spec) {
            return self.load_memory(spec, memory).await;
        }
        let domain = self.domain_spec(spec).await?;
        let created = self.parts.hypervisor.create(&domain).await;
        created.map_err(|error| StepError::of(error, NOT_STARTED))?;
        self.remember(spec.id, |memory| {
            memory.created = Some(spec.boot);
            memory.tuned = spec.disks.iter().map(tuning).collect();
        });
        // The taps are there now.
        if !spec.nics.is_empty() {
            self.parts.networks.nudge();
        }
        Ok(())
    }

    /// What this boot begins with, unless it has begun once.
    fn memory_to_load<'a>(&self, spec: &'a InstanceSpec) -> Option<&'a MemoryFile> {
        let record = self.parts.boots.get(spec.id);
        let was_loaded = record.is_some_and(|record| record.boot == spec.boot && record.loaded);
        spec.load_memory.as_ref().filter(|_| !was_loaded)
    }

    /// Starts a domain whose guest stands still. What its disks are given is not as it was.
    async fn load_memory(&self, spec: &InstanceSpec, memory: &MemoryFile) -> Result<(), StepError> {
        let missing = || StepError::Failed { detail: NO_MEMORY, source: "there is no such file".into() };
        let path = self.parts.storage.memory(memory).await?.ok_or_else(missing)?;
        let domain = self.domain_spec(spec).await?;
        let loaded = self.parts.hypervisor.restore(&domain, &path).await;
        loaded.map_err(|error| StepError::of(error, NOT_LOADED))?;
        self.remember(spec.id, |memory| memory.created = Some(spec.boot));
        self.parts.networks.nudge();
        Ok(())
    }

    /// What is not ready after that has to be waited for.
    async fn ensure_network(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        self.parts.networks.ensure().await;
        if matches!(spec.migration, Some(Migration::Incoming { .. })) {
            return Ok(());
        }
        let ports = self.parts.networks.readiness(spec.nics.iter().map(|nic| nic.port_id));
        let ready = ports.values().all(|readiness| *readiness == Readiness::Ready);
        if ready { Ok(()) } else { Err(StepError::LookAgain) }
    }

    async fn attach_nic(&self, spec: &InstanceSpec, port: PortId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let nic = spec.nics.iter().find(|nic| nic.port_id == port).ok_or(StepError::LookAgain)?;
        let attached = self.parts.hypervisor.attach_card(spec.id, nic).await;
        attached.map_err(|error| StepError::of(error, NOT_ATTACHED))?;
        // The tap is there now.
        self.parts.networks.nudge();
        Ok(())
    }

    async fn detach_nic(&self, id: InstanceId, mac: MacAddress) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let now = self.parts.clock.now();
        let asked = self.parts.hypervisor.detach_card(id, mac).await;
        self.remember(id, |memory| {
            memory.detaching.insert(mac, now);
        });
        unless_ignored(id, asked)
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let suspended = self.parts.hypervisor.suspend(id).await;
        suspended.map_err(|error| StepError::of(error, NOT_PAUSED))
    }

    async fn resume(&self, id: InstanceId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let now = self.parts.clock.now();
        let resumed = self.parts.hypervisor.resume(id).await;
        let on_request = self.parts.boots.get(id).is_some_and(|record| record.paused);
        self.remember(id, |memory| {
            if !on_request {
                memory.resumed = Some(Resumed::again(memory.resumed, now));
            }
            memory.paused_since = None;
        });
        unless_ignored(id, resumed)
    }

    async fn press_power_button(&self, id: InstanceId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let now = self.parts.clock.now();
        let pressed = self.parts.hypervisor.press_power_button(id).await;
        self.remember(id, |memory| memory.pressed_at = Some(now));
        unless_ignored(id, pressed)
    }

    async fn destroy_domain(&self, id: InstanceId) -> Result<(), StepError> {
        let _turn = self.turn().await;
        let destroyed = self.parts.hypervisor.destroy(id).await;
        // Nobody is expected for what is gone.
        self.parts.relays.forget(id);
        destroyed.map_err(|error| StepError::of(error, NOT_STOPPED))
    }

    async fn domain_spec(&self, spec: &InstanceSpec) -> Result<DomainSpec, StepError> {
        let mut disks = Vec::with_capacity(spec.disks.len());
        for disk in &spec.disks {
            disks.push(self.domain_disk(disk).await?);
        }
        let places = self.parts.storage.places(spec.id).await?;
        // Beside the seed, and so removed with it.
        let variables = places.seed.with_file_name("uefi_variables.fd");
        Ok(DomainSpec {
            id: spec.id,
            generation: spec.generation,
            boot: spec.boot,
            hostname: spec.hostname.clone(),
            architecture: spec.architecture,
            uefi_variables: (spec.firmware == Firmware::Uefi).then_some(variables),
            hardware: spec.hardware.clone(),
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            nics: spec.nics.clone(),
            disks,
            seed: places.seed,
            serial_log: places.serial_log,
            request_id: spec.request_id,
        })
    }

    fn new_record(&self, boot: i64, phase: Phase) -> BootRecord {
        let machine_boot = self.parts.machine_boot;
        BootRecord {
            boot,
            machine_boot,
            phase,
            stop_deadline: None,
            to_resume: false,
            loaded: false,
            freezing: false,
            paused: false,
            incoming: None,
            outgoing: None,
        }
    }

    async fn amend_record(
        &self,
        id: InstanceId,
        amend: impl FnOnce(&mut BootRecord),
    ) -> Result<(), StepError> {
        let mut record = self.parts.boots.get(id).ok_or(StepError::LookAgain)?;
        amend(&mut record);
        self.record(id, Some(record)).await
    }

    async fn record(&self, id: InstanceId, record: Option<BootRecord>) -> Result<(), StepError> {
        let boots = Arc::clone(&self.parts.boots);
        let change = off_thread(move || match record {
            Some(record) => boots.put(id, record),
            None => boots.forget(id),
        });
        written(change.await)
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed: there is always a permit to come.
        self.limits.steps.acquire().await.ok()
    }
}

/// The specification, or a fresh look if the instance has been deleted meanwhile.
fn instance(wanted: &Wanted) -> Result<&InstanceSpec, StepError> {
    match wanted {
        Wanted::Instance(spec) => Ok(spec),
        Wanted::Deleted { .. } => Err(StepError::LookAgain),
    }
}

fn written(written: std::io::Result<()>) -> Result<(), StepError> {
    written.map_err(|error| StepError::Failed { detail: NOT_RECORDED, source: error.into() })
}

/// What came of asking a guest for something. A request that failed is as good as one that the guest ignored:
/// it is repeated no sooner, and others decide how long to wait.
fn unless_ignored(id: InstanceId, asked: Result<(), HypervisorError>) -> Result<(), StepError> {
    match asked {
        Ok(()) => Ok(()),
        Err(HypervisorError::NotFound(_)) => Err(StepError::LookAgain),
        Err(error @ HypervisorError::Unreachable(_)) => Err(StepError::Blind(error)),
        Err(error) => {
            tracing::warn!(instance = %id, error = %crate::chain(&error), "the guest was not asked");
            Err(StepError::LookAgain)
        }
    }
}

impl StepError {
    fn of(error: HypervisorError, detail: &'static str) -> Self {
        match error {
            HypervisorError::Unreachable(_) => Self::Blind(error),
            HypervisorError::Exists(_) | HypervisorError::NotFound(_) => Self::LookAgain,
            error => Self::Failed { detail, source: error.into() },
        }
    }
}

impl From<HostStorageError> for StepError {
    fn from(error: HostStorageError) -> Self {
        Self::Failed { detail: error.detail(), source: error.into() }
    }
}
