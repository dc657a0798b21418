//! Volumes on a host: chains of qcow2 files.
//!
//! A host hears of a volume only while it is attached to an instance: files are made when an instance needs
//! them, and what is not attached needs nobody to watch it. The one exception is
//! [`super::DesiredBody::RemoveLayers`].

use serde::{Deserialize, Serialize};

use crate::agent::ImageSource;
use crate::{Generation, LayerId, MemoryMib, Name, SizeGib, VolumeId};

/// The longest chain of a volume.
pub const MAX_LAYERS: usize = 32;

/// A volume as its host shall make it. The same generation always means the same specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    pub id: VolumeId,
    pub generation: Generation,
    /// The shared pool with its layers and its cached image; nothing is the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// What the guest sees. Only grows.
    pub size_gib: SizeGib,
    /// What the lowest layer is an overlay of; nothing for an empty disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// From the bottom to the top, at least one and at most [`MAX_LAYERS`]. The last is the one that is
    /// written to; a layer that another stands on is never written again.
    pub layers: Vec<LayerId>,
    /// Those of `layers` that shall become one with the layer below. They are in the middle of the chain: never
    /// the first, which has nothing below, and never the last, which is written to. Until a report says that one
    /// is [`VolumeReport::merged`], it is read as before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merges: Vec<LayerId>,
}

/// A volume in an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub volume: VolumeSpec,
    #[serde(default)]
    pub limits: IoLimits,
}

/// A file with the memory of a guest and the state of its devices, under an id of its own. It goes as a layer goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFile {
    pub id: LayerId,
    /// The shared pool that it is in; nothing is the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
}

/// The memory that a snapshot of a running guest has beside its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveMemory {
    pub file: MemoryFile,
    /// The layers that the guest writes to from the same instant on. Memory of another instant is never kept: once the
    /// guest has one of these and there is no file, there will be none.
    pub above: Vec<LayerId>,
}

/// How long a host may take to write down or read that much memory, in seconds.
pub const fn memory_seconds(memory: MemoryMib) -> u32 {
    120 + memory.0 / 32
}

/// How much an instance may ask of one volume; nothing is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IoLimits {
    /// Reads and writes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes read and written per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// A volume that an instance has: in its running domain, or for its next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeReport {
    pub id: VolumeId,
    /// The newest generation that the agent has acted on; 0 of a volume that is leaving.
    pub generation: Generation,
    pub state: VolumeState,
    /// Of the layers to merge, those that were seen to be merged: their content is in the layer below, and nothing
    /// of this volume stands on them any more. Their files are left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<LayerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// To be made, plugged in, grown or limited.
    Preparing,
    /// As it shall be.
    Ready,
    /// The guest has been asked to let go of it.
    Detaching,
}

impl VolumeState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Detaching => "detaching",
        }
    }
}

impl VolumeSpec {
    /// The layer that is written to.
    pub fn top(&self) -> Option<LayerId> {
        self.layers.last().copied()
    }

    /// The layers that are left once everything is merged that shall be.
    pub fn kept(&self) -> impl Iterator<Item = LayerId> {
        self.layers.iter().copied().filter(|layer| !self.merges.contains(layer))
    }
}

impl VolumeId {
    /// The serial number under which a guest finds it (`/dev/disk/by-id/virtio-<serial>`): the last twenty
    /// digits of the id, as many as virtio has room for.
    pub fn serial(self) -> String {
        let digits = self.as_uuid().simple().to_string();
        digits[digits.len() - 20..].to_owned()
    }
}
