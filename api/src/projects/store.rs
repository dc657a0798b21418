//! SQL of projects.

use protocol::ProjectId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreateProject, Project};
use crate::auth::actions::{CreateProject as MayCreate, ListProjects};
use crate::auth::{Action, Allowed, InProject, PolicyVersion, ProjectRef};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Version, counted, violated_constraint};

/// How many projects are looked at in one go.
pub(super) const BATCH: i64 = 200;

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

    /// As decisions see it.
    pub(super) fn reference(&self) -> Result<ProjectRef, ApiError> {
        let name = self.name.parse().map_err(ApiError::internal)?;
        Ok(ProjectRef { id: self.id.into(), name, labels: self.labels.0.clone() })
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

/// A project that may be listed if the caller may get it.
pub(super) struct Candidate {
    pub row: Row,
    /// Those that decide for the caller in this project.
    pub policies: Vec<PolicyVersion>,
}

/// Those in which a policy is attached to the caller, or, with `anywhere`, all; in the order of their ids.
pub(super) async fn candidates(
    conn: &mut PgConnection,
    allowed: &Allowed<ListProjects>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    anywhere: bool,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let found = sqlx::query!(
        r#"SELECT id, name, description, labels AS "labels: Json<Labels>", generation, created_at, updated_at,
                  a.policies AS "policies!", a.versions AS "versions!"
           FROM projects CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(policy_id ORDER BY policy_id), '{}') AS policies,
                      coalesce(array_agg(version ORDER BY policy_id), '{}') AS versions,
                      coalesce(bool_or(in_project), false) AS member
               FROM attached_policies($9, projects.id)) a
           WHERE id > $1 AND ($2::text IS NULL OR name = $2)
             AND labels @> $3 AND labels ?& $4 AND NOT labels ?| $5
             AND NOT labels @> ANY($6)
             AND ($8 OR a.member)
           ORDER BY id LIMIT $7"#,
        after,
        name,
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        BATCH,
        anywhere,
        allowed.principal().as_uuid()
    )
    .fetch_all(conn)
    .await?;
    let candidates = found.into_iter().map(|found| Candidate {
        row: Row {
            id: found.id,
            name: found.name,
            description: found.description,
            labels: found.labels,
            generation: found.generation,
            created_at: found.created_at,
            updated_at: found.updated_at,
        },
        policies: found
            .policies
            .into_iter()
            .zip(found.versions)
            .map(|(policy, version)| PolicyVersion { policy, version })
            .collect(),
    });
    Ok(candidates.collect())
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
                  (SELECT count(*) FROM volumes WHERE project_id = $1) AS "volumes!",
                  (SELECT count(*) FROM snapshots WHERE project_id = $1) AS "snapshots!",
                  (SELECT count(*) FROM images WHERE project_id = $1) AS "images!",
                  (SELECT count(*) FROM principals WHERE project_id = $1) AS "service_accounts!",
                  (SELECT count(*) FROM ports WHERE project_id = $1) AS "ports!",
                  (SELECT count(*) FROM floating_ips WHERE project_id = $1) AS "floating_ips!""#,
        id
    )
    .fetch_one(&mut *conn)
    .await?;
    let owned = [
        (owned.instances, "instance"),
        (owned.volumes, "volume"),
        (owned.snapshots, "snapshot"),
        (owned.images, "image"),
        (owned.service_accounts, "service account"),
        (owned.ports, "port"),
        (owned.floating_ips, "floating IP"),
    ];
    if let Some(owned) = counted(&owned) {
        let detail = format!("it still owns {owned}; delete what it owns first");
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    sqlx::query!("SELECT delete_project_networks($1)", id).execute(&mut *conn).await?;
    sqlx::query!("DELETE FROM placement_groups WHERE project_id = $1", id).execute(&mut *conn).await?;
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
