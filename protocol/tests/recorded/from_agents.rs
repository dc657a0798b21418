//! One of everything that an agent says.

use protocol::agent::{
    Acceleration, Architecture, CardCounters, DISK_MOVES, DiskCounters, DriftCode, DriftReport, DriftSubject,
    EndReason, Epoch, GuardedPool, GuestAddress, GuestAnswer, GuestFilesystem, GuestInfo, GuestInterface,
    GuestOs, GuestReport, GuestSilence, Heartbeat, HostDifference, HypervisorHealth, ImageStatus,
    InsightBatch, InstanceReport, Inventory, JoinRequest, LIVE_MIGRATION, MemorySample, MigrationReport,
    MigrationState, NESTED_VIRTUALIZATION, NetworkCheck, NetworkFault, NetworkReport, NetworkSubject,
    NotTaken, ObservedBatch, ObservedState, OpenSession, PROTOCOL_VERSION, PauseReason, PoolUsage,
    PortAddress, PortSample, Refusal, RefusalReason, RenewRequest, Sample, SeenLease, Sending,
    SharedPoolReport, SharedPoolState, Step, StepReport, UnknownCard, UnknownGuest, UnknownSpec,
    UnknownVolume, VolumeReport, VolumeSample, VolumeState,
};
use protocol::{Generation, MemoryMib, Revision, SizeGib};

use crate::parts::{covers, digest, id, moment, name};

pub fn join_request() -> JoinRequest {
    JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        token: format!("cumulo-join.{}.{}", "07".repeat(32), "09".repeat(32)),
        name: name("host-1"),
        csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned(),
        host_id: None,
    }
}

pub fn renew_request() -> RenewRequest {
    RenewRequest { csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned() }
}

pub fn open_sessions() -> Vec<OpenSession> {
    let all = [Acceleration::Kvm, Acceleration::Tcg, Acceleration::Simulated];
    covers!(&all, Acceleration: Kvm, Tcg, Simulated);
    all.map(open_session).into()
}

fn open_session(acceleration: Acceleration) -> OpenSession {
    let features = [NESTED_VIRTUALIZATION, LIVE_MIGRATION, DISK_MOVES];
    let architectures = vec![Architecture::X86_64, Architecture::Aarch64, Architecture::Riscv64];
    covers!(&architectures, Architecture: X86_64, Aarch64, Riscv64);
    OpenSession {
        protocol_version: PROTOCOL_VERSION,
        agent_version: "0.1.0".to_owned(),
        inventory: Inventory {
            cpus: 16,
            memory_mib: MemoryMib(65_536),
            disk_gib: SizeGib(1024),
            cpu_model: "AMD EPYC 9354".to_owned(),
            hypervisor: "QEMU 10.0.2, libvirt 11.3.0".to_owned(),
            acceleration,
            acceleration_detail: "a guest ran on KVM".to_owned(),
            architectures,
            features: features.map(str::to_owned).to_vec(),
            cpu_models: vec!["EPYC-v4".to_owned()],
            boot_id: id(1),
            underlay_address: Some([192, 0, 2, 7].into()),
        },
    }
}

fn reports() -> Vec<InstanceReport> {
    let states = [
        ObservedState::Preparing,
        ObservedState::Running,
        ObservedState::Stopping,
        ObservedState::Stopped { reason: EndReason::Requested },
        ObservedState::Stopped { reason: EndReason::GuestShutdown },
        ObservedState::Stopped { reason: EndReason::Crashed },
        ObservedState::Stopped { reason: EndReason::Unobserved },
        ObservedState::Stopped { reason: EndReason::NeverStarted },
        ObservedState::Stopped { reason: EndReason::Fenced },
        ObservedState::Failed,
        ObservedState::Absent,
    ];
    covers!(&states, ObservedState: Preparing, Running, Stopping, Stopped, Failed, Absent);
    let reasons = states.iter().filter_map(|state| match state {
        ObservedState::Stopped { reason } => Some(reason),
        _ => None,
    });
    covers!(reasons, EndReason: Requested, GuestShutdown, Crashed, Unobserved, NeverStarted, Fenced);
    let pauses =
        [PauseReason::PoolFull, PauseReason::IoError, PauseReason::Suspended, PauseReason::Requested];
    covers!(&pauses, PauseReason: PoolFull, IoError, Suspended, Requested);
    let not_taken = [NotTaken::NoGuestAgent, NotTaken::NotFrozen, NotTaken::NoRoom, NotTaken::MemoryNotSaved];
    covers!(&not_taken, NotTaken: NoGuestAgent, NotFrozen, NoRoom, MemoryNotSaved);
    let each = states.into_iter().zip(0..).zip(pauses.into_iter().cycle().zip(not_taken.into_iter().cycle()));
    each.map(|((state, number), (paused, not_taken))| InstanceReport {
        id: id(0x10 + number),
        generation: Generation(3),
        boot: 2,
        state,
        volumes: volumes(),
        leaving_cards: Some(vec!["52:54:00:00:00:01".parse().unwrap()]),
        paused: Some(paused),
        not_taken: Some(not_taken),
        saved_memory: Some(id(0x21)),
        detail: Some("The host has no disk space left.".to_owned()),
        steps: if number == 0 { steps() } else { Vec::new() },
    })
    .collect()
}

