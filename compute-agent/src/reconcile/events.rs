//! What makes the agent look: events of the hypervisor and of the networks, and a look at everything now and then, because
//! events get lost.

use std::sync::Arc;
use std::time::Duration;

use protocol::agent::HypervisorHealth;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::Reconciler;
use super::workers::Workers;
use crate::hypervisor::Event;
use crate::networks::Keeper;

/// How often everything is looked at without a reason.
const RESYNC: Duration = Duration::from_secs(30);

/// Runs until it is dropped. `events` were subscribed to before the first look, so that none is missed.
pub async fn watch(
    reconciler: Arc<Reconciler>,
    workers: Workers,
    networks: Arc<Keeper>,
    mut events: broadcast::Receiver<Event>,
) {
    let mut resync = tokio::time::interval(RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(Event::Connected) => resync.reset_immediately(),
                Ok(event) => on_event(&reconciler, &workers, &event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "hypervisor events were missed: looking at everything");
                    workers.nudge_all();
                }
                // The hypervisor is gone for good; looking still tells so.
                Err(RecvError::Closed) => std::future::pending().await,
            },
            changed = networks.changed() => {
                changed.into_iter().for_each(|id| nudge_wanted(&reconciler, &workers, id));
            }
            _ = resync.tick() => {
                // Also with nothing wanted: domains that nobody knows are counted, and health is told.
                if let Err(error) = reconciler.view.look().await {
                    tracing::debug!(%error, "hypervisor not seen");
                }
                workers.nudge_all();
            }
        }
    }
}

fn on_event(reconciler: &Reconciler, workers: &Workers, event: &Event) {
    tracing::debug!(?event, "hypervisor event");
    match *event {
        Event::Ended { id, why } => {
            reconciler.ended(id, why);
            nudge_wanted(reconciler, workers, id);
        }
        Event::Changed { id } => nudge_wanted(reconciler, workers, id),
        Event::Disconnected => reconciler.view.set_health(HypervisorHealth::Degraded {
            reason: "the connection to the hypervisor broke".to_owned(),
        }),
        // Everything is looked at then.
        Event::Connected => {}
    }
}

/// Domains that nobody knows are left alone.
fn nudge_wanted(reconciler: &Reconciler, workers: &Workers, id: protocol::InstanceId) {
    if reconciler.parts.desired.get(id).is_some() {
        workers.nudge(id);
    }
}
