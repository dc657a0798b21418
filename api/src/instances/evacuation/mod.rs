//! Instances that leave a host which its operator empties for maintenance.
//!
//! A pass looks at each instance there and does the one step that is due ([`way`] decides which): shut it down, let it
//! go to another host, or write down why it stays. Everything is in the tables, so any replica goes on from anywhere,
//! and what stays is looked at again and again. INVARIANT: nothing leaves its host before another one has taken it in
//! the same transaction; and what was shut down for this is started again, there or here.

mod live;
mod plan;
mod steps;
mod store;
mod way;

use protocol::HostId;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use self::steps::Locked;
use self::store::{Drain, Subject};
use self::way::{Bound, Guest, Obstacle, Step, next_step, way_out};
use super::migration;
use super::store as instances;
use super::store::{disk_moves, placement, recovery};
use crate::app::App;
use crate::hosts;
use crate::http::{ApiError, Selector};
use crate::quotas;
use crate::scheduler::{Placement, Request, place};
use crate::volumes::store::attachments;

pub(crate) use self::plan::plan;
pub use self::way::EvacuationWay;

/// So many instances of one host are on their way at once.
pub(crate) const AT_ONCE: i64 = 4;
/// What was shut down and could not leave is left alone for so long.
const PAUSE: Duration = Duration::minutes(10);
/// Of one that began to run a moment ago.
const NOT_NOW: &str = "no other host takes it just now";

/// Goes on with each host in maintenance. Any number of replicas may run it at once.
pub(crate) async fn evacuate(app: &App) -> Result<(), sqlx::Error> {
    let mut conn = app.pool.acquire().await?;
    let drains = store::drains(&mut conn, None).await?;
    drop(conn);
    for drain in drains {
        if let Err(error) = go_on(app, &drain).await {
            // One host that cannot be emptied now does not keep the others waiting.
            tracing::warn!(host = %drain.host, %error, "it could not be emptied; trying again");
        }
    }
    Ok(())
}

async fn go_on(app: &App, drain: &Drain) -> Result<(), ApiError> {
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    store::note_left(&mut conn, drain.host, now).await?;
    let subjects = store::subjects(&mut conn, drain.host, None, drain.standing(now), now).await?;
    drop(conn);
    let hosts = migration::Hosts::at(now);
    for mut subject in subjects {
        // Given back before the next transaction takes one.
        let mut conn = app.pool.acquire().await?;
        live::look(&mut conn, &mut subject, &hosts, now).await?;
        let is_worth_it = is_worth_it(&mut conn, &hosts, drain, &subject, now).await?;
        drop(conn);
        if is_worth_it && let Err(error) = advance(app, drain.host, &subject).await {
            tracing::warn!(instance = %subject.id, %error, "it could not leave its host; trying again");
        }
    }
    let mut tx = app.begin().await?;
    hosts::store::standing_if_there(&mut tx, drain.host, now).await?;
    store::settle(&mut tx, drain.host, now).await?;
    store::end_if_paid(&mut tx, drain.host, now).await?;
    Ok(tx.commit().await?)
}

/// Whether there may be something to do, so that no lock is taken of what only waits. Notes why it waits.
async fn is_worth_it(
    conn: &mut PgConnection,
    hosts: &migration::Hosts,
    drain: &Drain,
    subject: &Subject,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    if drain.ends() || subject.was_stopped {
        return Ok(true);
    }
    match next_step(&subject.facts, drain.stop_running) {
        Step::Stay(_) if subject.was_sent => Ok(true),
        Step::Stay(obstacle) => {
            store::note(conn, drain.host, subject, obstacle.phase(), &Err(obstacle), now).await?;
            Ok(false)
        }
        Step::Migrate | Step::Stop { .. } | Step::Leave { .. } | Step::Copy => {
            let Some(request) = request_of(conn, subject).await? else { return Ok(false) };
            // It is asked again when it matters.
            let fleet = &hosts.read(conn).await?.fleet;
            let Placement::Nowhere(explanation) = place(fleet, &request) else { return Ok(true) };
            store::note(conn, drain.host, subject, "stays", &Err(nowhere(explanation.summary)), now).await?;
            Ok(false)
        }
        Step::Await | Step::GiveBack(_) => Ok(true),
    }
}

