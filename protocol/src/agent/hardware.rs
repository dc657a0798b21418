//! The virtual machine around a guest, where it is not the usual one.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a guest finds. All of it unless said otherwise: one socket with a core for each vCPU, the processor of the host,
/// virtio disks and network cards, booting from the first disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestHardware {
    /// How the vCPUs look to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<CpuTopology>,
    /// `host_passthrough`, the default: all that the processor of the host can. `host_model`: the named model that comes
    /// closest to it. Or the name of a model, like `EPYC`: the same on every host that has it.
    #[serde(skip_serializing_if = "CpuModel::is_usual")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub cpu_model: CpuModel,
    /// Whether the guest can run guests of its own. Needs a host with hardware virtualization that allows it, and
    /// `host_passthrough`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nested_virtualization: bool,
    #[serde(skip_serializing_if = "DiskBus::is_usual")]
    pub disk_bus: DiskBus,
    #[serde(skip_serializing_if = "NicModel::is_usual")]
    pub nic_model: NicModel,
    #[serde(skip_serializing_if = "BootOrder::is_usual")]
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
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
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

impl CpuModel {
    fn is_usual(&self) -> bool {
        *self == Self::HostPassthrough
    }
}

/// What a guest finds its disks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DiskBus {
    #[default]
    Virtio,
    /// For systems without virtio drivers. Nothing is plugged in while the guest runs.
    Sata,
}

impl DiskBus {
    /// As libvirt names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Sata => "sata",
        }
    }

    fn is_usual(&self) -> bool {
        *self == Self::default()
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

    fn is_usual(&self) -> bool {
        *self == Self::default()
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
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }

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
    fn the_usual_hardware_is_nothing_on_the_wire_and_all_else_comes_back() {
        assert_eq!(serde_json::to_string(&GuestHardware::default()).unwrap(), "{}");
        let unusual = GuestHardware {
            topology: Some(CpuTopology { sockets: 2, cores: 3, threads: 2 }),
            cpu_model: CpuModel::Named("EPYC-v4".to_owned()),
            nested_virtualization: true,
            disk_bus: DiskBus::Sata,
            nic_model: NicModel::E1000e,
            boot_order: BootOrder::NetworkThenDisk,
        };
        let text = serde_json::to_string(&unusual).unwrap();
        assert_eq!(
            text,
            r#"{"topology":{"sockets":2,"cores":3,"threads":2},"cpu_model":"EPYC-v4","nested_virtualization":true,"disk_bus":"sata","nic_model":"e1000e","boot_order":"network_then_disk"}"#
        );
        assert_eq!(serde_json::from_str::<GuestHardware>(&text).unwrap(), unusual);
        for wrong in ["", "a b", "<x>", &"x".repeat(65)] {
            assert!(CpuModel::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
