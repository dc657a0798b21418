//! SQL of instances, for their owners. What hosts and controllers need is in the files below.

pub(crate) mod cloning;
pub(crate) mod departures;
pub(crate) mod guests;
pub(super) mod heritage;
pub(crate) mod hosts;
pub(crate) mod leases;
pub(crate) mod placement;
pub(crate) mod rebuilding;
pub(crate) mod resizing;

use protocol::agent::{Nic, PauseReason, Power};
use protocol::{InstanceId, MacAddress, OperationId, ProjectId, RequestId, Vni};
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{Intent, Observed, StateReason, shown, stored};
use super::types::{
    ImageReference, Instance, InstanceNic, InstanceVolume, Lease, OperationSummary, Reference, Resize, Times,
};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::hosts::UNREACHABLE_AFTER;
use crate::http::{
    ApiError, ErrorCode, FieldError, LabelSelector, Labels, Selector, Version, violated_constraint,
};
use crate::instance_types::InstanceTypeRow;
use crate::nudge::{self, Topic};
use crate::operations::OperationStatus;
use crate::ports::cards;
use crate::scheduler::Explanation;
use crate::volumes::AttachmentState;
use crate::volumes::store::ending;

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
    pub deletion_requested_at: Option<OffsetDateTime>,
    pub operation_id: Uuid,
    pub operation_kind: String,
    pub operation_status: String,
    pub host_id: Option<Uuid>,
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
    pub address: std::net::IpAddr,
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
        })
    }
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn intent(&self) -> Intent {
        Intent {
            generation: self.generation,
            power: stored::parse_power(&self.power),
            boot: self.boot,
            deletion_requested: self.deletion_requested_at.is_some(),
            placed: self.host_id.is_some(),
        }
    }

    pub(super) fn observed(&self) -> Option<Observed> {
        Some(Observed {
            generation: self.observed_generation?,
            boot: self.observed_boot?,
            state: stored::parse_state(self.observed_state.as_deref()?, self.observed_end_reason.as_deref())?,
            paused: self.observed_paused.as_deref().and_then(PauseReason::from_name),
        })
    }

    /// Whether it has a volume to boot from that stays.
    pub(super) fn boots(&self) -> bool {
        let root = self.volumes.iter().find(|volume| volume.position == 0);
        root.is_some_and(|root| root.attachment_state != AttachmentState::Detaching)
    }

    pub(super) const fn times(&self) -> Times {
        Times { stop_at: self.stop_at, delete_at: self.delete_at }
    }

    /// Until when it is wanted, and who said so.
    pub(super) fn lease(&self) -> Option<Lease> {
        Some(Lease {
            set_by: self.lease_principal_id?.into(),
            stop_at: self.stop_at,
            delete_at: self.delete_at,
            detail: self.lease_failure.clone(),
        })
    }

    /// What it was before a resize that can be reverted.
    pub(super) fn resize(&self, now: OffsetDateTime) -> Option<Resize> {
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
    pub(super) fn is_rescued(&self) -> bool {
        let rescue = self.volumes.iter().find(|volume| volume.position < 0);
        rescue.is_some_and(|rescue| rescue.attachment_state != AttachmentState::Detaching)
    }

    pub(super) fn host_reachable(&self, now: OffsetDateTime) -> bool {
        self.host_last_seen_at.is_some_and(|seen| now - seen <= UNREACHABLE_AFTER)
    }

    pub(super) fn into_wire(self, now: OffsetDateTime) -> Instance {
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
            plan: None,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// What a new instance is made of.
pub(super) struct New<'a> {
    pub id: InstanceId,
    pub name: &'a str,
    pub hostname: &'a str,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub delete_protection: bool,
    pub system: &'a System,
    pub instance_type: &'a InstanceTypeRow,
    pub placement_group: Option<Uuid>,
    pub user_data: Option<&'a [u8]>,
    pub ssh_authorized_keys: &'a [String],
    /// The names of the key pairs that some of those are from.
    pub key_pairs: &'a [String],
    pub stop_timeout_seconds: i32,
    pub operation_id: OperationId,
    pub request_id: RequestId,
    pub now: OffsetDateTime,
}

/// The operating system of an instance.
pub(super) struct System {
    pub image_id: Uuid,
    /// As the image is called now.
    pub image_name: String,
    pub firmware: String,
}

/// The system of a volume that was made from the image, which may be deleted by now.
pub(super) async fn system_of(conn: &mut PgConnection, image: Uuid) -> Result<System, sqlx::Error> {
    sqlx::query_as!(
        System,
        "SELECT id AS image_id, name AS image_name, firmware FROM images WHERE id = $1",
        image
    )
    .fetch_one(conn)
    .await
}

/// The same with the architecture that it is for.
pub(super) async fn system_with_architecture(
    conn: &mut PgConnection,
    image: Uuid,
) -> Result<(System, String), sqlx::Error> {
    let architecture = sqlx::query_scalar!("SELECT architecture FROM images WHERE id = $1", image)
        .fetch_one(&mut *conn)
        .await?;
    Ok((system_of(conn, image).await?, architecture))
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateInstance>,
    new: New<'_>,
) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO instances
             (id, project_id, name, labels, generation, image_id, instance_type_id, architecture, vcpus,
              memory_mib, hostname, user_data, ssh_authorized_keys, power, boot, stop_mode,
              stop_timeout_seconds, operation_id, request_id, placement_due_at, created_at, updated_at,
              image_name, firmware, description, delete_protection, key_pairs, placement_group_id)
         VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, $10, $11, $12, 'running', 1, 'graceful', $13, $14,
                 $15, $16, $16, $16, $17, $18, $19, $20, $21, $22)",
        new.id.as_uuid(),
        allowed.project().as_uuid(),
        new.name,
        Json(new.labels) as _,
        new.system.image_id,
        new.instance_type.id,
        new.instance_type.architecture,
        new.instance_type.vcpus,
        new.instance_type.memory_mib,
        new.hostname,
        new.user_data,
        new.ssh_authorized_keys,
        new.stop_timeout_seconds,
        new.operation_id.as_uuid(),
        new.request_id.as_uuid(),
        new.now,
        new.system.image_name,
        new.system.firmware,
        new.description,
        new.delete_protection,
        new.key_pairs,
        new.placement_group
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| match violated_constraint(&error) {
        // Deleted since it was looked up.
        Some("instances_instance_type_id_fkey") => ApiError::invalid(vec![no_instance_type()]),
        Some("instances_of_a_group_of_the_project") => ApiError::invalid(vec![no_placement_group()]),
        _ => name_taken(error),
    })
}

