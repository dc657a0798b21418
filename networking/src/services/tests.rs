//! Rendered purely, and served by a real dnsmasq in namespaces of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use protocol::agent::{
    HostNetwork, Metadata, Network, NetworkSubject, Port, PortAddress, RemotePort, Subnet,
};
use protocol::{MacAddress, Vni};
use uuid::Uuid;

use super::render::Files;
use super::{Outcome, Services, listen_for_metadata, process};

const VNI: u32 = 7;

fn subnet(n: u128, cidr: &str, gateway: &str, service: &str, routed: bool) -> Subnet {
    Subnet {
        id: Uuid::from_u128(n).into(),
        cidr: cidr.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        routed,
        service_address: service.parse().unwrap(),
        dhcp: true,
        dns_servers: vec!["192.0.2.53".parse().unwrap()],
    }
}

fn network() -> Network {
    let address = |n, address: &str| PortAddress {
        subnet_id: Uuid::from_u128(n).into(),
        address: address.parse().unwrap(),
    };
    Network {
        id: Uuid::from_u128(100).into(),
        vni: Vni::try_from(VNI).unwrap(),
        mtu: 1450,
        dns_domain: "demo.internal".to_owned(),
        subnets: vec![
            subnet(1, "10.7.0.0/24", "10.7.0.1", "10.7.0.2", true),
            subnet(2, "fd00:7::/64", "fd00:7::1", "fd00:7::2", false),
        ],
        ports: vec![Port {
            id: Uuid::from_u128(200).into(),
            instance_id: Uuid::from_u128(201).into(),
            mac: mac(1),
            addresses: vec![address(1, "10.7.0.10"), address(2, "fd00:7::10")],
            allowed_address_pairs: Vec::new(),
            security_groups: Vec::new(),
            hostname: "web-1".parse().unwrap(),
            metadata: Metadata {
                instance_type: "small".to_owned(),
                project: "demo".to_owned(),
                public_ipv4: None,
            },
        }],
        remote_ports: vec![remote("db-1", "10.7.0.11")],
    }
}

fn remote(hostname: &str, address: &str) -> RemotePort {
    let (hostname, addresses) = (hostname.parse().unwrap(), vec![address.parse().unwrap()]);
    RemotePort { mac: mac(2), addresses, hostname, host: None }
}

fn mac(n: u8) -> MacAddress {
    MacAddress::from_bytes([0x02, 0, 0, 0, 0, n]).unwrap()
}

fn document(network: &Network) -> HostNetwork {
    HostNetwork { networks: vec![network.clone()], ..HostNetwork::default() }
}

#[test]
fn the_files_say_what_the_document_says() {
    let files = Files::of(&network(), Path::new("/run/cumulo/7")).unwrap();
    for expected in [
        "dhcp-range=set:s0,10.7.0.0,static,255.255.255.0,3600\n",
        "dhcp-option=tag:s0,option:router,10.7.0.1\n",
        "dhcp-option=tag:s0,option:classless-static-route,169.254.169.254/32,10.7.0.2,0.0.0.0/0,10.7.0.1\n",
        "dhcp-range=set:s1,fd00:7::,static,64,3600\n",
        "ra-param=eth0,mtu:1450,60,0\n",
        "server=192.0.2.53\n",
        "local=/demo.internal/\n",
    ] {
        assert!(files.config.contains(expected), "{expected} is not in\n{}", files.config);
    }
    assert_eq!(
        files.stations,
        "02:00:00:00:00:01,10.7.0.10,web-1,3600\n02:00:00:00:00:01,[fd00:7::10],web-1,3600\n"
    );
    assert_eq!(
        files.names,
        "10.7.0.10 web-1.demo.internal web-1\nfd00:7::10 web-1.demo.internal web-1\n10.7.0.11 db-1.demo.internal db-1\n"
    );
}

#[test]
fn without_a_router_no_way_out_is_told() {
    let mut network = network();
    network.subnets[0].routed = false;
    let config = Files::of(&network, Path::new("/run/cumulo/7")).unwrap().config;
    assert!(config.contains("dhcp-option=tag:s0,option:router\n"), "{config}");
    assert!(config.contains("option:classless-static-route,169.254.169.254/32,10.7.0.2\n"), "{config}");
}

