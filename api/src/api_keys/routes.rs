//! Handlers of API keys: the same three for service accounts and for users.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::ApiKeyId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::model::{self, NewApiKey};
use super::store;
use super::types::{ApiKey, CreateApiKey, CreatedApiKey};
use crate::app::App;
use crate::auth::oneself::{is_oneself, require_oneself, session_of};
use crate::auth::{Action, NewSecret, OfResource, Place, PrincipalKind, actions};
use crate::http::{ApiError, Call, Mutation, MutationQuery, Page, Path, PlainQuery};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_api_key, list_api_keys))
        .routes(routes!(revoke_api_key))
        .routes(routes!(create_user_api_key, list_user_api_keys))
        .routes(routes!(revoke_user_api_key))
}

/// Make a key for a service account. A key of the same service account cannot do this.
#[utoipa::path(post, path = "/v1/projects/{project}/service_accounts/{service_account}/api_keys",
    tag = "api_keys", params(MutationQuery), request_body = CreateApiKey, responses(
        (status = 201, body = CreatedApiKey),
))]
async fn create_api_key(
    State(app): State<App>,
    Path((project, account)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let new = model::check(call.json()?, PrincipalKind::ServiceAccount, app.clock.now())?;
    let change = call.changing::<actions::CreateApiKey>(&app, (&project, &account)).await?;
    // It would outlive the key that made it, and escape the policy of that key.
    if is_oneself(&change) && session_of(&change.caller).is_none() {
        return Err(change.deny("an API key cannot make keys for its own service account").await);
    }
    create(&app, change, new).await
}

/// List the keys of a service account that are not revoked.
#[utoipa::path(get, path = "/v1/projects/{project}/service_accounts/{service_account}/api_keys",
    tag = "api_keys", params(PlainQuery), responses(
        (status = 200, body = Page<ApiKey>),
))]
async fn list_api_keys(
    State(app): State<App>,
    Path((project, account)): Path<(String, String)>,
    call: Call,
) -> Result<axum::Json<Page<ApiKey>>, ApiError> {
    list::<actions::ListApiKeys>(&app, &call, (&project, &account)).await
}

/// Revoke a key of a service account. It is refused at once.
#[utoipa::path(delete, path = "/v1/projects/{project}/service_accounts/{service_account}/api_keys/{api_key}",
    tag = "api_keys", params(MutationQuery), responses(
        (status = 204),
))]
async fn revoke_api_key(
    State(app): State<App>,
    Path((project, account, key)): Path<(String, String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    revoke(call.changing::<actions::RevokeApiKey>(&app, (&project, &account)).await?, &key).await
}

/// Make a key for oneself. Only the user can, and only when signed in.
#[utoipa::path(post, path = "/v1/users/{user}/api_keys", tag = "api_keys", params(MutationQuery),
    request_body = CreateApiKey, responses(
        (status = 201, body = CreatedApiKey),
))]
async fn create_user_api_key(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new = model::check(call.json()?, PrincipalKind::User, app.clock.now())?;
    let change = call.changing::<actions::CreateUserApiKey>(&app, &user).await?;
    let (change, _) = require_oneself(change).await?;
    create(&app, change, new).await
}

/// List the keys of a user that are not revoked.
#[utoipa::path(get, path = "/v1/users/{user}/api_keys", tag = "api_keys", params(PlainQuery), responses(
    (status = 200, body = Page<ApiKey>),
))]
async fn list_user_api_keys(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<ApiKey>>, ApiError> {
    list::<actions::ListUserApiKeys>(&app, &call, &user).await
}

/// Revoke a key of a user. It is refused at once.
#[utoipa::path(delete, path = "/v1/users/{user}/api_keys/{api_key}", tag = "api_keys", params(MutationQuery),
    responses(
        (status = 204),
))]
async fn revoke_user_api_key(
    State(app): State<App>,
    Path((user, key)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    revoke(call.changing::<actions::RevokeUserApiKey>(&app, &user).await?, &key).await
}

async fn create<A: Action<On: OfResource>>(
    app: &App,
    mut change: Mutation<A>,
    new: NewApiKey,
) -> Result<Response, ApiError> {
    let (id, now): (ApiKeyId, _) = (app.clock.new_id(), change.now);
    let secret = NewSecret::generate();
    let (conn, allowed) = change.parts();
    let owner = store::owner(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let api_key = store::insert(conn, owner, id, &secret, new, now).await?;
    let recorded = CreatedApiKey { api_key: api_key.clone(), key: None };
    let answer = CreatedApiKey { api_key, key: Some(secret.expose()) };
    change.commit_secret(StatusCode::CREATED, &answer, &recorded).await
}

async fn list<A: Action<On: OfResource>>(
    app: &App,
    call: &Call,
    path: <A::On as Place>::Path<'_>,
) -> Result<axum::Json<Page<ApiKey>>, ApiError> {
    let query = call.query::<PlainQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<A>(app, path).await?;
    let (conn, allowed) = reading.parts();
    let owner = store::owner(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let keys = store::list(conn, owner, after, query.rows()).await?;
    Ok(axum::Json(query.page(keys, |key: &ApiKey| key.id.as_uuid())))
}

async fn revoke<A: Action<On: OfResource>>(mut change: Mutation<A>, key: &str) -> Result<Response, ApiError> {
    let key = Uuid::try_parse(key).map_err(|_| ApiError::not_found())?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let owner = store::owner(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let revoked = store::revoke(conn, owner, key, now).await?;
    change.note_before(&revoked.ok_or_else(ApiError::not_found)?);
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
