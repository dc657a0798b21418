//! Making an image: empty, for a file that comes later, or of a disk, which its host sends.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::{ImageId, OperationId};

use super::super::store::imports::{self, NewImport, Origin};
use super::super::store::{self, ImageRow};
use super::super::types::{CreateImage, Defaults, Image, ImageFrom};
use super::disk;
use crate::app::App;
use crate::auth::{Allowed, New, actions};
use crate::http::{ApiError, Call, Mutation, MutationQuery, Path, Selector, tagged};
use crate::operations::{self, wait_for_end};

/// Make an image. Its content comes with `PUT …/content`, or from the disk that `source` names: then the image is
/// `importing`, and its operation tells how far it is. Deleting the image stops that.
#[utoipa::path(post, path = "/v1/projects/{project}/images", tag = "images",
    params(MutationQuery),
    request_body = CreateImage, responses(
        (status = 201, body = Image),
        (status = 202, body = Image, description = "Stored; the host of the disk is sending it"),
        (status = 200, body = Image, description = "As it is now, if the call waited for the disk"),
))]
pub(super) async fn create_image(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateImage = call.json()?;
    ApiError::reject(new.validate())?;
    match &new.source {
        Some(source) => of_disk(&app, &call, &project, &new, source).await,
        None => empty(&app, &call, &project, &new).await,
    }
}

async fn empty(app: &App, call: &Call, project: &str, new: &CreateImage) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::CreateImage>(app, (project, place(new))).await?;
    let (id, now): (ImageId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    store::insert(conn, allowed, id, new, &Defaults::default(), now).await?;
    let row = found(conn, allowed, id).await?;
    change.commit(StatusCode::CREATED, Some(row.version()), &row.into_wire()).await
}

/// The disk is held from now on, and its host told.
async fn of_disk(
    app: &App,
    call: &Call,
    project: &str,
    new: &CreateImage,
    source: &ImageFrom,
) -> Result<Response, ApiError> {
    let entry = call.entering(app, Some(project)).await?;
    let (mut change, found) = disk::find(entry, project, place(new), source).await?;
    let (id, operation): (ImageId, OperationId) = (app.clock.new_id(), app.clock.new_id());
    let now = change.now;
    let (conn, allowed) = change.parts();
    let defaults = found.defaults(conn).await?;
    store::insert(conn, allowed, id, new, &defaults, now).await?;
    let begin = operations::store::Begin {
        id: operation,
        kind: "create_image",
        resource_id: id.as_uuid(),
        resource_name: new.name.as_str(),
        request_id: call.request_id(),
        now,
    };
    operations::store::begin_until(conn, allowed, begin, now + app.imports.longest()).await?;
    // Layers and hosts are locked last.
    let origin = Origin::Disk(found.seal(app, conn).await?);
    let import = NewImport { operation, image: id.as_uuid(), origin: &origin, sha256: None, now };
    imports::insert(conn, allowed, &import).await?;
    let row = self::found(conn, allowed, id).await?;
    answer(app, change, operation, row).await
}

/// Commits, and waits for the disk when the caller asked to.
async fn answer(
    app: &App,
    change: Mutation<actions::CreateImage>,
    operation: OperationId,
    row: ImageRow,
) -> Result<Response, ApiError> {
    let wait = if change.query.dry_run { 0 } else { change.query.wait };
    let (allowed, id) = (change.allowed.clone(), row.id);
    let answer = change.commit(StatusCode::ACCEPTED, Some(row.version()), &row.into_wire()).await?;
    if wait == 0 {
        return Ok(answer);
    }
    wait_for_end(app, &allowed, operation, wait).await?;
    let row = found(&mut *app.pool.acquire().await?, &allowed, id.into()).await?;
    tagged(StatusCode::OK, row.version(), &row.into_wire())
}

fn place(new: &CreateImage) -> New<'_> {
    New { labels: &new.labels, ..New::named(new.name.as_str()) }
}

async fn found(
    conn: &mut sqlx::PgConnection,
    allowed: &Allowed<actions::CreateImage>,
    id: ImageId,
) -> Result<ImageRow, ApiError> {
    store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?.ok_or_else(ApiError::not_found)
}
