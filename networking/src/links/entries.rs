//! What hangs on a device: addresses, routes, neighbours and stations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use protocol::MacAddress;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, route};

use super::desired::{Device, Kind, Route};
use super::seen::{Link, OURS, Station, permanent_neighbour};
use super::space::{Space, StepError};

/// Puts right what hangs on a device. Of a tap, which is someone else's, only its stations.
pub(super) async fn entries(space: &mut Space, wanted: &Device, link: &mut Link) -> Result<(), StepError> {
    if wanted.kind != Kind::Tap {
        addresses(space, wanted, link).await?;
        routes(space, wanted, link).await?;
    }
    if wanted.kind == Kind::Bridge {
        neighbours(space, wanted, link).await?;
    }
    if wanted.port.is_some() {
        stations(space, wanted, link).await?;
    }
    if let Kind::Vxlan { .. } = wanted.kind {
        tunnels(space, wanted, link).await?;
    }
    Ok(())
}

/// With an address that goes, the kernel may drop others of its subnet, routes and neighbours: all these are then
/// made anew.
async fn addresses(space: &mut Space, wanted: &Device, link: &mut Link) -> Result<(), StepError> {
    let (kept, wrong): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut link.addresses)
        .into_iter()
        .partition(|(address, _)| wanted.addresses.contains(address));
    if wrong.is_empty() {
        link.addresses = kept;
    } else {
        link.routes.retain(|route, _| !wanted.routes.contains(route));
        space.seen.neighbours.retain(|message| message.header.ifindex != link.index);
    }
    for (address, message) in wrong {
        let removed = space.handle.address().del(message).execute();
        space.remove(removed, || format!("remove {address} from {}", wanted.name)).await?;
    }
    for address in wanted.addresses.iter().filter(|address| !link.addresses.contains_key(address)) {
        let mut add = space.handle.address().add(link.index, address.addr(), address.prefix_len()).replace();
        if let IpNet::V6(_) = address {
            add.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        space.change(add.execute(), || format!("give {address} to {}", wanted.name)).await?;
    }
    Ok(())
}

async fn routes(space: &mut Space, wanted: &Device, link: &Link) -> Result<(), StepError> {
    for (route, message) in link.routes.iter().filter(|(route, _)| !wanted.routes.contains(route)) {
        let removed = space.handle.route().del(message.clone()).execute();
        space
            .remove(removed, || format!("remove the route to {} by {}", route.destination, route.gateway))
            .await?;
    }
    for route in wanted.routes.iter().filter(|route| !link.routes.contains_key(route)) {
        let add = space.handle.route().add(route_message(route, link.index)).replace().execute();
        space.change(add, || format!("add the route to {} by {}", route.destination, route.gateway)).await?;
    }
    Ok(())
}

fn route_message(route: &Route, device: u32) -> RouteMessage {
    let mut message = RouteMessageBuilder::<IpAddr>::new().protocol(OURS).output_interface(device).build();
    let header = &mut message.header;
    header.address_family = if route.gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = route.destination.prefix_len();
    let ip = |address: IpAddr| match address {
        IpAddr::V4(address) => route::RouteAddress::Inet(address),
        IpAddr::V6(address) => route::RouteAddress::Inet6(address),
    };
    message.attributes.push(RouteAttribute::Destination(ip(route.destination.addr())));
    message.attributes.push(RouteAttribute::Gateway(ip(route.gateway)));
    if let Some(source) = route.source {
        message.header.source_prefix_length = source.prefix_len();
        message.attributes.push(RouteAttribute::Source(ip(source.addr())));
    }
    message
}

