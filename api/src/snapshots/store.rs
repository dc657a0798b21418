//! SQL of snapshots, for their owners. What takes them, and what hosts say of them, is in the files below.

pub(crate) mod cloning;
pub(crate) mod hosts;
mod row;
pub(crate) mod taking;
pub(crate) mod using;

use protocol::OperationId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) use self::row::Row;
use super::model::SnapshotState;
use super::types::SnapshotVolume;
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, violated_constraint};

/// A snapshot of the project.
pub(crate) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.id, s.name, s.description, s.labels AS "labels: Json<Labels>", s.generation, s.state, s.failure,
                  s.consistency, s.with_memory, s.taken_at, s.taking_instance_id, s.instance_id, s.instance_name,
                  s.instance_type_id, s.instance_type_name, s.image_id, s.firmware,
                  (SELECT coalesce(jsonb_agg(jsonb_build_object('position', v.position, 'id', v.volume_id,
                              'name', v.volume_name, 'size_gib', v.size_gib) ORDER BY v.position), '[]')
                   FROM snapshot_volumes v WHERE v.snapshot_id = s.id) AS "volumes!: Json<Vec<SnapshotVolume>>",
                  s.schedule_id, c.name AS "schedule_name?", s.operation_id, o.kind AS "operation_kind?", o.status AS "operation_status?",
                  h.id IS NOT NULL AS "has_host!", h.last_seen_at AS "host_last_seen_at?",
                  h.declared_dead_at IS NOT NULL AND h.id IS NOT NULL AS "host_dead!",
                  t.observed_detail AS "instance_detail?", s.restored_at, s.created_at, s.updated_at
           FROM snapshots s LEFT JOIN operations o ON o.id = s.operation_id
           LEFT JOIN snapshot_schedules c ON c.id = s.schedule_id
           LEFT JOIN instances t ON t.id = s.taking_instance_id
           LEFT JOIN hosts h ON h.id = t.host_id
           WHERE s.project_id = $1 AND (s.id = $2 OR s.name = $3)"#,
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
    /// Of the volume with this name or id; `None` is any.
    pub volume: Option<&'a str>,
    /// Of the instance with this name or id; `None` is any.
    pub instance: Option<&'a str>,
    /// Made by the schedule with this name or id; `None` is any.
    pub schedule: Option<&'a str>,
    pub state: Option<SnapshotState>,
    pub rows: i64,
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListSnapshots>,
    filter: &Filter<'_>,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.id, s.name, s.description, s.labels AS "labels: Json<Labels>", s.generation, s.state, s.failure,
                  s.consistency, s.with_memory, s.taken_at, s.taking_instance_id, s.instance_id, s.instance_name,
                  s.instance_type_id, s.instance_type_name, s.image_id, s.firmware,
                  (SELECT coalesce(jsonb_agg(jsonb_build_object('position', v.position, 'id', v.volume_id,
                              'name', v.volume_name, 'size_gib', v.size_gib) ORDER BY v.position), '[]')
                   FROM snapshot_volumes v WHERE v.snapshot_id = s.id) AS "volumes!: Json<Vec<SnapshotVolume>>",
                  s.schedule_id, c.name AS "schedule_name?", s.operation_id, o.kind AS "operation_kind?", o.status AS "operation_status?",
                  h.id IS NOT NULL AS "has_host!", h.last_seen_at AS "host_last_seen_at?",
                  h.declared_dead_at IS NOT NULL AND h.id IS NOT NULL AS "host_dead!",
                  t.observed_detail AS "instance_detail?", s.restored_at, s.created_at, s.updated_at
           FROM snapshots s LEFT JOIN operations o ON o.id = s.operation_id
           LEFT JOIN snapshot_schedules c ON c.id = s.schedule_id
           LEFT JOIN instances t ON t.id = s.taking_instance_id
           LEFT JOIN hosts h ON h.id = t.host_id
           WHERE s.project_id = $1 AND s.id > $2 AND ($3::text IS NULL OR s.name = $3)
             AND ($4::text IS NULL OR s.instance_name = $4 OR s.instance_id::text = $4)
             AND ($5::text IS NULL OR EXISTS (
                 SELECT FROM snapshot_volumes v LEFT JOIN volumes n ON n.id = v.volume_id
                 WHERE v.snapshot_id = s.id AND (coalesce(n.name, v.volume_name) = $5 OR v.volume_id::text = $5)))
             AND s.labels @> $6 AND s.labels ?& $7 AND NOT s.labels ?| $8
             AND NOT s.labels @> ANY($9)
             AND ($11::text IS NULL OR c.name = $11 OR c.id::text = $11)
             AND ($12::text IS NULL OR s.state = $12)
           ORDER BY s.id LIMIT $10"#,
        allowed.project().as_uuid(),
        filter.after,
        filter.name,
        filter.instance,
        filter.volume,
        filter.labels.equal(),
        filter.labels.present(),
        filter.labels.absent(),
        &filter.labels.not_equal(),
        filter.rows,
        filter.schedule,
        filter.state.map(SnapshotState::as_str)
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UpdateSnapshot>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE snapshots SET name = $3, description = $4, labels = $5, generation = $6, updated_at = $7
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        row.description,
        Json(&row.labels.0) as _,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(broken)
}

