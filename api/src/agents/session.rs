//! Opening a session: the agent that did so last speaks for the host.

use axum::Json;
use axum::extract::State;
use protocol::agent::{OpenSession, PROTOCOL_VERSION, SessionOpened, is_model_name};

use super::join::check_version;
use super::peer::Host;
use crate::app::App;
use crate::hosts;
use crate::http::{ApiError, FieldError, JsonBody};
use crate::instances::store::placement;
use crate::nudge::{self, Topic};

const HEARTBEAT_SECONDS: u32 = 5;
const MAX_TEXT_CHARS: usize = 500;
/// Of features and of processor models.
const MAX_NAMES: usize = 512;

pub(super) async fn open(
    State(app): State<App>,
    host: Host,
    JsonBody(request): JsonBody<OpenSession>,
) -> Result<Json<SessionOpened>, ApiError> {
    let version = request.protocol_version;
    if let Err(refusal) = check_version(version) {
        note_refusal(&app, host, version).await?;
        return Err(refusal);
    }
    ApiError::reject(validate(&request))?;
    // Whoever asks what the host can do hears nothing that could not be told to its agent.
    let request = request.for_version(version);
    let mut tx = app.begin().await?;
    let epoch = hosts::store::open_session(&mut tx, host.0, &request, app.clock.now())
        .await?
        .ok_or_else(super::peer::removed)?;
    // The long poll of an older session ends, and what waited for room may have found it.
    nudge::send(&mut tx, Topic::Host(host.0)).await?;
    placement::retry_now(&mut tx, app.clock.now()).await?;
    tx.commit().await?;
    tracing::info!(host = %host.0, epoch = epoch.0, "agent session opened");
    Ok(Json(SessionOpened {
        host_id: host.0,
        epoch,
        heartbeat_seconds: HEARTBEAT_SECONDS,
        protocol_version: version,
    }))
}

/// For the operator, who sees a host that is silent and has to know why. An agent of the next release speaks our version as
/// well, and asks again.
async fn note_refusal(app: &App, host: Host, version: u32) -> Result<(), ApiError> {
    if version != PROTOCOL_VERSION + 1 {
        let mut conn = app.pool.acquire().await?;
        hosts::store::note_refused(&mut conn, host.0, version, app.clock.now()).await?;
    }
    Ok(())
}

fn validate(request: &OpenSession) -> Vec<FieldError> {
    let inventory = &request.inventory;
    let texts = [
        ("/agent_version", &request.agent_version),
        ("/inventory/cpu_model", &inventory.cpu_model),
        ("/inventory/hypervisor", &inventory.hypervisor),
        ("/inventory/acceleration_detail", &inventory.acceleration_detail),
    ];
    let mut errors: Vec<_> = texts
        .into_iter()
        .filter(|(_, text)| text.chars().count() > MAX_TEXT_CHARS || text.contains('\0'))
        .map(|(pointer, _)| FieldError::new(pointer, "invalid", "at most 500 characters, without NUL"))
        .collect();
    if inventory.underlay_address.is_some_and(|address| address.is_unspecified() || address.is_multicast()) {
        let message = "the address of this host in the network between hosts";
        errors.push(FieldError::new("/inventory/underlay_address", "invalid", message));
    }
    let names = [("features", &inventory.features), ("cpu_models", &inventory.cpu_models)];
    for (field, names) in names {
        if names.len() > MAX_NAMES || !names.iter().all(|name| is_model_name(name)) {
            let message = format!("at most {MAX_NAMES} names of 1 to 64 of A-Z a-z 0-9 . _ -");
            errors.push(FieldError::new(format!("/inventory/{field}"), "invalid", message));
        }
    }
    if inventory.architectures.len() > 16 {
        errors.push(FieldError::new("/inventory/architectures", "too_many", "at most 16"));
    }
    errors
}
