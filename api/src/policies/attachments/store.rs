//! SQL of attachments and of those to whom policies are attached.

use protocol::{PolicyAttachmentId, ProjectId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{AttachedPolicy, PolicyAttachment, Subject, SubjectKind};
use crate::auth::{Action, Allowed};
use crate::http::{ApiError, ErrorCode, FieldError, Selector, refusal_detail, violated_constraint};
use crate::policies::either::{Attach, Detach, ListAttached};
use crate::policies::types::{Author, PolicyScope};

/// An attachment with the names of both its ends.
pub(super) struct Row {
    id: Uuid,
    pub policy_id: Uuid,
    policy_name: String,
    cloud: bool,
    managed: bool,
    principal_id: Option<Uuid>,
    principal_kind: Option<String>,
    principal_name: Option<String>,
    group_id: Option<Uuid>,
    group_name: Option<String>,
    created_at: OffsetDateTime,
    created_by: Option<Uuid>,
    author: Option<String>,
}

impl Row {
    pub(super) fn into_wire(self) -> PolicyAttachment {
        let kind = match (self.principal_kind.as_deref(), self.group_id) {
            (Some("user"), _) => SubjectKind::User,
            (Some(_), _) => SubjectKind::ServiceAccount,
            (None, Some(_)) => SubjectKind::Group,
            (None, None) => SubjectKind::Everyone,
        };
        PolicyAttachment {
            id: self.id.into(),
            policy: AttachedPolicy {
                id: self.policy_id.into(),
                name: self.policy_name,
                scope: PolicyScope::of_cloud(self.cloud),
                managed: self.managed,
            },
            subject: Subject {
                kind,
                id: self.principal_id.or(self.group_id),
                name: self.principal_name.or(self.group_name),
                home: None,
            },
            created_at: self.created_at,
            created_by: self.created_by.map(|id| Author { id: id.into(), name: self.author }),
        }
    }
}

/// What a list is narrowed to; the text of a filter is a name or an id.
#[derive(Default)]
pub(super) struct Filter {
    pub after: Uuid,
    pub user: Option<String>,
    pub group: Option<String>,
    pub service_account: Option<String>,
    pub policy: Option<String>,
    pub rows: i64,
}

/// The id of the one policy of this name, in the project or in the cloud.
///
/// # Errors
/// `validation_failed` when there is none, or one in each.
pub(super) async fn find_attachable(
    conn: &mut PgConnection,
    allowed: &Allowed<impl Attach>,
    name: &str,
) -> Result<Result<Uuid, FieldError>, sqlx::Error> {
    let Some(selector) = Selector::parse(name) else { return Ok(Err(no_policy())) };
    let found = sqlx::query_scalar!(
        "SELECT id FROM policies WHERE (project_id = $1 OR project_id IS NULL) AND (id = $2 OR name = $3)",
        allowed.project_or_cloud().map(ProjectId::as_uuid),
        selector.id(),
        selector.name()
    )
    .fetch_all(conn)
    .await?;
    Ok(match found.as_slice() {
        [] => Err(no_policy()),
        [id] => Ok(*id),
        _ => {
            let message = "the project and the cloud both have a policy of this name; say which by its id";
            Err(FieldError::new("/policy", "ambiguous", message))
        }
    })
}

/// A user, a group, or a service account; of a project only its own service accounts, and by name only there.
pub(in crate::policies) async fn find_subject(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    kind: SubjectKind,
    selector: &Selector,
) -> Result<Option<Subject>, sqlx::Error> {
    let found = sqlx::query!(
        r#"SELECT p.id AS "id!", p.name AS "name!", home.name AS "home?"
           FROM principals p LEFT JOIN projects home ON home.id = p.project_id
           WHERE p.kind = $1 AND (p.id = $2 OR p.name = $3 AND (p.kind = 'user' OR p.project_id = $4))
             AND ($4::uuid IS NULL OR p.project_id IS NULL OR p.project_id = $4)
           UNION ALL
           SELECT id, name, NULL FROM groups WHERE $1 = 'group' AND (id = $2 OR name = $3)"#,
        kind.as_str(),
        selector.id(),
        selector.name(),
        project.map(ProjectId::as_uuid)
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|row| Subject { kind, id: Some(row.id), name: Some(row.name), home: row.home }))
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<impl Attach>,
    id: PolicyAttachmentId,
    policy: Uuid,
    subject: &Subject,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let is_group = subject.kind == SubjectKind::Group;
    let inserted = sqlx::query!(
        "INSERT INTO policy_attachments (id, policy_id, principal_id, group_id, project_id, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        id.as_uuid(),
        policy,
        subject.id.filter(|_| !is_group),
        subject.id.filter(|_| is_group),
        allowed.project_or_cloud().map(ProjectId::as_uuid),
        now,
        allowed.principal().as_uuid()
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| refused(error, subject.kind))
}

