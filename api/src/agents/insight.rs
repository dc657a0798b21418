//! What hosts measure of their guests, and what guests say. Best effort on both sides: nothing is asked for again.

use axum::Json;
use axum::extract::State;
use protocol::agent::{InsightAccepted, InsightBatch, MAX_GUESTS, MAX_SAMPLES};

use super::peer::Host;
use crate::app::App;
use crate::http::{ApiError, FieldError, JsonBody};
use crate::insight;

const SAMPLE_SECONDS: u32 = 15;
const GUEST_SECONDS: u32 = 300;

pub(super) async fn take(
    State(app): State<App>,
    host: Host,
    JsonBody(batch): JsonBody<InsightBatch>,
) -> Result<Json<InsightAccepted>, ApiError> {
    for (pointer, found, most) in
        [("/samples", batch.samples.len(), MAX_SAMPLES), ("/guests", batch.guests.len(), MAX_GUESTS)]
    {
        if found > most {
            let error = FieldError::new(pointer, "too_many", format!("at most {most}"));
            return Err(ApiError::invalid(vec![error]));
        }
    }
    let mut tx = app.begin().await?;
    host.session(&mut tx, batch.epoch).await?;
    insight::take(&mut tx, host.0, &batch.samples, batch.guests, app.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(InsightAccepted { sample_seconds: SAMPLE_SECONDS, guest_seconds: GUEST_SECONDS }))
}
