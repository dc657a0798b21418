//! SQL of hosts.

mod joining;

use std::collections::BTreeMap;

pub(super) use joining::insert_join_token;
pub(crate) use joining::{SpentToken, insert, note_certificate, spend_join_token};
use protocol::agent::{EARLIEST_PROTOCOL_VERSION, Epoch, Inventory, NetworkCheck, NetworkFault, OpenSession};
use protocol::{HostId, Revision};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::fencing::{self, HostFencing};
use super::maintenance::{HostMaintenance, MaintenanceState};
use super::model::{
    HostState, Offered, Overcommit, UNREACHABLE_AFTER, is_outdated, offered_capacity, refused_version,
};
use super::removal::unknown_guests;
use super::types::{Capacity, DiskCapacity, Host, HostPool, Pool};
use crate::auth::{Action, Allowed, OfResource, actions};
use crate::http::{ApiError, ErrorCode, Labels, Version, violated_constraint};
use crate::nudge::{self, Topic};

/// A host's row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub generation: i64,
    pub certificate_expires_at: Option<OffsetDateTime>,
    pub agent_version: Option<String>,
    pub protocol_version: Option<i32>,
    pub refused_protocol_version: Option<i32>,
    pub inventory: Option<Json<Inventory>>,
    pub hypervisor_degraded: Option<String>,
    pub quarantined: i32,
    pub network_faults: Json<Vec<NetworkFault>>,
    pub drift: Option<i32>,
    pub drift_looked_at: Option<OffsetDateTime>,
    pub last_seen_at: Option<OffsetDateTime>,
    pub vcpus_capacity: i32,
    pub vcpus_reserved: i32,
    pub memory_mib_capacity: i32,
    pub memory_mib_reserved: i32,
    pub disk_gib_capacity: i32,
    pub disk_gib_reserved: i32,
    pub shared_pools: Json<Vec<HostPool>>,
    pub guarded_pools: Vec<String>,
    pub declared_dead_at: Option<OffsetDateTime>,
    pub fencing: Option<Json<HostFencing>>,
    pub maintenance: Json<HostMaintenance>,
    pub disk_overcommit: f64,
    pub pool_total_bytes: Option<i64>,
    pub pool_free_bytes: Option<i64>,
    pub pool_image_cache_bytes: Option<i64>,
    pub pool_low: bool,
    pub pool_low_percent: i32,
    pub rack: Option<String>,
    pub zone: Option<String>,
    pub labels: Json<Labels>,
    pub taints: Vec<String>,
    pub cordoned: bool,
    pub vcpu_overcommit: Option<f64>,
    pub memory_overcommit: Option<f64>,
    pub created_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    fn pool(&self) -> Option<Pool> {
        Some(Pool {
            total_bytes: self.pool_total_bytes?,
            free_bytes: self.pool_free_bytes?,
            image_cache_bytes: self.pool_image_cache_bytes?,
            low: self.pool_low,
        })
    }

    fn maintenance(&self) -> HostMaintenance {
        let mut maintenance = self.maintenance.0.clone();
        let stays = self.quarantined > 0 && self.declared_dead_at.is_none();
        if stays && maintenance.state != MaintenanceState::None {
            maintenance.unknown_guests = Some(unknown_guests(self.quarantined.into(), &self.name));
        }
        maintenance
    }

    pub(super) fn into_wire(self, now: OffsetDateTime) -> Host {
        let pool = self.pool();
        let maintenance = self.maintenance();
        let state = HostState::of(self.last_seen_at, self.hypervisor_degraded.is_some(), now);
        Host {
            id: self.id.into(),
            name: self.name,
            state,
            state_reason: self.hypervisor_degraded,
            vcpus: Capacity { total: self.vcpus_capacity, reserved: self.vcpus_reserved },
            memory_mib: Capacity { total: self.memory_mib_capacity, reserved: self.memory_mib_reserved },
            disk_gib: DiskCapacity {
                total: self.disk_gib_capacity,
                reserved: self.disk_gib_reserved,
                used: pool.as_ref().map(Pool::used_gib),
            },
            rack: self.rack,
            zone: self.zone,
            labels: self.labels.0,
            taints: self.taints,
            cordoned: self.cordoned,
            vcpu_overcommit: self.vcpu_overcommit,
            memory_overcommit: self.memory_overcommit,
            disk_overcommit: self.disk_overcommit,
            pool,
            pool_low_percent: self.pool_low_percent,
            shared_pools: self.shared_pools.0,
            guarded_pools: self.guarded_pools,
            declared_dead_at: self.declared_dead_at,
            fencing: self.fencing.filter(|_| state == HostState::Unreachable).map(|fencing| fencing.0),
            maintenance,
            quarantined_domains: self.quarantined,
            network_faults: self.network_faults.0,
            drift: self.drift,
            drift_looked_at: self.drift_looked_at,
            certificate_expires_at: self.certificate_expires_at,
            agent_version: self.agent_version,
            protocol_version: self.protocol_version,
            agent_outdated: self.protocol_version.is_some_and(is_outdated),
            agent_refused: self
                .refused_protocol_version
                .and_then(|version| refused_version(u32::try_from(version).unwrap_or_default())),
            inventory: self.inventory.map(|inventory| inventory.0),
            last_seen_at: self.last_seen_at,
            created_at: self.created_at,
        }
    }
}

