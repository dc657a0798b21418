//! One request of an upload in parts. What arrives is kept in pieces: a broken connection costs nothing, a killed
//! server at most one piece.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use protocol::{BlobId, UploadId};
use sqlx::PgConnection;

use super::super::blob_store::ReceiveError;
use super::super::pieces::Pieces;
use super::super::receiver::{LEASE, give_up, given_up, impatient, keep_lease};
use super::super::store::uploads::{self, LIFETIME, Part, UploadRow};
use super::super::store::{self, ImageRow};
use super::super::types::ImageUpload;
use super::upload::refuse_filled;
use super::uploads::{UPLOAD_OFFSET, offset_answer, parse_id};
use crate::app::App;
use crate::audit;
use crate::auth::{Allowed, Caller, Credential, actions, credential};
use crate::http::{ApiError, Client, ErrorCode, Path, parse_query, request_id};

/// Stored as one object; also what a killed server loses.
const PIECE_BYTES: u64 = 64 << 20;
/// Pieces of one upload; each request makes one at least.
const MAX_PIECES: i64 = 10_000;

/// Send the next bytes of an upload, from `Upload-Offset` on: all that is left, or less.
///
/// What arrives before a connection breaks is kept, in pieces of 64 MiB. Ask for the offset, and go on from there.
#[utoipa::path(patch, path = "/v1/projects/{project}/images/{image}/uploads/{upload}", tag = "images",
    params(("Upload-Offset" = i64, Header, minimum = 0, description = "Where these bytes begin: how many have arrived so far")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
        (status = 200, body = ImageUpload),
        (status = 409, description = "`offset_mismatch`: other bytes are expected, or somebody else was faster"),
))]
pub(super) async fn append_to_image_upload(
    State(app): State<App>,
    Path((project, image, upload)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let credential = credential(&parts, &app).await?;
    parse_query::<NoQuery>(&parts.uri)?;
    let appending = Appending {
        app: &app,
        credential,
        client: Client::of(&parts.extensions),
        request_id: request_id(&parts, &app),
        path: (&project, &image),
        upload: parse_id(&upload)?,
    };
    appending.run(offset(&parts.headers)?, body).await
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

fn offset(headers: &HeaderMap) -> Result<i64, ApiError> {
    let values: Vec<_> = headers.get_all(&UPLOAD_OFFSET).iter().collect();
    let text = match values[..] {
        [value] => value.to_str().ok(),
        _ => None,
    };
    let offset = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    offset.and_then(|text| text.parse().ok()).ok_or_else(|| {
        ApiError::because(
            ErrorCode::InvalidHeader,
            "Upload-Offset: one number, how many bytes have arrived; GET the upload to learn it",
        )
    })
}

struct Appending<'a> {
    app: &'a App,
    credential: Credential,
    client: Client,
    request_id: protocol::RequestId,
    /// Project and image, as the path names them.
    path: (&'a str, &'a str),
    upload: UploadId,
}

impl Appending<'_> {
    async fn run(&self, mut offset: i64, body: Body) -> Result<Response, ApiError> {
        let (image, mut upload) = self.look(offset).await?;
        let mut pieces = Pieces::new(Box::pin(impatient(body)));
        while pieces.more().await {
            let left = upload.size_bytes - offset;
            if left == 0 {
                let detail =
                    format!("the upload was announced with {} bytes, and there are more", upload.size_bytes);
                return Err(ApiError::because(ErrorCode::PayloadTooLarge, detail));
            }
            let limit = PIECE_BYTES.min(left.cast_unsigned());
            upload = self.append(offset, &mut pieces, limit).await?;
            offset = upload.offset_bytes;
        }
        if pieces.broken {
            let detail = format!("the connection broke; {offset} bytes have arrived: go on from there");
            return Err(ApiError::because(ErrorCode::BadRequest, detail));
        }
        Ok(offset_answer(upload, image.id))
    }

    /// Decides, and records a refusal.
    async fn allowed(&self, conn: &mut PgConnection) -> Result<Allowed<actions::UploadImage>, ApiError> {
        let caller = Caller::enter(conn, self.app, &self.credential, self.client, Some(self.path.0)).await?;
        match caller.decide(conn, self.path, false).await {
            Ok(allowed) => Ok(allowed),
            Err(refusal) => {
                if let Some(decided) = &refusal.decided {
                    audit::write_refusal(self.app, &caller, self.request_id, decided).await;
                }
                Err(refusal.error)
            }
        }
    }

    /// Image and upload, if bytes from there on are what it waits for.
    async fn find(
        &self,
        conn: &mut PgConnection,
        allowed: &Allowed<actions::UploadImage>,
        offset: i64,
        lock: bool,
    ) -> Result<(ImageRow, UploadRow), ApiError> {
        let image = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
        let upload = uploads::find(conn, allowed, image.id, self.upload.as_uuid(), lock).await?;
        let upload = upload.ok_or_else(ApiError::not_found)?;
        refuse_filled(&image)?;
        if upload.offset_bytes != offset {
            let detail = format!("{} bytes have arrived; go on from there", upload.offset_bytes);
            return Err(ApiError::because(ErrorCode::OffsetMismatch, detail));
        }
        if upload.pieces >= MAX_PIECES {
            let detail = format!("it has {MAX_PIECES} pieces; delete it, and send more bytes at once");
            return Err(ApiError::because(ErrorCode::WrongState, detail));
        }
        Ok((image, upload))
    }

    async fn look(&self, offset: i64) -> Result<(ImageRow, UploadRow), ApiError> {
        let mut conn = self.app.pool.acquire().await?;
        let allowed = self.allowed(&mut conn).await?;
        self.find(&mut conn, &allowed, offset, false).await
    }

    /// Stores one piece and moves the offset behind it.
    async fn append<S, E>(
        &self,
        offset: i64,
        pieces: &mut Pieces<S>,
        limit: u64,
    ) -> Result<UploadRow, ApiError>
    where
        S: futures_util::Stream<Item = Result<axum::body::Bytes, E>> + Unpin,
    {
        let (blob, now): (BlobId, _) = (self.app.clock.new_id(), self.app.clock.now());
        // The upload has been charged for.
        store::announce_blob(&mut *self.app.pool.acquire().await?, blob, None, now, now + LEASE).await?;
        let piece = Box::pin(pieces.piece(limit));
        let received = tokio::select! {
            received = self.app.images.receive(blob, piece, Some(limit), limit) => received.map_err(ours),
            error = keep_lease(self.app, blob) => Err(error),
        };
        let kept = match received {
            Ok(received) => {
                let size_bytes = received.size_bytes.cast_signed();
                self.keep(&Part { blob, start_bytes: offset, size_bytes }).await
            }
            Err(error) => Err(error),
        };
        if kept.is_err() {
            give_up(self.app, blob).await;
        }
        kept
    }

    async fn keep(&self, part: &Part) -> Result<UploadRow, ApiError> {
        let mut tx = self.app.begin().await?;
        let allowed = self.allowed(&mut tx).await?;
        let (image, upload) = self.find(&mut tx, &allowed, part.start_bytes, true).await?;
        let expires_at = self.app.clock.now() + LIFETIME;
        if !uploads::keep_part(&mut tx, &allowed, upload.id, part, expires_at).await? {
            return Err(given_up());
        }
        let upload = uploads::find(&mut tx, &allowed, image.id, upload.id, false).await?;
        tx.commit().await?;
        upload.ok_or_else(ApiError::not_found)
    }
}

fn ours<E: std::fmt::Debug>(error: ReceiveError<E>) -> ApiError {
    match error {
        ReceiveError::Store(error) => ApiError::internal(error),
        other => ApiError::internal(format!("{other:?}")),
    }
}
