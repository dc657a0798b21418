//! Domain XML: rendered by serde, never pasted, from the desired state at every start.
//!
//! Formats and the whole backing chain are given, so nothing is probed. What we must know of a domain later
//! is in its metadata; the reader takes it back from there.

mod cards;
mod consoles;
mod disks;
mod emulators;
mod machines;
mod model;
mod owners;
mod processors;
mod render;
mod saved;

use protocol::{Generation, InstanceId, RequestId};
use serde::Deserialize;
use thiserror::Error;
use uuid::Uuid;

pub(super) use cards::{card, card_at, cards};
pub(super) use consoles::consoles;
pub(super) use disks::{disk_at, disk_for, found, snapshot};
pub(super) use emulators::{boots_with_uefi, emulator};
pub(super) use owners::{leaves_owners, qemu_user};
pub(super) use processors::usable_models;
pub(super) use render::{domain, waiting};
pub(super) use saved::resumed;

/// The namespace of our element in a domain's metadata.
pub(super) const NAMESPACE: &str = "https://cumulo.dev/xmlns/instance/1";

/// The name of an instance's domain.
pub(crate) fn domain_name(id: InstanceId) -> String {
    format!("cumulo-{id}")
}

/// The instance of a domain, if it is one of ours: name and UUID both say so.
pub(super) fn instance_of(name: &str, uuid: Uuid) -> Option<InstanceId> {
    let id = InstanceId::from_uuid(uuid);
    (name == domain_name(id)).then_some(id)
}

/// What a domain carries of the desired state that it was rendered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) generation: Generation,
    pub(super) boot: i64,
    pub(super) request_id: Option<RequestId>,
}

/// A text is not our metadata.
#[derive(Debug, Error)]
#[error("the metadata is not ours")]
pub(super) struct NotOurs(#[from] quick_xml::DeError);

impl Metadata {
    /// Reads the element as `virDomainGetMetadata` gives it.
    pub(super) fn parse(xml: &str) -> Result<Self, NotOurs> {
        let instance: model::Instance = quick_xml::de::from_str(xml)?;
        Ok(Self { generation: instance.generation, boot: instance.boot, request_id: instance.request_id })
    }
}

/// Whether an agent in the guest of the running domain with this XML listens.
pub(super) fn has_agent(domain: &str) -> Result<bool, quick_xml::DeError> {
    #[derive(Deserialize)]
    struct Domain {
        devices: Devices,
    }
    #[derive(Deserialize)]
    struct Devices {
        #[serde(default)]
        channel: Vec<Channel>,
    }
    #[derive(Deserialize)]
    struct Channel {
        target: Target,
    }
    #[derive(Deserialize)]
    struct Target {
        #[serde(rename = "@name")]
        name: Option<String>,
        #[serde(rename = "@state")]
        state: Option<String>,
    }
    let domain: Domain = quick_xml::de::from_str(domain)?;
    let targets = domain.devices.channel.into_iter().map(|channel| channel.target);
    let mut agents = targets.filter(|target| target.name.as_deref() == Some(render::GUEST_AGENT));
    Ok(agents.any(|target| target.state.as_deref() == Some("connected")))
}

#[cfg(test)]
mod tests;