/// What a list asks for.
pub(super) struct Filter<'a> {
    pub after: Uuid,
    pub name: Option<&'a str>,
    pub state: Option<HostState>,
    pub now: OffsetDateTime,
    pub rows: i64,
}

pub(super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListHosts>,
    filter: &Filter<'_>,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, generation, certificate_expires_at, agent_version, protocol_version, refused_protocol_version,
                  inventory AS "inventory: Json<Inventory>",
                  hypervisor_degraded, unknown_guests_on(id) AS "quarantined!",
                  network_faults AS "network_faults: Json<Vec<NetworkFault>>", last_seen_at, vcpus_capacity,
                  vcpus_reserved, memory_mib_capacity, memory_mib_reserved, disk_gib_capacity,
                  disk_gib_reserved, disk_overcommit, pool_total_bytes, pool_free_bytes,
                  pool_image_cache_bytes, pool_low, pool_low_percent,
                  rack, zone, labels AS "labels: Json<Labels>", taints, cordoned, vcpu_overcommit, memory_overcommit,
                  shared_pools_of(id) AS "shared_pools!: Json<Vec<HostPool>>",
                  ARRAY(SELECT jsonb_object_keys(l.guarded) FROM host_leases l WHERE l.host_id = hosts.id ORDER BY 1)
                      AS "guarded_pools!", declared_dead_at, fencing_of(id) AS "fencing: Json<HostFencing>",
                  maintenance_of(id) AS "maintenance!: Json<HostMaintenance>",
                  (SELECT l.differences FROM host_looks l WHERE l.host_id = hosts.id) AS drift,
                  (SELECT l.looked_at FROM host_looks l WHERE l.host_id = hosts.id) AS drift_looked_at, created_at
           FROM hosts
           WHERE id > $1 AND ($2::text IS NULL OR name = $2)
             AND ($3::text IS NULL OR $3 = CASE
                 WHEN last_seen_at IS NULL THEN 'joining'
                 WHEN last_seen_at < $4 THEN 'unreachable'
                 WHEN hypervisor_degraded IS NOT NULL THEN 'degraded'
                 ELSE 'ready' END)
           ORDER BY id LIMIT $5"#,
        filter.after,
        filter.name,
        filter.state.map(HostState::as_str),
        filter.now - UNREACHABLE_AFTER,
        filter.rows
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn find<A: Action<On: OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    let selector = allowed.selector();
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, generation, certificate_expires_at, agent_version, protocol_version, refused_protocol_version,
                  inventory AS "inventory: Json<Inventory>",
                  hypervisor_degraded, unknown_guests_on(id) AS "quarantined!",
                  network_faults AS "network_faults: Json<Vec<NetworkFault>>", last_seen_at, vcpus_capacity,
                  vcpus_reserved, memory_mib_capacity, memory_mib_reserved, disk_gib_capacity,
                  disk_gib_reserved, disk_overcommit, pool_total_bytes, pool_free_bytes,
                  pool_image_cache_bytes, pool_low, pool_low_percent,
                  rack, zone, labels AS "labels: Json<Labels>", taints, cordoned, vcpu_overcommit, memory_overcommit,
                  shared_pools_of(id) AS "shared_pools!: Json<Vec<HostPool>>",
                  ARRAY(SELECT jsonb_object_keys(l.guarded) FROM host_leases l WHERE l.host_id = hosts.id ORDER BY 1)
                      AS "guarded_pools!", declared_dead_at, fencing_of(id) AS "fencing: Json<HostFencing>",
                  maintenance_of(id) AS "maintenance!: Json<HostMaintenance>",
                  (SELECT l.differences FROM host_looks l WHERE l.host_id = hosts.id) AS drift,
                  (SELECT l.looked_at FROM host_looks l WHERE l.host_id = hosts.id) AS drift_looked_at, created_at
           FROM hosts WHERE id = $1 OR name = $2"#,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// Refuses a filter that names a host which is not there: an empty list would read as if all were well with it.
pub(crate) async fn known_to_filter(conn: &mut PgConnection, host: Option<&str>) -> Result<(), ApiError> {
    let Some(host) = host else { return Ok(()) };
    let query = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM hosts WHERE name = $1 OR id::text = $1) AS "known!""#,
        host
    );
    if query.fetch_one(conn).await? {
        return Ok(());
    }
    Err(ApiError::because(ErrorCode::NotFound, "host: there is no such host"))
}

