//! Specifications for tests.

use bytes::Bytes;
use protocol::agent::{
    Architecture, DesiredBody, DesiredObject, DesiredPage, Disk, Firmware, HostNetwork, ImageSource,
    InstanceSpec, IoLimits, Metadata, Network, NetworkFault, NetworkSubject, Nic, Port, Power, Seed,
    StopMode, VolumeSpec,
};
use protocol::image::Format;
use protocol::{
    Generation, InstanceId, LayerId, MacAddress, MemoryMib, NetworkId, OperationId, PortId, Revision, Sha256,
    SizeGib, Vni, VolumeId,
};
use uuid::Uuid;

use crate::desired::Wanted;
use crate::hypervisor::SeenVolume;

pub(crate) const IMAGE: Bytes = Bytes::from_static(b"the bytes of an image");
pub(crate) const IMAGE_SHA256: Sha256 = Sha256::from_bytes([7; 32]);
pub(crate) const GRACEFUL: StopMode = StopMode::Graceful { timeout_seconds: 12 };

pub(crate) fn instance_id() -> InstanceId {
    InstanceId::from(Uuid::now_v7())
}

/// An instance that shall run its first boot, in its first generation, for a new operation.
pub(crate) fn running(id: InstanceId) -> InstanceSpec {
    InstanceSpec {
        id,
        generation: Generation(1),
        project_id: None,
        hostname: "web-1".parse().unwrap(),
        power: Power::Running,
        boot: 1,
        stop: GRACEFUL,
        architecture: Architecture::X86_64,
        firmware: Firmware::Bios,
        hardware: Default::default(),
        vcpus: 1,
        memory_mib: MemoryMib(256),
        disks: vec![disk(id.as_uuid())],
        freeze: false,
        save_memory: None,
        load_memory: None,
        nics: Vec::new(),
        seed: Seed::new(None, Vec::new()),
        on_host_failure: Default::default(),
        migration: None,
        operation_id: Some(OperationId::from(Uuid::now_v7())),
        request_id: None,
    }
}

/// A disk of one layer over the image; volume and layer have this id.
pub(crate) fn disk(id: Uuid) -> Disk {
    let image = ImageSource {
        sha256: IMAGE_SHA256,
        format: Format::Qcow2,
        size_bytes: IMAGE.len() as u64,
        virtual_size_bytes: 1 << 20,
    };
    let volume = VolumeSpec {
        id: VolumeId::from_uuid(id),
        generation: Generation(1),
        pool: None,
        size_gib: SizeGib(1),
        image: Some(image),
        layers: vec![LayerId::from_uuid(id)],
        merges: Vec::new(),
    };
    Disk { volume, limits: IoLimits::default() }
}

/// As a domain has them that is as wanted.
pub(crate) fn volumes(wanted: &Wanted) -> Vec<SeenVolume> {
    let seen = |disk: &Disk| SeenVolume { id: disk.volume.id, layers: disk.volume.layers.clone() };
    wanted.disks().iter().map(seen).collect()
}

/// The next generation of an instance, for another operation.
pub(crate) fn next(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec {
        generation: Generation(spec.generation.0 + 1),
        operation_id: Some(OperationId::from(Uuid::now_v7())),
        ..spec.clone()
    }
}

pub(crate) fn stopped(spec: &InstanceSpec, stop: StopMode) -> InstanceSpec {
    InstanceSpec { power: Power::Stopped, stop, ..next(spec) }
}

pub(crate) fn paused(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec { power: Power::Paused, ..next(spec) }
}

pub(crate) fn resumed(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec { power: Power::Running, ..next(spec) }
}

/// Started anew: a reboot if it runs, a start if it does not.
pub(crate) fn booted_again(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec { power: Power::Running, boot: spec.boot + 1, ..next(spec) }
}

pub(crate) fn deleted(spec: &InstanceSpec) -> DesiredBody {
    let next = next(spec);
    DesiredBody::DeleteInstance {
        id: next.id,
        generation: next.generation,
        layers: spec.disks.iter().flat_map(|disk| disk.volume.layers.clone()).collect(),
        pools: Vec::new(),
        operation_id: next.operation_id,
    }
}

pub(crate) fn wish(spec: &InstanceSpec) -> DesiredBody {
    DesiredBody::Instance(Box::new(spec.clone()))
}

pub(crate) fn page(complete: bool, bodies: impl IntoIterator<Item = DesiredBody>) -> DesiredPage {
    let objects = bodies.into_iter().map(|body| DesiredObject { revision: Revision(1), body }).collect();
    DesiredPage { revision: Revision(1), complete, objects, requests: Vec::new() }
}

/// The `n`th card of an instance.
pub(crate) fn nic(n: u8) -> Nic {
    Nic {
        port_id: PortId::from(Uuid::now_v7()),
        network_id: NetworkId::from(Uuid::from_u128(1)),
        vni: Vni::try_from(7).unwrap(),
        mac: MacAddress::from_bytes([0x02, 0, 0, 0, 0, n]).unwrap(),
        mtu: 1450,
        addresses: Vec::new(),
    }
}

/// A document that names the cards of an instance.
pub(crate) fn networks(spec: &InstanceSpec) -> HostNetwork {
    let port = |nic: &Nic| Port {
        id: nic.port_id,
        instance_id: spec.id,
        mac: nic.mac,
        addresses: Vec::new(),
        allowed_address_pairs: Vec::new(),
        security_groups: Vec::new(),
        hostname: spec.hostname.clone(),
        metadata: Metadata {
            instance_type: "small".to_owned(),
            project: "demo".to_owned(),
            public_ipv4: None,
        },
    };
    let network = Network {
        id: NetworkId::from(Uuid::from_u128(1)),
        vni: Vni::try_from(7).unwrap(),
        mtu: 1450,
        dns_domain: "demo.internal".to_owned(),
        subnets: Vec::new(),
        ports: spec.nics.iter().map(port).collect(),
        remote_ports: Vec::new(),
    };
    HostNetwork { networks: vec![network], ..HostNetwork::default() }
}

pub(crate) fn fault(subject: NetworkSubject) -> NetworkFault {
    NetworkFault { subject, detail: "it is broken".to_owned() }
}