#[test]
fn a_domain_cannot_be_an_option() {
    for bad in ["", "a..b", "-a", "a-", "A", "a\ndhcp-script=/bin/sh", "a/1.2.3.4", "a#", "a b", "ü"] {
        let network = Network { dns_domain: bad.to_owned(), ..network() };
        assert!(Files::of(&network, Path::new("/run/cumulo/7")).is_err(), "{bad:?}");
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network and a mount namespace of its own, with a network that has one guest.
struct Host {
    jobs: mpsc::Sender<Job>,
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
            receiver.into_iter().for_each(|job| job());
        });
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self { jobs, dir };
        host.make_namespace();
        for line in [
            "ip netns add guest",
            "ip link add ct1 type veth peer name eth0 address 02:00:00:00:00:01 netns guest",
            "ip link add cbr7 type bridge",
            "ip link set ct1 master cbr7 up",
            "ip link set cbr7 up",
            "ip -n guest link set eth0 up",
        ] {
            host.command(line);
        }
        host.join_bridge();
        host
    }

    fn make_namespace(&self) {
        for line in [
            "ip netns add cumulo-net-7",
            "ip link add csv7 type veth peer name eth0 netns cumulo-net-7",
            "ip -n cumulo-net-7 addr add 10.7.0.2/24 dev eth0",
            "ip -n cumulo-net-7 addr add 169.254.169.254/32 dev eth0",
            "ip -n cumulo-net-7 addr add fd00:7::2/64 dev eth0 nodad",
            "ip -n cumulo-net-7 link set lo up",
            "ip -n cumulo-net-7 link set eth0 up",
        ] {
            self.command(line);
        }
    }

    fn join_bridge(&self) {
        self.command("ip link set csv7 master cbr7 up");
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.jobs.send(Box::new(move || sender.send(job()).unwrap())).unwrap();
        receiver.recv().expect("the job on the host panicked")
    }

    fn try_command(&self, line: &str) -> (bool, String) {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
            (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
        })
    }

    fn command(&self, line: &str) -> String {
        let (done, said) = self.try_command(line);
        assert!(done, "{line}: {said}");
        said
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("services")
    }

    fn converge(&self, services: &Services, document: &HostNetwork) -> Outcome {
        let (services, document) = (services.clone(), document.clone());
        self.run(move || runtime().block_on(services.converge(&document)))
    }

    fn look(&self, document: &HostNetwork) -> Vec<String> {
        let (services, document) = (self.services(), document.clone());
        let differences = self.run(move || runtime().block_on(services.look(&document))).unwrap();
        differences.into_iter().map(|difference| difference.detail).collect()
    }

    /// An agent that has just been started.
    fn services(&self) -> Services {
        Services::new(self.folder())
    }

    fn pid(&self) -> i32 {
        fs::read_to_string(self.folder().join("7").join(process::READY)).unwrap().trim().parse().unwrap()
    }

    /// What the guest is told by DHCP, as `name=value` lines.
    fn lease(&self) -> String {
        let script = self.dir.path().join("told");
        fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && env\nexit 0\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let options = "-f -q -n -t 5 -T 1 -O staticroutes -O mtu -O domain -i eth0 -s";
        self.command(&format!("ip netns exec guest busybox udhcpc {options} {}", script.display()))
    }

    fn resolve(&self, name: &str) -> (bool, String) {
        self.try_command(&format!("ip netns exec guest busybox nslookup {name} 10.7.0.2"))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const CHANGED: Outcome = Outcome { changed: true, faults: Vec::new() };
const UNCHANGED: Outcome = Outcome { changed: false, faults: Vec::new() };

#[test]
fn a_guest_gets_its_address_and_resolves_names_and_nothing_is_done_twice() {
    let (host, document) = (Host::new(), document(&network()));
    let services = host.services();
    assert_eq!(host.converge(&services, &document), CHANGED);
    assert_eq!(host.converge(&services, &document), UNCHANGED);
    let told = host.lease();
    for expected in [
        "ip=10.7.0.10",
        "router=10.7.0.1",
        "dns=10.7.0.2",
        "mtu=1450",
        "domain=demo.internal",
        "lease=3600",
        "staticroutes=169.254.169.254/32 10.7.0.2 0.0.0.0/0 10.7.0.1",
    ] {
        assert!(told.lines().any(|line| line == expected), "{expected} is not in\n{told}");
    }
    host.command("ip -n guest addr add 10.7.0.10/24 dev eth0");
    assert!(host.resolve("db-1.demo.internal").1.contains("10.7.0.11"));
    assert!(host.resolve("10.7.0.11").1.contains("db-1.demo.internal"));
    assert!(!host.resolve("nobody.demo.internal").0);

    // A card that is not the network's gets nothing.
    host.command("ip -n guest link set eth0 address 02:00:00:00:00:99");
    let asked =
        host.try_command("ip netns exec guest busybox udhcpc -f -q -n -t 2 -T 1 -i eth0 -s /bin/true");
    assert!(!asked.0, "{}", asked.1);
    host.converge(&services, &HostNetwork::default());
}

#[test]
fn it_outlives_the_agent_reads_new_names_starts_anew_for_new_options_and_ends_with_its_network() {
    let (host, mut network) = (Host::new(), network());
    assert_eq!(host.converge(&host.services(), &document(&network)), CHANGED);
    let first = host.pid();
    host.command("ip -n guest addr add 10.7.0.10/24 dev eth0");

    let services = host.services();
    assert_eq!(host.converge(&services, &document(&network)), UNCHANGED, "the next agent finds it");
    network.remote_ports.push(remote("new-1", "10.7.0.12"));
    assert_eq!(host.converge(&services, &document(&network)), CHANGED);
    assert_eq!(host.pid(), first);
    let resolved = (0..100).any(|_| host.resolve("new-1.demo.internal").1.contains("10.7.0.12"));
    assert!(resolved, "a new name is known without a restart");

    network.mtu = 1400;
    assert_eq!(host.converge(&services, &document(&network)), CHANGED);
    let second = host.pid();
    assert_ne!(second, first);
    assert!(!Path::new(&format!("/proc/{first}")).exists() || is_zombie(first));

    // It dies; and its namespace is made anew.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(second), nix::sys::signal::Signal::SIGKILL).unwrap();
    until(|| is_zombie(second) || !Path::new(&format!("/proc/{second}")).exists());
    assert_eq!(host.converge(&services, &document(&network)), CHANGED);
    let third = host.pid();
    host.command("ip netns del cumulo-net-7");
    host.command("ip link del csv7");
    host.make_namespace();
    host.join_bridge();
    assert_eq!(host.converge(&services, &document(&network)), CHANGED);
    assert_ne!(host.pid(), third);
    assert!(host.lease().contains("mtu=1400"));

    let last = host.pid();
    assert_eq!(host.converge(&services, &HostNetwork::default()), CHANGED);
    assert!(is_zombie(last) || !Path::new(&format!("/proc/{last}")).exists());
    assert!(!host.folder().join("7").exists());
    assert_eq!(host.converge(&services, &HostNetwork::default()), UNCHANGED);
}

#[test]
fn an_address_goes_to_its_next_owner_at_once() {
    let (host, mut network) = (Host::new(), network());
    let services = host.services();
    let mut other = network.ports[0].clone();
    (other.id, other.mac) = (Uuid::from_u128(210).into(), mac(3));
    other.addresses[0].address = "10.7.0.11".parse().unwrap();
    other.addresses[1].address = "fd00:7::11".parse().unwrap();
    network.ports.push(other);
    host.converge(&services, &document(&network));
    assert!(host.lease().contains("ip=10.7.0.10"));

    network.ports.remove(0);
    assert_eq!(host.look(&document(&network)).last().unwrap(), "forget the lease of 10.7.0.10");
    host.converge(&services, &document(&network));
    assert_eq!(host.look(&document(&network)), [""; 0]);
    // The next guest has another card, and the address of the one before.
    let mut next = network.ports[0].clone();
    (next.id, next.mac) = (Uuid::from_u128(211).into(), mac(4));
    next.addresses[0].address = "10.7.0.10".parse().unwrap();
    next.addresses.truncate(1);
    network.ports.push(next);
    host.converge(&services, &document(&network));
    host.command("ip -n guest link set eth0 address 02:00:00:00:00:04");
    assert!(host.lease().contains("ip=10.7.0.10"));

    // Even when both happen at once.
    network.ports[1].mac = mac(5);
    host.converge(&services, &document(&network));
    host.command("ip -n guest link set eth0 address 02:00:00:00:00:05");
    assert!(host.lease().contains("ip=10.7.0.10"));
    host.converge(&services, &HostNetwork::default());
}

#[test]
fn what_was_changed_by_hand_is_named_and_put_right() {
    let (host, document) = (Host::new(), document(&network()));
    let (services, none) = (host.services(), [""; 0]);
    assert_eq!(
        host.look(&document),
        [
            "write dnsmasq.conf of DHCP and DNS",
            "write hosts of DHCP and DNS",
            "write dhcp-hosts of DHCP and DNS",
            "start dnsmasq: it does not run",
        ]
    );
    assert!(!host.folder().exists(), "a look changes nothing");
    host.converge(&services, &document);
    assert_eq!(host.look(&document), none);
    for name in ["dhcp-hosts", "hosts", "dnsmasq.conf"] {
        fs::write(host.folder().join("7").join(name), "# by hand\n").unwrap();
        assert_eq!(host.look(&document), [format!("write {name} of DHCP and DNS")]);
        assert_eq!(host.converge(&services, &document), CHANGED);
        assert_eq!(host.look(&document), none);
    }
    let nobody = HostNetwork::default();
    let left = host.look(&nobody);
    assert_eq!(left.last().unwrap(), "remove the files of DHCP and DNS of VNI 7");
    assert!(left[0].starts_with(&format!("end process {}: ", host.pid())), "{left:?}");
    host.converge(&services, &nobody);
    assert_eq!(host.look(&nobody), none);
}

#[test]
fn a_process_that_only_has_the_number_is_left_alone() {
    let (host, document) = (Host::new(), document(&network()));
    let services = host.services();
    host.converge(&services, &document);
    let (file, ours) = (host.folder().join("7/running.json"), host.pid());
    let mut bystander = Command::new("sleep").arg("60").spawn().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&ours.to_string(), &bystander.id().to_string())).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(ours), nix::sys::signal::Signal::SIGKILL).unwrap();
    until(|| is_zombie(ours));
    assert_eq!(host.converge(&services, &document), CHANGED);
    assert_eq!(host.converge(&services, &HostNetwork::default()), CHANGED);
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander lives");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_network_that_cannot_be_served_is_a_fault_and_stops_no_other() {
    let (host, good) = (Host::new(), network());
    let lost = Network { id: Uuid::from_u128(101).into(), vni: Vni::try_from(8).unwrap(), ..network() };
    let (services, id) = (host.services(), lost.id);
    let document = HostNetwork { networks: vec![lost, good], ..HostNetwork::default() };
    let outcome = host.converge(&services, &document);
    assert!(outcome.changed);
    assert_eq!(outcome.faults.len(), 1, "{outcome:?}");
    assert_eq!(outcome.faults[0].subject, NetworkSubject::Network(id));
    host.converge(&services, &HostNetwork::default());
}

