//! SQL of the metrics: names and numbers alone, nothing of tenants.

use std::collections::HashMap;

use sqlx::PgConnection;
use time::OffsetDateTime;

pub(super) struct Fleet {
    pub hosts: Vec<Host>,
    pub pools: Vec<Pool>,
    pub instances: Vec<Instances>,
    pub image_store_bytes: i64,
    /// By code.
    pub drift: HashMap<String, i64>,
}

pub(super) struct Host {
    pub name: String,
    pub last_seen_at: Option<OffsetDateTime>,
    pub degraded: bool,
    pub cordoned: bool,
    pub in_maintenance: bool,
    pub instances: i64,
    pub vcpus_capacity: i32,
    pub vcpus_reserved: i32,
    pub memory_mib_capacity: i32,
    pub memory_mib_reserved: i32,
    pub disk_gib_capacity: i32,
    pub disk_gib_reserved: i32,
    pub pool_total_bytes: Option<i64>,
    pub pool_free_bytes: Option<i64>,
    pub pool_image_cache_bytes: Option<i64>,
    pub pool_low: bool,
    /// Calls of the fence command since it fell silent that did not switch it off; `None` while it is not to be.
    pub fence_failures: Option<i32>,
    pub fence_held: bool,
    pub protocol_version: Option<i32>,
    pub drift: Option<i32>,
    pub drift_looked_at: Option<OffsetDateTime>,
}

pub(super) struct Pool {
    pub name: String,
    pub disk_gib_capacity: i32,
    pub disk_gib_reserved: i32,
    pub low: bool,
    pub hosts: i64,
    pub total_bytes: Option<i64>,
    pub free_bytes: Option<i64>,
}

pub(super) struct Instances {
    pub state: String,
    pub count: i64,
}

pub(super) async fn read(conn: &mut PgConnection) -> Result<Fleet, sqlx::Error> {
    let hosts = sqlx::query_as!(
        Host,
        r#"SELECT name, last_seen_at, hypervisor_degraded IS NOT NULL AS "degraded!", cordoned,
                  maintenance IS NOT NULL AS "in_maintenance!",
                  (SELECT count(*) FROM instances i WHERE i.host_id = h.id) AS "instances!",
                  vcpus_capacity, vcpus_reserved, memory_mib_capacity, memory_mib_reserved, disk_gib_capacity,
                  disk_gib_reserved, pool_total_bytes, pool_free_bytes, pool_image_cache_bytes, pool_low,
                  CASE WHEN f.state IN ('failed', 'held') THEN f.attempts WHEN f.state = 'running' THEN f.attempts - 1 END
                      AS fence_failures,
                  coalesce(f.state = 'held', false) AS "fence_held!", protocol_version,
                  l.differences AS "drift?", l.looked_at AS "drift_looked_at?"
           FROM hosts h LEFT JOIN host_looks l ON l.host_id = h.id LEFT JOIN host_fences f ON f.host_id = h.id ORDER BY name"#
    )
    .fetch_all(&mut *conn)
    .await?;
    let pools = sqlx::query_as!(
        Pool,
        r#"SELECT p.name, p.disk_gib_capacity, p.disk_gib_reserved, p.low, count(h.host_id) AS "hosts!",
                  max(h.total_bytes) AS total_bytes, min(h.free_bytes) AS free_bytes
           FROM pools p LEFT JOIN host_pools h ON h.pool_name = p.name AND h.identity = p.identity
           GROUP BY p.id ORDER BY p.name"#
    )
    .fetch_all(&mut *conn)
    .await?;
    let instances = sqlx::query_as!(
        Instances,
        r#"SELECT CASE WHEN host_id IS NULL THEN 'unplaced' ELSE coalesce(observed_state, 'awaiting_host') END AS "state!",
                  count(*) AS "count!"
           FROM instances GROUP BY 1 ORDER BY 1"#
    )
    .fetch_all(&mut *conn)
    .await?;
    let image_store_bytes = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(size_bytes), 0)::bigint AS "bytes!" FROM blobs WHERE state IN ('stored', 'part')"#
    )
    .fetch_one(&mut *conn)
    .await?;
    let drift = sqlx::query!(r#"SELECT code, count(*) AS "count!" FROM drift GROUP BY code"#);
    let drift = drift.fetch_all(conn).await?.into_iter().map(|row| (row.code, row.count)).collect();
    Ok(Fleet { hosts, pools, instances, image_store_bytes, drift })
}
