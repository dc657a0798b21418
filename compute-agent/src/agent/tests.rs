//! The whole agent against a control plane in memory and the simulated host, in real time.

mod consoles;
mod images;
mod pool;
mod skew;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camino::Utf8PathBuf;
use protocol::agent::{
    EndReason, GuestAnswer, HypervisorHealth, ImageSource, InstanceSpec, NetworkSubject, ObservedState,
    Power, Step, UnknownGuest, UnknownSpec,
};
use protocol::image::Format;
use protocol::{HostId, InstanceId, MemoryMib, Sha256, TransferId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{StateDir, StateError, Surroundings, run};
use crate::clock::SystemClock;
use crate::control_plane::fake::FakeControlPlane;
use crate::guard;
use crate::guard::clock::KernelClock;
use crate::guard::witness::Witness;
use crate::host_storage::{HostStorage, LocalPool, OwnPool, SimulatedStorage};
use crate::hypervisor::simulated::{Simulated, SimulatedMachine};
use crate::hypervisor::{DomainSpec, Hypervisor};
use crate::networks::simulated::SimulatedNetworking;
use crate::samples::{
    GRACEFUL, IMAGE, IMAGE_SHA256, booted_again, deleted, fault, instance_id, networks, next, nic, running,
    stopped, wish,
};

/// A host, its control plane, and the agents that live on it one after the other.
struct Cloud {
    dir: tempfile::TempDir,
    machine_boot: Uuid,
    hypervisor: Arc<Simulated>,
    storage: Arc<SimulatedStorage>,
    networking: Arc<SimulatedNetworking>,
    control_plane: Arc<FakeControlPlane>,
}

struct Agent {
    stop: CancellationToken,
    task: JoinHandle<Result<(), StateError>>,
}

impl Cloud {
    fn new() -> Self {
        let machine_boot = Uuid::now_v7();
        Self {
            dir: tempfile::tempdir().unwrap(),
            machine_boot,
            hypervisor: Arc::new(Simulated::new(SimulatedMachine::new(machine_boot))),
            storage: Arc::default(),
            networking: Arc::default(),
            control_plane: FakeControlPlane::with_blob(IMAGE_SHA256, IMAGE),
        }
    }

    fn state_dir(&self) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join("state")).unwrap()
    }

    fn start_agent(&self) -> Agent {
        self.start_agent_on(Arc::clone(&self.storage) as _)
    }

    fn start_agent_on(&self, storage: Arc<dyn HostStorage>) -> Agent {
        let state_dir = StateDir::take(&self.state_dir()).unwrap();
        let networking = Arc::clone(&self.networking) as _;
        let surroundings = Surroundings {
            hypervisor: Arc::clone(&self.hypervisor) as _,
            storage,
            networking: Box::new(move |_| networking),
            control_plane: Arc::clone(&self.control_plane) as _,
            clock: Arc::new(SystemClock),
            machine_boot: self.machine_boot,
            underlay_address: None,
            guards: guard::tests::guards(&self.state_dir(), self.machine_boot, Arc::new(KernelClock)),
            witness: Witness::start(HostId::from_uuid(Uuid::nil()), []),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        Agent { stop, task: tokio::spawn(async move { run(&state_dir, surroundings, stopped).await }) }
    }

    fn want(&self, spec: &InstanceSpec) {
        self.control_plane.want(spec.id, wish(spec));
    }

    async fn until(&self, id: InstanceId, state: ObservedState) {
        self.control_plane.wait_for(&format!("{state:?}"), |it| it.state(id) == Some(state)).await;
    }

    async fn running_instance(&self) -> InstanceSpec {
        let spec = running(instance_id());
        self.want(&spec);
        self.until(spec.id, ObservedState::Running).await;
        spec
    }
}

