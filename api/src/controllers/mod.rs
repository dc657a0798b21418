//! Level-triggered work: each function looks at the tables, does what is due, and may run on any replica at
//! any time. A failure is logged and tried again; nothing is remembered in between that would be missed.

#[cfg(test)]
mod tests;

use std::time::Duration;

use time::Duration as Age;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::nudge::Topic;
use crate::{
    agents, api_keys, audit, auth, consoles, events, hosts, http, images, insight, instances, networks,
    operations, pools, ports, snapshot_schedules, snapshots, volumes,
};

/// For one pass. No statement takes a quarter of it, so what does waits for the answer of a server that is gone without a
/// word. What it has not committed is done again.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one that also removes files.
const PATIENCE_WITH_FILES: Duration = Duration::from_secs(600);

/// Keys that ended are kept this long, for whoever asks what happened.
const KEEP_KEYS: Age = Age::days(7);

/// Runs all controllers until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let placement =
        repeat(&app, &shutdown, "placement", Duration::from_secs(5), Some(Topic::Placement), |app| {
            Box::pin(async move { instances::place_pending(&app).await })
        });
    let heartbeats = repeat(&app, &shutdown, "heartbeats", Duration::from_secs(1), None, |app| {
        Box::pin(async move {
            // The one does not wait for the other.
            let (heard, used) = tokio::join!(app.heartbeats.flush(&app.pool), app.key_uses.flush(&app.pool));
            heard.and(used)
        })
    });
    let deadlines = repeat(&app, &shutdown, "deadlines", Duration::from_secs(5), None, |app| {
        Box::pin(async move { operations::expire(&app).await })
    });
    let old_operations = repeat(&app, &shutdown, "old operations", Duration::from_secs(600), None, |app| {
        Box::pin(async move {
            let mut conn = app.pool.acquire().await?;
            operations::forget_old(&mut conn, app.clock.now()).await
        })
    });
    let (half_a_minute, sweep_now) = (Duration::from_secs(30), Some(Topic::Sweep));
    let sweep = repeat_for(PATIENCE_WITH_FILES, &app, &shutdown, "sweep", half_a_minute, sweep_now, |app| {
        Box::pin(async move { sweep(&app).await })
    });
    let notary = repeat(&app, &shutdown, "notary", Duration::from_secs(5), Some(Topic::Notary), |app| {
        Box::pin(async move { audit::attest(&app).await })
    });
    let sequencer =
        repeat(&app, &shutdown, "sequencer", Duration::from_secs(1), Some(Topic::Events), |app| {
            Box::pin(async move { events::sequence(&app).await })
        });
    let networks =
        repeat(&app, &shutdown, "networks", Duration::from_secs(5), Some(Topic::Networks), |app| {
            Box::pin(async move { networks::spread(&app).await })
        });
    let lost_cards =
        repeat(&app, &shutdown, "lost cards", Duration::from_secs(5), Some(Topic::Networks), |app| {
            Box::pin(async move { ports::release_of_lost_hosts(&app).await })
        });
    let lost_hosts =
        repeat(&app, &shutdown, "lost hosts", Duration::from_secs(5), Some(Topic::Networks), |app| {
            Box::pin(async move { instances::end_on_lost_hosts(&app).await })
        });
    let recovery = repeat(&app, &shutdown, "recovery", Duration::from_secs(5), None, |app| {
        Box::pin(async move { instances::recover(&app).await })
    });
    let unknown_guests = repeat(&app, &shutdown, "unknown guests", Duration::from_secs(10), None, |app| {
        Box::pin(async move { hosts::unknown_guests::look_after(&app).await })
    });
    let silence = repeat(&app, &shutdown, "silence", Duration::from_secs(5), None, |app| {
        Box::pin(async move { hosts::watch_for_silence(&app).await })
    });
    // Each waits for one program at a time, for no longer than that may take.
    let (soon, program_ends) =
        (Duration::from_secs(5), app.fence.as_ref().map_or(Duration::ZERO, hosts::Fencer::limit));
    let fences = futures_util::future::join_all((0..hosts::FENCES_AT_ONCE).map(|_| {
        repeat_for(program_ends + PATIENCE, &app, &shutdown, "fences", soon, None, |app| {
            Box::pin(async move { hosts::fence(&app).await })
        })
    }));
    let drains = repeat(&app, &shutdown, "drains", Duration::from_secs(5), Some(Topic::Drains), |app| {
        Box::pin(async move { instances::evacuate(&app).await })
    });
    let migrations = repeat(&app, &shutdown, "migrations", Duration::from_secs(5), None, |app| {
        Box::pin(async move { instances::migration::look_after(&app).await })
    });
    let merges = repeat(&app, &shutdown, "merges", Duration::from_secs(10), Some(Topic::Merges), |app| {
        Box::pin(async move { volumes::merge(&app).await })
    });
    let removals =
        repeat(&app, &shutdown, "removals", Duration::from_secs(10), Some(Topic::Placement), |app| {
            Box::pin(async move { pools::assign_orders(&app).await })
        });
    let snapshots =
        repeat(&app, &shutdown, "snapshots", Duration::from_secs(5), Some(Topic::Snapshots), |app| {
            Box::pin(async move { snapshots::expire(&app).await })
        });
    let schedules = repeat(&app, &shutdown, "schedules", Duration::from_secs(10), None, |app| {
        Box::pin(async move { snapshot_schedules::run(&app).await })
    });
    let leases = repeat(&app, &shutdown, "leases", Duration::from_secs(5), None, |app| {
        Box::pin(async move { instances::end_leases(&app).await })
    });
    let resizes = repeat(&app, &shutdown, "resizes", Duration::from_secs(5), None, |app| {
        Box::pin(async move { instances::confirm_resizes(&app).await })
    });
    // Each does one import at a time, which has a limit of its own.
    let (often, import_now) = (Duration::from_secs(5), Some(Topic::Imports));
    let imports = futures_util::future::join_all((0..app.imports.at_once()).map(|_| {
        repeat_for(Duration::MAX, &app, &shutdown, "imports", often, import_now, |app| {
            Box::pin(async move { images::run_imports(&app).await })
        })
    }));
    let lost_nudges = agents::lost_nudges::find(&app, &shutdown);
    tokio::join!(
        lost_nudges,
        placement,
        networks,
        lost_cards,
        lost_hosts,
        recovery,
        drains,
        heartbeats,
        deadlines,
        sweep,
        notary,
        sequencer,
        migrations,
        merges,
        removals,
        snapshots,
        schedules,
        leases,
        resizes,
        imports,
        silence,
        fences,
        unknown_guests,
        old_operations
    );
}

