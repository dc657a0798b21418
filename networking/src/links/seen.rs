//! What is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{Stream, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::desired::Route;
use super::space::into_io;

/// Marks routes and proxy neighbours as ours. The kernel gives numbers above 3 no meaning; this one is not among
/// those that other programs are known by.
pub(super) const OURS: RouteProtocol = RouteProtocol::Other(99);

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub links: BTreeMap<String, Link>,
    pub neighbours: Vec<NeighbourMessage>,
    pub proxies: Vec<Proxy>,
    pub stations: Vec<Station>,
    /// Devices by which the host reaches the world.
    pub default_routes: BTreeSet<u32>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub index: u32,
    pub kind: Option<InfoKind>,
    pub up: bool,
    pub mtu: u32,
    pub mac: Vec<u8>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The other end of a link, perhaps in another namespace.
    pub peer: Option<u32>,
    pub bridge: Vec<InfoBridge>,
    pub vxlan: Vec<InfoVxlan>,
    pub port: Vec<InfoBridgePort>,
    pub addresses: BTreeMap<IpNet, AddressMessage>,
    /// Those of ours.
    pub routes: BTreeMap<Route, RouteMessage>,
}

/// A neighbour that a device answers for; ours alone.
#[derive(Debug)]
pub(super) struct Proxy {
    pub index: u32,
    pub address: IpAddr,
}

/// An entry of a forwarding database.
#[derive(Debug)]
pub(super) struct Station {
    pub port: u32,
    /// The bridge; absent in the database of a VXLAN device.
    pub bridge: Option<u32>,
    pub mac: Vec<u8>,
    /// The host behind which it is; of VXLAN devices.
    pub host: Option<IpAddr>,
    pub message: NeighbourMessage,
}

impl Seen {
    pub async fn read(handle: &Handle) -> io::Result<Self> {
        let (mut seen, names) = Self::read_routes(handle).await?;
        for message in all(handle.address().get().execute()).await? {
            if let (Some(link), Some(address)) =
                (seen.link_mut(&names, message.header.index), address(&message))
            {
                link.addresses.insert(address, message);
            }
        }
        seen.neighbours = all(handle.neighbours().get().execute()).await?;
        seen.proxies =
            all(handle.neighbours().get().proxies().execute()).await?.iter().filter_map(proxy).collect();
        let database = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
        seen.stations = all(database).await?.into_iter().filter_map(station).collect();
        Ok(seen)
    }

    /// Devices and routes alone, and the devices' names by index.
    pub async fn read_routes(handle: &Handle) -> io::Result<(Self, BTreeMap<u32, String>)> {
        let mut seen = Self::default();
        let mut names = BTreeMap::new();
        for message in all(handle.link().get().execute()).await? {
            let (name, link) = link(message);
            names.insert(link.index, name.clone());
            seen.links.insert(name, link);
        }
        for message in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            for message in all(handle.route().get(message).execute()).await? {
                seen.take_route(&names, message);
            }
        }
        Ok((seen, names))
    }

    fn link_mut(&mut self, names: &BTreeMap<u32, String>, index: u32) -> Option<&mut Link> {
        self.links.get_mut(names.get(&index)?)
    }

    fn take_route(&mut self, names: &BTreeMap<u32, String>, message: RouteMessage) {
        let device = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let Some(device) = device else { return };
        let header = &message.header;
        if header.destination_prefix_length == 0 && header.kind == RouteType::Unicast {
            self.default_routes.insert(device);
        }
        if header.protocol == OURS
            && let (Some(link), Some(route)) = (self.link_mut(names, device), route(&message))
        {
            link.routes.insert(route, message);
        }
    }
}

async fn all<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> io::Result<Vec<T>> {
    match stream.try_collect().await {
        // A kernel without IPv6 has no such table.
        Err(rtnetlink::Error::NetlinkError(error)) if error.to_io().kind() == io::ErrorKind::Unsupported => {
            Ok(Vec::new())
        }
        done => done.map_err(into_io),
    }
}

pub(super) fn link(message: LinkMessage) -> (String, Link) {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let mut name = String::new();
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = found,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| take_info(&mut link, info)),
            _ => (),
        }
    }
    (name, link)
}

fn take_info(link: &mut Link, info: LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind),
        LinkInfo::Data(InfoData::Bridge(bridge)) => link.bridge = bridge,
        LinkInfo::Data(InfoData::Vxlan(vxlan)) => link.vxlan = vxlan,
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => link.port = port,
        _ => (),
    }
}

/// The kernel's own link-local addresses do not count.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let of = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // Of a link between two, `Address` is that of the other end.
    let address = of(true).or_else(|| of(false))?;
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => None,
        _ => IpNet::new(address, message.header.prefix_len).ok(),
    }
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    let (mut destination, mut source, mut gateway) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Source(address) => source = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            _ => (),
        }
    }
    let gateway = gateway?;
    let any: IpAddr =
        if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let destination = IpNet::new(destination.unwrap_or(any), header.destination_prefix_length).ok()?;
    let source = source.and_then(|source| IpNet::new(source, header.source_prefix_length).ok());
    Some(Route { destination, gateway, source })
}

fn proxy(message: &NeighbourMessage) -> Option<Proxy> {
    let ours = message.attributes.contains(&NeighbourAttribute::Protocol(OURS));
    let address = neighbour_address(message)?;
    ours.then_some(Proxy { index: message.header.ifindex, address })
}

/// The address and card of a permanent neighbour.
pub(super) fn permanent_neighbour(message: &NeighbourMessage) -> Option<(IpAddr, &[u8])> {
    if message.header.state != NeighbourState::Permanent
        || message.header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    Some((neighbour_address(message)?, mac(message)?))
}

fn neighbour_address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => None,
        },
        _ => None,
    })
}

fn mac(message: &NeighbourMessage) -> Option<&[u8]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.as_slice()),
        _ => None,
    })
}

fn station(message: NeighbourMessage) -> Option<Station> {
    let bridge = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Controller(index) => Some(*index),
        _ => None,
    });
    Some(Station {
        port: message.header.ifindex,
        bridge,
        mac: mac(&message)?.to_vec(),
        host: neighbour_address(&message),
        message,
    })
}
