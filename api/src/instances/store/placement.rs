//! SQL of placement. Called by the controller, which works for the cloud and not for a tenant.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use protocol::agent::{Architecture, GuestHardware, Inventory};
use protocol::{HostId, InstanceId, OperationId, PoolId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::hosts::{HostState, WITNESS_FRESH};
use crate::http::Labels;
use crate::nudge::{self, Topic};
use crate::ports::cards;
use crate::scheduler::{Candidate, Explanation, Fleet, Needs, Request, Size};
use crate::volumes::store::{attachments, hosts as volumes};
use crate::{instance_types, placement_groups, placement_settings};

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
         WHERE host_id IS NULL AND placement_due_at <= $1 AND NOT waits_for_source(id) ORDER BY placement_due_at, id LIMIT $2
         FOR UPDATE SKIP LOCKED",
        now,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<_> = rows.iter().map(|row| InstanceId::from(row.id)).collect();
    volumes::lock_unplaced(conn, &ids).await?;
    let (mut pending, mut images) = (Vec::new(), ImageHosts::new());
    for row in rows {
        let id = InstanceId::from(row.id);
        if let Some(request) = request_knowing(conn, id, &mut images).await? {
            pending.push(Pending { id, operation_id: row.operation_id.into(), request });
        }
    }
    Ok(pending)
}

/// What an instance needs that is on no host yet, as its rows say.
pub(crate) async fn request(conn: &mut PgConnection, id: InstanceId) -> Result<Option<Request>, sqlx::Error> {
    request_knowing(conn, id, &mut ImageHosts::new()).await
}

/// Hosts that have an image, asked for once in a pass.
type ImageHosts = BTreeMap<Uuid, Vec<HostId>>;

async fn request_knowing(
    conn: &mut PgConnection,
    id: InstanceId,
    images: &mut ImageHosts,
) -> Result<Option<Request>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT i.architecture, i.vcpus_held AS "vcpus!", i.memory_mib_held AS "memory_mib!",
                   gib_to_place(i.id) AS "disk_gib!", i.placement_group_id,
                  t.hardware AS "hardware: Json<GuestHardware>", t.name AS type_name,
                  t.host_labels AS "host_labels: Json<Labels>", t.tolerations, m.min_memory_mib,
                  m.id AS image_id, root.size_gib AS "root_disk_gib?", root.least_gib AS "least_root_gib?",
                  (SELECT v.host_id FROM volumes v
                   WHERE v.instance_id = i.id AND v.host_id IS NOT NULL LIMIT 1) AS volumes_on,
                  ARRAY(SELECT DISTINCT v.pool_id FROM volumes v
                        WHERE v.instance_id = i.id AND v.pool_id IS NOT NULL) AS "pools!: Vec<Uuid>",
                  ARRAY(SELECT d.host_id FROM departures d WHERE d.instance_id = i.id) AS "leaving!: Vec<Uuid>",
                  i.left_host_id, i.on_host_failure = 'restart' AS "needs_guard!"
           FROM instances i
           JOIN instance_types t ON t.id = i.instance_type_id
           JOIN images m ON m.id = i.image_id
           LEFT JOIN LATERAL (
               SELECT v.size_gib,
                      GREATEST(vm.min_disk_gib, ceil(b.virtual_size_bytes / 1073741824.0)::integer) AS least_gib
               FROM volumes v JOIN layers l ON l.id = v.layer_id JOIN images vm ON vm.id = v.image_id
               JOIN blobs b ON b.id = vm.blob_id
               WHERE v.instance_id = i.id AND v.position = 0 AND v.host_id IS NULL AND v.pool_id IS NULL
                 AND l.parent_id IS NULL) root ON true
           WHERE i.id = $1"#,
        id.as_uuid()
    )
    .fetch_one(&mut *conn)
    .await?;
    let Some(architecture) = Architecture::from_name(&row.architecture) else { return Ok(None) };
    let group = match row.placement_group_id {
        Some(group) => placement_groups::store::of_placement(conn, group, Some(id.as_uuid())).await?,
        None => None,
    };
    let root_disk_gib = row.root_disk_gib.unwrap_or_default();
    let least_root = row.least_root_gib.unwrap_or(root_disk_gib).min(root_disk_gib);
    let image_on = match row.root_disk_gib {
        Some(_) => match images.entry(row.image_id) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(unknown) => unknown.insert(hosts_with_image(conn, row.image_id).await?).clone(),
        },
        None => Vec::new(),
    };
    Ok(Some(Request {
        architecture,
        size: Size { vcpus: row.vcpus, memory_mib: row.memory_mib, disk_gib: row.disk_gib },
        least: Size {
            vcpus: 1,
            memory_mib: row.min_memory_mib.min(row.memory_mib),
            disk_gib: row.disk_gib - root_disk_gib + least_root,
        },
        root_disk_gib,
        type_name: row.type_name,
        needs: Needs {
            features: instance_types::features_of(&row.hardware.0),
            host_labels: row.host_labels.0,
            tolerations: row.tolerations,
        },
        group,
        volumes_on: row.volumes_on.map(HostId::from),
        pools: row.pools.into_iter().map(PoolId::from).collect(),
        needs_guard: row.needs_guard,
        leaving: row.leaving.into_iter().map(HostId::from).collect(),
        left: row.left_host_id.map(HostId::from),
        image_on,
    }))
}

