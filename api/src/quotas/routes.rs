//! Handlers of quotas.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{QuotaDefaults, Quotas, UpdateQuotaDefaults, UpdateQuotas};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, MutationQuery, Path};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_quotas, update_quotas))
        .routes(routes!(get_quota_defaults, update_quota_defaults))
}

/// Get what a project may have and what it has.
#[utoipa::path(get, path = "/v1/projects/{project}/quotas", tag = "quotas", responses(
    (status = 200, body = Quotas),
))]
async fn get_quotas(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetQuotas>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let (items, version) = store::list(conn, allowed).await?;
    call.answer(version, &Quotas { items })
}

/// Change the limits of a project. `null` brings the default back. A limit may be lower than what is used:
/// nothing is taken away, only growth is refused.
#[utoipa::path(patch, path = "/v1/projects/{project}/quotas", tag = "quotas", params(MutationQuery),
    request_body = UpdateQuotas, responses(
        (status = 200, body = Quotas),
))]
async fn update_quotas(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch = call.json::<UpdateQuotas>()?.checked().map_err(ApiError::invalid)?;
    let mut change = call.changing::<actions::UpdateQuotas>(&app, &project).await?;
    let (conn, allowed) = change.parts();
    store::lock(conn, allowed.project()).await?;
    let (items, before) = store::list(conn, allowed).await?;
    change.check_if_match(before)?;
    change.note_before(&Quotas { items });
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &patch).await?;
    let (items, version) = store::list(conn, allowed).await?;
    change.commit(StatusCode::OK, Some(version), &Quotas { items }).await
}

/// Get the limits of projects that have none of their own.
#[utoipa::path(get, path = "/v1/quota_defaults", tag = "quotas", responses(
    (status = 200, body = QuotaDefaults),
))]
async fn get_quota_defaults(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetQuotaDefaults>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let (items, version) = store::defaults(conn, allowed).await?;
    call.answer(version, &QuotaDefaults { items })
}

/// Change the limits of projects that have none of their own. In force for the very next call.
#[utoipa::path(patch, path = "/v1/quota_defaults", tag = "quotas", params(MutationQuery),
    request_body = UpdateQuotaDefaults, responses(
        (status = 200, body = QuotaDefaults),
))]
async fn update_quota_defaults(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let patch = call.json::<UpdateQuotaDefaults>()?.checked().map_err(ApiError::invalid)?;
    let mut change = call.changing::<actions::UpdateQuotaDefaults>(&app, ()).await?;
    let (conn, allowed) = change.parts();
    store::lock_defaults(conn, allowed).await?;
    let (items, before) = store::defaults(conn, allowed).await?;
    change.check_if_match(before)?;
    change.note_before(&QuotaDefaults { items });
    let (conn, allowed) = change.parts();
    store::update_defaults(conn, allowed, &patch).await?;
    let (items, version) = store::defaults(conn, allowed).await?;
    change.commit(StatusCode::OK, Some(version), &QuotaDefaults { items }).await
}
