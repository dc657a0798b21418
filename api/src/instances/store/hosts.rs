//! SQL of instances as their host's agent sees them. Every function is scoped to one host.

use std::net::IpAddr;

use protocol::agent::{
    Architecture, DesiredBody, DesiredObject, Firmware, GuestHardware, InstanceReport, InstanceSpec,
    MemoryFile, Migration, OnHostFailure, PauseReason, SaveMemory, Seed, StopMode, VolumeReport,
};
use protocol::{
    Generation, HostId, InstanceId, LayerId, MacAddress, MemoryMib, OperationId, Revision, TransferId,
};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::http::ApiError;
use crate::instances::model::{Intent, Observed, stored};
use crate::instances::store::{NicRow, departures, disk_moves};
use crate::nudge::{self, Topic};
use crate::ports::cards;
use crate::snapshots::store::hosts as snapshots;
use crate::volumes::store::ending;
use crate::volumes::store::hosts::{self as volumes, DiskRow};

struct DesiredRow {
    id: Uuid,
    project_id: Uuid,
    generation: i64,
    desired_revision: i64,
    architecture: String,
    firmware: String,
    hardware: Json<GuestHardware>,
    vcpus: i32,
    memory_mib: i32,
    hostname: String,
    user_data: Option<Vec<u8>>,
    ssh_authorized_keys: Vec<String>,
    power: String,
    boot: i64,
    stop_mode: String,
    stop_timeout_seconds: i32,
    deletion_requested: bool,
    operation_id: Uuid,
    request_id: Uuid,
    nics: Json<Vec<NicRow>>,
    disks: Json<Vec<DiskRow>>,
    /// What goes with an instance that goes.
    layers: Vec<Uuid>,
    /// The shared pools that some of those are in.
    pools: Vec<String>,
    freezes: bool,
    saves_memory: Option<Json<SaveMemory>>,
    on_host_failure: String,
    /// What this boot goes on from.
    resumes_from: Option<Json<MemoryFile>>,
    /// Of one that comes here or leaves.
    migration_id: Option<Uuid>,
    comes_from: Option<Uuid>,
    goes_to: Option<Uuid>,
    migration_address: Option<String>,
    migration_port: Option<i32>,
    max_downtime_ms: Option<i32>,
    migration_cancelled: bool,
}

impl DesiredRow {
    /// The host's part in a migration. The source hears of it when the destination is ready.
    fn migration(&self) -> Option<Migration> {
        let id = self.migration_id?.into();
        if let Some(source) = self.comes_from {
            return Some(Migration::Incoming { id, source: source.into() });
        }
        let address: IpAddr = self.migration_address.as_deref()?.parse().ok()?;
        Some(Migration::Outgoing {
            id,
            destination: self.goes_to?.into(),
            address: (address, u16::try_from(self.migration_port?).ok()?).into(),
            max_downtime_ms: self.max_downtime_ms?.unsigned_abs(),
            cancelled: self.migration_cancelled,
        })
    }
}

