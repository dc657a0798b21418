//! What starts elsewhere has nothing on the disk of its host.

use protocol::agent::OnHostFailure;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::http::{ApiError, ErrorCode, FieldError};
use crate::instances::store::{Row, recovery};

const WHY_SHARED: &str = "is on the disk of its host and dies with it";

/// Refuses to let an instance, which may just have been made, start elsewhere with data that is on its host alone.
///
/// # Errors
/// With a pointer to the field.
pub(in crate::instances) async fn refuse_local(
    conn: &mut PgConnection,
    id: Uuid,
    wanted: OnHostFailure,
) -> Result<(), ApiError> {
    if wanted.is_wait() {
        return Ok(());
    }
    let Some(name) = recovery::local_volume(conn, id).await? else { return Ok(()) };
    let message = format!(
        "`restart` takes all of its volumes to be in shared pools, and its volume {name} {WHY_SHARED}"
    );
    Err(ApiError::invalid(vec![FieldError::new("/on_host_failure", "local_volume", message)]))
}

/// The same after it has got another volume.
///
/// # Errors
/// `wrong_state`.
pub(in crate::instances) async fn refuse_another_local(
    conn: &mut PgConnection,
    row: &Row,
) -> Result<(), ApiError> {
    if row.on_host_failure != OnHostFailure::Restart.as_str() {
        return Ok(());
    }
    let Some(name) = recovery::local_volume(conn, row.id).await? else { return Ok(()) };
    let detail = format!(
        "it starts elsewhere when its host dies, and the volume {name} {WHY_SHARED}; set on_host_failure to wait first"
    );
    Err(ApiError::because(ErrorCode::WrongState, detail))
}
