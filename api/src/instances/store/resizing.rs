//! SQL of instances that change their size.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Row;
use crate::instance_types::InstanceTypeRow;

/// Gives an instance, which is locked, another size. Until `confirm_at` it can go back, and until its host has made it so
/// it holds the larger of both.
///
/// # Errors
/// A CHECK named `hosts_…` fails when its host has no room.
pub(in crate::instances) async fn set(
    conn: &mut PgConnection,
    row: &Row,
    to: &InstanceTypeRow,
    confirm_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET resized_from_type_id = instance_type_id, resized_from_vcpus = vcpus,
                resized_from_memory_mib = memory_mib, resize_confirm_at = $5, instance_type_id = $2, vcpus = $3,
                memory_mib = $4
         WHERE id = $1",
        row.id,
        to.id,
        to.vcpus,
        to.memory_mib,
        confirm_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives an instance, which is locked and on no host, another size. Nothing is held for a way back, and it is due to be
/// placed.
pub(in crate::instances) async fn set_unplaced(
    conn: &mut PgConnection,
    id: Uuid,
    to: &InstanceTypeRow,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET instance_type_id = $2, vcpus = $3, memory_mib = $4, placement_due_at = $5,
                placement_explanation = NULL
         WHERE id = $1 AND host_id IS NULL",
        id,
        to.id,
        to.vcpus,
        to.memory_mib,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives it the size back that it had. What it gives up is held until its host has made it so.
pub(in crate::instances) async fn revert(
    conn: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET instance_type_id = resized_from_type_id, vcpus = resized_from_vcpus,
                memory_mib = resized_from_memory_mib, resized_from_type_id = instance_type_id,
                resized_from_vcpus = vcpus, resized_from_memory_mib = memory_mib, resize_confirm_at = $2
         WHERE id = $1 AND resized_from_type_id IS NOT NULL",
        id,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// From now on there is no way back.
pub(in crate::instances) async fn confirm(
    conn: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE instances SET resize_confirm_at = $2, updated_at = $2 WHERE id = $1", id, now)
        .execute(&mut *conn)
        .await?;
    release(conn, id).await
}

/// Gives back what is held for the way back, once no guest of the old size runs.
pub(in crate::instances) async fn release(conn: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET resized_from_type_id = NULL, resized_from_vcpus = NULL, resized_from_memory_mib = NULL,
                resize_confirm_at = NULL
         WHERE id = $1 AND size_is_made(instances)",
        id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks an instance whose resize can be confirmed by itself; other replicas pass it over.
pub(in crate::instances) async fn take_due(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM instances i WHERE resize_confirm_at <= $1 AND size_is_made(i)
         ORDER BY resize_confirm_at, id LIMIT 1 FOR UPDATE SKIP LOCKED",
        now
    )
    .fetch_optional(conn)
    .await
}

/// The memory that the image of an instance asks for, in MiB.
pub(in crate::instances) async fn least_memory_mib(
    conn: &mut PgConnection,
    image: Uuid,
) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!("SELECT min_memory_mib FROM images WHERE id = $1", image).fetch_one(conn).await
}
