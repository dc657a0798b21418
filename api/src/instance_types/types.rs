//! The wire of instance types.

use protocol::agent::{Architecture, CpuModel, DiskBus, GuestHardware, NicModel};
use protocol::{InstanceTypeId, MemoryMib, Name, SizeGib};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::{FieldError, Labels, validate_labels};

const MAX_VCPUS: u32 = 512;
const MIN_MEMORY_MIB: u32 = 32;
const MAX_MEMORY_MIB: u32 = 8 << 20;
const MAX_DISK_GIB: u32 = 16_384;
const MAX_TOLERATIONS: usize = 16;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInstanceType {
    pub name: Name,
    #[schema(minimum = 1, maximum = 512)]
    pub vcpus: u32,
    #[schema(value_type = u32, minimum = 32, maximum = 8388608)]
    pub memory_mib: MemoryMib,
    #[schema(value_type = u32, minimum = 1, maximum = 16384)]
    pub root_disk_gib: SizeGib,
    /// `x86_64` unless given.
    #[serde(default = "x86_64")]
    pub architecture: Architecture,
    /// Its instances go only to hosts that have each of these labels.
    #[serde(default)]
    pub host_labels: Labels,
    /// Taints that do not keep its instances away from hosts; at most 16.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub tolerations: Vec<Name>,
    /// Where the virtual machine is not the usual one.
    #[serde(default)]
    pub hardware: GuestHardware,
}

const fn x86_64() -> Architecture {
    Architecture::X86_64
}

#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceType {
    pub id: InstanceTypeId,
    pub name: String,
    pub architecture: String,
    pub vcpus: i32,
    pub memory_mib: i32,
    pub root_disk_gib: i32,
    /// Its instances go only to hosts that have each of these labels.
    pub host_labels: Labels,
    /// Taints that do not keep its instances away from hosts.
    pub tolerations: Vec<String>,
    /// Where the virtual machine is not the usual one.
    pub hardware: GuestHardware,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What is wrong with so many vCPUs.
pub(crate) fn validate_vcpus(pointer: impl Into<String>, vcpus: u32) -> Option<FieldError> {
    within(pointer, vcpus, 1, MAX_VCPUS)
}

/// What is wrong with so much memory, in MiB.
pub(crate) fn validate_memory(pointer: impl Into<String>, memory_mib: u32) -> Option<FieldError> {
    within(pointer, memory_mib, MIN_MEMORY_MIB, MAX_MEMORY_MIB)
}

fn within(pointer: impl Into<String>, value: u32, low: u32, high: u32) -> Option<FieldError> {
    let wrong = !(low..=high).contains(&value);
    wrong.then(|| FieldError::new(pointer.into(), "out_of_range", format!("from {low} to {high}")))
}

impl CreateInstanceType {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors: Vec<_> = [
            validate_vcpus("/vcpus", self.vcpus),
            validate_memory("/memory_mib", self.memory_mib.0),
            within("/root_disk_gib", self.root_disk_gib.0, 1, MAX_DISK_GIB),
        ]
        .into_iter()
        .flatten()
        .collect();
        self.validate_hardware(&mut errors);
        let mut of_labels = Vec::new();
        validate_labels(&self.host_labels, &mut of_labels);
        errors.extend(
            of_labels.into_iter().map(|error| FieldError {
                pointer: error.pointer.replace("/labels", "/host_labels"),
                ..error
            }),
        );
        if self.tolerations.len() > MAX_TOLERATIONS {
            let message = format!("at most {MAX_TOLERATIONS} tolerations");
            errors.push(FieldError::new("/tolerations", "too_many", message));
        }
        errors
    }

    fn validate_hardware(&self, errors: &mut Vec<FieldError>) {
        let hardware = &self.hardware;
        let mut refuse = |pointer: &str, message: String| {
            errors.push(FieldError::new(format!("/hardware/{pointer}"), "invalid", message));
        };
        if let Some(topology) = hardware.topology
            && topology.vcpus() != u64::from(self.vcpus)
        {
            let (has, asked) = (topology.vcpus(), self.vcpus);
            refuse("topology", format!("its product is {has}, and the type has {asked} vCPUs"));
        }
        if hardware.nested_virtualization && hardware.cpu_model != CpuModel::HostPassthrough {
            refuse("nested_virtualization", "needs the `cpu_model` `host_passthrough`".to_owned());
        }
        if self.architecture == Architecture::X86_64 {
            return;
        }
        let of_x86 =
            |what: &str| format!("{what} is for x86_64 only, the type is for {}", self.architecture.as_str());
        if hardware.nested_virtualization {
            refuse("nested_virtualization", of_x86("this"));
        }
        if hardware.cpu_model != CpuModel::HostPassthrough {
            refuse("cpu_model", of_x86("this"));
        }
        if hardware.disk_bus == DiskBus::Sata {
            refuse("disk_bus", of_x86("sata"));
        }
        if hardware.nic_model == NicModel::E1000e {
            refuse("nic_model", of_x86("e1000e"));
        }
    }
}
