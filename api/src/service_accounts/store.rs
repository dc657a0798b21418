//! SQL of service accounts.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreateServiceAccount, ServiceAccount};
use crate::auth::actions::{
    CreateServiceAccount as MayCreate, DeleteServiceAccount, ListServiceAccounts, UpdateServiceAccount,
};
use crate::auth::{Action, Allowed, InProject, OfResource};
use crate::http::{ApiError, ErrorCode, Version, violated_constraint};

/// A service account's row.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub generation: i64,
    pub disabled_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> ServiceAccount {
        ServiceAccount {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            disabled: self.disabled_at.is_some(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<MayCreate>,
    id: PrincipalId,
    new: &CreateServiceAccount,
    now: OffsetDateTime,
) -> Result<Row, ApiError> {
    let inserted = sqlx::query_as!(
        Row,
        "INSERT INTO principals (id, kind, project_id, name, description, generation, created_at, updated_at)
         VALUES ($1, 'service_account', $2, $3, $4, 1, $5, $5)
         RETURNING id, name, description, generation, disabled_at, created_at, updated_at",
        id.as_uuid(),
        allowed.project().as_uuid(),
        new.name.as_str(),
        new.description,
        now
    )
    .fetch_one(conn)
    .await;
    inserted.map_err(name_taken)
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<ListServiceAccounts>,
    after: Uuid,
    name: Option<&str>,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, name, description, generation, disabled_at, created_at, updated_at FROM principals
         WHERE kind = 'service_account' AND project_id = $1 AND id > $2 AND ($3::text IS NULL OR name = $3)
         ORDER BY id LIMIT $4",
        allowed.project().as_uuid(),
        after,
        name,
        rows
    )
    .fetch_all(conn)
    .await
}

/// The service account of the proof.
pub(super) async fn find<A: Action<On: OfResource + InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, name, description, generation, disabled_at, created_at, updated_at FROM principals
         WHERE kind = 'service_account' AND project_id = $1 AND (id = $2 OR name = $3)",
        allowed.project().as_uuid(),
        allowed.selector().id(),
        allowed.selector().name()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<UpdateServiceAccount>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE principals SET name = $3, description = $4, disabled_at = $5, generation = $6, updated_at = $7
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        row.description,
        row.disabled_at,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Deletes the service account with its keys and attached policies.
pub(super) async fn delete(
    conn: &mut PgConnection,
    allowed: &Allowed<DeleteServiceAccount>,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM principals WHERE id = $1 AND project_id = $2", id, allowed.project().as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("service_accounts_name_unique") => ApiError::because(
            ErrorCode::NameTaken,
            "there is a service account of this name in the project already",
        ),
        _ => error.into(),
    }
}
