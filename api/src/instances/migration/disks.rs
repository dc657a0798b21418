//! Cold migration: an instance that is stopped goes to another host with what is on the disk of its own.
//!
//! The destination fetches the layers from the source, and says when it has all of them. Until then the instance is where it
//! was, and whoever ends the migration ends it here: the destination then removes what it has. With the destination's word
//! one transaction makes instance, volumes and layers its own, and only after that the source removes its files. Of a guest that
//! runs, this is the first half: its files are fetched, and then it goes as one without such disks does.

use protocol::HostId;
use protocol::agent::{DISK_MOVES, MigrationState};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::super::store::Row;
use super::super::store::disk_moves;
use super::super::store::migrations::{self, HostFacts, New, Stuck};
use super::checks::{self, not_now, refused};
use super::hosts::Hosts;
use super::reports::{failed_because, is_own, tell_progress};
use super::{DUE, Migration, Why, end, failed};
use crate::http::ApiError;
use crate::operations::store as operations;

/// A disk that is slower than that ends no migration.
const OF_A_GIB: Duration = Duration::minutes(1);

pub(super) const REQUESTED: &str = "somebody asked for it; the instance is where it was";
const TOO_LATE: Why =
    ("migration_timed_out", "its disks were not copied in time; the instance is where it was");
const NO_DESTINATION: Why =
    ("migration_failed", "the host that it was to go to was declared dead; the instance is where it was");
const OLDER_DESTINATION: Why = (
    "migration_failed",
    "the host that it was to go to has an agent now that takes no disks; the instance is where it was",
);
const NO_SOURCE: Why = (
    "migration_failed",
    "its host was declared dead before its disks were copied; the instance is where it was",
);
const CHANGED: Why = (
    "migration_failed",
    "something needs its disks by now where they are, such as a copy of one; the instance is where it was",
);

/// Why it is ended by the control plane.
pub(super) const fn why_stuck(one: &Stuck) -> Why {
    if one.source_dead {
        NO_SOURCE
    } else if one.destination_dead {
        NO_DESTINATION
    } else if one.destination_unable {
        OLDER_DESTINATION
    } else {
        TOO_LATE
    }
}

/// What stands in the way of an instance that its host has said is stopped, and all of whose volumes are locked.
///
/// # Errors
/// With the reason.
pub(in crate::instances) async fn obstacle(conn: &mut PgConnection, row: &Row) -> Result<HostId, ApiError> {
    let Some(host) = row.host_id.map(HostId::from) else { return refused("it is on no host") };
    let way = checks::settled(conn, row.id).await?;
    if way.host_dead {
        return refused("its host was declared dead, and the data on the disk of that is lost with it");
    }
    if way.snapshot {
        return not_now("a snapshot of it is being taken; try again when it is there");
    }
    if way.devices_leave {
        return not_now("a volume or a network card is on its way out of it; try again when that is done");
    }
    if way.hard_group {
        return refused(
            "the hard rule of its placement group could be broken while it has room on two hosts",
        );
    }
    match disk_moves::bound_by(conn, row.id).await? {
        Some(what) => refused(format!("its disks do not go to another host because of {what}")),
        None => Ok(host),
    }
}

/// The host that would take an instance with its disks once no guest runs, as far as can be told without a lock.
pub(in crate::instances) async fn destination(
    conn: &mut PgConnection,
    row: &Row,
    hosts: &Hosts,
) -> Result<HostId, ApiError> {
    let source = obstacle(conn, row).await?;
    choose(conn, row, source, None, hosts).await
}

/// The destination: the host that is named, if it takes it, or the best one.
pub(in crate::instances) async fn choose(
    conn: &mut PgConnection,
    row: &Row,
    source: HostId,
    named: Option<&str>,
    hosts: &Hosts,
) -> Result<HostId, ApiError> {
    let hosts = hosts.read(conn).await?;
    let from = hosts.facts(source).map(unfit);
    if let Some(Some(why)) = from {
        return refused(format!("its own host cannot send its disks: {why}"));
    }
    if !hosts.fleet.host(source).is_some_and(|host| host.ready) {
        return not_now("nothing is heard of its host, which has to send its disks");
    }
    let request = disk_moves::request(conn, row.id.into()).await?.ok_or_else(ApiError::not_found)?;
    let why_not = |host: &HostFacts| if host.id == source { Some("it is there") } else { unfit(host) };
    let none = "no other host has an agent that takes disks, and an address for other hosts";
    checks::pick(hosts, &request, named, why_not, none)
}

