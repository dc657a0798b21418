//! One of everything that a control plane says.

use std::net::{IpAddr, Ipv4Addr};

use protocol::agent::{
    AddressPair, Architecture, BootOrder, ConsoleKind, CopiedLayer, CpuModel, CpuTopology, DesiredBody,
    DesiredObject, DesiredPage, Direction, Disk, DiskBus, DriftAccepted, Epoch, Firmware, FloatingIp,
    GuestHardware, HeartbeatReply, HostNetwork, HostRequest, ImageSource, InsightAccepted, InstanceSpec,
    IoLimits, JoinResponse, MemoryFile, Metadata, Migration, Network, Nic, NicModel, ObservedAccepted,
    OnHostFailure, PROTOCOL_VERSION, Port, PortAddress, PortRange, Power, Remote, RemotePort, RenewResponse,
    Router, RouterInterface, RuleProtocol, SaveMemory, SecurityGroup, SecurityGroupRule, Seed, SessionOpened,
    StaticRoute, StopMode, Subnet, VolumeSpec,
};
use protocol::image::Format;
use protocol::{Generation, MacAddress, MemoryMib, Revision, SizeGib, Vni};

use crate::parts::{covers, digest, id, name};

const PEM: &str = "-----BEGIN CERTIFICATE-----\n";

pub fn join_response() -> JoinResponse {
    JoinResponse { host_id: id(1), certificate_pem: PEM.to_owned(), ca_pem: PEM.to_owned() }
}

pub fn renew_response() -> RenewResponse {
    RenewResponse { certificate_pem: PEM.to_owned() }
}

pub fn session_opened() -> SessionOpened {
    SessionOpened {
        host_id: id(1),
        epoch: Epoch(4),
        heartbeat_seconds: 5,
        protocol_version: PROTOCOL_VERSION,
    }
}

pub fn observed_accepted() -> ObservedAccepted {
    ObservedAccepted { ignored: vec![id(0x10)] }
}

pub fn heartbeat_reply() -> HeartbeatReply {
    HeartbeatReply { report_all: true, protocol_version: PROTOCOL_VERSION }
}

pub fn insight_accepted() -> InsightAccepted {
    InsightAccepted { sample_seconds: 15, guest_seconds: 300 }
}

pub fn drift_accepted() -> DriftAccepted {
    DriftAccepted { look_seconds: 60 }
}

pub fn desired_page() -> DesiredPage {
    let instances = instances().into_iter().map(|spec| DesiredBody::Instance(Box::new(spec)));
    let bodies: Vec<_> = instances.chain(others()).collect();
    covers!(bodies.iter().chain([&DesiredBody::Unknown]), DesiredBody:
        Instance, DeleteInstance, RemoveLayers, Network, SendSerialLog, SendImage, TakeDisks, GiveDisks, Unknown);
    let objects = bodies.into_iter().zip(1..);
    let objects =
        objects.map(|(body, revision)| DesiredObject { revision: Revision(revision), body }).collect();
    DesiredPage { revision: Revision(100), complete: true, objects, requests: requests() }
}

fn others() -> Vec<DesiredBody> {
    vec![
        DesiredBody::DeleteInstance {
            id: id(0x10),
            generation: Generation(4),
            layers: vec![id(0x20)],
            pools: vec![name("fast")],
            operation_id: Some(id(0x40)),
        },
        DesiredBody::RemoveLayers { removal_id: id(0x70), layers: vec![id(0x20)], pool: Some(name("fast")) },
        DesiredBody::Network(Box::new(networks())),
        DesiredBody::SendSerialLog { transfer_id: id(0x71), instance_id: id(0x10), max_bytes: 1000 },
        DesiredBody::SendImage { transfer_id: id(0x72), source: Box::new(volume(Format::Qcow2)) },
        DesiredBody::TakeDisks {
            id: id(0x50),
            instance_id: id(0x10),
            source: id(2),
            layers: vec![CopiedLayer {
                id: id(0x20),
                below: Some(id(0x21)),
                image: Some(image(Format::Raw)),
                size_gib: SizeGib(10),
                fresh: true,
            }],
        },
        DesiredBody::GiveDisks {
            id: id(0x50),
            instance_id: id(0x10),
            destination: id(2),
            address: "192.0.2.8:49152".parse().unwrap(),
            layers: vec![id(0x20)],
            runs: true,
        },
    ]
}