impl Agent {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

const REQUESTED: ObservedState = ObservedState::Stopped { reason: EndReason::Requested };

#[tokio::test]
async fn an_instance_lives_from_create_to_delete_and_leaves_nothing() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let spec = stopped(&spec, GRACEFUL);
    cloud.want(&spec);
    cloud.until(spec.id, REQUESTED).await;
    let spec = booted_again(&spec);
    cloud.want(&spec);
    cloud.until(spec.id, ObservedState::Running).await;
    cloud.control_plane.want(spec.id, deleted(&spec));
    cloud.until(spec.id, ObservedState::Absent).await;
    assert_eq!(
        cloud.control_plane.steps(),
        [
            Step::AgentReceived,
            Step::ImageCached,
            Step::DiskMade,
            Step::SeedMade,
            Step::DomainDefined,
            Step::Running,
            Step::AgentReceived,
            Step::PowerButtonPressed,
            Step::Stopped,
            Step::AgentReceived,
            Step::SeedMade,
            Step::DomainDefined,
            Step::Running,
            Step::AgentReceived,
            Step::PowerCut,
            Step::DiskRemoved,
            Step::Absent,
        ]
    );
    assert!(cloud.hypervisor.domains().await.unwrap().is_empty());
    assert!(cloud.storage.instances().is_empty());
    // What is acknowledged is forgotten; the heartbeat says so.
    let nothing = sha2_of("");
    cloud.control_plane.forget_heartbeat();
    cloud
        .control_plane
        .wait_for("an empty digest", |it| it.heartbeat(|beat| beat.observed_digest) == Some(nothing))
        .await;
    agent.stop().await;
    for folder in ["desired", "boots", "outbox"] {
        let left = cloud.state_dir().join(folder).read_dir_utf8().unwrap().count();
        assert_eq!(left, 0, "{folder}");
    }
}

fn sha2_of(text: &str) -> Sha256 {
    use sha2::Digest;
    Sha256::from_bytes(sha2::Sha256::digest(text).into())
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_is_told_within_a_second() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    cloud.hypervisor.guest_shutdown(spec.id);
    let told = cloud.until(spec.id, ObservedState::Stopped { reason: EndReason::GuestShutdown });
    assert!(tokio::time::timeout(Duration::from_secs(1), told).await.is_ok());
    agent.stop().await;
}

#[tokio::test]
async fn a_slow_image_delays_nobody_else_and_a_deletion_does_not_wait_for_it() {
    let cloud = Cloud::new();
    let slow = Sha256::from_bytes([8; 32]);
    cloud.control_plane.store_blob(slow, Bytes::from_static(b"slow"));
    cloud.control_plane.hold_blob(slow);
    let agent = cloud.start_agent();
    // More than can be fetched or done at once.
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut spec = running(instance_id());
            let image = spec.disks[0].volume.image.as_mut().unwrap();
            (image.sha256, image.size_bytes) = (slow, 4);
            cloud.want(&spec);
            spec
        })
        .collect();
    for spec in &waiting {
        cloud.until(spec.id, ObservedState::Preparing).await;
    }
    cloud.running_instance().await;
    cloud.control_plane.want(waiting[0].id, deleted(&waiting[0]));
    cloud.until(waiting[0].id, ObservedState::Absent).await;
    cloud.control_plane.release_blobs();
    for spec in &waiting[1..] {
        cloud.until(spec.id, ObservedState::Running).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn ten_instances_of_one_image_make_one_download_and_one_base() {
    let cloud = Cloud::new();
    let bytes = Bytes::from(vec![1; 1 << 20]);
    let size_bytes = bytes.len() as u64;
    let image = ImageSource {
        sha256: Sha256::from_bytes(<sha2::Sha256 as sha2::Digest>::digest(&bytes).into()),
        format: Format::Raw,
        size_bytes,
        virtual_size_bytes: size_bytes,
    };
    cloud.control_plane.store_blob(image.sha256, bytes);
    let root = Utf8PathBuf::from_path_buf(cloud.dir.path().canonicalize().unwrap().join("pool")).unwrap();
    let agent = cloud.start_agent_on(Arc::new(
        LocalPool::open(OwnPool::new(&root, &root.with_extension("record"))).unwrap(),
    ));
    let specs: Vec<_> = (0..10)
        .map(|_| {
            let mut spec = running(instance_id());
            spec.disks[0].volume.image = Some(image.clone());
            spec
        })
        .collect();
    specs.iter().for_each(|spec| cloud.want(spec));
    for spec in &specs {
        cloud.until(spec.id, ObservedState::Running).await;
    }
    assert_eq!(cloud.control_plane.blobs_sent(), 1);
    let files = |folder: &str| root.join(folder).read_dir_utf8().unwrap().count();
    assert_eq!((files("images"), files("layers")), (1, specs.len()));
    let told = |beat: &protocol::agent::Heartbeat| {
        beat.pool.is_some_and(|pool| pool.image_cache_bytes >= size_bytes)
    };
    cloud.control_plane.wait_for("what the cache takes", |it| it.heartbeat(told) == Some(true)).await;
    agent.stop().await;
}

#[tokio::test]
async fn hundreds_of_instances_are_started_and_their_domains_outlive_the_agent() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let specs: Vec<_> = (0..300).map(|_| running(instance_id())).collect();
    specs.iter().for_each(|spec| cloud.want(spec));
    for spec in &specs {
        cloud.until(spec.id, ObservedState::Running).await;
    }
    agent.stop().await;
    assert_eq!(cloud.hypervisor.domains().await.unwrap().len(), specs.len());
    // The next agent finds them as they are, and says so when everything is asked for.
    cloud.control_plane.ask_for_everything();
    let agent = cloud.start_agent();
    for spec in &specs {
        cloud.until(spec.id, ObservedState::Running).await;
        assert_eq!(cloud.hypervisor.starts(spec.id, 1), 1);
    }
    agent.stop().await;
}