/// What a host gives that not every one does.
fn features(inventory: &Inventory) -> Vec<String> {
    let models = inventory.cpu_models.iter().map(|name| instance_types::feature_of_model(name));
    inventory.features.iter().cloned().chain(models).collect()
}

/// Hosts that have volumes which stand on this image, or on one of equal content: it is in their cache.
pub(crate) async fn hosts_with_image(
    conn: &mut PgConnection,
    image: Uuid,
) -> Result<Vec<HostId>, sqlx::Error> {
    // By host: hosts are fewer than the volumes of a common image. (OFFSET 0 keeps PostgreSQL from reading these.)
    let hosts = sqlx::query_scalar!(
        "SELECT h.id FROM hosts h WHERE EXISTS (
             SELECT FROM images m JOIN images same USING (blob_id) JOIN volumes v ON v.image_id = same.id
             WHERE m.id = $1 AND v.host_id = h.id OFFSET 0)
         ORDER BY h.id",
        image
    )
    .fetch_all(conn)
    .await?;
    Ok(hosts.into_iter().map(HostId::from).collect())
}

/// A snapshot of all hosts, and what else decisions depend on.
pub(crate) async fn fleet(conn: &mut PgConnection, now: OffsetDateTime) -> Result<Fleet, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, inventory AS "inventory: Json<Inventory>", hypervisor_degraded, last_seen_at,
                  vcpus_capacity, vcpus_reserved, memory_mib_capacity, memory_mib_reserved,
                  disk_gib_capacity, disk_gib_reserved, pool_low, cordoned, labels AS "labels: Json<Labels>", taints,
                  placement_domain(h, 'rack') AS rack, zone, coalesce(s.starting, 0) AS "starting!",
                  ARRAY(SELECT p.pool_id FROM pool_hosts p WHERE p.host_id = h.id) AS "pools!: Vec<Uuid>",
                  ARRAY(SELECT g.pool_id FROM guarded_pools_since($1) g WHERE g.host_id = h.id) AS "guarded!: Vec<Uuid>"
           FROM hosts h
           LEFT JOIN (SELECT host_id, count(*)::integer AS starting FROM instances
                      WHERE host_id IS NOT NULL AND (observed_state IS NULL OR observed_state = 'preparing')
                      GROUP BY host_id) s ON s.host_id = h.id
           ORDER BY id"#,
        now - WITNESS_FRESH
    )
    .fetch_all(&mut *conn)
    .await?;
    let candidates = rows.into_iter().map(|row| Candidate {
        features: row.inventory.as_ref().map(|inventory| features(&inventory.0)).unwrap_or_default(),
        id: row.id.into(),
        ready: HostState::of(row.last_seen_at, row.hypervisor_degraded.is_some(), now) == HostState::Ready,
        cordoned: row.cordoned,
        pool_low: row.pool_low,
        architectures: row.inventory.map(|inventory| inventory.0.architectures).unwrap_or_default(),
        pools: row.pools.into_iter().map(PoolId::from).collect(),
        guarded: row.guarded.into_iter().map(PoolId::from).collect(),
        labels: row.labels.0,
        taints: row.taints,
        rack: row.rack,
        zone: row.zone,
        starting: row.starting,
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
    let candidates = candidates.collect();
    let weights = placement_settings::store::weights(conn).await?;
    Ok(Fleet::new(candidates, weights, instance_types::options(conn).await?))
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
