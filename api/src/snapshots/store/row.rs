//! A snapshot as its row has it, with its volumes.

use protocol::SnapshotId;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::model::{Consistency, SnapshotState};
use super::super::types::{Snapshot, SnapshotInstance, SnapshotVolume};
use crate::hosts::Doer;
use crate::http::{ApiError, ErrorCode, Labels, Version};
use crate::instances::{OperationSummary, Reference};
use crate::operations::OperationStatus;

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub state: String,
    pub failure: Option<String>,
    pub consistency: String,
    pub with_memory: bool,
    pub taken_at: Option<OffsetDateTime>,
    pub taking_instance_id: Option<Uuid>,
    pub instance_id: Option<Uuid>,
    pub instance_name: Option<String>,
    pub instance_type_id: Option<Uuid>,
    pub instance_type_name: Option<String>,
    pub image_id: Option<Uuid>,
    pub firmware: Option<String>,
    pub volumes: Json<Vec<SnapshotVolume>>,
    pub schedule_id: Option<Uuid>,
    pub schedule_name: Option<String>,
    pub operation_id: Option<Uuid>,
    pub operation_kind: Option<String>,
    pub operation_status: Option<String>,
    /// The host that is to take it, if one is.
    pub has_host: bool,
    pub host_last_seen_at: Option<OffsetDateTime>,
    pub host_dead: bool,
    /// What that host said last of the instance.
    pub instance_detail: Option<String>,
    pub restored_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(crate) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(crate) fn state(&self) -> SnapshotState {
        SnapshotState::parse(&self.state)
    }

    /// Refuses to use what has no content.
    pub(crate) fn check_available(&self) -> Result<(), ApiError> {
        let why = match self.state() {
            SnapshotState::Available => return Ok(()),
            SnapshotState::Creating => "is still being taken; wait until it is available",
            SnapshotState::Failed => "has failed and holds nothing; delete it, and take another",
        };
        Err(ApiError::because(ErrorCode::WrongState, format!("the snapshot {} {why}", self.name)))
    }

    /// Why it is still being taken, in words.
    fn state_detail(&self, now: OffsetDateTime) -> Option<String> {
        if self.state() != SnapshotState::Creating {
            return None;
        }
        let host =
            self.has_host.then_some(Doer { last_seen_at: self.host_last_seen_at, dead: self.host_dead });
        let silence = host.and_then(|host| host.silence(now));
        let said =
            || self.instance_detail.as_ref().map(|said| format!("the host of its instance says: {said}"));
        silence.or_else(said).or_else(|| {
            Some("the host of its instance is to take it and has not said yet that it did".to_owned())
        })
    }

    pub(crate) fn into_wire(self, now: OffsetDateTime) -> Snapshot {
        let (state, state_detail) = (self.state(), self.state_detail(now));
        let operation = self.operation_id.zip(self.operation_kind).zip(self.operation_status);
        let instance = self.instance_id.zip(self.instance_name).zip(self.firmware);
        let instance_type = self.instance_type_id.zip(self.instance_type_name);
        Snapshot {
            id: SnapshotId::from(self.id),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            state,
            state_detail,
            failure: self.failure,
            consistency: Consistency::parse(&self.consistency),
            memory: self.with_memory,
            taken_at: self.taken_at,
            instance: instance.zip(instance_type).map(|(((id, name), firmware), instance_type)| {
                let (type_id, type_name) = instance_type;
                let instance_type = Reference { id: type_id, name: type_name };
                SnapshotInstance { id, name, instance_type, firmware }
            }),
            volumes: self.volumes.0,
            schedule: self.schedule_id.zip(self.schedule_name).map(|(id, name)| Reference { id, name }),
            operation: operation.map(|((id, kind), status)| OperationSummary {
                id: id.into(),
                kind,
                status: OperationStatus::from_text(&status),
            }),
            restored_at: self.restored_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}