#[tokio::test]
async fn without_a_control_plane_the_host_goes_by_the_last_desired_state() {
    let mut cloud = Cloud::new();
    let agent = cloud.start_agent();
    let runs = cloud.running_instance().await;
    agent.stop().await;
    cloud.control_plane.set_reachable(false);
    cloud.machine_boot = Uuid::now_v7();
    cloud.hypervisor.reboot_machine(cloud.machine_boot);

    let agent = cloud.start_agent();
    let mut events = cloud.hypervisor.events();
    tokio::time::timeout(Duration::from_secs(10), async {
        while cloud.hypervisor.starts(runs.id, 1) < 2 {
            events.recv().await.unwrap();
        }
    })
    .await
    .unwrap();
    cloud.control_plane.ask_for_everything();
    cloud.control_plane.set_reachable(true);
    cloud.until(runs.id, ObservedState::Running).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_session_that_was_taken_over_is_taken_back_slowly_and_nothing_is_done_meanwhile() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    cloud.running_instance().await;
    let epoch = cloud.control_plane.epoch();
    cloud.control_plane.take_session_over();
    let lost = tokio::time::Instant::now();
    let late = running(instance_id());
    cloud.want(&late);
    cloud.control_plane.wait_for("a new session", |it| it.epoch() > epoch + 1).await;
    assert!(lost.elapsed() >= Duration::from_millis(900), "back after {:?}", lost.elapsed());
    cloud.until(late.id, ObservedState::Running).await;

    let lost = tokio::time::Instant::now();
    let epoch = cloud.control_plane.epoch();
    cloud.control_plane.take_session_over();
    cloud.control_plane.wait_for("a new session", |it| it.epoch() > epoch + 1).await;
    assert!(lost.elapsed() >= Duration::from_millis(1900), "back after {:?}", lost.elapsed());
    agent.stop().await;
}

#[tokio::test]
async fn a_host_that_was_removed_hardly_asks_any_more() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    cloud.control_plane.wait_for("a heartbeat", |it| it.heartbeat(|_| ()).is_some()).await;
    cloud.control_plane.remove_host();
    cloud.control_plane.wait_for("it is told", |it| it.told_removed() >= 2).await;
    // Whoever was about to call has called; heartbeats would come every second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let told = cloud.control_plane.told_removed();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(
        cloud.control_plane.told_removed() <= told + 1,
        "{told}, then {}",
        cloud.control_plane.told_removed()
    );
    agent.stop().await;
}

