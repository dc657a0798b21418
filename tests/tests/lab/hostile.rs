//! A guest that says it is somebody else: what it may say, what it may not, and who hears it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use lab::{Guest, Host, Lab, LabOptions, in_lab};
use serde_json::{Value, json};

use crate::frames::{
    ARP, BROADCAST, Hardware, IPV4, IPV6, arp, ether, hardware, icmp6, link_local, udp4, udp6,
};
use crate::scene::{Actor, cast, curtain, egress, group, ingress, ping, post};

/// In every frame of these tests, with a number behind it.
const TEXT: &str = "whose-frame-";
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const TO_ALL_NODES: Hardware = [0x33, 0x33, 0, 0, 0, 1];
const FOREIGN: Hardware = [2, 0, 0, 0, 0, 0x66];

/// Somebody in the network, as frames name them.
struct Station {
    mac: Hardware,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Station {
    fn of(actor: &Actor) -> Result<Self> {
        let v6 = actor.v6.as_deref().context("no IPv6 address")?;
        Ok(Self { mac: hardware(&actor.mac)?, v4: actor.v4.parse()?, v6: v6.parse()? })
    }
}

struct Frame {
    what: &'static str,
    /// The counter that it adds to; none if it may pass.
    dropped_as: Option<&'static str>,
    bytes: Vec<u8>,
}

/// Numbers frames by their text, so that whoever hears one knows which.
#[derive(Default)]
struct Script(Vec<Frame>);

impl Script {
    fn add(
        &mut self,
        what: &'static str,
        dropped_as: impl Into<Option<&'static str>>,
        to: Hardware,
        from: Hardware,
        kind: u16,
        body: impl FnOnce(&[u8]) -> Vec<u8>,
    ) {
        let text = format!("{TEXT}{:03}", self.0.len());
        let bytes = ether(to, from, kind, &body(text.as_bytes()));
        self.0.push(Frame { what, dropped_as: dropped_as.into(), bytes });
    }
}

/// What any guest may send: these have to arrive, or silence would prove nothing.
fn honest(script: &mut Script, me: &Station, victim: &Station) {
    let (from, to) = (me.mac, victim.mac);
    script.add("honest IPv4", None, to, from, IPV4, |text| udp4((me.v4, 1000), (victim.v4, 1001), text));
    script.add("honest IPv6", None, to, from, IPV6, |text| udp6((me.v6, 1000), (victim.v6, 1001), text));
    script.add("honest ARP", None, to, from, ARP, |text| {
        arp(2, (me.mac, me.v4), (victim.mac, victim.v4), text)
    });
}

fn hostile(script: &mut Script, me: &Station, victim: &Station, gateway: Ipv4Addr) {
    let (from, to) = (me.mac, victim.mac);
    let four = |text: &[u8]| udp4((me.v4, 1000), (victim.v4, 1001), text);
    let mut tell = |what, counter: &'static str, to, from, kind, body: &dyn Fn(&[u8]) -> Vec<u8>| {
        script.add(what, counter, to, from, kind, body);
    };
    tell("foreign MAC", "mac", to, FOREIGN, IPV4, &four);
    tell("the victim's MAC", "mac", BROADCAST, to, IPV4, &four);
    let spoofed = |source| move |text: &[u8]| udp4((source, 1000), (victim.v4, 1001), text);
    tell("a free IPv4 address", "ipv4_source", to, from, IPV4, &spoofed(Ipv4Addr::new(10, 0, 0, 99)));
    tell("the gateway's IPv4 address", "ipv4_source", to, from, IPV4, &spoofed(gateway));
    let spoofed = |source| move |text: &[u8]| udp6((source, 1000), (victim.v6, 1001), text);
    tell(
        "a foreign IPv6 address",
        "ipv6_source",
        to,
        from,
        IPV6,
        &spoofed("fd00:1::99".parse().unwrap_or(victim.v6)),
    );
    let says = |operation, address| {
        move |text: &[u8]| arp(operation, (me.mac, address), (victim.mac, victim.v4), text)
    };
    tell("ARP answer for the gateway", "arp", to, from, ARP, &says(2, gateway));
    tell("ARP announcement of the gateway", "arp", BROADCAST, from, ARP, &says(1, gateway));
    tell("ARP answer for the victim", "arp", BROADCAST, from, ARP, &says(2, victim.v4));
    let own = link_local(me.mac);
    // Hop limit, no flags, lifetime 30 minutes, no timers; the text stands where options are.
    let advertisement =
        |text: &[u8]| icmp6(own, ALL_NODES, 134, &[&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], text].concat());
    tell("router advertisement", "router_advertisement", TO_ALL_NODES, from, IPV6, &advertisement);
    tell("router advertisement to one", "router_advertisement", to, from, IPV6, &advertisement);
    let speaks_for_victim =
        |text: &[u8]| icmp6(own, ALL_NODES, 136, &[&[0x20, 0, 0, 0], &victim.v6.octets()[..], text].concat());
    tell("neighbour advertisement for the victim", "neighbour", TO_ALL_NODES, from, IPV6, &speaks_for_victim);
    let offer = |text: &[u8]| udp4((me.v4, 67), (Ipv4Addr::BROADCAST, 68), text);
    tell("DHCP offer", "dhcp_server", BROADCAST, from, IPV4, &offer);
    tell("DHCP offer to one", "dhcp_server", to, from, IPV4, &|text| {
        udp4((me.v4, 67), (victim.v4, 68), text)
    });
    tell("DHCPv6 advertisement", "dhcp_server", to, from, IPV6, &|text| {
        udp6((own, 547), (link_local(victim.mac), 546), text)
    });
    let tagged = |text: &[u8]| [&[0, 5, 8, 0], &four(text)[..]].concat();
    tell("VLAN tag", "vlan", to, from, 0x8100, &tagged);
    tell("service VLAN tag", "vlan", to, from, 0x88a8, &tagged);
    tell("LLDP to one", "link_control", to, from, 0x88cc, &<[u8]>::to_vec);
    // A length where the type is: 802.2, as spanning tree.
    let bridge_protocol = |text: &[u8]| [&[0x42, 0x42, 3, 0, 0, 0, 0], text, &[0; 16]].concat();
    tell("spanning tree", "link_control", [1, 0x80, 0xc2, 0, 0, 0], from, 38, &bridge_protocol);
    tell("PPPoE", "ethertype", BROADCAST, from, 0x8863, &<[u8]>::to_vec);
    tell("a protocol for experiments", "ethertype", to, from, 0x88b5, &<[u8]>::to_vec);
}

