//! Joining the cloud, and staying in it.

use axum::Json;
use axum::extract::State;
use protocol::HostId;
use protocol::agent::{JoinRequest, JoinResponse, JoinToken, RenewRequest, RenewResponse};

use super::peer::Host;
use crate::app::App;
use crate::hosts::{self, NewHost};
use crate::http::{ApiError, ErrorCode, FieldError, JsonBody};
use crate::pki::PkiError;

/// The only call without a certificate: the token stands for the operator.
pub(super) async fn join(
    State(app): State<App>,
    JsonBody(request): JsonBody<JoinRequest>,
) -> Result<Json<JoinResponse>, ApiError> {
    check_version(request.protocol_version)?;
    let refused = || {
        ApiError::because(
            ErrorCode::InvalidCredentials,
            "the join token is unknown, used or expired; make a new one",
        )
    };
    let token: JoinToken = request.token.parse().map_err(|_| refused())?;
    let now = app.clock.now();
    let host_id: HostId = app.clock.new_id();
    let mut tx = app.begin().await?;
    if !hosts::store::spend_join_token(&mut tx, hosts::hash_secret(&token), now).await? {
        return Err(refused());
    }
    hosts::store::insert(&mut tx, &NewHost { id: host_id, name: request.name }, now).await?;
    let certificate_pem =
        app.ca.issue_host(host_id, &request.csr_pem, now).map_err(|error| csr_refused(&error))?;
    tx.commit().await?;
    tracing::info!(host = %host_id, "a host has joined");
    Ok(Json(JoinResponse { host_id, certificate_pem, ca_pem: app.ca.certificate_pem().to_owned() }))
}

/// A new certificate for the identity of the old one.
pub(super) async fn renew(
    State(app): State<App>,
    host: Host,
    JsonBody(request): JsonBody<RenewRequest>,
) -> Result<Json<RenewResponse>, ApiError> {
    let known = hosts::store::session(&mut *app.pool.acquire().await?, host.0).await?;
    known.ok_or_else(super::peer::removed)?;
    let certificate_pem =
        app.ca.issue_host(host.0, &request.csr_pem, app.clock.now()).map_err(|error| csr_refused(&error))?;
    Ok(Json(RenewResponse { certificate_pem }))
}

fn csr_refused(error: &PkiError) -> ApiError {
    ApiError::invalid(vec![FieldError::new("/csr_pem", "invalid", error.to_string())])
}

/// Whether such an agent is understood, and understands.
pub(super) fn check_version(version: u32) -> Result<(), ApiError> {
    match hosts::refused_version(version) {
        None => Ok(()),
        Some(why) => Err(ApiError::because(ErrorCode::UnsupportedProtocol, why)),
    }
}
