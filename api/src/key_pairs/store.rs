//! SQL of key pairs.

use protocol::KeyPairId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::Public;
use super::types::{CreateKeyPair, KeyPair};
use crate::auth::actions::{CreateKeyPair as MayCreate, DeleteKeyPair, ListKeyPairs, UpdateKeyPair};
use crate::auth::{Action, Allowed, InProject};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};

/// A key pair's row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub algorithm: String,
    pub public_key: String,
    pub fingerprint: String,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> KeyPair {
        KeyPair {
            id: self.id.into(),
            name: self.name,
            labels: self.labels.0,
            algorithm: self.algorithm,
            public_key: self.public_key,
            fingerprint: self.fingerprint,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<MayCreate>,
    id: KeyPairId,
    new: &CreateKeyPair,
    key: &Public,
    now: OffsetDateTime,
) -> Result<Row, ApiError> {
    let inserted = sqlx::query_as!(
        Row,
        r#"INSERT INTO key_pairs (id, project_id, name, labels, algorithm, public_key, fingerprint, created_at, updated_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
           RETURNING id, name, labels AS "labels: Json<Labels>", generation, algorithm, public_key, fingerprint,
                     created_at, updated_at"#,
        id.as_uuid(),
        allowed.project().as_uuid(),
        new.name.as_str(),
        Json(&new.labels) as _,
        key.algorithm,
        key.line,
        key.fingerprint,
        now
    )
    .fetch_one(conn)
    .await;
    inserted.map_err(name_taken)
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<ListKeyPairs>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, labels AS "labels: Json<Labels>", generation, algorithm, public_key, fingerprint,
                  created_at, updated_at
           FROM key_pairs
           WHERE project_id = $1 AND id > $2 AND ($3::text IS NULL OR name = $3)
             AND labels @> $4 AND labels ?& $5 AND NOT labels ?| $6 AND NOT labels @> ANY($7)
           ORDER BY id LIMIT $8"#,
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

pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, labels AS "labels: Json<Labels>", generation, algorithm, public_key, fingerprint,
                  created_at, updated_at
           FROM key_pairs WHERE project_id = $1 AND (id = $2 OR name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<UpdateKeyPair>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE key_pairs SET name = $3, labels = $4, generation = $5, updated_at = $6
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        Json(&row.labels.0) as _,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

pub(super) async fn delete(
    conn: &mut PgConnection,
    allowed: &Allowed<DeleteKeyPair>,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM key_pairs WHERE id = $1 AND project_id = $2", id, allowed.project().as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("key_pairs_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a key pair of this name in the project already")
        }
        _ => error.into(),
    }
}
