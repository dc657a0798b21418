//! SQL of operations and their trails.

use protocol::{OperationId, PrincipalId, ProjectId, RequestId};
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::types::{Operation, OperationError, OperationProgress, OperationStatus, TrailStep, percent};
use crate::auth::{Action, Allowed, InProject};
use crate::nudge::{self, Topic};

/// An operation that no host ends in this time has failed; the intent behind it stays.
pub(super) const DEADLINE: Duration = Duration::minutes(15);

/// A new operation.
pub(crate) struct Begin<'a> {
    pub id: OperationId,
    pub kind: &'static str,
    pub resource_id: Uuid,
    pub resource_name: &'a str,
    pub request_id: RequestId,
    pub now: OffsetDateTime,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    Failed { code: &'static str, detail: Option<String> },
    Cancelled { code: &'static str, detail: &'static str },
}

struct Row {
    id: Uuid,
    kind: String,
    resource_id: Uuid,
    resource_name: String,
    status: String,
    error_code: Option<String>,
    error_detail: Option<String>,
    principal_id: Uuid,
    request_id: Uuid,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    deadline_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
    progress_bytes: Option<i64>,
    progress_total_bytes: Option<i64>,
    trail: Json<Vec<Step>>,
}

#[derive(Deserialize)]
struct Step {
    step: String,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    detail: Option<String>,
}

impl From<Row> for Operation {
    fn from(row: Row) -> Self {
        let status = OperationStatus::from_text(&row.status);
        let trail: Vec<_> = row
            .trail
            .0
            .into_iter()
            .map(|step| TrailStep { step: step.step, at: step.at, detail: step.detail })
            .collect();
        let progress = row.progress_bytes.map(|bytes| OperationProgress::of(bytes, row.progress_total_bytes));
        Self {
            progress_percent: percent(&row.kind, status, trail.len(), progress),
            progress,
            id: row.id.into(),
            kind: row.kind,
            resource_id: row.resource_id,
            resource_name: row.resource_name,
            status,
            trail,
            error: row.error_code.map(|code| OperationError { code, detail: row.error_detail }),
            principal_id: row.principal_id.into(),
            request_id: row.request_id.into(),
            created_at: row.created_at,
            updated_at: row.updated_at,
            deadline_at: row.deadline_at,
            finished_at: row.finished_at,
        }
    }
}

/// Begins an operation; an open one on the same resource is overtaken by it.
pub(crate) async fn begin<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    new: Begin<'_>,
) -> Result<(), sqlx::Error> {
    begin_for(conn, allowed.project(), allowed.principal(), A::NAME, new).await
}

/// The same on behalf of somebody who asked for it earlier.
pub(crate) async fn begin_for(
    conn: &mut PgConnection,
    project: ProjectId,
    principal: PrincipalId,
    action: &'static str,
    new: Begin<'_>,
) -> Result<(), sqlx::Error> {
    let deadline = new.now + DEADLINE;
    insert(conn, project, principal, action, new, deadline).await
}

/// Begins an operation with a deadline of its own.
pub(crate) async fn begin_until<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    new: Begin<'_>,
    deadline: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    insert(conn, allowed.project(), allowed.principal(), A::NAME, new, deadline).await
}

async fn insert(
    conn: &mut PgConnection,
    project: ProjectId,
    principal: PrincipalId,
    action: &'static str,
    new: Begin<'_>,
    deadline: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let overtaken = sqlx::query_scalar!(
        "SELECT id FROM operations WHERE resource_id = $1 AND status = 'running' FOR UPDATE",
        new.resource_id
    )
    .fetch_all(&mut *conn)
    .await?;
    for id in overtaken {
        let end =
            End::Cancelled { code: "superseded", detail: "a later call on the same resource took over" };
        finish(conn, id.into(), &end, new.now).await?;
    }
    sqlx::query!(
        "INSERT INTO operations (id, project_id, kind, resource_id, resource_name, status, principal_id,
                                 request_id, created_at, updated_at, deadline_at)
         VALUES ($1, $2, $3, $4, $5, 'running', $6, $7, $8, $8, $9)",
        new.id.as_uuid(),
        project.as_uuid(),
        new.kind,
        new.resource_id,
        new.resource_name,
        principal.as_uuid(),
        new.request_id.as_uuid(),
        new.now,
        deadline
    )
    .execute(&mut *conn)
    .await?;
    step(conn, new.id, "authorised", new.now, Some(action)).await
}

