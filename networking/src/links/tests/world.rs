//! Hosts and guests that consist of namespaces, and documents for them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use protocol::agent::{
    HostNetwork, Metadata, Network, Port, PortAddress, RemotePort, Router, RouterInterface, Subnet,
};
use protocol::{MacAddress, Vni};
use uuid::Uuid;

use crate::links::{Converged, Links, Surroundings};
use crate::names;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network and a mount namespace of its own. They end with it.
pub struct Host {
    jobs: mpsc::Sender<Job>,
    pub thread: i32,
}

impl Host {
    pub fn new() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("tests of links need root");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
            ready.send(gettid().as_raw()).unwrap();
            receiver.into_iter().for_each(|job| job());
        });
        let host = Self { jobs, thread: is_ready.recv().unwrap() };
        host.ip("link set lo up");
        host.command("busybox sysctl -w net.ipv6.conf.default.accept_dad=0");
        host
    }

    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.jobs.send(Box::new(move || sender.send(job()).unwrap())).unwrap();
        receiver.recv().expect("the job on the host panicked")
    }

    /// Whether a command succeeds, and what it prints.
    pub fn try_command(&self, line: &str) -> (bool, String) {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8(said).unwrap())
        })
    }

    pub fn command(&self, line: &str) -> String {
        let (succeeded, said) = self.try_command(line);
        assert!(succeeded, "{line}: {said}");
        said
    }

    pub fn ip(&self, line: &str) -> String {
        self.command(&format!("ip {line}"))
    }

    pub fn within(&self, namespace: &str, line: &str) -> String {
        self.command(&format!("nsenter --net=/run/netns/{namespace} {line}"))
    }

    pub fn pings(&self, namespace: &str, address: &str) -> bool {
        let line = format!("nsenter --net=/run/netns/{namespace} busybox ping -c 1 -W 2 {address}");
        self.try_command(&line).0
    }

    /// Sends one packet to an address that is not expected to answer.
    pub fn calls_in_vain(&self, namespace: &str, address: &str) {
        let line = format!("nsenter --net=/run/netns/{namespace} timeout 0.2 busybox ping -c 1 {address}");
        assert!(!self.try_command(&line).0, "{address} answered");
    }

    pub fn converge(&self, surroundings: &Surroundings, want: &HostNetwork) -> Converged {
        let links = Links::new(surroundings.clone());
        let want = want.clone();
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(links.converge(&want)).unwrap()
        })
    }

    /// What a look that changes nothing finds.
    pub fn look(&self, surroundings: &Surroundings, want: &HostNetwork) -> Vec<String> {
        let (links, want) = (Links::new(surroundings.clone()), want.clone());
        let differences = self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(links.look(&want)).unwrap()
        });
        differences.into_iter().map(|difference| difference.detail).collect()
    }

    /// Converges without faults and then finds nothing more to do.
    pub fn settle(&self, surroundings: &Surroundings, want: &HostNetwork) -> usize {
        let first = self.converge(surroundings, want);
        assert_eq!(first.faults, []);
        let second = self.converge(surroundings, want);
        assert_eq!(second, Converged { changed: 0, faults: vec![] }, "the second time");
        // A card goes with its guest, not with its port.
        let is_card = |detail: &String| detail.ends_with("no port has this card");
        assert_eq!(self.look(surroundings, want).into_iter().find(|detail| !is_card(detail)), None);
        first.changed
    }

    /// What libvirt and a guest do: a tap on the bridge, and a card with its addresses in a namespace.
    pub fn plug(&self, network: &Network, port: &Port) -> String {
        let (tap, bridge) = (names::tap(port.id), names::bridge(network.vni));
        let guest = format!("guest-{tap}");
        self.ip(&format!("netns add {guest}"));
        self.ip(&format!("link add {tap} type veth peer name eth0 address {} netns {guest}", port.mac));
        self.command(&format!("busybox sysctl -w net.ipv6.conf.{tap}.disable_ipv6=1"));
        self.ip(&format!("link set {tap} master {bridge} up"));
        self.within(&guest, "busybox sysctl -w net.ipv6.conf.eth0.accept_dad=0");
        self.ip(&format!("-n {guest} link set eth0 up mtu {}", network.mtu));
        for PortAddress { subnet_id, address } in &port.addresses {
            let subnet = network.subnets.iter().find(|subnet| subnet.id == *subnet_id).unwrap();
            self.ip(&format!("-n {guest} addr add {address}/{} dev eth0 nodad", subnet.cidr.prefix_len()));
            if let Some(gateway) = subnet.gateway.filter(|_| subnet.routed) {
                self.ip(&format!("-n {guest} route add default via {gateway}"));
            }
        }
        guest
    }

    pub fn has(&self, path: &str) -> bool {
        let path = path.to_owned();
        self.run(move || Path::new(&path).exists())
    }

    pub fn setting(&self, name: &str) -> String {
        let path = format!("/proc/sys/net/{name}");
        self.run(move || fs::read_to_string(&path).unwrap().trim().to_owned())
    }

    /// Everything that there is, a line each, without what differs each time.
    pub fn inventory(&self) -> String {
        let listed = [
            "-br link",
            "-br addr",
            "route show table all",
            "-6 route show table all",
            "neigh",
            "neigh show proxy",
        ]
        .map(|line| self.ip(line));
        let stations = self.command("bridge fdb");
        let namespaces = self.ip("netns");
        let namespaces =
            namespaces.lines().filter_map(|line| line.split(' ').next()).map(|name| format!("netns {name}"));
        let lines = listed.iter().chain([&stations]).flat_map(|text| text.lines());
        let lines = lines.filter(|line| {
            !["33:33:", "01:00:5e:", "fe80::/64", "local fe80::", "multicast ff00::/8"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        let mut lines: Vec<_> = lines.map(stable_words).chain(namespaces).collect();
        lines.retain(|line| {
            !line.contains("33:33:") && !line.contains("01:00:5e:") && !line.contains("fe80::/64")
        });
        lines.sort();
        lines.join("\n")
    }
}

/// Without the addresses that cards chose at random, the numbers of devices, and states that take a moment.
fn stable_words(line: &str) -> String {
    let given = |word: &&str| {
        !is_mac(word)
            || word.starts_with("52:54:")
            || word.starts_with("02:62:00:00:")
            || word.starts_with("02:63:00:00:")
    };
    let passing = |word: &&str| {
        matches!(*word, "UP" | "DOWN" | "UNKNOWN" | "linkdown")
            || word.starts_with("fe80::")
            || word.starts_with('<')
    };
    let words = line.split_whitespace().filter(given).filter(|word| !passing(word));
    let words: Vec<_> = words.map(|word| word.split('@').next().unwrap_or(word)).collect();
    words.join(" ")
}

fn is_mac(word: &str) -> bool {
    word.len() == 17 && word.split(':').count() == 6
}

/// Two hosts with a cable between them, and what each is connected to.
pub fn two_hosts() -> [(Host, Surroundings); 2] {
    let hosts = [Host::new(), Host::new()];
    hosts[0].ip(&format!("link add uplink type veth peer name uplink netns {}", hosts[1].thread));
    let mut number = 0;
    hosts.map(|host| {
        number += 1;
        host.ip(&format!("addr add 192.0.2.{number}/24 dev uplink"));
        host.ip("link set uplink up");
        let underlay = Some(format!("192.0.2.{number}").parse().unwrap());
        (host, Surroundings { underlay, external_interface: None })
    })
}

pub fn id<T: From<Uuid>>(number: u128) -> T {
    Uuid::from_u128(number).into()
}

pub fn mac(number: u8) -> MacAddress {
    MacAddress::from_bytes([0x52, 0x54, 0, 0, 0, number]).unwrap()
}

/// Network `n` has the subnet `10.0.n.0/24`, its gateway at `.1` if routed, its services at `.2`.
pub fn network(number: u8, routed: bool) -> Network {
    Network {
        id: id(number.into()),
        vni: Vni::try_from(u32::from(number)).unwrap(),
        mtu: 1400,
        dns_domain: "internal".to_owned(),
        subnets: vec![Subnet {
            id: id(number.into()),
            cidr: format!("10.0.{number}.0/24").parse().unwrap(),
            gateway: Some(format!("10.0.{number}.1").parse().unwrap()),
            routed,
            service_address: format!("10.0.{number}.2").parse().unwrap(),
            dhcp: true,
            dns_servers: vec![],
        }],
        ports: vec![],
        remote_ports: vec![],
    }
}

/// A second subnet, `fd00:0:0:n::/64`, its services at `::2`.
pub fn add_ipv6(network: &mut Network) {
    let number = network.vni.get();
    network.subnets.push(Subnet {
        id: id(1000 + u128::from(number)),
        cidr: format!("fd00:0:0:{number}::/64").parse().unwrap(),
        gateway: None,
        routed: false,
        service_address: format!("fd00:0:0:{number}::2").parse().unwrap(),
        dhcp: true,
        dns_servers: vec![],
    });
}

/// A port with the last number in each of its addresses and its card's.
pub fn port(network: &Network, number: u8) -> Port {
    let address = |subnet: &Subnet| {
        let cidr = subnet.cidr.network().to_string();
        let base = cidr.strip_suffix(".0").map(|base| format!("{base}.")).unwrap_or(cidr);
        PortAddress { subnet_id: subnet.id, address: format!("{base}{number}").parse().unwrap() }
    };
    Port {
        id: id(number.into()),
        instance_id: id(number.into()),
        mac: mac(number),
        addresses: network.subnets.iter().map(address).collect(),
        allowed_address_pairs: vec![],
        security_groups: vec![],
        hostname: format!("guest-{number}").parse().unwrap(),
        metadata: Metadata { instance_type: String::new(), project: String::new(), public_ipv4: None },
    }
}

/// How another host knows a port.
pub fn remote(port: &Port, host: &str) -> RemotePort {
    RemotePort {
        mac: port.mac,
        addresses: port.addresses.iter().map(|address| address.address).collect(),
        hostname: port.hostname.clone(),
        host: Some(host.parse().unwrap()),
    }
}

pub fn router(number: u8, networks: &[&Network]) -> Router {
    let interface = |network: &&Network| RouterInterface {
        id: id(u128::from(number) * 256 + u128::from(network.vni.get())),
        network_id: network.id,
        subnet_id: network.subnets[0].id,
        address: format!("{}/24", network.subnets[0].gateway.unwrap()).parse().unwrap(),
        mac: mac(200 + u8::try_from(network.vni.get()).unwrap()),
    };
    Router {
        id: id(number.into()),
        number: number.into(),
        interfaces: networks.iter().map(interface).collect(),
        external: false,
        routes: vec![],
        floating_ips: vec![],
    }
}

pub fn document(networks: &[&Network], routers: &[&Router]) -> HostNetwork {
    HostNetwork {
        networks: networks.iter().map(|network| (*network).clone()).collect(),
        routers: routers.iter().map(|router| (*router).clone()).collect(),
        ..HostNetwork::default()
    }
}