fn requests() -> Vec<HostRequest> {
    let consoles = [ConsoleKind::Vnc, ConsoleKind::Serial];
    covers!(&consoles, ConsoleKind: Vnc, Serial);
    let consoles = consoles.map(|console| HostRequest::OpenConsole {
        id: id(0x73),
        instance_id: id(0x10),
        console,
        dial: Some("https://api1.example.org:8443".to_owned()),
        max_seconds: 28_800,
    });
    let screenshot = HostRequest::Screenshot { id: id(0x74), instance_id: id(0x10), max_bytes: 1 << 20 };
    let requests: Vec<_> = consoles.into_iter().chain([screenshot]).collect();
    covers!(requests.iter().chain([&HostRequest::Unknown]), HostRequest: OpenConsole, Screenshot, Unknown);
    requests
}

fn image(format: Format) -> ImageSource {
    ImageSource { sha256: digest(1), format, size_bytes: 4096, virtual_size_bytes: 1 << 30 }
}

fn volume(format: Format) -> VolumeSpec {
    VolumeSpec {
        id: id(0x30),
        generation: Generation(1),
        pool: Some(name("fast")),
        size_gib: SizeGib(10),
        image: Some(image(format)),
        layers: vec![id(0x20), id(0x21), id(0x22)],
        merges: vec![id(0x21)],
    }
}

/// One for each of what a specification chooses from.
fn instances() -> Vec<InstanceSpec> {
    let powers = [Power::Running, Power::Stopped, Power::Paused];
    covers!(&powers, Power: Running, Stopped, Paused);
    let stops = [StopMode::Graceful { timeout_seconds: 30 }, StopMode::Force];
    covers!(&stops, StopMode: Graceful, Force);
    let firmwares = [Firmware::Bios, Firmware::Uefi];
    covers!(&firmwares, Firmware: Bios, Uefi);
    let failures = [OnHostFailure::Restart, OnHostFailure::Wait];
    covers!(&failures, OnHostFailure: Wait, Restart);
    let migrations = [
        Migration::Incoming { id: id(0x50), source: id(2) },
        Migration::Outgoing {
            id: id(0x50),
            destination: id(2),
            address: "192.0.2.8:49152".parse().unwrap(),
            max_downtime_ms: 300,
            cancelled: true,
        },
    ];
    covers!(&migrations, Migration: Incoming, Outgoing);
    let mut hardware = hardware().into_iter().cycle();
    let (mut powers, mut stops) = (powers.into_iter().cycle(), stops.into_iter().cycle());
    let (mut firmwares, mut failures) = (firmwares.into_iter().cycle(), failures.into_iter().cycle());
    let mut migrations = migrations.into_iter().cycle();
    let mut architectures =
        [Architecture::X86_64, Architecture::Aarch64, Architecture::Riscv64].into_iter().cycle();
    let mut next = |format| InstanceSpec {
        id: id(0x10),
        generation: Generation(3),
        project_id: Some(id(0x42)),
        hostname: name("web"),
        power: powers.next().unwrap(),
        boot: 2,
        stop: stops.next().unwrap(),
        architecture: architectures.next().unwrap(),
        firmware: firmwares.next().unwrap(),
        hardware: hardware.next().unwrap(),
        vcpus: 2,
        memory_mib: MemoryMib(1024),
        disks: vec![Disk {
            volume: volume(format),
            limits: IoLimits { iops: Some(500), bytes_per_second: Some(1 << 20) },
        }],
        freeze: true,
        save_memory: Some(SaveMemory { file: memory(), above: vec![id(0x22)] }),
        load_memory: Some(memory()),
        nics: vec![Nic {
            port_id: id(0x60),
            network_id: id(0x61),
            vni: Vni::try_from(4711).unwrap(),
            mac: mac(),
            mtu: 1450,
            addresses: vec![PortAddress { subnet_id: id(0x65), address: address(5) }],
        }],
        seed: if format == Format::Raw {
            Seed::new(Some(vec![0xff, 0xfe]), Vec::new())
        } else {
            Seed::new(Some(b"#!/bin/sh\n".to_vec()), vec!["ssh-ed25519 AAAA".to_owned()])
        },
        on_host_failure: failures.next().unwrap(),
        migration: migrations.next(),
        operation_id: Some(id(0x40)),
        request_id: Some(id(0x41)),
    };
    Format::ALL.into_iter().map(&mut next).collect()
}

