//! Handlers of service accounts.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::PrincipalId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{CreateServiceAccount, ServiceAccount, UpdateServiceAccount};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, Labels, MutationQuery, Page, PageQuery, Path, reject_description};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_service_account, list_service_accounts)).routes(routes!(
        get_service_account,
        update_service_account,
        delete_service_account
    ))
}

/// Make a service account. It may do nothing until a policy is attached to it.
#[utoipa::path(post, path = "/v1/projects/{project}/service_accounts", tag = "service_accounts",
    params(MutationQuery), request_body = CreateServiceAccount, responses(
        (status = 201, body = ServiceAccount),
))]
async fn create_service_account(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateServiceAccount = call.json()?;
    reject_description(&new.description)?;
    let place = (project.as_str(), New::named(new.name.as_str()));
    let mut change = call.changing::<actions::CreateServiceAccount>(&app, place).await?;
    let (id, now): (PrincipalId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let row = store::insert(conn, allowed, id, &new, now).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List the service accounts of a project.
#[utoipa::path(get, path = "/v1/projects/{project}/service_accounts", tag = "service_accounts",
    params(PageQuery), responses(
        (status = 200, body = Page<ServiceAccount>),
))]
async fn list_service_accounts(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<ServiceAccount>>, ApiError> {
    let query = call.query::<PageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListServiceAccounts>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |account: &ServiceAccount| account.id.as_uuid())))
}

/// Get a service account.
#[utoipa::path(get, path = "/v1/projects/{project}/service_accounts/{service_account}",
    tag = "service_accounts", responses(
        (status = 200, body = ServiceAccount),
))]
async fn get_service_account(
    State(app): State<App>,
    Path((project, account)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetServiceAccount>(&app, (&project, &account)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a service account's name or description, disable or enable it.
#[utoipa::path(patch, path = "/v1/projects/{project}/service_accounts/{service_account}",
    tag = "service_accounts", params(MutationQuery), request_body = UpdateServiceAccount, responses(
        (status = 200, body = ServiceAccount),
))]
async fn update_service_account(
    State(app): State<App>,
    Path((project, account)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateServiceAccount = call.json()?;
    reject_description(patch.description.as_deref().unwrap_or_default())?;
    let mut change = call.changing::<actions::UpdateServiceAccount>(&app, (&project, &account)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
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
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &Labels::new()).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a service account with its API keys and attached policies. What it did stays in the audit log.
#[utoipa::path(delete, path = "/v1/projects/{project}/service_accounts/{service_account}",
    tag = "service_accounts", params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_service_account(
    State(app): State<App>,
    Path((project, account)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteServiceAccount>(&app, (&project, &account)).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
