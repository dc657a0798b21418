//! The host's side of the way out: forwarding, and floating addresses on the external interface.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};
use rtnetlink::packet_route::AddressFamily as RouteFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};

use super::desired::Desired;
use super::seen::{OURS, Seen};
use super::settings;
use super::space::{Mode, Space, StepError};

/// Lets packets come in for routers, and answers for floating addresses. Returns what failed.
pub(super) async fn converge(root: &mut Space, interface: Option<&str>, desired: &Desired) -> Vec<String> {
    let mut faults = Vec::new();
    let external = interface.and_then(|name| Some((name, root.seen.links.get(name)?.index)));
    if let (Some(name), None, true) = (interface, external, desired.forwarding) {
        faults.push(format!("there is no external interface {name}: floating IPs are not answered for"));
    }
    if desired.forwarding {
        faults.extend(forward(root, interface).err().map(|error| error.sentence()));
    }
    let failed = answer(root, external, &desired.proxies).await;
    faults.extend(failed.iter().map(StepError::sentence));
    faults
}

/// The devices on which forwarding is switched on: the external interface or, when none is named, those of the host's
/// default routes.
pub(crate) async fn devices(interface: Option<&str>) -> io::Result<BTreeSet<String>> {
    if let Some(name) = interface {
        return Ok(BTreeSet::from([name.to_owned()]));
    }
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let driver = tokio::spawn(connection);
    let read = Seen::read_routes(&handle).await;
    driver.abort();
    let (seen, mut names) = read?;
    Ok(seen.default_routes.iter().filter_map(|index| names.remove(index)).collect())
}

fn forward(root: &mut Space, interface: Option<&str>) -> Result<(), StepError> {
    let seen = &root.seen;
    let outside = seen.links.iter().filter(|(name, link)| match interface {
        Some(interface) => interface == *name,
        None => seen.default_routes.contains(&link.index),
    });
    let names: Vec<_> = outside.map(|(name, _)| name.clone()).collect();
    for name in names {
        let applied = settings::apply(&settings::external(&name), root.mode);
        let changes =
            applied.map_err(|error| StepError::new(format!("switch on forwarding from {name}"), error))?;
        if !changes.is_empty() && root.mode == Mode::Change {
            tracing::info!(interface = name, "switched on forwarding of packets that come in there");
        }
        root.changes.extend(changes);
    }
    Ok(())
}

/// Answers ARP for the addresses on the external interface, and says so once to everyone there. Returns what failed: no
/// address keeps another one from being answered for.
async fn answer(
    root: &mut Space,
    external: Option<(&str, u32)>,
    addresses: &BTreeSet<IpAddr>,
) -> Vec<StepError> {
    let mut failed = Vec::new();
    let mut right = BTreeSet::new();
    let mut wrong = Vec::new();
    for proxy in &root.seen.proxies {
        let wanted =
            external.is_some_and(|(_, index)| index == proxy.index) && addresses.contains(&proxy.address);
        if wanted {
            right.insert(proxy.address);
        } else {
            wrong.push((proxy.index, proxy.address));
        }
    }
    for (index, address) in wrong {
        let removed = root.handle.neighbours().del(proxy(index, address)).execute();
        failed.extend(root.remove(removed, || format!("stop answering for {address}")).await.err());
    }
    let Some((name, index)) = external else { return failed };
    for address in addresses.iter().filter(|address| !right.contains(address)) {
        let mut add = root.handle.neighbours().add(index, *address);
        *add.message_mut() = proxy(index, *address);
        let added = root.change(add.replace().execute(), || format!("answer for {address} on {name}")).await;
        if let Err(error) = added {
            failed.push(error);
        } else if let (IpAddr::V4(address), Mode::Change) = (address, root.mode)
            && let Err(error) = announce(name, *address)
        {
            failed.push(StepError::new(format!("announce {address} on {name}"), error));
        }
    }
    failed
}

fn proxy(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.family = if address.is_ipv4() { RouteFamily::Inet } else { RouteFamily::Inet6 };
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes =
        vec![NeighbourAttribute::Destination(address.into()), NeighbourAttribute::Protocol(OURS)];
    message
}

/// Sends an ARP announcement (RFC 5227, section 3): others who knew another card for the address learn this one.
fn announce(interface: &str, address: Ipv4Addr) -> io::Result<()> {
    let cards =
        getifaddrs()?.filter(|found| found.interface_name == interface).filter_map(|found| found.address);
    let card = cards.filter_map(|address| address.as_link_addr().copied()).next();
    let card =
        card.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the interface has no card address"))?;
    let Some(mac) = card.addr() else { return Ok(()) };
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    sendto(socket.as_raw_fd(), &announcement(mac, address), &card as &dyn SockaddrLike, MsgFlags::empty())?;
    Ok(())
}

fn announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    // ARP for IPv4 over Ethernet, a request.
    frame.extend([0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}
