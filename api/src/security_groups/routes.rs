//! Handlers of security groups.

mod rules;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::SecurityGroupId;
use serde_json::json;
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store;
use super::types::{CreateSecurityGroup, SecurityGroup, UpdateSecurityGroup, validate};
use crate::app::App;
use crate::auth::{Action, Allowed, InProject, New, OfResource, actions};
use crate::http::{ApiError, Call, LabelledPageQuery, MutationQuery, Page, Path, merge_labels};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_security_group, list_security_groups))
        .routes(routes!(get_security_group, update_security_group, delete_security_group))
        .merge(rules::router())
}

/// The group of the proof, and as it is shown.
async fn load<A: Action<On: OfResource + InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<(store::Row, SecurityGroup), ApiError> {
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    let rules = store::rules::of_groups(conn, &[row.id]).await?;
    Ok((row.clone(), row.into_wire(&rules)?))
}

/// Make a security group, with its rules.
#[utoipa::path(post, path = "/v1/projects/{project}/security_groups", tag = "security_groups",
    params(MutationQuery), request_body = CreateSecurityGroup, responses(
        (status = 201, body = SecurityGroup),
))]
async fn create_security_group(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateSecurityGroup = call.json()?;
    ApiError::reject(new.validate())?;
    let place = New { labels: &new.labels, ..New::named(new.name.as_str()) };
    let mut change = call.changing::<actions::CreateSecurityGroup>(&app, (&project, place)).await?;
    let (id, now): (SecurityGroupId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let row = store::insert(conn, allowed, id, &new, now).await?;
    let rules = rules::pointed(&new.rules);
    let rules = store::rules::add(conn, allowed, row.id, &rules, &app.clock, now).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire(&rules)?).await
}

/// List the security groups of a project, with their rules.
#[utoipa::path(get, path = "/v1/projects/{project}/security_groups", tag = "security_groups",
    params(LabelledPageQuery), responses(
        (status = 200, body = Page<SecurityGroup>),
))]
async fn list_security_groups(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<SecurityGroup>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListSecurityGroups>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let rules = store::rules::of_groups(conn, &ids).await?;
    let items: Result<Vec<_>, _> = rows.into_iter().map(|row| row.into_wire(&rules)).collect();
    Ok(axum::Json(query.page(items?, |group: &SecurityGroup| group.id.as_uuid())))
}

/// Get a security group with its rules.
#[utoipa::path(get, path = "/v1/projects/{project}/security_groups/{security_group}", tag = "security_groups",
    responses(
        (status = 200, body = SecurityGroup),
))]
async fn get_security_group(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetSecurityGroup>(&app, (&project, &group)).await?;
    let (conn, allowed) = reading.parts();
    let (row, group) = load(conn, allowed).await?;
    call.answer(row.version(), &group)
}

/// Change a security group's name, description or labels.
#[utoipa::path(patch, path = "/v1/projects/{project}/security_groups/{security_group}",
    tag = "security_groups", params(MutationQuery), request_body = UpdateSecurityGroup, responses(
        (status = 200, body = SecurityGroup),
))]
async fn update_security_group(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateSecurityGroup = call.json()?;
    let mut change = call.changing::<actions::UpdateSecurityGroup>(&app, (&project, &group)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let (mut row, before) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&before);
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
    let rules = store::rules::of_groups(conn, &[row.id]).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(&rules)?).await
}

/// Delete a security group that no port is in and no rule of another group names.
#[utoipa::path(delete, path = "/v1/projects/{project}/security_groups/{security_group}",
    tag = "security_groups", params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_security_group(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteSecurityGroup>(&app, (&project, &group)).await?;
    let (conn, allowed) = change.parts();
    let (row, before) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&before);
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, row.id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
