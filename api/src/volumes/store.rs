//! SQL of volumes, for their owners. What hosts need is in the file below.

pub(crate) mod attachments;
pub(crate) mod ending;
pub(crate) mod hosts;
pub(crate) mod layers;
mod row;

use protocol::{HostId, InstanceId, LayerId, VolumeId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use self::row::Row;
use super::model::VolumeState;
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, violated_constraint};
use crate::snapshots::store::taking::Sealed;

/// A volume that is about to be made.
pub(super) struct NewVolume<'a> {
    pub id: VolumeId,
    /// Its first layer.
    pub layer: LayerId,
    /// What that stands on, unless it is an image or nothing.
    pub below: Option<Sealed>,
    pub name: &'a str,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub size_gib: i32,
    pub image: Option<Uuid>,
    /// The shared pool that it is in; that of what it begins with, if that is in one.
    pub pool: Option<Uuid>,
    pub delete_protection: bool,
    pub iops_limit: Option<i64>,
    pub bytes_per_second_limit: Option<i64>,
    /// The instance with which it is made.
    pub attachment: Option<NewAttachment>,
    pub now: OffsetDateTime,
}

/// Where a volume goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewAttachment {
    pub instance: InstanceId,
    pub position: i32,
    pub delete_with_instance: bool,
}

pub(super) async fn insert<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    new: &NewVolume<'_>,
) -> Result<(), ApiError> {
    sqlx::query!(
        "INSERT INTO layers (id, host_id, pool_id, parent_id, created_at) VALUES ($1, $2, $3, $4, $5)",
        new.layer.as_uuid(),
        new.below.and_then(|below| below.host).map(HostId::as_uuid),
        new.pool,
        new.below.map(|below| below.layer),
        new.now
    )
    .execute(&mut *conn)
    .await?;
    let inserted = sqlx::query!(
        "INSERT INTO volumes (id, project_id, name, description, labels, size_gib, image_id, layer_id,
                              delete_protection, iops_limit, bytes_per_second_limit, created_at, updated_at,
                              instance_id, position, delete_with_instance, attachment_state, host_id, pool_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12,
                 $13, $14, $15, CASE WHEN $13::uuid IS NOT NULL THEN 'attaching' END, $16, $17)",
        new.id.as_uuid(),
        allowed.project().as_uuid(),
        new.name,
        new.description,
        Json(new.labels) as _,
        new.size_gib,
        new.image,
        new.layer.as_uuid(),
        new.delete_protection,
        new.iops_limit,
        new.bytes_per_second_limit,
        new.now,
        new.attachment.map(|attachment| attachment.instance.as_uuid()),
        new.attachment.map(|attachment| attachment.position),
        new.attachment.is_some_and(|attachment| attachment.delete_with_instance),
        new.below.and_then(|below| below.host).map(HostId::as_uuid),
        new.pool
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(broken)
}

/// A volume of the project.
pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT v.id, v.name, v.description, v.labels AS "labels: Json<Labels>", v.generation, v.size_gib,
                  v.iops_limit, v.bytes_per_second_limit, v.delete_protection, v.image_id,
                  m.name AS "image_name?", v.spec_generation, v.host_id, v.pool_id, p.name AS "pool_name?",
                  v.instance_id,
                  i.name AS "instance_name?", i.host_id IS NOT NULL AS "instance_placed!", v.position,
                  v.delete_with_instance, v.attachment_state,
                  CASE WHEN v.observed_state = 'ready' THEN v.observed_generation END AS ready_generation,
                  v.deletion_requested_at, v.operation_id, o.kind AS "operation_kind?",
                  o.status AS "operation_status?", h.last_seen_at AS "host_last_seen_at?",
                  h.declared_dead_at IS NOT NULL AND h.id IS NOT NULL AS "host_dead!", h.id IS NOT NULL AS "has_host!",
                  i.observed_detail AS "instance_detail?",
                  EXISTS (SELECT FROM layers l WHERE l.id = ANY (chain_of(v.layer_id)) AND l.parent_merge IS NOT NULL)
                      AS "merging!",
                  v.created_at, v.updated_at
           FROM volumes v
           LEFT JOIN images m ON m.id = v.image_id
           LEFT JOIN pools p ON p.id = v.pool_id
           LEFT JOIN instances i ON i.id = v.instance_id
           LEFT JOIN operations o ON o.id = v.operation_id
           LEFT JOIN layer_removals r ON r.id = v.removal_id
           LEFT JOIN hosts h ON h.id = coalesce(r.host_id, CASE WHEN r.id IS NULL THEN i.host_id END)
           WHERE v.project_id = $1 AND (v.id = $2 OR v.name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// What a list asks for.
pub(super) struct Filter<'a> {
    pub after: Uuid,
    pub name: Option<&'a str>,
    pub labels: &'a LabelSelector,
    /// Of the instance with this name or id; `None` is any.
    pub instance: Option<&'a str>,
    pub state: Option<VolumeState>,
    pub rows: i64,
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListVolumes>,
    filter: &Filter<'_>,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT v.id, v.name, v.description, v.labels AS "labels: Json<Labels>", v.generation, v.size_gib,
                  v.iops_limit, v.bytes_per_second_limit, v.delete_protection, v.image_id,
                  m.name AS "image_name?", v.spec_generation, v.host_id, v.pool_id, p.name AS "pool_name?",
                  v.instance_id,
                  i.name AS "instance_name?", i.host_id IS NOT NULL AS "instance_placed!", v.position,
                  v.delete_with_instance, v.attachment_state,
                  CASE WHEN v.observed_state = 'ready' THEN v.observed_generation END AS ready_generation,
                  v.deletion_requested_at, v.operation_id, o.kind AS "operation_kind?",
                  o.status AS "operation_status?", h.last_seen_at AS "host_last_seen_at?",
                  h.declared_dead_at IS NOT NULL AND h.id IS NOT NULL AS "host_dead!", h.id IS NOT NULL AS "has_host!",
                  i.observed_detail AS "instance_detail?",
                  EXISTS (SELECT FROM layers l WHERE l.id = ANY (chain_of(v.layer_id)) AND l.parent_merge IS NOT NULL)
                      AS "merging!",
                  v.created_at, v.updated_at
           FROM volumes v
           LEFT JOIN images m ON m.id = v.image_id
           LEFT JOIN pools p ON p.id = v.pool_id
           LEFT JOIN instances i ON i.id = v.instance_id
           LEFT JOIN operations o ON o.id = v.operation_id
           LEFT JOIN layer_removals r ON r.id = v.removal_id
           LEFT JOIN hosts h ON h.id = coalesce(r.host_id, CASE WHEN r.id IS NULL THEN i.host_id END)
           WHERE v.project_id = $1 AND v.id > $2 AND ($3::text IS NULL OR v.name = $3)
             AND ($4::text IS NULL OR i.name = $4 OR i.id::text = $4)
             AND v.labels @> $5 AND v.labels ?& $6 AND NOT v.labels ?| $7
             AND NOT v.labels @> ANY($8)
             AND ($10::text IS NULL OR volume_state(v) = $10)
           ORDER BY v.id LIMIT $9"#,
        allowed.project().as_uuid(),
        filter.after,
        filter.name,
        filter.instance,
        filter.labels.equal(),
        filter.labels.present(),
        filter.labels.absent(),
        &filter.labels.not_equal(),
        filter.rows,
        filter.state.map(VolumeState::as_str)
    )
    .fetch_all(conn)
    .await
}