/// What of this host's instances changed after the revision, oldest first. INVARIANT: a host whose agent knows of no
/// migrations hears nothing of a guest that is to come: it would start it. Nor does one that would let it go on without a guard
/// if it is to be guarded.
pub(crate) async fn desired_after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, ApiError> {
    let rows = sqlx::query_as!(
        DesiredRow,
        r#"SELECT i.id, i.project_id, i.generation, i.architecture, i.firmware,
                  CASE WHEN i.host_id = $1 THEN i.desired_revision ELSE m.desired_revision END AS "desired_revision!",
                  m.id AS "migration_id?",
                  CASE WHEN m.destination_host_id = $1 THEN m.source_host_id END AS comes_from,
                  CASE WHEN m.source_host_id = $1 THEN m.destination_host_id END AS goes_to,
                  host(m.address) AS migration_address, m.port AS "migration_port?", m.max_downtime_ms AS "max_downtime_ms?",
                  m.cancelled_at IS NOT NULL AS "migration_cancelled!",
                  t.hardware AS "hardware: Json<GuestHardware>",
                  i.vcpus, i.memory_mib, i.hostname, i.user_data, i.ssh_authorized_keys, i.power, i.boot,
                  i.stop_mode, i.stop_timeout_seconds,
                  i.deletion_requested_at IS NOT NULL AS "deletion_requested!",
                  i.operation_id, i.request_id,
                  instance_nics(i.id) AS "nics!: Json<Vec<NicRow>>",
                  instance_disks(i.id) AS "disks!: Json<Vec<DiskRow>>",
                  ARRAY(SELECT l.id FROM layers l JOIN volumes v ON v.removal_id = l.removal_id
                        WHERE v.instance_id = i.id ORDER BY l.id) AS "layers!",
                  ARRAY(SELECT DISTINCT p.name FROM volumes v JOIN pools p ON p.id = v.pool_id
                        WHERE v.instance_id = i.id AND v.removal_id IS NOT NULL) AS "pools!", i.freezes,
                  i.on_host_failure,
                  i.saves_memory AS "saves_memory: Json<SaveMemory>",
                  (SELECT jsonb_build_object('id', l.id, 'pool', p.name)
                   FROM snapshots s JOIN layers l ON l.id = s.memory_id LEFT JOIN pools p ON p.id = l.pool_id
                   WHERE s.id = i.resume_snapshot_id AND i.resume_boot = i.boot
                     AND i.power = 'running') AS "resumes_from: Json<MemoryFile>"
           FROM (SELECT id FROM instances WHERE host_id = $1 AND desired_revision > $2
                 UNION
                 SELECT one.instance_id FROM migrations one JOIN hosts h ON h.id = one.destination_host_id
                 WHERE h.id = $1 AND one.desired_revision > $2 AND one.sends_guest
                   AND takes_migration(one, h.inventory)) changed
           JOIN instances i USING (id) JOIN instance_types t ON t.id = i.instance_type_id
           LEFT JOIN migrations m ON m.instance_id = i.id AND m.sends_guest"#,
        host.as_uuid(),
        after.0
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut objects = rows.into_iter().map(object).collect::<Result<Vec<_>, _>>()?;
    objects.extend(volumes::removals_after(conn, host, after).await?);
    objects.extend(transfers_after(conn, host, after).await?);
    objects.extend(departures::after(conn, host, after).await?);
    objects.extend(disk_moves::after(conn, host, after).await?);
    objects.sort_by_key(|object| object.revision);
    Ok(objects)
}

fn object(row: DesiredRow) -> Result<DesiredObject, ApiError> {
    let revision = Revision(row.desired_revision);
    let id = InstanceId::from(row.id);
    let generation = Generation(row.generation);
    let migration = row.migration();
    // Its trail is that of the host that it is on.
    let operation_id = Some(OperationId::from(row.operation_id))
        .filter(|_| !matches!(migration, Some(Migration::Incoming { .. })));
    if row.deletion_requested {
        return Ok(DesiredObject {
            revision,
            body: DesiredBody::DeleteInstance {
                id,
                generation,
                layers: row.layers.into_iter().map(LayerId::from).collect(),
                pools: row.pools.iter().filter_map(|name| name.parse().ok()).collect(),
                operation_id,
            },
        });
    }
    let broken = || ApiError::internal(format!("instance {id} has a row that cannot be read"));
    let spec = InstanceSpec {
        id,
        generation,
        project_id: Some(row.project_id.into()),
        hostname: row.hostname.parse().map_err(|_| broken())?,
        power: stored::parse_power(&row.power),
        boot: row.boot,
        stop: match row.stop_mode.as_str() {
            "force" => StopMode::Force,
            _ => StopMode::Graceful { timeout_seconds: row.stop_timeout_seconds.unsigned_abs() },
        },
        architecture: Architecture::from_name(&row.architecture).ok_or_else(broken)?,
        firmware: Firmware::from_name(&row.firmware).ok_or_else(broken)?,
        hardware: row.hardware.0,
        vcpus: row.vcpus.unsigned_abs(),
        memory_mib: MemoryMib(row.memory_mib.unsigned_abs()),
        disks: row.disks.0.into_iter().map(DiskRow::into_disk).collect::<Option<_>>().ok_or_else(broken)?,
        freeze: row.freezes,
        save_memory: row.saves_memory.map(|save| save.0),
        load_memory: row.resumes_from.map(|file| file.0),
        nics: row.nics.0.into_iter().filter_map(NicRow::into_nic).collect(),
        seed: Seed::new(row.user_data, row.ssh_authorized_keys),
        on_host_failure: OnHostFailure::from_name(&row.on_host_failure).ok_or_else(broken)?,
        migration,
        operation_id,
        request_id: Some(row.request_id.into()),
    };
    Ok(DesiredObject { revision, body: DesiredBody::Instance(Box::new(spec)) })
}

async fn transfers_after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, instance_id, max_bytes, desired_revision FROM transfers
         WHERE host_id = $1 AND desired_revision > $2 AND body IS NULL AND kind = 'serial_log'",
        host.as_uuid(),
        after.0
    )
    .fetch_all(conn)
    .await?;
    let objects = rows.into_iter().map(|row| DesiredObject {
        revision: Revision(row.desired_revision),
        body: DesiredBody::SendSerialLog {
            transfer_id: TransferId::from(row.id),
            instance_id: row.instance_id.into(),
            max_bytes: row.max_bytes.unsigned_abs(),
        },
    });
    Ok(objects.collect())
}