/// Why a host neither sends disks nor takes any.
fn unfit(host: &HostFacts) -> Option<&'static str> {
    let Some(inventory) = &host.inventory else { return Some("it has told nothing of itself yet") };
    if !inventory.features.iter().any(|feature| feature == DISK_MOVES) {
        Some("its agent is of an earlier release, which does not know of that; upgrade it")
    } else if inventory.underlay_address.is_none() {
        Some("it has no address for other hosts; start its agent with --underlay-address")
    } else {
        None
    }
}

/// Gives a migration the time that its disks take.
async fn with_disks(
    conn: &mut PgConnection,
    new: New,
    gib: i32,
    now: OffsetDateTime,
) -> Result<New, sqlx::Error> {
    let new = New { due_at: now + DUE + OF_A_GIB * gib, disk_gib: Some(gib), ..new };
    disk_moves::allow_time(conn, &new).await?;
    Ok(new)
}

/// Begins one of a guest that runs, in the transaction of whoever has chosen the destination; both hosts are held, and the
/// next generation of the instance is stored.
pub(in crate::instances) async fn begin_running(
    conn: &mut PgConnection,
    row: &Row,
    new: New,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let gib = disk_moves::gib(conn, row.id).await?;
    let new = if gib == 0 { new } else { with_disks(conn, new, gib, now).await? };
    super::begin(conn, &new, now).await
}

/// Begins one, in the transaction of whoever has chosen the destination; both hosts are held, and the next generation of the
/// instance is stored. What has nothing on the disk of its host is there at once.
pub(in crate::instances) async fn begin(
    conn: &mut PgConnection,
    row: &Row,
    new: New,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let gib = disk_moves::gib(conn, row.id).await?;
    let new = with_disks(conn, new, gib, now).await?;
    super::begin(conn, &new, now).await?;
    if gib == 0 {
        let of = migrations::of_instance(conn, row.id).await?.ok_or_else(ApiError::not_found)?;
        migrations::change_hands(conn, &of, now).await?;
    }
    Ok(())
}

/// Folds in what a host says. The instance is locked.
pub(super) async fn fold(
    conn: &mut PgConnection,
    host: HostId,
    of: &Migration,
    state: &MigrationState,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let is_source = host == of.source();
    match state {
        MigrationState::Ready { address } if !is_source => {
            if is_own(conn, host, *address).await? && disk_moves::set_ready(conn, of, *address).await? {
                operations::step(conn, of.operation(), "destination_ready", now, None).await?;
            }
            Ok(())
        }
        MigrationState::Transferring { done_bytes, total_bytes } if !is_source && of.is_sent() => {
            let step = if of.runs { "copying" } else { "transferring" };
            tell_progress(conn, of, step, (*done_bytes, *total_bytes), now).await
        }
        MigrationState::Received if !is_source && of.is_sent() => arrive(conn, of, now).await,
        MigrationState::Refused { detail } if !is_source => end(conn, of, &failed_because(detail), now).await,
        MigrationState::Ended { detail } if is_source && of.is_sent() => {
            end(conn, of, &failed_because(detail), now).await
        }
        _ => Ok(()),
    }
}

/// INVARIANT: the destination has said that it has all of the disks, and nothing has changed of them since they were to be
/// copied.
async fn arrive(conn: &mut PgConnection, of: &Migration, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    if !disk_moves::is_as_it_was(conn, of).await? {
        return end(conn, of, &failed(CHANGED), now).await;
    }
    if of.runs {
        disk_moves::begin_guest(conn, of, now).await?;
    } else {
        migrations::change_hands(conn, of, now).await?;
    }
    operations::step(conn, of.operation(), "received", now, None).await
}
