//! Makes one unit match.

use std::os::fd::{AsRawFd, RawFd};

use futures_util::TryStreamExt;
use protocol::MacAddress;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVxlan};

use super::desired::{Device, Kind, Namespace, Unit};
use super::entries::entries;
use super::seen::{self, Link};
use super::settings::{self, Settings};
use super::shape::{BRIDGE, shape};
use super::space::{Mode, Space, StepError};
use crate::namespace;

/// The VXLAN port, RFC 7348.
const VXLAN_PORT: u16 = 4789;

/// What was done in a unit, or would be, changes in the root namespace aside.
#[derive(Default)]
pub(super) struct Done {
    pub changes: Vec<String>,
    pub faults: Vec<String>,
}

/// Makes a unit match, as far as it goes: what fails stops nothing that can do without.
pub(super) async fn unit(root: &mut Space, unit: &Unit) -> Done {
    let mut done = Done::default();
    let mut inner = None;
    if let Some(namespace) = &unit.namespace {
        match enter(namespace, root.mode, &mut done.changes).await {
            Ok(space) => inner = space.map(|space| (namespace.name.as_str(), space)),
            Err(error) => done.faults.push(error.sentence()),
        }
    }
    for wanted in &unit.devices {
        let made = match (&wanted.kind, &mut inner) {
            (Kind::Veth { inner: end }, Some((name, space))) => pair(root, wanted, name, space, end).await,
            (Kind::Veth { .. }, None) => Ok(()),
            _ => single(root, wanted).await,
        };
        done.faults.extend(made.err().map(|error| error.sentence()));
    }
    if let Some((name, space)) = inner {
        done.changes.extend(space.changes.iter().map(|change| format!("{change} in namespace {name}")));
        match apply_inner_settings(name, unit, root.mode).await {
            Ok(changes) => done.changes.extend(changes),
            Err(error) => done.faults.push(error.sentence()),
        }
    }
    done
}

/// `None` in a look when there is no such namespace.
async fn enter(
    wanted: &Namespace,
    mode: Mode,
    changes: &mut Vec<String>,
) -> Result<Option<Space>, StepError> {
    let name = &wanted.name;
    let attempted = || format!("make namespace {name}");
    if mode == Mode::Look && !namespace::exists(name) {
        changes.push(attempted());
        return Ok(None);
    }
    let made = mode == Mode::Change
        && namespace::ensure(name).await.map_err(|error| StepError::new(attempted(), error))?;
    changes.extend(made.then(attempted));
    let mut space = Space::named(name, wanted.settings.clone(), mode).await?;
    if let Some(loopback) = space.seen.links.get("lo").filter(|link| !link.up) {
        let up = LinkUnspec::new_with_index(loopback.index).up().build();
        let set = space.handle.link().set(up).execute();
        space.change(set, || "set device lo up".to_owned()).await?;
    }
    Ok(Some(space))
}

/// Devices have inherited these when they came; here they are put right if they were changed since.
async fn apply_inner_settings(name: &str, unit: &Unit, mode: Mode) -> Result<Vec<String>, StepError> {
    let ends = unit.devices.iter().filter_map(|device| match &device.kind {
        Kind::Veth { inner } => Some(&inner.settings),
        _ => None,
    });
    let settings: Settings = ends.flatten().cloned().collect();
    let apply = namespace::within(name, move || settings::apply(&settings, mode)).await;
    let changes =
        apply.map_err(|error| StepError::new(format!("apply the settings of namespace {name}"), error))?;
    Ok(changes.into_iter().map(|change| format!("{change} in namespace {name}")).collect())
}

/// A device without another end.
async fn single(root: &mut Space, wanted: &Device) -> Result<(), StepError> {
    let there = match root.seen.links.get(&wanted.name) {
        Some(link) if is_right(wanted, link) => link.clone(),
        Some(_) => {
            remove(root, &wanted.name).await?;
            let Some(made) = create(root, wanted).await? else { return Ok(()) };
            made
        }
        None if wanted.kind == Kind::Tap => return Ok(()),
        None => {
            let Some(made) = create(root, wanted).await? else { return Ok(()) };
            made
        }
    };
    let mut there = shape(root, wanted, there).await?;
    entries(root, wanted, &mut there).await
}

