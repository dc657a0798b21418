//! The virtual machine around a guest, where it is not the usual one.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a guest finds. Unless said otherwise: a socket for each vCPU, the processor of the host, virtio disks and network
/// cards, and a boot from the first disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestHardware {
    /// How the vCPUs look to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<CpuTopology>,
    /// `host_passthrough`, the default: all that the processor of the host can. `host_model`: the named model that comes
    /// closest to it. Or the name of a model, like `EPYC`: the same on every host that has it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub cpu_model: CpuModel,
    /// Whether the guest can run guests of its own. Needs a host with hardware virtualization that allows it, and
    /// `host_passthrough`.
    pub nested_virtualization: bool,
    pub disk_bus: DiskBus,
    pub nic_model: NicModel,
    pub boot_order: BootOrder,
}

impl GuestHardware {
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Sockets, cores of each and threads of each core; their product is the number of vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CpuTopology {
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 512))]
    pub sockets: u32,
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 512))]
    pub cores: u32,
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 512))]
    pub threads: u32,
}

impl CpuTopology {
    /// How many vCPUs that makes.
    pub fn vcpus(self) -> u64 {
        [self.sockets, self.cores, self.threads].into_iter().map(u64::from).fold(1, u64::saturating_mul)
    }
}

/// The processor that a guest finds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CpuModel {
    #[default]
    HostPassthrough,
    HostModel,
    /// As libvirt names it.
    Named(String),
}

/// A text names no processor.
#[derive(Debug, Error)]
#[error("`host_passthrough`, `host_model`, or 1 to 64 of A-Z a-z 0-9 . _ -")]
pub struct NoCpuModel;

impl TryFrom<String> for CpuModel {
    type Error = NoCpuModel;

    fn try_from(text: String) -> Result<Self, NoCpuModel> {
        match text.as_str() {
            "host_passthrough" => Ok(Self::HostPassthrough),
            "host_model" => Ok(Self::HostModel),
            name if is_model_name(name) => Ok(Self::Named(text)),
            _ => Err(NoCpuModel),
        }
    }
}

/// Whether it can be the name of a processor model.
pub fn is_model_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl From<CpuModel> for String {
    fn from(model: CpuModel) -> Self {
        match model {
            CpuModel::HostPassthrough => "host_passthrough".to_owned(),
            CpuModel::HostModel => "host_model".to_owned(),
            CpuModel::Named(name) => name,
        }
    }
}

/// What a guest finds its disks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DiskBus {
    #[default]
    Virtio,
    /// SCSI disks on a virtio controller, which the guest calls `sda`, `sdb` and so on.
    VirtioScsi,
    /// For systems without virtio drivers. Volumes come and go only while the instance is stopped.
    Sata,
}

impl DiskBus {
    /// As libvirt names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::VirtioScsi => "scsi",
            Self::Sata => "sata",
        }
    }
}

/// What a guest finds as network cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NicModel {
    #[default]
    Virtio,
    /// An Intel 82574, for systems without virtio drivers. A card that is plugged in while the guest runs is virtio.
    E1000e,
}

impl NicModel {
    /// As libvirt names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::E1000e => "e1000e",
        }
    }
}

/// What the firmware looks for a system on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BootOrder {
    /// The first disk.
    #[default]
    Disk,
    /// The first disk; the first network card when there is no system on it.
    DiskThenNetwork,
    /// The first network card; the first disk when nothing answers there.
    NetworkThenDisk,
}

impl BootOrder {
    /// The places of the first disk and of the first card, from 1.
    pub const fn places(self) -> (u32, Option<u32>) {
        match self {
            Self::Disk => (1, None),
            Self::DiskThenNetwork => (1, Some(2)),
            Self::NetworkThenDisk => (2, Some(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_said_whole_and_what_is_not_said_is_usual() {
        assert_eq!(serde_json::from_str::<GuestHardware>("{}").unwrap(), GuestHardware::default());
        assert!(GuestHardware::default().is_usual());
        let unusual = GuestHardware {
            topology: Some(CpuTopology { sockets: 2, cores: 3, threads: 2 }),
            cpu_model: CpuModel::Named("EPYC-v4".to_owned()),
            nested_virtualization: true,
            disk_bus: DiskBus::VirtioScsi,
            nic_model: NicModel::E1000e,
            boot_order: BootOrder::NetworkThenDisk,
        };
        let text = serde_json::to_string(&unusual).unwrap();
        assert_eq!(
            text,
            r#"{"topology":{"sockets":2,"cores":3,"threads":2},"cpu_model":"EPYC-v4","nested_virtualization":true,"disk_bus":"virtio_scsi","nic_model":"e1000e","boot_order":"network_then_disk"}"#
        );
        assert_eq!(serde_json::from_str::<GuestHardware>(&text).unwrap(), unusual);
        for wrong in ["", "a b", "<x>", &"x".repeat(65)] {
            assert!(CpuModel::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
