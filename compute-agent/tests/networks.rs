//! A whole network on a host of the test's own: rules, devices, DHCP and metadata, as one guest sees them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

use std::process::Command;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use compute_agent::clock::SystemClock;
use compute_agent::desired::DesiredStore;
use compute_agent::metadata::Metadata;
use compute_agent::networks::{HostNetworking, NetworkStore, Outcome, RealNetworking};
use networking::{links, names, packets};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use protocol::agent::{
    self, Architecture, DesiredBody, DesiredObject, DesiredPage, Firmware, GuestHardware, HostNetwork,
    InstanceSpec, Network, Nic, Port, PortAddress, Power, RemotePort, Seed, StopMode, Subnet,
};
use protocol::{Generation, MacAddress, MemoryMib, PortId, Revision, Vni};
use uuid::Uuid;

const VNI: u32 = 7;

#[test]
fn a_guest_gets_its_address_and_reads_about_itself() {
    // In namespaces of its own, which end with the thread and what it starts.
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this test needs root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(as_one_guest_sees_it());
    })
    .join()
    .unwrap();
}

async fn as_one_guest_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    run(&format!("chmod 755 {}", dir.path().display()));
    let folder = Utf8Path::from_path(dir.path()).unwrap();
    let (spec, document) = (spec(), document());
    let host = host(folder, &spec, &document);
    run("ip link set lo up");
    assert_eq!(host.converge(&document).await.faults, []);

    let tap = names::tap(spec.nics[0].port_id);
    run("ip netns add guest");
    run(&format!("ip link add {tap} type veth peer name eth0 address {} netns guest", spec.nics[0].mac));
    run(&format!("ip link set {tap} master {} up", names::bridge(spec.nics[0].vni)));
    run("ip -n guest link set eth0 up");
    assert_eq!(host.converge(&document).await.faults, []);
    assert_eq!(host.converge(&document).await.faults, []);

    let script = folder.join("bound");
    let bound =
        "[ \"$1\" = bound ] && ip addr add $ip/$mask dev eth0 && ip route add 169.254.169.254 via $serverid";
    std::fs::write(&script, format!("#!/bin/sh\n{bound}\nexit 0\n")).unwrap();
    run(&format!("chmod 755 {script}"));
    run(&format!("ip netns exec guest busybox udhcpc -f -q -n -t 5 -T 1 -i eth0 -s {script}"));
    let curl = "ip netns exec guest curl -sf --max-time 5";
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds:60";
    let token = run(&format!("{curl} -X PUT -H {ttl} http://169.254.169.254/latest/api/token"));
    let url = "http://169.254.169.254/latest/meta-data/instance-id";
    let id = run(&format!("{curl} -H X-aws-ec2-metadata-token:{token} {url}"));
    assert_eq!(id, spec.id.to_string());

    // Without an underlay it does not reach a port elsewhere; its own guests are none the worse for that.
    let mut apart = document.clone();
    apart.networks[0].remote_ports.push(RemotePort {
        mac: "02:00:00:00:00:02".parse().unwrap(),
        addresses: vec!["10.7.0.11".parse().unwrap()],
        hostname: "db-1".parse().unwrap(),
        host: Some("192.0.2.2".parse().unwrap()),
    });
    let outcome = host.converge(&apart).await;
    assert_eq!((outcome.faults.len(), outcome.unusable.len()), (1, 0), "{outcome:?}");

    assert_eq!(host.converge(&HostNetwork::default()).await, Outcome::default());
    assert!(!run("ip netns list").contains("cumulo-net"));
}

fn host(folder: &Utf8Path, spec: &InstanceSpec, document: &HostNetwork) -> RealNetworking {
    let path = |name: &str| -> Utf8PathBuf { folder.join(name) };
    let desired = DesiredStore::open(path("desired")).unwrap();
    let store = NetworkStore::open(path("networks.json")).unwrap();
    let bodies =
        [DesiredBody::Instance(Box::new(spec.clone())), DesiredBody::Network(Box::new(document.clone()))];
    let objects = bodies.into_iter().map(|body| DesiredObject { revision: Revision(1), body }).collect();
    let page = DesiredPage { revision: Revision(1), complete: true, objects, requests: Vec::new() };
    desired.take(&page).unwrap();
    store.take(&page).unwrap();
    let metadata = Metadata::new(Arc::new(store), Arc::new(desired), Arc::new(SystemClock));
    RealNetworking::new(
        links::Surroundings::default(),
        packets::Surroundings::default(),
        &path("networks"),
        Arc::new(metadata),
    )
}

fn port_id() -> PortId {
    Uuid::from_u128(20).into()
}

fn mac() -> MacAddress {
    "02:00:00:00:00:01".parse().unwrap()
}

fn vni() -> Vni {
    Vni::try_from(VNI).unwrap()
}

fn spec() -> InstanceSpec {
    InstanceSpec {
        id: Uuid::from_u128(10).into(),
        generation: Generation(1),
        project_id: None,
        hostname: "web-1".parse().unwrap(),
        power: Power::Running,
        boot: 1,
        stop: StopMode::Force,
        architecture: Architecture::X86_64,
        firmware: Firmware::Bios,
        hardware: GuestHardware::default(),
        vcpus: 1,
        memory_mib: MemoryMib(256),
        disks: Vec::new(),
        freeze: false,
        save_memory: None,
        load_memory: None,
        nics: vec![Nic {
            port_id: port_id(),
            network_id: Uuid::from_u128(30).into(),
            vni: vni(),
            mac: mac(),
            mtu: 1450,
            addresses: Vec::new(),
        }],
        seed: Seed::new(None, Vec::new()),
        on_host_failure: Default::default(),
        migration: None,
        operation_id: None,
        request_id: None,
    }
}

fn document() -> HostNetwork {
    let subnet_id = Uuid::from_u128(40).into();
    let port = Port {
        id: port_id(),
        instance_id: Uuid::from_u128(10).into(),
        mac: mac(),
        addresses: vec![PortAddress { subnet_id, address: "10.7.0.10".parse().unwrap() }],
        allowed_address_pairs: Vec::new(),
        security_groups: Vec::new(),
        hostname: "web-1".parse().unwrap(),
        metadata: agent::Metadata {
            instance_type: "small".to_owned(),
            project: "demo".to_owned(),
            public_ipv4: None,
        },
    };
    let network = Network {
        id: Uuid::from_u128(30).into(),
        vni: vni(),
        mtu: 1450,
        dns_domain: "demo.internal".to_owned(),
        subnets: vec![Subnet {
            id: subnet_id,
            cidr: "10.7.0.0/24".parse().unwrap(),
            gateway: None,
            routed: false,
            service_address: "10.7.0.2".parse().unwrap(),
            dhcp: true,
            dns_servers: Vec::new(),
        }],
        ports: vec![port],
        remote_ports: Vec::new(),
    };
    HostNetwork { networks: vec![network], ..HostNetwork::default() }
}

fn run(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