/// What is promised of hosts for which nothing else was decided.
#[derive(Debug, Clone, Copy)]
struct CloudRatios {
    vcpus: f64,
    memory: f64,
}

impl CloudRatios {
    fn with(self, vcpus: Option<f64>, memory: Option<f64>, disk: f64) -> Overcommit {
        Overcommit { vcpus: vcpus.unwrap_or(self.vcpus), memory: memory.unwrap_or(self.memory), disk }
    }
}

/// Holds the settings. Whoever changes them holds all hosts first, so the host comes first here, too.
async fn cloud_ratios(conn: &mut PgConnection) -> Result<CloudRatios, sqlx::Error> {
    sqlx::query_as!(
        CloudRatios,
        "SELECT vcpu_overcommit AS vcpus, memory_overcommit AS memory FROM placement_settings FOR SHARE"
    )
    .fetch_one(conn)
    .await
}

/// Holds all hosts, before what they offer changes with the cloud's settings.
pub(crate) async fn hold_all(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT FROM hosts ORDER BY id FOR NO KEY UPDATE").execute(conn).await?;
    Ok(())
}

/// Holds the hosts of these instances, which are locked, before more than one of them is told something.
pub(crate) async fn hold_those_of(conn: &mut PgConnection, instances: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT FROM hosts WHERE id IN (SELECT host_id FROM instances WHERE id = ANY($1))
         ORDER BY id FOR NO KEY UPDATE",
        instances
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Offers what hosts have anew, after the cloud's settings have changed.
pub(crate) async fn offer_anew(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    let cloud = cloud_ratios(conn).await?;
    let rows = sqlx::query!(
        r#"SELECT id, inventory AS "inventory: Json<Inventory>", vcpu_overcommit, memory_overcommit, disk_overcommit
           FROM hosts WHERE vcpu_overcommit IS NULL OR memory_overcommit IS NULL"#
    )
    .fetch_all(&mut *conn)
    .await?;
    let (mut ids, mut vcpus, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let Some(inventory) = row.inventory else { continue };
        let ratios = cloud.with(row.vcpu_overcommit, row.memory_overcommit, row.disk_overcommit);
        let offered = offered_capacity(&inventory.0, ratios);
        ids.push(row.id);
        vcpus.push(offered.vcpus);
        memory.push(offered.memory_mib);
    }
    sqlx::query!(
        "UPDATE hosts SET vcpus_offered = o.vcpus, vcpus_capacity = GREATEST(o.vcpus, vcpus_reserved),
                memory_mib_offered = o.memory, memory_mib_capacity = GREATEST(o.memory, memory_mib_reserved),
                updated_at = $4
         FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS o (id, vcpus, memory) WHERE hosts.id = o.id",
        &ids,
        &vcpus,
        &memory,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores what the operator decides about it.
pub(super) async fn update(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdateHost>,
    row: &mut Row,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let cloud = cloud_ratios(conn).await?;
    let ratios = cloud.with(row.vcpu_overcommit, row.memory_overcommit, row.disk_overcommit);
    // A host that has never reported offers nothing yet.
    let offered = row.inventory.as_ref().map_or(Offered::default(), |own| offered_capacity(&own.0, ratios));
    let stored = sqlx::query!(
        "UPDATE hosts SET generation = generation + 1, disk_overcommit = $2, pool_low_percent = $3,
                disk_gib_offered = $4, disk_gib_capacity = GREATEST($4, disk_gib_reserved), updated_at = $5,
                pool_low = coalesce(pool_is_low(pool_total_bytes, pool_free_bytes, $3, false), false),
                rack = $6, zone = $7, labels = $8, taints = $9, cordoned = $10, vcpu_overcommit = $11,
                memory_overcommit = $12, vcpus_offered = $13, vcpus_capacity = GREATEST($13, vcpus_reserved),
                memory_mib_offered = $14, memory_mib_capacity = GREATEST($14, memory_mib_reserved)
         WHERE id = $1
         RETURNING generation, disk_gib_capacity, disk_gib_reserved, pool_low, vcpus_capacity, memory_mib_capacity",
        row.id,
        row.disk_overcommit,
        row.pool_low_percent,
        offered.disk_gib,
        now,
        row.rack,
        row.zone,
        Json(&row.labels.0) as _,
        &row.taints,
        row.cordoned,
        row.vcpu_overcommit,
        row.memory_overcommit,
        offered.vcpus,
        offered.memory_mib
    )
    .fetch_one(conn)
    .await
    .map_err(|error| match violated_constraint(&error) {
        Some("hosts_in_maintenance_take_nothing") => ApiError::because(
            ErrorCode::WrongState,
            "it is in maintenance, and takes no instances before that ends; end it with `end_maintenance`",
        ),
        Some("hosts_placement_group") => ApiError::because(
            ErrorCode::WrongState,
            "instances there are in placement groups whose hard rule would be broken; move or delete them first",
        ),
        _ => error.into(),
    })?;
    (row.vcpus_capacity, row.memory_mib_capacity) = (stored.vcpus_capacity, stored.memory_mib_capacity);
    (row.generation, row.pool_low) = (stored.generation, stored.pool_low);
    (row.disk_gib_capacity, row.disk_gib_reserved) = (stored.disk_gib_capacity, stored.disk_gib_reserved);
    Ok(())
}

/// Opens the host's next session. `None` when the host is not known any more.
pub(crate) async fn open_session(
    conn: &mut PgConnection,
    host: HostId,
    request: &OpenSession,
    now: OffsetDateTime,
) -> Result<Option<Epoch>, sqlx::Error> {
    let inventory = &request.inventory;
    let own = sqlx::query!(
        "SELECT disk_overcommit, vcpu_overcommit, memory_overcommit FROM hosts WHERE id = $1 FOR UPDATE",
        host.as_uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(own) = own else { return Ok(None) };
    super::leases::forget(conn, host, now).await?;
    fencing::store::is_back(conn, host).await?;
    let cloud = cloud_ratios(conn).await?;
    let ratios = cloud.with(own.vcpu_overcommit, own.memory_overcommit, own.disk_overcommit);
    let offered = offered_capacity(inventory, ratios);
    // A host that shrank below what runs on it offers what runs on it, and so takes nothing more.
    let epoch = sqlx::query_scalar!(
        "UPDATE hosts SET epoch = epoch + 1, agent_version = $2, inventory = $3, last_seen_at = $7, updated_at = $7,
                vcpus_offered = $4, vcpus_capacity = GREATEST($4, vcpus_reserved),
                memory_mib_offered = $5, memory_mib_capacity = GREATEST($5, memory_mib_reserved),
                disk_gib_offered = $6, disk_gib_capacity = GREATEST($6, disk_gib_reserved),
                underlay_address = $8::text::inet, declared_dead_at = NULL,
                protocol_version = $9, refused_protocol_version = NULL
         WHERE id = $1 RETURNING epoch",
        host.as_uuid(),
        request.agent_version,
        Json(inventory) as _,
        offered.vcpus,
        offered.memory_mib,
        offered.disk_gib,
        now,
        inventory.underlay_address.map(|address| address.to_string()),
        stored_version(request.protocol_version)
    )
    .fetch_optional(conn)
    .await?;
    Ok(epoch.map(Epoch))
}

/// What the desired feeds of these hosts wait for: the newest epoch and the newest revision of each.
pub(crate) async fn heads(
    conn: &mut PgConnection,
    hosts: &[HostId],
) -> Result<BTreeMap<HostId, (Epoch, Revision)>, sqlx::Error> {
    let hosts: Vec<_> = hosts.iter().map(|host| host.as_uuid()).collect();
    let rows = sqlx::query!("SELECT id, epoch, desired_revision FROM hosts WHERE id = ANY($1)", &hosts);
    let rows = rows.fetch_all(conn).await?;
    let head = |epoch, revision| (Epoch(epoch), Revision(revision));
    Ok(rows.into_iter().map(|row| (row.id.into(), head(row.epoch, row.desired_revision))).collect())
}

/// Notes that the host's agent speaks a version with which no session can be opened; the newest, when it has tried several.
pub(crate) async fn note_refused(
    conn: &mut PgConnection,
    host: HostId,
    version: u32,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE hosts SET refused_protocol_version = $2, updated_at = $3
         WHERE id = $1 AND (refused_protocol_version IS NULL OR refused_protocol_version < $2)",
        host.as_uuid(),
        stored_version(version),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn stored_version(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(i32::MAX)
}

/// Whether nothing runs on the host any more, so the operator, who has not heard of it since. Holds the host's row, so
/// that it is not heard of before the transaction ends.
pub(crate) async fn is_declared_dead(conn: &mut PgConnection, host: HostId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT declared_dead_at IS NOT NULL AS "dead!" FROM hosts WHERE id = $1 FOR NO KEY UPDATE"#,
        host.as_uuid()
    )
    .fetch_one(conn)
    .await
}

/// What is known of whether a host can do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Heard,
    /// Nothing was heard for a while; its guests may well run.
    Silent,
    /// The operator has declared it dead, and it was not heard since.
    Dead,
}

impl Standing {
    pub(crate) fn of(last_seen_at: Option<OffsetDateTime>, dead: bool, now: OffsetDateTime) -> Self {
        match HostState::of(last_seen_at, false, now) {
            _ if dead => Self::Dead,
            HostState::Ready | HostState::Degraded => Self::Heard,
            HostState::Joining | HostState::Unreachable => Self::Silent,
        }
    }
}

/// The host's name, and how it stands. Holds its row, so that it is not heard of anew before the transaction ends.
pub(crate) async fn standing(
    conn: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> Result<(String, Standing), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT name, last_seen_at, declared_dead_at IS NOT NULL AS "dead!" FROM hosts WHERE id = $1
           FOR NO KEY UPDATE"#,
        host.as_uuid()
    )
    .fetch_one(conn)
    .await?;
    Ok((row.name, Standing::of(row.last_seen_at, row.dead, now)))
}

/// The same of a host that may have been removed.
pub(crate) async fn standing_if_there(
    conn: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> Result<Option<Standing>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT last_seen_at, declared_dead_at IS NOT NULL AS "dead!" FROM hosts WHERE id = $1 FOR NO KEY UPDATE"#,
        host.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Standing::of(row.last_seen_at, row.dead, now)))
}

