//! What the control plane and the agents both speak.
//!
//! Ids, names, sizes and digests are parsed once at the edge and carried as types from there on.
//! [`agent`] holds the messages of the agent protocol, [`image`] the reader of disk image headers that
//! both sides trust. Nothing here opens a file or a socket, but for tests.

pub mod agent;
mod digest;
mod id;
pub mod image;
mod mac;
mod name;
#[cfg(feature = "recorded")]
pub mod recorded;
mod units;
mod vni;

pub use digest::{ParseDigestError, Sha256};
pub use id::{
    AddressPoolId, ApiKeyId, BlobId, ConsoleId, FloatingIpId, GroupId, HostId, ImageId, InstanceId,
    InstanceTypeId, KeyPairId, LayerId, MigrationId, NetworkId, OperationId, PlacementGroupId,
    PolicyAttachmentId, PolicyId, PoolId, PortId, PrincipalId, ProjectId, RemovalId, RequestId, RouterId,
    RouterInterfaceId, SecurityGroupId, SecurityGroupRuleId, SnapshotId, SnapshotScheduleId, SubnetId,
    TransferId, UploadId, VolumeId,
};
pub use mac::{MacAddress, ParseMacError};
pub use name::{Name, ParseNameError};
pub use units::{GIB, Generation, KIB, MIB, MemoryMib, Revision, SizeGib};
pub use vni::Vni;
