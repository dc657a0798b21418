//! The serial console's log.
//!
//! Agents listen on nothing, so the log is asked for through the desired feed and arrives as a transfer: a
//! row that the host's agent fills and the waiting call empties, on whichever replicas the two happen.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::agent::MAX_SERIAL_LOG_BYTES;

use super::super::store;
use crate::agents::asking::{Answer, ask_for_bytes};
use crate::agents::transfers::Ask;
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, Path};

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
    let principal = allowed.principal();
    drop(reading);
    let Some(host) = row.host_id.map(protocol::HostId::from) else { return Ok(text(Vec::new())) };
    if !row.host_reachable(app.clock.now()) {
        return Err(silent_host());
    }

    let max_bytes = i32::try_from(MAX_SERIAL_LOG_BYTES).map_err(ApiError::internal)?;
    let ask = Ask::SerialLog { max_bytes };
    match ask_for_bytes(&app, host, row.id.into(), principal, ask).await? {
        Answer::Bytes(bytes) => Ok(text(bytes)),
        Answer::Refused(_) | Answer::Silence => Err(silent_host()),
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
