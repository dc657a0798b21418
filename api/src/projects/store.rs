//! SQL of projects.

use protocol::ProjectId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreateProject, Project};
use crate::auth::actions::{CreateProject as MayCreate, ListProjects};
use crate::auth::{Action, Allowed, InProject};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Version, violated_constraint};

/// A project's row.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Project {
        Project {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<MayCreate>,
    id: ProjectId,
    new: CreateProject,
    now: OffsetDateTime,
) -> Result<Row, ApiError> {
    let inserted = sqlx::query_as!(
        Row,
        r#"INSERT INTO projects (id, name, description, labels, generation, created_at, updated_at)
           VALUES ($1, $2, $3, $4, 1, $5, $5)
           RETURNING id, name, description, labels AS "labels: Json<Labels>", generation, created_at, updated_at"#,
        id.as_uuid(),
        new.name.as_str(),
        new.description,
        Json(&new.labels) as _,
        now
    )
    .fetch_one(conn)
    .await;
    inserted.map_err(name_taken)
}

/// Those that the caller is a member of, or all for whoever may see all.
pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<ListProjects>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, labels AS "labels: Json<Labels>", generation, created_at, updated_at
           FROM projects
           WHERE id > $1 AND ($2::text IS NULL OR name = $2)
             AND labels @> $3 AND labels ?& $4 AND NOT labels ?| $5
             AND NOT labels @> ANY($6)
             AND ($8 OR EXISTS (SELECT FROM attached_policies($9, projects.id) a WHERE a.in_project))
           ORDER BY id LIMIT $7"#,
        after,
        name,
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        rows,
        allowed.sees_all_projects(),
        allowed.principal().as_uuid()
    )
    .fetch_all(conn)
    .await
}

/// The project of the proof, locked until the transaction ends.
pub(super) async fn lock<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query!("SELECT FROM projects WHERE id = $1 FOR UPDATE", allowed.project().as_uuid())
        .execute(&mut *conn)
        .await?;
    find(conn, allowed).await
}

/// The project of the proof.
pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, labels AS "labels: Json<Labels>", generation, created_at, updated_at
           FROM projects WHERE id = $1"#,
        allowed.project().as_uuid()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn update(conn: &mut PgConnection, row: &Row) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE projects SET name = $2, description = $3, labels = $4, generation = $5, updated_at = $6
         WHERE id = $1",
        row.id,
        row.name,
        row.description,
        Json(&row.labels.0) as _,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Deletes the project with the record of its operations and with what of its networks holds nothing; refused
/// while it owns anything else.
pub(super) async fn delete(conn: &mut PgConnection, id: Uuid) -> Result<(), ApiError> {
    let owned = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM instances WHERE project_id = $1) AS "instances!",
                  (SELECT count(*) FROM images WHERE project_id = $1) AS "images!",
                  (SELECT count(*) FROM principals WHERE project_id = $1) AS "service_accounts!",
                  (SELECT count(*) FROM ports WHERE project_id = $1) AS "ports!",
                  (SELECT count(*) FROM floating_ips WHERE project_id = $1) AS "floating_ips!""#,
        id
    )
    .fetch_one(&mut *conn)
    .await?;
    let counts = [owned.instances, owned.images, owned.service_accounts, owned.ports, owned.floating_ips];
    if counts.iter().sum::<i64>() > 0 {
        let [instances, images, service_accounts, ports, floating_ips] = counts;
        let detail = format!(
            "it still owns {instances} instances, {images} images, {service_accounts} service accounts, {ports} \
             ports and {floating_ips} floating IPs; delete them first"
        );
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    sqlx::query!("SELECT delete_project_networks($1)", id).execute(&mut *conn).await?;
    sqlx::query!("DELETE FROM operations WHERE project_id = $1", id).execute(&mut *conn).await?;
    sqlx::query!("DELETE FROM projects WHERE id = $1", id).execute(conn).await?;
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("projects_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a project of this name already")
        }
        _ => error.into(),
    }
}
