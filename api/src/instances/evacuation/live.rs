//! Whether a guest can leave while it runs, and what is on the disk of its host while it does not.

use protocol::HostId;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::store::Subject;
use super::way::{Bound, Guest};
use crate::hosts::store::Standing;
use crate::http::{ApiError, ErrorCode, Selector};
use crate::instances::migration;
use crate::instances::store as instances;

/// So long what may pass is waited for. What ends for certain, a snapshot that is being taken or a merge, is waited for as
/// long as that takes.
const PATIENCE: Duration = Duration::minutes(5);

/// Finds the host that would take it, or notes what binds it to its own. Of what does not run nothing is found.
pub(super) async fn look(
    conn: &mut PgConnection,
    subject: &mut Subject,
    hosts: &migration::Hosts,
    now: OffsetDateTime,
) -> Result<Option<HostId>, ApiError> {
    let as_it_runs = running(conn, subject, hosts, now).await?;
    // Should it be stopped, it goes with what is on the disk of its host while it does not run.
    if as_it_runs.is_none() && subject.facts.local_volume.is_some() {
        return disks(conn, subject, hosts, now).await;
    }
    Ok(as_it_runs)
}

/// The host that would take a guest as it runs; or what binds it.
async fn running(
    conn: &mut PgConnection,
    subject: &mut Subject,
    hosts: &migration::Hosts,
    now: OffsetDateTime,
) -> Result<Option<HostId>, ApiError> {
    let facts = &mut subject.facts;
    if facts.guest != Guest::Runs || facts.host != Standing::Heard {
        return Ok(None);
    }
    if subject.was_sent || subject.due_at.is_some_and(|due| due > now) {
        let why = "it was sent to another host and did not get there, as its operation says; it is sent again within ten minutes".to_owned();
        facts.bound = Some(Bound { why, passes: false });
        return Ok(None);
    }
    let selector = Selector::Id(subject.id);
    let Some(row) = instances::find_in(conn, subject.project_id.into(), &selector).await? else {
        return Ok(None);
    };
    match migration::destination(conn, &row, hosts).await {
        Ok(host) => Ok(Some(host)),
        Err(error) => match error.refusal() {
            Some((_, why)) => {
                let has_waited = subject.waits_since.is_some_and(|since| since + PATIENCE <= now);
                let passes = facts.snapshot || error.may_pass() && !has_waited;
                facts.bound = Some(Bound { why: why.to_owned(), passes });
                Ok(None)
            }
            None => Err(error),
        },
    }
}

/// The host that would take an instance with its disks while no guest runs; or what binds these, and a guest to them.
async fn disks(
    conn: &mut PgConnection,
    subject: &mut Subject,
    hosts: &migration::Hosts,
    now: OffsetDateTime,
) -> Result<Option<HostId>, ApiError> {
    let facts = &mut subject.facts;
    let may_go = matches!(facts.guest, Guest::Runs | Guest::Ended | Guest::GoesDown | Guest::AtRest);
    if facts.host != Standing::Heard || !may_go {
        return Ok(None);
    }
    let rests = matches!(facts.guest, Guest::AtRest | Guest::GoesDown);
    if rests && (subject.was_sent || subject.due_at.is_some_and(|due| due > now)) {
        let why = "they were copied to another host and did not get there; they are copied again within ten minutes".to_owned();
        facts.disks_bound = Some(Bound { why, passes: false });
        return Ok(None);
    }
    let selector = Selector::Id(subject.id);
    let Some(row) = instances::find_in(conn, subject.project_id.into(), &selector).await? else {
        return Ok(None);
    };
    match migration::destination_of_disks(conn, &row, hosts).await {
        Ok(host) => Ok(Some(host)),
        Err(error) => match error.refusal() {
            // That is said like that of others.
            Some((ErrorCode::InsufficientCapacity, _)) => Ok(None),
            Some((_, why)) => {
                let has_waited = subject.waits_since.is_some_and(|since| since + PATIENCE <= now);
                let passes = facts.snapshot || error.may_pass() && !has_waited;
                facts.disks_bound = Some(Bound { why: why.to_owned(), passes });
                Ok(None)
            }
            None => Err(error),
        },
    }
}
