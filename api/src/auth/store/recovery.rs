//! SQL of the way back in.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Finds a user by name and enables them.
pub(in crate::auth) async fn enable_user(
    conn: &mut PgConnection,
    name: &str,
    now: OffsetDateTime,
) -> Result<Option<PrincipalId>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "UPDATE principals SET disabled_at = NULL, generation = generation + 1, updated_at = $2
         WHERE kind = 'user' AND name = $1 RETURNING id",
        name,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(PrincipalId::from))
}

/// Detaches these policies of the cloud wherever they decide for the user in the whole cloud, and says which it
/// were.
pub(in crate::auth) async fn detach(
    conn: &mut PgConnection,
    user: PrincipalId,
    names: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "DELETE FROM policy_attachments a USING policies o
         WHERE o.id = a.policy_id AND o.project_id IS NULL AND o.name = ANY($2) AND a.project_id IS NULL
           AND a.subject_id = ANY (ARRAY[$1, '00000000-0000-0000-0000-000000000000'::uuid]
                                   || ARRAY(SELECT m.group_id FROM group_members m WHERE m.principal_id = $1))
         RETURNING o.name",
        user.as_uuid(),
        names
    )
    .fetch_all(conn)
    .await
}

/// The policies that decide for the user in the whole cloud.
pub(in crate::auth) async fn policies_of(
    conn: &mut PgConnection,
    user: PrincipalId,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT o.name FROM attached_policies($1, NULL) a JOIN policies o ON o.id = a.policy_id ORDER BY o.name",
        user.as_uuid()
    )
    .fetch_all(conn)
    .await
}