/// Does what is due with one instance. INVARIANT: the host's row is held, so that the maintenance does not end meanwhile and
/// no more than so many are on their way.
async fn advance(app: &App, host: HostId, of: &Subject) -> Result<(), ApiError> {
    let mut tx = app.begin().await?;
    if !recovery::take_turn(&mut tx, of.id).await? {
        return Ok(());
    }
    let selector = Selector::Id(of.id);
    let Some(row) = instances::find_in(&mut tx, of.project_id.into(), &selector).await? else {
        return Ok(());
    };
    // In everybody's order: volumes, quotas, the turn of placement, and hosts last.
    attachments::lock_all_shared(&mut tx, of.id).await?;
    quotas::store::lock_before_going(&mut tx, &[of.id], &[], &[]).await?;
    placement::take_turn(&mut tx).await?;
    let now = app.clock.now();
    let (mut looked, hosts) = (of.clone(), migration::Hosts::at(now));
    let destination = live::look(&mut tx, &mut looked, &hosts, now).await?;
    if let Some(destination) = destination {
        // Both, in everybody's order.
        migration::hold(&mut tx, host, destination).await?;
    }
    let Some(standing) = hosts::store::standing_if_there(&mut tx, host, now).await? else { return Ok(()) };
    let Some(drain) = store::drains(&mut tx, Some(host)).await?.pop() else { return Ok(()) };
    let mut subjects = store::subjects(&mut tx, host, Some(of.id), standing, now).await?;
    let Some(mut subject) = subjects.pop() else { return Ok(()) };
    if subject.facts.guest == Guest::Runs && destination.is_none() {
        subject.facts.bound =
            looked.facts.bound.clone().or_else(|| Some(Bound { why: NOT_NOW.to_owned(), passes: true }));
    }
    if subject.facts.local_volume.is_some() {
        subject.facts.bound = looked.facts.bound;
        subject.facts.disks_bound = looked.facts.disks_bound;
        let goes =
            matches!(subject.facts.guest, Guest::Runs | Guest::Ended | Guest::GoesDown | Guest::AtRest);
        if goes && destination.is_none() && subject.facts.disks_bound.is_none() {
            subject.facts.disks_bound = Some(Bound { why: NOT_NOW.to_owned(), passes: true });
        }
    }
    let project = of.project_id.into();
    let locked = Locked { app, drain: &drain, project, row, hosts: &hosts, destination, now };
    do_step(&locked, &mut tx, &subject).await?;
    Ok(tx.commit().await?)
}

async fn do_step(locked: &Locked<'_>, conn: &mut PgConnection, subject: &Subject) -> Result<(), ApiError> {
    let (drain, now) = (locked.drain, locked.now);
    let is_here = locked.row.host_id.map(HostId::from) == Some(drain.host);
    if drain.ends() || !is_here {
        // It goes on where it is: here, or where something else has taken it.
        if subject.facts.owed {
            locked.start(conn).await?;
        }
        return Ok(store::paid(conn, drain.host, subject.id, None).await?);
    }
    if subject.was_stopped && !subject.facts.owed {
        store::paid(conn, drain.host, subject.id, None).await?;
    }
    match next_step(&subject.facts, drain.stop_running) {
        Step::Stay(obstacle) => {
            if subject.was_sent {
                // It is sent again, but not at once.
                store::paid(conn, drain.host, subject.id, Some(now + PAUSE)).await?;
            }
            note(locked, conn, subject, obstacle.phase(), &Err(obstacle)).await
        }
        Step::Await if subject.facts.guest == Guest::OnItsWay => {
            note(locked, conn, subject, "moving", &Ok(EvacuationWay::Migrate)).await
        }
        Step::Await if subject.facts.guest == Guest::IsCopied => {
            note(locked, conn, subject, "moving", &way_out(&subject.facts, drain.stop_running)).await
        }
        Step::Await if is_stopping(subject) => Ok(()),
        Step::Await => note(locked, conn, subject, "waiting", &Err(not_confirmed())).await,
        Step::GiveBack(obstacle) => give_back(locked, conn, subject, obstacle).await,
        Step::Migrate => {
            let Some(destination) = locked.destination else { return Ok(()) };
            if !goes(locked, conn, subject, "moving").await? {
                return Ok(());
            }
            locked.migrate(conn, destination).await
        }
        Step::Stop { .. } if subject.due_at.is_some_and(|due| due > now) => Ok(()),
        Step::Stop { owed } => {
            if !goes(locked, conn, subject, "stopping").await? {
                return Ok(());
            }
            let operation = locked.stop(conn).await?;
            if owed {
                store::owe(conn, drain.host, subject.id, operation).await?;
            }
            Ok(())
        }
        Step::Copy => {
            let Some(destination) = locked.destination else { return Ok(()) };
            if !goes(locked, conn, subject, "moving").await? {
                return Ok(());
            }
            // A start that is owed to it is due when it is there.
            locked.copy(conn, destination).await
        }
        Step::Leave { starts } => {
            if !goes(locked, conn, subject, "moving").await? {
                return Ok(());
            }
            locked.leave(conn, starts).await?;
            Ok(store::paid(conn, drain.host, subject.id, None).await?)
        }
    }
}