/// What judging a report needs to know of the instance.
pub(crate) struct Reported {
    pub intent: Intent,
    pub observed: Option<Observed>,
    pub observed_detail: Option<String>,
    /// The volumes that it had.
    pub observed_volumes: Vec<VolumeReport>,
    /// The cards that it had although they were not wanted any more.
    pub observed_leaving_cards: Vec<MacAddress>,
    pub operation_id: OperationId,
    pub operation_kind: String,
    /// It is on its way to another host.
    pub is_migrating: bool,
    /// It comes from a backup, and its host has told nothing of it since that it had not told before.
    pub is_restored: bool,
    /// What its host says of earlier generations is of another history.
    pub believed_from: Option<i64>,
}

/// Locks an instance of this host. `None` when it is not there or not this host's.
pub(crate) async fn lock_reported(
    conn: &mut PgConnection,
    host: HostId,
    id: InstanceId,
) -> Result<Option<Reported>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT generation, power, boot, deletion_requested_at, operation_id, restored, believed_from, observed_generation, observed_boot,
                  observed_state, observed_end_reason, observed_paused, observed_detail,
                  observed_volumes AS "observed_volumes: Json<Vec<VolumeReport>>",
                  observed_leaving_cards AS "observed_leaving_cards: Json<Vec<MacAddress>>",
                  (SELECT kind FROM operations o WHERE o.id = operation_id) AS "operation_kind!",
                  EXISTS (SELECT FROM migrations m WHERE m.instance_id = instances.id) AS "is_migrating!"
           FROM instances WHERE id = $1 AND host_id = $2 FOR UPDATE"#,
        id.as_uuid(),
        host.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Reported {
        intent: Intent {
            generation: row.generation,
            power: stored::parse_power(&row.power),
            boot: row.boot,
            deletion_requested: row.deletion_requested_at.is_some(),
            placed: true,
        },
        observed: row.observed_generation.zip(row.observed_boot).zip(row.observed_state).and_then(
            |((generation, boot), state)| {
                let state = stored::parse_state(&state, row.observed_end_reason.as_deref())?;
                let paused = row.observed_paused.as_deref().and_then(PauseReason::from_name);
                Some(Observed { generation, boot, state, paused })
            },
        ),
        observed_detail: row.observed_detail,
        observed_volumes: row.observed_volumes.0,
        observed_leaving_cards: row.observed_leaving_cards.0,
        operation_id: row.operation_id.into(),
        operation_kind: row.operation_kind,
        is_migrating: row.is_migrating,
        is_restored: row.restored,
        believed_from: row.believed_from,
    }))
}

/// The stored intent of an instance, past what its host has seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lift {
    pub id: InstanceId,
    pub generation: i64,
    pub boot: i64,
}

