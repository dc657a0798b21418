//! SQL of users.

pub(super) mod sessions;

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreateUser, User};
use crate::auth::actions::{CreateUser as MayCreate, DeleteUser, ListUsers, UpdateUser};
use crate::auth::store::FirstPassword;
use crate::auth::{self, Action, Allowed, OfResource};
use crate::http::{ApiError, ErrorCode, Version, violated_constraint};

/// A user's row, with what hangs on it.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub generation: i64,
    pub disabled_at: Option<OffsetDateTime>,
    pub has_password: bool,
    pub password_change_required: bool,
    pub has_second_factor: bool,
    pub password_code_expires_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn id(&self) -> PrincipalId {
        self.id.into()
    }

    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> User {
        User {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            disabled: self.disabled_at.is_some(),
            has_password: self.has_password,
            password_change_required: self.password_change_required,
            has_second_factor: self.has_second_factor,
            password_code_expires_at: self.password_code_expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<MayCreate>,
    id: PrincipalId,
    new: &CreateUser,
    password: Option<FirstPassword<'_>>,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    auth::store::insert_user(conn, id, new.name.as_str(), &new.description, password, now)
        .await
        .map_err(name_taken)
}

pub(super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<ListUsers>,
    after: Uuid,
    name: Option<&str>,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    select(conn, Wanted { after: Some(after), name, ..Wanted::default() }, rows).await
}

/// The user of the proof.
pub(super) async fn find<A: Action<On: OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    let wanted = Wanted { id: allowed.selector().id(), name: allowed.selector().name(), ..Wanted::default() };
    Ok(select(conn, wanted, 1).await?.pop())
}

/// The user who has just been made.
pub(super) async fn made(
    conn: &mut PgConnection,
    _allowed: &Allowed<MayCreate>,
    id: PrincipalId,
) -> Result<Option<Row>, sqlx::Error> {
    Ok(select(conn, Wanted { id: Some(id.as_uuid()), ..Wanted::default() }, 1).await?.pop())
}

/// What is absent does not matter.
#[derive(Default)]
struct Wanted<'a> {
    id: Option<Uuid>,
    name: Option<&'a str>,
    after: Option<Uuid>,
}

async fn select(conn: &mut PgConnection, wanted: Wanted<'_>, rows: i64) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT u.id, u.name, u.description, u.generation, u.disabled_at, u.created_at, u.updated_at,
                  p.user_id IS NOT NULL AS "has_password!", coalesce(p.change_required, false) AS "password_change_required!",
                  EXISTS (SELECT FROM user_totp t WHERE t.user_id = u.id AND t.confirmed_at IS NOT NULL)
                      AS "has_second_factor!",
                  c.expires_at AS "password_code_expires_at?"
           FROM principals u LEFT JOIN user_passwords p ON p.user_id = u.id
                LEFT JOIN password_codes c ON c.user_id = u.id
           WHERE u.kind = 'user' AND ($1::uuid IS NULL OR u.id = $1) AND ($2::text IS NULL OR u.name = $2)
             AND ($3::uuid IS NULL OR u.id > $3)
           ORDER BY u.id LIMIT $4"#,
        wanted.id,
        wanted.name,
        wanted.after,
        rows
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    _allowed: &Allowed<UpdateUser>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE principals SET name = $2, description = $3, disabled_at = $4, generation = $5, updated_at = $6
         WHERE id = $1",
        row.id,
        row.name,
        row.description,
        row.disabled_at,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Deletes the user with every password, key, session, membership and attachment.
pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<DeleteUser>,
    id: PrincipalId,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM principals WHERE id = $1", id.as_uuid()).execute(conn).await?;
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("users_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a user of this name already")
        }
        _ => error.into(),
    }
}
