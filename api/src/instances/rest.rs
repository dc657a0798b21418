//! Instances at rest: their disks are as they are until somebody starts them.

use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{InstanceState, shown};
use super::store;
use crate::auth::{Action, Allowed, InProject};
use crate::http::{ApiError, ErrorCode, Selector};

/// What there is to know of one.
pub(crate) struct AtRest {
    pub architecture: String,
    pub firmware: String,
}

/// Refuses an instance, which is locked, unless its guest is off and stays so.
pub(crate) async fn require<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    instance: Uuid,
) -> Result<AtRest, ApiError> {
    let row = store::find(conn, allowed, &Selector::Id(instance)).await?.ok_or_else(ApiError::not_found)?;
    let (intent, observed) = (row.intent(), row.observed());
    let (state, _) = shown(&intent, observed.as_ref(), true, false);
    // Its host may have begun what was asked for since it was last heard.
    let is_told = observed.is_some_and(|observed| observed.generation >= intent.generation);
    let refusal = match state {
        InstanceState::Pending => None,
        InstanceState::Stopped if is_told => None,
        InstanceState::Stopped => {
            Some((ErrorCode::WrongState, "has changed; try again when its host has seen that"))
        }
        InstanceState::Deleting => Some((ErrorCode::WrongState, "is being deleted")),
        _ => Some((ErrorCode::InUse, "is not stopped; take a snapshot and use that, or stop it first")),
    };
    if let Some((code, why)) = refusal {
        return Err(ApiError::because(code, format!("the instance {} {why}", row.name)));
    }
    Ok(AtRest { architecture: row.architecture, firmware: row.firmware })
}