/// Whether it goes on its way, or further on it. Notes that, or why not.
async fn goes(
    locked: &Locked<'_>,
    conn: &mut PgConnection,
    subject: &Subject,
    phase: &str,
) -> Result<bool, ApiError> {
    let drain = locked.drain;
    if let Some(obstacle) = no_room(conn, subject, locked.hosts).await? {
        if subject.facts.owed {
            give_back(locked, conn, subject, obstacle).await?;
        } else {
            note(locked, conn, subject, "stays", &Err(obstacle)).await?;
        }
        return Ok(false);
    }
    let way = way_out(&subject.facts, drain.stop_running);
    let goes = is_stopping(subject) || store::on_their_way(conn, drain.host).await? < AT_ONCE;
    note(locked, conn, subject, if goes { phase } else { "waiting" }, &way).await?;
    Ok(goes)
}

fn is_stopping(subject: &Subject) -> bool {
    subject.phase.as_deref() == Some("stopping")
}

fn not_confirmed() -> Obstacle {
    Obstacle::new("not_confirmed", "its owner has stopped it, and this host has not confirmed that yet")
}

async fn give_back(
    locked: &Locked<'_>,
    conn: &mut PgConnection,
    subject: &Subject,
    obstacle: Obstacle,
) -> Result<(), ApiError> {
    locked.start(conn).await?;
    store::paid(conn, locked.drain.host, subject.id, Some(locked.now + PAUSE)).await?;
    note(locked, conn, subject, "stays", &Err(obstacle)).await
}

async fn note(
    locked: &Locked<'_>,
    conn: &mut PgConnection,
    subject: &Subject,
    phase: &str,
    found: &Result<EvacuationWay, Obstacle>,
) -> Result<(), ApiError> {
    Ok(store::note(conn, locked.drain.host, subject, phase, found, locked.now).await?)
}

/// What another host has to offer that is to take it.
async fn request_of(conn: &mut PgConnection, subject: &Subject) -> Result<Option<Request>, sqlx::Error> {
    match subject.facts.local_volume {
        Some(_) => disk_moves::request(conn, subject.id.into()).await,
        None => placement::request(conn, subject.id.into()).await,
    }
}

/// Why no other host takes it, if none does.
async fn no_room(
    conn: &mut PgConnection,
    subject: &Subject,
    hosts: &migration::Hosts,
) -> Result<Option<Obstacle>, sqlx::Error> {
    let Some(request) = request_of(conn, subject).await? else { return Ok(None) };
    Ok(match place(&hosts.read(conn).await?.fleet, &request) {
        Placement::Host(_) => None,
        Placement::Nowhere(explanation) => Some(nowhere(explanation.summary)),
    })
}

fn nowhere(summary: String) -> Obstacle {
    Obstacle::new("no_room", summary)
}
