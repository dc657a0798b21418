//! Whether a guest can leave while it runs.

use protocol::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::store::Subject;
use super::way::Guest;
use crate::hosts::store::Standing;
use crate::http::{ApiError, Selector};
use crate::instances::migration;
use crate::instances::store as instances;

/// Finds the host that would take it, or notes what binds it to its own. Of what does not run nothing is found.
pub(super) async fn look(
    conn: &mut PgConnection,
    subject: &mut Subject,
    hosts: &migration::Hosts,
    now: OffsetDateTime,
) -> Result<Option<HostId>, ApiError> {
    let facts = &mut subject.facts;
    if facts.guest != Guest::Runs || facts.host != Standing::Heard || facts.local_volume.is_some() {
        return Ok(None);
    }
    if subject.was_sent || subject.due_at.is_some_and(|due| due > now) {
        facts.bound = Some("it was sent to another host a moment ago and did not get there".to_owned());
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
                facts.bound = Some(why.to_owned());
                Ok(None)
            }
            None => Err(error),
        },
    }
}
