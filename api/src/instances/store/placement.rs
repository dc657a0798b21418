//! SQL of placement. Called by the controller, which works for the cloud and not for a tenant.

use protocol::agent::{Architecture, Inventory};
use protocol::{HostId, InstanceId, OperationId, PoolId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::hosts::HostState;
use crate::nudge::{self, Topic};
use crate::ports::cards;
use crate::scheduler::{Candidate, Explanation, Request, Size};
use crate::volumes::store::{attachments, hosts as volumes};

/// The number is arbitrary but ours.
const PLACEMENT_LOCK: i64 = 0x706c_6163_656d;

/// An instance that waits for a host.
pub(crate) struct Pending {
    pub id: InstanceId,
    pub operation_id: OperationId,
    pub request: Request,
}

/// One replica decides at a time, until its transaction ends: two that filled the same hosts in different
/// orders would lock each other out.
pub(crate) async fn take_turn(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", PLACEMENT_LOCK).execute(conn).await?;
    Ok(())
}

/// Takes instances that are due; other replicas pass them over until this transaction ends.
pub(crate) async fn take_pending(
    conn: &mut PgConnection,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Pending>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, operation_id FROM instances
         WHERE host_id IS NULL AND placement_due_at <= $1 ORDER BY placement_due_at, id LIMIT $2
         FOR UPDATE SKIP LOCKED",
        now,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<_> = rows.iter().map(|row| InstanceId::from(row.id)).collect();
    volumes::lock_unplaced(conn, &ids).await?;
    let mut pending = Vec::new();
    for row in rows {
        let id = InstanceId::from(row.id);
        if let Some(request) = request(conn, id).await? {
            pending.push(Pending { id, operation_id: row.operation_id.into(), request });
        }
    }
    Ok(pending)
}

/// What an instance needs that is on no host yet, as its rows say.
pub(crate) async fn request(conn: &mut PgConnection, id: InstanceId) -> Result<Option<Request>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT architecture, vcpus_held AS "vcpus!", memory_mib_held AS "memory_mib!", gib_to_place(id) AS "disk_gib!",
                  (SELECT v.host_id FROM volumes v
                   WHERE v.instance_id = i.id AND v.host_id IS NOT NULL LIMIT 1) AS volumes_on,
                  ARRAY(SELECT DISTINCT v.pool_id FROM volumes v
                        WHERE v.instance_id = i.id AND v.pool_id IS NOT NULL) AS "pools!: Vec<Uuid>",
                  ARRAY(SELECT d.host_id FROM departures d WHERE d.instance_id = i.id) AS "leaving!: Vec<Uuid>",
                  left_host_id
           FROM instances i WHERE id = $1"#,
        id.as_uuid()
    )
    .fetch_one(conn)
    .await?;
    let size = Size { vcpus: row.vcpus, memory_mib: row.memory_mib, disk_gib: row.disk_gib };
    let volumes_on = row.volumes_on.map(HostId::from);
    let architecture = Architecture::from_name(&row.architecture);
    Ok(architecture.map(|architecture| Request {
        architecture,
        size,
        volumes_on,
        pools: row.pools.into_iter().map(PoolId::from).collect(),
        leaving: row.leaving.into_iter().map(HostId::from).collect(),
        left: row.left_host_id.map(HostId::from),
    }))
}

/// A snapshot of all hosts.
pub(crate) async fn candidates(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, inventory AS "inventory: Json<Inventory>", hypervisor_degraded, last_seen_at,
                  vcpus_capacity, vcpus_reserved, memory_mib_capacity, memory_mib_reserved,
                  disk_gib_capacity, disk_gib_reserved, pool_low,
                  ARRAY(SELECT p.pool_id FROM pool_hosts p WHERE p.host_id = h.id) AS "pools!: Vec<Uuid>"
           FROM hosts h ORDER BY id"#
    )
    .fetch_all(conn)
    .await?;
    let candidates = rows.into_iter().map(|row| Candidate {
        id: row.id.into(),
        ready: HostState::of(row.last_seen_at, row.hypervisor_degraded.is_some(), now) == HostState::Ready,
        pool_low: row.pool_low,
        architectures: row.inventory.map(|inventory| inventory.0.architectures).unwrap_or_default(),
        pools: row.pools.into_iter().map(PoolId::from).collect(),
        free: Size {
            vcpus: row.vcpus_capacity - row.vcpus_reserved,
            memory_mib: row.memory_mib_capacity - row.memory_mib_reserved,
            disk_gib: row.disk_gib_capacity - row.disk_gib_reserved,
        },
        total: Size {
            vcpus: row.vcpus_capacity,
            memory_mib: row.memory_mib_capacity,
            disk_gib: row.disk_gib_capacity,
        },
    });
    Ok(candidates.collect())
}

/// Gives the instance with its volumes and cards to the host. Triggers take the capacity; a CHECK fails when somebody
/// was faster.
pub(crate) async fn assign(
    conn: &mut PgConnection,
    id: InstanceId,
    host: HostId,
    desired_revision: i64,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    attachments::place(conn, id, host.as_uuid()).await?;
    sqlx::query!(
        "UPDATE instances SET host_id = $2, desired_revision = $3, placement_explanation = NULL, updated_at = $4
         WHERE id = $1",
        id.as_uuid(),
        host.as_uuid(),
        desired_revision,
        now
    )
    .execute(&mut *conn)
    .await?;
    cards::came_to_host(conn, id, desired_revision).await
}

/// Room may have appeared: whoever waits for it is due at once. Those that are being decided about just now
/// are passed over, since waiting for them here could lock both sides out.
pub(crate) async fn retry_now(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET placement_due_at = $1 WHERE id IN (
             SELECT id FROM instances WHERE host_id IS NULL AND placement_due_at > $1 FOR UPDATE SKIP LOCKED)",
        now
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Placement).await
}

/// Keeps the reason why no host takes it, and when to look again.
pub(crate) async fn postpone(
    conn: &mut PgConnection,
    id: InstanceId,
    explanation: &Explanation,
    due_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET placement_due_at = $3, placement_explanation = $2
         WHERE id = $1",
        id.as_uuid(),
        Json(explanation) as _,
        due_at
    )
    .execute(conn)
    .await?;
    Ok(())
}
