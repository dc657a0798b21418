//! What the handlers of policies do, in a project as in the cloud.

mod cloud;
mod project;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::document::PolicyDocument;
use super::either::{Create, Delete, List, Update};
use super::store::{self, Row};
use super::types::{CreatePolicy, ListPoliciesQuery, NewPolicy, Policy, PolicyVersions, UpdatePolicy};
use crate::app::App;
use crate::auth::{Action, OfResource, Place};
use crate::http::{ApiError, Call, ErrorCode, FieldError, Labels, Mutation, Page, validate_description};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(project::create_policy, project::list_policies))
        .routes(routes!(project::get_policy, project::update_policy, project::delete_policy))
        .routes(routes!(project::list_policy_versions))
        .routes(routes!(cloud::create_cloud_policy, cloud::list_cloud_policies))
        .routes(routes!(cloud::get_cloud_policy, cloud::update_cloud_policy, cloud::delete_cloud_policy))
        .routes(routes!(cloud::list_cloud_policy_versions))
}

type PathOf<'a, A> = <<A as Action>::On as Place>::Path<'a>;

/// The new policy of the body.
fn parse_new(call: &Call) -> Result<NewPolicy, ApiError> {
    let new: CreatePolicy = call.json()?;
    let mut errors = Vec::new();
    validate_description(&new.description, &mut errors);
    let document = new.document.check("/document", &mut errors);
    match document.filter(|_| errors.is_empty()) {
        Some(document) => Ok(NewPolicy {
            name: new.name,
            description: new.description,
            document: serde_json::to_value(&document).map_err(ApiError::internal)?,
        }),
        None => Err(ApiError::invalid(errors)),
    }
}

async fn create<A: Create>(
    app: &App,
    call: &Call,
    new: &NewPolicy,
    path: PathOf<'_, A>,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<A>(app, path).await?;
    let (id, now) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    store::refuse_name_of_cloud(conn, allowed, new.name.as_str()).await?;
    let row = store::insert(conn, allowed, id, new, now).await?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

async fn list<A: List>(
    app: &App,
    call: &Call,
    path: PathOf<'_, A>,
) -> Result<axum::Json<Page<Policy>>, ApiError> {
    let (query, scope) = call.query::<ListPoliciesQuery>()?.split();
    let query = query.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<A>(app, path).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), scope, query.rows()).await?;
    let items = rows.into_iter().map(Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |policy: &Policy| policy.id.as_uuid())))
}

async fn get<A: Action<On: OfResource>>(
    app: &App,
    call: &Call,
    path: PathOf<'_, A>,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<A>(app, path).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

async fn versions<A: Action<On: OfResource>>(
    app: &App,
    call: &Call,
    path: PathOf<'_, A>,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<A>(app, path).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let items = store::versions(conn, &row).await?;
    call.answer(row.version(), &PolicyVersions { items })
}

async fn update<A: Update + Action<On: OfResource>>(
    app: &App,
    call: &Call,
    path: PathOf<'_, A>,
) -> Result<Response, ApiError> {
    let patch: UpdatePolicy = call.json()?;
    let document = check_patch(&patch)?;
    let mut change = call.changing::<A>(app, path).await?;
    let mut row = lock(&mut change).await?;
    if let Some(name) = patch.name.filter(|name| name.as_str() != row.name) {
        row.name = name.as_str().to_owned();
        change = change.check_renamed(row.id, &row.name, &Labels::new()).await?;
        let (conn, allowed) = change.parts();
        store::refuse_name_of_cloud(conn, allowed, &row.name).await?;
    }
    row.description = patch.description.unwrap_or(row.description);
    let now = change.now;
    let (conn, allowed) = change.parts();
    if let Some(document) = document.filter(|document| *document != row.document) {
        row.default_version = store::add_version(conn, allowed, row.id, &document, now).await?;
        row.document = document;
    }
    if let Some(version) = patch.default_version {
        let stored = store::document(conn, row.id, version).await?.ok_or_else(no_version)?;
        row.document = PolicyDocument(stored).canonical("/default_version")?;
        row.default_version = version;
    }
    row.generation += 1;
    row.updated_at = now;
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

async fn delete<A: Delete + Action<On: OfResource>>(
    app: &App,
    call: &Call,
    path: PathOf<'_, A>,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<A>(app, path).await?;
    let row = lock(&mut change).await?;
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, row.id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

/// The policy of the path, which deciding has locked, if it may be changed there at all.
async fn lock<A: Action<On: OfResource>>(change: &mut Mutation<A>) -> Result<Row, ApiError> {
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    if row.managed {
        return Err(ApiError::because(
            ErrorCode::ManagedPolicy,
            "make a policy of your own with its document, and change that",
        ));
    }
    if row.project_id != allowed.project_or_cloud().map(protocol::ProjectId::as_uuid) {
        let why = "it belongs to the cloud, and is changed at /v1/policies";
        return Err(ApiError::because(ErrorCode::WrongState, why));
    }
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    Ok(row)
}

/// The new document, if the patch has one; everything else in it is fine.
fn check_patch(patch: &UpdatePolicy) -> Result<Option<serde_json::Value>, ApiError> {
    let mut errors = Vec::new();
    if let Some(description) = &patch.description {
        validate_description(description, &mut errors);
    }
    if patch.document.is_some() && patch.default_version.is_some() {
        let message = "either a new document or one that exists";
        errors.push(FieldError::new("/default_version", "invalid", message));
    }
    let document = patch.document.as_ref().and_then(|document| document.check("/document", &mut errors));
    ApiError::reject(errors)?;
    document.map(|document| serde_json::to_value(&document).map_err(ApiError::internal)).transpose()
}

fn no_version() -> ApiError {
    let message = "this policy has no such version; only the newest 50 are kept";
    ApiError::invalid(vec![FieldError::new("/default_version", "not_found", message)])
}