#[tokio::test]
async fn an_instance_that_returns_before_its_deletion_is_forgotten_runs_again() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    cloud.control_plane.hold_reports(true);
    let gone = next(&spec);
    // It has gone to another host: its disks stay where they are.
    cloud.control_plane.want(spec.id, deleted(&InstanceSpec { disks: Vec::new(), ..spec.clone() }));
    cloud.control_plane.wait_for("the deletion is seen", FakeControlPlane::has_seen_everything).await;
    let back = InstanceSpec { boot: spec.boot + 1, ..gone };
    cloud.want(&back);
    cloud.control_plane.wait_for("the return is seen", FakeControlPlane::has_seen_everything).await;
    assert_eq!(cloud.hypervisor.starts(spec.id, back.boot), 0);
    cloud.control_plane.hold_reports(false);
    let is_back = |it: &FakeControlPlane| {
        it.report(spec.id).is_some_and(|it| it.boot == back.boot && it.state == ObservedState::Running)
    };
    cloud.control_plane.wait_for("it runs again", is_back).await;
    assert_eq!(cloud.hypervisor.starts(spec.id, back.boot), 1);
    agent.stop().await;
}

#[tokio::test]
async fn an_instance_comes_back_although_its_deletion_could_not_be_written_down_at_once() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    cloud.control_plane.hold_reports(true);
    // It has only left, so none of its disks is removed.
    cloud.control_plane.want(spec.id, deleted(&InstanceSpec { disks: Vec::new(), ..spec.clone() }));
    cloud.control_plane.wait_for("the deletion is seen", FakeControlPlane::has_seen_everything).await;
    // As on a full disk: neither is its trail written, nor is the wish removed.
    let outbox = cloud.state_dir().join("outbox");
    let wish = cloud.state_dir().join(format!("desired/{}.json", spec.id));
    // The agent may write there right now, so the folder goes in one step.
    std::fs::rename(&outbox, cloud.state_dir().join("outbox-away")).unwrap();
    std::fs::write(&outbox, "").unwrap();
    std::fs::remove_file(&wish).unwrap();
    std::fs::create_dir(&wish).unwrap();
    cloud.control_plane.hold_reports(false);
    cloud.until(spec.id, ObservedState::Absent).await;
    let back = InstanceSpec { boot: spec.boot + 1, ..next(&spec) };
    cloud.want(&back);
    cloud.control_plane.wait_for("the return is seen", FakeControlPlane::has_seen_everything).await;
    cloud.control_plane.forget_heartbeat();
    cloud.control_plane.wait_for("a heartbeat", |it| it.heartbeat(|_| ()).is_some()).await;
    assert_eq!(cloud.hypervisor.starts(spec.id, back.boot), 0);

    std::fs::remove_dir(&wish).unwrap();
    std::fs::remove_file(&outbox).unwrap();
    std::fs::create_dir(&outbox).unwrap();
    cloud.until(spec.id, ObservedState::Running).await;
    assert_eq!(cloud.hypervisor.starts(spec.id, back.boot), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_session_that_was_taken_back_is_as_good_as_another() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let epoch = cloud.control_plane.epoch();
    cloud.control_plane.take_session_over();
    cloud.control_plane.wait_for("a new session", |it| it.epoch() > epoch + 1).await;
    cloud.running_instance().await;
    // Nobody answers any more: the host goes by what it has heard last, which nobody else does.
    cloud.control_plane.remove_host();
    cloud.control_plane.wait_for("it is told", |it| it.told_removed() >= 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    cloud.hypervisor.guest_shutdown(spec.id);
    let record = cloud.state_dir().join(format!("boots/{}.json", spec.id));
    let written_down = async {
        while !std::fs::read_to_string(&record).unwrap().contains("ended") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written_down).await.expect("the agent acts");
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_whose_session_was_taken_over_does_nothing_until_it_has_it_back() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    cloud.control_plane.hold_blob(IMAGE_SHA256);
    let spec = running(instance_id());
    cloud.want(&spec);
    cloud.until(spec.id, ObservedState::Preparing).await;
    let mut events = cloud.hypervisor.events();
    let lost = tokio::time::Instant::now();
    cloud.control_plane.take_session_over();
    cloud.control_plane.release_blobs();
    events.recv().await.unwrap();
    assert!(lost.elapsed() >= Duration::from_millis(900), "started after {:?}", lost.elapsed());
    agent.stop().await;
}

#[tokio::test]
async fn while_the_hypervisor_is_away_the_host_is_degraded_and_no_instance_is_said_to_have_stopped() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    cloud.hypervisor.set_reachable(false);
    let degraded = |beat: &protocol::agent::Heartbeat| beat.hypervisor != HypervisorHealth::Ok;
    cloud.control_plane.wait_for("degraded", |it| it.heartbeat(degraded) == Some(true)).await;
    let other = running(instance_id());
    cloud.want(&other);
    cloud
        .control_plane
        .wait_for("two more beats", {
            let started = tokio::time::Instant::now();
            move |_| started.elapsed() > Duration::from_secs(2)
        })
        .await;
    assert_eq!(cloud.control_plane.state(spec.id), Some(ObservedState::Running));
    assert_eq!(cloud.control_plane.state(other.id), None);
    cloud.hypervisor.set_reachable(true);
    cloud.control_plane.wait_for("well again", |it| it.heartbeat(degraded) == Some(false)).await;
    cloud.until(other.id, ObservedState::Running).await;
    assert_eq!(cloud.hypervisor.starts(spec.id, 1), 1);
    agent.stop().await;
}

