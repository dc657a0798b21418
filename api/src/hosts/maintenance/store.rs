//! SQL of what the operator wants of a host in maintenance. Its row is held by whoever changes something here.

use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{DrainHost, Evacuation, EvacuationPhase};
use crate::auth::{Allowed, actions};

/// Takes the host into maintenance, or goes on with that in this way.
pub(super) async fn begin(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::DrainHost>,
    host: Uuid,
    wanted: &DrainHost,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    // Whether somebody else keeps instances away is known of a host that is in no maintenance alone.
    sqlx::query!(
        "INSERT INTO host_drains (host_id, principal_id, stop_running, timeout_seconds, uncordons, started_at)
         SELECT id, $2, $3, $4, NOT cordoned, $5 FROM hosts WHERE id = $1
         ON CONFLICT (host_id) DO UPDATE SET principal_id = excluded.principal_id, stop_running = excluded.stop_running,
             timeout_seconds = excluded.timeout_seconds, drained_at = NULL,
             uncordons = CASE WHEN (SELECT maintenance = 'ending' FROM hosts WHERE id = $1) THEN excluded.uncordons
                              ELSE host_drains.uncordons END",
        host,
        allowed.principal().as_uuid(),
        wanted.stop_running,
        wanted.timeout_seconds(),
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE hosts SET maintenance = 'draining', cordoned = true, generation = generation + 1, updated_at = $2
         WHERE id = $1",
        host,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The host takes instances again, unless it was cordoned before. Nothing more leaves it; to whom a start is owed, the
/// controller gives it.
pub(super) async fn end(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::EndHostMaintenance>,
    host: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE hosts SET cordoned = NOT d.uncordons, generation = generation + 1, updated_at = $2,
                maintenance = CASE WHEN EXISTS (SELECT FROM evacuations WHERE host_id = $1 AND stopped_by IS NOT NULL)
                                   THEN 'ending' END
         FROM host_drains d WHERE d.host_id = hosts.id AND hosts.id = $1",
        host,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM host_drains USING hosts WHERE host_id = hosts.id AND hosts.id = $1 AND hosts.maintenance IS NULL",
        host
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The operator keeps instances away, in maintenance or not.
pub(in crate::hosts) async fn keep_cordoned(conn: &mut PgConnection, host: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE host_drains SET uncordons = false WHERE host_id = $1", host).execute(conn).await?;
    Ok(())
}

struct Row {
    evacuation: Json<Evacuation>,
}

/// In the order of the instances' ids.
pub(super) async fn list(
    conn: &mut PgConnection,
    host: Uuid,
    phase: Option<EvacuationPhase>,
    after: Uuid,
    rows: i64,
) -> Result<Vec<Evacuation>, sqlx::Error> {
    let found = sqlx::query_as!(
        Row,
        r#"SELECT jsonb_build_object(
                      'instance', jsonb_build_object('id', e.instance_id, 'name', e.name), 'project', p.name,
                      'phase', e.phase, 'way', e.way, 'code', e.code, 'message', e.message,
                      'updated_at', e.updated_at) AS "evacuation!: Json<Evacuation>"
           FROM evacuations e JOIN projects p ON p.id = e.project_id
           WHERE e.host_id = $1 AND ($2::text IS NULL OR e.phase = $2) AND e.instance_id > $3
           ORDER BY e.instance_id LIMIT $4"#,
        host,
        phase.map(EvacuationPhase::as_str),
        after,
        rows
    )
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(|row| row.evacuation.0).collect())
}