/// The body names an image that is not there.
pub(super) fn no_image() -> FieldError {
    FieldError::new("/image", "not_found", "this project has no such image")
}

/// The body names a placement group that is not there.
pub(super) fn no_placement_group() -> FieldError {
    FieldError::new("/placement_group", "not_found", "this project has no such placement group")
}

/// The body names an instance type that is not there.
pub(super) fn no_instance_type() -> FieldError {
    FieldError::new("/instance_type", "not_found", "there is no such instance type")
}

/// The instance as it is.
pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    find_in(conn, allowed.project(), selector).await
}

/// The same for whoever has the right to the project.
pub(super) async fn find_in(
    conn: &mut PgConnection,
    project: ProjectId,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT i.id, i.name, i.labels AS "labels: Json<Labels>", i.generation,
                  i.image_id, CASE WHEN u.usable THEN m.name ELSE i.image_name END AS "image_name!",
                  NOT u.usable AS "image_gone!", i.instance_type_id, t.name AS instance_type_name,
                  i.placement_group_id, g.name AS "placement_group_name?",
                  i.architecture, i.firmware, i.vcpus, i.memory_mib, i.hostname,
                  instance_nics(i.id) AS "nics!: Json<Vec<NicRow>>",
                  instance_volumes(i.id) AS "volumes!: Json<Vec<VolumeRow>>", i.power, i.boot,
                  i.deletion_requested_at, i.operation_id, o.kind AS operation_kind, o.status AS operation_status,
                  i.host_id, h.last_seen_at AS "host_last_seen_at?",
                  i.placement_explanation AS "placement_explanation: Json<Explanation>",
                  i.observed_generation, i.observed_boot, i.observed_state, i.observed_end_reason,
                  i.observed_paused, i.observed_detail, i.created_at, i.updated_at, i.description,
                  i.delete_protection, i.key_pairs, i.stop_at, i.delete_at, i.lease_principal_id, i.lease_failure,
                  i.resized_from_type_id, f.name AS "resized_from_type_name?", i.resized_from_vcpus,
                  i.resized_from_memory_mib, i.resize_confirm_at
           FROM instances i
           JOIN images m ON m.id = i.image_id
           CROSS JOIN LATERAL (SELECT may_use_image(m, i.project_id)) u (usable)
           JOIN instance_types t ON t.id = i.instance_type_id
           JOIN operations o ON o.id = i.operation_id
           LEFT JOIN placement_groups g ON g.id = i.placement_group_id
           LEFT JOIN hosts h ON h.id = i.host_id
           LEFT JOIN instance_types f ON f.id = i.resized_from_type_id
           WHERE i.project_id = $1 AND (i.id = $2 OR i.name = $3)"#,
        project.as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// The instance, locked until the transaction ends.
pub(super) async fn lock<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query!(
        "SELECT FROM instances WHERE project_id = $1 AND (id = $2 OR name = $3) FOR UPDATE",
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .execute(&mut *conn)
    .await?;
    find(conn, allowed, selector).await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListInstances>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT i.id, i.name, i.labels AS "labels: Json<Labels>", i.generation,
                  i.image_id, CASE WHEN u.usable THEN m.name ELSE i.image_name END AS "image_name!",
                  NOT u.usable AS "image_gone!", i.instance_type_id, t.name AS instance_type_name,
                  i.placement_group_id, g.name AS "placement_group_name?",
                  i.architecture, i.firmware, i.vcpus, i.memory_mib, i.hostname,
                  instance_nics(i.id) AS "nics!: Json<Vec<NicRow>>",
                  instance_volumes(i.id) AS "volumes!: Json<Vec<VolumeRow>>", i.power, i.boot,
                  i.deletion_requested_at, i.operation_id, o.kind AS operation_kind, o.status AS operation_status,
                  i.host_id, h.last_seen_at AS "host_last_seen_at?",
                  i.placement_explanation AS "placement_explanation: Json<Explanation>",
                  i.observed_generation, i.observed_boot, i.observed_state, i.observed_end_reason,
                  i.observed_paused, i.observed_detail, i.created_at, i.updated_at, i.description,
                  i.delete_protection, i.key_pairs, i.stop_at, i.delete_at, i.lease_principal_id, i.lease_failure,
                  i.resized_from_type_id, f.name AS "resized_from_type_name?", i.resized_from_vcpus,
                  i.resized_from_memory_mib, i.resize_confirm_at
           FROM instances i
           JOIN images m ON m.id = i.image_id
           CROSS JOIN LATERAL (SELECT may_use_image(m, i.project_id)) u (usable)
           JOIN instance_types t ON t.id = i.instance_type_id
           JOIN operations o ON o.id = i.operation_id
           LEFT JOIN placement_groups g ON g.id = i.placement_group_id
           LEFT JOIN hosts h ON h.id = i.host_id
           LEFT JOIN instance_types f ON f.id = i.resized_from_type_id
           WHERE i.project_id = $1 AND i.id > $2 AND ($3::text IS NULL OR i.name = $3)
             AND i.labels @> $4 AND i.labels ?& $5 AND NOT i.labels ?| $6
             AND NOT i.labels @> ANY($7)
           ORDER BY i.id LIMIT $8"#,
        allowed.project().as_uuid(),
        after,
        name,
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        rows
    )
    .fetch_all(conn)
    .await
}

