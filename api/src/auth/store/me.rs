//! SQL of what a principal may know of itself.

use protocol::PrincipalId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::me::{MyGroup, MyPolicy, MyProject, Via};

/// What stands in the principal's own row.
pub(in crate::auth) struct About {
    pub description: String,
    pub project: Option<MyProject>,
    pub second_factor: bool,
}

pub(in crate::auth) async fn about(conn: &mut PgConnection, me: PrincipalId) -> Result<About, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT p.description, pr.id AS "project_id?", pr.name AS "project_name?",
                  EXISTS (SELECT FROM user_totp t WHERE t.user_id = p.id AND t.confirmed_at IS NOT NULL)
                      AS "second_factor!"
           FROM principals p LEFT JOIN projects pr ON pr.id = p.project_id WHERE p.id = $1"#,
        me.as_uuid()
    )
    .fetch_one(conn)
    .await?;
    let project = project(row.project_id, row.project_name);
    Ok(About { description: row.description, project, second_factor: row.second_factor })
}

pub(in crate::auth) async fn groups(
    conn: &mut PgConnection,
    me: PrincipalId,
) -> Result<Vec<MyGroup>, sqlx::Error> {
    sqlx::query_as!(
        MyGroup,
        "SELECT g.id, g.name FROM group_members m JOIN groups g ON g.id = m.group_id
         WHERE m.principal_id = $1 ORDER BY g.name",
        me.as_uuid()
    )
    .fetch_all(conn)
    .await
}

pub(in crate::auth) async fn policies(
    conn: &mut PgConnection,
    me: PrincipalId,
) -> Result<Vec<MyPolicy>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT o.id, o.name, pr.id AS "project_id?", pr.name AS "project_name?", g.id AS "group_id?",
                  g.name AS "group_name?", a.principal_id
           FROM policy_attachments a JOIN policies o ON o.id = a.policy_id
           LEFT JOIN projects pr ON pr.id = a.project_id LEFT JOIN groups g ON g.id = a.group_id
           WHERE a.subject_id = ANY (ARRAY[$1, '00000000-0000-0000-0000-000000000000'::uuid]
                                     || ARRAY(SELECT m.group_id FROM group_members m WHERE m.principal_id = $1))
           ORDER BY pr.name NULLS FIRST, o.name, a.id"#,
        me.as_uuid()
    )
    .fetch_all(conn)
    .await?;
    let policies = rows.into_iter().map(|row| {
        let group = row.group_id.zip(row.group_name).map(|(id, name)| MyGroup { id: id.into(), name });
        let via = match (&group, row.principal_id) {
            (Some(_), _) => Via::Group,
            (None, Some(_)) => Via::Principal,
            (None, None) => Via::Everyone,
        };
        MyPolicy {
            id: row.id,
            name: row.name,
            project: project(row.project_id, row.project_name),
            via,
            group,
        }
    });
    Ok(policies.collect())
}

fn project(id: Option<Uuid>, name: Option<String>) -> Option<MyProject> {
    id.zip(name).map(|(id, name)| MyProject { id: id.into(), name })
}
