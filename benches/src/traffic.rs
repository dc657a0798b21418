//! What passes between two guests: TCP by iperf3, small packets by a loop that sends them.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::gettid;
use serde_json::Value;

use crate::compare::{Series, report};
use crate::create::run_command;
use crate::world::Host;

const SECONDS: u32 = 2;
/// Bytes of UDP's payload in a small packet.
const SMALL: usize = 64;
const BURST: u32 = 128;
/// Between bursts, so that no packet of one waits behind those of another.
const REST: Duration = Duration::from_millis(4);
const PATIENCE: Duration = Duration::from_secs(5);

/// Two guests, the host of each, and the server's address.
pub(crate) struct Pair<'a> {
    pub client: (&'a Host, String),
    pub server: (&'a Host, String),
    pub address: String,
}

impl Pair<'_> {
    /// TCP's throughput, in Gbit/s.
    pub(crate) fn tcp(&self) -> Result<f64> {
        let end = self.measure()?;
        let bits = end["sum_received"]["bits_per_second"].as_f64().context("iperf3 says bits per second")?;
        Ok(bits / 1e9)
    }

    /// UDP packets from one card to the other, in thousands per second.
    ///
    /// The server has a socket and reads nothing: who waits for packets has to be woken for each one when they come
    /// slowly and for none when they come fast, which would measure that. So one processor does all the work.
    pub(crate) fn small_packets(&self) -> Result<f64> {
        let address: SocketAddr = format!("{}:5201", self.address).parse()?;
        let (host, guest) = &self.server;
        let _socket = host.run_in(guest, move || Ok(UdpSocket::bind(address)?))?;
        let before = self.received()?;
        let (host, guest) = &self.client;
        let (sent, rate) = host.run_in(guest, move || flood(address))?;
        let arrived = self.received()? - before;
        ensure!(arrived * 10 > sent * 9, "of {sent} packets {arrived} arrived");
        Ok(rate / 1e3)
    }

    /// Packets that have come in by the server's card.
    fn received(&self) -> Result<u64> {
        let (host, guest) = &self.server;
        let said: Value = serde_json::from_str(&host.ip(&format!("-n {guest} -j -s link show eth0"))?)?;
        said[0]["stats64"]["rx"]["packets"].as_u64().context("ip counts packets")
    }

    /// Server and client on a processor each and before whatever else the machine does, so that rounds are alike.
    fn measure(&self) -> Result<Value> {
        let (host, guest) = &self.server;
        let mut server =
            host.start(&format!("ip netns exec {guest} nice -n -20 iperf3 --server --one-off"))?;
        let measured = self.ask();
        server.kill().context("end iperf3")?;
        server.wait().context("wait for iperf3")?;
        measured
    }

    /// The end of iperf3's answer. What failed is in it, too.
    fn ask(&self) -> Result<Value> {
        let (host, guest) = &self.client;
        let line = format!(
            "ip netns exec {guest} nice -n -20 iperf3 --client {} --time {SECONDS} --affinity 0,1 --json",
            self.address
        );
        let started = Instant::now();
        loop {
            let mut answer: Value =
                serde_json::from_str(&host.command(&line)?).context("understand iperf3")?;
            if answer["error"].is_null() {
                return Ok(answer["end"].take());
            }
            // The server needs a moment.
            ensure!(started.elapsed() < PATIENCE, "iperf3 in {guest}: {}", answer["error"]);
            sleep(Duration::from_millis(50));
        }
    }
}

/// Sends for a round; how many packets, and how many per second in the fastest tenth of it, when nothing else had the
/// processor.
fn flood(to: SocketAddr) -> Result<(u64, f64)> {
    run_command("renice", &["-n", "-20", "-p", &gettid().to_string()])?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let packet = [0; SMALL];
    let (round, started) = (Duration::from_secs(SECONDS.into()), Instant::now());
    let mut bursts = Vec::new();
    while started.elapsed() < round {
        let began = Instant::now();
        for _ in 0..BURST {
            socket.send(&packet).context("send a small packet")?;
        }
        bursts.push(began.elapsed());
        sleep(REST);
    }
    bursts.sort_unstable();
    let fast = bursts.get(bursts.len() / 10).context("a burst")?;
    Ok((bursts.len() as u64 * u64::from(BURST), f64::from(BURST) / fast.as_secs_f64()))
}

/// Rounds of both kinds, alternating between the two pairs; reports as `<name>-tcp` and `<name>-packets`.
pub(crate) fn compare(
    name: &str,
    rounds: usize,
    (ours_name, ours): (&'static str, &Pair<'_>),
    (peer_name, peer): (&'static str, &Pair<'_>),
) -> Result<()> {
    let both = || (Series::new(ours_name), Series::new(peer_name));
    let ((mut tcp, mut peer_tcp), (mut packets, mut peer_packets)) = (both(), both());
    for _ in 0..rounds {
        tcp.values.push(ours.tcp()?);
        peer_tcp.values.push(peer.tcp()?);
        packets.values.push(ours.small_packets()?);
        peer_packets.values.push(peer.small_packets()?);
    }
    report(&format!("{name}-tcp"), "Gbit/s", &tcp, &peer_tcp)?;
    println!();
    report(&format!("{name}-packets"), "1000 packets/s", &packets, &peer_packets)
}
