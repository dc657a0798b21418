//! Publishing an image, advising against it, and taking either back.

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::store::{self, ImageRow};
use super::super::types::{DeprecateImage, Image};
use super::{answer, lock};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, FieldError, Mutation, MutationQuery, NoFields, Path, Selector};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(publish_image))
        .routes(routes!(unpublish_image))
        .routes(routes!(deprecate_image))
        .routes(routes!(undeprecate_image))
}

/// Let every project use an image. Only who may do so in the whole cloud may.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/publish", tag = "images",
    params(MutationQuery), responses(
        (status = 200, body = Image),
))]
async fn publish_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::PublishImage>(&app, (&project, &image)).await?;
    let (row, now) = (lock(&mut change).await?, change.now);
    let (conn, allowed) = change.parts();
    store::set_public(conn, allowed, row.id, true, now).await?;
    answer(change, row.id).await
}

/// Let only its own project and those that it is shared with use an image. Instances that others have made from it
/// stay.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/unpublish", tag = "images",
    params(MutationQuery), responses(
        (status = 200, body = Image),
))]
async fn unpublish_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::UnpublishImage>(&app, (&project, &image)).await?;
    let (row, now) = (lock(&mut change).await?, change.now);
    let (conn, allowed) = change.parts();
    store::set_public(conn, allowed, row.id, false, now).await?;
    answer(change, row.id).await
}

/// Advise against an image. It can still be used, but lists leave it out unless they are asked for it.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/deprecate", tag = "images",
    params(MutationQuery), request_body = DeprecateImage, responses(
        (status = 200, body = Image),
))]
async fn deprecate_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: DeprecateImage = call.json()?;
    let mut change = call.changing::<actions::DeprecateImage>(&app, (&project, &image)).await?;
    let (row, now) = (lock(&mut change).await?, change.now);
    let replacement = match &body.replacement {
        Some(replacement) => Some(find_replacement(&mut change, &row, replacement).await?),
        None => None,
    };
    let (conn, allowed) = change.parts();
    store::set_deprecated(conn, allowed, row.id, true, replacement, now).await?;
    answer(change, row.id).await
}

async fn find_replacement(
    change: &mut Mutation<actions::DeprecateImage>,
    row: &ImageRow,
    wanted: &str,
) -> Result<Uuid, ApiError> {
    let (conn, allowed) = change.parts();
    let found = match Selector::parse(wanted) {
        Some(selector) => store::find(conn, allowed, &selector).await?,
        None => None,
    };
    let wrong = |code, message| ApiError::invalid(vec![FieldError::new("/replacement", code, message)]);
    match found {
        None => Err(wrong("not_found", "this project has no such image")),
        Some(found) if found.id == row.id => Err(wrong("invalid", "another image than the deprecated one")),
        Some(found) => Ok(found.id),
    }
}

/// No longer advise against an image.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/undeprecate", tag = "images",
    params(MutationQuery), responses(
        (status = 200, body = Image),
))]
async fn undeprecate_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::UndeprecateImage>(&app, (&project, &image)).await?;
    let (row, now) = (lock(&mut change).await?, change.now);
    let (conn, allowed) = change.parts();
    store::set_deprecated(conn, allowed, row.id, false, None, now).await?;
    answer(change, row.id).await
}
