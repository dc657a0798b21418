//! The hypervisor that runs guests: QEMU, through libvirt.
//!
//! ```text
//! mod.rs        the calls of the trait, each a few libvirt calls
//! link.rs       the connection: background, reconnecting, bounded in calls and in time
//! sys.rs        callbacks; the only unsafe code
//! lifecycle.rs  libvirt's events to ours
//! console.rs    displays and serial ports as streams
//! snapshot.rs   snapshots, of guests at rest if that is wanted
//! memory.rs     memory that is saved and loaded
//! migrating.rs  guests that come and go
//! mirrors.rs    what they write to
//! node.rs       the machine, and which guests it can run
//! owner.rs      whose the files of disks are that several hosts reach
//! stats.rs      counters of all domains
//! guest.rs      what a guest's agent says
//! xml/          domain XML and our metadata in it
//! ```
//!
//! Domains are transient: libvirt forgets them when they end, and they outlive both this agent and libvirtd.

mod console;
mod guest;
mod lifecycle;
mod link;
mod memory;
mod migrating;
mod mirrors;
mod node;
mod owner;
mod snapshot;
mod stats;
mod sys;
mod xml;

use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use protocol::agent::{
    Acceleration, Architecture, ConsoleKind, DISK_MOVES, GUARDED_MIGRATION, GuestInfo, Inventory, IoLimits,
    LIVE_DISKS, LIVE_MIGRATION, NESTED_VIRTUALIZATION, Nic, PauseReason,
};
use protocol::{InstanceId, MacAddress, MemoryMib, SizeGib, VolumeId};
use tokio::net::UnixStream;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, broadcast};
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt::error::{Error, ErrorNumber};
use virt::sys as raw;

pub(crate) use self::xml::domain_name;

use self::link::Link;
use self::memory::{Due, Saving};
use self::sys::DiskError;
use super::probe::{self, Verdict};
use super::{
    Beside, Card, Domain, DomainDisk, DomainSpec, DomainState, Event, Hypervisor, HypervisorError, Measured,
    Merge, NewLayer, SeenVolume, Transfer,
};
use crate::clock::{Clock as _, SystemClock};
use crate::consoles;

/// Far above what an answer takes, even on a busy host.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// QEMU starts in under a second; libvirt itself gives it half a minute and more on a busy host.
const CREATE_LIMIT: Duration = Duration::from_secs(120);
/// libvirt asks QEMU to end, waits, and kills it.
const DESTROY_LIMIT: Duration = Duration::from_secs(60);
/// A guest may take its time to write down what it has in memory.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(120);
/// How often to look at a memory that is being saved.
const SAVING_LOOK: Duration = Duration::from_millis(500);
/// Freezes, and saving and loading memory.
const SLOW_AT_ONCE: usize = 2;
const THAWS_AT_ONCE: usize = 1;
/// A measurement that has not come by then comes too late.
const MEASURE_LIMIT: Duration = Duration::from_secs(10);
/// A receiver that falls behind by more has to look at everything again.
const EVENTS: usize = 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone)]
pub struct Options {
    /// For example `qemu:///system`.
    pub uri: String,
    /// The local pool: the host's disk size is that of its file system.
    pub pool: Utf8PathBuf,
}

/// See the module.
#[derive(Debug)]
pub struct Libvirt {
    link: Link,
    pool: Utf8PathBuf,
    events: broadcast::Sender<Event>,
    /// Found out once per life of the agent.
    verdict: OnceCell<Verdict>,
    /// Fewer at once than there may be calls: guests that keep silent or are large hold up each other, and nobody else.
    slow: Semaphore,
    thaws: Semaphore,
    /// One measurement, and one question to a guest, at once. Held until libvirt lets go of the call, so that a
    /// hanging QEMU or guest takes one of libvirt's turns and never another.
    measuring: Arc<Semaphore>,
    asking: Arc<Semaphore>,
}