/// The operator says that nothing runs on the host any more.
pub(super) async fn declare_dead(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeclareHostDead>,
    host: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    lay_dead(conn, host, now).await
}

/// Notes that nothing runs on the host any more. Its session ends: an agent that is alive has to hear anew what is
/// wanted before it does anything.
pub(super) async fn lay_dead(
    conn: &mut PgConnection,
    host: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE hosts SET declared_dead_at = coalesce(declared_dead_at, $2), epoch = epoch + 1,
                generation = generation + 1, updated_at = $2
         WHERE id = $1",
        host,
        now
    )
    .execute(&mut *conn)
    .await?;
    // Cards and shared volumes that were to leave its guests have left.
    nudge::send(conn, Topic::Networks).await
}

/// Whether a host that is declared dead was switched off, so the operator's program, and nobody had to say so.
pub(crate) async fn is_switched_off(conn: &mut PgConnection, host: HostId) -> Result<bool, sqlx::Error> {
    fencing::store::is_switched_off(conn, host).await
}

/// What the control plane knows of a host's session.
pub(crate) struct Session {
    pub epoch: Epoch,
    pub desired_revision: Revision,
    pub hypervisor_degraded: Option<String>,
    pub quarantined: i32,
    /// The revision at which its network document last changed.
    pub network_revision: Revision,
    /// Whether anything is stored of shared pools that it was told of.
    pub has_shared_pools: bool,
    /// What its agent speaks.
    pub protocol_version: u32,
}