#[tokio::test]
async fn what_has_changed_of_the_host_is_told_once_the_hypervisor_is_back() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let before = cloud.control_plane.inventory().unwrap();
    agent.stop().await;
    cloud.hypervisor.set_reachable(false);
    let more = MemoryMib(before.memory_mib.0 * 2);
    cloud.hypervisor.set_memory(more);

    let epoch = cloud.control_plane.epoch();
    let agent = cloud.start_agent();
    cloud.control_plane.wait_for("a session from memory", |it| it.epoch() > epoch).await;
    assert_eq!(cloud.control_plane.inventory().unwrap(), before);
    cloud.hypervisor.set_reachable(true);
    let is_told = |it: &FakeControlPlane| it.inventory().unwrap().memory_mib == more;
    cloud.control_plane.wait_for("what is there by now", is_told).await;
    let epoch = cloud.control_plane.epoch();
    cloud.want(&stopped(&spec, GRACEFUL));
    cloud.until(spec.id, REQUESTED).await;
    assert_eq!(cloud.control_plane.epoch(), epoch, "it is told once");
    agent.stop().await;
}

#[tokio::test]
async fn what_the_control_plane_does_not_know_is_left_alone_and_counted() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let stranger = stranger(instance_id());
    cloud.hypervisor.create(&stranger).await.unwrap();
    agent.stop().await;
    cloud.control_plane.know_nothing_of(spec.id);

    let agent = cloud.start_agent();
    let two = |beat: &protocol::agent::Heartbeat| beat.quarantined == 2;
    cloud.control_plane.wait_for("two in quarantine", |it| it.heartbeat(two) == Some(true)).await;
    assert_eq!(cloud.hypervisor.domains().await.unwrap().len(), 2);
    // What was wanted of it once is told, in each session anew: the control plane may have lost it again.
    let of =
        |id, spec: Option<&InstanceSpec>| UnknownGuest { id, runs: true, spec: spec.map(UnknownSpec::of) };
    let mut both = vec![of(spec.id, Some(&spec)), of(stranger.id, None)];
    both.sort_by_key(|guest| guest.id);
    let are_told = |it: &FakeControlPlane| it.unknown_guests().as_ref() == Some(&both);
    cloud.control_plane.wait_for("both are told of", are_told).await;
    let epoch = cloud.control_plane.epoch();
    agent.stop().await;
    let agent = cloud.start_agent();
    let again = |it: &FakeControlPlane| it.epoch() > epoch && are_told(it);
    cloud.control_plane.wait_for("both are told of again", again).await;
    // It is known again, and looked after again.
    cloud.want(&stopped(&spec, GRACEFUL));
    cloud.until(spec.id, REQUESTED).await;
    let one = |beat: &protocol::agent::Heartbeat| beat.quarantined == 1;
    cloud.control_plane.wait_for("one in quarantine", |it| it.heartbeat(one) == Some(true)).await;
    let rest = vec![of(stranger.id, None)];
    cloud
        .control_plane
        .wait_for("the other alone is told of", |it| it.unknown_guests().as_ref() == Some(&rest))
        .await;
    agent.stop().await;
}

