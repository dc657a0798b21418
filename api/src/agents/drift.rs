//! What hosts find when they compare themselves with what is wanted of them.

use axum::Json;
use axum::extract::State;
use protocol::agent::{DriftAccepted, DriftReport, MAX_DRIFT};

use super::peer::Host;
use crate::app::App;
use crate::drift;
use crate::http::{ApiError, FieldError, JsonBody};

const LOOK_SECONDS: u32 = 60;

pub(super) async fn take(
    State(app): State<App>,
    host: Host,
    JsonBody(report): JsonBody<DriftReport>,
) -> Result<Json<DriftAccepted>, ApiError> {
    if report.differences.len() > MAX_DRIFT {
        let error = FieldError::new("/differences", "too_many", format!("at most {MAX_DRIFT}"));
        return Err(ApiError::invalid(vec![error]));
    }
    let mut tx = app.begin().await?;
    host.session(&mut tx, report.epoch).await?;
    drift::fold(&mut tx, host.0, report, &app.clock).await?;
    tx.commit().await?;
    Ok(Json(DriftAccepted { look_seconds: LOOK_SECONDS }))
}