impl Libvirt {
    /// Starts to connect in the background; must be called inside a tokio runtime. A libvirtd that is not
    /// there is no error: calls answer [`HypervisorError::Unreachable`] until [`Event::Connected`].
    pub fn start(options: Options) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        let link = Link::start(options.uri, events.clone());
        let (slow, thaws) = (Semaphore::new(SLOW_AT_ONCE), Semaphore::new(THAWS_AT_ONCE));
        let (measuring, asking) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        Self { link, pool: options.pool, events, verdict: OnceCell::new(), slow, thaws, measuring, asking }
    }

    /// Waits for a snapshot with memory. A guest that was stopped for it goes on in any case.
    async fn while_saving(
        &self,
        id: InstanceId,
        file: &Utf8Path,
        size: MemoryMib,
        taking: impl Future<Output = Result<(), HypervisorError>>,
    ) -> Result<(), HypervisorError> {
        let mut saving = Saving::begin(size);
        let mut taking = std::pin::pin!(taking);
        let taken = loop {
            tokio::select! {
                taken = &mut taking => break taken,
                () = tokio::time::sleep(SAVING_LOOK) => {}
            }
            let written = tokio::fs::metadata(file).await.map_or(0, |found| found.len());
            // Awaited here, so that nobody stops the guest when the snapshot has ended.
            let done = match saving.due(written, Instant::now()) {
                Due::Nothing => Ok(()),
                Due::Stop => {
                    let stop = |domain: &Handle| domain.suspend().map(drop);
                    self.link
                        .call(ASK_LIMIT, move |connect| on_domain(connect, id, "stop the guest", stop))
                        .await
                }
                Due::GiveUp => {
                    self.link
                        .call(ASK_LIMIT, move |connect| {
                            on_domain(connect, id, "give the memory up", sys::abort_job)
                        })
                        .await
                }
            };
            if let Err(error) = done {
                tracing::warn!(%id, error = %crate::chain(&error), "saving the memory was not hurried");
            }
        };
        if saving.is_stopped {
            match self.resume(id).await {
                Err(HypervisorError::NotFound(_)) | Ok(()) => {}
                Err(error) => tracing::warn!(%id, error = %crate::chain(&error), "the guest stands still"),
            }
        }
        taken
    }

    async fn verdict(&self) -> Result<&Verdict, HypervisorError> {
        self.verdict.get_or_try_init(|| self.probe()).await
    }

    /// Runs the probe guest with the emulator that libvirt uses.
    async fn probe(&self) -> Result<Verdict, HypervisorError> {
        let (emulator, kvm_refused) = self.link.call(ASK_LIMIT, node::offered).await?;
        let verdict = probe::acceleration(&emulator).await.map_err(|e| refused("run a guest at all", e))?;
        let verdict = match kvm_refused {
            Some(why) if verdict.acceleration == Acceleration::Kvm => {
                probe::emulated(&format!("a guest ran on KVM, but libvirt does not offer it ({why})"))
            }
            _ => verdict,
        };
        tracing::info!(acceleration = ?verdict.acceleration, detail = verdict.detail, "probed the host");
        Ok(verdict)
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    async fn inventory(&self) -> Result<Inventory, HypervisorError> {
        let verdict = self.verdict().await?.clone();
        let machine = self.link.call(ASK_LIMIT, node::describe).await?;
        let emulated = self.link.call(ASK_LIMIT, |connect| Ok(node::emulated(connect))).await?;
        let unread = |error| refused("describe the host", error);
        let kind = if verdict.acceleration == Acceleration::Kvm { "kvm" } else { "qemu" };
        let cpu_models = self.link.call(ASK_LIMIT, move |connect| node::models(connect, kind)).await?;
        let nests = verdict.acceleration == Acceleration::Kvm && probe::nests();
        Ok(Inventory {
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
            disk_gib: probe::pool_size(&self.pool).map_err(unread)?,
            cpu_model: probe::cpu_model().map_err(unread)?,
            hypervisor: machine.hypervisor,
            acceleration: verdict.acceleration,
            acceleration_detail: verdict.detail,
            architectures: [vec![Architecture::X86_64], emulated].concat(),
            features: nests
                .then_some(NESTED_VIRTUALIZATION)
                .into_iter()
                .chain([LIVE_MIGRATION, DISK_MOVES, LIVE_DISKS, GUARDED_MIGRATION])
                .map(str::to_owned)
                .collect(),
            cpu_models,
            boot_id: probe::boot_id().map_err(unread)?,
            underlay_address: None,
        })
    }

    async fn domains(&self) -> Result<Vec<Domain>, HypervisorError> {
        self.link.call(ASK_LIMIT, list).await
    }

    async fn create(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let acceleration = self.verdict().await?.acceleration;
        let xml = xml::domain(spec, acceleration).map_err(|e| refused("render the domain", e))?;
        let start = starting(spec, xml, raw::VIR_DOMAIN_NONE);
        let (id, result) = (spec.id, self.link.call(CREATE_LIMIT, start).await);
        if result.is_ok() {
            tracing::info!(%id, generation = %spec.generation, boot = spec.boot, request_id = ?spec.request_id, "domain started");
        }
        result
    }

    async fn press_power_button(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let press =
            |domain: &Handle| domain.shutdown_flags(raw::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN).map(drop);
        self.link
            .call(ASK_LIMIT, move |connect| on_domain(connect, id, "press the power button", press))
            .await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let limit = DESTROY_LIMIT;
        self.link.call(limit, move |connect| on_domain(connect, id, "cut the power", Handle::destroy)).await
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let suspend = |domain: &Handle| domain.suspend().map(drop);
        self.link
            .call(ASK_LIMIT, move |connect| on_domain(connect, id, "let the guest stand still", suspend))
            .await
    }

    async fn resume(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let resume = |domain: &Handle| match domain.resume() {
            // It runs.
            Err(error) if error.code() == ErrorNumber::OperationInvalid => Ok(()),
            resumed => resumed.map(drop),
        };
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, "let the guest go on", resume)).await
    }

    async fn attach_card(&self, id: InstanceId, nic: &Nic) -> Result<(), HypervisorError> {
        let attempted = "plug the network card in";
        let xml = xml::card(nic).map_err(|e| refused(attempted, e))?;
        let attach =
            move |domain: &Handle| domain.attach_device_flags(&xml, raw::VIR_DOMAIN_AFFECT_LIVE).map(drop);
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, attempted, attach)).await
    }

    async fn detach_card(&self, id: InstanceId, mac: MacAddress) -> Result<(), HypervisorError> {
        let attempted = "pull the network card out";
        let xml = xml::card_at(mac);
        // libvirt itself waits some seconds for the guest, and says nothing of it when that was in vain.
        let detach =
            move |domain: &Handle| domain.detach_device_flags(&xml, raw::VIR_DOMAIN_AFFECT_LIVE).map(drop);
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, attempted, detach)).await
    }

    async fn attach_disk(&self, id: InstanceId, disk: &DomainDisk) -> Result<(), HypervisorError> {
        let attempted = "plug the disk in";
        let (disk, given) = (disk.clone(), owner::shared(std::slice::from_ref(disk)));
        let attach = move |domain: &Handle| {
            let running = xml::found(&domain.get_xml_desc(0)?)?;
            domain.attach_device_flags(&xml::disk_for(&running, &disk)?, raw::VIR_DOMAIN_AFFECT_LIVE)?;
            Ok::<_, BoxError>(())
        };
        self.link
            .call(CREATE_LIMIT, move |connect| {
                owner::give(connect, &given)?;
                on_domain(connect, id, attempted, attach)
            })
            .await
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), HypervisorError> {
        let detach = move |domain: &Handle| {
            let Some(target) = place_of(domain, volume)? else { return Ok(()) };
            // A merge can be begun again wherever the volume goes.
            if sys::has_block_job(domain, &target)? {
                sys::cancel_block_job(domain, &target)?;
            }
            domain.detach_device_flags(&xml::disk_at(&target)?, raw::VIR_DOMAIN_AFFECT_LIVE)?;
            Ok::<_, BoxError>(())
        };
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, "pull the disk out", detach)).await
    }

    async fn tune_disk(
        &self,
        id: InstanceId,
        volume: VolumeId,
        size: SizeGib,
        limits: IoLimits,
    ) -> Result<(), HypervisorError> {
        let tune = move |domain: &Handle| {
            let Some(target) = place_of(domain, volume)? else { return Ok(()) };
            domain.block_resize(&target, size.bytes(), raw::VIR_DOMAIN_BLOCK_RESIZE_BYTES)?;
            sys::set_io_limits(domain, &target, limits)?;
            Ok::<_, BoxError>(())
        };
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, "change the disk", tune)).await
    }

    async fn snapshot(
        &self,
        id: InstanceId,
        layers: &[NewLayer],
        beside: &Beside,
    ) -> Result<(), HypervisorError> {
        // Never closed.
        let _turn = if *beside == Beside::Nothing { None } else { self.slow.acquire().await.ok() };
        let limit = match beside {
            Beside::Memory { size, .. } => memory::limit(*size) + SNAPSHOT_LIMIT,
            Beside::Nothing | Beside::Rest => SNAPSHOT_LIMIT,
        };
        let given = owner::shared_new(layers);
        let (layers, how, until) = (layers.to_vec(), beside.clone(), Instant::now() + limit);
        let snapshot = move |domain: &Handle| snapshot::take(domain, id, &layers, &how, until);
        let taking = self.link.call(limit, move |connect| {
            owner::give(connect, &given)?;
            with_domain(connect, id, "take a snapshot", snapshot)
        });
        match beside {
            Beside::Memory { file, size } => self.while_saving(id, file, *size, taking).await,
            Beside::Nothing | Beside::Rest => taking.await,
        }
    }

    async fn restore(&self, spec: &DomainSpec, memory: &Utf8Path) -> Result<(), HypervisorError> {
        let _turn = self.slow.acquire().await.ok();
        let (limit, present, path) =
            (CREATE_LIMIT + memory::limit(spec.memory_mib), spec.clone(), memory.to_owned());
        self.link.call(limit, move |connect| memory::load(connect, &present, &path)).await
    }

    async fn thaw(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let _turn = self.thaws.acquire().await.ok();
        let thaw = |domain: &Handle| snapshot::thaw(domain);
        self.link.call(SNAPSHOT_LIMIT, move |connect| on_domain(connect, id, "thaw the guest", thaw)).await
    }

    async fn merge(&self, id: InstanceId, merge: &Merge) -> Result<(), HypervisorError> {
        let merge = merge.clone();
        let merge = move |domain: &Handle| {
            let Some(target) = place_of(domain, merge.volume)? else { return Ok(()) };
            if !sys::has_block_job(domain, &target)? {
                sys::block_commit(domain, &target, &merge)?;
            }
            Ok::<_, BoxError>(())
        };
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, "merge layers", merge)).await
    }

    async fn create_waiting(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let acceleration = self.verdict().await?.acceleration;
        let xml = xml::waiting(spec, acceleration).map_err(|e| refused("render the domain", e))?;
        self.link.call(CREATE_LIMIT, starting(spec, xml, raw::VIR_DOMAIN_START_PAUSED)).await
    }

    async fn receive(&self, id: InstanceId, way: StdUnixStream) -> Result<(), HypervisorError> {
        let receive = move |domain: &Handle| migrating::receive(domain, &way);
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, "take the guest", receive)).await
    }

    async fn open_disks(
        &self,
        id: InstanceId,
        volumes: &[VolumeId],
        door: UnixListener,
    ) -> Result<(), HypervisorError> {
        let volumes = volumes.to_vec();
        let open = move |domain: &Handle| mirrors::open(domain, &volumes, &door);
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, "open the disks", open)).await
    }

    async fn close_disks(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.link
            .call(ASK_LIMIT, move |connect| on_domain(connect, id, "close the disks", mirrors::close))
            .await
    }

    async fn mirror(
        &self,
        id: InstanceId,
        ways: Vec<(VolumeId, StdUnixStream)>,
    ) -> Result<(), HypervisorError> {
        let attempted = "mirror the disks";
        let mirror = move |domain: &Handle| {
            let local: Vec<_> = ways.iter().map(|(volume, _)| *volume).collect();
            let fits = migrating::is_of_today(domain, &local).map_err(|error| refused(attempted, error))?;
            if !fits {
                return Err(HypervisorError::StartedEarlier);
            }
            mirrors::begin(domain, &ways).map_err(|error| refused(attempted, error))
        };
        self.link.call(ASK_LIMIT, move |connect| with_domain(connect, id, attempted, mirror)).await
    }

    async fn end_mirrors(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let attempted = "end the mirrors of the disks";
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, attempted, mirrors::end)).await
    }

    async fn switch_over(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let attempted = "send the rest of the guest";
        self.link
            .call(ASK_LIMIT, move |connect| on_domain(connect, id, attempted, mirrors::switch_over))
            .await
    }

    async fn send(
        &self,
        id: InstanceId,
        way: StdUnixStream,
        max_downtime_ms: u32,
    ) -> Result<(), HypervisorError> {
        let attempted = "send the guest";
        let send = move |domain: &Handle| {
            let broken = |error| refused(attempted, error);
            // Of one with mirrors that was asked when they began.
            let is_mirrored = mirrors::look(domain).map_err(broken)? != mirrors::Mirrors::None;
            if !is_mirrored && !migrating::is_of_today(domain, &[]).map_err(broken)? {
                return Err(HypervisorError::StartedEarlier);
            }
            migrating::send(domain, &way, max_downtime_ms).map_err(broken)
        };
        self.link.call(ASK_LIMIT, move |connect| with_domain(connect, id, attempted, send)).await
    }

    async fn cancel_sending(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let attempted = "send the guest no further";
        self.link.call(ASK_LIMIT, move |connect| on_domain(connect, id, attempted, migrating::cancel)).await
    }

    async fn transfer(&self, id: InstanceId) -> Result<Transfer, HypervisorError> {
        let attempted = "see how far the guest is";
        let look = move |domain: &Handle| migrating::look(domain).map_err(|error| refused(attempted, error));
        self.link.call(ASK_LIMIT, move |connect| with_domain(connect, id, attempted, look)).await
    }

    async fn open_console(
        &self,
        id: InstanceId,
        kind: ConsoleKind,
    ) -> Result<consoles::Stream, HypervisorError> {
        let attempted = "open the console";
        let broken = |error| refused(attempted, error);
        match kind {
            ConsoleKind::Vnc => {
                let open = move |connect: &Connect| with_domain(connect, id, attempted, console::display);
                let display = self.link.call(ASK_LIMIT, open).await?;
                Ok(Box::new(UnixStream::from_std(display).map_err(broken)?))
            }
            ConsoleKind::Serial => {
                let open = move |connect: &Connect| with_domain(connect, id, attempted, console::serial);
                let terminal = self.link.call(ASK_LIMIT, open).await?;
                Ok(Box::new(console::Terminal::new(terminal).map_err(broken)?))
            }
        }
    }

    async fn screenshot(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError> {
        let attempted = "take a picture of the display";
        let take = move |connect: &Connect| {
            with_domain(connect, id, attempted, |domain| console::screenshot(connect, domain))
        };
        self.link.call(ASK_LIMIT, take).await
    }

    async fn measure(&self) -> Result<Vec<Measured>, HypervisorError> {
        let turn = turn(&self.measuring, "measure the domains")?;
        let measure = move |connect: &Connect| {
            let _turn = turn;
            let records = sys::values::measure_all(connect);
            let records = records.map_err(|error| refused("measure the domains", error))?;
            Ok(records.iter().filter_map(stats::read).collect())
        };
        self.link.call(MEASURE_LIMIT, measure).await
    }

    async fn ask_guest(&self, id: InstanceId) -> Result<GuestInfo, HypervisorError> {
        let attempted = "ask the guest";
        let turn = turn(&self.asking, attempted)?;
        let ask = move |connect: &Connect| {
            let _turn = turn;
            with_domain(connect, id, attempted, |domain| guest::ask(domain, || SystemClock.now()))
        };
        self.link.call(guest::LIMIT, ask).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

/// The only turn of its kind, unless an earlier call still has it.
fn turn(turns: &Arc<Semaphore>, attempted: &'static str) -> Result<OwnedSemaphorePermit, HypervisorError> {
    let busy = |_| HypervisorError::Unreachable(format!("{attempted}: the call before has not ended").into());
    Arc::clone(turns).try_acquire_owned().map_err(busy)
}

fn list(connect: &Connect) -> Result<Vec<Domain>, HypervisorError> {
    let handles = connect.list_all_domains(0).map_err(|e| refused("list the domains", e))?;
    let mut domains = Vec::new();
    for handle in handles {
        match seen(&handle) {
            Ok(found) => domains.extend(found),
            // It ended between the list and the look.
            Err(error) if error.code() == ErrorNumber::NoDomain => {}
            Err(error) => return Err(refused("look at a domain", error)),
        }
    }
    Ok(domains)
}

/// `None` when the domain is not ours.
fn seen(handle: &Handle) -> Result<Option<Domain>, Error> {
    let Some(id) = xml::instance_of(&handle.get_name()?, handle.get_uuid()?) else { return Ok(None) };
    let element = raw::VIR_DOMAIN_METADATA_ELEMENT as i32;
    let metadata = match handle.get_metadata(element, Some(xml::NAMESPACE), 0) {
        Ok(text) => xml::Metadata::parse(&text),
        Err(error) if error.code() == ErrorNumber::NoDomainMetadata => {
            tracing::warn!(%id, "a domain has the name of an instance but not our metadata: left alone");
            return Ok(Some(Domain::unreadable(id)));
        }
        Err(error) => return Err(error),
    };
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(error) => {
            tracing::warn!(%id, ?error, "the metadata of a domain cannot be read: left alone");
            return Ok(Some(Domain::unreadable(id)));
        }
    };
    let (state, reason) = handle.get_state()?;
    let state = domain_state(handle, state, reason);
    let (mut cards, mut volumes) = (Vec::new(), Vec::new());
    if state != DomainState::Off {
        (cards, volumes) = match devices(&handle.get_xml_desc(0)?) {
            Ok(devices) => devices,
            Err(error) => {
                tracing::warn!(%id, %error, "the devices of a domain cannot be read: left alone");
                return Ok(Some(Domain::unreadable(id)));
            }
        };
    }
    let (generation, boot) = (metadata.generation, metadata.boot);
    Ok(Some(Domain { id, generation, boot, state, cards, volumes }))
}

/// The cards and volumes of a running domain. Never taken for none: who believes that a guest has let go of a volume
/// gives it to another.
fn devices(domain: &str) -> Result<(Vec<Card>, Vec<SeenVolume>), BoxError> {
    let volumes = xml::found(domain)?.into_iter().filter_map(|disk| disk.volume).collect();
    Ok((xml::cards(domain)?, volumes))
}

/// Where the domain has the volume.
fn place_of(domain: &Handle, volume: VolumeId) -> Result<Option<String>, BoxError> {
    let disks = xml::found(&domain.get_xml_desc(0)?)?;
    Ok(disks.into_iter().find(|disk| disk.volume_id() == Some(volume)).map(|disk| disk.target))
}

fn domain_state(handle: &Handle, state: raw::virDomainState, reason: i32) -> DomainState {
    match state {
        raw::VIR_DOMAIN_PAUSED => DomainState::Paused(pause_reason(handle, reason.unsigned_abs())),
        raw::VIR_DOMAIN_RUNNING | raw::VIR_DOMAIN_BLOCKED | raw::VIR_DOMAIN_NOSTATE => DomainState::Running,
        raw::VIR_DOMAIN_SHUTDOWN => DomainState::ShuttingDown,
        raw::VIR_DOMAIN_PMSUSPENDED => DomainState::Paused(PauseReason::Suspended),
        _ => DomainState::Off,
    }
}

/// QEMU itself is asked about its disks, so it does not matter who was there when it happened. It tells no more than one
/// error of a disk in a second (10.0), but stops at each, and then libvirt does not know why.
fn pause_reason(handle: &Handle, reason: u32) -> PauseReason {
    let may_have_failed = [raw::VIR_DOMAIN_PAUSED_IOERROR, raw::VIR_DOMAIN_PAUSED_UNKNOWN];
    if !may_have_failed.contains(&reason) {
        return PauseReason::Suspended;
    }
    let errors = sys::disk_errors(handle).unwrap_or_else(|error| {
        tracing::warn!(%error, "why the disks of a paused domain failed cannot be told");
        Vec::new()
    });
    if errors.is_empty() && reason == raw::VIR_DOMAIN_PAUSED_UNKNOWN {
        PauseReason::Suspended
    } else if !errors.is_empty() && errors.iter().all(|error| *error == DiskError::NoSpace) {
        PauseReason::PoolFull
    } else {
        PauseReason::IoError
    }
}

/// Starts a domain with files that are QEMU's.
fn starting(
    spec: &DomainSpec,
    xml: String,
    flags: raw::virDomainCreateFlags,
) -> impl FnOnce(&Connect) -> Result<(), HypervisorError> + Send + 'static {
    let (id, given) = (spec.id, owner::shared(&spec.disks));
    move |connect| {
        owner::give(connect, &given)?;
        create(connect, id, &xml, flags)
    }
}

