//! A volume as its row has it, with the names of what it refers to.

use protocol::VolumeId;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::detail::{Waits, detail};
use super::super::model::{AttachmentState, Seen, shown};
use super::super::types::{Attachment, Volume};
use crate::hosts::Doer;
use crate::http::{Labels, Version};
use crate::instances::{OperationSummary, Reference};
use crate::operations::OperationStatus;

#[derive(Debug, Clone)]
pub(in super::super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub size_gib: i32,
    pub iops_limit: Option<i64>,
    pub bytes_per_second_limit: Option<i64>,
    pub delete_protection: bool,
    pub image_id: Option<Uuid>,
    pub image_name: Option<String>,
    pub spec_generation: i64,
    pub host_id: Option<Uuid>,
    pub pool_id: Option<Uuid>,
    pub pool_name: Option<String>,
    pub instance_id: Option<Uuid>,
    pub instance_name: Option<String>,
    /// Whether a host has the instance.
    pub instance_placed: bool,
    pub position: Option<i32>,
    pub delete_with_instance: bool,
    pub attachment_state: Option<String>,
    pub ready_generation: Option<i64>,
    pub deletion_requested_at: Option<OffsetDateTime>,
    pub operation_id: Option<Uuid>,
    pub operation_kind: Option<String>,
    pub operation_status: Option<String>,
    /// The host that is to do something about it, if there is one.
    pub has_host: bool,
    pub host_last_seen_at: Option<OffsetDateTime>,
    pub host_dead: bool,
    /// What its host said last of the instance.
    pub instance_detail: Option<String>,
    /// Whether its host has still to merge layers.
    pub merging: bool,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(in super::super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(in super::super) fn attachment(&self) -> Option<AttachmentState> {
        self.attachment_state.as_deref().map(AttachmentState::parse)
    }

    pub(in super::super) fn into_wire(self, now: OffsetDateTime) -> Volume {
        let attachment = self.attachment();
        let state = shown(&Seen {
            deletion_requested: self.deletion_requested_at.is_some(),
            attachment,
            spec_generation: self.spec_generation,
            ready_generation: self.ready_generation,
        });
        let waits = Waits {
            host: self
                .has_host
                .then_some(Doer { last_seen_at: self.host_last_seen_at, dead: self.host_dead }),
            said: self.instance_detail.as_deref(),
            merging: self.merging,
        };
        let state_detail = detail(state, &waits, now);
        let instance = self.instance_id.zip(self.instance_name).map(|(id, name)| Reference { id, name });
        let operation = self.operation_id.zip(self.operation_kind).zip(self.operation_status);
        let id = VolumeId::from(self.id);
        Volume {
            id,
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            state,
            state_detail,
            size_gib: self.size_gib,
            pool: self.pool_id.zip(self.pool_name).map(|(id, name)| Reference { id, name }),
            image: self.image_id.zip(self.image_name).map(|(id, name)| Reference { id, name }),
            attachment: instance.zip(self.position).zip(attachment).map(|((instance, position), state)| {
                Attachment { instance, position, state, delete_with_instance: self.delete_with_instance }
            }),
            serial: id.serial(),
            delete_protection: self.delete_protection,
            iops_limit: self.iops_limit,
            bytes_per_second_limit: self.bytes_per_second_limit,
            operation: operation.map(|((id, kind), status)| OperationSummary {
                id: id.into(),
                kind,
                status: OperationStatus::from_text(&status),
            }),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}
