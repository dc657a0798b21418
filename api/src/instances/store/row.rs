//! The row of an instance, with the names of what it refers to, and how it is shown.

use protocol::agent::{Nic, OnHostFailure, PauseReason, PortAddress};
use protocol::{MacAddress, Vni};
use serde::Deserialize;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::model::{Intent, Observed, StateReason, shown, stored};
use super::super::types::{
    ImageReference, Instance, InstanceNic, InstanceVolume, Lease, OperationSummary, Reference, Resize, Times,
};
use crate::hosts::UNREACHABLE_AFTER;
use crate::http::{Labels, Version};
use crate::operations::OperationStatus;
use crate::scheduler::Explanation;
use crate::volumes::AttachmentState;

/// An instance's row with the names of what it refers to.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub id: Uuid,
    pub name: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub image_id: Uuid,
    pub image_name: String,
    pub image_gone: bool,
    pub instance_type_id: Uuid,
    pub instance_type_name: String,
    pub placement_group_id: Option<Uuid>,
    pub placement_group_name: Option<String>,
    pub architecture: String,
    pub firmware: String,
    pub vcpus: i32,
    pub memory_mib: i32,
    pub hostname: String,
    pub nics: Json<Vec<NicRow>>,
    pub volumes: Json<Vec<VolumeRow>>,
    pub power: String,
    pub boot: i64,
    pub stop_mode: String,
    pub stop_timeout_seconds: i32,
    pub deletion_requested_at: Option<OffsetDateTime>,
    pub operation_id: Uuid,
    pub operation_kind: String,
    pub operation_status: String,
    pub host_id: Option<Uuid>,
    pub host_name: Option<String>,
    pub host_last_seen_at: Option<OffsetDateTime>,
    pub placement_explanation: Option<Json<Explanation>>,
    pub observed_generation: Option<i64>,
    pub observed_boot: Option<i64>,
    pub observed_state: Option<String>,
    pub observed_end_reason: Option<String>,
    pub observed_paused: Option<String>,
    pub observed_detail: Option<String>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    pub description: String,
    pub delete_protection: bool,
    pub on_host_failure: String,
    pub key_pairs: Vec<String>,
    pub stop_at: Option<OffsetDateTime>,
    pub delete_at: Option<OffsetDateTime>,
    pub lease_principal_id: Option<Uuid>,
    pub lease_failure: Option<String>,
    pub resized_from_type_id: Option<Uuid>,
    pub resized_from_type_name: Option<String>,
    pub resized_from_vcpus: Option<i32>,
    pub resized_from_memory_mib: Option<i32>,
    pub resize_confirm_at: Option<OffsetDateTime>,
}

/// A disk as `instance_volumes()` of the database gives it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct VolumeRow {
    pub id: Uuid,
    pub name: String,
    pub position: i32,
    pub size_gib: i32,
    pub attachment_state: AttachmentState,
    pub delete_with_instance: bool,
}

impl VolumeRow {
    fn into_wire(self) -> InstanceVolume {
        InstanceVolume {
            volume: Reference { id: self.id, name: self.name },
            position: self.position,
            size_gib: self.size_gib,
            state: self.attachment_state,
            delete_with_instance: self.delete_with_instance,
        }
    }
}

/// A network card as `instance_nics()` of the database gives it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NicRow {
    pub port_id: Uuid,
    pub port_name: String,
    pub network_id: Uuid,
    pub network_name: String,
    pub vni: Vni,
    pub mtu: u16,
    pub mac: MacAddress,
    pub addresses: Vec<NicAddress>,
    pub detaching: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NicAddress {
    pub subnet_id: Uuid,
    pub address: std::net::IpAddr,
}

impl NicAddress {
    fn into_told(self) -> PortAddress {
        PortAddress { subnet_id: self.subnet_id.into(), address: self.address }
    }
}

impl NicRow {
    fn into_wire(self) -> InstanceNic {
        InstanceNic {
            port: Reference { id: self.port_id, name: self.port_name },
            network: Reference { id: self.network_id, name: self.network_name },
            mac: self.mac,
            addresses: self.addresses.into_iter().map(|one| one.address).collect(),
            detaching: self.detaching,
        }
    }

    /// As its host is told: of what is on its way out, nothing.
    pub(crate) fn into_nic(self) -> Option<Nic> {
        (!self.detaching).then(|| Nic {
            port_id: self.port_id.into(),
            network_id: self.network_id.into(),
            vni: self.vni,
            mac: self.mac,
            mtu: self.mtu,
            addresses: self.addresses.into_iter().map(NicAddress::into_told).collect(),
        })
    }
}

