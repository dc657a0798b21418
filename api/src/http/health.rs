//! Is the process alive, is it ready, and how is it doing. No sign-in needed.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{ApiError, ErrorCode};
use crate::app::App;
use crate::fleet_metrics;

#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: &'static str,
    pub version: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Ready {
    /// Always `ready`; a service that is not ready answers 503.
    pub status: &'static str,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_health))
        .routes(routes!(get_readiness))
        .routes(routes!(get_metrics))
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "service", security(()), responses((status = 200, body = Health)))]
async fn get_health() -> axum::Json<Health> {
    axum::Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Whether it can do its work: the database answers.
#[utoipa::path(get, path = "/readyz", tag = "service", security(()), responses(
    (status = 200, body = Ready),
    (status = 503, description = "`database_unavailable`"),
))]
async fn get_readiness(State(app): State<App>) -> Result<axum::Json<Ready>, ApiError> {
    let asked = async { sqlx::query_scalar!("SELECT 1 AS one").fetch_one(&app.pool).await };
    match tokio::time::timeout(Duration::from_secs(1), asked).await {
        Ok(answer) => answer.map(|_| axum::Json(Ready { status: "ready" })).map_err(ApiError::from),
        Err(late) => Err(ApiError::caused(ErrorCode::DatabaseUnavailable, late).retry_after(1)),
    }
}

/// Metrics in Prometheus' text format: of this replica's requests, and what hosts and shared pools have and have given away.
#[utoipa::path(get, path = "/metrics", tag = "service", security(()), responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
async fn get_metrics(State(app): State<App>) -> Response {
    let text = app.metrics.render() + &fleet_metrics::render(&app).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
