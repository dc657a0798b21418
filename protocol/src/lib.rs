//! What the control plane and the agents both speak.
//!
//! Ids, names, sizes and digests are parsed once at the edge and carried as types from there on.
//! [`agent`] holds the messages of the agent protocol, [`image`] the reader of disk image headers that
//! both sides trust. Nothing here opens a file or a socket.

pub mod agent;
mod digest;
mod id;
pub mod image;
mod name;
mod units;

pub use digest::{ParseDigestError, Sha256};
pub use id::{
    ApiKeyId, BlobId, GroupId, HostId, ImageId, InstanceId, InstanceTypeId, OperationId, PolicyAttachmentId,
    PolicyId, PrincipalId, ProjectId, RequestId, TransferId,
};
pub use name::{Name, ParseNameError};
pub use units::{GIB, Generation, KIB, MIB, MemoryMib, Revision, SizeGib};