fn refused(error: sqlx::Error, subject: SubjectKind) -> ApiError {
    match violated_constraint(&error) {
        Some("policy_attachments_unique") => ApiError::new(ErrorCode::AlreadyAttached),
        Some("policy_attachments_few") => {
            let limit = refusal_detail(&error).unwrap_or("too many policies are attached to it here");
            let message = format!("{limit}; detach one, or write the statements of several into one");
            ApiError::invalid(vec![FieldError::new(format!("/{}", subject.as_str()), "too_many", message)])
        }
        // Deleted between the look and the deed.
        Some("policy_attachments_policy_id_fkey") => ApiError::invalid(vec![no_policy()]),
        Some("policy_attachments_principal_id_fkey" | "policy_attachments_group_id_fkey") => {
            ApiError::invalid(vec![no_subject(subject)])
        }
        _ => error.into(),
    }
}

fn no_policy() -> FieldError {
    FieldError::new("/policy", "not_found", "neither this place nor the cloud has such a policy")
}

pub(in crate::policies) fn no_subject(kind: SubjectKind) -> FieldError {
    let message = match kind {
        SubjectKind::ServiceAccount => {
            "there is no such service account here; outside its project, use its id"
        }
        SubjectKind::Group => "there is no such group",
        SubjectKind::User | SubjectKind::Everyone => "there is no such user",
    };
    FieldError::new(format!("/{}", kind.as_str()), "not_found", message)
}

/// The attachment of this id, in the place of the proof.
pub(super) async fn find<A: Action>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    id: Uuid,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT a.id, o.id AS policy_id, o.name AS policy_name, o.project_id IS NULL AS "cloud!", o.managed,
                  a.principal_id, p.kind AS "principal_kind?", p.name AS "principal_name?",
                  a.group_id, g.name AS "group_name?", a.created_at, a.created_by, c.name AS "author?"
           FROM policy_attachments a JOIN policies o ON o.id = a.policy_id
           LEFT JOIN principals p ON p.id = a.principal_id LEFT JOIN groups g ON g.id = a.group_id
           LEFT JOIN principals c ON c.id = a.created_by
           WHERE a.id = $1 AND a.project_id IS NOT DISTINCT FROM $2"#,
        id,
        allowed.project_or_cloud().map(ProjectId::as_uuid)
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<impl ListAttached>,
    filter: &Filter,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT a.id, o.id AS policy_id, o.name AS policy_name, o.project_id IS NULL AS "cloud!", o.managed,
                  a.principal_id, p.kind AS "principal_kind?", p.name AS "principal_name?",
                  a.group_id, g.name AS "group_name?", a.created_at, a.created_by, c.name AS "author?"
           FROM policy_attachments a JOIN policies o ON o.id = a.policy_id
           LEFT JOIN principals p ON p.id = a.principal_id LEFT JOIN groups g ON g.id = a.group_id
           LEFT JOIN principals c ON c.id = a.created_by
           WHERE a.id > $1 AND a.project_id IS NOT DISTINCT FROM $2
             AND ($3::text IS NULL OR p.kind = 'user' AND $3 IN (p.id::text, p.name))
             AND ($4::text IS NULL OR $4 IN (g.id::text, g.name))
             AND ($5::text IS NULL OR p.kind = 'service_account' AND $5 IN (p.id::text, p.name))
             AND ($6::text IS NULL OR $6 IN (o.id::text, o.name))
           ORDER BY a.id LIMIT $7"#,
        filter.after,
        allowed.project_or_cloud().map(ProjectId::as_uuid),
        filter.user,
        filter.group,
        filter.service_account,
        filter.policy,
        filter.rows
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn delete(
    conn: &mut PgConnection,
    allowed: &Allowed<impl Detach>,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM policy_attachments WHERE id = $1 AND project_id IS NOT DISTINCT FROM $2",
        id,
        allowed.project_or_cloud().map(ProjectId::as_uuid)
    )
    .execute(conn)
    .await?;
    Ok(())
}
