//! Handlers of subnets.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::SubnetId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{check_dns_servers, plan};
use super::store::{self, Filter, NewSubnet};
use super::types::{CreateSubnet, Subnet, SubnetQuery, UpdateSubnet};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{
    ApiError, Call, LabelledPageQuery, MutationQuery, Page, Path, merge_labels, validate_labels,
};
use crate::networks;
use crate::quotas;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_subnet, list_subnets)).routes(routes!(
        get_subnet,
        update_subnet,
        delete_subnet
    ))
}

/// Make a subnet in a network.
#[utoipa::path(post, path = "/v1/projects/{project}/subnets", tag = "subnets", params(MutationQuery),
    request_body = CreateSubnet, responses(
        (status = 201, body = Subnet),
))]
async fn create_subnet(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateSubnet = call.json()?;
    let planned = plan(&new);
    let mut errors = planned.as_ref().err().cloned().unwrap_or_default();
    validate_labels(&new.labels, &mut errors);
    let plan = match planned {
        Ok(plan) if errors.is_empty() => plan,
        _ => return Err(ApiError::invalid(errors)),
    };
    let place = (project.as_str(), New { labels: &new.labels, ..New::named(new.name.as_str()) });
    let mut change = call.changing::<actions::CreateSubnet>(&app, place).await?;
    let (id, now): (SubnetId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let network = networks::store::named(conn, allowed, &new.network, "/network").await?;
    let subnet = NewSubnet {
        id,
        project: allowed.project(),
        network,
        name: new.name.as_str(),
        labels: &new.labels,
        plan: &plan,
        dns_servers: &new.dns_servers,
        dhcp: new.dhcp,
        now,
    };
    store::insert(conn, allowed, &subnet).await?;
    let row = store::find_one(conn, allowed, Some(id.as_uuid()), None).await?;
    let row = row.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()?).await
}

/// List the subnets of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/subnets", tag = "subnets", params(SubnetQuery), responses(
    (status = 200, body = Page<Subnet>),
))]
async fn list_subnets(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Subnet>>, ApiError> {
    let query: SubnetQuery = call.query()?;
    let wanted = query.network;
    let (query, labels) =
        LabelledPageQuery::new(query.limit, query.cursor, query.name, query.label_selector).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListSubnets>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let network = networks::store::filtered(conn, allowed, wanted.as_deref()).await?;
    let filter = Filter { after, name: query.name(), labels: &labels, network, rows: query.rows() };
    let rows = store::list(conn, allowed, &filter).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect::<Result<_, _>>()?;
    Ok(axum::Json(query.page(items, |subnet: &Subnet| subnet.id.as_uuid())))
}

/// Get a subnet.
#[utoipa::path(get, path = "/v1/projects/{project}/subnets/{subnet}", tag = "subnets", responses(
    (status = 200, body = Subnet),
))]
async fn get_subnet(
    State(app): State<App>,
    Path((project, subnet)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetSubnet>(&app, (&project, &subnet)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire()?)
}

/// Change a subnet's name, labels or resolvers.
#[utoipa::path(patch, path = "/v1/projects/{project}/subnets/{subnet}", tag = "subnets",
    params(MutationQuery), request_body = UpdateSubnet, responses(
        (status = 200, body = Subnet),
))]
async fn update_subnet(
    State(app): State<App>,
    Path((project, subnet)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateSubnet = call.json()?;
    let mut errors = Vec::new();
    check_dns_servers(patch.dns_servers.as_deref().unwrap_or_default(), &mut errors);
    ApiError::reject(errors)?;
    let mut change = call.changing::<actions::UpdateSubnet>(&app, (&project, &subnet)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire()?);
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    if let Some(servers) = patch.dns_servers {
        row.dns_servers = servers.iter().map(ToString::to_string).collect();
    }
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    let mut errors = Vec::new();
    validate_labels(&row.labels, &mut errors);
    ApiError::reject(errors)?;
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()?).await
}

/// Delete a subnet of which nothing has an address any more.
#[utoipa::path(delete, path = "/v1/projects/{project}/subnets/{subnet}", tag = "subnets",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_subnet(
    State(app): State<App>,
    Path((project, subnet)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut entry = call.entering(&app, Some(&project)).await?;
    // Whoever makes a port there holds the quotas when it comes to the subnet.
    if let Some(project) = entry.project() {
        quotas::store::lock(entry.conn(), project).await?;
    }
    let mut change = entry.decide::<actions::DeleteSubnet>((&project, &subnet)).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire()?);
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
