//! The host's half of a console: a connection that becomes the console's bytes.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::ConsoleId;
use protocol::agent::{CONSOLE_PROTOCOL, RequestQuery};

use super::peer::Host;
use crate::app::App;
use crate::http::{ApiError, ErrorCode, Path, parse_query};

/// The host brings the console that it was asked for, to the replica that waits for it.
pub(super) async fn bring(
    State(app): State<App>,
    host: Host,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let query: RequestQuery = parse_query(request.uri())?;
    let id: ConsoleId = id.parse().map_err(|_| ApiError::not_found())?;
    if request.headers().get(header::UPGRADE).is_none_or(|protocol| protocol != CONSOLE_PROTOCOL) {
        return Err(ApiError::because(ErrorCode::BadRequest, "ask for an upgrade to cumulo-console"));
    }
    host.session(&mut *app.pool.acquire().await?, query.epoch).await?;
    let Some(place) = app.consoles.claim(id, host.0) else {
        let detail =
            "nobody waits for this console here; with several replicas, each needs its own --agent-url";
        return Err(ApiError::because(ErrorCode::NotFound, detail));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            // Whoever waited may have gone.
            Ok(half) => drop(place.send(half)),
            Err(error) => tracing::info!(%error, %id, "the host's half of a console broke off"),
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(CONSOLE_PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
}
