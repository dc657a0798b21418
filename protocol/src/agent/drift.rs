//! Drift: how a host differs from what is wanted of it, as its agent finds when it looks.

use serde::{Deserialize, Serialize};

use crate::agent::{Epoch, NetworkSubject};
use crate::{InstanceId, NetworkId, PortId, RouterId, SecurityGroupId};

/// The most differences that a host tells of; [`DriftReport::total`] counts the others, too.
pub const MAX_DRIFT: usize = 200;
/// The longest `detail` of a difference that is stored; longer ones are cut.
pub const MAX_DRIFT_DETAIL_CHARS: usize = 500;

/// `POST /agent/v1/drift`: all differences that were there in two looks in a row. What an earlier report said and this one
/// does not is over. A control plane of an earlier release answers 404, and is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftReport {
    pub epoch: Epoch,
    /// How many there are, those beyond [`MAX_DRIFT`] included.
    pub total: u32,
    pub differences: Vec<HostDifference>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct DriftAccepted {
    /// Look again after this time, more or less.
    pub look_seconds: u32,
}

/// Something on a host that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostDifference {
    pub code: DriftCode,
    pub about: DriftSubject,
    /// For people: what is to be done, or what is wrong.
    pub detail: String,
}

/// What a difference is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum DriftSubject {
    /// The host as a whole.
    Host,
    Instance(InstanceId),
    Port(PortId),
    Network(NetworkId),
    Router(RouterId),
    SecurityGroup(SecurityGroupId),
}

impl From<NetworkSubject> for DriftSubject {
    fn from(subject: NetworkSubject) -> Self {
        match subject {
            NetworkSubject::Port(id) => Self::Port(id),
            NetworkSubject::Network(id) => Self::Network(id),
            NetworkSubject::Router(id) => Self::Router(id),
            NetworkSubject::SecurityGroup(id) => Self::SecurityGroup(id),
            NetworkSubject::Host => Self::Host,
        }
    }
}

/// What kind of difference it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DriftCode {
    /// A network device or an address is missing, different, or too many.
    NetworkDeviceDiffers,
    /// A packet rule is missing, different, or too many.
    PacketRulesDiffer,
    /// DHCP, DNS or the metadata service of a network is not as wanted.
    NetworkServiceDiffers,
    /// A shared pool cannot be used.
    PoolUnusable,
    /// The guard is not at work, or cannot renew a lease.
    GuardFaulty,
    /// The agent has something to do for the instance, and it is not done.
    InstanceDiffers,
    /// The guest stands still although nobody wants that.
    InstanceStandsStill,
    /// The domain of the instance cannot be read, so the agent leaves it alone.
    InstanceUnreadable,
    /// The guest runs, and a file of it is gone.
    InstanceFileMissing,
    /// The guest runs on other layers of a disk than it shall.
    InstanceDiskDiffers,
    /// The guest runs, and a network card of it is connected to nothing.
    InstanceCardMissing,
    /// A guest runs here of which nothing is wanted.
    UnknownGuest,
    /// A domain of which nothing is wanted is defined here, and does not run.
    UnknownDomain,
    /// A seed, logs, disks or last wishes of an instance of which nothing is wanted.
    UnknownFiles,
    /// A record of the agent's about an instance of which nothing is wanted.
    UnknownRecord,
    /// A process has a file open of an instance of which nothing is wanted.
    UnknownProcess,
    /// Something in the pool is not of the agent's making.
    ForeignFile,
    /// One of a later release. It is counted and not stored.
    #[serde(other)]
    Unknown,
}

impl DriftCode {
    /// All but [`Self::Unknown`].
    pub const ALL: [Self; 17] = [
        Self::NetworkDeviceDiffers,
        Self::PacketRulesDiffer,
        Self::NetworkServiceDiffers,
        Self::PoolUnusable,
        Self::GuardFaulty,
        Self::InstanceDiffers,
        Self::InstanceStandsStill,
        Self::InstanceUnreadable,
        Self::InstanceFileMissing,
        Self::InstanceDiskDiffers,
        Self::InstanceCardMissing,
        Self::UnknownGuest,
        Self::UnknownDomain,
        Self::UnknownFiles,
        Self::UnknownRecord,
        Self::UnknownProcess,
        Self::ForeignFile,
    ];

    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetworkDeviceDiffers => "network_device_differs",
            Self::PacketRulesDiffer => "packet_rules_differ",
            Self::NetworkServiceDiffers => "network_service_differs",
            Self::PoolUnusable => "pool_unusable",
            Self::GuardFaulty => "guard_faulty",
            Self::InstanceDiffers => "instance_differs",
            Self::InstanceStandsStill => "instance_stands_still",
            Self::InstanceUnreadable => "instance_unreadable",
            Self::InstanceFileMissing => "instance_file_missing",
            Self::InstanceDiskDiffers => "instance_disk_differs",
            Self::InstanceCardMissing => "instance_card_missing",
            Self::UnknownGuest => "unknown_guest",
            Self::UnknownDomain => "unknown_domain",
            Self::UnknownFiles => "unknown_files",
            Self::UnknownRecord => "unknown_record",
            Self::UnknownProcess => "unknown_process",
            Self::ForeignFile => "foreign_file",
            Self::Unknown => "unknown",
        }
    }

    /// The code of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// Whether it is about something that is not wanted here, and may be wanted elsewhere.
    pub const fn is_of_strays(self) -> bool {
        matches!(
            self,
            Self::UnknownGuest
                | Self::UnknownDomain
                | Self::UnknownFiles
                | Self::UnknownRecord
                | Self::UnknownProcess
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_name_and_one_of_a_later_release_is_unknown() {
        for code in DriftCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(DriftCode::from_name(code.as_str()), Some(code));
        }
        let later: DriftCode = serde_json::from_str("\"clock_differs\"").unwrap();
        assert_eq!(later, DriftCode::Unknown);
    }
}
