//! What is wanted, as plain data: rendered from the document, compared with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use protocol::agent::NetworkSubject;
use protocol::{MacAddress, Vni};

use super::settings::Settings;

/// All devices of a host.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Desired {
    /// One per network and one per router, networks first: routers stand on their bridges.
    pub units: Vec<Unit>,
    /// Addresses that this host answers for on the external interface.
    pub proxies: BTreeSet<IpAddr>,
    /// Whether anything is forwarded between routers and the outside.
    pub forwarding: bool,
}

/// What one network or router consists of. Its faults stay its own.
#[derive(Debug, PartialEq)]
pub(super) struct Unit {
    pub subject: NetworkSubject,
    pub namespace: Option<Namespace>,
    pub devices: Vec<Device>,
    /// What the document asks for and cannot be had, each a sentence.
    pub faults: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Namespace {
    pub name: String,
    /// Made before any device comes, so that devices inherit them.
    pub settings: Settings,
}

/// A network device with all that hangs on it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Device {
    pub name: String,
    pub kind: Kind,
    /// Bytes.
    pub mtu: u32,
    /// The kernel's choice if absent.
    pub mac: Option<MacAddress>,
    /// The bridge that it is a port of, and how.
    pub port: Option<BridgePort>,
    pub settings: Settings,
    pub addresses: BTreeSet<IpNet>,
    pub routes: BTreeSet<Route>,
    /// Permanent neighbours: those that the bridge answers for.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// The stations behind this port of a bridge.
    pub stations: BTreeSet<MacAddress>,
    /// The host behind which each station is; of VXLAN devices only.
    pub tunnels: BTreeMap<MacAddress, IpAddr>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Bridge,
    Vxlan {
        vni: Vni,
        local: IpAddr,
    },
    /// A link into the unit's namespace.
    Veth {
        inner: Box<Device>,
    },
    /// The end of a link in the unit's namespace.
    Inner,
    /// Made by someone else; nothing is done while it is not there.
    Tap,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct BridgePort {
    pub bridge: String,
    /// Whether stations are learned from their frames.
    pub learning: bool,
    /// Whether frames to unknown stations leave here.
    pub unknown_unicast: bool,
    /// Whether broadcast and multicast leave here.
    pub multicast: bool,
    /// Whether the bridge answers ARP and ND for the stations behind this port.
    pub answered_for: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub destination: IpNet,
    pub gateway: IpAddr,
    /// Only packets from here take it; IPv6 only.
    pub source: Option<IpNet>,
}

impl Device {
    pub fn new(name: String, kind: Kind, mtu: u32) -> Self {
        Self {
            name,
            kind,
            mtu,
            mac: None,
            port: None,
            settings: Settings::new(),
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            stations: BTreeSet::new(),
            tunnels: BTreeMap::new(),
        }
    }
}

impl BridgePort {
    /// A port with known stations only: what is meant for others does not leave there.
    pub fn of(bridge: String) -> Self {
        Self { bridge, learning: false, unknown_unicast: false, multicast: true, answered_for: false }
    }
}
