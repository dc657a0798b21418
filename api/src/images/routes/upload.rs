//! The upload: a stream from the client into the image store, never held in memory.
//!
//! ```text
//! transaction 1   may they, is the image empty, announce a blob with a lease
//! no transaction  stream and hash; compare with the promised digest; inspect without trust
//! transaction 2   may they still, keep the blob (or one of equal content), fill the image
//! ```
//!
//! Whatever ends in between leaves a blob that the sweeper removes when its lease is over.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use protocol::image::Format;
use protocol::{BlobId, RequestId, Sha256};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::blob_store::ReceiveError;
use super::super::receiver::{
    BrokenOff, LEASE, MAX_FILE_BYTES, Rejected, give_up, given_up, impatient, inspect, keep_lease, metered,
    whole_gib,
};
use super::super::store::{self, Content, ImageRow};
use super::super::types::Image;
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};
use crate::auth::{Allowed, Caller, Credential, actions, credential};
use crate::http::{ApiError, Client, ErrorCode, Path, dry_answer, parse_query, request_id, tagged};

/// Send the file of an image, as it is.
#[utoipa::path(put, path = "/v1/projects/{project}/images/{image}/content", tag = "images",
    params(UploadQuery), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
        (status = 200, body = Image),
        (status = 422, description = "`checksum_mismatch`, or `image_refused` with the reason"),
))]
pub(super) async fn upload_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let credential = credential(&parts, &app).await?;
    let query: UploadQuery = parse_query(&parts.uri)?;
    let announced =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > MAX_FILE_BYTES) {
        return Err(too_large(MAX_FILE_BYTES));
    }
    let upload = Upload {
        app: &app,
        credential,
        client: Client::of(&parts.extensions),
        request_id: request_id(&parts, &app),
        headers: &parts.headers,
        path: (&project, &image),
        blob: app.clock.new_id(),
        dry_run: query.dry_run,
    };
    let image = upload.announce(announced).await?;
    let done = upload.receive(&image, body, announced).await;
    let row = match done {
        Ok(content) => upload.keep(&content).await,
        Err(error) => Err(error),
    };
    if query.dry_run || row.is_err() {
        give_up(&app, upload.blob).await;
    }
    let (version, image) = row.map(|row| (row.version(), row.into_wire()))?;
    if query.dry_run { dry_answer(&image) } else { tagged(StatusCode::OK, version, &image) }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// Check everything, the content too, keep nothing, and answer with the would-be image.
    #[serde(default)]
    dry_run: bool,
}

struct Upload<'a> {
    app: &'a App,
    credential: Credential,
    client: Client,
    request_id: RequestId,
    headers: &'a HeaderMap,
    /// Project and image, as the path names them.
    path: (&'a str, &'a str),
    blob: BlobId,
    dry_run: bool,
}

