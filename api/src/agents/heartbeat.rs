//! Heartbeats: the agent lives, and this is what it has reported so far.

use axum::Json;
use axum::extract::State;
use protocol::Sha256;
use protocol::agent::{
    Heartbeat, HeartbeatReply, HypervisorHealth, MAX_DETAIL_CHARS, MAX_SEEN_LEASES, MAX_SHARED_POOLS,
    ObservedBatch, PROTOCOL_VERSION,
};
use sha2::Digest;

use super::observed::clean;
use super::peer::Host;
use crate::app::App;
use crate::hosts;
use crate::hosts::leases::Leases;
use crate::http::{ApiError, FieldError, JsonBody};
use crate::instances::store::hosts::observed;
use crate::pools;

pub(super) async fn beat(
    State(app): State<App>,
    host: Host,
    JsonBody(beat): JsonBody<Heartbeat>,
) -> Result<Json<HeartbeatReply>, ApiError> {
    for (pointer, sent, most) in [
        ("/shared_pools", beat.shared_pools.len(), MAX_SHARED_POOLS),
        ("/guarded_pools", beat.guarded_pools.len(), MAX_SHARED_POOLS),
        ("/seen_leases", beat.seen_leases.len(), MAX_SEEN_LEASES),
    ] {
        if sent > most {
            let message = format!("at most {most} of them");
            return Err(ApiError::invalid(vec![FieldError::new(pointer, "too_many", message)]));
        }
    }
    let leases = Leases::of(host.0, &beat);
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    let session = host.session(&mut conn, beat.epoch).await?;
    let degraded = match beat.hypervisor {
        HypervisorHealth::Ok => None,
        HypervisorHealth::Degraded { reason } => Some(clean(&reason, MAX_DETAIL_CHARS)),
    };
    let quarantined = i32::try_from(beat.quarantined).unwrap_or(i32::MAX);
    if session.hypervisor_degraded != degraded || session.quarantined != quarantined {
        hosts::store::set_health(&mut conn, host.0, degraded.as_deref(), quarantined, now).await?;
    }
    if session.has_shared_pools || !beat.shared_pools.is_empty() {
        pools::store::reports::fold(&mut conn, host.0, beat.shared_pools, now).await?;
    }
    app.heartbeats.heard(host.0, now, beat.pool, leases);
    let stored = observed(&mut conn, host.0).await?;
    let digest = sha2::Sha256::digest(ObservedBatch::digest_input(&stored));
    let report_all = Sha256::from_bytes(digest.into()) != beat.observed_digest;
    Ok(Json(HeartbeatReply { report_all, protocol_version: PROTOCOL_VERSION }))
}