#[test]
fn a_network_without_ports_on_this_host_is_not_served() {
    let host = Host::new();
    let services = host.services();
    let through = Network { ports: Vec::new(), ..network() };
    assert_eq!(host.converge(&services, &document(&through)), Outcome::default());
}

#[test]
fn a_network_without_resolvers_asks_those_of_the_host() {
    let (host, mut network) = (Host::new(), network());
    network.subnets.iter_mut().for_each(|subnet| subnet.dns_servers.clear());
    let resolvers = host.dir.path().join("resolv.conf");
    fs::write(&resolvers, "search x\nnameserver 127.0.0.9\n").unwrap();
    host.command("ip link set lo up");
    host.command(&format!("mount --bind {} /etc/resolv.conf", resolvers.display()));
    let options = "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
         --listen-address=127.0.0.9 --address=/example.org/192.0.2.80 --pid-file= --user=root";
    let mut upstream =
        host.run(move || Command::new("dnsmasq").args(options.split_whitespace()).spawn().unwrap());
    host.command("ip -n guest addr add 10.7.0.10/24 dev eth0");

    let (services, document) = (host.services(), document(&network));
    let runtime = host.run(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        assert_eq!(runtime.block_on(services.converge(&document)), CHANGED);
        (runtime, services)
    });
    until(|| host.resolve("www.example.org").1.contains("192.0.2.80"));
    assert!(!host.resolve("nobody.demo.internal").0, "names of the network are asked of nobody");
    host.converge(&runtime.1, &HostNetwork::default());
    upstream.kill().unwrap();
    upstream.wait().unwrap();
}

