//! SQL of instances that leave their host for another.

use protocol::agent::{DesiredBody, DesiredObject, InstanceReport, ObservedState};
use protocol::{Generation, HostId, InstanceId, OperationId, Revision};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::hosts;
use crate::instances::store::migrations;
use crate::nudge::{self, Topic};
use crate::ports::cards;
use crate::snapshots::store::hosts as snapshots;
use crate::volumes::store::attachments;

/// Takes an instance, which is locked, off its host, which is told to let go of it. Its volumes are all in shared pools,
/// and no guest has them any more. The caller stores the next generation of it.
pub(crate) async fn leave(
    conn: &mut PgConnection,
    id: Uuid,
    host: HostId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    migrations::give_up(conn, id).await?;
    // The guest of which one was being taken is gone.
    snapshots::end_with(conn, &[id], now).await?;
    let detaching = sqlx::query_scalar!(
        "SELECT id FROM volumes WHERE instance_id = $1 AND attachment_state = 'detaching' ORDER BY id FOR UPDATE",
        id
    )
    .fetch_all(&mut *conn)
    .await?;
    attachments::release(conn, &detaching, now).await?;
    sqlx::query!(
        "UPDATE volumes SET attachment_state = 'attaching', observed_generation = NULL, observed_state = NULL,
                            updated_at = $2
         WHERE instance_id = $1",
        id,
        now
    )
    .execute(&mut *conn)
    .await?;
    cards::release_leaving(conn, id, now).await?;
    sqlx::query!("UPDATE ports SET host_revision = NULL WHERE instance_id = $1", id)
        .execute(&mut *conn)
        .await?;
    let generation = sqlx::query_scalar!(
        "UPDATE instances SET host_id = NULL, desired_revision = NULL, left_host_id = host_id,
                placement_due_at = $2, placement_explanation = NULL, updated_at = $2,
                observed_generation = NULL, observed_boot = NULL, observed_state = NULL,
                observed_end_reason = NULL, observed_paused = NULL, observed_detail = NULL, observed_at = NULL,
                observed_volumes = '[]', observed_leaving_cards = '[]', off_generation = NULL,
                guarded_from = NULL
         WHERE id = $1 RETURNING generation",
        id,
        now
    )
    .fetch_one(&mut *conn)
    .await?;
    // The document without its cards comes with that, never before.
    if let Some(revision) = hosts::store::bump_networks(conn, host).await? {
        sqlx::query!(
            "INSERT INTO departures (instance_id, host_id, generation, desired_revision) VALUES ($1, $2, $3, $4)",
            id,
            host.as_uuid(),
            generation + 1,
            revision.0
        )
        .execute(&mut *conn)
        .await?;
    }
    nudge::send(conn, Topic::Host(host)).await
}

/// A dead host has no volumes any more, whatever it said last of an instance that stays there.
pub(crate) async fn forget_volumes(conn: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE instances SET observed_volumes = '[]' WHERE id = $1", id).execute(conn).await?;
    Ok(())
}

/// Instances of hosts that are declared dead, with shared volumes that were to leave or to go with them, or that were to
/// be deleted and have nothing else there.
pub(in crate::instances) async fn waiting_for_lost_hosts(
    conn: &mut PgConnection,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT i.id FROM instances i JOIN hosts h ON h.id = i.host_id
         WHERE h.declared_dead_at IS NOT NULL
           AND (EXISTS (SELECT FROM volumes v WHERE v.instance_id = i.id AND v.pool_id IS NOT NULL
                          AND (v.attachment_state = 'detaching' OR v.removal_id IS NOT NULL))
                OR i.deletion_requested_at IS NOT NULL
                   AND NOT EXISTS (SELECT FROM volumes v WHERE v.instance_id = i.id AND v.pool_id IS NULL))
         ORDER BY i.id"
    )
    .fetch_all(conn)
    .await
}

/// An instance on a host.
pub(in crate::instances) struct Placed {
    pub host: HostId,
    pub deleting: bool,
    /// The newest operation on it.
    pub operation: OperationId,
}

/// Locks an instance, if it is on a host.
pub(in crate::instances) async fn lock_placed(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Placed>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT host_id AS "host!", deletion_requested_at IS NOT NULL AS "deleting!", operation_id
           FROM instances WHERE id = $1 AND host_id IS NOT NULL FOR UPDATE"#,
        id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Placed {
        host: row.host.into(),
        deleting: row.deleting,
        operation: row.operation_id.into(),
    }))
}

/// What this host still has to let go of, newer than the revision. Nothing of the disks is removed.
pub(super) async fn after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT instance_id, generation, desired_revision FROM departures
         WHERE host_id = $1 AND desired_revision > $2",
        host.as_uuid(),
        after.0
    )
    .fetch_all(conn)
    .await?;
    let objects = rows.into_iter().map(|row| DesiredObject {
        revision: Revision(row.desired_revision),
        body: DesiredBody::DeleteInstance {
            id: row.instance_id.into(),
            generation: Generation(row.generation),
            layers: Vec::new(),
            pools: Vec::new(),
            operation_id: None,
        },
    });
    Ok(objects.collect())
}

/// Whether the report is the end of a departure: nothing of the instance is left on the host.
pub(crate) async fn ends(
    conn: &mut PgConnection,
    host: HostId,
    report: &InstanceReport,
) -> Result<bool, sqlx::Error> {
    if report.state != ObservedState::Absent {
        return Ok(false);
    }
    let ended = sqlx::query!(
        "DELETE FROM departures WHERE instance_id = $1 AND host_id = $2 AND generation <= $3",
        InstanceId::as_uuid(report.id),
        host.as_uuid(),
        report.generation.0
    )
    .execute(conn)
    .await?;
    Ok(ended.rows_affected() > 0)
}
