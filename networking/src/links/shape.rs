//! The properties of a device that is there.

use std::io;

use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkMessage,
};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec};

use super::desired::{BridgePort, Device, Kind};
use super::seen::Link;
use super::settings;
use super::space::{Space, StepError};

/// Of every bridge. Packets of a bridge pass the host's packet filter, where security groups are.
pub(super) const BRIDGE: [InfoBridge; 4] = [
    InfoBridge::StpState(BridgeStpState::Disabled),
    InfoBridge::MulticastSnooping(false),
    InfoBridge::NfCallIpTables(true),
    InfoBridge::NfCallIp6Tables(true),
];

/// Puts a device's properties right. Returns it with those entries that it still has.
pub(super) async fn shape(space: &mut Space, wanted: &Device, mut link: Link) -> Result<Link, StepError> {
    basics(space, wanted, &mut link).await?;
    if wanted.kind == Kind::Bridge {
        bridge(space, wanted, &link).await?;
    }
    if let Some(message) = wanted.port.as_ref().and_then(|port| port_flags(port, &link)) {
        let set = space.handle.link().set_port(message).execute();
        space.change(set, || format!("set the properties of {} as a port", wanted.name)).await?;
    }
    if !matches!(wanted.kind, Kind::Inner) {
        let apply = settings::apply(&wanted.settings, space.mode);
        space.changes.extend(
            apply.map_err(|error| StepError::new(format!("apply the settings of {}", wanted.name), error))?,
        );
    }
    if !link.up && wanted.kind != Kind::Tap {
        let up = LinkUnspec::new_with_index(link.index).up().build();
        let set = space.handle.link().set(up).execute();
        space.change(set, || format!("set device {} up", wanted.name)).await?;
    }
    space.seen.links.insert(wanted.name.clone(), link.clone());
    Ok(link)
}

async fn bridge(space: &mut Space, wanted: &Device, link: &Link) -> Result<(), StepError> {
    let mut infos: Vec<_> = BRIDGE.into_iter().filter(|info| !link.bridge.contains(info)).collect();
    // It is off unless someone switched it on; not every kernel has it.
    if link.bridge.contains(&InfoBridge::VlanFiltering(true)) {
        infos.push(InfoBridge::VlanFiltering(false));
    }
    if infos.is_empty() {
        return Ok(());
    }
    let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge)
        .index(link.index)
        .set_info_data(InfoData::Bridge(infos))
        .build();
    let change = space.handle.link().change(message).execute();
    space.change(change, || format!("set the properties of bridge {}", wanted.name)).await
}

/// MTU, card address and bridge.
async fn basics(space: &mut Space, wanted: &Device, link: &mut Link) -> Result<(), StepError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    if link.mtu != wanted.mtu {
        message.attributes.push(LinkAttribute::Mtu(wanted.mtu));
    }
    if let Some(mac) = wanted.mac.filter(|mac| mac.bytes() != *link.mac) {
        message.attributes.push(LinkAttribute::Address(mac.bytes().to_vec()));
        // The kernel forgets the neighbours of a device whose address changes.
        space.seen.neighbours.retain(|neighbour| neighbour.header.ifindex != link.index);
    }
    if let Some(port) = &wanted.port {
        let bridge = space.seen.links.get(&port.bridge).map(|bridge| bridge.index).ok_or_else(|| {
            let missing = io::Error::new(io::ErrorKind::NotFound, "there is no such bridge");
            StepError::new(format!("plug {} into {}", wanted.name, port.bridge), missing)
        })?;
        if link.master != Some(bridge) {
            message.attributes.push(LinkAttribute::Controller(bridge));
            link.master = Some(bridge);
            link.port.clear();
        }
    }
    if message.attributes.is_empty() {
        return Ok(());
    }
    let set = space.handle.link().set(message).execute();
    space.change(set, || format!("set the properties of device {}", wanted.name)).await
}

/// What has to be set so that a port is as wanted, if anything.
fn port_flags(port: &BridgePort, link: &Link) -> Option<LinkMessage> {
    let flags = vec![
        InfoBridgePort::Learning(port.learning),
        InfoBridgePort::UnicastFlood(port.unknown_unicast),
        InfoBridgePort::MulticastFlood(port.multicast),
        InfoBridgePort::BroadcastFlood(port.multicast),
        InfoBridgePort::NeighSupress(port.answered_for),
        InfoBridgePort::Isolated(false),
        InfoBridgePort::HairpinMode(false),
    ];
    let differ = flags.iter().any(|flag| !link.port.contains(flag));
    let message = || LinkBridgePort::new(link.index).set_port_data(InfoPortData::BridgePort(flags)).build();
    differ.then(message)
}
