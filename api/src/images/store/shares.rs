//! SQL of shares: which other projects may use an image. Whoever changes them has locked the image.

use protocol::ProjectId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::types::ImageShare;
use crate::auth::{Action, Allowed, InProject, PolicyVersion, ProjectRef, actions};
use crate::http::{ApiError, ErrorCode, Labels, Selector};

/// Beyond it, an image is better published.
const MAX_SHARES: i64 = 200;

/// A project to share with, and what decides for the caller there.
pub(in super::super) struct Partner {
    pub project: ProjectRef,
    pub policies: Vec<PolicyVersion>,
}

/// The project of this name or id. Says nothing about whether the caller may know of it.
pub(in super::super) async fn partner<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Partner>, ApiError> {
    let found = sqlx::query!(
        r#"SELECT p.id, p.name, p.labels AS "labels: Json<Labels>",
                  a.policies AS "policies!", a.versions AS "versions!"
           FROM projects p CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(policy_id ORDER BY policy_id), '{}') AS policies,
                      coalesce(array_agg(version ORDER BY policy_id), '{}') AS versions
               FROM attached_policies($3, p.id)) a
           WHERE p.id = $1 OR p.name = $2"#,
        selector.id(),
        selector.name(),
        allowed.principal().as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let name = found.name.parse().map_err(ApiError::internal)?;
    let policies = found.policies.into_iter().zip(found.versions);
    Ok(Some(Partner {
        project: ProjectRef { id: found.id.into(), name, labels: found.labels.0 },
        policies: policies.map(|(policy, version)| PolicyVersion { policy, version }).collect(),
    }))
}

/// Shares the image; what is shared already stays so.
pub(in super::super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ShareImage>,
    image: Uuid,
    project: ProjectId,
    now: OffsetDateTime,
) -> Result<ImageShare, ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO image_shares (image_id, project_id, created_at)
         SELECT $1, $2, $3 WHERE (SELECT count(*) FROM image_shares WHERE image_id = $1) < $4
         ON CONFLICT DO NOTHING",
        image,
        project.as_uuid(),
        now,
        MAX_SHARES
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 1 {
        touch(conn, image, now).await?;
    }
    let created_at = sqlx::query_scalar!(
        "SELECT created_at FROM image_shares WHERE image_id = $1 AND project_id = $2",
        image,
        project.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    let full = || {
        let detail = format!(
            "an image is shared with at most {MAX_SHARES} projects; withdraw a share, or ask an \
                              operator to publish the image"
        );
        ApiError::because(ErrorCode::WrongState, detail)
    };
    Ok(ImageShare { project_id: project, created_at: created_at.ok_or_else(full)? })
}

/// Withdraws a share; `None` when there is none.
pub(in super::super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UnshareImage>,
    image: Uuid,
    project: ProjectId,
    now: OffsetDateTime,
) -> Result<Option<ImageShare>, sqlx::Error> {
    let deleted = sqlx::query_scalar!(
        "DELETE FROM image_shares WHERE image_id = $1 AND project_id = $2 RETURNING created_at",
        image,
        project.as_uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    if deleted.is_some() {
        touch(conn, image, now).await?;
    }
    Ok(deleted.map(|created_at| ImageShare { project_id: project, created_at }))
}

pub(in super::super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListImageShares>,
    image: Uuid,
    after: Uuid,
    rows: i64,
) -> Result<Vec<ImageShare>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT project_id, created_at FROM image_shares
         WHERE image_id = $1 AND project_id > $2 ORDER BY project_id LIMIT $3",
        image,
        after,
        rows
    )
    .fetch_all(conn)
    .await?;
    let share = |project: Uuid, created_at| ImageShare { project_id: project.into(), created_at };
    Ok(rows.into_iter().map(|row| share(row.project_id, row.created_at)).collect())
}

async fn touch(conn: &mut PgConnection, image: Uuid, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE images SET generation = generation + 1, updated_at = $2 WHERE id = $1", image, now)
        .execute(conn)
        .await?;
    Ok(())
}
