//! Sizes of instances that are not those of their type.
//!
//! The type still says for which processor, with which hardware and on which hosts; what the instance has of vCPUs and
//! memory is its own. That needs `compute:UseCustomSize`, which is decided in the cloud.

use crate::http::FieldError;
use crate::instance_types::{InstanceTypeRow, validate_memory, validate_vcpus};

/// What a body asks for. What it does not name stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CustomSize {
    pub vcpus: Option<u32>,
    pub memory_mib: Option<u32>,
}

/// A type, with the numbers of vCPUs and memory that an instance of it shall have.
#[derive(Debug, Clone)]
pub(crate) struct SizedType {
    pub instance_type: InstanceTypeRow,
    /// They are not the type's own.
    pub is_custom: bool,
}

impl CustomSize {
    /// That of an instance, as it is in the database.
    pub(crate) fn of(vcpus: i32, memory_mib: i32) -> Self {
        Self { vcpus: u32::try_from(vcpus).ok(), memory_mib: u32::try_from(memory_mib).ok() }
    }

    pub(crate) const fn is_given(self) -> bool {
        self.vcpus.is_some() || self.memory_mib.is_some()
    }

    /// What this one does not name, from another one.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { vcpus: self.vcpus.or(other.vcpus), memory_mib: self.memory_mib.or(other.memory_mib) }
    }

    /// Checks it as it stands in a body at this pointer.
    pub(crate) fn validate(self, at: &str, errors: &mut Vec<FieldError>) {
        errors.extend(self.vcpus.and_then(|vcpus| validate_vcpus(format!("{at}/vcpus"), vcpus)));
        let memory = self.memory_mib.and_then(|memory| validate_memory(format!("{at}/memory_mib"), memory));
        errors.extend(memory);
    }

    /// The type in this size.
    ///
    /// # Errors
    /// The type lays its vCPUs out, and these are not so many.
    pub(crate) fn of_type(self, own: InstanceTypeRow) -> Result<SizedType, FieldError> {
        let number =
            |asked: Option<u32>, own: i32| asked.and_then(|asked| i32::try_from(asked).ok()).unwrap_or(own);
        let vcpus = number(self.vcpus, own.vcpus);
        let memory_mib = number(self.memory_mib, own.memory_mib);
        if let Some(topology) = own.hardware.topology
            && vcpus != own.vcpus
        {
            let (name, laid_out) = (&own.name, topology.vcpus());
            let message = format!("the type {name} lays out {laid_out} vCPUs; choose one without a topology");
            return Err(FieldError::new("/vcpus", "invalid", message));
        }
        let is_custom = (vcpus, memory_mib) != (own.vcpus, own.memory_mib);
        Ok(SizedType { instance_type: InstanceTypeRow { vcpus, memory_mib, ..own }, is_custom })
    }
}

impl SizedType {
    /// Where a body says how much memory it is.
    pub(crate) const fn memory_pointer(&self) -> &'static str {
        if self.is_custom { "/memory_mib" } else { "/instance_type" }
    }
}
