//! Handlers of users.

mod passwords;
mod second_factor;
mod sessions;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::PrincipalId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{CreateUser, CreatedUser, UpdateUser, User};
use crate::app::App;
use crate::auth::oneself::is_oneself;
use crate::auth::store::FirstPassword;
use crate::auth::{self, New, actions};
use crate::http::{
    ApiError, Call, ErrorCode, FieldError, Labels, MutationQuery, Page, PageQuery, Path, reject_description,
};
use crate::policies::administrators;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_user, list_users))
        .routes(routes!(get_user, update_user, delete_user))
        .merge(passwords::router())
        .merge(second_factor::router())
        .merge(sessions::router())
}

/// Make a user, with a password or with a one-time code with which the user sets it. A password that is given here has
/// to be changed at the first sign-in, unless `password_change_required` says otherwise.
#[utoipa::path(post, path = "/v1/users", tag = "users", params(MutationQuery),
    request_body = CreateUser, responses(
        (status = 201, body = CreatedUser),
))]
async fn create_user(State(app): State<App>, mut call: Call) -> Result<Response, ApiError> {
    let mut new: CreateUser = call.json_with_secrets(&["password"])?;
    reject_description(&new.description)?;
    if new.password.is_none() && new.password_change_required.is_some() {
        let message = "only with `password`: with a one-time code the user chooses the password";
        return Err(ApiError::invalid(vec![FieldError::new(
            "/password_change_required",
            "invalid",
            message,
        )]));
    }
    let change_required = new.password_change_required.unwrap_or(true);
    // Hashing takes a while: nobody has it done who may not make users, and no transaction waits for it.
    let hash = match new.password.take() {
        Some(password) => {
            auth::passwords::check_new("/password", &password, new.name.as_str())?;
            let decided = call.changing::<actions::CreateUser>(&app, New::named(new.name.as_str())).await?;
            decided.abandon().await?;
            Some(app.passwords.hash(password).await?)
        }
        None => None,
    };
    let mut change = call.changing::<actions::CreateUser>(&app, New::named(new.name.as_str())).await?;
    let (id, now): (PrincipalId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let password = hash.as_deref().map(|hash| FirstPassword { hash, change_required });
    store::insert(conn, allowed, id, &new, password, now).await?;
    let code = match hash {
        Some(_) => None,
        None => Some(auth::store::passwords::reset(conn, id, now).await?.code),
    };
    let row = store::made(conn, allowed, id).await?.ok_or_else(ApiError::not_found)?;
    let answer = CreatedUser { user: row.clone().into_wire(), password_code: code };
    let recorded = CreatedUser { user: row.into_wire(), password_code: None };
    change.commit_secret(StatusCode::CREATED, &answer, &recorded).await
}

/// List users.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(PageQuery), responses(
    (status = 200, body = Page<User>),
))]
async fn list_users(State(app): State<App>, call: Call) -> Result<axum::Json<Page<User>>, ApiError> {
    let query = call.query::<PageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListUsers>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |user: &User| user.id.as_uuid())))
}

/// Get a user.
#[utoipa::path(get, path = "/v1/users/{user}", tag = "users", responses(
    (status = 200, body = User),
))]
async fn get_user(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetUser>(&app, &user).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a user's name or description, disable or enable them, or have them choose another password before anything
/// else. Whoever is disabled is signed out everywhere at once.
#[utoipa::path(patch, path = "/v1/users/{user}", tag = "users", params(MutationQuery),
    request_body = UpdateUser, responses(
        (status = 200, body = User),
))]
async fn update_user(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateUser = call.json()?;
    reject_description(patch.description.as_deref().unwrap_or_default())?;
    let mut change = call.changing::<actions::UpdateUser>(&app, &user).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    if patch.disabled == Some(true) && is_oneself(&change) {
        return Err(change.deny("nobody disables themselves").await);
    }
    // Otherwise an API key would do in the place of a new password.
    if row.password_change_required && patch.password_change_required == Some(false) && is_oneself(&change) {
        return Err(change.deny("change your own password instead, or ask another administrator").await);
    }
    if !row.has_password && patch.password_change_required == Some(true) {
        let detail = "the user has no password to change; their one-time code lets them choose one";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    change.note_before(&row.clone().into_wire());
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.description = patch.description.unwrap_or(row.description);
    row.disabled_at = match patch.disabled {
        Some(true) => row.disabled_at.or(Some(now)),
        Some(false) => None,
        None => row.disabled_at,
    };
    row.password_change_required = patch.password_change_required.unwrap_or(row.password_change_required);
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &Labels::new()).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    if let Some(required) = patch.password_change_required {
        auth::store::passwords::require_change(conn, row.id(), required).await?;
    }
    if row.disabled_at.is_some() {
        auth::store::end_sessions(conn, row.id(), None, now).await?;
        administrators::keep_one(conn).await?;
    }
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a user with their password, API keys, sessions, memberships and attached policies. What they did
/// stays in the audit log.
#[utoipa::path(delete, path = "/v1/users/{user}", tag = "users", params(MutationQuery), responses(
    (status = 204),
))]
async fn delete_user(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteUser>(&app, &user).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    if is_oneself(&change) {
        return Err(change.deny("nobody deletes themselves").await);
    }
    let id = row.id();
    change.note_before(&row.into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    administrators::keep_one(conn).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