async fn neighbours(space: &mut Space, wanted: &Device, link: &Link) -> Result<(), StepError> {
    let mut right = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    let seen = space.seen.neighbours.iter().filter(|message| message.header.ifindex == link.index);
    for (address, mac) in seen.filter_map(permanent_neighbour) {
        match wanted.neighbours.get(&address) {
            Some(known) if known.bytes() == *mac => right.insert(address),
            // One with another card is overwritten below.
            Some(_) => false,
            None => wrong.insert(address),
        };
    }
    for address in wrong {
        let removed = space.handle.neighbours().del(neighbour(link.index, address)).execute();
        space.remove(removed, || format!("forget neighbour {address} of {}", wanted.name)).await?;
    }
    for (address, mac) in wanted.neighbours.iter().filter(|(address, _)| !right.contains(address)) {
        let add =
            space.handle.neighbours().add(link.index, *address).link_layer_address(&mac.bytes()).replace();
        space.change(add.execute(), || format!("add neighbour {address} of {}", wanted.name)).await?;
    }
    Ok(())
}

fn neighbour(device: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = device;
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

/// The bridge's own entries for this port. They stick: a frame with that source from elsewhere does not move them.
async fn stations(space: &mut Space, wanted: &Device, link: &Link) -> Result<(), StepError> {
    let learning = wanted.port.as_ref().is_some_and(|port| port.learning);
    let mut right: BTreeSet<[u8; 6]> = BTreeSet::new();
    let mut wrong: BTreeSet<[u8; 6]> = BTreeSet::new();
    let here = |station: &&Station| station.port == link.index && station.bridge == link.master;
    for station in space.seen.stations.iter().filter(here) {
        let fixed = match station.message.header.state {
            // The address of the port itself.
            NeighbourState::Permanent => continue,
            state => state == NeighbourState::Noarp,
        };
        let sticks = station.message.header.flags.contains(NeighbourFlags::Sticky);
        let Ok(mac) = <[u8; 6]>::try_from(station.mac.as_slice()) else { continue };
        let known = wanted.stations.iter().any(|station| station.bytes() == mac);
        if known && fixed && sticks {
            right.insert(mac);
        } else if !known && (fixed || !learning) {
            wrong.insert(mac);
        }
    }
    for mac in wrong {
        let removed =
            space.handle.neighbours().del(entry(link.index, mac, NeighbourFlags::Controller)).execute();
        space.remove(removed, || format!("remove station {mac:02x?} from {}", wanted.name)).await?;
    }
    for mac in wanted.stations.iter().filter(|mac| !right.contains(&mac.bytes())) {
        let add = space.handle.neighbours().add_bridge(link.index, &mac.bytes());
        let add = add
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
            .replace();
        space.change(add.execute(), || format!("add station {mac} to {}", wanted.name)).await?;
    }
    Ok(())
}

/// The VXLAN device's entries: behind which host each station is.
async fn tunnels(space: &mut Space, wanted: &Device, link: &Link) -> Result<(), StepError> {
    let mut right: BTreeSet<[u8; 6]> = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    let here = |station: &&Station| station.port == link.index && station.bridge.is_none();
    for station in space.seen.stations.iter().filter(here) {
        let (Ok(mac), Some(host)) = (<[u8; 6]>::try_from(station.mac.as_slice()), station.host) else {
            continue;
        };
        let known = MacAddress::from_bytes(mac).ok().and_then(|mac| wanted.tunnels.get(&mac));
        if known == Some(&host) {
            right.insert(mac);
        } else {
            wrong.insert((mac, host));
        }
    }
    for (mac, host) in wanted.tunnels.iter().filter(|(mac, _)| !right.contains(&mac.bytes())) {
        let add = space.handle.neighbours().add_bridge(link.index, &mac.bytes());
        let add = add.flags(NeighbourFlags::Own).destination(*host).replace();
        space.change(add.execute(), || format!("send frames for {mac} to host {host}")).await?;
    }
    for (mac, host) in wrong {
        let mut message = entry(link.index, mac, NeighbourFlags::Own);
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(host)));
        let removed = space.handle.neighbours().del(message).execute();
        space.remove(removed, || format!("no longer send frames for {mac:02x?} to host {host}")).await?;
    }
    Ok(())
}

fn entry(device: u32, mac: [u8; 6], flags: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = device;
    message.header.family = AddressFamily::Bridge;
    message.header.flags = flags;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}
