//! SQL of placement groups.

use protocol::PlacementGroupId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreatePlacementGroup, PlacementGroup};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};
use crate::instances::Reference;
use crate::scheduler::{Group, GroupPolicy, Rule, Scope, Strength};

/// A group's row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub policy: String,
    pub strength: String,
    pub scope: String,
    pub instances: Json<Vec<Reference>>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// A rule as its columns say it.
pub(crate) fn rule(policy: &str, strength: &str, scope: &str) -> Rule {
    Rule {
        policy: GroupPolicy::from_name(policy).unwrap_or(GroupPolicy::AntiAffinity),
        strength: Strength::from_name(strength).unwrap_or(Strength::Hard),
        scope: Scope::from_name(scope).unwrap_or(Scope::Host),
    }
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    fn rule(&self) -> Rule {
        rule(&self.policy, &self.strength, &self.scope)
    }

    pub(super) fn into_wire(self) -> PlacementGroup {
        let Rule { policy, strength, scope } = self.rule();
        PlacementGroup {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            policy,
            strength,
            scope,
            instances: self.instances.0,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreatePlacementGroup>,
    id: PlacementGroupId,
    new: &CreatePlacementGroup,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO placement_groups (id, project_id, name, description, labels, policy, strength, scope, created_at,
                                       updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
        id.as_uuid(),
        allowed.project().as_uuid(),
        new.name.as_str(),
        new.description,
        Json(&new.labels) as _,
        new.policy.as_str(),
        new.strength.as_str(),
        new.scope.as_str(),
        now
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(broken)
}

/// A group of the project.
pub(crate) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT g.id, g.name, g.description, g.labels AS "labels: Json<Labels>", g.generation, g.policy, g.strength,
                  g.scope,
                  (SELECT coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'name', i.name) ORDER BY i.id), '[]')
                   FROM instances i WHERE i.placement_group_id = g.id) AS "instances!: Json<Vec<Reference>>",
                  g.created_at, g.updated_at
           FROM placement_groups g WHERE g.project_id = $1 AND (g.id = $2 OR g.name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListPlacementGroups>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT g.id, g.name, g.description, g.labels AS "labels: Json<Labels>", g.generation, g.policy, g.strength,
                  g.scope,
                  (SELECT coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'name', i.name) ORDER BY i.id), '[]')
                   FROM instances i WHERE i.placement_group_id = g.id) AS "instances!: Json<Vec<Reference>>",
                  g.created_at, g.updated_at
           FROM placement_groups g
           WHERE g.project_id = $1 AND g.id > $2 AND ($3::text IS NULL OR g.name = $3)
             AND g.labels @> $4 AND g.labels ?& $5 AND NOT g.labels ?| $6 AND NOT g.labels @> ANY($7)
           ORDER BY g.id LIMIT $8"#,
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

pub(super) async fn update(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdatePlacementGroup>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE placement_groups SET name = $2, description = $3, labels = $4, generation = $5, updated_at = $6
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
    updated.map(drop).map_err(broken)
}

pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeletePlacementGroup>,
    id: Uuid,
) -> Result<(), ApiError> {
    let deleted = sqlx::query!("DELETE FROM placement_groups WHERE id = $1", id).execute(conn).await;
    deleted.map(drop).map_err(broken)
}

/// The group as placement sees it, without those of its instances that have no host and without this one.
pub(crate) async fn of_placement(
    conn: &mut PgConnection,
    group: Uuid,
    without: Option<Uuid>,
) -> Result<Option<Group>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT name, policy, strength, scope,
                  ARRAY(SELECT i.host_id FROM instances i
                        WHERE i.placement_group_id = g.id AND i.host_id IS NOT NULL
                          AND i.id IS DISTINCT FROM $2) AS "members!: Vec<Uuid>"
           FROM placement_groups g WHERE id = $1"#,
        group,
        without
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Group {
        id: group,
        name: row.name,
        rule: rule(&row.policy, &row.strength, &row.scope),
        members: row.members.into_iter().map(Into::into).collect(),
    }))
}

fn broken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("placement_groups_name_unique") => ApiError::because(
            ErrorCode::NameTaken,
            "there is a placement group of this name in the project already",
        ),
        Some("instances_of_a_group_of_the_project") => {
            ApiError::because(ErrorCode::InUse, "instances of this group exist; delete them first")
        }
        _ => error.into(),
    }
}
