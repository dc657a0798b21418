//! SQL of instances as their host's agent sees them. Every function is scoped to one host.

use protocol::agent::{
    Architecture, DesiredBody, DesiredObject, Firmware, ImageSource, InstanceReport, InstanceSpec, RootDisk,
    Seed, StopMode,
};
use protocol::image::Format;
use protocol::{
    Generation, HostId, InstanceId, MemoryMib, OperationId, Revision, Sha256, SizeGib, TransferId,
};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::http::ApiError;
use crate::instances::model::{Intent, Observed, stored};
use crate::instances::store::NicRow;
use crate::nudge::{self, Topic};
use crate::ports::cards;

struct DesiredRow {
    id: Uuid,
    generation: i64,
    desired_revision: i64,
    architecture: String,
    firmware: String,
    vcpus: i32,
    memory_mib: i32,
    root_disk_gib: i32,
    hostname: String,
    user_data: Option<String>,
    ssh_authorized_keys: Vec<String>,
    power: String,
    boot: i64,
    stop_mode: String,
    stop_timeout_seconds: i32,
    deletion_requested: bool,
    operation_id: Uuid,
    request_id: Uuid,
    sha256: Option<Vec<u8>>,
    format: Option<String>,
    size_bytes: Option<i64>,
    virtual_size_bytes: Option<i64>,
    nics: Json<Vec<NicRow>>,
}

/// What of this host's instances changed after the revision, oldest first.
pub(crate) async fn desired_after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, ApiError> {
    let rows = sqlx::query_as!(
        DesiredRow,
        r#"SELECT i.id, i.generation, i.desired_revision AS "desired_revision!", i.architecture, i.firmware,
                  i.vcpus, i.memory_mib, i.root_disk_gib, i.hostname, i.user_data, i.ssh_authorized_keys, i.power, i.boot,
                  i.stop_mode, i.stop_timeout_seconds,
                  i.deletion_requested_at IS NOT NULL AS "deletion_requested!",
                  i.operation_id, i.request_id,
                  b.sha256 AS "sha256?", b.format AS "format?", b.size_bytes AS "size_bytes?",
                  b.virtual_size_bytes AS "virtual_size_bytes?",
                  instance_nics(i.id) AS "nics!: Json<Vec<NicRow>>"
           FROM instances i JOIN images m ON m.id = i.image_id LEFT JOIN blobs b ON b.id = m.blob_id
           WHERE i.host_id = $1 AND i.desired_revision > $2 ORDER BY i.desired_revision"#,
        host.as_uuid(),
        after.0
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut objects = rows.into_iter().map(object).collect::<Result<Vec<_>, _>>()?;
    objects.extend(transfers_after(conn, host, after).await?);
    objects.sort_by_key(|object| object.revision);
    Ok(objects)
}

fn object(row: DesiredRow) -> Result<DesiredObject, ApiError> {
    let revision = Revision(row.desired_revision);
    let id = InstanceId::from(row.id);
    let generation = Generation(row.generation);
    let operation_id = Some(OperationId::from(row.operation_id));
    if row.deletion_requested {
        return Ok(DesiredObject {
            revision,
            body: DesiredBody::DeleteInstance { id, generation, operation_id },
        });
    }
    let broken = || ApiError::internal(format!("instance {id} has a row that cannot be read"));
    let spec = InstanceSpec {
        id,
        generation,
        hostname: row.hostname.parse().map_err(|_| broken())?,
        power: stored::parse_power(&row.power),
        boot: row.boot,
        stop: match row.stop_mode.as_str() {
            "force" => StopMode::Force,
            _ => StopMode::Graceful { timeout_seconds: row.stop_timeout_seconds.unsigned_abs() },
        },
        architecture: Architecture::from_name(&row.architecture).ok_or_else(broken)?,
        firmware: Firmware::from_name(&row.firmware).ok_or_else(broken)?,
        vcpus: row.vcpus.unsigned_abs(),
        memory_mib: MemoryMib(row.memory_mib.unsigned_abs()),
        root_disk: RootDisk {
            size_gib: SizeGib(row.root_disk_gib.unsigned_abs()),
            image: ImageSource {
                sha256: digest(row.sha256).ok_or_else(broken)?,
                format: Format::from_name(&row.format.unwrap_or_default()).ok_or_else(broken)?,
                size_bytes: row.size_bytes.ok_or_else(broken)?.unsigned_abs(),
                virtual_size_bytes: row.virtual_size_bytes.ok_or_else(broken)?.unsigned_abs(),
            },
        },
        nics: row.nics.0.into_iter().map(NicRow::into_nic).collect(),
        seed: Seed { user_data: row.user_data, ssh_authorized_keys: row.ssh_authorized_keys },
        operation_id,
        request_id: Some(row.request_id.into()),
    };
    Ok(DesiredObject { revision, body: DesiredBody::Instance(Box::new(spec)) })
}

fn digest(bytes: Option<Vec<u8>>) -> Option<Sha256> {
    Some(Sha256::from_bytes(bytes?.try_into().ok()?))
}

async fn transfers_after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, instance_id, max_bytes, desired_revision FROM transfers
         WHERE host_id = $1 AND desired_revision > $2 AND body IS NULL",
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
    pub operation_id: OperationId,
}

/// Locks an instance of this host. `None` when it is not there or not this host's.
pub(crate) async fn lock_reported(
    conn: &mut PgConnection,
    host: HostId,
    id: InstanceId,
) -> Result<Option<Reported>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT generation, power, boot, deletion_requested_at, operation_id, observed_generation, observed_boot,
                observed_state, observed_end_reason, observed_detail
         FROM instances WHERE id = $1 AND host_id = $2 FOR UPDATE",
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
                Some(Observed { generation, boot, state })
            },
        ),
        observed_detail: row.observed_detail,
        operation_id: row.operation_id.into(),
    }))
}

pub(crate) async fn set_observed(
    conn: &mut PgConnection,
    id: InstanceId,
    observed: &Observed,
    detail: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET observed_generation = $2, observed_boot = $3, observed_state = $4,
                observed_end_reason = $5, observed_detail = $6, observed_at = $7, updated_at = $7
         WHERE id = $1",
        id.as_uuid(),
        observed.generation,
        observed.boot,
        observed.state.as_str(),
        stored::end_reason(observed.state),
        detail,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The end of instances: their host has said that nothing is left. The trigger gives the capacity back.
pub(crate) async fn delete(
    conn: &mut PgConnection,
    host: HostId,
    ids: &[InstanceId],
) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = ids.iter().map(|id| id.as_uuid()).collect();
    cards::release(conn, &ids).await?;
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
                  observed_end_reason
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
            detail: None,
            steps: Vec::new(),
        })
    });
    Ok(reports.collect())
}
