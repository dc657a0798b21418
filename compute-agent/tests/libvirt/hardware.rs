//! A guest whose virtual machine is not the usual one: what it finds, and how its disks come and go.

use compute_agent::hypervisor::{Hypervisor as _, HypervisorError};
use compute_agent::networks::NetworkStore;
use protocol::Revision;
use protocol::agent::{
    BootOrder, CpuModel, CpuTopology, DesiredBody, DesiredObject, DesiredPage, DiskBus, GuestHardware,
    HostNetwork, InstanceSpec, Metadata, Network, NicModel, Port, Power,
};

use crate::agent::{Agent, NEVER, Site, instance, next};
use crate::instants::{cached_guest, says, serial};
use crate::nic;

const SCRIPT: &str = r#"#!/bin/sh
echo "found: $(nproc) $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sort -u)"
cd /sys/devices/system/cpu/cpu0/topology
echo "found: threads=$(cat thread_siblings_list) cores=$(cat core_siblings_list)"
echo "found: disks $(ls /sys/block | grep '^[sv]d' | xargs)"
for one in /sys/bus/pci/devices/*; do
  [ "$(cat $one/vendor) $(cat $one/device)" = "0x8086 0x10d3" ] && echo "found: an e1000e"
done
"#;

/// The network of its first card, where nobody answers, and the bridge of that.
fn connect(site: &Site, spec: &InstanceSpec) {
    let nic = &spec.nics[0];
    site.host.run_inside("ip", &["link", "add", "cbr7", "type", "bridge"]);
    let port = Port {
        id: nic.port_id,
        instance_id: spec.id,
        mac: nic.mac,
        addresses: Vec::new(),
        allowed_address_pairs: Vec::new(),
        security_groups: Vec::new(),
        hostname: spec.hostname.clone(),
        metadata: Metadata { instance_type: "old".to_owned(), project: "demo".to_owned(), public_ipv4: None },
    };
    let network = Network {
        id: nic.network_id,
        vni: nic.vni,
        mtu: nic.mtu,
        dns_domain: "demo.internal".to_owned(),
        subnets: Vec::new(),
        ports: vec![port],
        remote_ports: Vec::new(),
    };
    let body =
        DesiredBody::Network(Box::new(HostNetwork { networks: vec![network], ..HostNetwork::default() }));
    let objects = vec![DesiredObject { revision: Revision(1), body }];
    let page = DesiredPage { revision: Revision(1), complete: true, objects, requests: Vec::new() };
    NetworkStore::open(site.host.root().join("networks.json")).unwrap().take(&page).unwrap();
}

async fn disks_of(agent: &Agent, spec: &InstanceSpec) -> usize {
    let domains = agent.libvirt.domains().await.unwrap();
    domains.into_iter().find(|domain| domain.id == spec.id).map_or(0, |domain| domain.volumes.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_finds_the_hardware_of_its_type() {
    let mut site = Site::start();
    let image = site.image(&cached_guest("fast"));
    let mut spec = instance(Some(&image), 2, Some(SCRIPT.to_owned()));
    spec.nics = vec![nic(7)];
    connect(&site, &spec);
    // No more than the machine has: more of them wait for each other.
    spec.vcpus = 2;
    spec.hardware = GuestHardware {
        topology: Some(CpuTopology { sockets: 1, cores: 1, threads: 2 }),
        cpu_model: CpuModel::Named("Nehalem".to_owned()),
        nested_virtualization: false,
        disk_bus: DiskBus::VirtioScsi,
        nic_model: NicModel::E1000e,
        boot_order: BootOrder::DiskThenNetwork,
    };
    let mut agent = site.agent(NEVER).await;
    agent.want(&spec);
    agent.settle(spec.id).await;
    says(&site, &spec, "cumulo-test: ready");
    let said = serial(&site, &spec);
    for line in [
        "found: 2 Intel Core i7 9xx (Nehalem Class Core i7)",
        "found: threads=0-1 cores=0-1",
        // The seed is between the two.
        "found: disks sda sdb sdc",
        "found: an e1000e",
        "cumulo-test: boot=1",
    ] {
        assert!(said.contains(line), "not {line:?}:\n{said}");
    }

    // SCSI disks are pulled out while it runs.
    let gone = spec.disks.pop().unwrap();
    spec = next(&spec);
    agent.want(&spec);
    agent.settle(spec.id).await;
    assert_eq!(disks_of(&agent, &spec).await, 1);
    // On SATA it runs as well, and nothing is.
    spec = InstanceSpec { power: Power::Stopped, ..next(&spec) };
    agent.want(&spec);
    agent.settle(spec.id).await;
    let hardware = GuestHardware { disk_bus: DiskBus::Sata, ..GuestHardware::default() };
    spec = InstanceSpec { power: Power::Running, boot: 2, hardware, ..next(&spec) };
    spec.disks.push(gone);
    // More than the machine has ports for.
    spec.disks.extend(instance(None, 5, None).disks);
    agent.want(&spec);
    agent.settle(spec.id).await;
    assert_eq!(disks_of(&agent, &spec).await, 7);
    let pulled = agent.libvirt.detach_disk(spec.id, spec.disks[1].volume.id).await;
    assert!(matches!(pulled, Err(HypervisorError::Refused { .. })), "{pulled:?}");
}
