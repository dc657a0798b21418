//! Handlers of images.

mod append;
mod create;
mod disk;
mod export;
mod import;
mod lifecycle;
mod shares;
mod upload;
mod uploads;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::store::{Filter, ImageRow, usable};
use super::types::{Checked, Image, ImageQuery, UpdateImage, no_bios};
use crate::app::App;
use crate::auth::{Action, InProject, OfResource, actions};
use crate::http::{
    ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Page, Path, Selector, merge_labels,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create::create_image, list_images))
        .routes(routes!(get_image, update_image, delete_image))
        .routes(routes!(upload::upload_image, export::export_image))
        .routes(routes!(import::import_image))
        .routes(routes!(uploads::create_image_upload, uploads::list_image_uploads))
        .routes(routes!(
            uploads::get_image_upload,
            append::append_to_image_upload,
            uploads::delete_image_upload
        ))
        .routes(routes!(uploads::finish_image_upload))
        .merge(lifecycle::router())
        .merge(shares::router())
}

/// The image of the proof, locked, once `If-Match` holds; as it was, it is noted for the audit log.
async fn lock<A: Action<On: OfResource + InProject>>(change: &mut Mutation<A>) -> Result<ImageRow, ApiError> {
    let (conn, allowed) = change.parts();
    let row = store::lock(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    Ok(row)
}

/// Ends the call with the image as it is now.
async fn answer<A: Action<On: InProject>>(
    mut change: Mutation<A>,
    id: uuid::Uuid,
) -> Result<Response, ApiError> {
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, &Selector::Id(id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// List the images of a project, or all that it may use, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/images", tag = "images", params(ImageQuery), responses(
    (status = 200, body = Page<Image>),
))]
async fn list_images(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Image>>, ApiError> {
    let query: ImageQuery = call.query()?;
    let (scope, deprecated, state) = (query.visibility, query.deprecated, query.state);
    let (query, labels) = query.page().checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListImages>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let (name, rows) = (query.name(), query.rows());
    let filter = Filter { after, name, labels: &labels, scope, deprecated, state, rows };
    let rows = store::list(conn, allowed, &filter).await?;
    let items = rows.into_iter().map(ImageRow::into_wire).collect();
    Ok(axum::Json(query.page(items, |image: &Image| image.id.as_uuid())))
}

/// Get an image: one of the project, or, by its id, another that it may use. Who may list the images of the project
/// may get those.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}", tag = "images", responses(
    (status = 200, body = Image),
))]
async fn get_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let own = async {
        let mut reading = call.reading::<actions::GetImage>(&app, (&project, &image)).await?;
        let (conn, allowed) = reading.parts();
        store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)
    };
    let row = match (own.await, Selector::parse(&image)) {
        (Err(error), Some(Selector::Id(id))) if error.code() == Some(ErrorCode::NotFound) => {
            let mut reading = call.reading::<actions::ListImages>(&app, &project).await?;
            let (conn, allowed) = reading.parts();
            let owner = allowed.project().as_uuid();
            let found = usable::find(conn, owner, id).await?;
            found.filter(|row| row.project_id != owner).ok_or_else(ApiError::not_found)?
        }
        (found, _) => found?,
    };
    call.answer(row.version(), &row.into_wire())
}

/// Change an image's name, description, labels or properties. Instances that exist keep what they were made with.
#[utoipa::path(patch, path = "/v1/projects/{project}/images/{image}", tag = "images", params(MutationQuery),
    request_body = UpdateImage, responses(
        (status = 200, body = Image),
))]
async fn update_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateImage = call.json()?;
    let mut change = call.changing::<actions::UpdateImage>(&app, (&project, &image)).await?;
    let mut row = lock(&mut change).await?;
    ApiError::reject(merge(&mut row, patch))?;
    row.generation += 1;
    row.updated_at = change.now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    answer(change, row.id).await
}

/// The image after the patch, and what is wrong with it.
fn merge(row: &mut ImageRow, patch: UpdateImage) -> Vec<FieldError> {
    let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    if let Some(name) = patch.name {
        row.name = name.as_str().to_owned();
    }
    if let Some(description) = patch.description {
        row.description = description;
    }
    if let Some(architecture) = patch.architecture {
        row.architecture = architecture.as_str().to_owned();
    }
    if let Some(firmware) = patch.firmware {
        row.firmware = firmware.as_str().to_owned();
    }
    row.min_disk_gib = patch.min_disk_gib.map_or(row.min_disk_gib, |size| signed(size.0));
    row.min_memory_mib = patch.min_memory_mib.map_or(row.min_memory_mib, |size| signed(size.0));
    if let Some(default_user) = patch.default_user {
        row.default_user = default_user;
    }
    row.labels.0 = merge_labels(std::mem::take(&mut row.labels.0), patch.labels);
    let checked = Checked {
        description: &row.description,
        labels: &row.labels,
        min_disk_gib: row.min_disk_gib.unsigned_abs(),
        min_memory_mib: row.min_memory_mib.unsigned_abs(),
        default_user: row.default_user.as_deref(),
    };
    checked.validate().into_iter().chain(no_bios(&row.architecture, &row.firmware)).collect()
}

/// Delete an image. From now on nobody finds it or makes instances from it; those that exist keep what they need.
#[utoipa::path(delete, path = "/v1/projects/{project}/images/{image}", tag = "images", params(MutationQuery), responses(
    (status = 204),
))]
async fn delete_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteImage>(&app, (&project, &image)).await?;
    let row = lock(&mut change).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, row.id, now).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