/// The host itself, by the hardware address of its bridge.
fn to_host(script: &mut Script, me: &Station, host: &Host) -> Result<()> {
    let bridge = host.machine.output("sh", &["-c", "cat /sys/class/net/cbr*/address"])?;
    let (bridge, address) = (hardware(bridge.trim())?, host.address.parse()?);
    let body = |text: &[u8]| udp4((me.v4, 1000), (address, 22), text);
    script.add("a packet to the host", "host", bridge, me.mac, IPV4, body);
    Ok(())
}

/// How often packets were dropped on a host, by reason.
fn drops(host: &Host) -> Result<BTreeMap<String, u64>> {
    let listed = host.machine.output("nft", &["--json", "list", "counters", "table", "bridge", "cumulo"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let counters = listed["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("counter"));
    Ok(counters
        .filter_map(|counter| Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?)))
        .collect())
}

/// Which frames a guest has heard, by their numbers.
fn heard(actor: &mut Actor) -> Result<Vec<usize>> {
    let seen = actor.shell.output("cat /run/seen")?;
    let text = hex::encode(TEXT);
    let digits = seen.lines().filter_map(|line| line.split_once(&text)?.1.get(..6));
    digits.map(|digits| Ok(std::str::from_utf8(&hex::decode(digits)?)?.parse()?)).collect()
}

fn send(actor: &mut Actor, frames: &[Frame]) -> Result<()> {
    for frame in frames {
        actor.shell.output(&format!("frame send eth0 {}", hex::encode(&frame.bytes)))?;
    }
    Ok(())
}

async fn frames(lab: &Lab, me: &mut Actor, victims: [&mut Actor; 2]) -> Result<()> {
    let mut script = Script::default();
    let station = Station::of(me)?;
    for victim in &victims {
        let victim = Station::of(victim)?;
        honest(&mut script, &station, &victim);
        hostile(&mut script, &station, &victim, Ipv4Addr::new(10, 0, 0, 1));
    }
    let host = me.on(lab)?;
    to_host(&mut script, &station, host)?;
    let Script(frames) = script;
    let [near, far] = victims;
    for victim in [&mut *near, &mut *far] {
        victim.shell.output(&format!("frame watch eth0 {TEXT} > /run/seen 2>&1 &"))?;
    }
    let before = drops(host)?;
    send(me, &frames)?;
    let after = drops(host)?;

    let half = (frames.len() - 1) / 2;
    for (victim, own) in [(&mut *near, 0..half), (&mut *far, half..frames.len())] {
        let name = victim.instance.name.clone();
        let expected: Vec<_> = own.filter(|&number| frames[number].dropped_as.is_none()).collect();
        let mut numbers = heard(victim)?;
        numbers.sort_unstable();
        let said: Vec<_> = numbers.iter().filter_map(|&n| frames.get(n)).map(|frame| frame.what).collect();
        ensure!(numbers == expected, "{name} hears {said:?}");
    }
    let mut expected = BTreeMap::new();
    for counter in frames.iter().filter_map(|frame| frame.dropped_as) {
        *expected.entry(counter).or_insert(0) += 1;
    }
    for (counter, count) in expected {
        let counted = after.get(counter).unwrap_or(&0) - before.get(counter).unwrap_or(&0);
        ensure!(counted == count, "{counter}: {counted} frames are counted, not {count}");
    }
    // Nothing of it has left a trace with the victims.
    for victim in [near, far] {
        let route = victim.shell.output("ip route show default; ip -6 route show default; ip neigh")?;
        ensure!(route.contains("via 10.0.0.1 "), "{route}");
        ensure!(!route.contains(&link_local(station.mac).to_string()), "a router: {route}");
        ensure!(
            !route.lines().any(|line| line.starts_with("10.0.0.1 ") && line.contains(&me.mac)),
            "{route}"
        );
    }
    Ok(())
}

/// Addresses that the port names beside its own work on its host, for as long as they are named.
async fn pairs(me: &mut Actor, near: &mut Actor) -> Result<()> {
    for address in ["10.0.0.200", "10.0.0.201", "fd00:1::200"] {
        me.shell.output(&format!("ip addr add {address} dev eth0"))?;
    }
    near.shell.fails(&ping("10.0.0.200"))?;
    let named = json!([{"cidr": "10.0.0.200/32"}, {"cidr": "fd00:1::200/128"}]);
    me.change_port(json!({"allowed_address_pairs": named})).await?;
    for address in ["10.0.0.200", "fd00:1::200"] {
        near.soon(&ping(address)).await?;
    }
    near.shell.fails(&ping("10.0.0.201"))?;
    // As the source of what it sends of its own accord, too.
    me.shell.output(&format!("ping -c 1 -W 2 -I 10.0.0.200 {}", near.v4))?;
    me.shell.fails(&format!("ping -c 1 -W 2 -I 10.0.0.201 {}", near.v4))?;
    me.change_port(json!({"allowed_address_pairs": []})).await?;
    near.soon_fails(&ping("10.0.0.200")).await?;
    near.shell.output(&ping(&me.v4)).map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_guest_is_heard_by_nobody() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        post(&project, "/subnets", json!({"name": "six", "network": "default", "cidr": "fd00:1::/64"}))
            .await?;
        // Whatever a group can allow, so that nothing is dropped for the lack of a rule.
        let all = ["0.0.0.0/0", "::/0"].map(|all| ingress(json!({"remote_cidr": all})));
        group(&project, "all", [all, egress()].concat()).await?;
        let card = || json!({"network": "default", "security_groups": ["all"]});
        let mut actors = cast(lab, &project, &[("a", card()), ("b", card()), ("c", card())]).await?;
        // Two are on one host, wherever that is: the attacker is one of them.
        let crowded = |host: &str| actors.iter().filter(|actor| actor.host == host).count() == 2;
        let lone = actors.iter().position(|actor| !crowded(&actor.host)).context("all are on one host")?;
        actors.swap(lone, 2);
        let [me, near, far] = &mut actors[..] else { anyhow::bail!("not three") };
        ensure!(me.host == near.host && me.host != far.host, "{} {} {}", me.host, near.host, far.host);

        frames(lab, me, [near, far]).await?;
        pairs(me, near).await.context("allowed address pairs")?;
        curtain(lab, actors).await
    })
    .await
}
