//! The wire of instances.

mod leases;
mod listing;
mod many;
mod migrating;
mod rebuilding;
mod resizing;

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
pub use leases::{Lease, PatchedLease, Times, WantedLease};
pub use listing::{CloudInstance, CloudInstanceQuery, InstanceQuery};
pub(super) use many::MAX_INSTANCES;
pub use many::{ActOnInstances, InstanceAction, InstanceActionError, InstanceActions};
pub(super) use migrating::{MigrateInstance, MoveInstance};
pub use rebuilding::{RebuildInstance, RescueInstance};
pub use resizing::{Resize, ResizeInstance};

use protocol::agent::OnHostFailure;
use protocol::{InstanceId, MacAddress, Name, OperationId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::custom_size::CustomSize;
use super::model::{InstanceState, StateReason};
use crate::http::{
    FieldError, Labels, LabelsPatch, not_null, nullable, validate_description, validate_labels,
};
use crate::operations::OperationStatus;
use crate::ports::cards::{MAX_CARDS, WantedCard};
use crate::quotas::QuotaEffect;
use crate::scheduler::Explanation;
use crate::volumes::disks::{MAX_DISKS, validate_size};
use crate::volumes::{AttachmentState, WantedVolume};

const MAX_USER_DATA_BYTES: usize = 64 * 1024;
const MAX_SSH_KEYS: usize = 32;
const MAX_SSH_KEY_CHARS: usize = 8192;
/// A guest that ignores the power button for this long is cut off, unless the caller says otherwise.
pub(super) const DEFAULT_STOP_TIMEOUT_SECONDS: u32 = 60;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInstance {
    pub name: Name,
    /// The image from which the volume is made that it boots from: name or id of one of this project; of a shared or
    /// public one of another project its id, or `project/name`. Must be given unless it boots from a volume that is
    /// there, or from a snapshot.
    #[schema(example = "cumulo-test")]
    pub image: Option<String>,
    /// Name or id of a snapshot of an instance: it gets new volumes with what that holds, boots from the first of them,
    /// and is of the same type unless another is given. Needs `volume:RestoreSnapshot`, too.
    pub snapshot: Option<String>,
    /// An instance of which it is a clone: it gets new volumes with what that one's hold at this moment, running or not,
    /// boots from the first of them, and is of the same type and size, with the same user data and keys, unless others are given.
    /// Needs `compute:CloneInstance`, too.
    pub source: Option<CloneSource>,
    /// Name or id of an instance type. Must be given unless it is made from a snapshot or another instance.
    #[schema(example = "tiny")]
    pub instance_type: Option<String>,
    /// So many vCPUs in place of the type's own. Needs `compute:UseCustomSize`, too.
    #[schema(minimum = 1, maximum = 512)]
    pub vcpus: Option<u32>,
    /// So much memory in place of the type's own. Needs `compute:UseCustomSize`, too.
    #[schema(minimum = 32, maximum = 8388608)]
    pub memory_mib: Option<u32>,
    /// The guest's host name; the instance's name unless given.
    pub hostname: Option<Name>,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// What cloud-init gets: a `#cloud-config`, or a script that begins with `#!`. At most 64 KiB.
    #[schema(max_length = 65536)]
    pub user_data: Option<String>,
    /// The same as base64 with padding, for what is no text, like a gzip file; at most 64 KiB when decoded.
    #[schema(max_length = 87384)]
    pub user_data_base64: Option<String>,
    /// OpenSSH public keys for the image's default user; at most 32 with those of the key pairs.
    #[serde(default)]
    #[schema(max_items = 32)]
    pub ssh_authorized_keys: Vec<String>,
    /// Names or ids of key pairs of the project, whose public keys it gets, too. Needs `compute:GetKeyPair` on each.
    #[serde(default)]
    #[schema(max_items = 32)]
    pub key_pairs: Vec<String>,
    /// Refuse to delete it until this is set to false.
    #[serde(default)]
    pub delete_protection: bool,
    /// What becomes of it when its host dies: `wait`, which is so unless given, until that host is back or the operator has
    /// declared it dead, or `restart`, on another host as soon as it is proven that it does not run any more. That takes
    /// all of its volumes to be in shared pools. See the guide of instances.
    #[serde(default)]
    pub on_host_failure: OnHostFailure,
    /// Until when it is wanted.
    #[serde(default)]
    pub lease: Option<WantedLease>,
    /// Its network cards in their order, at most 16; one in the project's default network, if there is one,
    /// unless given. `[]`: none.
    #[schema(max_items = 16)]
    pub networks: Option<Vec<WantedCard>>,
    /// Size of the volume that it boots from; that of the instance type unless given, and never less.
    #[schema(minimum = 1, maximum = 16384)]
    pub root_disk_gib: Option<i32>,
    /// The volume that it boots from.
    #[serde(default)]
    pub root_volume: RootVolume,
    /// Further disks in their order, at most 15.
    #[serde(default)]
    #[schema(max_items = 15)]
    pub volumes: Vec<WantedVolume>,
    /// Name or id of a placement group of the project: it goes beside the others in it, or away from them. Needs
    /// `compute:GetPlacementGroup`, too.
    pub placement_group: Option<String>,
    /// What to do when no host takes it now.
    #[serde(default)]
    pub when_no_room: WhenNoRoom,
    #[serde(default)]
    pub labels: Labels,
}

/// What an instance is a clone of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneSource {
    /// Name or id of an instance of the project.
    pub instance: String,
}