pub(crate) async fn session(conn: &mut PgConnection, host: HostId) -> Result<Option<Session>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT epoch, desired_revision, hypervisor_degraded, quarantined, network_revision, protocol_version,
                  EXISTS (SELECT FROM host_pools WHERE host_id = h.id) AS "has_shared_pools!"
           FROM hosts h WHERE id = $1"#,
        host.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Session {
        epoch: Epoch(row.epoch),
        desired_revision: Revision(row.desired_revision),
        hypervisor_degraded: row.hypervisor_degraded,
        quarantined: row.quarantined,
        network_revision: Revision(row.network_revision),
        has_shared_pools: row.has_shared_pools,
        // A session that a replica of the release before has opened is one of the version before.
        protocol_version: row
            .protocol_version
            .and_then(|version| u32::try_from(version).ok())
            .unwrap_or(EARLIEST_PROTOCOL_VERSION),
    }))
}

/// Stores what the host says of its networks, unless it has said something newer or speaks of what it was never
/// told.
pub(crate) async fn set_networks(
    conn: &mut PgConnection,
    host: HostId,
    applied: Revision,
    faults: &[NetworkFault],
    check: Option<&NetworkCheck>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE hosts SET network_applied = $2, network_faults = $3, network_check = coalesce($4, network_check)
         WHERE id = $1 AND $2 BETWEEN coalesce(network_applied, 0) AND desired_revision",
        host.as_uuid(),
        applied.0,
        Json(faults) as _,
        check.map(Json) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores a change of health; heartbeats that change nothing do not come here.
pub(crate) async fn set_health(
    conn: &mut PgConnection,
    host: HostId,
    degraded: Option<&str>,
    quarantined: i32,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE hosts SET hypervisor_degraded = $2, quarantined = $3, updated_at = $4 WHERE id = $1",
        host.as_uuid(),
        degraded,
        quarantined,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The same for a change of the host's network document, which then has this revision. `None` when the host is
/// not there any more.
pub(crate) async fn bump_networks(
    conn: &mut PgConnection,
    host: HostId,
) -> Result<Option<Revision>, sqlx::Error> {
    let revision = sqlx::query_scalar!(
        "UPDATE hosts SET desired_revision = desired_revision + 1, network_revision = desired_revision + 1
         WHERE id = $1 RETURNING desired_revision",
        host.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(revision.map(Revision))
}

/// The same for several hosts, of which some may not be there any more. Their rows are locked in the order of ids.
pub(crate) async fn bump_networks_of(conn: &mut PgConnection, hosts: &[HostId]) -> Result<(), sqlx::Error> {
    let hosts: Vec<_> = hosts.iter().map(|host| host.as_uuid()).collect();
    sqlx::query!(
        "WITH held AS MATERIALIZED (
             SELECT id FROM hosts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)
         UPDATE hosts h SET desired_revision = h.desired_revision + 1, network_revision = h.desired_revision + 1
         FROM held WHERE h.id = held.id",
        &hosts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The next revision of what the host shall look like. Holds the host's row until the transaction ends, so
/// revisions become visible in order.
pub(crate) async fn bump_revision(conn: &mut PgConnection, host: HostId) -> Result<Revision, sqlx::Error> {
    sqlx::query_scalar!(
        "UPDATE hosts SET desired_revision = desired_revision + 1 WHERE id = $1 RETURNING desired_revision",
        host.as_uuid()
    )
    .fetch_one(conn)
    .await
    .map(Revision)
}
