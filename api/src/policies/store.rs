//! SQL of policies and their versions.

use protocol::{PolicyId, PrincipalId};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::document::PolicyDocument;
use super::either::{Create, Delete, List, Update};
use super::types::{Author, NewPolicy, Policy, PolicyScope, PolicyVersion};
use crate::auth::{Action, Allowed, OfResource};
use crate::http::{ApiError, ErrorCode, Version, violated_constraint};

/// How many versions of a policy are kept.
const MAX_VERSIONS: i64 = 50;

/// A policy's row, with the document that counts.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub project_id: Option<Uuid>,
    pub name: String,
    pub description: String,
    pub managed: bool,
    pub default_version: i32,
    pub document: Value,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Policy {
        Policy {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            scope: PolicyScope::of_cloud(self.project_id.is_none()),
            managed: self.managed,
            default_version: self.default_version,
            document: PolicyDocument(self.document),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<impl Create>,
    id: PolicyId,
    new: &NewPolicy,
    now: OffsetDateTime,
) -> Result<Row, ApiError> {
    let project_id = allowed.project_or_cloud().map(protocol::ProjectId::as_uuid);
    let inserted = sqlx::query!(
        "INSERT INTO policies (id, project_id, name, description, managed, default_version, generation,
                               created_at, updated_at)
         VALUES ($1, $2, $3, $4, false, 1, 1, $5, $5)",
        id.as_uuid(),
        project_id,
        new.name.as_str(),
        new.description,
        now
    )
    .execute(&mut *conn)
    .await;
    inserted.map_err(name_taken)?;
    insert_version(conn, id.as_uuid(), 1, &new.document, Some(allowed.principal()), now).await?;
    Ok(Row {
        id: id.as_uuid(),
        project_id,
        name: new.name.as_str().to_owned(),
        description: new.description.clone(),
        managed: false,
        default_version: 1,
        document: new.document.clone(),
        generation: 1,
        created_at: now,
        updated_at: now,
    })
}

/// Those of the place; in a project also those of the cloud, which can be attached there.
pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<impl List>,
    after: Uuid,
    name: Option<&str>,
    scope: Option<PolicyScope>,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT o.id, o.project_id, o.name, o.description, o.managed, o.default_version, v.document, o.generation,
                o.created_at, o.updated_at
         FROM policies o JOIN policy_versions v ON (v.policy_id, v.version) = (o.id, o.default_version)
         WHERE o.id > $1 AND (o.project_id = $2 OR o.project_id IS NULL) AND ($3::text IS NULL OR o.name = $3)
           AND ($4::boolean IS NULL OR (o.project_id IS NULL) = $4)
         ORDER BY o.id LIMIT $5",
        after,
        allowed.project_or_cloud().map(protocol::ProjectId::as_uuid),
        name,
        scope.map(|scope| scope == PolicyScope::Cloud),
        rows
    )
    .fetch_all(conn)
    .await
}

/// The policy of the proof. Before a change it is locked already: deciding did that.
pub(super) async fn find<A: Action<On: OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    let selector = allowed.selector();
    sqlx::query_as!(
        Row,
        "SELECT o.id, o.project_id, o.name, o.description, o.managed, o.default_version, v.document, o.generation,
                o.created_at, o.updated_at
         FROM policies o JOIN policy_versions v ON (v.policy_id, v.version) = (o.id, o.default_version)
         WHERE (o.project_id = $1 OR o.project_id IS NULL) AND (o.id = $2 OR o.name = $3)
         ORDER BY o.project_id NULLS LAST LIMIT 1",
        allowed.project_or_cloud().map(protocol::ProjectId::as_uuid),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// Stores what of a policy may change. Not of a managed one, and only where it belongs.
pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<impl Update>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE policies SET name = $3, description = $4, default_version = $5, generation = $6, updated_at = $7
         WHERE id = $1 AND project_id IS NOT DISTINCT FROM $2 AND NOT managed",
        row.id,
        allowed.project_or_cloud().map(protocol::ProjectId::as_uuid),
        row.name,
        row.description,
        row.default_version,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    match updated.map_err(name_taken)?.rows_affected() {
        1 => Ok(()),
        _ => Err(ApiError::not_found()),
    }
}

