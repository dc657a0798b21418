//! Handlers of projects.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::types::{CreateProject, Project, UpdateProject, validate};
use super::{defaults, store};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{
    ApiError, Call, LabelSelector, LabelledPageQuery, MutationQuery, Page, Path, Reading, merge_labels,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_project, list_projects)).routes(routes!(
        get_project,
        update_project,
        delete_project
    ))
}

/// Make a project.
#[utoipa::path(post, path = "/v1/projects", tag = "projects", params(MutationQuery),
    request_body = CreateProject, responses(
        (status = 201, body = Project),
))]
async fn create_project(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let new: CreateProject = call.json()?;
    ApiError::reject(validate(&new.description, &new.labels))?;
    let mut change = call
        .changing::<actions::CreateProject>(
            &app,
            New { labels: &new.labels, ..New::named(new.name.as_str()) },
        )
        .await?;
    let (id, now) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let row = store::insert(conn, allowed, id, new, now).await?;
    defaults::make(conn, id, &app.clock, now).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// List the projects that you may get.
#[utoipa::path(get, path = "/v1/projects", tag = "projects", params(LabelledPageQuery), responses(
    (status = 200, body = Page<Project>),
))]
async fn list_projects(State(app): State<App>, call: Call) -> Result<axum::Json<Page<Project>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListProjects>(&app, ()).await?;
    let limit = usize::try_from(query.rows()).unwrap_or_default();
    let rows = list(&app, &mut reading, after, query.name(), &labels, limit).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |project: &Project| project.id.as_uuid())))
}

/// The projects that the caller may get, from `after` on; at most `limit`.
async fn list(
    app: &App,
    reading: &mut Reading<actions::ListProjects>,
    mut after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    limit: usize,
) -> Result<Vec<store::Row>, ApiError> {
    let caller = reading.caller.clone();
    let anywhere = caller.may_get_any_project();
    let (conn, allowed) = reading.parts();
    let mut rows = Vec::new();
    loop {
        let batch = store::candidates(conn, allowed, after, name, labels, anywhere).await?;
        let Some(last) = batch.last() else { return Ok(rows) };
        after = last.row.id;
        for candidate in batch {
            if caller.may_get(conn, app, &candidate.row.reference()?, &candidate.policies).await? {
                rows.push(candidate.row);
            }
            if rows.len() == limit {
                return Ok(rows);
            }
        }
    }
}

/// Get a project.
#[utoipa::path(get, path = "/v1/projects/{project}", tag = "projects", responses(
    (status = 200, body = Project),
))]
async fn get_project(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetProject>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a project's name, description or labels.
#[utoipa::path(patch, path = "/v1/projects/{project}", tag = "projects",
    params(MutationQuery),
    request_body = UpdateProject, responses(
        (status = 200, body = Project),
))]
async fn update_project(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateProject = call.json()?;
    let mut change = call.changing::<actions::UpdateProject>(&app, &project).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::lock(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
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
    store::update(change.conn(), &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a project that owns no instance, image, service account, port or floating IP any more. Its networks,
/// routers and security groups go with it.
#[utoipa::path(delete, path = "/v1/projects/{project}", tag = "projects", params(MutationQuery), responses(
    (status = 204),
))]
async fn delete_project(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteProject>(&app, &project).await?;
    let (conn, allowed) = change.parts();
    let row = store::lock(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire());
    store::delete(change.conn(), id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
