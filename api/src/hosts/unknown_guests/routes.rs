//! The list of guests that the cloud does not know.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::UnknownGuest;
use crate::app::App;
use crate::auth::actions;
use crate::hosts::store as hosts;
use crate::http::{ApiError, Call, Page, Path, PlainQuery};

pub(in crate::hosts) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_host_unknown_guests))
}

/// List the guests on a host of which the cloud wants nothing there, such as those that were made after the backup that was
/// restored, with what the host was told of them before. Nobody touches them. Of hosts whose agent is of the release before it is
/// empty: `quarantined_domains` of the host counts them.
#[utoipa::path(get, path = "/v1/hosts/{host}/unknown_guests", tag = "hosts", params(PlainQuery), responses(
    (status = 200, body = Page<UnknownGuest>),
))]
async fn list_host_unknown_guests(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<UnknownGuest>>, ApiError> {
    let query = call.query::<PlainQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::GetHost>(&app, &host).await?;
    let (conn, allowed) = reading.parts();
    let row = hosts::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let items = store::list(conn, row.id, after, query.rows()).await?;
    Ok(axum::Json(query.page(items, |one: &UnknownGuest| one.id)))
}