/// Adds a step to the trail; a step that is there already stays as it was.
pub(crate) async fn step(
    conn: &mut PgConnection,
    id: OperationId,
    step: &str,
    at: OffsetDateTime,
    detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH s AS (INSERT INTO operation_steps (operation_id, step, at, detail) VALUES ($1, $2, $3, $4)
                    ON CONFLICT DO NOTHING RETURNING operation_id)
         UPDATE operations SET updated_at = GREATEST(updated_at, $3) FROM s WHERE id = s.operation_id",
        id.as_uuid(),
        step,
        at,
        detail
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends an operation that is still running, and wakes whoever waits for it.
pub(crate) async fn finish(
    conn: &mut PgConnection,
    id: OperationId,
    end: &End,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (status, code, detail) = match end {
        End::Succeeded => ("succeeded", None, None),
        End::Failed { code, detail } => ("failed", Some(*code), detail.as_deref()),
        End::Cancelled { code, detail } => ("cancelled", Some(*code), Some(*detail)),
    };
    sqlx::query!(
        "UPDATE operations SET status = $2, error_code = $3, error_detail = $4, finished_at = $5, updated_at = $5
         WHERE id = $1 AND status = 'running'",
        id.as_uuid(),
        status,
        code,
        detail,
        now
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Operation(id)).await
}

/// Notes how many bytes have been moved. False when it does not run any more.
pub(crate) async fn set_progress(
    conn: &mut PgConnection,
    id: OperationId,
    bytes: i64,
    total_bytes: Option<i64>,
) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query!(
        "UPDATE operations SET progress_bytes = $2, progress_total_bytes = $3 WHERE id = $1 AND status = 'running'",
        id.as_uuid(),
        bytes,
        total_bytes
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() == 1)
}

/// Locks the operation until the transaction ends, if it still runs.
pub(crate) async fn lock_running(conn: &mut PgConnection, id: OperationId) -> Result<bool, sqlx::Error> {
    let locked =
        sqlx::query!("SELECT FROM operations WHERE id = $1 AND status = 'running' FOR UPDATE", id.as_uuid())
            .execute(conn)
            .await?;
    Ok(locked.rows_affected() == 1)
}

pub(crate) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    id: Uuid,
) -> Result<Option<Operation>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id, kind, resource_id, resource_name, status, error_code, error_detail, principal_id,
                  request_id, created_at, updated_at, deadline_at, finished_at,
                  progress_bytes, progress_total_bytes,
                  (SELECT coalesce(jsonb_agg(jsonb_build_object('step', s.step, 'at', s.at, 'detail', s.detail)
                                             ORDER BY s.position), '[]')
                   FROM operation_steps s WHERE s.operation_id = o.id) AS "trail!: Json<Vec<Step>>"
           FROM operations o WHERE id = $2 AND project_id = $1"#,
        allowed.project().as_uuid(),
        id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Operation::from))
}

/// What a list asks for.
pub(super) struct Filter {
    /// Older than this one; `None` begins with the newest.
    pub before: Option<Uuid>,
    pub resource: Option<Uuid>,
    pub status: Option<OperationStatus>,
    pub rows: i64,
}

/// Newest first.
pub(super) async fn list<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    filter: &Filter,
) -> Result<Vec<Operation>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, kind, resource_id, resource_name, status, error_code, error_detail, principal_id,
                  request_id, created_at, updated_at, deadline_at, finished_at,
                  progress_bytes, progress_total_bytes,
                  (SELECT coalesce(jsonb_agg(jsonb_build_object('step', s.step, 'at', s.at, 'detail', s.detail)
                                             ORDER BY s.position), '[]')
                   FROM operation_steps s WHERE s.operation_id = o.id) AS "trail!: Json<Vec<Step>>"
           FROM operations o
           WHERE project_id = $1 AND ($2::uuid IS NULL OR resource_id = $2) AND ($3::uuid IS NULL OR id < $3)
             AND ($4::text IS NULL OR status = $4)
           ORDER BY id DESC LIMIT $5"#,
        allowed.project().as_uuid(),
        filter.resource,
        filter.before,
        filter.status.map(OperationStatus::as_str),
        filter.rows
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Operation::from).collect())
}

/// Why no host takes the instance that the operation is about, if that is what it waits for.
pub(super) async fn why_unplaced(
    conn: &mut PgConnection,
    id: OperationId,
) -> Result<Option<String>, sqlx::Error> {
    let why = sqlx::query_scalar!(
        "SELECT placement_explanation ->> 'summary' FROM instances WHERE operation_id = $1 AND host_id IS NULL",
        id.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(why.flatten())
}

/// Running operations past their deadline.
pub(super) async fn overdue(
    conn: &mut PgConnection,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<OperationId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM operations WHERE status = 'running' AND deadline_at <= $1
         ORDER BY deadline_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(OperationId::from).collect())
}

/// Removes operations that had ended by then, oldest first, with their trails; how many. Those stay that somebody looks back at:
/// the newest one of each instance, volume and snapshot, and what owners have asked for while a host in maintenance owes a start.
pub(super) async fn remove_old(
    conn: &mut PgConnection,
    ended_before: OffsetDateTime,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "DELETE FROM operations WHERE id IN (
             SELECT id FROM operations o
             WHERE o.finished_at < $1
               AND NOT EXISTS (SELECT FROM instances i WHERE i.operation_id = o.id)
               AND NOT EXISTS (SELECT FROM volumes v WHERE v.operation_id = o.id)
               AND NOT EXISTS (SELECT FROM snapshots s WHERE s.operation_id = o.id)
               AND NOT EXISTS (SELECT FROM migrations m WHERE m.operation_id = o.id)
               AND NOT EXISTS (SELECT FROM image_imports g WHERE g.operation_id = o.id)
               AND NOT EXISTS (SELECT FROM images g WHERE g.import_operation_id = o.id)
               AND NOT EXISTS (SELECT FROM evacuations e WHERE e.instance_id = o.resource_id AND e.stopped_by IS NOT NULL)
             ORDER BY o.finished_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        ended_before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(removed.rows_affected())
}