impl Row {
    pub(in crate::instances) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(in crate::instances) fn intent(&self) -> Intent {
        Intent {
            generation: self.generation,
            power: stored::parse_power(&self.power),
            boot: self.boot,
            deletion_requested: self.deletion_requested_at.is_some(),
            placed: self.host_id.is_some(),
        }
    }

    pub(in crate::instances) fn observed(&self) -> Option<Observed> {
        Some(Observed {
            generation: self.observed_generation?,
            boot: self.observed_boot?,
            state: stored::parse_state(self.observed_state.as_deref()?, self.observed_end_reason.as_deref())?,
            paused: self.observed_paused.as_deref().and_then(PauseReason::from_name),
        })
    }

    /// Whether it has a volume to boot from that stays.
    pub(in crate::instances) fn boots(&self) -> bool {
        let root = self.volumes.iter().find(|volume| volume.position == 0);
        root.is_some_and(|root| root.attachment_state != AttachmentState::Detaching)
    }

    pub(in crate::instances) const fn times(&self) -> Times {
        Times { stop_at: self.stop_at, delete_at: self.delete_at }
    }

    /// Until when it is wanted, and who said so.
    pub(in crate::instances) fn lease(&self) -> Option<Lease> {
        Some(Lease {
            set_by: self.lease_principal_id?.into(),
            stop_at: self.stop_at,
            delete_at: self.delete_at,
            detail: self.lease_failure.clone(),
        })
    }

    /// What it was before a resize that can be reverted.
    pub(in crate::instances) fn resize(&self, now: OffsetDateTime) -> Option<Resize> {
        let confirm_at = self.resize_confirm_at.filter(|at| *at > now)?;
        Some(Resize {
            from: Reference {
                id: self.resized_from_type_id?,
                name: self.resized_from_type_name.clone().unwrap_or_default(),
            },
            from_vcpus: self.resized_from_vcpus?,
            from_memory_mib: self.resized_from_memory_mib?,
            confirm_at,
        })
    }

    /// Whether it boots from a disk that was made to repair it.
    pub(in crate::instances) fn is_rescued(&self) -> bool {
        let rescue = self.volumes.iter().find(|volume| volume.position < 0);
        rescue.is_some_and(|rescue| rescue.attachment_state != AttachmentState::Detaching)
    }

    pub(in crate::instances) fn host_reachable(&self, now: OffsetDateTime) -> bool {
        self.host_last_seen_at.is_some_and(|seen| now - seen <= UNREACHABLE_AFTER)
    }

    /// As callers see it who may know of hosts, or may not. What many read, like the audit log, names none.
    pub(in crate::instances) fn into_wire_with_host(
        self,
        knows_hosts: bool,
        now: OffsetDateTime,
    ) -> Instance {
        let host = self.host_id.zip(self.host_name.clone()).filter(|_| knows_hosts);
        let host = host.map(|(id, name)| Reference { id, name });
        Instance { host, ..self.into_wire(now) }
    }

    pub(in crate::instances) fn into_wire(self, now: OffsetDateTime) -> Instance {
        let reachable = self.host_reachable(now);
        let unplaceable = self.placement_explanation.is_some();
        let (state, reason) = shown(&self.intent(), self.observed().as_ref(), reachable, unplaceable);
        let (lease, resize) = (self.lease(), self.resize(now));
        let reason = match reason {
            StateReason::AsRequested if self.is_rescued() => StateReason::Rescued,
            StateReason::AsRequested if resize.is_some() => StateReason::Resized,
            reason => reason,
        };
        let root = self.volumes.iter().find(|volume| volume.position == 0);
        Instance {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            on_host_failure: OnHostFailure::from_name(&self.on_host_failure).unwrap_or_default(),
            delete_protection: self.delete_protection,
            state,
            state_reason: reason,
            state_detail: self.observed_detail,
            image: ImageReference { id: self.image_id, name: self.image_name, gone: self.image_gone },
            instance_type: Reference { id: self.instance_type_id, name: self.instance_type_name },
            architecture: self.architecture,
            firmware: self.firmware,
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            root_disk_gib: root.map(|root| root.size_gib),
            hostname: self.hostname,
            key_pairs: self.key_pairs,
            lease,
            resize,
            placement_group: self
                .placement_group_id
                .zip(self.placement_group_name)
                .map(|(id, name)| Reference { id, name }),
            nics: self.nics.0.into_iter().map(NicRow::into_wire).collect(),
            volumes: self.volumes.0.into_iter().map(VolumeRow::into_wire).collect(),
            operation: OperationSummary {
                id: self.operation_id.into(),
                kind: self.operation_kind,
                status: OperationStatus::from_text(&self.operation_status),
            },
            placement: self.placement_explanation.filter(|_| self.host_id.is_none()).map(|json| json.0),
            host: None,
            plan: None,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}
