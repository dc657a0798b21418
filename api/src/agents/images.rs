//! Images that hosts make of disks.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use protocol::TransferId;
use protocol::agent::{ImageStatus, SendQuery};

use super::peer::Host;
use crate::app::App;
use crate::http::{ApiError, JsonBody, Path, parse_query};
use crate::images::delivery;

/// The host sends the file.
pub(super) async fn take(
    State(app): State<App>,
    host: Host,
    Path(order): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    let query: SendQuery = parse_query(&parts.uri)?;
    let order = parse(&order)?;
    let length =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut tx = app.begin().await?;
    host.session(&mut tx, query.epoch).await?;
    let delivery = delivery::begin(&mut tx, &app, host.0, order).await?;
    tx.commit().await?;
    delivery.take(body, length).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The host says how far it is.
pub(super) async fn note(
    State(app): State<App>,
    host: Host,
    Path(order): Path<String>,
    JsonBody(said): JsonBody<ImageStatus>,
) -> Result<StatusCode, ApiError> {
    let order = parse(&order)?;
    let mut tx = app.begin().await?;
    host.session(&mut tx, said.epoch).await?;
    delivery::note(&mut tx, &app, host.0, order, &said.status).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse(order: &str) -> Result<TransferId, ApiError> {
    order.parse().map_err(|_| ApiError::not_found())
}
