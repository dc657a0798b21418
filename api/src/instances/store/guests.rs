//! SQL of instances for those who change their disks: what the guest may be doing, and that the host shall hear of it.

use protocol::agent::{PauseReason, Power};
use protocol::{HostId, MemoryMib};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::hosts;
use crate::instances::model::{InstanceState, Intent, Observed, shown, stored};
use crate::nudge::{self, Topic};

/// What a guest may be doing to its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Nothing, and it will not begin by itself: no host has it, or its host has said so of the newest that is asked for.
    Off,
    Running,
    /// It comes, goes, stands still, or its host has not spoken.
    Unclear,
}

/// An instance as those see it who change its disks.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub id: Uuid,
    pub name: String,
    pub boot: i64,
    pub memory_mib: MemoryMib,
    pub deleting: bool,
    pub activity: Activity,
    /// Whether it has been asked to stop, and its host has not said yet that it did.
    pub stopping: bool,
}

impl Guest {
    /// What to do before its disks can be changed, while it is not off.
    pub(crate) const fn until_off(&self) -> &'static str {
        if self.stopping { "it is stopping; try again when it is stopped" } else { "stop it first" }
    }
}

/// Locks instances, in their order.
pub(crate) async fn lock(conn: &mut PgConnection, instances: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT FROM instances WHERE id = ANY($1) ORDER BY id FOR UPDATE", instances)
        .execute(conn)
        .await?;
    Ok(())
}

/// An instance, which is locked.
pub(crate) async fn find(conn: &mut PgConnection, instance: Uuid) -> Result<Guest, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT name, host_id IS NOT NULL AS "placed!", generation, power, boot, memory_mib,
                  deletion_requested_at IS NOT NULL AS "deleting!", observed_generation, observed_boot,
                  observed_state, observed_end_reason, observed_paused, off_generation
           FROM instances WHERE id = $1"#,
        instance
    )
    .fetch_one(conn)
    .await?;
    let intent = Intent {
        generation: row.generation,
        power: stored::parse_power(&row.power),
        boot: row.boot,
        deletion_requested: row.deleting,
        placed: row.placed,
    };
    let state = row.observed_state.as_deref();
    let state = state.and_then(|state| stored::parse_state(state, row.observed_end_reason.as_deref()));
    let observed = row.observed_generation.zip(row.observed_boot).zip(state);
    let paused = row.observed_paused.as_deref().and_then(PauseReason::from_name);
    let observed = observed.map(|((generation, boot), state)| Observed { generation, boot, state, paused });
    let activity = activity(&intent, observed.as_ref(), row.off_generation);
    let state = shown(&intent, observed.as_ref(), true, false).0;
    let goes_off = matches!(state, InstanceState::Stopping | InstanceState::Stopped);
    Ok(Guest {
        id: instance,
        name: row.name,
        boot: row.boot,
        memory_mib: MemoryMib(row.memory_mib.unsigned_abs()),
        deleting: row.deleting,
        activity,
        stopping: intent.power == Power::Stopped && goes_off && activity != Activity::Off,
    })
}

fn activity(intent: &Intent, observed: Option<&Observed>, off_generation: Option<i64>) -> Activity {
    if !intent.placed {
        return Activity::Off;
    }
    let settled = observed.is_some_and(|observed| observed.generation >= intent.generation)
        || off_generation == Some(intent.generation);
    match shown(intent, observed, true, false).0 {
        // Nothing of its disks is changed while it stands still.
        InstanceState::Running if intent.power == Power::Paused => Activity::Unclear,
        InstanceState::Stopped if settled => Activity::Off,
        InstanceState::Running => Activity::Running,
        _ => Activity::Unclear,
    }
}

/// Gives the host of an instance, which is locked, the next generation of it: its disks have changed. Operations on
/// the instance stay what they are. One that is on no host or on its way out needs none.
pub(crate) async fn renew(
    conn: &mut PgConnection,
    instance: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let host = sqlx::query_scalar!(
        r#"SELECT host_id AS "host!" FROM instances
           WHERE id = $1 AND host_id IS NOT NULL AND deletion_requested_at IS NULL"#,
        instance
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(host) = host.map(HostId::from) else { return Ok(()) };
    let off = find(conn, instance).await?.activity == Activity::Off;
    let revision = hosts::store::bump_revision(conn, host).await?;
    sqlx::query!(
        "UPDATE instances SET generation = generation + 1, desired_revision = $2, updated_at = $3,
                off_generation = CASE WHEN $4 THEN generation + 1 END
         WHERE id = $1",
        instance,
        revision.0,
        now,
        off
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Host(host)).await
}

#[cfg(test)]
mod tests {
    use protocol::agent::{EndReason, ObservedState, PauseReason};

    use super::*;

    #[test]
    fn a_guest_is_off_only_when_its_host_has_said_so_of_the_newest() {
        let intent =
            |power, boot| Intent { generation: 3, power, boot, deletion_requested: false, placed: true };
        let stopped = |generation, reason| Observed {
            generation,
            boot: 1,
            state: ObservedState::Stopped { reason },
            paused: None,
        };
        let running = Observed { generation: 2, boot: 1, state: ObservedState::Running, paused: None };
        for (intent, observed, expected) in [
            (Intent { placed: false, ..intent(Power::Running, 1) }, None, Activity::Off),
            (intent(Power::Running, 1), None, Activity::Unclear),
            (intent(Power::Running, 1), Some(running), Activity::Running),
            (
                intent(Power::Running, 1),
                Some(Observed { paused: Some(PauseReason::PoolFull), ..running }),
                Activity::Unclear,
            ),
            (intent(Power::Stopped, 1), Some(running), Activity::Unclear),
            (intent(Power::Stopped, 1), Some(stopped(3, EndReason::Requested)), Activity::Off),
            // It may have been started and stopped in between.
            (intent(Power::Stopped, 1), Some(stopped(2, EndReason::Requested)), Activity::Unclear),
            (intent(Power::Running, 1), Some(stopped(3, EndReason::GuestShutdown)), Activity::Off),
            (intent(Power::Running, 2), Some(stopped(3, EndReason::GuestShutdown)), Activity::Unclear),
        ] {
            assert_eq!(activity(&intent, observed.as_ref(), None), expected, "{intent:?} {observed:?}");
        }
        // Only its disks have changed since.
        let (intent, older) = (intent(Power::Stopped, 1), stopped(2, EndReason::Requested));
        assert_eq!(activity(&intent, Some(&older), Some(3)), Activity::Off);
        assert_eq!(activity(&intent, Some(&older), Some(2)), Activity::Unclear);
    }
}