impl Upload<'_> {
    /// Decides, and records a refusal.
    async fn allowed(
        &self,
        conn: &mut sqlx::PgConnection,
        lock: bool,
    ) -> Result<(Caller, Allowed<actions::UploadImage>), ApiError> {
        let caller = Caller::enter(conn, self.app, &self.credential, self.client, Some(self.path.0)).await?;
        match caller.decide(conn, self.path, lock).await {
            Ok(allowed) => Ok((caller, allowed)),
            Err(refusal) => {
                if let Some(decided) = &refusal.decided {
                    audit::write_refusal(self.app, &caller, self.request_id, decided).await;
                }
                Err(refusal.error)
            }
        }
    }

    async fn announce(&self, announced: Option<u64>) -> Result<ImageRow, ApiError> {
        let now = self.app.clock.now();
        let mut tx = self.app.begin().await?;
        let (_, allowed) = self.allowed(&mut tx, false).await?;
        let image =
            store::find(&mut tx, &allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
        self.check(&image)?;
        store::announce_blob(&mut tx, self.blob, Some(image.project_id), now, now + LEASE).await?;
        store::hold(&mut tx, self.blob, whole_gib(announced.unwrap_or(1))).await?;
        tx.commit().await?;
        Ok(image)
    }

    /// Stores and judges the bytes.
    async fn receive(
        &self,
        image: &ImageRow,
        body: Body,
        announced: Option<u64>,
    ) -> Result<Content, ApiError> {
        let format = Format::from_name(&image.format).ok_or_else(|| ApiError::internal("unknown format"))?;
        let expected = image.expected_sha256.clone().and_then(store::digest);
        let stream = Box::pin(metered(self.app, self.blob, announced, impatient(body)));
        let received = tokio::select! {
            received = self.app.images.receive(self.blob, stream, announced, MAX_FILE_BYTES) => {
                received.map_err(refusal)?
            }
            error = keep_lease(self.app, self.blob) => return Err(error),
        };
        check_digest(expected, received.sha256)?;
        inspect(self.app, self.blob, format, received).await.map_err(|rejected| match rejected {
            Rejected::Refused(why) => ApiError::because(ErrorCode::ImageRefused, why),
            Rejected::Unreadable(error) => error,
        })
    }

    async fn keep(&self, content: &Content) -> Result<ImageRow, ApiError> {
        let mut tx = self.app.begin().await?;
        let (caller, allowed) = self.allowed(&mut tx, true).await?;
        let image =
            store::lock(&mut tx, &allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
        self.check(&image)?;
        let blob = store::keep_blob(&mut tx, self.blob, content).await?;
        let blob = blob.ok_or_else(given_up)?;
        store::set_blob(&mut tx, image.id, blob, self.app.clock.now()).await?;
        let row =
            store::find(&mut tx, &allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
        let mut deed = Deed::of(allowed.decided());
        deed.before = serde_json::to_value(image.into_wire()).ok();
        deed.after = serde_json::to_value(row.clone().into_wire()).ok();
        audit::write(&mut tx, self.app, &Actor::of(&caller), self.request_id, Outcome::Allowed, deed).await?;
        if self.dry_run {
            tx.rollback().await?;
        } else {
            tx.commit().await?;
        }
        Ok(row)
    }

    fn check(&self, image: &ImageRow) -> Result<(), ApiError> {
        image.version().check_if_match(self.headers)?;
        refuse_filled(image)
    }
}

/// Refuses what has its content, or is about to get it.
pub(super) fn refuse_filled(image: &ImageRow) -> Result<(), ApiError> {
    let why = if image.blob_id.is_some() {
        "the image has its content already; make another image for another file"
    } else if image.import_state.as_deref() == Some("importing") {
        "the image is being imported; wait for its operation, or cancel it"
    } else {
        return Ok(());
    };
    Err(ApiError::because(ErrorCode::WrongState, why))
}

fn check_digest(expected: Option<Sha256>, received: Sha256) -> Result<(), ApiError> {
    match expected {
        Some(expected) if expected != received => {
            let detail = format!("announced sha256 {expected}, received {received}; send the file again");
            Err(ApiError::because(ErrorCode::ChecksumMismatch, detail))
        }
        _ => Ok(()),
    }
}

fn refusal(error: ReceiveError<BrokenOff<axum::Error>>) -> ApiError {
    match error {
        ReceiveError::Sender(BrokenOff::NotHeld(error)) => error.into(),
        ReceiveError::Sender(BrokenOff::Sender(_)) => {
            ApiError::because(ErrorCode::BadRequest, "the upload ended before it was complete; send it again")
        }
        ReceiveError::TooLarge { limit } => too_large(limit),
        ReceiveError::Store(other) => ApiError::internal(other),
    }
}

pub(super) fn too_large(limit: u64) -> ApiError {
    ApiError::because(ErrorCode::PayloadTooLarge, format!("an image file has at most {} GiB", limit >> 30))
}
