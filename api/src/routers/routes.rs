//! Handlers of routers.

mod interfaces;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::model::{Stand, validate_routes};
use super::store::{self, Parts, Row};
use super::types::{CreateRouter, Router, UpdateRouter, validate};
use crate::app::App;
use crate::auth::{Action, Allowed, InProject, New, OfResource, actions};
use crate::http::{ApiError, Call, ErrorCode, LabelledPageQuery, MutationQuery, Page, Path, merge_labels};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_router, list_routers))
        .routes(routes!(get_router, update_router, delete_router))
        .merge(interfaces::router())
}

/// The router of the proof, and its parts.
async fn load<A: Action<On: OfResource + InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<(Row, Parts), ApiError> {
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    let parts = store::parts(conn, &[row.id]).await?;
    Ok((row, parts))
}

/// Make a router. It stands nowhere until it has interfaces.
#[utoipa::path(post, path = "/v1/projects/{project}/routers", tag = "routers",
    params(MutationQuery), request_body = CreateRouter, responses(
        (status = 201, body = Router),
))]
async fn create_router(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateRouter = call.json()?;
    ApiError::reject(validate(&new.labels))?;
    let place = New { labels: &new.labels, ..New::named(new.name.as_str()) };
    let mut change = call.changing::<actions::CreateRouter>(&app, (&project, place)).await?;
    let (id, now): (Uuid, _) = (app.clock.new_id(), change.now);
    let project = change.allowed.project().as_uuid();
    let name = new.name.as_str();
    let row = store::insert(change.conn(), project, id, name, &new.labels, new.external, now).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire(&Parts::default())).await
}

/// List the routers of a project.
#[utoipa::path(get, path = "/v1/projects/{project}/routers", tag = "routers", params(LabelledPageQuery),
    responses(
        (status = 200, body = Page<Router>),
))]
async fn list_routers(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Router>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListRouters>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let parts = store::parts(conn, &ids).await?;
    let items = rows.into_iter().map(|row| row.into_wire(&parts)).collect();
    Ok(axum::Json(query.page(items, |router: &Router| router.id.as_uuid())))
}

/// Get a router.
#[utoipa::path(get, path = "/v1/projects/{project}/routers/{router}", tag = "routers", responses(
    (status = 200, body = Router),
))]
async fn get_router(
    State(app): State<App>,
    Path((project, router)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetRouter>(&app, (&project, &router)).await?;
    let (conn, allowed) = reading.parts();
    let (row, parts) = load(conn, allowed).await?;
    call.answer(row.version(), &row.into_wire(&parts))
}

/// Change a router's name, labels or static routes, or whether it leads out.
#[utoipa::path(patch, path = "/v1/projects/{project}/routers/{router}", tag = "routers",
    params(MutationQuery), request_body = UpdateRouter, responses(
        (status = 200, body = Router),
))]
async fn update_router(
    State(app): State<App>,
    Path((project, router)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateRouter = call.json()?;
    let mut change = call.changing::<actions::UpdateRouter>(&app, (&project, &router)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let (mut row, parts) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    let before = row.clone().into_wire(&parts);
    change.note_before(&before);
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    row.external = patch.external.unwrap_or(row.external);
    let routes = patch.routes.unwrap_or(before.routes);
    let mut errors = validate(&row.labels);
    let stands: Vec<Stand> = parts.interfaces.iter().map(|interface| interface.stand()).collect();
    validate_routes(&routes, &stands, row.external, &mut errors);
    ApiError::reject(errors)?;
    if before.external && !row.external {
        check_no_floating_ips(change.conn(), row.id, None).await?;
    }
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    store::replace_routes(conn, allowed, row.id, &routes).await?;
    let parts = store::parts(conn, &[row.id]).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(&parts)).await
}

/// Refuses what would cut floating IPs off.
async fn check_no_floating_ips(
    conn: &mut PgConnection,
    router: Uuid,
    subnet: Option<Uuid>,
) -> Result<(), ApiError> {
    match store::floating_ips(conn, router, subnet).await? {
        None => Ok(()),
        Some(names) => {
            let detail = format!("floating IPs lead through it ({names}); disassociate them first");
            Err(ApiError::because(ErrorCode::InUse, detail))
        }
    }
}

/// Delete a router that stands in no subnet any more.
#[utoipa::path(delete, path = "/v1/projects/{project}/routers/{router}", tag = "routers",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_router(
    State(app): State<App>,
    Path((project, router)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteRouter>(&app, (&project, &router)).await?;
    let (conn, allowed) = change.parts();
    let (row, parts) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire(&parts));
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, row.id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
