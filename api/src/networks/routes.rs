//! Handlers of networks.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, NewNetwork};
use super::types::{CreateNetwork, Network, UpdateNetwork, validate};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, LabelledPageQuery, MutationQuery, Page, Path, merge_labels};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_network, list_networks)).routes(routes!(
        get_network,
        update_network,
        delete_network
    ))
}

/// Make a network. Addresses come with its subnets.
#[utoipa::path(post, path = "/v1/projects/{project}/networks", tag = "networks", params(MutationQuery),
    request_body = CreateNetwork, responses(
        (status = 201, body = Network),
))]
async fn create_network(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateNetwork = call.json()?;
    ApiError::reject(new.validate())?;
    let place = (project.as_str(), New { labels: &new.labels, ..New::named(new.name.as_str()) });
    let mut change = call.changing::<actions::CreateNetwork>(&app, place).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let network = NewNetwork {
        id: app.clock.new_id(),
        project: allowed.project(),
        name: new.name.as_str(),
        description: &new.description,
        labels: &new.labels,
        mtu: new.mtu(),
        is_default: false,
        now,
    };
    let row = store::insert(conn, allowed, &network).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List the networks of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/networks", tag = "networks", params(LabelledPageQuery),
    responses(
        (status = 200, body = Page<Network>),
))]
async fn list_networks(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Network>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListNetworks>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |network: &Network| network.id.as_uuid())))
}

/// Get a network.
#[utoipa::path(get, path = "/v1/projects/{project}/networks/{network}", tag = "networks", responses(
    (status = 200, body = Network),
))]
async fn get_network(
    State(app): State<App>,
    Path((project, network)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetNetwork>(&app, (&project, &network)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a network's name, description or labels.
#[utoipa::path(patch, path = "/v1/projects/{project}/networks/{network}", tag = "networks",
    params(MutationQuery), request_body = UpdateNetwork, responses(
        (status = 200, body = Network),
))]
async fn update_network(
    State(app): State<App>,
    Path((project, network)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateNetwork = call.json()?;
    let mut change = call.changing::<actions::UpdateNetwork>(&app, (&project, &network)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.description = patch.description.unwrap_or(row.description);
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    ApiError::reject(validate(&row.description, &row.labels))?;
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a network with its subnets. Ports must be deleted and routers detached first.
#[utoipa::path(delete, path = "/v1/projects/{project}/networks/{network}", tag = "networks",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_network(
    State(app): State<App>,
    Path((project, network)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteNetwork>(&app, (&project, &network)).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
