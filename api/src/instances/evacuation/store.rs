//! SQL of instances that leave a host which is in maintenance.

use protocol::{HostId, OperationId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::way::{EvacuationWay, Facts, Guest, Obstacle};
use crate::hosts::store::Standing;

/// A host in maintenance.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    pub host: HostId,
    pub name: String,
    pub state: String,
    pub stop_running: bool,
    pub timeout_seconds: i32,
    pub principal: Uuid,
    last_seen_at: Option<OffsetDateTime>,
    dead: bool,
}

impl Drain {
    pub(super) fn ends(&self) -> bool {
        self.state == "ending"
    }

    pub(super) fn standing(&self, now: OffsetDateTime) -> Standing {
        Standing::of(self.last_seen_at, self.dead, now)
    }
}

/// All of them, or one.
pub(super) async fn drains(conn: &mut PgConnection, host: Option<HostId>) -> Result<Vec<Drain>, sqlx::Error> {
    sqlx::query_as!(
        Drain,
        r#"SELECT h.id AS host, h.name, h.maintenance AS "state!", d.stop_running, d.timeout_seconds,
                  d.principal_id AS principal, h.last_seen_at, h.declared_dead_at IS NOT NULL AS "dead!"
           FROM hosts h JOIN host_drains d ON d.host_id = h.id
           WHERE h.maintenance IS NOT NULL AND ($1::uuid IS NULL OR h.id = $1) ORDER BY h.id"#,
        host.map(HostId::as_uuid)
    )
    .fetch_all(conn)
    .await
}

/// An instance that is or was on such a host.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub id: Uuid,
    pub project_id: Uuid,
    pub name: String,
    /// Of the evacuation, if it is known.
    pub phase: Option<String>,
    pub due_at: Option<OffsetDateTime>,
    /// Since when it waits for what may pass.
    pub waits_since: Option<OffsetDateTime>,
    /// It was shut down for this, whatever its owner has wanted since.
    pub was_stopped: bool,
    /// It, or its disks, was sent to another host, and it is still here.
    pub was_sent: bool,
    pub facts: Facts,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    power: String,
    migrating: bool,
    arrives: bool,
    snapshot: bool,
    deleting: bool,
    ended_by_itself: bool,
    at_rest: bool,
    local_volume: Option<String>,
    merging: Option<String>,
    phase: Option<String>,
    due_at: Option<OffsetDateTime>,
    waits_since: Option<OffsetDateTime>,
    was_stopped: bool,
    was_sent: bool,
    owed: bool,
}

impl Row {
    fn guest(&self) -> Guest {
        match self.power.as_str() {
            _ if self.arrives => Guest::Arrives,
            "stopped" if self.migrating => Guest::IsCopied,
            "stopped" if self.at_rest => Guest::AtRest,
            "stopped" => Guest::GoesDown,
            _ if self.migrating => Guest::OnItsWay,
            _ if self.ended_by_itself => Guest::Ended,
            "paused" => Guest::Paused,
            _ => Guest::Runs,
        }
    }

    fn into_subject(self, host: Standing) -> Subject {
        let facts = Facts {
            deleting: self.deleting,
            guest: self.guest(),
            local_volume: self.local_volume,
            disks_bound: None,
            merging: self.merging,
            owed: self.owed,
            snapshot: self.snapshot,
            bound: None,
            host,
        };
        Subject {
            id: self.id,
            project_id: self.project_id,
            name: self.name,
            phase: self.phase,
            due_at: self.due_at,
            waits_since: self.waits_since,
            was_stopped: self.was_stopped,
            was_sent: self.was_sent,
            facts,
        }
    }
}

