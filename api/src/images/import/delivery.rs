//! Disks that their hosts send. A host is believed nothing: it may send what it was ordered to, as often as it takes,
//! and what it sends is an upload like any other.

use axum::body::Body;
use futures_util::{StreamExt, TryStreamExt};
use protocol::agent::{MAX_DETAIL_CHARS, Sending};
use protocol::{BlobId, HostId, TransferId};
use sqlx::PgConnection;

use super::fetch::FetchError;
use super::job::{Ended, Incoming, Job, LEASE};
use crate::agents::clean;
use crate::app::App;
use crate::http::{ApiError, ErrorCode};
use crate::images::receiver::impatient;
use crate::images::store::disks::{self, Taken};
use crate::images::store::imports;
use crate::operations::store as operations;

/// An attempt of a host at an order.
pub(crate) struct Delivery {
    job: Job,
}

/// Begins an attempt of this host.
///
/// # Errors
/// `not_found` when it has no such order any more, `busy` while another attempt lasts.
pub(crate) async fn begin(
    conn: &mut PgConnection,
    app: &App,
    host: HostId,
    order: TransferId,
) -> Result<Delivery, ApiError> {
    let (blob, now): (BlobId, _) = (app.clock.new_id(), app.clock.now());
    match disks::take_order(conn, host, order, blob, now, now + LEASE).await? {
        Taken::Begun(claimed) => Ok(Delivery { job: Job { app: app.clone(), claimed: *claimed } }),
        Taken::Gone => Err(gone()),
        Taken::Busy(until) => {
            let seconds = u32::try_from((until - now).whole_seconds()).unwrap_or(1);
            Err(ApiError::new(ErrorCode::Busy).retry_after(seconds.max(1)))
        }
    }
}

impl Delivery {
    /// Takes the file in. In a task of its own, so that a host that goes away leaves a broken attempt and none that
    /// nobody ends.
    ///
    /// # Errors
    /// When the image does not have it now.
    pub(crate) async fn take(self, body: Body, length: Option<u64>) -> Result<(), ApiError> {
        let broken = |_| FetchError::broken("the host broke off".to_owned());
        let bytes = impatient(body).map_err(broken).boxed();
        let attempt = tokio::spawn(Box::pin(self.job.run(Some(Incoming { bytes, length }))));
        match attempt.await.map_err(ApiError::internal)?? {
            Ended::Filled => Ok(()),
            Ended::Failed(error) => Err(ApiError::because(ErrorCode::ImageRefused, error.detail)),
            Ended::Again => Err(ApiError::because(ErrorCode::BadRequest, "it did not arrive; send it again")),
            Ended::Lost => Err(gone()),
        }
    }
}

/// What a host says of an order before it sends.
///
/// # Errors
/// `not_found` when it has no such order any more.
pub(crate) async fn note(
    conn: &mut PgConnection,
    app: &App,
    host: HostId,
    order: TransferId,
    said: &Sending,
) -> Result<(), ApiError> {
    let order = disks::find_order(conn, host, order).await?.ok_or_else(gone)?;
    let now = app.clock.now();
    match said {
        Sending::Converting => operations::step(conn, order.operation, "disk_copying", now, None).await?,
        Sending::Waiting { detail } => {
            let detail = clean(detail, MAX_DETAIL_CHARS);
            operations::step(conn, order.operation, "disk_copy_delayed", now, Some(&detail)).await?;
        }
        Sending::Failed { detail } => {
            let detail = clean(detail, MAX_DETAIL_CHARS);
            imports::fail(conn, order.operation, order.image, "export_failed", &detail, now).await?;
        }
    }
    Ok(())
}

fn gone() -> ApiError {
    ApiError::because(ErrorCode::NotFound, "nobody waits for this image")
}