#[test]
fn all_networks_together_ask_so_many_questions_at_once() {
    let (host, mut network) = (Host::new(), network());
    network.subnets.iter_mut().for_each(|subnet| subnet.dns_servers.clear());
    let resolvers = host.dir.path().join("resolv.conf");
    fs::write(&resolvers, "nameserver 127.0.0.9\n").unwrap();
    host.command("ip link set lo up");
    host.command(&format!("mount --bind {} /etc/resolv.conf", resolvers.display()));
    host.command("ip -n guest addr add 10.7.0.10/24 dev eth0");
    // One that answers nobody.
    let upstream = host.run(|| std::net::UdpSocket::bind("127.0.0.9:53").unwrap());
    upstream.set_read_timeout(Some(std::time::Duration::from_millis(1500))).unwrap();
    let (services, document) = (Services::with_questions(host.folder(), 3), document(&network));
    let runtime = host.run(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        assert_eq!(runtime.block_on(services.converge(&document)), CHANGED);
        (runtime, services)
    });
    let ask =
        "for n in 1 2 3 4 5 6 7 8 9; do timeout 1 busybox nslookup n$n.example.org 10.7.0.2 & done; wait";
    let script = host.dir.path().join("ask");
    fs::write(&script, ask).unwrap();
    host.try_command(&format!("ip netns exec guest sh {}", script.display()));
    let asked = std::iter::from_fn(|| upstream.recv(&mut [0; 512]).ok()).count();
    assert_eq!(asked, 3);
    host.converge(&runtime.1, &HostNetwork::default());
}