fn create(
    connect: &Connect,
    id: InstanceId,
    xml: &str,
    flags: raw::virDomainCreateFlags,
) -> Result<(), HypervisorError> {
    match Handle::create_xml(connect, xml, flags) {
        Ok(_) => Ok(()),
        // libvirt has no code of its own for "there is one already", so look.
        Err(_) if Handle::lookup_by_uuid(connect, id.as_uuid()).is_ok() => Err(HypervisorError::Exists(id)),
        Err(error) => Err(refused("start the domain", error)),
    }
}

fn on_domain<E: Into<BoxError>>(
    connect: &Connect,
    id: InstanceId,
    attempted: &'static str,
    act: impl FnOnce(&Handle) -> Result<(), E>,
) -> Result<(), HypervisorError> {
    with_domain(connect, id, attempted, |domain| act(domain).map_err(|error| refused(attempted, error)))
}

fn with_domain<T>(
    connect: &Connect,
    id: InstanceId,
    attempted: &'static str,
    act: impl FnOnce(&Handle) -> Result<T, HypervisorError>,
) -> Result<T, HypervisorError> {
    let domain = Handle::lookup_by_uuid(connect, id.as_uuid()).map_err(|error| match error.code() {
        ErrorNumber::NoDomain => HypervisorError::NotFound(id),
        _ => refused(attempted, error),
    })?;
    act(&domain).map_err(|error| match domain.is_active() {
        Ok(true) => error,
        // It ended meanwhile.
        Ok(false) => HypervisorError::NotFound(id),
        Err(gone) if gone.code() == ErrorNumber::NoDomain => HypervisorError::NotFound(id),
        Err(_) => error,
    })
}

fn refused(attempted: &'static str, source: impl Into<BoxError>) -> HypervisorError {
    HypervisorError::Refused { attempted, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_cannot_be_read_is_not_one_without_devices() {
        assert_eq!(devices("<domain><devices/></domain>").unwrap(), (Vec::new(), Vec::new()));
        for torn in ["<domain><devices><disk type='file'", "<domain><devices></disk></domain>", "<domain><"] {
            devices(torn).unwrap_err();
        }
    }
}