/// Removes what has served its time.
async fn sweep(app: &App) -> Result<(), sqlx::Error> {
    app.metrics.run_upkeep();
    app.edge.limits.forget_idle();
    images::sweep(app).await?;
    consoles::sweep(app).await?;
    insight::empty_next_slot(app).await?;
    let now = app.clock.now();
    let mut conn = app.pool.acquire().await?;
    agents::transfers::forget_old(&mut conn, now).await?;
    http::forget_old_answers(&mut conn, now).await?;
    auth::backoff::forget_old(&mut conn, now).await?;
    events::forget_old(&mut conn, now).await?;
    auth::forget_old(&mut conn, now).await?;
    api_keys::forget(&mut conn, now - KEEP_KEYS).await?;
    auth::signing_keys::look_after(&mut conn, app, now).await
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send>>;

/// Does the work now, then on every nudge and at least once an interval.
async fn repeat(
    app: &App,
    shutdown: &CancellationToken,
    name: &'static str,
    interval: Duration,
    topic: Option<Topic>,
    work: impl Fn(App) -> Work,
) {
    repeat_for(PATIENCE, app, shutdown, name, interval, topic, work).await;
}

/// The same with this patience.
async fn repeat_for(
    patience: Duration,
    app: &App,
    shutdown: &CancellationToken,
    name: &'static str,
    interval: Duration,
    topic: Option<Topic>,
    work: impl Fn(App) -> Work,
) {
    let mut waiter = topic.map(|topic| app.nudges.subscribe(topic));
    while !shutdown.is_cancelled() {
        match tokio::time::timeout(patience, work(app.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(controller = name, %error, "trying again"),
            Err(_) => tracing::warn!(controller = name, ?patience, "it did not come to an end; trying again"),
        }
        let pause = async {
            match &mut waiter {
                Some(waiter) => waiter.nudged(interval).await,
                None => tokio::time::sleep(interval).await,
            }
        };
        tokio::select! {
            () = pause => {}
            () = shutdown.cancelled() => {}
        }
    }
}
