//! The desired feed: what a host shall look like.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::agent::{
    Architecture, CopiedLayer, Disk, Epoch, GuestHardware, HostNetwork, HostRequest, MemoryFile, Migration,
    Nic, OnHostFailure, SaveMemory, VolumeSpec,
};
use crate::image::Format;
use crate::{
    Generation, HostId, InstanceId, LayerId, MemoryMib, MigrationId, Name, OperationId, ProjectId, RemovalId,
    RequestId, Revision, Sha256, TransferId,
};

/// The longest long poll.
pub const MAX_WAIT_SECONDS: u32 = 30;
/// The longest serial log that an agent sends: its newest part.
pub const MAX_SERIAL_LOG_BYTES: usize = 256 * 1024;

/// `GET /agent/v1/desired`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredQuery {
    pub epoch: Epoch,
    /// The last revision seen; 0 asks for everything.
    pub after: Revision,
    /// How long to hold the request open when nothing is newer; at most [`MAX_WAIT_SECONDS`].
    #[serde(default)]
    pub wait_seconds: u32,
}

/// Every object of the host that is newer than the asked revision, oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct DesiredPage {
    /// Ask again after this one.
    pub revision: Revision,
    /// True for an answer to `after=0`: what is not in it is unknown to the control plane.
    pub complete: bool,
    pub objects: Vec<DesiredObject>,
    /// What somebody waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<HostRequest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredObject {
    pub revision: Revision,
    #[serde(flatten)]
    pub body: DesiredBody,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DesiredBody {
    /// The whole specification of an instance.
    Instance(Box<InstanceSpec>),
    /// The instance was deleted by its owner: remove its domain, seed and logs and the layers of the volumes
    /// that go with it, then report [`super::ObservedState::Absent`].
    DeleteInstance {
        id: InstanceId,
        generation: Generation,
        #[serde(default)]
        layers: Vec<LayerId>,
        /// Shared pools that some of the layers are in.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pools: Vec<Name>,
        operation_id: Option<OperationId>,
    },
    /// Nobody needs these layers any more: their volume or snapshot was deleted, they were merged, or a volume went
    /// back to a snapshot. Remove them, and name the removal in [`super::ObservedBatch::removed`].
    RemoveLayers {
        removal_id: RemovalId,
        layers: Vec<LayerId>,
        /// The shared pool that they are in; nothing is the host's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<Name>,
    },
    /// All networks of the host, in place of what was said before.
    Network(Box<HostNetwork>),
    /// Post the newest part of the serial log to `/agent/v1/transfers/{transfer_id}`.
    SendSerialLog { transfer_id: TransferId, instance_id: InstanceId, max_bytes: u32 },
    /// Send the disk that this chain of layers makes, as one qcow2 file without a backing file, to
    /// `/agent/v1/images/{transfer_id}`. Nobody writes to any of the layers. Those at the top of which there is no
    /// file were never written to. See [`super::ImageStatus`].
    SendImage { transfer_id: TransferId, source: Box<VolumeSpec> },
    /// An instance is to come here with its disks. Fetch these layers from the agent of that host, for which
    /// to listen, and say where: [`super::MigrationState::Ready`]. Nothing is made of them before the instance is this
    /// host's; should it not come, [`Self::RemoveLayers`] names them.
    TakeDisks { id: MigrationId, instance_id: InstanceId, source: HostId, layers: Vec<CopiedLayer> },
    /// An instance is to go with its disks. Give these layers to the agent of that host, which asks for them, and keep them.
    GiveDisks {
        id: MigrationId,
        instance_id: InstanceId,
        destination: HostId,
        address: SocketAddr,
        layers: Vec<LayerId>,
        /// Its guest runs, and reads from these; it writes to none of them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        runs: bool,
    },
    /// Of a later release. The agent passes over it.
    #[serde(other)]
    Unknown,
}