/// The ids of instances with these labels, locked, in their order; one more than `most` when there are more.
pub(super) async fn select(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ActOnInstances>,
    labels: &LabelSelector,
    most: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM instances
         WHERE project_id = $1 AND labels @> $2 AND labels ?& $3 AND NOT labels ?| $4 AND NOT labels @> ANY($5)
         ORDER BY id LIMIT $6 FOR UPDATE",
        allowed.project().as_uuid(),
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1)
    )
    .fetch_all(conn)
    .await
}

/// What its owner says of an instance beside its intent.
pub(super) struct Metadata<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub delete_protection: bool,
}

/// A new generation like any other change of intent, which the host only has to acknowledge.
pub(super) async fn update_metadata(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdateInstance>,
    id: Uuid,
    metadata: &Metadata<'_>,
    desired_revision: Option<i64>,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE instances SET name = $2, labels = $3, generation = generation + 1, desired_revision = $5, updated_at = $4,
                description = $6, delete_protection = $7,
                off_generation = CASE WHEN off_generation = generation THEN generation + 1 END
         WHERE id = $1",
        id,
        metadata.name,
        Json(metadata.labels) as _,
        now,
        desired_revision,
        metadata.description,
        metadata.delete_protection
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// A change of what the host shall do.
#[derive(Clone, Copy)]
pub(super) struct NewIntent {
    pub power: Power,
    pub boot: i64,
    pub stop_mode: &'static str,
    pub stop_timeout_seconds: i32,
    pub deletion_requested: bool,
    /// Whether network cards come or go, so that the host's networks change with it.
    pub cards_change: bool,
    pub operation_id: OperationId,
    pub request_id: RequestId,
    pub now: OffsetDateTime,
}

/// Stores the next generation of the intent, at this revision of the host if it has one.
pub(super) async fn set_intent(
    conn: &mut PgConnection,
    id: Uuid,
    intent: &NewIntent,
    desired_revision: Option<i64>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET generation = generation + 1, power = $2, boot = $3, stop_mode = $4,
                stop_timeout_seconds = $5, operation_id = $6, request_id = $7, updated_at = $8,
                deletion_requested_at = CASE WHEN $9 THEN coalesce(deletion_requested_at, $8) END,
                desired_revision = $10
         WHERE id = $1",
        id,
        stored::power(intent.power),
        intent.boot,
        intent.stop_mode,
        intent.stop_timeout_seconds,
        intent.operation_id.as_uuid(),
        intent.request_id.as_uuid(),
        intent.now,
        intent.deletion_requested,
        desired_revision
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says from which snapshot's memory that boot goes on.
pub(super) async fn set_resume<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    _allowed: &Allowed<A>,
    id: Uuid,
    snapshot: Uuid,
    boot: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET resume_snapshot_id = $2, resume_boot = $3 WHERE id = $1",
        id,
        snapshot,
        boot
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes the row of an instance of which nothing is left anywhere.
pub(super) async fn delete_unplaced(
    conn: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    ending::lock(conn, &[id]).await?;
    cards::release(conn, &[id], &[], now).await?;
    ending::of_unplaced(conn, id, now).await?;
    sqlx::query!("DELETE FROM instances WHERE id = $1 AND host_id IS NULL", id).execute(&mut *conn).await?;
    // Its image may have waited for that.
    Ok(nudge::send(conn, Topic::Sweep).await?)
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("instances_name_unique") => ApiError::because(
            ErrorCode::NameTaken,
            "there is an instance of this name in the project already",
        ),
        _ => error.into(),
    }
}