/// The instances on the host, those on their way to it, and those elsewhere to which it owes a start; or one of them. A
/// start is owed as long as its owner has not wanted it to be stopped since, and its time to be stopped has not come.
pub(super) async fn subjects(
    conn: &mut PgConnection,
    host: HostId,
    instance: Option<Uuid>,
    standing: Standing,
    now: OffsetDateTime,
) -> Result<Vec<Subject>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT i.id, i.project_id, i.name, i.power,
                  m.id IS NOT NULL AS "migrating!", coalesce(m.destination_host_id = $1, false) AS "arrives!",
                  EXISTS (SELECT FROM snapshots s WHERE s.taking_instance_id = i.id) AS "snapshot!",
                  i.deletion_requested_at IS NOT NULL AS "deleting!",
                  coalesce(i.observed_boot >= i.boot AND i.observed_end_reason
                           IN ('guest_shutdown', 'crashed', 'unobserved'), false) AS "ended_by_itself!",
                  coalesce(i.observed_state = 'stopped' AND i.observed_generation = i.generation, false) AS "at_rest!",
                  (SELECT v.name FROM volumes v WHERE v.instance_id = i.id AND v.pool_id IS NULL
                   ORDER BY v.position LIMIT 1) AS local_volume,
                  (SELECT v.name FROM volumes v
                   WHERE v.instance_id = i.id AND EXISTS (
                       SELECT FROM layers l WHERE l.id = ANY (chain_of(v.layer_id)) AND l.parent_merge IS NOT NULL)
                   ORDER BY v.id LIMIT 1) AS merging,
                  e.phase AS "phase?", e.due_at AS "due_at?", e.waits_since AS "waits_since?",
                  e.stopped_by IS NOT NULL AS "was_stopped!",
                  (e.phase = 'moving' AND (e.way = 'migrate' OR EXISTS (
                       SELECT FROM volumes v WHERE v.instance_id = i.id AND v.pool_id IS NULL))) IS TRUE AS "was_sent!",
                  (e.stopped_by IS NOT NULL AND i.power = 'stopped' AND i.deletion_requested_at IS NULL
                   AND NOT coalesce(e.stop_at <= $3 AND i.stop_at IS NULL, false)
                   AND NOT EXISTS (SELECT FROM operations o WHERE o.resource_id = i.id AND o.id > e.stopped_by
                                     AND o.kind = 'stop_instance')) IS TRUE AS "owed!"
           FROM instances i LEFT JOIN evacuations e ON e.instance_id = i.id AND e.host_id = $1
           LEFT JOIN migrations m ON m.instance_id = i.id
           WHERE (i.host_id = $1 OR e.stopped_by IS NOT NULL OR m.destination_host_id = $1)
             AND ($2::uuid IS NULL OR i.id = $2)
           ORDER BY i.id"#,
        host.as_uuid(),
        instance,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.into_subject(standing)).collect())
}

