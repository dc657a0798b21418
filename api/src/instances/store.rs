//! SQL of instances, for their owners. What hosts and controllers need is in the files below.

pub(crate) mod cloning;
mod creating;
pub(crate) mod departures;
pub(crate) mod disk_moves;
pub(crate) mod guests;
pub(super) mod heritage;
pub(crate) mod hosts;
pub(crate) mod leases;
mod lists;
pub(crate) mod migrations;
pub(crate) mod placement;
pub(crate) mod rebuilding;
pub(crate) mod recovery;
pub(crate) mod resizing;
mod row;

use protocol::agent::{OnHostFailure, Power};
use protocol::{OperationId, ProjectId, RequestId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use self::creating::{
    New, System, insert, no_image, no_instance_type, no_placement_group, system_of, system_with_architecture,
};
pub(super) use self::lists::{CloudFilter, Filter, list, list_of_cloud, rows_of};
pub(crate) use self::row::Row;
use self::row::{NicRow, VolumeRow};
use super::model::stored;
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, violated_constraint};
use crate::nudge::{self, Topic};
use crate::ports::cards;
use crate::scheduler::Explanation;
use crate::volumes::store::ending;

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
                  i.stop_mode, i.stop_timeout_seconds,
                  i.deletion_requested_at, i.operation_id, o.kind AS operation_kind, o.status AS operation_status,
                  i.host_id, h.name AS "host_name?", h.last_seen_at AS "host_last_seen_at?",
                  i.placement_explanation AS "placement_explanation: Json<Explanation>",
                  i.observed_generation, i.observed_boot, i.observed_state, i.observed_end_reason,
                  i.observed_paused, i.observed_detail, i.created_at, i.updated_at, i.description,
                  i.on_host_failure, i.delete_protection, i.key_pairs, i.stop_at, i.delete_at, i.lease_principal_id, i.lease_failure,
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
    pub on_host_failure: OnHostFailure,
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
                description = $6, delete_protection = $7, on_host_failure = $8,
                guarded_from = CASE WHEN $8 = on_host_failure THEN guarded_from
                                    WHEN $8 = 'restart' AND host_id IS NOT NULL THEN generation + 1 END,
                off_generation = CASE WHEN off_generation = generation THEN generation + 1 END
         WHERE id = $1",
        id,
        metadata.name,
        Json(metadata.labels) as _,
        now,
        desired_revision,
        metadata.description,
        metadata.delete_protection,
        metadata.on_host_failure.as_str()
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