fn hardware() -> Vec<GuestHardware> {
    let buses = [DiskBus::Virtio, DiskBus::VirtioScsi, DiskBus::Sata];
    covers!(&buses, DiskBus: Virtio, VirtioScsi, Sata);
    let cards = [NicModel::Virtio, NicModel::E1000e, NicModel::E1000e];
    covers!(&cards, NicModel: Virtio, E1000e);
    let orders = [BootOrder::Disk, BootOrder::DiskThenNetwork, BootOrder::NetworkThenDisk];
    covers!(&orders, BootOrder: Disk, DiskThenNetwork, NetworkThenDisk);
    let models = [CpuModel::HostModel, CpuModel::HostPassthrough, CpuModel::Named("EPYC-v4".to_owned())];
    covers!(&models, CpuModel: HostPassthrough, HostModel, Named);
    let each = buses.into_iter().zip(cards).zip(orders.into_iter().zip(models));
    each.map(|((disk_bus, nic_model), (boot_order, cpu_model))| GuestHardware {
        topology: Some(CpuTopology { sockets: 1, cores: 2, threads: 1 }),
        cpu_model,
        nested_virtualization: true,
        disk_bus,
        nic_model,
        boot_order,
    })
    .collect()
}

fn memory() -> MemoryFile {
    MemoryFile { id: id(0x21), pool: Some(name("fast")) }
}

fn mac() -> MacAddress {
    "52:54:00:00:00:01".parse().unwrap()
}

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn networks() -> HostNetwork {
    let router = Router {
        id: id(0x62),
        number: 3,
        interfaces: vec![RouterInterface {
            id: id(0x64),
            network_id: id(0x61),
            subnet_id: id(0x65),
            address: "10.0.0.1/24".parse().unwrap(),
            mac: mac(),
        }],
        external: true,
        routes: vec![StaticRoute { destination: "192.168.0.0/16".parse().unwrap(), next_hop: address(9) }],
        floating_ips: vec![FloatingIp {
            id: id(0x66),
            address: [198, 51, 100, 7].into(),
            port_id: id(0x60),
            fixed_address: address(5),
        }],
    };
    HostNetwork {
        peers: vec![[192, 0, 2, 8].into()],
        networks: vec![network()],
        routers: vec![router],
        security_groups: vec![SecurityGroup { id: id(0x63), rules: rules() }],
    }
}

fn network() -> Network {
    Network {
        id: id(0x61),
        vni: Vni::try_from(4711).unwrap(),
        mtu: 1450,
        dns_domain: "demo.internal".to_owned(),
        subnets: vec![Subnet {
            id: id(0x65),
            cidr: "10.0.0.0/24".parse().unwrap(),
            gateway: Some(address(1)),
            routed: true,
            service_address: address(2),
            dhcp: true,
            dns_servers: vec![[9, 9, 9, 9].into()],
        }],
        ports: vec![Port {
            id: id(0x60),
            instance_id: id(0x10),
            mac: mac(),
            addresses: vec![PortAddress { subnet_id: id(0x65), address: address(5) }],
            allowed_address_pairs: vec![AddressPair {
                cidr: "10.0.0.128/25".parse().unwrap(),
                mac: Some(mac()),
            }],
            security_groups: vec![id(0x63)],
            hostname: name("web"),
            metadata: Metadata {
                instance_type: "tiny".to_owned(),
                project: "demo".to_owned(),
                public_ipv4: Some(Ipv4Addr::new(198, 51, 100, 7)),
            },
        }],
        remote_ports: vec![RemotePort {
            mac: mac(),
            addresses: vec![address(6)],
            hostname: name("db"),
            host: Some([192, 0, 2, 8].into()),
        }],
    }
}

fn rules() -> Vec<SecurityGroupRule> {
    let ports = PortRange { first: 80, last: 443 };
    let protocols = [
        RuleProtocol::Any,
        RuleProtocol::Tcp { ports },
        RuleProtocol::Udp { ports },
        RuleProtocol::Icmp { icmp_type: Some(8), icmp_code: Some(0) },
        RuleProtocol::Number { number: 47 },
    ];
    covers!(&protocols, RuleProtocol: Any, Tcp, Udp, Icmp, Number);
    let directions = [Direction::Ingress, Direction::Egress];
    covers!(&directions, Direction: Ingress, Egress);
    let remotes = [
        Remote::Cidr { cidr: "0.0.0.0/0".parse().unwrap() },
        Remote::Group { group_id: id(0x63), addresses: vec![address(5)] },
    ];
    covers!(&remotes, Remote: Cidr, Group);
    let each = protocols.into_iter().zip(directions.into_iter().cycle()).zip(remotes.into_iter().cycle());
    each.map(|((protocol, direction), remote)| SecurityGroupRule { direction, protocol, remote }).collect()
}
