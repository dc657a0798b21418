//! SQL of instances whose root disk is made anew, or that boot from another one for a while.

use protocol::LayerId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::System;
use crate::http::{ApiError, ErrorCode};
use crate::volumes::store::{attachments, layers};

/// The volume that an instance boots from, locked.
pub(in crate::instances) struct Root {
    pub id: Uuid,
    pub name: String,
    pub size_gib: i32,
    layer_id: Uuid,
    host_id: Option<Uuid>,
    pool_id: Option<Uuid>,
    delete_protection: bool,
}

/// Finds it and refuses if it must not be overwritten.
pub(in crate::instances) async fn lock_root(
    conn: &mut PgConnection,
    instance: Uuid,
) -> Result<Root, ApiError> {
    // All volumes of it, in the order of everybody.
    sqlx::query!("SELECT FROM volumes WHERE instance_id = $1 ORDER BY id FOR UPDATE", instance)
        .execute(&mut *conn)
        .await?;
    let root = sqlx::query_as!(
        Root,
        "SELECT id, name, size_gib, layer_id, host_id, pool_id, delete_protection FROM volumes
         WHERE instance_id = $1 AND position = 0 AND attachment_state <> 'detaching'",
        instance
    )
    .fetch_optional(conn)
    .await?;
    let Some(root) = root else {
        let detail = "it has no volume to boot from; attach one with `root` set to true instead";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    };
    if root.delete_protection {
        let detail = format!(
            "its volume {} would be overwritten and is protected; set the volume's `delete_protection` to false first",
            root.name
        );
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    Ok(root)
}

/// Lets the root volume begin anew with this system. What was on it goes, unless a snapshot holds it.
pub(in crate::instances) async fn rebuild(
    conn: &mut PgConnection,
    instance: Uuid,
    root: &Root,
    system: &System,
    layer: LayerId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO layers (id, host_id, pool_id, created_at) VALUES ($1, $2, $3, $4)",
        layer.as_uuid(),
        root.host_id,
        root.pool_id,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE volumes SET layer_id = $2, image_id = $3, spec_generation = spec_generation + 1,
                            generation = generation + 1, attachment_state = 'attaching', updated_at = $4
         WHERE id = $1",
        root.id,
        layer.as_uuid(),
        system.image_id,
        now
    )
    .execute(&mut *conn)
    .await?;
    set_system(conn, instance, system).await?;
    layers::give_up(conn, &[root.layer_id], now).await
}

/// Notes which system the instance boots from now on.
pub(in crate::instances) async fn set_system(
    conn: &mut PgConnection,
    instance: Uuid,
    system: &System,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE instances SET image_id = $2, image_name = $3, firmware = $4 WHERE id = $1",
        instance,
        system.image_id,
        system.image_name,
        system.firmware
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets the volume go that a rescued instance boots from. Its files go when the guest has let go of them.
pub(in crate::instances) async fn end_rescue(
    conn: &mut PgConnection,
    instance: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let rescue = sqlx::query!(
        "UPDATE volumes SET attachment_state = 'detaching', delete_with_instance = true, updated_at = $2
         WHERE instance_id = $1 AND position = -1 AND attachment_state <> 'detaching'
         RETURNING id, host_id IS NULL AND pool_id IS NULL AS \"unmade!\"",
        instance,
        now
    )
    .fetch_optional(&mut *conn)
    .await?;
    match rescue {
        None => Ok(()),
        Some(rescue) if rescue.unmade => {
            attachments::release(conn, &[rescue.id], now).await?;
            layers::forget_volume(conn, rescue.id, now).await
        }
        Some(rescue) => layers::remove_volume(conn, rescue.id, layers::Told::Now, now).await,
    }
}
