//! SQL of the images that a project may use: its own, those that are shared with it, and public ones.

use protocol::ProjectId;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::ImageRow;
use crate::http::{Labels, Selector};

/// The image as this project sees it; `None` when it may not use it, or when there is none.
pub(in super::super) async fn find(
    conn: &mut PgConnection,
    project: Uuid,
    id: Uuid,
) -> Result<Option<ImageRow>, sqlx::Error> {
    sqlx::query_as!(
        ImageRow,
        r#"SELECT i.id, p.id AS project_id, p.name AS project_name, i.name, i.description,
                  CASE WHEN i.project_id = $1 THEN i.labels ELSE '{}' END AS "labels!: Json<Labels>",
                  image_visibility(i) AS "visibility!", i.architecture, i.firmware, i.min_disk_gib,
                  i.min_memory_mib, i.default_user, i.format, i.expected_sha256, i.blob_id,
                  i.import_state, i.failure_code, i.failure_detail, i.import_operation_id,
                  b.sha256 AS "sha256?", b.size_bytes AS "size_bytes?",
                  b.virtual_size_bytes AS "virtual_size_bytes?", i.deprecated_at,
                  r.id AS "replacement_id?", r.name AS "replacement_name?",
                  i.generation, i.created_at, i.updated_at
           FROM images i
           JOIN projects p ON p.id = i.project_id
           LEFT JOIN blobs b ON b.id = i.blob_id
           LEFT JOIN images r ON r.id = i.replacement_id AND may_use_image(r, $1)
           WHERE i.id = $2 AND may_use_image(i, $1)"#,
        project,
        id
    )
    .fetch_optional(conn)
    .await
}

/// The image that a project names in order to use it: by its own name, by an id, or as `project/image`. It stays
/// usable until the transaction ends: whoever deletes it or withdraws a share waits, and sees what was made.
///
/// Needs no proof: what may be used says `may_use_image`, and whether it may be used now is decided after it.
pub(crate) async fn hold(
    conn: &mut PgConnection,
    project: ProjectId,
    wanted: &str,
) -> Result<Option<ImageRow>, sqlx::Error> {
    let project = project.as_uuid();
    let id = match wanted.split_once('/') {
        Some((owner, image)) => match (Selector::parse(owner), Selector::parse(image)) {
            (Some(owner), Some(image)) => named(conn, project, &owner, &image).await?,
            _ => None,
        },
        None => match Selector::parse(wanted) {
            Some(Selector::Id(id)) => Some(id),
            Some(name) => named(conn, project, &Selector::Id(project), &name).await?,
            None => None,
        },
    };
    let Some(id) = id else { return Ok(None) };
    // In a statement of its own: the next one sees what was committed while this one waited.
    sqlx::query!("SELECT FROM images i WHERE id = $1 AND may_use_image(i, $2) FOR SHARE", id, project)
        .execute(&mut *conn)
        .await?;
    find(conn, project, id).await
}

async fn named(
    conn: &mut PgConnection,
    project: Uuid,
    owner: &Selector,
    image: &Selector,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT i.id FROM projects p JOIN images i ON i.project_id = p.id
         WHERE (p.id = $2 OR p.name = $3) AND (i.id = $4 OR i.name = $5) AND may_use_image(i, $1)",
        project,
        owner.id(),
        owner.name(),
        image.id(),
        image.name()
    )
    .fetch_optional(conn)
    .await
}
