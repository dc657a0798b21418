//! Handlers of key pairs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::KeyPairId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model;
use super::store;
use super::types::{CreateKeyPair, CreatedKeyPair, KeyPair, UpdateKeyPair};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{
    ApiError, Call, FieldError, LabelledPageQuery, MutationQuery, Page, Path, merge_labels, validate_labels,
};

const SHOWN_ONCE: &str = "the private key was in the first answer to this request and is kept nowhere; if that is \
     lost, delete this key pair and make another one";
const NOT_ON_A_DRY_RUN: &str = "a dry run makes no key";

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_key_pair, list_key_pairs)).routes(routes!(
        get_key_pair,
        update_key_pair,
        delete_key_pair
    ))
}

/// Take in a public key, or generate a key. The answer to the latter has the private key; a repetition under the same
/// `Idempotency-Key` has not.
#[utoipa::path(post, path = "/v1/projects/{project}/key_pairs", tag = "key_pairs", params(MutationQuery),
    request_body = CreateKeyPair, responses(
        (status = 201, body = CreatedKeyPair),
))]
async fn create_key_pair(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateKeyPair = call.json()?;
    let mut errors = Vec::new();
    validate_labels(&new.labels, &mut errors);
    let given = match new.public_key.as_deref().map(model::read) {
        Some(Err(message)) => {
            errors.push(FieldError::new("/public_key", "invalid", message));
            None
        }
        Some(Ok(key)) => Some(key),
        None => None,
    };
    ApiError::reject(errors)?;
    let place = New { labels: &new.labels, ..New::named(new.name.as_str()) };
    let mut change = call.changing::<actions::CreateKeyPair>(&app, (&project, place)).await?;
    let (id, now): (KeyPairId, _) = (app.clock.new_id(), change.now);
    let (key, private) = match given {
        Some(key) => (key, None),
        None => {
            let (key, private) = model::generate(new.name.as_str())?;
            (key, Some(private))
        }
    };
    let (conn, allowed) = change.parts();
    let row = store::insert(conn, allowed, id, &new, &key, now).await?;
    let version = row.version();
    let key_pair = row.into_wire();
    let Some(private) = private else {
        return change.commit(StatusCode::CREATED, Some(version), &key_pair).await;
    };
    let (shown, detail) = match change.query.dry_run {
        true => (None, Some(NOT_ON_A_DRY_RUN)),
        false => (Some(private.as_str()), None),
    };
    let answer =
        CreatedKeyPair { key_pair: key_pair.clone(), private_key: shown, private_key_detail: detail };
    let recorded = CreatedKeyPair { key_pair, private_key: None, private_key_detail: Some(SHOWN_ONCE) };
    change.commit_secret(StatusCode::CREATED, &answer, &recorded).await
}

/// List the key pairs of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/key_pairs", tag = "key_pairs", params(LabelledPageQuery),
    responses(
        (status = 200, body = Page<KeyPair>),
))]
async fn list_key_pairs(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<KeyPair>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListKeyPairs>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |key_pair: &KeyPair| key_pair.id.as_uuid())))
}

/// Get a key pair.
#[utoipa::path(get, path = "/v1/projects/{project}/key_pairs/{key_pair}", tag = "key_pairs", responses(
    (status = 200, body = KeyPair),
))]
async fn get_key_pair(
    State(app): State<App>,
    Path((project, key_pair)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetKeyPair>(&app, (&project, &key_pair)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a key pair's name or labels.
#[utoipa::path(patch, path = "/v1/projects/{project}/key_pairs/{key_pair}", tag = "key_pairs",
    params(MutationQuery), request_body = UpdateKeyPair, responses(
        (status = 200, body = KeyPair),
))]
async fn update_key_pair(
    State(app): State<App>,
    Path((project, key_pair)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateKeyPair = call.json()?;
    let mut change = call.changing::<actions::UpdateKeyPair>(&app, (&project, &key_pair)).await?;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    let mut errors = Vec::new();
    validate_labels(&row.labels.0, &mut errors);
    ApiError::reject(errors)?;
    row.generation += 1;
    row.updated_at = change.now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels.0).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a key pair. Instances that were made with it keep its public key.
#[utoipa::path(delete, path = "/v1/projects/{project}/key_pairs/{key_pair}", tag = "key_pairs",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn delete_key_pair(
    State(app): State<App>,
    Path((project, key_pair)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteKeyPair>(&app, (&project, &key_pair)).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    change.note_before(&row.into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
