//! Hosts and guests that consist of namespaces. They and all that is in them end with the bench.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow, ensure};
use networking::links::{self, Links};
use networking::names;
use networking::packets::{self, Packets};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::gettid;
use protocol::agent::{HostNetwork, Network, Port};

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network and a mount namespace of its own: a computer with nothing but `lo`.
pub(crate) struct Host {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Host {
    /// Needs root.
    pub(crate) fn new() -> Result<Self> {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let entered = enter();
            let may_work = entered.is_ok();
            if ready.send(entered).is_ok() && may_work {
                receiver.into_iter().for_each(|job| job());
            }
        });
        let thread = is_ready.recv().context("start a host")?.context("make namespaces; is this root?")?;
        let host = Self { jobs, thread };
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// Runs on the host.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        let job = move || drop(sender.send(job()));
        self.jobs.send(Box::new(job)).map_err(|_| anyhow!("the host has ended"))?;
        receiver.recv().context("a job on the host panicked")
    }

    /// Runs a command, words split at spaces, to its end; what it printed.
    pub(crate) fn command(&self, line: &str) -> Result<String> {
        let words = line.to_owned();
        let output = self.run(move || split(&words).output())?.with_context(|| format!("run {line}"))?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn ip(&self, line: &str) -> Result<String> {
        self.command(&format!("ip {line}"))
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, line: &str) -> Result<Child> {
        let words = line.to_owned();
        let spawn = move || split(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.run(spawn)?.with_context(|| format!("start {line}"))
    }

    /// Runs in a namespace of the host, on a thread of its own.
    pub(crate) fn run_in<T: Send + 'static>(
        &self,
        namespace: &str,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = format!("/run/netns/{namespace}");
        let enter = move || {
            setns(File::open(&path).with_context(|| format!("open {path}"))?, CloneFlags::CLONE_NEWNET)?;
            job()
        };
        // A thread has the namespaces of the one that starts it.
        let thread = self.run(move || std::thread::spawn(enter))?;
        thread.join().map_err(|_| anyhow!("a job in {namespace} panicked"))?
    }

    /// Makes devices and, if asked, packet rules match, in the agent's order.
    pub(crate) fn converge(
        &self,
        links: links::Surroundings,
        packets: Option<packets::Surroundings>,
        want: &HostNetwork,
    ) -> Result<()> {
        let (links, packets, want) = (Links::new(links), packets.map(Packets::new), want.clone());
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                if let Some(packets) = &packets {
                    packets.guard(&want).await?;
                }
                let mut faults = links.converge(&want).await?.faults;
                if let Some(packets) = &packets {
                    faults.extend(packets.converge(&want).await?.faults);
                }
                ensure!(faults.is_empty(), "the host's networks have faults: {faults:?}");
                Ok(())
            })
        })?
    }

    /// What libvirt and a guest do: a tap on the network's bridge, a card with the port's addresses in a
    /// namespace, whose name is given back.
    pub(crate) fn plug(&self, network: &Network, port: &Port) -> Result<String> {
        let bridge = names::bridge(network.vni);
        let address = port.addresses.first().context("a port has an address")?.address;
        let mac = port.mac.to_string();
        self.plug_by_hand(&names::tap(port.id), &bridge, &mac, &address.to_string(), network.mtu)
    }

    /// The same with a tap of any name.
    pub(crate) fn plug_by_hand(
        &self,
        tap: &str,
        bridge: &str,
        mac: &str,
        address: &str,
        mtu: u16,
    ) -> Result<String> {
        let guest = format!("guest-{tap}");
        self.ip(&format!("netns add {guest}"))?;
        self.ip(&format!(
            "link add {tap} mtu {mtu} type veth peer name eth0 address {mac} mtu {mtu} netns {guest}"
        ))?;
        self.ip(&format!("link set {tap} addrgenmode none master {bridge} up"))?;
        self.ip(&format!("-n {guest} link set lo up"))?;
        self.ip(&format!("-n {guest} link set eth0 addrgenmode none up"))?;
        self.ip(&format!("-n {guest} address add {address}/16 dev eth0"))?;
        Ok(guest)
    }

    /// A bridge past which no packet filter looks.
    pub(crate) fn bare_bridge(&self, name: &str, mtu: u16) -> Result<()> {
        self.command(
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        )?;
        self.ip(&format!("link add {name} mtu {mtu} type bridge mcast_snooping 0"))?;
        self.ip(&format!("link set {name} addrgenmode none up"))?;
        Ok(())
    }
}

/// Two hosts with a cable between them, 192.0.2.1 and 192.0.2.2.
pub(crate) fn two_hosts() -> Result<[Host; 2]> {
    let hosts = [Host::new()?, Host::new()?];
    let [left, right] = &hosts;
    left.ip(&format!("link add uplink type veth peer name uplink netns {}", right.thread))?;
    for (host, number) in hosts.iter().zip(1..) {
        host.ip(&format!("address add 192.0.2.{number}/24 dev uplink"))?;
        host.ip("link set uplink up")?;
    }
    Ok(hosts)
}

fn enter() -> nix::Result<i32> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // Where namespaces are named.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(gettid().as_raw())
}

fn split(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}
