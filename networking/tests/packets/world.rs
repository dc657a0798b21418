//! A host of its own for each test: network namespaces of the test's thread, made with `ip`.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use networking::names;
use networking::packets::{DropKind, Outcome, Packets, PacketsError, Surroundings};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use protocol::Vni;
use protocol::agent::{HostNetwork, Port};

pub const SHORT: Duration = Duration::from_millis(400);

/// A machine with nothing but `lo`, and the packet rules of it.
pub struct World {
    pub packets: Packets,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub fn new(surroundings: Surroundings) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("tests of packet rules run as root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::create_dir("/run/netns").unwrap();
        ip("link set lo up");
        sysctl("net/ipv4/ip_forward", "1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { packets: Packets::new(surroundings), runtime }
    }

    pub fn guard(&self, want: &HostNetwork) {
        self.runtime.block_on(self.packets.guard(want)).unwrap();
    }

    pub fn guard_error(&self, want: &HostNetwork) -> PacketsError {
        self.runtime.block_on(self.packets.guard(want)).unwrap_err()
    }

    pub fn try_converge(&self, want: &HostNetwork) -> Outcome {
        self.runtime.block_on(self.packets.converge(want)).unwrap()
    }

    pub fn remove(&self) {
        self.runtime.block_on(self.packets.remove()).unwrap();
    }

    /// What a look that changes nothing finds.
    pub fn look(&self, want: &HostNetwork) -> Vec<String> {
        let differences = self.runtime.block_on(self.packets.look(want)).unwrap();
        differences.into_iter().map(|difference| difference.detail).collect()
    }

    /// Converges, without faults, to where nothing is left to do.
    pub fn converge(&self, want: &HostNetwork) {
        assert_eq!(self.try_converge(want).faults, []);
        assert!(!self.try_converge(want).changed, "the second pass had something to do");
        assert_eq!(self.look(want), [""; 0]);
    }

    pub fn dropped(&self, kind: DropKind) -> u64 {
        let drops = self.runtime.block_on(self.packets.drops()).unwrap();
        drops.iter().find(|drops| drops.kind == kind).unwrap().packets
    }

    pub fn drops(&self) -> Vec<(DropKind, u64)> {
        let drops = self.runtime.block_on(self.packets.drops()).unwrap();
        drops.iter().filter(|drops| drops.packets > 0).map(|drops| (drops.kind, drops.packets)).collect()
    }

    pub fn bridge(&self, vni: u32) {
        let name = names::bridge(Vni::try_from(vni).unwrap());
        ip(&format!("link add {name} type bridge nf_call_iptables 1 nf_call_ip6tables 1 mcast_snooping 0"));
        ip(&format!("link set {name} up addrgenmode none"));
    }

    /// A guest: a namespace whose `eth0` is at the other end of the port's tap, with the port's addresses.
    pub fn guest(&self, name: &str, vni: u32, port: &Port, gateways: &[IpAddr]) {
        let tap = names::tap(port.id);
        ip(&format!("netns add {name}"));
        inside(name, || sysctl("net/ipv6/conf/default/accept_dad", "0"));
        ip(&format!("link add {tap} type veth peer name eth0 netns {name}"));
        ip(&format!("link set {tap} master cbr{vni} up addrgenmode none"));
        ip(&format!("-n {name} link set eth0 address {} up", port.mac));
        ip(&format!("-n {name} link set lo up"));
        for address in &port.addresses {
            let len = if address.address.is_ipv4() { 24 } else { 64 };
            ip(&format!("-n {name} address add {}/{len} dev eth0", address.address));
        }
        for gateway in gateways {
            ip(&format!("-n {name} route add default via {gateway}"));
        }
    }
}

/// Runs `ip` with words of our own.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What `nft` says, which does as it is told.
pub fn nft(words: &[&str]) -> String {
    let output = Command::new("nft").args(words).output().unwrap();
    assert!(output.status.success(), "nft {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

/// Runs on a thread in the namespace.
pub fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

pub fn pings(namespace: &str, to: &str) -> bool {
    let tool = if to.contains(':') { "ping6" } else { "ping" };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "busybox", tool, "-c", "1", "-W", "1", to]);
    command.output().unwrap().status.success()
}

/// Connects, sends a word and hears it back; `None` if there is no way. The second is who the server saw.
pub fn connect(from: &str, to: &str, listen: SocketAddr, target: SocketAddr) -> Option<(Wire, SocketAddr)> {
    let listener = inside(to, || TcpListener::bind(listen).unwrap());
    listener.set_nonblocking(true).unwrap();
    let client = inside(from, || TcpStream::connect_timeout(&target, SHORT)).ok()?;
    let (server, peer) = (0..100)
        .find_map(|_| {
            listener.accept().ok().or_else(|| {
                thread::sleep(Duration::from_millis(5));
                None
            })
        })
        .expect("the connection is accepted");
    server.set_nonblocking(false).unwrap();
    let mut wire = Wire { client, server };
    assert!(wire.carries(), "the connection was made but carries nothing");
    Some((wire, peer))
}

/// An established connection.
pub struct Wire {
    client: TcpStream,
    server: TcpStream,
}

impl Wire {
    /// Whether a word still comes over and back.
    pub fn carries(&mut self) -> bool {
        use std::io::{Read, Write};
        let mut word = [0; 4];
        let (from, to) = (&mut self.client, &mut self.server);
        to.set_read_timeout(Some(SHORT)).unwrap();
        from.set_read_timeout(Some(SHORT)).unwrap();
        if from.write_all(b"word").is_err() || to.read_exact(&mut word).is_err() {
            return false;
        }
        if to.write_all(b"back").is_err() || from.read_exact(&mut word).is_err() {
            return false;
        }
        true
    }
}

pub fn tcp(from: &str, to: &str, address: &str, port: u16) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    connect(from, to, address, address).is_some()
}

/// Sends a datagram and hears another back.
pub fn udp(from: &str, to: &str, address: &str, port: u16) -> bool {
    udp_of(from, to, address, port, b"word")
}

pub fn udp_of(from: &str, to: &str, address: &str, port: u16, word: &[u8]) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let server = inside(to, || UdpSocket::bind(address).unwrap());
    let client = inside(from, || UdpSocket::bind(any).unwrap());
    server.set_read_timeout(Some(SHORT)).unwrap();
    client.set_read_timeout(Some(SHORT)).unwrap();
    let mut buffer = vec![0; word.len() + 1];
    if client.send_to(word, address).is_err() {
        return false;
    }
    let Ok((length, peer)) = server.recv_from(&mut buffer) else { return false };
    assert_eq!(&buffer[..length], word);
    server.send_to(word, peer).unwrap();
    client.recv_from(&mut buffer).is_ok_and(|(length, _)| &buffer[..length] == word)
}
