//! Uploads in parts: what has arrived stays, whatever becomes of the connection or of this server.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::UploadId;
use serde_json::json;

use super::super::receiver::MAX_FILE_BYTES;
use super::super::store::uploads::{self, LIFETIME, NewUpload, UploadRow};
use super::super::store::{self, imports::Origin};
use super::super::types::{CreateUpload, ImageUpload};
use super::import::{Wanted, accept, agreed_digest};
use super::upload::{refuse_filled, too_large};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Page, PageQuery, Path};
use crate::operations::Operation;

pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// Open uploads of one image.
const MAX_OPEN: i64 = 3;

/// Begin an upload that can go on after a broken connection. Send the file with `PATCH`, then finish it.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/uploads", tag = "images",
    params(MutationQuery),
    request_body = CreateUpload, responses(
        (status = 201, body = ImageUpload),
))]
pub(super) async fn create_image_upload(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: CreateUpload = call.json()?;
    if body.size_bytes < 1 {
        let error = FieldError::new("/size_bytes", "out_of_range", "a file has at least one byte");
        return Err(ApiError::invalid(vec![error]));
    }
    if body.size_bytes.cast_unsigned() > MAX_FILE_BYTES {
        return Err(too_large(MAX_FILE_BYTES));
    }
    let mut change = call.changing::<actions::UploadImage>(&app, (&project, &image)).await?;
    let (id, now): (UploadId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let row = store::lock(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    refuse_filled(&row)?;
    if uploads::count_open(conn, allowed, row.id).await? >= MAX_OPEN {
        let detail =
            format!("the image has {MAX_OPEN} open uploads already; go on with one of them, or delete one");
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let new = NewUpload {
        id: id.as_uuid(),
        image: row.id,
        size_bytes: body.size_bytes,
        sha256: agreed_digest(&row, body.sha256)?,
        now,
        expires_at: now + LIFETIME,
    };
    uploads::insert(conn, allowed, &new).await?;
    let upload =
        uploads::find(conn, allowed, row.id, new.id, false).await?.ok_or_else(ApiError::not_found)?;
    change.commit(StatusCode::CREATED, None, &upload.into_wire(row.id)).await
}

/// List the open uploads of an image, oldest first: at most 3.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}/uploads", tag = "images", params(PageQuery), responses(
    (status = 200, body = Page<ImageUpload>),
))]
pub(super) async fn list_image_uploads(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<axum::Json<Page<ImageUpload>>, ApiError> {
    let query = call.query::<PageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::UploadImage>(&app, (&project, &image)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    // Uploads have no names.
    let rows = match query.name() {
        None => uploads::list(conn, allowed, row.id, after, query.rows()).await?,
        Some(_) => Vec::new(),
    };
    let items = rows.into_iter().map(|upload| upload.into_wire(row.id)).collect();
    Ok(axum::Json(query.page(items, |upload: &ImageUpload| upload.id.as_uuid())))
}

/// Get an upload: how much of it has arrived.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}/uploads/{upload}", tag = "images", responses(
    (status = 200, body = ImageUpload, description = "`Upload-Offset` has the offset too, for `HEAD`"),
))]
pub(super) async fn get_image_upload(
    State(app): State<App>,
    Path((project, image, upload)): Path<(String, String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::UploadImage>(&app, (&project, &image)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    let id = parse_id(&upload)?;
    let upload = uploads::find(conn, allowed, row.id, id.as_uuid(), false).await?;
    Ok(offset_answer(upload.ok_or_else(ApiError::not_found)?, row.id))
}

/// Delete an upload with what has arrived.
#[utoipa::path(delete, path = "/v1/projects/{project}/images/{image}/uploads/{upload}", tag = "images",
    params(MutationQuery), responses((status = 204)))]
pub(super) async fn delete_image_upload(
    State(app): State<App>,
    Path((project, image, upload)): Path<(String, String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::UploadImage>(&app, (&project, &image)).await?;
    let (_, upload) = locked(&mut change, &upload).await?;
    uploads::end(change.conn(), upload.id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

/// Finish an upload of which everything has arrived: the file is put together, checked, and becomes the image.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/uploads/{upload}/finish", tag = "images",
    params(MutationQuery), responses(
        (status = 202, body = Operation),
        (status = 200, body = Operation, description = "As it is now, if the call waited for it"),
))]
pub(super) async fn finish_image_upload(
    State(app): State<App>,
    Path((project, image, upload)): Path<(String, String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::UploadImage>(&app, (&project, &image)).await?;
    let (row, upload) = locked(&mut change, &upload).await?;
    if upload.offset_bytes < upload.size_bytes {
        let detail =
            format!("{} of {} bytes have arrived; send the rest", upload.offset_bytes, upload.size_bytes);
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let sha256 = upload.expected_sha256.and_then(store::digest);
    let origin = Origin::Upload(upload.id);
    accept(&app, &call, change, Wanted { kind: "finish_image_upload", image: &row, origin, sha256 }).await
}

/// Image and upload, locked until the transaction ends. The image must wait for content.
async fn locked(
    change: &mut Mutation<actions::UploadImage>,
    upload: &str,
) -> Result<(store::ImageRow, UploadRow), ApiError> {
    let id = parse_id(upload)?;
    let (conn, allowed) = change.parts();
    let row = store::lock(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    let upload = uploads::find(conn, allowed, row.id, id.as_uuid(), true).await?;
    let upload = upload.ok_or_else(ApiError::not_found)?;
    refuse_filled(&row)?;
    Ok((row, upload))
}

pub(super) fn parse_id(upload: &str) -> Result<UploadId, ApiError> {
    upload.parse().map_err(|_| ApiError::not_found())
}

/// The upload, with its offset in the head too.
pub(super) fn offset_answer(upload: UploadRow, image: uuid::Uuid) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.offset_bytes));
    (headers, axum::Json(upload.into_wire(image))).into_response()
}