fn stranger(id: InstanceId) -> DomainSpec {
    let spec = InstanceSpec { power: Power::Running, ..running(id) };
    DomainSpec {
        id,
        generation: spec.generation,
        boot: spec.boot,
        hostname: spec.hostname,
        architecture: spec.architecture,
        uefi_variables: None,
        hardware: spec.hardware,
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        disks: Vec::new(),
        seed: "/nonexistent/seed".into(),
        nics: Vec::new(),
        serial_log: "/nonexistent/log".into(),
        request_id: None,
    }
}

#[tokio::test]
async fn networks_are_made_reported_and_awaited_by_the_instances_in_them() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = InstanceSpec { nics: vec![nic(1)], ..running(instance_id()) };
    cloud.networking.set_faults(vec![fault(NetworkSubject::Port(spec.nics[0].port_id))]);
    cloud.want(&spec);
    let revision = cloud.control_plane.want_networks(&networks(&spec));
    let is_told = |it: &FakeControlPlane, faults| {
        it.network_report().is_some_and(|it| it.revision == revision && it.faults.len() == faults)
    };
    cloud.control_plane.wait_for("a fault", |it| is_told(it, 1)).await;
    let detail = |it: &FakeControlPlane| it.report(spec.id).and_then(|report| report.detail);
    cloud.control_plane.wait_for("why it waits", |it| detail(it).is_some()).await;
    assert_eq!(cloud.hypervisor.starts(spec.id, 1), 0);
    cloud.networking.set_faults(Vec::new());
    cloud.until(spec.id, ObservedState::Running).await;
    cloud.control_plane.wait_for("no fault", |it| is_told(it, 0)).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_is_measured_and_what_guests_say_is_told_soon_after_the_start_and_again_by_the_next_agent() {
    let cloud = Cloud::new();
    for _ in 0..2 {
        let agent = cloud.start_agent();
        let spec = cloud.running_instance().await;
        cloud.control_plane.take_insight();
        let (mut sample, mut guest) = (None, None);
        while sample.is_none() || guest.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for batch in cloud.control_plane.take_insight() {
                sample = sample.or(batch.samples.into_iter().find(|sample| sample.id == spec.id));
                guest = guest.or(batch.guests.into_iter().find(|guest| guest.id == spec.id));
            }
        }
        let sample = sample.unwrap();
        assert_eq!(sample.volumes[0].id, spec.disks[0].volume.id);
        assert!(sample.cpu_ns.is_some() && sample.age_ms < 2000, "{sample:?}");
        assert!(matches!(guest.unwrap().answer, GuestAnswer::Told(_)));
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_serial_log_is_sent_when_it_is_asked_for() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let transfer = TransferId::from(Uuid::now_v7());
    cloud.control_plane.ask_for_serial_log(transfer, spec.id);
    cloud.control_plane.wait_for("the log", |it| it.transfer(transfer).is_some()).await;
    let log = String::from_utf8(cloud.control_plane.transfer(transfer).unwrap()).unwrap();
    assert_eq!(log, format!("simulated guest {}\n", spec.id));
    agent.stop().await;
}

#[tokio::test]
async fn a_state_folder_has_one_agent() {
    let cloud = Cloud::new();
    let taken = StateDir::take(&cloud.state_dir()).unwrap();
    assert!(matches!(StateDir::take(&cloud.state_dir()), Err(StateError::InUse { .. })));
    drop(taken);
    assert!(StateDir::take(&cloud.state_dir()).is_ok());
}
