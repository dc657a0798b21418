//! The serial console's log.
//!
//! Agents listen on nothing, so the log is asked for through the desired feed and arrives as a transfer: a
//! row that the host's agent fills and the waiting call empties, on whichever replicas the two happen.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::TransferId;
use protocol::agent::MAX_SERIAL_LOG_BYTES;
use tokio::time::Instant;

use super::super::store;
use crate::agents::transfers::{self, Ask};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{ApiError, Call, ErrorCode, Path};
use crate::nudge::{self, Topic};

/// How long a host has to answer.
const PATIENCE: Duration = Duration::from_secs(15);
const CONTENT_SECURITY_POLICY: HeaderName = header::CONTENT_SECURITY_POLICY;

/// Read the newest 256 KiB of the serial console's log, as the guest wrote it.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}/serial", tag = "instances",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, description = "`host_unreachable`"),
))]
pub(super) async fn get_instance_serial(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetInstanceSerial>(&app, (&project, &instance)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    drop(reading);
    let Some(host) = row.host_id.map(protocol::HostId::from) else { return Ok(text(Vec::new())) };
    if !row.host_reachable(app.clock.now()) {
        return Err(silent_host());
    }

    let id: TransferId = app.clock.new_id();
    let mut waiter = app.nudges.subscribe(Topic::Transfer(id));
    let mut tx = app.begin().await?;
    let revision = hosts::store::bump_revision(&mut tx, host).await?;
    let wanted = transfers::Wanted {
        id,
        host,
        instance: row.id.into(),
        ask: Ask::SerialLog { max_bytes: i32::try_from(MAX_SERIAL_LOG_BYTES).map_err(ApiError::internal)? },
        revision,
        now: app.clock.now(),
    };
    transfers::ask(&mut tx, &wanted).await?;
    nudge::send(&mut tx, Topic::Host(host)).await?;
    tx.commit().await?;

    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(bytes) = transfers::take(&mut *app.pool.acquire().await?, id).await? {
            return Ok(text(bytes));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(silent_host());
        }
        waiter.nudged(left.min(Duration::from_secs(1))).await;
    }
}

fn silent_host() -> ApiError {
    let detail = "the host does not send the log; the instance may well be running";
    ApiError::because(ErrorCode::HostUnreachable, detail).retry_after(5)
}

/// What a guest writes is hostile: it is text, and nothing may take it for more.
fn text(bytes: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    (headers, bytes).into_response()
}
