//! Observed reports: validated, scoped to the host, and folded into the rows in one transaction.

use axum::Json;
use axum::extract::State;
use protocol::HostId;
use protocol::agent::{
    InstanceReport, MAX_DETAIL_CHARS, MAX_REPORTS, ObservedAccepted, ObservedBatch, ObservedState,
};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::peer::Host;
use crate::app::App;
use crate::http::{ApiError, FieldError, RawBody, parse_json};
use crate::instances::store::{hosts as instances, placement};
use crate::instances::{Observed, Outcome, outcome};
use crate::operations::store::{self as operations, End};

const MAX_STEPS: usize = 100;

pub(super) async fn report(
    State(app): State<App>,
    host: Host,
    RawBody(body): RawBody,
) -> Result<Json<ObservedAccepted>, ApiError> {
    let mut batch: ObservedBatch = parse_json(&body)?;
    if batch.reports.len() > MAX_REPORTS {
        let message = format!("at most {MAX_REPORTS} reports");
        return Err(ApiError::invalid(vec![FieldError::new("/reports", "too_many", message)]));
    }
    // One order for everybody, so that two batches cannot lock each other out.
    batch.reports.sort_by_key(|report| report.id);
    let now = app.clock.now();
    let mut tx = app.pool.begin().await?;
    host.session(&mut tx, batch.epoch).await?;
    let mut ignored = Vec::new();
    for report in &batch.reports {
        if !fold(&mut tx, host.0, report, now).await? {
            ignored.push(report.id);
        }
    }
    tx.commit().await?;
    Ok(Json(ObservedAccepted { ignored }))
}

/// Folds one report in. False when it is about something that is not this host's, or overtaken.
async fn fold(
    conn: &mut PgConnection,
    host: HostId,
    report: &InstanceReport,
    now: OffsetDateTime,
) -> Result<bool, ApiError> {
    let Some(stored) = instances::lock_reported(conn, host, report.id).await? else { return Ok(false) };
    let observed = Observed { generation: report.generation.0, boot: report.boot, state: report.state };
    let from_the_future =
        observed.generation > stored.intent.generation || observed.boot > stored.intent.boot;
    let overtaken = stored
        .observed
        .is_some_and(|before| (observed.generation, observed.boot) < (before.generation, before.boot));
    if from_the_future || overtaken {
        return Ok(false);
    }
    for step in report.steps.iter().take(MAX_STEPS).filter(|step| step.operation_id == stored.operation_id) {
        operations::step(conn, step.operation_id, step.step.as_str(), step.at, None).await?;
    }
    let detail = report.detail.as_deref().map(|detail| clean(detail, MAX_DETAIL_CHARS));
    if stored.observed != Some(observed) || stored.observed_detail != detail {
        instances::set_observed(conn, report.id, &observed, detail.as_deref(), now).await?;
    }
    let end = match outcome(&stored.intent, &observed) {
        Outcome::Open => None,
        Outcome::Done => Some(End::Succeeded),
        Outcome::Crashed => {
            let detail = "the virtual machine ended before it was seen running; its serial log may tell why";
            Some(End::Failed { code: "guest_crashed", detail: Some(detail.to_owned()) })
        }
    };
    if let Some(end) = end {
        operations::finish(conn, stored.operation_id, &end, now).await?;
    }
    if stored.intent.deletion_requested && observed.state == ObservedState::Absent {
        instances::delete(conn, host, report.id).await?;
        placement::retry_now(conn, now).await?;
    }
    Ok(true)
}

/// A text from outside, bounded and without control characters.
pub(super) fn clean(text: &str, max_chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max_chars).collect()
}
