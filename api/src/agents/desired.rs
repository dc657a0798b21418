//! The desired feed, and the bytes of the images that it names.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use protocol::agent::{DesiredBody, DesiredObject, DesiredPage, DesiredQuery, MAX_WAIT_SECONDS};
use protocol::{Revision, Sha256};
use tokio::time::Instant;

use super::peer::Host;
use super::transfers;
use crate::app::App;
use crate::http::{ApiError, Path, parse_query};
use crate::images;
use crate::instances::store::hosts::desired_after;
use crate::nudge::Topic;

/// What is newer than `after`; waits for it if nothing is. A nudge that was lost is said again by [`super::lost_nudges`].
pub(super) async fn get(State(app): State<App>, host: Host, uri: Uri) -> Result<Json<DesiredPage>, ApiError> {
    let query: DesiredQuery = parse_query(&uri)?;
    let until = Instant::now() + Duration::from_secs(query.wait_seconds.min(MAX_WAIT_SECONDS).into());
    let mut waiter = app.nudges.subscribe(Topic::Host(host.0));
    loop {
        // One snapshot: the revision and the objects belong together.
        let mut tx = app.begin_reading().await?;
        let session = host.session(&mut tx, query.epoch).await?;
        // Who has seen more than there is, has seen another database: this one was restored.
        let after = if query.after > session.desired_revision { Revision(0) } else { query.after };
        let (mut objects, mut requests) = (Vec::new(), Vec::new());
        if session.desired_revision > after {
            objects = desired_after(&mut tx, host.0, after).await?;
            objects.extend(images::orders_after(&mut tx, host.0, after).await?);
            let max_seconds = app.consoles.max_seconds();
            requests = transfers::requests_after(&mut tx, host.0, after, max_seconds).await?;
        }
        tx.commit().await?;
        if session.network_revision > after {
            // Changes come before the revision that tells of them, so one that is read later lacks none of this.
            let document = Box::new(app.documents.of(&app.pool, host.0).await?);
            objects.push(DesiredObject {
                revision: session.network_revision,
                body: DesiredBody::Network(document),
            });
        }
        // A card never comes before the network that it is in.
        objects.sort_by_key(|object| (object.revision, !matches!(object.body, DesiredBody::Network(_))));
        let left = until.saturating_duration_since(Instant::now());
        let complete = after.0 == 0;
        if !objects.is_empty() || !requests.is_empty() || complete || left.is_zero() {
            let revision = session.desired_revision;
            let page = DesiredPage { revision, complete, objects, requests };
            return Ok(Json(page.for_version(session.protocol_version)));
        }
        waiter.nudged(left).await;
    }
}

/// The bytes of an image, if the host has a volume made from it.
pub(super) async fn get_blob(
    State(app): State<App>,
    host: Host,
    Path(sha256): Path<String>,
) -> Result<Response, ApiError> {
    let sha256: Sha256 = sha256.parse().map_err(|_| ApiError::not_found())?;
    let found = images::blob_for_host(&mut *app.pool.acquire().await?, host.0, sha256).await?;
    let (blob, size) = found.ok_or_else(ApiError::not_found)?;
    let stream = app.images.stream(blob).await.map_err(ApiError::internal)?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}