#[test]
fn the_socket_of_the_metadata_service_is_in_the_namespace() {
    let host = Host::new();
    let vni = Vni::try_from(VNI).unwrap();
    let listener = host.run(move || runtime().block_on(listen_for_metadata(vni))).unwrap();
    assert_eq!(listener.local_addr().unwrap().to_string(), "169.254.169.254:80");
    host.command("ip -n guest addr add 10.7.0.10/24 dev eth0");
    host.command("ip -n guest route add 169.254.169.254 via 10.7.0.2");
    host.command("ip netns exec guest busybox nc -w 2 169.254.169.254 80 -e /bin/true");
    until(|| listener.accept().is_ok_and(|(_, from)| from.ip().to_string() == "10.7.0.10"));
}

/// A guest that says that somebody else has its address already (RFC 2131), which dnsmasq complains of each time.
fn decline() -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0, 0, 0, 7];
    message.resize(28, 0);
    message.extend(mac(1).bytes());
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 4, 54, 4, 10, 7, 0, 2, 50, 4, 10, 7, 0, 10, 255]);
    message.resize(300, 0);
    message
}

#[test]
fn a_guest_fills_no_disk_with_complaints() {
    let (host, document) = (Host::new(), document(&network()));
    let services = host.services();
    host.converge(&services, &document);
    host.command("ip -n guest addr add 10.7.0.10/24 dev eth0");
    let complaints = host.folder().join("7/stderr");
    let kept = || fs::metadata(&complaints).unwrap().len();
    let complain_until = |bytes: u64| {
        let complaints = complaints.clone();
        host.run(move || {
            super::inside::within("guest", || {
                let socket = std::net::UdpSocket::bind("10.7.0.10:68")?;
                until(|| {
                    (0..100).for_each(|_| drop(socket.send_to(&decline(), "10.7.0.2:67")));
                    fs::metadata(&complaints).unwrap().len() > bytes
                });
                Ok(())
            })
        })
        .unwrap();
    };
    complain_until(100_000);
    assert_eq!(host.converge(&services, &document), UNCHANGED);
    assert!(kept() < 65_536, "{} bytes", kept());
    complain_until(kept() + 1000);
    assert!(kept() < 65_536, "{} bytes: written at the end, wherever that is", kept());
    host.converge(&services, &HostNetwork::default());
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn until(mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 10, "in vain");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