/// Notes how far an instance of the host is, unless that is known.
pub(super) async fn note(
    conn: &mut PgConnection,
    host: HostId,
    of: &Subject,
    phase: &str,
    found: &Result<EvacuationWay, Obstacle>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (way, obstacle) = (found.as_ref().ok(), found.as_ref().err());
    sqlx::query!(
        "INSERT INTO evacuations (host_id, instance_id, project_id, name, phase, way, code, message, updated_at,
                                  waits_since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN $7::text = 'busy' THEN $9::timestamptz END)
         ON CONFLICT (host_id, instance_id) DO UPDATE SET name = excluded.name, phase = excluded.phase,
             way = excluded.way, code = excluded.code, message = excluded.message, updated_at = excluded.updated_at,
             waits_since = CASE WHEN excluded.code IN ('running', 'no_room') OR excluded.way = 'restart_elsewhere'
                                THEN evacuations.waits_since
                                WHEN excluded.code = 'busy' THEN coalesce(evacuations.waits_since, excluded.waits_since)
                           END
         WHERE (evacuations.name, evacuations.phase, evacuations.way, evacuations.code, evacuations.message)
            IS DISTINCT FROM (excluded.name, excluded.phase, excluded.way, excluded.code, excluded.message)",
        host.as_uuid(),
        of.id,
        of.project_id,
        of.name,
        phase,
        way.map(|way| way.as_str()),
        obstacle.map(|obstacle| obstacle.code),
        obstacle.map(|obstacle| obstacle.message.as_str()),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// From now on a start is owed to it, which this operation has shut down.
pub(super) async fn owe(
    conn: &mut PgConnection,
    host: HostId,
    instance: Uuid,
    operation: OperationId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE evacuations SET stopped_by = $3, stop_at = (SELECT stop_at FROM instances WHERE id = $2)
         WHERE host_id = $1 AND instance_id = $2",
        host.as_uuid(),
        instance,
        operation.as_uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Nothing is owed to it any more, and it is neither shut down nor sent again before that time.
pub(super) async fn paid(
    conn: &mut PgConnection,
    host: HostId,
    instance: Uuid,
    due_at: Option<OffsetDateTime>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE evacuations SET stopped_by = NULL, stop_at = NULL, due_at = coalesce($3, due_at)
         WHERE host_id = $1 AND instance_id = $2",
        host.as_uuid(),
        instance,
        due_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many instances are on their way. The host's row is held.
pub(super) async fn on_their_way(conn: &mut PgConnection, host: HostId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM evacuations WHERE host_id = $1 AND phase IN ('stopping', 'moving')"#,
        host.as_uuid()
    )
    .fetch_one(conn)
    .await
}

/// Notes which instances have left the host: those that are gone, and those that another host has and whose operation has
/// ended there. Of those that did not arrive nothing is left.
pub(super) async fn note_left(
    conn: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM evacuations e WHERE e.host_id = $1 AND e.code = 'arriving' AND NOT EXISTS (
             SELECT FROM instances i LEFT JOIN migrations m ON m.instance_id = i.id
             WHERE i.id = e.instance_id AND (i.host_id = $1 OR m.destination_host_id = $1))",
        host.as_uuid()
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE evacuations e SET phase = 'left', code = NULL, message = NULL, stopped_by = NULL, updated_at = $2
         WHERE e.host_id = $1 AND e.phase <> 'left' AND NOT EXISTS (
             SELECT FROM instances i JOIN operations o ON o.id = i.operation_id
             WHERE i.id = e.instance_id
               AND (i.host_id = $1 OR i.host_id IS NULL OR o.status = 'running' OR e.stopped_by IS NOT NULL))",
        host.as_uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The host, whose row is held, is empty, or is not any more.
pub(super) async fn settle(
    conn: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH found AS (
             SELECT CASE WHEN EXISTS (SELECT FROM instances WHERE host_id = $1)
                           OR EXISTS (SELECT FROM migrations WHERE destination_host_id = $1)
                           OR EXISTS (SELECT FROM evacuations WHERE host_id = $1 AND phase <> 'left')
                           OR EXISTS (SELECT FROM hosts h WHERE h.id = $1 AND h.declared_dead_at IS NULL AND unknown_guests_on(h.id) > 0)
                         THEN 'draining' ELSE 'drained' END AS state),
         changed AS (
             UPDATE hosts SET maintenance = found.state, updated_at = $2 FROM found
             WHERE id = $1 AND maintenance IN ('draining', 'drained') AND maintenance <> found.state
             RETURNING maintenance)
         UPDATE host_drains SET drained_at = CASE WHEN changed.maintenance = 'drained' THEN $2 END
         FROM changed WHERE host_id = $1",
        host.as_uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends the maintenance of a host, whose row is held, if nothing is owed to anybody.
pub(super) async fn end_if_paid(
    conn: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH ended AS (
             UPDATE hosts SET maintenance = NULL, updated_at = $2
             WHERE id = $1 AND maintenance = 'ending'
               AND NOT EXISTS (SELECT FROM evacuations WHERE host_id = $1 AND stopped_by IS NOT NULL)
             RETURNING id)
         DELETE FROM host_drains USING ended WHERE host_id = ended.id",
        host.as_uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
