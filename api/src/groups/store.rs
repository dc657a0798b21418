//! SQL of groups.

use protocol::GroupId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreateGroup, Group, GroupMember};
use crate::auth::actions::{
    AddGroupMember, CreateGroup as MayCreate, DeleteGroup, ListGroupMembers, ListGroups, RemoveGroupMember,
    UpdateGroup,
};
use crate::auth::{Action, Allowed, OfResource};
use crate::http::{ApiError, ErrorCode, Selector, Version, counted, violated_constraint};

/// A group's row.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Group {
        Group {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    _: &Allowed<MayCreate>,
    id: GroupId,
    new: &CreateGroup,
    now: OffsetDateTime,
) -> Result<Row, ApiError> {
    let inserted = sqlx::query_as!(
        Row,
        "INSERT INTO groups (id, name, description, generation, created_at, updated_at)
         VALUES ($1, $2, $3, 1, $4, $4)
         RETURNING id, name, description, generation, created_at, updated_at",
        id.as_uuid(),
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
    _: &Allowed<ListGroups>,
    after: Uuid,
    name: Option<&str>,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, name, description, generation, created_at, updated_at FROM groups
         WHERE id > $1 AND ($2::text IS NULL OR name = $2) ORDER BY id LIMIT $3",
        after,
        name,
        rows
    )
    .fetch_all(conn)
    .await
}

/// The group of the proof.
pub(super) async fn find<A: Action<On: OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, name, description, generation, created_at, updated_at FROM groups WHERE id = $1 OR name = $2",
        allowed.selector().id(),
        allowed.selector().name()
    )
    .fetch_optional(conn)
    .await
}

/// Stores what of the group of the proof may change.
pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<UpdateGroup>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE groups SET name = $2, description = $3, generation = $4, updated_at = $5 WHERE id = $1",
        allowed.resource_id(),
        row.name,
        row.description,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Deletes the group of the proof; its members stay. Refused while policies are attached to it, so that nobody
/// takes rights away, or a denial, without seeing it.
pub(super) async fn delete(conn: &mut PgConnection, allowed: &Allowed<DeleteGroup>) -> Result<(), ApiError> {
    let group = allowed.resource_id();
    let attached = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM policy_attachments WHERE group_id = $1"#,
        group
    )
    .fetch_one(&mut *conn)
    .await?;
    if let Some(there) = counted(&[(attached, "policy attachment")]) {
        let detail = format!("it still has {there}; detach them first");
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    sqlx::query!("DELETE FROM groups WHERE id = $1", group).execute(conn).await?;
    Ok(())
}

/// Those of the group of the proof.
pub(super) async fn members(
    conn: &mut PgConnection,
    allowed: &Allowed<ListGroupMembers>,
    after: Uuid,
    rows: i64,
) -> Result<Vec<GroupMember>, sqlx::Error> {
    sqlx::query_as!(
        GroupMember,
        "SELECT u.id AS user_id, u.name AS user_name, m.created_at AS added_at
         FROM groups g JOIN group_members m ON m.group_id = g.id JOIN principals u ON u.id = m.principal_id
         WHERE (g.id = $1 OR g.name = $2) AND u.id > $3 ORDER BY u.id LIMIT $4",
        allowed.selector().id(),
        allowed.selector().name(),
        after,
        rows
    )
    .fetch_all(conn)
    .await
}

/// Puts a user into the group of the proof. Whoever is a member already stays one since then. `None` when there
/// is no such user.
pub(super) async fn add_member(
    conn: &mut PgConnection,
    allowed: &Allowed<AddGroupMember>,
    user: &Selector,
    now: OffsetDateTime,
) -> Result<Option<GroupMember>, sqlx::Error> {
    sqlx::query_as!(
        GroupMember,
        "INSERT INTO group_members AS m (group_id, principal_id, created_at)
         SELECT $1::uuid, u.id, $4 FROM principals u WHERE u.kind = 'user' AND (u.id = $2 OR u.name = $3) FOR KEY SHARE
         ON CONFLICT (group_id, principal_id) DO UPDATE SET created_at = m.created_at
         RETURNING m.principal_id AS user_id, m.created_at AS added_at,
                   (SELECT u.name FROM principals u WHERE u.id = m.principal_id) AS \"user_name!\"",
        allowed.resource_id(),
        user.id(),
        user.name(),
        now
    )
    .fetch_optional(conn)
    .await
}

/// Takes a user out of the group of the proof. `None` when the user is no member.
pub(super) async fn remove_member(
    conn: &mut PgConnection,
    allowed: &Allowed<RemoveGroupMember>,
    user: &Selector,
) -> Result<Option<GroupMember>, sqlx::Error> {
    sqlx::query_as!(
        GroupMember,
        "DELETE FROM group_members m USING principals u
         WHERE m.group_id = $1 AND u.id = m.principal_id AND u.kind = 'user' AND (u.id = $2 OR u.name = $3)
         RETURNING u.id AS user_id, u.name AS user_name, m.created_at AS added_at",
        allowed.resource_id(),
        user.id(),
        user.name()
    )
    .fetch_optional(conn)
    .await
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("groups_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a group of this name already")
        }
        _ => error.into(),
    }
}