fn volumes() -> Vec<VolumeReport> {
    let states = [VolumeState::Preparing, VolumeState::Ready, VolumeState::Detaching];
    covers!(&states, VolumeState: Preparing, Ready, Detaching);
    let each = states.into_iter().zip(0..);
    each.map(|(state, number)| VolumeReport {
        id: id(0x30 + number),
        generation: Generation(1),
        state,
        merged: vec![id(0x22)],
    })
    .collect()
}

fn steps() -> Vec<StepReport> {
    use Step::*;
    let all = [
        AgentReceived,
        ImageCached,
        DiskMade,
        DiskAttached,
        DiskDetachRequested,
        DiskChanged,
        SnapshotTaken,
        MemoryLoaded,
        LayersMerging,
        NetworkReady,
        SeedMade,
        DomainDefined,
        Running,
        Paused,
        PowerButtonPressed,
        PowerCut,
        Stopped,
        DiskRemoved,
        Absent,
    ];
    covers!(&all, Step: AgentReceived, ImageCached, DiskMade, DiskAttached, DiskDetachRequested, DiskChanged, SnapshotTaken,
        MemoryLoaded, LayersMerging, NetworkReady, SeedMade, DomainDefined, Running, Paused, PowerButtonPressed, PowerCut,
        Stopped, DiskRemoved, Absent);
    all.into_iter().map(|step| StepReport { operation_id: id(0x40), step, at: moment() }).collect()
}

fn migrations() -> Vec<MigrationReport> {
    let detail = || "Its processor is another one.".to_owned();
    let states = [
        MigrationState::Ready { address: "192.0.2.7:49152".parse().unwrap() },
        MigrationState::Refused { detail: detail() },
        MigrationState::Transferring { done_bytes: 1 << 20, total_bytes: 1 << 30 },
        MigrationState::HandedOver,
        MigrationState::Received,
        MigrationState::Mirroring { done_bytes: 1 << 20, total_bytes: 1 << 30 },
        MigrationState::Ended { detail: detail() },
    ];
    covers!(&states, MigrationState: Ready, Refused, Transferring, HandedOver, Received, Mirroring, Ended);
    let each = states.into_iter().zip(0..);
    each.map(|(state, number)| MigrationReport { id: id(0x50 + number), instance_id: id(0x10), state })
        .collect()
}

fn network() -> NetworkReport {
    let subjects = [
        NetworkSubject::Port(id(0x60)),
        NetworkSubject::Network(id(0x61)),
        NetworkSubject::Router(id(0x62)),
        NetworkSubject::SecurityGroup(id(0x63)),
        NetworkSubject::Host,
    ];
    covers!(&subjects, NetworkSubject: Port, Network, Router, SecurityGroup, Host);
    let faults = subjects.map(|subject| NetworkFault { subject, detail: "It could not be made.".to_owned() });
    NetworkReport {
        revision: Revision(7),
        faults: faults.to_vec(),
        check: Some(NetworkCheck {
            checked_at: moment(),
            revision: Revision(7),
            differences: 1,
            first: Some("make the bridge".to_owned()),
        }),
    }
}

pub fn observed_batch() -> ObservedBatch {
    ObservedBatch {
        epoch: Epoch(4),
        reports: reports(),
        removed: vec![id(0x70)],
        migrations: migrations(),
        network: Some(network()),
        unknown_guests: Some(unknown_guests()),
    }
}

fn unknown_guests() -> Vec<UnknownGuest> {
    let volume = UnknownVolume { id: id(0x30), size_gib: SizeGib(10), pool: Some(name("fast")) };
    let card = UnknownCard {
        network_id: id(0x61),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        addresses: vec![PortAddress { subnet_id: id(0x65), address: [10, 0, 0, 5].into() }],
    };
    let spec = UnknownSpec {
        generation: Generation(3),
        hostname: name("web"),
        project_id: Some(id(0x42)),
        vcpus: 2,
        memory_mib: MemoryMib(1024),
        volumes: vec![volume],
        cards: vec![card],
    };
    vec![UnknownGuest { id: id(0x11), runs: true, spec: Some(spec) }]
}

