//! Looks for hosts that are not what they were told to be, by what they say themselves.

use protocol::agent::{NetworkCheck, NetworkFault};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::fencing;
use super::model::{HostState, UNREACHABLE_AFTER, is_outdated, refused_version};
use crate::verify::Finding;

/// An agent compares its host once a minute, while it is heard of.
const OLD_CHECK: Duration = Duration::minutes(5);

struct Row {
    id: Uuid,
    name: String,
    last_seen_at: Option<OffsetDateTime>,
    heard_again_at: Option<OffsetDateTime>,
    hypervisor_degraded: bool,
    network_revision: i64,
    network_applied: Option<i64>,
    network_faults: Json<Vec<NetworkFault>>,
    network_check: Option<Json<NetworkCheck>>,
    pool_total_bytes: Option<i64>,
    pool_free_bytes: Option<i64>,
    pool_low: bool,
    quarantined: i32,
    protocol_version: Option<i32>,
    /// Instances that stand still because of its disks.
    paused: i64,
}

/// Everything of hosts that are heard of. What a silent one is like, nobody knows; what keeps it from being switched off is
/// known.
pub(crate) async fn verify(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Finding>, sqlx::Error> {
    let untold = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM pending_network_changes"#)
        .fetch_one(&mut *conn)
        .await?;
    let hosts = sqlx::query_as!(
        Row,
        r#"SELECT id, name, last_seen_at, heard_again_at, hypervisor_degraded IS NOT NULL AS "hypervisor_degraded!",
                  network_revision, network_applied,
                  network_faults AS "network_faults: Json<Vec<NetworkFault>>",
                  network_check AS "network_check: Json<NetworkCheck>", pool_total_bytes, pool_free_bytes, pool_low,
                  unknown_guests_on(id) AS "quarantined!",
                  protocol_version,
                  (SELECT count(*) FROM instances i
                   WHERE i.host_id = hosts.id AND i.observed_paused IN ('pool_full', 'io_error')) AS "paused!"
           FROM hosts WHERE last_seen_at >= $1 ORDER BY name"#,
        now - UNREACHABLE_AFTER
    )
    .fetch_all(&mut *conn)
    .await?;
    let unfenced = fencing::store::unfenced(conn, now).await?.into_iter().map(|one| {
        let (code, how) = match one.state.as_str() {
            "held" => ("host_fence_held", "is silent and is not switched off"),
            _ => ("host_fence_failed", "is silent and could not be switched off"),
        };
        Finding::new(code, one.id, format!("{} {how}: {}", one.name, one.detail))
    });
    let refused = refused(conn).await?;
    let untold = (untold > 0).then(|| Finding {
        code: "network_changes_untold".to_owned(),
        id: None,
        detail: format!(
            "{untold} changes of networks have not been told to hosts; if that lasts while the control plane runs, its log \
             tells why"
        ),
    });
    let ready = hosts.iter().filter(|host| host.is_ready(now));
    Ok(untold
        .into_iter()
        .chain(ready.flat_map(|host| host.findings(now)))
        .chain(unfenced)
        .chain(refused)
        .collect())
}

/// So many hosts nothing is heard of, those left out that were declared dead.
pub(crate) async fn silent(conn: &mut PgConnection, now: OffsetDateTime) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM hosts
           WHERE coalesce(last_seen_at < $1, true) AND declared_dead_at IS NULL"#,
        now - UNREACHABLE_AFTER
    )
    .fetch_one(conn)
    .await
}

/// Hosts whose agents are not let in, which are silent for that reason.
async fn refused(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx::Error> {
    let hosts = sqlx::query!(
        r#"SELECT id, name, refused_protocol_version AS "version!" FROM hosts
           WHERE refused_protocol_version IS NOT NULL ORDER BY name"#
    )
    .fetch_all(conn)
    .await?;
    let each = hosts.into_iter().filter_map(|host| {
        let why = refused_version(u32::try_from(host.version).unwrap_or_default())?;
        Some(Finding::new("host_agent_refused", host.id, format!("{}: {why}", host.name)))
    });
    Ok(each.collect())
}

impl Row {
    fn is_ready(&self, now: OffsetDateTime) -> bool {
        HostState::of(self.last_seen_at, self.hypervisor_degraded, now) == HostState::Ready
    }

    fn findings(&self, now: OffsetDateTime) -> Vec<Finding> {
        let name = &self.name;
        let mut found = Vec::new();
        let mut note = |code, detail| found.push(Finding::new(code, self.id, detail));
        if self.pool_low {
            let (total, free) = (self.pool_total_bytes.unwrap_or(0), self.pool_free_bytes.unwrap_or(0));
            let percent = free.saturating_mul(100) / total.max(1);
            let detail = format!(
                "{name} has {percent} % of its pool left, so nothing new is placed there; guests that write more will stand \
                 still: enlarge the file system, or delete volumes there"
            );
            note("host_pool_low", detail);
        }
        if self.quarantined > 0 {
            let detail = format!("{name}: {}", super::removal::unknown_guests(self.quarantined.into(), name));
            note("host_guests_unknown", detail);
        }
        if self.protocol_version.is_some_and(is_outdated) {
            let detail = format!(
                "the agent of {name} is of the release before the control plane's, and is asked for nothing that it does not \
                 know; upgrade it"
            );
            note("host_agent_outdated", detail);
        }
        if self.paused > 0 {
            let detail = format!(
                "{} instances on {name} stand still, because its pool is full or its disks fail; they go on by themselves; \
                 `cumulo-agent verify` there names all",
                self.paused
            );
            note("host_instances_paused", detail);
        }
        let (wanted, applied) = (self.network_revision, self.network_applied.unwrap_or_default());
        if applied < wanted {
            let detail = format!(
                "{name} has its networks as of revision {applied}, and {wanted} is wanted; if that lasts, the log of its \
                 agent tells why"
            );
            note("host_network_behind", detail);
        }
        if let Some(first) = self.network_faults.first() {
            let count = self.network_faults.len();
            note(
                "host_network_fault",
                format!("{name} could not make {count} things; the first: {}", first.detail),
            );
        }
        let Some(check) = &self.network_check else {
            // One that has not been made to match has nothing to compare.
            if self.network_applied.is_some() {
                note("host_check_old", format!("{name} has never compared itself with what it was told"));
            }
            return found;
        };
        let at = check.checked_at.format(&Rfc3339).unwrap_or_default();
        if check.differences > 0 {
            let detail = format!(
                "{name} differed in {} things from revision {} at {at}; the first to be done: {}; `cumulo-agent verify` \
                 there names all",
                check.differences,
                check.revision.0,
                check.first.as_deref().unwrap_or("unknown")
            );
            note("host_differs", detail);
        }
        if now - self.heard_again_at.map_or(check.checked_at, |since| since.max(check.checked_at)) > OLD_CHECK
        {
            let detail =
                format!("{name} has not compared itself with what it was told since {at}; its log tells why");
            note("host_check_old", detail);
        }
        found
    }
}
