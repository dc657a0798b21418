//! Handlers of ports.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::PortId;
use serde_json::json;
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::HELD;
use super::store::{self, Filter, NewPort, addresses, parts};
use super::types::{CreatePort, Port, PortQuery, UpdatePort};
use crate::app::App;
use crate::auth::{Allowed, New, actions};
use crate::http::{
    ApiError, Call, ErrorCode, LabelledPageQuery, MutationQuery, Page, Path, Selector, merge_labels,
    validate_labels,
};
use crate::networks;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_port, list_ports)).routes(routes!(
        get_port,
        update_port,
        delete_port
    ))
}

/// Make a port in a network. It gets its addresses at once, and keeps them.
#[utoipa::path(post, path = "/v1/projects/{project}/ports", tag = "ports", params(MutationQuery),
    request_body = CreatePort, responses(
        (status = 201, body = Port),
))]
async fn create_port(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreatePort = call.json()?;
    ApiError::reject(new.validate())?;
    let place = (project.as_str(), New { labels: &new.labels, ..New::named(new.name.as_str()) });
    let mut change = call.changing::<actions::CreatePort>(&app, place).await?;
    let (id, now): (PortId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    make(conn, allowed, &new, id, now).await?;
    let row = store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?;
    let row = row.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()?).await
}

async fn make(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreatePort>,
    new: &CreatePort,
    id: PortId,
    now: time::OffsetDateTime,
) -> Result<(), ApiError> {
    let network = networks::store::named(conn, allowed, &new.network, "/network").await?;
    let groups =
        parts::groups_named(conn, allowed, new.security_groups.as_deref(), "/security_groups").await?;
    let (name, labels, mac) = (new.name.as_str(), &new.labels, new.mac);
    store::insert(conn, allowed, &NewPort { id, network, name, labels, mac, owner: None, now }).await?;
    let subnets = addresses::lock_subnets(conn, &[network]).await?;
    let subnets: Vec<_> = subnets.iter().collect();
    match &new.addresses {
        None => addresses::give_automatic(conn, id, &subnets).await?,
        Some(wanted) => {
            let pointer = |index, field: &str| format!("/addresses/{index}{field}");
            addresses::give_wanted(conn, id, &subnets, wanted, pointer).await?;
        }
    }
    parts::set_groups(conn, id, &groups, "/security_groups").await?;
    Ok(parts::set_pairs(conn, id, &new.allowed_address_pairs).await?)
}

/// List the ports of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/ports", tag = "ports", params(PortQuery), responses(
    (status = 200, body = Page<Port>),
))]
async fn list_ports(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Port>>, ApiError> {
    let query: PortQuery = call.query()?;
    let (wanted, instance) = (query.network, query.instance);
    // A text that is neither a name nor an id matches nothing.
    let instance = instance.map(|text| Selector::parse(&text).map_or_else(String::new, |_| text));
    let (query, labels) =
        LabelledPageQuery::new(query.limit, query.cursor, query.name, query.label_selector).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListPorts>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let network = networks::store::filtered(conn, allowed, wanted.as_deref()).await?;
    let filter = Filter {
        after,
        name: query.name(),
        labels: &labels,
        network,
        instance: instance.as_deref(),
        rows: query.rows(),
    };
    let rows = store::list(conn, allowed, &filter).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect::<Result<_, _>>()?;
    Ok(axum::Json(query.page(items, |port: &Port| port.id.as_uuid())))
}

/// Get a port.
#[utoipa::path(get, path = "/v1/projects/{project}/ports/{port}", tag = "ports", responses(
    (status = 200, body = Port),
))]
async fn get_port(
    State(app): State<App>,
    Path((project, port)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetPort>(&app, (&project, &port)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire()?)
}

/// Change a port's name, labels, security groups or allowed address pairs.
#[utoipa::path(patch, path = "/v1/projects/{project}/ports/{port}", tag = "ports",
    params(MutationQuery), request_body = UpdatePort, responses(
        (status = 200, body = Port),
))]
async fn update_port(
    State(app): State<App>,
    Path((project, port)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdatePort = call.json()?;
    ApiError::reject(patch.validate())?;
    let mut change = call.changing::<actions::UpdatePort>(&app, (&project, &port)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire()?);
    if let Some(name) = &patch.name {
        row.name = name.as_str().to_owned();
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
    let id = PortId::from(row.id);
    if let Some(groups) = &patch.security_groups {
        let groups = parts::groups_named(conn, allowed, Some(groups), "/security_groups").await?;
        parts::set_groups(conn, id, &groups, "/security_groups").await?;
    }
    if let Some(pairs) = &patch.allowed_address_pairs {
        parts::set_pairs(conn, id, pairs).await?;
    }
    let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()?).await
}

/// Delete a port that is attached to nothing. A floating IP that stands for it stands for nothing then.
#[utoipa::path(delete, path = "/v1/projects/{project}/ports/{port}", tag = "ports",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_port(
    State(app): State<App>,
    Path((project, port)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeletePort>(&app, (&project, &port)).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    if row.detaching {
        return Err(ApiError::because(ErrorCode::InUse, format!("it is being detached: {HELD}")));
    }
    if let Some(instance) = &row.instance_name {
        let detail = format!("it is a card of the instance {instance}; detach it there first");
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    let id = row.id;
    change.note_before(&row.into_wire()?);
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
