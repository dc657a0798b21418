//! The upload: a stream from the client into the image store, never held in memory.
//!
//! ```text
//! transaction 1   may they, is the image empty, announce a blob with a lease
//! no transaction  stream and hash; compare with the promised digest; inspect without trust
//! transaction 2   may they still, keep the blob (or one of equal content), fill the image
//! ```
//!
//! Whatever ends in between leaves a blob that the sweeper removes when its lease is over.

use std::time::Duration as Patience;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use protocol::image::{self, Format, InspectError};
use protocol::{BlobId, RequestId, Sha256};
use serde::Deserialize;
use time::Duration;
use tokio::runtime::Handle;
use utoipa::IntoParams;

use super::super::blob_reader::BlobReader;
use super::super::blob_store::{ImageStoreError, Received};
use super::super::store::{self, Content, ImageRow};
use super::super::types::Image;
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};
use crate::auth::{Allowed, Caller, Credential, actions, credential};
use crate::http::{ApiError, Client, ErrorCode, Path, dry_answer, parse_query, request_id, tagged};

/// The largest file.
const MAX_FILE_BYTES: u64 = 256 << 30;
const LEASE: Duration = Duration::minutes(10);
/// The lease is renewed this often.
const RENEW: Patience = Patience::from_secs(60);
/// A sender that is silent for this long has gone.
const SILENCE: Patience = Patience::from_secs(60);

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
    let image = upload.announce().await?;
    let done = upload.receive(&image, body).await;
    let row = match done {
        Ok(content) => upload.keep(&content).await,
        Err(error) => Err(error),
    };
    if query.dry_run || row.is_err() {
        upload.give_up().await;
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

    async fn announce(&self) -> Result<ImageRow, ApiError> {
        let now = self.app.clock.now();
        let mut tx = self.app.pool.begin().await?;
        let (_, allowed) = self.allowed(&mut tx, false).await?;
        let image =
            store::find(&mut tx, &allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
        self.check(&image)?;
        store::announce_blob(&mut tx, &allowed, self.blob, now, now + LEASE).await?;
        tx.commit().await?;
        Ok(image)
    }

    /// Stores and judges the bytes.
    async fn receive(&self, image: &ImageRow, body: Body) -> Result<Content, ApiError> {
        let format = Format::from_name(&image.format).ok_or_else(|| ApiError::internal("unknown format"))?;
        let expected = image.expected_sha256.clone().and_then(store::digest);
        let stream = Box::pin(impatient(body));
        let received = tokio::select! {
            received = self.app.images.receive(self.blob, stream, MAX_FILE_BYTES) => received.map_err(refusal)?,
            error = self.keep_lease() => return Err(error),
        };
        check_digest(expected, received.sha256)?;
        self.inspect(format, received).await
    }

    /// Renews the lease for ever; returns only when that is impossible.
    async fn keep_lease(&self) -> ApiError {
        loop {
            tokio::time::sleep(RENEW).await;
            let until = self.app.clock.now() + LEASE;
            let renewed =
                async { store::renew_lease(&mut *self.app.pool.acquire().await?, self.blob, until).await };
            match renewed.await {
                Ok(true) => {}
                Ok(false) => return ApiError::because(ErrorCode::WrongState, "the upload was given up"),
                // The lease outlives a restart of the database.
                Err(error) => tracing::info!(%error, "cannot renew the lease of an upload; trying again"),
            }
        }
    }

    async fn inspect(&self, format: Format, received: Received) -> Result<Content, ApiError> {
        let length = received.size_bytes;
        let mut reader = BlobReader::new(self.app.images.clone(), Handle::current(), self.blob, length);
        let inspected = tokio::task::spawn_blocking(move || image::inspect(&mut reader, format, length))
            .await
            .map_err(ApiError::internal)?;
        let info = inspected.map_err(|error| match error {
            InspectError::Read(source) => ApiError::internal(source),
            refused => ApiError::because(ErrorCode::ImageRefused, format!("{}: {refused}", refused.code())),
        })?;
        Ok(Content {
            sha256: received.sha256,
            format,
            size_bytes: length.cast_signed(),
            virtual_size_bytes: info.virtual_size_bytes.cast_signed(),
        })
    }

    async fn keep(&self, content: &Content) -> Result<ImageRow, ApiError> {
        let mut tx = self.app.pool.begin().await?;
        let (caller, allowed) = self.allowed(&mut tx, true).await?;
        let image =
            store::lock(&mut tx, &allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
        self.check(&image)?;
        let blob = store::keep_blob(&mut tx, &allowed, self.blob, content).await?;
        let blob = blob.ok_or_else(|| ApiError::because(ErrorCode::WrongState, "the upload was given up"))?;
        store::set_blob(&mut tx, &allowed, image.id, blob, self.app.clock.now()).await?;
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

    /// Best effort: the lease does the same later.
    async fn give_up(&self) {
        if let Err(error) = self.discard().await {
            tracing::info!(%error, blob = %self.blob, "an abandoned upload waits for its lease to end");
        }
    }

    /// Leaves the file to the sweeper, unless the sweeper has been here already: it took the lease for over,
    /// and the file may have been finished after that.
    async fn discard(&self) -> Result<(), ApiError> {
        let mut conn = self.app.pool.acquire().await?;
        store::discard_blob(&mut conn, self.blob).await?;
        if !store::is_announced(&mut conn, self.blob).await? {
            self.app.images.remove(self.blob).await.map_err(ApiError::internal)?;
        }
        Ok(())
    }
}

/// The body's bytes; an error when none come for a while.
fn impatient(body: Body) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    futures_util::stream::unfold(body.into_data_stream(), |mut stream| async {
        let next = tokio::time::timeout(SILENCE, stream.next()).await;
        let chunk = next.unwrap_or_else(|elapsed| Some(Err(axum::Error::new(elapsed))))?;
        Some((chunk, stream))
    })
}

fn refuse_filled(image: &ImageRow) -> Result<(), ApiError> {
    match image.blob_id {
        Some(_) => Err(ApiError::because(
            ErrorCode::WrongState,
            "the image has its content already; make another image for another file",
        )),
        None => Ok(()),
    }
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

fn refusal(error: ImageStoreError) -> ApiError {
    match error {
        ImageStoreError::Sender(_) => {
            ApiError::because(ErrorCode::BadRequest, "the upload ended before it was complete; send it again")
        }
        ImageStoreError::TooLarge { limit } => too_large(limit),
        other => ApiError::internal(other),
    }
}

fn too_large(limit: u64) -> ApiError {
    ApiError::because(ErrorCode::PayloadTooLarge, format!("an image file has at most {} GiB", limit >> 30))
}
