//! Joining the cloud, and staying in it.

use axum::Json;
use axum::extract::State;
use axum::http::request::Parts;
use protocol::HostId;
use protocol::agent::{JoinRequest, JoinResponse, JoinToken, RenewRequest, RenewResponse};
use sqlx::PgConnection;

use super::peer::Host;
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};
use crate::hosts::store::SpentToken;
use crate::hosts::{self, NewHost};
use crate::http::{ApiError, Client, ErrorCode, FieldError, JsonBody, request_id};
use crate::pki::{self, PkiError};

/// What the audit log calls these; policies speak of the making of the token.
const JOIN: &str = "host:JoinHost";
const REJOIN: &str = "host:RejoinHost";

/// The only call without a certificate: the token stands for the operator.
pub(super) async fn join(
    State(app): State<App>,
    parts: Parts,
    JsonBody(request): JsonBody<JoinRequest>,
) -> Result<Json<JoinResponse>, ApiError> {
    check_version(request.protocol_version)?;
    let refused = || {
        ApiError::because(
            ErrorCode::InvalidCredentials,
            match request.host_id {
                None => "the join token is unknown, used or expired; make a new one",
                Some(_) => {
                    "the token is unknown, used, expired, or not one to let this host in again with this key, or the host is heard: `cumulo host readmit`"
                }
            },
        )
    };
    let token: JoinToken = request.token.parse().map_err(|_| refused())?;
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    let spent =
        hosts::store::spend_join_token(&mut tx, hosts::hash_secret(&token), request.host_id, now).await?;
    let spent = spent.ok_or_else(refused)?;
    let host_id: HostId = request.host_id.unwrap_or_else(|| app.clock.new_id());
    if request.host_id.is_none() {
        hosts::store::insert(&mut tx, &NewHost { id: host_id, name: request.name }, now).await?;
    }
    let again = request.host_id.is_some();
    let issued = issue(&app, &mut tx, host_id, &request.csr_pem, again).await?;
    let (certificate_pem, name) = issued.ok_or_else(refused)?;
    let deed = Deed {
        action: if again { REJOIN } else { JOIN },
        resource: format!("crn:cumulo:host::host/{name}"),
        resource_id: Some(host_id.as_uuid()),
        ..Deed::default()
    };
    audit::write(&mut tx, &app, &actor(&spent, &parts), request_id(&parts, &app), Outcome::Allowed, deed)
        .await?;
    tx.commit().await?;
    if again {
        tracing::info!(host = %host_id, "a host was let in again");
    } else {
        tracing::info!(host = %host_id, "a host has joined");
    }
    Ok(Json(JoinResponse { host_id, certificate_pem, ca_pem: app.ca.certificate_pem().to_owned() }))
}

/// Who made the token has let the host in.
fn actor<'a>(spent: &'a SpentToken, parts: &Parts) -> Actor<'a> {
    Actor {
        id: Some(spent.maker),
        name: &spent.maker_name,
        credential_kind: "join_token",
        credential_id: Some(spent.id),
        source: Client::of(&parts.extensions).address,
    }
}

/// A new certificate for the identity of the old one.
pub(super) async fn renew(
    State(app): State<App>,
    host: Host,
    JsonBody(request): JsonBody<RenewRequest>,
) -> Result<Json<RenewResponse>, ApiError> {
    let mut tx = app.begin().await?;
    let issued = issue(&app, &mut tx, host.0, &request.csr_pem, false).await?;
    let (certificate_pem, _) = issued.ok_or_else(super::peer::removed)?;
    tx.commit().await?;
    Ok(Json(RenewResponse { certificate_pem }))
}

/// A certificate, PEM, for a host that is known, and whose key this is if it `has_key` already; and the name of the host.
async fn issue(
    app: &App,
    conn: &mut PgConnection,
    host: HostId,
    csr_pem: &str,
    has_key: bool,
) -> Result<Option<(String, String)>, ApiError> {
    let now = app.clock.now();
    let refused =
        |error: PkiError| ApiError::invalid(vec![FieldError::new("/csr_pem", "invalid", error.to_string())]);
    let certificate_pem = app.ca.issue_host(host, csr_pem, now).map_err(refused)?;
    let key = pki::key_digest(csr_pem).map_err(refused)?;
    let name = hosts::store::note_certificate(conn, host, key, has_key, pki::leaf_ends_at(now)).await?;
    Ok(name.map(|name| (certificate_pem, name)))
}

/// Whether such an agent is understood, and understands.
pub(super) fn check_version(version: u32) -> Result<(), ApiError> {
    match hosts::refused_version(version) {
        None => Ok(()),
        Some(why) => Err(ApiError::because(ErrorCode::UnsupportedProtocol, why)),
    }
}