/// What to do with an instance that no host takes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenNoRoom {
    /// It waits, and is placed when there is room.
    #[default]
    Wait,
    /// The call is refused with `insufficient_capacity` and says why; nothing is left of it.
    Fail,
}

/// The volume that an instance boots from.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RootVolume {
    /// Name or id of a volume that was made from an image and is attached to nothing; a new one, made from the
    /// instance's image, unless given.
    pub volume: Option<String>,
    /// Whether it goes when the instance does; unless given, a new one does and one that was there does not.
    pub delete_with_instance: Option<bool>,
    /// Name or id of the shared pool that a new one is in; on the disk of the instance's host unless given.
    pub pool: Option<String>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateInstance {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub delete_protection: Option<bool>,
    /// `restart` takes all of its volumes to be in shared pools. A guest that runs goes on; should its host not guard it yet,
    /// its next start waits for that.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub on_host_failure: Option<OnHostFailure>,
    /// Until when it is wanted. Needs the right to stop or delete it, too; `null` takes both times back.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<PatchedLease>)]
    pub lease: Option<Option<PatchedLease>>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopInstance {
    /// Cut the power at once.
    #[serde(default)]
    pub force: bool,
    /// How long the guest may take to shut down before its power is cut; 60 unless given.
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_seconds: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Instance {
    pub id: InstanceId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    /// Whether it cannot be deleted until that is set to false.
    pub delete_protection: bool,
    /// What becomes of it when its host dies.
    pub on_host_failure: OnHostFailure,
    pub state: InstanceState,
    /// Why it is in that state.
    pub state_reason: StateReason,
    /// The reason in words, if there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_detail: Option<String>,
    pub image: ImageReference,
    pub instance_type: Reference,
    pub architecture: String,
    pub firmware: String,
    pub vcpus: i32,
    pub memory_mib: i32,
    /// Size of the volume that it boots from; absent while it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_disk_gib: Option<i32>,
    pub hostname: String,
    /// The key pairs that it was made with, as they were called then.
    pub key_pairs: Vec<String>,
    /// Until when it is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// What it was before it was resized, until that is confirmed or reverted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// What it goes beside or away from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement_group: Option<Reference>,
    /// Its network cards in their order.
    pub nics: Vec<InstanceNic>,
    /// Its disks in their order.
    pub volumes: Vec<InstanceVolume>,
    /// The newest call that changed it.
    pub operation: OperationSummary,
    /// Why no host takes it, while none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Explanation>,
    /// The host that it is on. Only what is read says it, and only to those who may list the hosts of the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Reference>,
    /// Only on a dry run: what would happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A network card.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceNic {
    pub port: Reference,
    pub network: Reference,
    #[schema(value_type = String)]
    pub mac: MacAddress,
    /// The first is the primary one.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// On its way out: the guest has been asked to let go of it. Nothing passes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub detaching: bool,
}

/// A disk.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceVolume {
    pub volume: Reference,
    /// The order in which the guest finds them; it boots from 0, and while it is rescued from -1.
    pub position: i32,
    pub size_gib: i32,
    pub state: AttachmentState,
    /// Whether it goes when the instance does.
    pub delete_with_instance: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachVolume {
    /// Name or id of a volume that is attached to nothing.
    pub volume: String,
    /// Boot from it. Only a stopped instance that has nothing to boot from takes it.
    #[serde(default)]
    pub root: bool,
    /// Whether it goes when the instance does.
    #[serde(default)]
    pub delete_with_instance: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DetachVolume {
    /// Name or id of a volume of this instance.
    pub volume: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForceDetachVolume {
    /// Name or id of a volume of this instance.
    pub volume: String,
    /// Cut the guest off, which loses what it has not written. Needed while its host is heard.
    #[serde(default)]
    pub stop_instance: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DetachPort {
    /// Name or id of a port of this instance.
    pub port: String,
}

/// Another resource.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Reference {
    pub id: Uuid,
    pub name: String,
}

/// The image that an instance was made from.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageReference {
    pub id: Uuid,
    pub name: String,
    /// Whether this project can make no more instances from it: it was deleted, or is not shared or public any
    /// more. The instance stays as it is.
    pub gone: bool,
}

/// An operation in short; its trail is at `/v1/projects/{project}/operations/{id}`.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationSummary {
    pub id: OperationId,
    #[schema(example = "create_instance")]
    pub kind: String,
    pub status: OperationStatus,
}

/// What a creation would lead to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plan {
    /// Whether a host would take it now.
    pub placeable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Explanation>,
    /// What it would add to what the project uses.
    pub quota: Vec<QuotaEffect>,
}

impl CreateInstance {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(user_data) = &self.user_data {
            if user_data.len() > MAX_USER_DATA_BYTES {
                errors.push(FieldError::new("/user_data", "too_long", "at most 64 KiB"));
            }
            if user_data.contains('\0') {
                errors.push(FieldError::new("/user_data", "invalid", "text without NUL"));
            }
        }
        if let Some(encoded) = &self.user_data_base64 {
            let fault = match STANDARD.decode(encoded) {
                _ if self.user_data.is_some() => Some(("invalid", "either text or base64")),
                Err(_) => Some(("invalid", "base64 with padding (RFC 4648), without line breaks")),
                Ok(bytes) if bytes.len() > MAX_USER_DATA_BYTES => {
                    Some(("too_long", "at most 64 KiB when decoded"))
                }
                Ok(_) => None,
            };
            errors.extend(fault.map(|(code, why)| FieldError::new("/user_data_base64", code, why)));
        }
        if self.ssh_authorized_keys.len() + self.key_pairs.len() > MAX_SSH_KEYS {
            let message = format!("at most {MAX_SSH_KEYS} keys, those of key pairs included");
            errors.push(FieldError::new("/ssh_authorized_keys", "too_many", message));
        }
        self.size().validate("", &mut errors);
        validate_description(&self.description, &mut errors);
        for (index, key) in self.ssh_authorized_keys.iter().enumerate() {
            if !is_public_key(key) {
                let pointer = format!("/ssh_authorized_keys/{index}");
                let message = "an OpenSSH public key on one line, like `ssh-ed25519 AAAA… comment`";
                errors.push(FieldError::new(pointer, "invalid", message));
            }
        }
        let cards = self.cards();
        if cards.len() > MAX_CARDS {
            let message = format!("at most {MAX_CARDS} network cards");
            errors.push(FieldError::new("/networks", "too_many", message));
        }
        for (index, card) in cards.iter().enumerate() {
            card.validate(&format!("/networks/{index}"), &mut errors);
        }
        if self.source.is_some() && self.when_no_room == WhenNoRoom::Fail {
            let message = "a clone waits for what it is made from; ask with `dry_run` whether there is room";
            errors.push(FieldError::new("/when_no_room", "invalid", message));
        }
        self.validate_disks(&mut errors);
        validate_labels(&self.labels, &mut errors);
        errors
    }

    /// What it asks for in place of its type's size.
    pub(super) const fn size(&self) -> CustomSize {
        CustomSize { vcpus: self.vcpus, memory_mib: self.memory_mib }
    }

    /// The cards that it asks for.
    pub(super) fn cards(&self) -> &[WantedCard] {
        self.networks.as_deref().unwrap_or_default()
    }

    /// What the guest gets, byte by byte; checked before.
    pub(super) fn user_data_bytes(&self) -> Option<Vec<u8>> {
        let text = self.user_data.as_ref().map(|text| text.clone().into_bytes());
        text.or_else(|| STANDARD.decode(self.user_data_base64.as_ref()?).ok())
    }

    /// What a snapshot says already.
    fn validate_snapshot(&self, errors: &mut Vec<FieldError>) {
        for (pointer, given) in [
            ("/source", self.snapshot.is_some() && self.source.is_some()),
            ("/image", self.image.is_some()),
            ("/root_volume/volume", self.root_volume.volume.is_some()),
            ("/root_volume/pool", self.root_volume.pool.is_some()),
            ("/root_disk_gib", self.root_disk_gib.is_some()),
            ("/volumes", !self.volumes.is_empty()),
        ] {
            if given {
                let message = "the disks are those of the snapshot or the instance; attach others, or grow these, when it is there";
                errors.push(FieldError::new(pointer, "invalid", message));
            }
        }
    }

    fn validate_disks(&self, errors: &mut Vec<FieldError>) {
        if self.snapshot.is_some() || self.source.is_some() {
            return self.validate_snapshot(errors);
        }
        if self.instance_type.is_none() {
            errors.push(FieldError::new("/instance_type", "missing", "how large it is"));
        }
        let boots_from = self.root_volume.volume.is_some();
        match (&self.image, boots_from) {
            (None, false) => {
                let message = "an image, or a volume to boot from in `root_volume`";
                errors.push(FieldError::new("/image", "missing", message));
            }
            (Some(_), true) => {
                let message = "either an image or a volume to boot from";
                errors.push(FieldError::new("/root_volume/volume", "invalid", message));
            }
            _ => {}
        }
        if boots_from && self.root_volume.pool.is_some() {
            let message = "a volume is where it is already";
            errors.push(FieldError::new("/root_volume/pool", "invalid", message));
        }
        if let Some(size) = self.root_disk_gib {
            validate_size(size, "/root_disk_gib", errors);
            if boots_from {
                let message = "a volume has its size already";
                errors.push(FieldError::new("/root_disk_gib", "invalid", message));
            }
        }
        if self.volumes.len() >= MAX_DISKS {
            let message = format!("at most {} further volumes", MAX_DISKS - 1);
            errors.push(FieldError::new("/volumes", "too_many", message));
        }
        for (index, volume) in self.volumes.iter().enumerate() {
            volume.validate(&format!("/volumes/{index}"), errors);
        }
    }
}

impl StopInstance {
    /// As it is stored.
    pub(super) const fn mode(&self) -> &'static str {
        if self.force { "force" } else { "graceful" }
    }

    pub(super) fn timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(DEFAULT_STOP_TIMEOUT_SECONDS).cast_signed()
    }

    pub(super) fn validate(&self) -> Vec<FieldError> {
        match self.timeout_seconds {
            Some(timeout) if !(1..=3600).contains(&timeout) => {
                vec![FieldError::new("/timeout_seconds", "out_of_range", "from 1 to 3600")]
            }
            _ => Vec::new(),
        }
    }
}

/// `<type> <base64> [comment]`, printable, one line (sshd(8), AUTHORIZED_KEYS FILE FORMAT; no options).
fn is_public_key(key: &str) -> bool {
    let mut words = key.split(' ');
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return false };
    key.len() <= MAX_SSH_KEY_CHARS
        && key.chars().all(|c| !c.is_control())
        && ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|prefix| kind.starts_with(prefix))
        && blob.starts_with("AAAA")
        && blob.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
}