/// An instance as its host shall make it. The same generation always means the same specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceSpec {
    pub id: InstanceId,
    pub generation: Generation,
    /// Whose it is. Nothing is done with it but to tell it when the control plane has lost it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// The guest's host name.
    pub hostname: Name,
    pub power: Power,
    /// Counts the starts that were asked for. A running domain of an older boot is stopped and started
    /// anew; a boot that has ended (the guest powered off) is not started a second time.
    pub boot: i64,
    /// How a running domain goes down when it has to.
    pub stop: StopMode,
    pub architecture: Architecture,
    #[serde(default)]
    pub firmware: Firmware,
    /// Where it differs from the usual.
    #[serde(default, skip_serializing_if = "GuestHardware::is_usual")]
    pub hardware: GuestHardware,
    pub vcpus: u32,
    pub memory_mib: MemoryMib,
    /// In the order in which the guest finds them; it boots from the first. Layers that a running guest's chain
    /// lacks at its top are a snapshot, of all disks at one instant.
    pub disks: Vec<Disk>,
    /// Whether the guest's file systems are frozen while layers are added. A guest that cannot do that gets none, and
    /// the report says [`super::NotTaken`].
    #[serde(default)]
    pub freeze: bool,
    /// What is kept of the guest's memory when it gets these layers. They are added with it or not at all, and without it
    /// the report says [`super::NotTaken`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_memory: Option<SaveMemory>,
    /// What `boot` begins with: the guest goes on from there, once. Its disks read as they did then, and it has the cards
    /// and disks that it had. Its guest is not started in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_memory: Option<MemoryFile>,
    /// In the order in which the guest finds them.
    #[serde(default)]
    pub nics: Vec<Nic>,
    pub seed: Seed,
    /// With [`OnHostFailure::Restart`] it has shared disks only, and runs only under the guard; see [`super::GuardedPool`].
    #[serde(default, skip_serializing_if = "OnHostFailure::is_wait")]
    pub on_host_failure: OnHostFailure,
    /// The guest comes from another host or goes to one. Alone of all this it may change within a generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// The operation whose trail the steps belong to, if one is open.
    pub operation_id: Option<OperationId>,
    /// The request that made this generation, for logs and the domain's metadata.
    pub request_id: Option<RequestId>,
}

/// What starts the guest's boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Firmware {
    #[default]
    Bios,
    Uefi,
}

impl Firmware {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }

    /// The firmware of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Bios, Self::Uefi].into_iter().find(|firmware| firmware.as_str() == name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Power {
    Running,
    Stopped,
    /// It runs and its guest stands still, with all that it has in memory. One that is not there is not started.
    Paused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum StopMode {
    /// Press the ACPI power button, and cut the power when the guest is still up after the timeout.
    Graceful { timeout_seconds: u32 },
    /// Cut the power.
    Force,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// The stored bytes; also the key of the host's cache.
    pub sha256: Sha256,
    pub format: Format,
    /// Length of the stored bytes.
    pub size_bytes: u64,
    /// Size of the disk that the guest sees in the image.
    pub virtual_size_bytes: u64,
}

/// What cloud-init's NoCloud data source gets on a disk labelled `cidata`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Seed {
    /// As the user gave it, at most 64 KiB. May hold secrets.
    pub user_data: Option<String>,
    /// The same where it is not UTF-8: base64 with padding (RFC 4648).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_base64: Option<String>,
    /// OpenSSH public keys.
    pub ssh_authorized_keys: Vec<String>,
}

impl Seed {
    /// A seed with these bytes for the guest.
    pub fn new(user_data: Option<Vec<u8>>, ssh_authorized_keys: Vec<String>) -> Self {
        let (text, base64) = match user_data.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(other)) => (None, Some(STANDARD.encode(other.as_bytes()))),
        };
        Self { user_data: text, user_data_base64: base64, ssh_authorized_keys }
    }

    /// The bytes that the user gave.
    pub fn user_data_bytes(&self) -> Option<Vec<u8>> {
        let text = self.user_data.as_ref().map(|text| text.clone().into_bytes());
        text.or_else(|| STANDARD.decode(self.user_data_base64.as_ref()?).ok())
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("user_data", &self.user_data.as_ref().map(|_| ".."))
            .field("user_data_base64", &self.user_data_base64.as_ref().map(|_| ".."))
            .field("ssh_authorized_keys", &self.ssh_authorized_keys.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_keeps_every_byte() {
        for bytes in [&b"#!/bin/sh\r\n"[..], b"", b"\x1f\x8b\x08\0\xff\xfe"] {
            let seed = Seed::new(Some(bytes.to_vec()), Vec::new());
            let wire = serde_json::to_string(&seed).unwrap();
            let seed: Seed = serde_json::from_str(&wire).unwrap();
            assert_eq!(seed.user_data_bytes().as_deref(), Some(bytes), "{wire}");
        }
        // What an older control plane sends.
        let seed: Seed = serde_json::from_str(r#"{"user_data": null, "ssh_authorized_keys": []}"#).unwrap();
        assert_eq!(seed.user_data_bytes(), None);
    }
}