/// Notes that the volumes of a snapshot went back to it, and the operation of a guest that goes on from its memory.
pub(super) async fn set_restored(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::RestoreSnapshot>,
    id: Uuid,
    operation: Option<OperationId>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE snapshots SET restored_at = $2, updated_at = $2, operation_id = coalesce($3, operation_id) WHERE id = $1",
        id,
        now,
        operation.map(OperationId::as_uuid)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks the instance whose host is taking the snapshot: whoever needs both locks the instance first. Called before
/// anything is decided, so it tells nothing but which.
pub(super) async fn lock_taking_instance(
    conn: &mut PgConnection,
    project: &str,
    snapshot: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let (Some(project), Some(snapshot)) = (Selector::parse(project), Selector::parse(snapshot)) else {
        return Ok(None);
    };
    sqlx::query_scalar!(
        "SELECT i.id FROM instances i WHERE i.id = (
             SELECT s.taking_instance_id FROM snapshots s JOIN projects p ON p.id = s.project_id
             WHERE (p.id = $1 OR p.name = $2) AND (s.id = $3 OR s.name = $4))
         FOR UPDATE",
        project.id(),
        project.name(),
        snapshot.id(),
        snapshot.name()
    )
    .fetch_optional(conn)
    .await
}

/// The end of a snapshot. Data on which something else stands stays. Refused by the database while a guest is about to go
/// on from its memory.
pub(crate) async fn delete(
    conn: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET resume_snapshot_id = NULL, resume_boot = NULL
         WHERE resume_snapshot_id = $1
           AND NOT (boot = resume_boot AND power = 'running' AND deletion_requested_at IS NULL
                    AND NOT coalesce(observed_boot >= boot
                                     AND observed_state IN ('running', 'stopping', 'stopped'), false))",
        id
    )
    .execute(&mut *conn)
    .await?;
    let held =
        sqlx::query_scalar!(r#"DELETE FROM snapshot_volumes WHERE snapshot_id = $1 RETURNING layer_id"#, id)
            .fetch_all(&mut *conn)
            .await?;
    let memory = sqlx::query_scalar!("DELETE FROM snapshots WHERE id = $1 RETURNING memory_id", id)
        .fetch_optional(&mut *conn)
        .await?;
    let held: Vec<_> = held.into_iter().chain(memory).flatten().collect();
    crate::volumes::store::layers::give_up(conn, &held, now).await?;
    // An image may have waited for that.
    crate::nudge::send(conn, crate::nudge::Topic::Sweep).await
}

/// What a refused statement about snapshots means.
pub(crate) fn broken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("snapshots_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a snapshot of this name in the project already")
        }
        Some("instances_resume_from_a_snapshot") => ApiError::because(
            ErrorCode::WrongState,
            "an instance is about to go on from its memory; wait until it runs, or stop it",
        ),
        Some("pools_low") => ApiError::because(
            ErrorCode::InsufficientCapacity,
            "the pool is almost full, so it keeps no memory of guests; leave `memory` out, delete volumes there, or ask an operator \
             for room",
        ),
        Some("hosts_pool_low") => ApiError::because(
            ErrorCode::InsufficientCapacity,
            "the disks of the host are almost full, so it keeps no memory of guests; leave `memory` out, delete volumes there, or \
             ask an operator for room",
        ),
        Some("hosts_disk_fits" | "pools_disk_fits") => ApiError::because(
            ErrorCode::InsufficientCapacity,
            "there is too little disk for the memory where the instance is; take the snapshot without `memory`, delete \
             something there, or ask an operator for room",
        ),
        _ => error.into(),
    }
}