/// A link into a namespace. It is right only if its ends are each other's.
async fn pair(
    root: &mut Space,
    wanted: &Device,
    name: &str,
    space: &mut Space,
    end: &Device,
) -> Result<(), StepError> {
    let near = root.seen.links.get(&wanted.name);
    let far = space.seen.links.get(&end.name);
    let (near, far) = match (near, far) {
        (Some(near), Some(far)) if is_pair(near, far) => (near.clone(), far.clone()),
        _ => {
            if near.is_some() {
                remove(root, &wanted.name).await?;
            }
            if far.is_some() {
                remove(space, &end.name).await?;
            }
            let Some(made) = create_pair(root, wanted, name, space, end).await? else { return Ok(()) };
            made
        }
    };
    let mut near = shape(root, wanted, near).await?;
    let mut far = shape(space, end, far).await?;
    entries(root, wanted, &mut near).await?;
    entries(space, end, &mut far).await
}

fn is_pair(near: &Link, far: &Link) -> bool {
    let veth = |link: &Link| link.kind == Some(InfoKind::Veth);
    veth(near) && veth(far) && near.peer == Some(far.index) && far.peer == Some(near.index)
}

/// Whether a device is what it has to be; the rest can be changed.
fn is_right(wanted: &Device, link: &Link) -> bool {
    match wanted.kind {
        Kind::Bridge => link.kind == Some(InfoKind::Bridge),
        Kind::Vxlan { .. } => {
            link.kind == Some(InfoKind::Vxlan) && vxlan(wanted).iter().all(|info| link.vxlan.contains(info))
        }
        Kind::Tap | Kind::Veth { .. } | Kind::Inner => true,
    }
}

fn vxlan(wanted: &Device) -> Vec<InfoVxlan> {
    let Kind::Vxlan { vni, local } = wanted.kind else { return Vec::new() };
    let local = match local {
        std::net::IpAddr::V4(address) => InfoVxlan::Local(address),
        std::net::IpAddr::V6(address) => InfoVxlan::Local6(address),
    };
    vec![InfoVxlan::Id(vni.get()), local, InfoVxlan::Port(VXLAN_PORT), InfoVxlan::Learning(false)]
}

/// `None` when this is a look.
async fn create(root: &mut Space, wanted: &Device) -> Result<Option<Link>, StepError> {
    let name = &wanted.name;
    let mut message = match wanted.kind {
        Kind::Bridge => LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge)
            .set_info_data(InfoData::Bridge(BRIDGE.to_vec()))
            .build(),
        _ => LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan)
            .set_info_data(InfoData::Vxlan(vxlan(wanted)))
            .build(),
    };
    message.attributes.extend(identity(name, wanted.mtu, wanted.mac));
    let add = root.handle.link().add(message).execute();
    root.change(add, || format!("make device {name}")).await?;
    match root.mode {
        Mode::Change => find(root, name).await.map(Some),
        Mode::Look => Ok(None),
    }
}

/// `None` when this is a look.
async fn create_pair(
    root: &mut Space,
    wanted: &Device,
    namespace: &str,
    space: &mut Space,
    end: &Device,
) -> Result<Option<(Link, Link)>, StepError> {
    let attempted = || format!("make the link {} into namespace {namespace}", wanted.name);
    let file = std::fs::File::open(namespace::path(namespace))
        .map_err(|error| StepError::new(attempted(), error))?;
    let message = veth(wanted, end, file.as_raw_fd());
    let add = root.handle.link().add(message).execute();
    root.change(add, attempted).await?;
    match root.mode {
        Mode::Change => Ok(Some((find(root, &wanted.name).await?, find(space, &end.name).await?))),
        Mode::Look => Ok(None),
    }
}

fn veth(wanted: &Device, end: &Device, namespace: RawFd) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes.extend(identity(&end.name, end.mtu, end.mac));
    peer.attributes.push(LinkAttribute::NetNsFd(namespace));
    let mut message = LinkMessage::default();
    message.attributes.extend(identity(&wanted.name, wanted.mtu, wanted.mac));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

fn identity(name: &str, mtu: u32, mac: Option<MacAddress>) -> impl Iterator<Item = LinkAttribute> {
    let mac = mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec()));
    [LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu)].into_iter().chain(mac)
}

/// A device that was just made.
async fn find(space: &Space, name: &str) -> Result<Link, StepError> {
    let attempted = || format!("find device {name}");
    let found = space.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    let found = found.map_err(|error| StepError::netlink(attempted(), error))?;
    found
        .map(|message| seen::link(message).1)
        .ok_or_else(|| StepError::new(attempted(), std::io::ErrorKind::NotFound))
}

/// Removes a device that was seen. The other end of a link goes with it, so it may be gone by now.
pub(super) async fn remove(space: &mut Space, name: &str) -> Result<(), StepError> {
    let Some(link) = space.seen.links.remove(name) else { return Ok(()) };
    let removed = space.handle.link().del(link.index).execute();
    space.remove(removed, || format!("remove device {name}")).await
}
