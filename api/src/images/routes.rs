//! Handlers of images.

mod append;
mod export;
mod import;
mod upload;
mod uploads;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::ImageId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{CreateImage, Image};
use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{
    ApiError, Call, FieldError, LabelledPageQuery, MutationQuery, Page, Path, Selector, validate_description,
    validate_labels,
};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_image, list_images))
        .routes(routes!(get_image, delete_image))
        .routes(routes!(upload::upload_image, export::export_image))
        .routes(routes!(import::import_image))
        .routes(routes!(uploads::create_image_upload))
        .routes(routes!(
            uploads::get_image_upload,
            append::append_to_image_upload,
            uploads::delete_image_upload
        ))
        .routes(routes!(uploads::finish_image_upload))
}

/// Make an image. Its content comes with `PUT …/content`.
#[utoipa::path(post, path = "/v1/projects/{project}/images", tag = "images",
    params(MutationQuery),
    request_body = CreateImage, responses(
        (status = 201, body = Image),
))]
async fn create_image(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateImage = call.json()?;
    ApiError::reject(validate(&new))?;
    let place = New { labels: &new.labels, ..New::named(new.name.as_str()) };
    let mut change = call.changing::<actions::CreateImage>(&app, (&project, place)).await?;
    let (id, now): (ImageId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    store::insert(conn, allowed, id, &new, now).await?;
    let selector = Selector::Id(id.as_uuid());
    let row = store::find(conn, allowed, &selector).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

fn validate(new: &CreateImage) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_description(&new.description, &mut errors);
    validate_labels(&new.labels, &mut errors);
    errors
}

/// List the images of a project.
#[utoipa::path(get, path = "/v1/projects/{project}/images", tag = "images", params(LabelledPageQuery), responses(
    (status = 200, body = Page<Image>),
))]
async fn list_images(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Image>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListImages>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let items = rows.into_iter().map(store::ImageRow::into_wire).collect();
    Ok(axum::Json(query.page(items, |image: &Image| image.id.as_uuid())))
}

/// Get an image.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}", tag = "images", responses(
    (status = 200, body = Image),
))]
async fn get_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetImage>(&app, (&project, &image)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Delete an image that no instance is made from any more.
#[utoipa::path(delete, path = "/v1/projects/{project}/images/{image}", tag = "images", params(MutationQuery), responses(
    (status = 204),
))]
async fn delete_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteImage>(&app, (&project, &image)).await?;
    let (conn, allowed) = change.parts();
    let row = store::lock(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, &row).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
