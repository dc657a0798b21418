//! What hosts and pools have and have given away, and how many instances there are, for Prometheus.
//!
//! It is read from the database when somebody asks, and kept for [`FRESH`]: `/metrics` needs no sign-in, so whoever asks
//! often costs nothing. Each replica tells the same.

mod store;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration as Patience;

use protocol::agent::DriftCode;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

use self::text::Text;
use crate::app::App;
use crate::hosts::{HostState, is_outdated};

/// What was read is told again for so long.
const FRESH: Duration = Duration::seconds(5);
/// A database that takes longer costs these numbers, and not the others.
const READ_WITHIN: Patience = Patience::from_secs(2);

/// What was read last, and when.
#[derive(Debug, Default)]
pub struct FleetMetrics(Mutex<Option<(OffsetDateTime, String)>>);

/// The numbers in Prometheus' text format; nothing but `cumulo_fleet_up 0` while the database does not answer.
pub(crate) async fn render(app: &App) -> String {
    let now = app.clock.now();
    let mut last = app.fleet.0.lock().await;
    if let Some((read_at, text)) = last.as_ref()
        && now - *read_at < FRESH
    {
        return text.clone();
    }
    let read =
        tokio::time::timeout(READ_WITHIN, async { store::read(&mut *app.pool.acquire().await?).await });
    let text = match read.await {
        Ok(Ok(fleet)) => describe(&fleet, now),
        Ok(Err(error)) => {
            tracing::info!(%error, "cannot read what hosts and pools have");
            describe_nothing()
        }
        Err(_) => describe_nothing(),
    };
    *last = Some((now, text.clone()));
    text
}

fn describe_nothing() -> String {
    let mut text = Text::default();
    text.gauge(
        "cumulo_fleet_up",
        "1 if the metrics of hosts, pools and instances could be read",
        [(vec![], 0)],
    );
    text.into_string()
}

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

fn describe(fleet: &store::Fleet, now: OffsetDateTime) -> String {
    let mut text = Text::default();
    text.gauge(
        "cumulo_fleet_up",
        "1 if the metrics of hosts, pools and instances could be read",
        [(vec![], 1)],
    );
    describe_hosts(&mut text, fleet, now);
    describe_pools(&mut text, fleet);
    let instances = fleet.instances.iter();
    text.gauge(
        "cumulo_instances",
        "Instances by what their hosts said last; `unplaced` have no host",
        instances.map(|one| (vec![("state", one.state.as_str())], one.count)),
    );
    text.gauge(
        "cumulo_drift",
        "Differences of hosts from what is wanted of them, as their agents found twice in a row",
        DriftCode::ALL.iter().map(|code| {
            (vec![("code", code.as_str())], fleet.drift.get(code.as_str()).copied().unwrap_or_default())
        }),
    );
    text.gauge(
        "cumulo_image_store_bytes",
        "Bytes in the image store that are kept",
        [(vec![], fleet.image_store_bytes)],
    );
    text.into_string()
}

fn describe_hosts(text: &mut Text, fleet: &store::Fleet, now: OffsetDateTime) {
    let mut each = |name, help, value: &dyn Fn(&store::Host) -> Option<i64>| {
        let values =
            fleet.hosts.iter().filter_map(|host| Some((vec![("host", host.name.as_str())], value(host)?)));
        text.gauge(name, help, values);
    };
    let state = |host: &store::Host| HostState::of(host.last_seen_at, host.degraded, now);
    each("cumulo_host_ready", "1 if its agent is heard and sees its guests", &|host| {
        Some((state(host) == HostState::Ready).into())
    });
    each("cumulo_host_cordoned", "1 if it takes no new instances", &|host| Some(host.cordoned.into()));
    each("cumulo_host_in_maintenance", "1 if it is being emptied, or is kept empty", &|host| {
        Some(host.in_maintenance.into())
    });
    each("cumulo_host_instances", "Instances placed there", &|host| Some(host.instances));
    each("cumulo_host_vcpus_capacity", "Virtual processors that may be given away", &|host| {
        Some(host.vcpus_capacity.into())
    });
    each("cumulo_host_vcpus_reserved", "Virtual processors that are given away", &|host| {
        Some(host.vcpus_reserved.into())
    });
    each("cumulo_host_memory_capacity_bytes", "Memory that may be given away", &|host| {
        Some(i64::from(host.memory_mib_capacity) * MIB)
    });
    each("cumulo_host_memory_reserved_bytes", "Memory that is given away", &|host| {
        Some(i64::from(host.memory_mib_reserved) * MIB)
    });
    each("cumulo_host_disk_capacity_bytes", "Disk that may be given away", &|host| {
        Some(i64::from(host.disk_gib_capacity) * GIB)
    });
    each("cumulo_host_disk_reserved_bytes", "Disk that is given away", &|host| {
        Some(i64::from(host.disk_gib_reserved) * GIB)
    });
    each("cumulo_host_pool_total_bytes", "Size of the file system of its local pool", &|host| {
        host.pool_total_bytes
    });
    each("cumulo_host_pool_free_bytes", "What is free there", &|host| host.pool_free_bytes);
    each("cumulo_host_pool_image_cache_bytes", "What cached images take there", &|host| {
        host.pool_image_cache_bytes
    });
    each("cumulo_host_pool_low", "1 if it is almost full and takes no new volumes", &|host| {
        Some(host.pool_low.into())
    });
    let unfenced = |host: &store::Host| state(host) == HostState::Unreachable;
    each(
        "cumulo_host_fence_failures",
        "Calls of the fence command since the host fell silent that did not switch it off",
        &|host| host.fence_failures.filter(|_| unfenced(host)).map(Into::into),
    );
    each(
        "cumulo_host_fence_held",
        "1 if it is silent and something keeps it from being switched off",
        &|host| Some((host.fence_held && unfenced(host)).into()),
    );
    each(
        "cumulo_host_agent_outdated",
        "1 if its agent is of the release before the control plane's",
        &|host| host.protocol_version.map(|version| is_outdated(version).into()),
    );
    each("cumulo_host_drift", "In how many things it differs from what is wanted of it", &|host| {
        host.drift.map(Into::into)
    });
    each(
        "cumulo_host_drift_look_age_seconds",
        "How long ago its agent looked for that; up to five minutes are usual",
        &|host| host.drift_looked_at.map(|at| (now - at).whole_seconds()),
    );
}

fn describe_pools(text: &mut Text, fleet: &store::Fleet) {
    let mut each = |name, help, value: &dyn Fn(&store::Pool) -> Option<i64>| {
        let values =
            fleet.pools.iter().filter_map(|pool| Some((vec![("pool", pool.name.as_str())], value(pool)?)));
        text.gauge(name, help, values);
    };
    each("cumulo_pool_capacity_bytes", "What of a shared pool may be given away", &|pool| {
        Some(i64::from(pool.disk_gib_capacity) * GIB)
    });
    each("cumulo_pool_reserved_bytes", "What of it is given away", &|pool| {
        Some(i64::from(pool.disk_gib_reserved) * GIB)
    });
    each("cumulo_pool_total_bytes", "Size of its file system, as its hosts see it", &|pool| pool.total_bytes);
    each("cumulo_pool_free_bytes", "What is free there, as the host says that sees least", &|pool| {
        pool.free_bytes
    });
    each("cumulo_pool_low", "1 if it is almost full and takes no new volumes", &|pool| Some(pool.low.into()));
    each("cumulo_pool_hosts", "Hosts that have it", &|pool| Some(pool.hosts));
}
