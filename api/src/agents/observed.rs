//! Observed reports: validated, scoped to the host, and folded into the rows in one transaction.

use axum::Json;
use axum::extract::State;
use protocol::agent::{
    EndReason, InstanceReport, MAX_DETAIL_CHARS, MAX_LAYERS, MAX_NETWORK_FAULTS, MAX_REPORTS,
    MAX_UNKNOWN_GUESTS, MAX_UNKNOWN_PARTS, NetworkCheck, NetworkFault, NetworkReport, NetworkSubject,
    ObservedAccepted, ObservedBatch, ObservedState, Power, UnknownGuest, UnknownSpec,
};
use protocol::{HostId, InstanceId, OperationId, PortId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::peer::Host;
use crate::app::App;
use crate::hosts;
use crate::http::{ApiError, FieldError, JsonBody};
use crate::instances::store::hosts::{Lift, Reported};
use crate::instances::store::{departures, hosts as instances, placement};
use crate::instances::{OF_MIGRATIONS, OF_VOLUMES, Observed, Outcome, migration, outcome};
use crate::operations::store::{self as operations, End};
use crate::ports::cards;
use crate::quotas;
use crate::snapshots::store::hosts as snapshots;
use crate::volumes::store::hosts as volumes;
use crate::volumes::store::layers::{self, Merged};

const MAX_STEPS: usize = 100;
/// A host that has seen so many generations more than the database is not ahead, but wrong.
const MOST_AHEAD: i64 = 1_000_000;
/// Of one instance: those that it has, and those that leave it.
const MAX_VOLUMES: usize = 64;
/// The same of network cards.
const MAX_CARDS: usize = 64;

pub(super) async fn report(
    State(app): State<App>,
    host: Host,
    JsonBody(mut batch): JsonBody<ObservedBatch>,
) -> Result<Json<ObservedAccepted>, ApiError> {
    if batch.reports.len() > MAX_REPORTS {
        let message = format!("at most {MAX_REPORTS} reports");
        return Err(ApiError::invalid(vec![FieldError::new("/reports", "too_many", message)]));
    }
    if batch.network.as_ref().is_some_and(|network| network.faults.len() > MAX_NETWORK_FAULTS) {
        let message = format!("at most {MAX_NETWORK_FAULTS} faults");
        return Err(ApiError::invalid(vec![FieldError::new("/network/faults", "too_many", message)]));
    }
    if let Some(index) = batch.reports.iter().position(|report| report.volumes.len() > MAX_VOLUMES) {
        let (pointer, message) =
            (format!("/reports/{index}/volumes"), format!("at most {MAX_VOLUMES} volumes"));
        return Err(ApiError::invalid(vec![FieldError::new(pointer, "too_many", message)]));
    }
    let cards = |report: &InstanceReport| report.leaving_cards.as_ref().map_or(0, Vec::len);
    if batch.reports.iter().any(|report| cards(report) > MAX_CARDS) {
        let message = format!("at most {MAX_CARDS} cards of an instance");
        return Err(ApiError::invalid(vec![FieldError::new("/reports", "too_many", message)]));
    }
    let chains = batch.reports.iter().map(|report| report.volumes.iter());
    if chains.flatten().any(|volume| volume.merged.len() > MAX_LAYERS) {
        let message = format!("at most {MAX_LAYERS} layers of a volume");
        return Err(ApiError::invalid(vec![FieldError::new("/reports", "too_many", message)]));
    }
    if batch.removed.len() > MAX_REPORTS {
        let message = format!("at most {MAX_REPORTS} removals");
        return Err(ApiError::invalid(vec![FieldError::new("/removed", "too_many", message)]));
    }
    if batch.migrations.len() > MAX_REPORTS {
        let message = format!("at most {MAX_REPORTS} migrations");
        return Err(ApiError::invalid(vec![FieldError::new("/migrations", "too_many", message)]));
    }
    let unknown_guests = batch.unknown_guests.take();
    unknown_guests.as_deref().map_or(Ok(()), check_unknown)?;
    // One order for everybody, so that two batches cannot lock each other out; and all instances before a volume of
    // any.
    batch.reports.sort_by_key(|report| report.id);
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    host.session(&mut tx, batch.epoch).await?;
    let ids: Vec<_> = batch.reports.iter().map(|report| report.id).collect();
    let migrations: Vec<_> = batch.migrations.iter().map(|report| report.id.as_uuid()).collect();
    instances::lock_all(&mut tx, host.0, &ids, &migrations).await?;
    let (mut ignored, mut gone, mut merged, mut left) = (Vec::new(), Vec::new(), Vec::new(), false);
    let (mut let_go, mut ahead) = (Vec::new(), Vec::new());
    for report in &batch.reports {
        match fold(&mut tx, host.0, report, &mut let_go, now).await? {
            Folded::Ignored => ignored.push(report.id),
            Folded::Ahead(lift) => {
                ignored.push(report.id);
                ahead.push(lift);
            }
            Folded::Stored => merged.extend(merged_of(report)),
            Folded::Left => left = true,
            Folded::Gone => gone.push(report.id),
        }
    }
    let removed = volumes::lock_removed(&mut tx, host.0, &batch.removed).await?;
    layers::note_merged(&mut tx, host.0, &merged).await?;
    if !gone.is_empty() || !let_go.is_empty() || !removed.is_empty() {
        let ends: Vec<_> = gone.iter().map(|id| id.as_uuid()).collect();
        quotas::store::lock_before_going(&mut tx, &ends, &let_go, &removed).await?;
    }
    // Last, because these take the host's row: everybody locks instances and volumes first, then quotas, and their host
    // after.
    if !gone.is_empty() || !let_go.is_empty() {
        instances::delete(&mut tx, host.0, &gone, &let_go, now).await?;
    }
    if !removed.is_empty() {
        volumes::forget(&mut tx, &removed, now).await?;
    }
    if !removed.is_empty() || !gone.is_empty() || left {
        placement::retry_now(&mut tx, now).await?;
    }
    for lift in &ahead {
        instances::lift(&mut tx, host.0, lift, now).await?;
    }
    batch.migrations.sort_by_key(|report| report.instance_id);
    for report in &batch.migrations {
        migration::fold(&mut tx, host.0, report, now).await?;
    }
    if let Some(network) = batch.network {
        fold_network(&mut tx, host.0, network, now).await?;
    }
    tx.commit().await?;
    if let Some(guests) = unknown_guests {
        // By itself: it locks subnets, which everybody does before hosts.
        let mut tx = app.begin().await?;
        host.session(&mut tx, batch.epoch).await?;
        hosts::unknown_guests::fold(&mut tx, host.0, guests, &app.clock).await?;
        tx.commit().await?;
    }
    Ok(Json(ObservedAccepted { ignored }))
}

fn check_unknown(guests: &[UnknownGuest]) -> Result<(), ApiError> {
    let too_many = |what: &str, most: usize| {
        let message = format!("at most {most} {what}");
        Err(ApiError::invalid(vec![FieldError::new("/unknown_guests", "too_many", message)]))
    };
    if guests.len() > MAX_UNKNOWN_GUESTS {
        return too_many("guests", MAX_UNKNOWN_GUESTS);
    }
    let specs = || guests.iter().filter_map(|guest| guest.spec.as_ref());
    let parts = |spec: &UnknownSpec| {
        let addresses = spec.cards.iter().map(|card| card.addresses.len()).max();
        spec.volumes.len().max(spec.cards.len()).max(addresses.unwrap_or_default())
    };
    if specs().any(|spec| parts(spec) > MAX_UNKNOWN_PARTS) {
        return too_many("volumes, cards, and addresses of a card", MAX_UNKNOWN_PARTS);
    }
    Ok(())
}

/// What a report says of merged layers.
fn merged_of(report: &InstanceReport) -> impl Iterator<Item = Merged> {
    report.volumes.iter().filter(|volume| !volume.merged.is_empty()).map(|volume| Merged {
        instance: report.id.as_uuid(),
        volume: volume.id,
        layers: volume.merged.clone(),
    })
}

/// What became of a report.
enum Folded {
    /// It is about something that is not this host's, or overtaken.
    Ignored,
    /// It is, or may be, of a generation that the database, which was restored from a backup, does not know.
    Ahead(Lift),
    /// Nothing is left here of an instance that has gone to another host.
    Left,
    Stored,
    /// The instance was deleted by its owner, and nothing is left of it.
    Gone,
}

/// Folds one report in. Ports of which a guest has let go are added to `let_go`.
async fn fold(
    conn: &mut PgConnection,
    host: HostId,
    report: &InstanceReport,
    let_go: &mut Vec<Uuid>,
    now: OffsetDateTime,
) -> Result<Folded, ApiError> {
    let Some(stored) = instances::lock_reported(conn, host, report.id).await? else {
        // It has gone to another host, perhaps, and this one has let go of it.
        let left = departures::ends(conn, host, report).await?;
        return Ok(if left { Folded::Left } else { Folded::Ignored });
    };
    let observed = Observed {
        generation: report.generation.0,
        boot: report.boot,
        state: report.state,
        paused: report.paused,
    };
    let from_the_future =
        observed.generation > stored.intent.generation || observed.boot > stored.intent.boot;
    let overtaken = stored.observed.is_some_and(|before| {
        // Of what is gone for good nobody knows the boot any more.
        let older_boot = observed.boot < before.boot && observed.state != ObservedState::Absent;
        observed.generation < before.generation || (observed.generation == before.generation && older_boot)
    });
    // It came back to this host, which tells late of what it let go of: nothing is left only of what was to be deleted.
    let of_an_earlier_stay = observed.state == ObservedState::Absent && !stored.intent.deletion_requested;
    let moves = OF_MIGRATIONS.contains(&stored.operation_kind.as_str());
    // Also of what is ignored, since nobody says them again. That its guest is where it was is no step of one that goes to another
    // host, or did not get there.
    if !moves || (!stored.is_migrating && operations::lock_running(conn, stored.operation_id).await?) {
        add_steps(conn, report, stored.operation_id, now).await?;
    }
    // What it had not said when the backup was made may be of another history, whichever number it has.
    let is_news = stored.observed.is_none_or(|before| observed.generation > before.generation);
    let is_doubtful = stored.is_restored && is_news && !stored.is_migrating;
    if (from_the_future || is_doubtful) && !of_an_earlier_stay {
        return Ok(lift(report.id, &stored, &observed).map_or(Folded::Ignored, Folded::Ahead));
    }
    let of_another_history = stored.believed_from.is_some_and(|from| observed.generation < from);
    if from_the_future || overtaken || of_an_earlier_stay || of_another_history {
        return Ok(Folded::Ignored);
    }
    let detail = report.detail.as_deref().map(|detail| clean(detail, MAX_DETAIL_CHARS));
    if stored.observed != Some(observed)
        || stored.observed_detail != detail
        || stored.observed_volumes != report.volumes
        || stored.observed_leaving_cards != report.leaving_cards.as_deref().unwrap_or_default()
    {
        instances::set_observed(conn, &observed, report, detail.as_deref(), now).await?;
    }
    volumes::fold(conn, report, stored.intent.generation, now).await?;
    snapshots::settle(conn, report, now).await?;
    let leaving = cards::leaving(conn, report, stored.intent.generation).await?;
    let_go.extend(&leaving.let_go);
    if OF_VOLUMES.contains(&stored.operation_kind.as_str()) {
        // It ends with what is said of its volume.
        return Ok(Folded::Stored);
    }
    if stored.is_migrating && moves {
        // It ends with what becomes of the migration.
        return Ok(Folded::Stored);
    }
    if leaving.is_held && stored.operation_kind == "detach_port" {
        return Ok(Folded::Stored);
    }
    let end = match outcome(&stored.intent, &observed) {
        Outcome::Open => return Ok(Folded::Stored),
        Outcome::Done => End::Succeeded,
        Outcome::Crashed => {
            let detail = "the virtual machine ended before it was seen running; its serial log may tell why";
            End::Failed { code: "guest_crashed", detail: Some(detail.to_owned()) }
        }
        Outcome::Lost => {
            let detail = "its guest had ended, so nothing is left to pause; start it instead";
            End::Failed { code: "guest_ended", detail: Some(detail.to_owned()) }
        }
    };
    operations::finish(conn, stored.operation_id, &end, now).await?;
    // A deletion is done when nothing is left.
    Ok(if stored.intent.deletion_requested { Folded::Gone } else { Folded::Stored })
}

async fn add_steps(
    conn: &mut PgConnection,
    report: &InstanceReport,
    operation: OperationId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    for step in report.steps.iter().take(MAX_STEPS).filter(|step| step.operation_id == operation) {
        // A host whose clock is fast does not write into the future.
        operations::step(conn, operation, step.step.as_str(), step.at.min(now), None).await?;
    }
    Ok(())
}

/// What makes a host take the stored intent again that has seen newer ones of this instance, which is its own. INVARIANT: what is
/// observed stays what it was: the host has to do the next generation first.
fn lift(id: InstanceId, stored: &Reported, observed: &Observed) -> Option<Lift> {
    let intent = &stored.intent;
    let is_near = |seen: i64, known: i64| seen.saturating_sub(known) <= MOST_AHEAD;
    if stored.is_migrating
        || !is_near(observed.generation, intent.generation)
        || !is_near(observed.boot, intent.boot)
    {
        return None;
    }
    // Its guest goes on in the boot that it is in. One that has ended is never started again, so what somebody has stopped since is
    // started as the next.
    let was_stopped = observed.boot >= intent.boot
        && observed.state == ObservedState::Stopped { reason: EndReason::Requested };
    let next = i64::from(was_stopped && intent.power == Power::Running);
    Some(Lift {
        id,
        generation: observed.generation.max(intent.generation) + 1,
        boot: observed.boot.max(intent.boot) + next,
    })
}

/// Stores what the host says of its networks. Of ports that are not its own it has nothing to say.
async fn fold_network(
    conn: &mut PgConnection,
    host: HostId,
    report: NetworkReport,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let ports: Vec<_> = report.faults.iter().filter_map(port_of).collect();
    let own = cards::on_host(conn, host, &ports).await?;
    let faults: Vec<_> = report
        .faults
        .into_iter()
        .filter(|fault| port_of(fault).is_none_or(|port| own.contains(&port)))
        .map(|fault| NetworkFault { detail: clean(&fault.detail, MAX_DETAIL_CHARS), ..fault })
        .collect();
    let check = report.check.map(|check| NetworkCheck {
        checked_at: check.checked_at.min(now),
        first: check.first.map(|first| clean(&first, MAX_DETAIL_CHARS)),
        ..check
    });
    hosts::store::set_networks(conn, host, report.revision, &faults, check.as_ref()).await
}

fn port_of(fault: &NetworkFault) -> Option<PortId> {
    match fault.subject {
        NetworkSubject::Port(port) => Some(port),
        _ => None,
    }
}

/// A text from outside, bounded and without what is seen as something else.
pub(crate) fn clean(text: &str, max_chars: usize) -> String {
    text.chars().filter(|c| is_harmless(*c)).take(max_chars).collect()
}

/// Neither a control character, nor one that is not seen or turns the direction of a line.
pub(crate) fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}
