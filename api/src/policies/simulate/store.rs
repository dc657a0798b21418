//! SQL of simulations: whose policies are to be evaluated.

use protocol::ProjectId;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::auth::{PolicyVersion, ProjectRef};
use crate::http::{ApiError, Labels, Selector};
use crate::policies::attachments::{Subject, SubjectKind};

/// How many principals are looked at in one go.
pub(super) const BATCH: i64 = 500;

/// An enabled principal with the policies that decide for it.
pub(super) struct Holder {
    pub id: Uuid,
    pub kind: String,
    pub name: String,
    /// The name of a service account's project.
    pub home: Option<String>,
    pub policies: Vec<Uuid>,
    pub versions: Vec<i32>,
}

impl Holder {
    pub(super) fn subject(&self) -> Subject {
        let kind = if self.kind == "user" { SubjectKind::User } else { SubjectKind::ServiceAccount };
        Subject { kind, id: Some(self.id), name: Some(self.name.clone()), home: self.home.clone() }
    }

    pub(super) fn versions(&self) -> Vec<PolicyVersion> {
        let pairs = self.policies.iter().zip(&self.versions);
        pairs.map(|(&policy, &version)| PolicyVersion { policy, version }).collect()
    }
}

pub(super) async fn project(
    conn: &mut PgConnection,
    selector: &Selector,
) -> Result<Option<ProjectRef>, ApiError> {
    let row = sqlx::query!(
        r#"SELECT id, name, labels AS "labels: Json<Labels>" FROM projects WHERE id = $1 OR name = $2"#,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await?;
    let wire = row.map(|row| {
        let name = row.name.parse().map_err(ApiError::internal)?;
        Ok(ProjectRef { id: row.id.into(), name, labels: row.labels.0 })
    });
    wire.transpose()
}

/// The policies that decide for a principal, or for the members of a group, in a project or in the cloud.
pub(super) async fn attached(
    conn: &mut PgConnection,
    subject: Uuid,
    project: Option<ProjectId>,
) -> Result<Vec<PolicyVersion>, sqlx::Error> {
    sqlx::query_as!(
        PolicyVersion,
        r#"SELECT policy_id AS "policy!", version AS "version!" FROM attached_policies($1, $2) ORDER BY policy_id"#,
        subject,
        project.map(ProjectId::as_uuid)
    )
    .fetch_all(conn)
    .await
}

/// Whether this is a principal that is disabled.
pub(super) async fn disabled(conn: &mut PgConnection, subject: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM principals WHERE id = $1 AND disabled_at IS NOT NULL) AS "disabled!""#,
        subject
    )
    .fetch_one(conn)
    .await
}

/// Enabled principals for whom at least one policy decides, in the order of their ids, from `after` on.
pub(super) async fn holders(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    after: Uuid,
) -> Result<Vec<Holder>, sqlx::Error> {
    sqlx::query_as!(
        Holder,
        r#"SELECT p.id, p.kind, p.name, home.name AS "home?", array_agg(a.policy_id ORDER BY a.policy_id) AS "policies!",
                  array_agg(a.version ORDER BY a.policy_id) AS "versions!"
           FROM principals p CROSS JOIN LATERAL attached_policies(p.id, $1) a
           LEFT JOIN projects home ON home.id = p.project_id
           WHERE p.disabled_at IS NULL AND p.id > $2
           GROUP BY p.id, home.name ORDER BY p.id LIMIT $3"#,
        project.map(ProjectId::as_uuid),
        after,
        BATCH
    )
    .fetch_all(conn)
    .await
}