pub fn heartbeats() -> Vec<Heartbeat> {
    let healths = [HypervisorHealth::Ok, HypervisorHealth::Degraded { reason: "libvirt is away".to_owned() }];
    covers!(&healths, HypervisorHealth: Ok, Degraded);
    let pools = vec![
        SharedPoolState::Ready { identity: id(0x80), total_bytes: 1 << 40, free_bytes: 1 << 39 },
        SharedPoolState::Unusable { reason: "it is not mounted".to_owned() },
    ];
    covers!(&pools, SharedPoolState: Ready, Unusable);
    let beat = |hypervisor| Heartbeat {
        epoch: Epoch(4),
        hypervisor,
        observed_digest: digest(3),
        quarantined: 1,
        pool: Some(PoolUsage { total_bytes: 1 << 40, free_bytes: 1 << 39, image_cache_bytes: 1 << 30 }),
        shared_pools: pools
            .iter()
            .map(|state| SharedPoolReport { name: name("fast"), state: state.clone() })
            .collect(),
        guarded_pools: vec![GuardedPool { pool: name("fast"), counter: 12 }],
        seen_leases: vec![SeenLease { pool: name("fast"), host: id(2), counter: 5, unchanged_seconds: 61 }],
    };
    healths.map(beat).into()
}

pub fn insight_batch() -> InsightBatch {
    let counters = DiskCounters { read_bytes: 1, read_requests: 2, written_bytes: 3, write_requests: 4 };
    let card = CardCounters {
        received_bytes: 1,
        received_packets: 2,
        received_drops: 3,
        sent_bytes: 4,
        sent_packets: 5,
        sent_drops: 6,
    };
    let sample = Sample {
        id: id(0x10),
        run: 1,
        age_ms: 20,
        vcpus: 2,
        cpu_ns: Some(1_000),
        memory: MemorySample {
            size_bytes: Some(4),
            total_bytes: Some(3),
            available_bytes: Some(2),
            resident_bytes: Some(1),
        },
        volumes: vec![VolumeSample { id: id(0x30), counters }],
        ports: vec![PortSample { id: id(0x60), counters: card }],
    };
    let silences = [GuestSilence::NoAgent, GuestSilence::NotAnswering];
    covers!(&silences, GuestSilence: NoAgent, NotAnswering);
    let answers: Vec<_> = std::iter::once(GuestAnswer::Told(Box::new(guest())))
        .chain(silences.map(GuestAnswer::Silent))
        .collect();
    covers!(&answers, GuestAnswer: Told, Silent);
    let guests = answers.into_iter().map(|answer| GuestReport { id: id(0x10), age_ms: 5, answer }).collect();
    InsightBatch { epoch: Epoch(4), samples: vec![sample], guests }
}

fn guest() -> GuestInfo {
    let some = |text: &str| Some(text.to_owned());
    GuestInfo {
        hostname: some("web"),
        os: Some(GuestOs {
            id: some("debian"),
            name: some("Debian GNU/Linux"),
            version: some("13 (trixie)"),
            version_id: some("13"),
            pretty_name: some("Debian GNU/Linux 13 (trixie)"),
            kernel_release: some("6.12.48+deb13-amd64"),
            machine: some("x86_64"),
        }),
        time_zone: some("CET"),
        utc_offset_seconds: Some(3600),
        clock_offset_ms: Some(-3),
        interfaces: vec![GuestInterface {
            name: "eth0".to_owned(),
            mac: Some("52:54:00:00:00:01".parse().unwrap()),
            addresses: vec![GuestAddress { address: [10, 0, 0, 5].into(), prefix_length: 24 }],
        }],
        filesystems: vec![GuestFilesystem {
            mount_point: "/".to_owned(),
            device: "vda1".to_owned(),
            kind: "ext4".to_owned(),
            total_bytes: Some(2),
            used_bytes: Some(1),
        }],
    }
}

pub fn drift_report() -> DriftReport {
    let subjects = [
        DriftSubject::Host,
        DriftSubject::Instance(id(0x10)),
        DriftSubject::Port(id(0x60)),
        DriftSubject::Network(id(0x61)),
        DriftSubject::Router(id(0x62)),
        DriftSubject::SecurityGroup(id(0x63)),
    ];
    covers!(&subjects, DriftSubject: Host, Instance, Port, Network, Router, SecurityGroup);
    let each = DriftCode::ALL.into_iter().zip(subjects.into_iter().cycle());
    let differences = each
        .map(|(code, about)| HostDifference { code, about, detail: "put it right".to_owned() })
        .collect::<Vec<_>>();
    DriftReport { epoch: Epoch(4), total: 17, differences }
}

pub fn image_statuses() -> Vec<ImageStatus> {
    let detail = || "There is too little room.".to_owned();
    let all =
        [Sending::Converting, Sending::Waiting { detail: detail() }, Sending::Failed { detail: detail() }];
    covers!(&all, Sending: Converting, Waiting, Failed);
    all.map(|status| ImageStatus { epoch: Epoch(4), status }).into()
}

pub fn refusals() -> Vec<Refusal> {
    let all =
        [RefusalReason::NotRunning, RefusalReason::NoDisplay, RefusalReason::Busy, RefusalReason::Failed];
    covers!(&all, RefusalReason: NotRunning, NoDisplay, Busy, Failed);
    all.map(|reason| Refusal { reason }).into()
}