/// Writes the next version and drops the oldest ones beyond those that are kept. The policy has to be locked.
pub(super) async fn add_version(
    conn: &mut PgConnection,
    allowed: &Allowed<impl Update>,
    policy: Uuid,
    document: &Value,
    now: OffsetDateTime,
) -> Result<i32, sqlx::Error> {
    let newest = sqlx::query_scalar!(
        r#"SELECT max(version) AS "newest!" FROM policy_versions WHERE policy_id = $1"#,
        policy
    )
    .fetch_one(&mut *conn)
    .await?;
    insert_version(conn, policy, newest + 1, document, Some(allowed.principal()), now).await?;
    sqlx::query!(
        "DELETE FROM policy_versions WHERE policy_id = $1 AND version NOT IN
             (SELECT version FROM policy_versions WHERE policy_id = $1 ORDER BY version DESC LIMIT $2)",
        policy,
        MAX_VERSIONS
    )
    .execute(conn)
    .await?;
    Ok(newest + 1)
}

pub(super) async fn insert_version(
    conn: &mut PgConnection,
    policy: Uuid,
    version: i32,
    document: &Value,
    author: Option<PrincipalId>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO policy_versions (policy_id, version, document, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5)",
        policy,
        version,
        document,
        now,
        author.map(PrincipalId::as_uuid)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The document of one version.
pub(super) async fn document(
    conn: &mut PgConnection,
    policy: Uuid,
    version: i32,
) -> Result<Option<Value>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT document FROM policy_versions WHERE policy_id = $1 AND version = $2",
        policy,
        version
    )
    .fetch_optional(conn)
    .await
}

/// Newest first.
pub(super) async fn versions(
    conn: &mut PgConnection,
    policy: &Row,
) -> Result<Vec<PolicyVersion>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT v.version, v.document, v.created_at, v.created_by, p.name AS "author?"
           FROM policy_versions v LEFT JOIN principals p ON p.id = v.created_by
           WHERE v.policy_id = $1 ORDER BY v.version DESC"#,
        policy.id
    )
    .fetch_all(conn)
    .await?;
    let wire = rows.into_iter().map(|row| PolicyVersion {
        version: row.version,
        is_default: row.version == policy.default_version,
        document: PolicyDocument(row.document),
        created_at: row.created_at,
        created_by: row.created_by.map(|id| Author { id: id.into(), name: row.author }),
    });
    Ok(wire.collect())
}

/// Deletes a policy that is attached to nobody. It has to be locked, so that nobody attaches it meanwhile.
pub(super) async fn delete(
    conn: &mut PgConnection,
    allowed: &Allowed<impl Delete>,
    id: Uuid,
) -> Result<(), ApiError> {
    let attached = sqlx::query_scalar!(
        r#"SELECT count(*) AS "attached!" FROM policy_attachments WHERE policy_id = $1"#,
        id
    )
    .fetch_one(&mut *conn)
    .await?;
    if attached > 0 {
        let times = if attached == 1 { "once".to_owned() } else { format!("{attached} times") };
        return Err(ApiError::because(ErrorCode::InUse, format!("it is attached {times}; detach it first")));
    }
    let deleted = sqlx::query!(
        "DELETE FROM policies WHERE id = $1 AND project_id IS NOT DISTINCT FROM $2 AND NOT managed",
        id,
        allowed.project_or_cloud().map(protocol::ProjectId::as_uuid)
    )
    .execute(conn)
    .await?;
    match deleted.rows_affected() {
        1 => Ok(()),
        _ => Err(ApiError::not_found()),
    }
}

/// Refuses a policy of a project the name of one of the cloud, for which it would be taken.
pub(super) async fn refuse_name_of_cloud<A: Action>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    name: &str,
) -> Result<(), ApiError> {
    let taken = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM policies WHERE project_id IS NULL AND name = $1) AS "taken!""#,
        name
    )
    .fetch_one(conn)
    .await?;
    if taken && allowed.project_or_cloud().is_some() {
        let why = "a policy of the cloud, which can be attached here as well, has this name";
        return Err(ApiError::because(ErrorCode::NameTaken, why));
    }
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("policies_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a policy of this name already")
        }
        _ => error.into(),
    }
}
