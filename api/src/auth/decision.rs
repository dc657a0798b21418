//! The decision: does this session live, does the scope exist, may its user do this here.

use protocol::{Name, UserId};
use sqlx::PgConnection;

use super::action::{Action, Allowed, InProject, Scope};
use super::tokens::Claims;
use crate::app::App;
use crate::http::{ApiError, ErrorCode, Selector};

/// What one round trip tells of a caller and the project that the request names.
struct Facts {
    user: UserId,
    administrator: bool,
    project: Option<InProject>,
}

/// Decides, on the same connection on which the action will happen.
///
/// # Errors
/// `invalid_token` when the session has ended; `not_found` when the project does not exist, or when the
/// caller may not know of it; `forbidden` when no policy allows a cloud-wide action.
pub async fn authorize<A: Action>(
    conn: &mut PgConnection,
    app: &App,
    claims: &Claims,
    key: <A::Scope as Scope>::Key<'_>,
) -> Result<Allowed<A>, ApiError> {
    let segment: Option<&str> = key.into();
    let facts = facts(conn, claims, segment, app.clock.now()).await?;
    if !facts.administrator {
        // A stranger learns nothing: what may not be seen does not exist.
        return Err(match segment {
            Some(_) => ApiError::not_found(),
            None => ApiError::because(ErrorCode::Forbidden, format!("no policy allows {}", A::NAME)),
        });
    }
    let scope = A::Scope::found(facts.project).ok_or_else(ApiError::not_found)?;
    Ok(Allowed::new(facts.user, scope))
}

async fn facts(
    conn: &mut PgConnection,
    claims: &Claims,
    segment: Option<&str>,
    now: time::OffsetDateTime,
) -> Result<Facts, ApiError> {
    let selector = segment.and_then(Selector::parse);
    let row = sqlx::query!(
        r#"SELECT u.administrator, p.id AS "project_id?", p.name AS "project_name?"
           FROM sessions s
           JOIN users u ON u.id = s.user_id
           LEFT JOIN projects p ON p.id = $3 OR p.name = $4
           WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > $5"#,
        claims.session_id,
        claims.user_id.as_uuid(),
        selector.as_ref().and_then(Selector::id),
        selector.as_ref().and_then(Selector::name),
        now
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| ApiError::because(ErrorCode::InvalidToken, "the session has ended; sign in again"))?;
    let project = row.project_id.zip(row.project_name).map(|(id, name)| {
        let name: Name = name.parse().map_err(ApiError::internal)?;
        Ok::<_, ApiError>(InProject { id: id.into(), name })
    });
    Ok(Facts { user: claims.user_id, administrator: row.administrator, project: project.transpose()? })
}
