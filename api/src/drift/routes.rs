//! Handlers of drift.

use axum::extract::State;
use protocol::agent::DriftCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{Drift, DriftKind, DriftQuery};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{ApiError, Call, ErrorCode, Page, PageQuery};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_drift))
}

/// List what differs on hosts from what is wanted of them, oldest first, with who mends it. A host whose `drift_looked_at` is
/// old or absent has not looked, and may differ in more.
#[utoipa::path(get, path = "/v1/drift", tag = "hosts", params(DriftQuery), responses(
    (status = 200, body = Page<Drift>),
))]
async fn list_drift(State(app): State<App>, call: Call) -> Result<axum::Json<Page<Drift>>, ApiError> {
    let DriftQuery { limit, cursor, host, code, kind } = call.query()?;
    if code.as_deref().is_some_and(|code| DriftCode::from_name(code).is_none()) {
        let codes: Vec<_> = DriftCode::ALL.iter().map(|code| code.as_str()).collect();
        let detail = format!("code: one of {}", codes.join(", "));
        return Err(ApiError::because(ErrorCode::InvalidQuery, detail));
    }
    if host.as_deref().is_some_and(|host| host.contains('\0')) {
        return Err(ApiError::because(ErrorCode::InvalidQuery, "host: a name or an id"));
    }
    let query = PageQuery::new(limit, cursor).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListDrift>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    hosts::store::known_to_filter(conn, host.as_deref()).await?;
    let filter = store::Filter {
        after,
        host: host.as_deref(),
        code: code.as_deref(),
        kind: kind.map(DriftKind::as_str),
        rows: query.rows(),
    };
    let items = store::list(conn, allowed, &filter).await?;
    Ok(axum::Json(query.page(items, |drift: &Drift| drift.id)))
}
