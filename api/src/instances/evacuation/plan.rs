//! What would become of each instance of a host that is emptied, in one snapshot.

use protocol::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::live;
use super::store::{self, Subject};
use super::way::{Obstacle, way_out};
use crate::http::ApiError;
use crate::instances::migration;
use crate::scheduler::{Placement, joined, place};

/// Notes the way of each instance, or why it stays: each placed beside those before it. What is on its way already is left
/// as it is.
pub(crate) async fn plan(conn: &mut PgConnection, host: HostId, now: OffsetDateTime) -> Result<(), ApiError> {
    let Some(drain) = store::drains(conn, Some(host)).await?.pop() else { return Ok(()) };
    let subjects = store::subjects(conn, host, None, drain.standing(now), now).await?;
    let waits = |subject: &Subject| !matches!(subject.phase.as_deref(), Some("stopping" | "moving"));
    let hosts = migration::Hosts::at(now);
    let mut wanted = Vec::new();
    for mut subject in subjects.into_iter().filter(waits) {
        live::look(conn, &mut subject, &hosts, now).await?;
        let request = super::request_of(conn, &subject).await?;
        wanted.push((subject, request));
    }
    let mut fleet = hosts.read(conn).await?.fleet.clone();
    for index in 0..wanted.len() {
        let (_, rest) = wanted.split_at_mut(index);
        let Some(((subject, request), later)) = rest.split_first_mut() else { break };
        let mut found = way_out(&subject.facts, drain.stop_running);
        if let (Ok(_), Some(request)) = (&found, request) {
            match place(&fleet, request) {
                Placement::Host(other) => {
                    fleet.take(other, request.size);
                    joined(request, other, later.iter_mut().filter_map(|(_, other)| other.as_mut()));
                }
                Placement::Nowhere(explanation) => found = Err(super::nowhere(explanation.summary)),
            }
        }
        let phase = found.as_ref().map_or_else(Obstacle::phase, |_| "waiting");
        store::note(conn, host, subject, phase, &found, now).await?;
    }
    Ok(())
}