/// Asks the host for what is stored again, as something newer. INVARIANT: what it has said of earlier generations, and may say
/// again, is not taken for an answer. The instance is locked, and this host's. Holds the host's row.
pub(crate) async fn lift(
    conn: &mut PgConnection,
    host: HostId,
    lift: &Lift,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let Lift { id, generation, boot } = *lift;
    tracing::info!(instance = %id, %host, generation, boot, "asked for anew past what its host has seen: the database was restored");
    let revision = crate::hosts::store::bump_revision(conn, host).await?;
    sqlx::query!(
        "UPDATE instances SET generation = $3, believed_from = $3, boot = $4, restored = false, desired_revision = $5,
                guarded_from = CASE WHEN on_host_failure = 'restart' THEN $3 ELSE guarded_from END, updated_at = $6
         WHERE id = $1 AND host_id = $2",
        id.as_uuid(),
        host.as_uuid(),
        generation,
        boot,
        revision.0,
        now
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Host(host)).await
}

pub(crate) async fn set_observed(
    conn: &mut PgConnection,
    observed: &Observed,
    report: &InstanceReport,
    detail: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET observed_generation = $2, observed_boot = $3, observed_state = $4,
                observed_end_reason = $5, observed_detail = $6, observed_at = $7, updated_at = $7,
                observed_volumes = $8, observed_paused = $9, observed_leaving_cards = $10
         WHERE id = $1",
        report.id.as_uuid(),
        observed.generation,
        observed.boot,
        observed.state.as_str(),
        stored::end_reason(observed.state),
        detail,
        now,
        Json(&report.volumes) as _,
        observed.paused.map(PauseReason::as_str),
        Json(report.leaving_cards.as_deref().unwrap_or_default()) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks those of these instances that are this host's, and those of migrations in which it has a part, before anything
/// that belongs to one of them.
pub(crate) async fn lock_all(
    conn: &mut PgConnection,
    host: HostId,
    ids: &[InstanceId],
    migrations: &[Uuid],
) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = ids.iter().map(|id| id.as_uuid()).collect();
    sqlx::query!(
        "SELECT FROM instances i,
              (SELECT ARRAY(SELECT instance_id FROM migrations
                            WHERE id = ANY($3) AND (source_host_id = $2 OR destination_host_id = $2)) AS ids) moving
         WHERE i.id = ANY($1 || moving.ids) AND (i.host_id = $2 OR i.id = ANY(moving.ids))
         ORDER BY i.id FOR UPDATE OF i",
        &ids,
        host.as_uuid(),
        migrations
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The end of instances: their host has said that nothing is left. The trigger gives the capacity back. Of other
/// instances the guests have let go of these ports.
pub(crate) async fn delete(
    conn: &mut PgConnection,
    host: HostId,
    ids: &[InstanceId],
    let_go: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = ids.iter().map(|id| id.as_uuid()).collect();
    ending::lock(conn, &ids).await?;
    cards::release(conn, &ids, let_go, now).await?;
    snapshots::end_with(conn, &ids, now).await?;
    ending::complete(conn, &ids, now).await?;
    sqlx::query!("DELETE FROM instances WHERE id = ANY($1) AND host_id = $2", &ids, host.as_uuid())
        .execute(&mut *conn)
        .await?;
    // Their images may have waited for that.
    nudge::send(conn, Topic::Sweep).await
}

/// What the host has reported, as far as its digest goes.
pub(crate) async fn observed(
    conn: &mut PgConnection,
    host: HostId,
) -> Result<Vec<InstanceReport>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, observed_generation AS "generation!", observed_boot AS "boot!", observed_state AS "state!",
                  observed_end_reason, observed_paused, observed_volumes AS "volumes: Json<Vec<VolumeReport>>",
                  observed_leaving_cards AS "leaving_cards: Json<Vec<MacAddress>>"
           FROM instances WHERE host_id = $1 AND observed_state IS NOT NULL"#,
        host.as_uuid()
    )
    .fetch_all(conn)
    .await?;
    let reports = rows.into_iter().filter_map(|row| {
        Some(InstanceReport {
            id: row.id.into(),
            generation: Generation(row.generation),
            boot: row.boot,
            state: stored::parse_state(&row.state, row.observed_end_reason.as_deref())?,
            volumes: row.volumes.0,
            leaving_cards: Some(row.leaving_cards.0),
            paused: row.observed_paused.as_deref().and_then(PauseReason::from_name),
            not_taken: None,
            saved_memory: None,
            detail: None,
            steps: Vec::new(),
        })
    });
    Ok(reports.collect())
}
