//! One type per kind of id, so that an image's id cannot be passed where an instance's belongs.
//!
//! All are UUIDs (version 7 when we make them, so they sort by creation time); the wire form is the
//! plain lower-case UUID.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that came from the wire or the database.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The plain UUID, for a query parameter or a file name.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )+};
}

ids! {
    /// Public addresses that the operator gives out.
    AddressPoolId
    /// A key of a program.
    ApiKeyId
    /// A stored object in the image store: the bytes of one or several images.
    BlobId
    /// A console of an instance, from its ticket on.
    ConsoleId
    /// A public address.
    FloatingIpId
    /// Several users who share policies.
    GroupId
    /// A machine that runs instances.
    HostId
    /// An image: a named operating system disk of a project.
    ImageId
    /// A virtual machine.
    InstanceId
    /// A size of instance.
    InstanceTypeId
    /// An SSH key of a project.
    KeyPairId
    /// A file of a volume: what was written to it between two snapshots.
    LayerId
    /// A running instance on its way from one host to another.
    MigrationId
    /// A private Ethernet of a tenant.
    NetworkId
    /// The record of one mutating call and what became of it.
    OperationId
    /// Instances that go together or stay apart.
    PlacementGroupId
    /// What a policy applies to, and where.
    PolicyAttachmentId
    /// Rules about who may do what.
    PolicyId
    /// A directory that several hosts share.
    PoolId
    /// A network card: where an instance meets a network.
    PortId
    /// Somebody who acts: a user or a service account.
    PrincipalId
    /// A tenant.
    ProjectId
    /// One HTTP request, followed through operations, logs and domain metadata.
    RequestId
    /// What leads from subnet to subnet, and out.
    RouterId
    /// Where a router meets a subnet.
    RouterInterfaceId
    /// Rules about who may reach a port.
    SecurityGroupId
    /// One of those rules.
    SecurityGroupRuleId
    /// A range of addresses in a network.
    SubnetId
    /// One stream that the control plane asked a host for.
    TransferId
    /// An order to a host to remove layers.
    RemovalId
    /// A snapshot of volumes.
    SnapshotId
    /// When snapshots are taken.
    SnapshotScheduleId
    /// A file that is sent in parts.
    UploadId
    /// A disk of a tenant, attached to an instance or not.
    VolumeId
}
