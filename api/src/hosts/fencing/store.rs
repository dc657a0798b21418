//! SQL of fencing.

use protocol::HostId;
use protocol::agent::TAKEOVER_SECONDS;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::program::Subject;
use crate::hosts::{UNREACHABLE_AFTER, WITNESS_FRESH};
use crate::http::Labels;

/// A host that was switched off still counts among those that are silent for so long.
const STORM: Duration = Duration::hours(1);
/// Nobody listened if nobody said so for that long.
const GAP: Duration = Duration::seconds(20);

/// Notes that somebody listens. Any number of replicas may.
pub(super) async fn listen(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO fence_watch (since, last_at) VALUES ($1, $1)
         ON CONFLICT (single) DO UPDATE SET last_at = $1,
             since = CASE WHEN fence_watch.last_at BETWEEN $2 AND $3 THEN fence_watch.since ELSE $1 END",
        now,
        now - GAP,
        now + GAP
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes each silent host once, which writes an event; a trigger takes it back when it is heard. After a pause of the control plane
/// that is late by as long as hosts may be silent. A host that is held waits for the next pass.
pub(super) async fn note_silent(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH fallen AS MATERIALIZED (
             SELECT id FROM hosts
             WHERE NOT silent AND last_seen_at < $1 AND EXISTS (SELECT FROM fence_watch WHERE since <= $1)
             ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
         UPDATE hosts h SET silent = true FROM fallen WHERE h.id = fallen.id",
        now - UNREACHABLE_AFTER
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Since when somebody has listened without a gap, if somebody does.
pub(super) async fn listening_since(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    sqlx::query_scalar!("SELECT since FROM fence_watch WHERE last_at >= $1", now - GAP)
        .fetch_optional(conn)
        .await
}

/// Hosts whose silence says something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    pub silent: i64,
    pub all: i64,
}

/// Without those at which the operator works, and those that were declared dead long ago.
pub(super) async fn fleet(conn: &mut PgConnection, now: OffsetDateTime) -> Result<Fleet, sqlx::Error> {
    sqlx::query_as!(
        Fleet,
        r#"SELECT count(*) FILTER (WHERE last_seen_at < $1) AS "silent!", count(*) AS "all!" FROM hosts
           WHERE last_seen_at IS NOT NULL AND NOT cordoned
             AND (declared_dead_at IS NULL OR declared_dead_at > $2)"#,
        now - UNREACHABLE_AFTER,
        now - STORM
    )
    .fetch_one(conn)
    .await
}

/// A silent host with instances that are to start elsewhere.
#[derive(Debug)]
pub(super) struct Candidate {
    pub id: Uuid,
    pub name: String,
    pub rack: Option<String>,
    pub zone: Option<String>,
    pub labels: Json<Labels>,
    pub address: Option<String>,
    /// The session that has fallen silent.
    pub epoch: i64,
    pub last_seen_at: OffsetDateTime,
    pub cordoned: bool,
    /// Whether another host could take one of them now.
    pub has_room: bool,
    /// Whether another host sees that its guard still writes a lease, so that the machine is alive.
    pub writes_leases: bool,
}

impl Candidate {
    pub(super) fn subject(&self) -> Subject {
        Subject {
            id: self.id,
            name: self.name.clone(),
            rack: self.rack.clone(),
            zone: self.zone.clone(),
            labels: self.labels.0.clone(),
            address: self.address.clone(),
            last_seen_at: Some(self.last_seen_at),
        }
    }
}

/// Those that are to run count: nothing is interrupted for what is stopped. Whether another host would really take one
/// is for the scheduler to say; here it is asked whether one may.
pub(super) async fn candidates(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Candidate>, sqlx::Error> {
    sqlx::query_as!(
        Candidate,
        r#"WITH waiting AS (
               SELECT i.id, i.host_id, i.vcpus, i.memory_mib FROM instances i JOIN hosts h ON h.id = i.host_id
               WHERE i.on_host_failure = 'restart' AND i.power = 'running' AND i.deletion_requested_at IS NULL
                 AND h.last_seen_at < $1 AND h.declared_dead_at IS NULL
                 AND NOT EXISTS (SELECT FROM volumes v WHERE v.instance_id = i.id AND v.pool_id IS NULL)),
           takers AS (
               SELECT o.id, o.vcpus_capacity - o.vcpus_reserved AS vcpus,
                      o.memory_mib_capacity - o.memory_mib_reserved AS memory_mib
               FROM hosts o WHERE o.last_seen_at >= $1 AND NOT o.cordoned AND o.hypervisor_degraded IS NULL),
           guarded AS MATERIALIZED (SELECT * FROM guarded_pools_since($2))
           SELECT h.id, h.name, h.rack, h.zone, h.labels AS "labels: Json<Labels>", host(h.underlay_address) AS address,
                  h.epoch, h.last_seen_at AS "last_seen_at!", h.cordoned,
                  EXISTS (SELECT FROM waiting w JOIN takers t ON t.vcpus >= w.vcpus AND t.memory_mib >= w.memory_mib
                          WHERE w.host_id = h.id AND NOT EXISTS (
                              SELECT FROM volumes v WHERE v.instance_id = w.id
                                AND (v.pool_id, t.id) NOT IN (SELECT g.pool_id, g.host_id FROM guarded g)))
                      AS "has_room!",
                  EXISTS (SELECT FROM host_leases w JOIN hosts wh ON wh.id = w.host_id
                          CROSS JOIN LATERAL jsonb_to_recordset(w.seen) AS s (host uuid, unchanged_seconds integer)
                          WHERE w.host_id <> h.id AND wh.last_seen_at >= $2 AND w.seen_at >= $2
                            AND s.host = h.id AND s.unchanged_seconds < $3) AS "writes_leases!"
           FROM hosts h WHERE h.id IN (SELECT host_id FROM waiting) ORDER BY h.last_seen_at, h.id"#,
        now - UNREACHABLE_AFTER,
        now - WITNESS_FRESH,
        TAKEOVER_SECONDS.cast_signed()
    )
    .fetch_all(conn)
    .await
}

/// A host by its name or id, for a call of the program by hand.
pub(super) async fn subject(conn: &mut PgConnection, host: &str) -> Result<Option<Subject>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT id, name, rack, zone, labels AS "labels: Json<Labels>", host(underlay_address) AS address, last_seen_at
           FROM hosts WHERE name = $1 OR id::text = $1"#,
        host
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Subject {
        id: row.id,
        name: row.name,
        rack: row.rack,
        zone: row.zone,
        labels: row.labels.0,
        address: row.address,
        last_seen_at: row.last_seen_at,
    }))
}