/// Locks the instance that has the volume: whoever needs both locks the instance first. Called before anything is
/// decided, so it tells nothing but which.
pub(crate) async fn lock_instance_of(
    conn: &mut PgConnection,
    project: &str,
    volume: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let (Some(project), Some(volume)) = (Selector::parse(project), Selector::parse(volume)) else {
        return Ok(None);
    };
    sqlx::query_scalar!(
        "SELECT i.id FROM instances i WHERE i.id = (
             SELECT v.instance_id FROM volumes v JOIN projects p ON p.id = v.project_id
             WHERE (p.id = $1 OR p.name = $2) AND (v.id = $3 OR v.name = $4))
         FOR UPDATE",
        project.id(),
        project.name(),
        volume.id(),
        volume.name()
    )
    .fetch_optional(conn)
    .await
}

/// A volume, as far as those need to know it who take it along.
pub(crate) struct Identified {
    pub id: Uuid,
    pub instance_id: Option<Uuid>,
}

/// The volume that a body names.
pub(crate) async fn identify<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    volume: &str,
) -> Result<Option<Identified>, sqlx::Error> {
    let Some(selector) = Selector::parse(volume) else { return Ok(None) };
    sqlx::query_as!(
        Identified,
        "SELECT id, instance_id FROM volumes WHERE project_id = $1 AND (id = $2 OR name = $3)",
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UpdateVolume>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE volumes SET name = $3, description = $4, labels = $5, generation = $6, size_gib = $7,
                iops_limit = $8, bytes_per_second_limit = $9, delete_protection = $10,
                delete_with_instance = $11, spec_generation = $12, updated_at = $13
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        row.description,
        Json(&row.labels.0) as _,
        row.generation,
        row.size_gib,
        row.iops_limit,
        row.bytes_per_second_limit,
        row.delete_protection,
        row.delete_with_instance,
        row.spec_generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(broken)
}

/// Says which operation is about it now.
pub(crate) async fn set_operation(
    conn: &mut PgConnection,
    volume: Uuid,
    operation: protocol::OperationId,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE volumes SET operation_id = $2 WHERE id = $1", volume, operation.as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// What a refused statement about volumes means.
pub(super) fn broken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("volumes_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a volume of this name in the project already")
        }
        Some("hosts_disk_fits") => ApiError::because(
            ErrorCode::InsufficientCapacity,
            "the host with its data has too little free disk; delete volumes there, or ask an operator for room",
        ),
        Some("pools_disk_fits") => ApiError::because(
            ErrorCode::InsufficientCapacity,
            "the pool has too little free disk, or no host has it yet; choose another one, or ask an operator for room",
        ),
        Some("pools_low") => ApiError::because(
            ErrorCode::InsufficientCapacity,
            "the pool is almost full, so it takes no new volumes; choose another one, delete volumes there, or ask an operator \
             for room",
        ),
        Some("hosts_pool_low") => ApiError::because(
            ErrorCode::InsufficientCapacity,
            "the disks of the host with the instance or the data are almost full, so it takes no new volumes; delete volumes there, or ask an \
             operator for room",
        ),
        Some("volumes_image_id_fkey") => ApiError::invalid(vec![super::disks::no_image("/source/image")]),
        _ => error.into(),
    }
}
