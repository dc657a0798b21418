//! Importing: the call stores what is wanted; controllers do it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::{OperationId, Sha256};

use super::super::store::imports::{self, NewImport, Origin};
use super::super::store::{self, ImageRow};
use super::super::types::ImportImage;
use super::upload::refuse_filled;
use crate::app::App;
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, Call, FieldError, Mutation, MutationQuery, Path};
use crate::operations::{self, Operation, wait_for_end};

/// Fetch the file of an image from a server on the Internet. The operation tells how far it is; cancel that to stop.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/import", tag = "images",
    params(MutationQuery),
    request_body = ImportImage, responses(
        (status = 202, body = Operation),
        (status = 200, body = Operation, description = "As it is now, if the call waited for it"),
))]
pub(super) async fn import_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: ImportImage = call.json()?;
    let url = app.imports.check(&body.url);
    let url = url.map_err(|why| ApiError::invalid(vec![FieldError::new("/url", "invalid", why)]))?;
    let mut change = call.changing::<actions::ImportImage>(&app, (&project, &image)).await?;
    let (conn, allowed) = change.parts();
    let row = store::lock(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    refuse_filled(&row)?;
    let sha256 = agreed_digest(&row, body.sha256)?;
    let origin = Origin::Url(url.into());
    accept(&app, &call, change, Wanted { kind: "import_image", image: &row, origin, sha256 }).await
}

/// The digest of the file: of the image and of this call, which must not differ.
pub(super) fn agreed_digest(image: &ImageRow, given: Option<Sha256>) -> Result<Option<Sha256>, ApiError> {
    let expected = image.expected_sha256.clone().and_then(store::digest);
    match (expected, given) {
        (Some(expected), Some(given)) if expected != given => {
            let message = format!("the image was made for a file of sha256 {expected}");
            Err(ApiError::invalid(vec![FieldError::new("/sha256", "invalid", message)]))
        }
        (expected, given) => Ok(given.or(expected)),
    }
}

/// What is to fill an image.
pub(super) struct Wanted<'a> {
    pub kind: &'static str,
    pub image: &'a ImageRow,
    pub origin: Origin,
    pub sha256: Option<Sha256>,
}

/// Stores the import with its operation, and waits for that when the caller asked to.
pub(super) async fn accept<A: Action<On: InProject>>(
    app: &App,
    call: &Call,
    mut change: Mutation<A>,
    wanted: Wanted<'_>,
) -> Result<Response, ApiError> {
    let (id, now): (OperationId, _) = (app.clock.new_id(), change.now);
    change.note_before(&wanted.image.clone().into_wire());
    let (conn, allowed) = change.parts();
    let begin = operations::store::Begin {
        id,
        kind: wanted.kind,
        resource_id: wanted.image.id,
        resource_name: &wanted.image.name,
        request_id: call.request_id(),
        now,
    };
    let deadline = now + app.imports.longest();
    operations::store::begin_until(conn, allowed, begin, deadline).await?;
    let Wanted { image, origin, sha256, .. } = wanted;
    let new = NewImport { operation: id, image: image.id, origin: &origin, sha256, now };
    imports::insert(conn, allowed, &new).await?;
    let operation = found(conn, allowed, id).await?;
    let (allowed, query) = (change.allowed.clone(), change.query);
    let answer = change.commit(StatusCode::ACCEPTED, None, &operation).await?;
    if query.dry_run || query.wait == 0 {
        return Ok(answer);
    }
    let operation = wait_for_end(app, &allowed, id, query.wait).await?;
    Ok(axum::Json(operation).into_response())
}

async fn found<A: Action<On: InProject>>(
    conn: &mut sqlx::PgConnection,
    allowed: &Allowed<A>,
    id: OperationId,
) -> Result<Operation, ApiError> {
    operations::store::find(conn, allowed, id.as_uuid()).await?.ok_or_else(ApiError::not_found)
}