/// Forgets what says nothing of any host now. `candidates` are those whose silence still matters.
pub(super) async fn forget(
    conn: &mut PgConnection,
    candidates: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM host_fences f USING hosts h
         WHERE h.id = f.host_id AND (f.state <> 'running' OR f.lease_until <= $2)
           AND CASE WHEN f.state = 'off' THEN h.declared_dead_at IS NULL ELSE f.host_id <> ALL($1) END",
        candidates,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says why a host is not switched off, unless that is under way.
pub(super) async fn hold(
    conn: &mut PgConnection,
    host: Uuid,
    why: &str,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO host_fences (host_id, state, detail, attempts) VALUES ($1, 'held', $2, 0)
         ON CONFLICT (host_id) DO UPDATE SET state = 'held', detail = $2, lease_until = NULL
         WHERE (host_fences.state <> 'running' OR host_fences.lease_until <= $3)
           AND (host_fences.state, host_fences.detail) IS DISTINCT FROM ('held', $2)",
        host,
        why,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the turn of switching it off, if it is due, nobody else does, and it was not heard since it was looked at.
/// Gives the number of the attempt.
pub(super) async fn begin(
    conn: &mut PgConnection,
    candidate: &Candidate,
    lease: Duration,
    now: OffsetDateTime,
) -> Result<Option<i32>, sqlx::Error> {
    if !is_as_it_was(conn, candidate).await? {
        return Ok(None);
    }
    sqlx::query_scalar!(
        "INSERT INTO host_fences (host_id, state, attempts, started_at, lease_until) VALUES ($1, 'running', 1, $2, $3)
         ON CONFLICT (host_id) DO UPDATE
             SET state = 'running', detail = NULL, attempts = host_fences.attempts + 1, started_at = $2, lease_until = $3
         WHERE CASE WHEN host_fences.state = 'running' THEN host_fences.lease_until <= $2
                    ELSE host_fences.due_at IS NULL OR host_fences.due_at <= $2 END
         RETURNING attempts",
        candidate.id,
        now,
        now + lease
    )
    .fetch_optional(conn)
    .await
}

/// Whether the host was neither heard nor declared dead nor cordoned since. Holds its row, so that it stays like that until the
/// transaction ends.
pub(super) async fn is_as_it_was(
    conn: &mut PgConnection,
    candidate: &Candidate,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT epoch = $2 AND last_seen_at = $3 AND declared_dead_at IS NULL AND NOT cordoned AS "same!"
           FROM hosts WHERE id = $1 FOR NO KEY UPDATE"#,
        candidate.id,
        candidate.epoch,
        candidate.last_seen_at
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.unwrap_or(false))
}

/// How an attempt ended; one that another replica has begun anew meanwhile is left alone.
pub(super) struct End<'a> {
    pub state: &'static str,
    pub detail: Option<&'a str>,
    pub due_at: Option<OffsetDateTime>,
}

pub(super) async fn end(
    conn: &mut PgConnection,
    host: Uuid,
    attempt: i32,
    end: &End<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE host_fences SET state = $3, detail = $4, due_at = $5, lease_until = NULL
         WHERE host_id = $1 AND attempts = $2 AND state = 'running'",
        host,
        attempt,
        end.state,
        end.detail,
        end.due_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets another replica begin at once: this one was stopped.
pub(super) async fn give_up(
    conn: &mut PgConnection,
    host: Uuid,
    attempt: i32,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE host_fences SET lease_until = $3 WHERE host_id = $1 AND attempts = $2 AND state = 'running'",
        host,
        attempt,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether a host that is declared dead was switched off by the program.
pub(in crate::hosts) async fn is_switched_off(
    conn: &mut PgConnection,
    host: HostId,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM host_fences WHERE host_id = $1 AND state = 'off') AS "off!""#,
        host.as_uuid()
    )
    .fetch_one(conn)
    .await
}

/// A new session begins: the host is not off.
pub(in crate::hosts) async fn is_back(conn: &mut PgConnection, host: HostId) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM host_fences WHERE host_id = $1 AND state <> 'running'", host.as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// A silent host that is not off.
pub(in crate::hosts) struct Unfenced {
    pub id: Uuid,
    pub name: String,
    pub state: String,
    pub detail: String,
}

pub(in crate::hosts) async fn unfenced(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Unfenced>, sqlx::Error> {
    sqlx::query_as!(
        Unfenced,
        r#"SELECT h.id, h.name, f.state, f.detail AS "detail!" FROM host_fences f JOIN hosts h ON h.id = f.host_id
           WHERE f.state IN ('failed', 'held') AND h.last_seen_at < $1 AND h.declared_dead_at IS NULL ORDER BY h.name"#,
        now - UNREACHABLE_AFTER
    )
    .fetch_all(conn)
    .await
}
