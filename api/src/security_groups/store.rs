//! SQL of security groups.

pub(crate) mod defaults;
pub(crate) mod hosts;
pub(super) mod rules;

use protocol::SecurityGroupId;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use self::rules::RuleRow;
use super::types::{CreateSecurityGroup, SecurityGroup};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};

/// A security group's row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub is_default: bool,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    /// The group with its rules, out of rules of several groups.
    pub(super) fn into_wire(self, rules: &[RuleRow]) -> Result<SecurityGroup, ApiError> {
        let own = rules.iter().filter(|rule| rule.security_group_id == self.id);
        Ok(SecurityGroup {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            is_default: self.is_default,
            rules: own.map(RuleRow::to_wire).collect::<Result<_, _>>()?,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateSecurityGroup>,
    id: SecurityGroupId,
    new: &CreateSecurityGroup,
    now: OffsetDateTime,
) -> Result<Row, ApiError> {
    let inserted = sqlx::query_as!(
        Row,
        r#"INSERT INTO security_groups (id, project_id, name, description, labels, created_at, updated_at)
           VALUES ($1, $2, $3, $4, $5, $6, $6)
           RETURNING id, name, description, labels AS "labels: Json<Labels>", is_default, generation,
                     created_at, updated_at"#,
        id.as_uuid(),
        allowed.project().as_uuid(),
        new.name.as_str(),
        new.description,
        Json(&new.labels) as _,
        now
    )
    .fetch_one(conn)
    .await;
    inserted.map_err(name_taken)
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListSecurityGroups>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, labels AS "labels: Json<Labels>", is_default, generation,
                  created_at, updated_at
           FROM security_groups
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
        r#"SELECT id, name, description, labels AS "labels: Json<Labels>", is_default, generation,
                  created_at, updated_at
           FROM security_groups WHERE project_id = $1 AND (id = $2 OR name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// Writes what a patch or a change of rules has made of the row.
pub(super) async fn update<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE security_groups SET name = $3, description = $4, labels = $5, generation = $6, updated_at = $7
         WHERE project_id = $1 AND id = $2",
        allowed.project().as_uuid(),
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

/// Deletes the group with its rules; refused while ports are in it or rules of other groups name it.
pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeleteSecurityGroup>,
    group: Uuid,
) -> Result<(), ApiError> {
    // Until now rules of other groups could be made that name it.
    sqlx::query!("SELECT FROM security_groups WHERE id = $1 FOR UPDATE", group).execute(&mut *conn).await?;
    let used = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM port_security_groups WHERE security_group_id = $1) AS "ports!",
                  (SELECT string_agg(name, ', ' ORDER BY name) FROM (
                       SELECT p.name FROM port_security_groups m JOIN ports p ON p.id = m.port_id
                       WHERE m.security_group_id = $1 ORDER BY p.name LIMIT 5) shown) AS port_names,
                  (SELECT string_agg(DISTINCT g.name, ', ') FROM security_group_rules r
                   JOIN security_groups g ON g.id = r.security_group_id
                   WHERE r.remote_group_id = $1 AND g.id <> $1) AS groups"#,
        group
    )
    .fetch_one(&mut *conn)
    .await?;
    let mut uses = Vec::new();
    if let Some(names) = used.port_names {
        uses.push(format!(
            "{} ports are in it ({names}{})",
            used.ports,
            if used.ports > 5 { ", …" } else { "" }
        ));
    }
    if let Some(groups) = used.groups {
        uses.push(format!("rules of other groups name it ({groups})"));
    }
    if !uses.is_empty() {
        let detail = format!("{}; change those first", uses.join(" and "));
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    sqlx::query!("DELETE FROM security_group_rules WHERE security_group_id = $1", group)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM security_groups WHERE id = $1", group).execute(conn).await?;
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("security_groups_name_unique") => ApiError::because(
            ErrorCode::NameTaken,
            "there is a security group of this name in the project already",
        ),
        _ => error.into(),
    }
}
