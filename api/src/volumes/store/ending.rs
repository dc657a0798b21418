//! SQL of what becomes of volumes when their instance goes.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::attachments::release;
use super::layers::{self, Told};
use crate::http::{ApiError, ErrorCode};
use crate::operations::store::{End, finish};

/// A volume of an instance that goes, locked.
struct Going {
    id: Uuid,
    name: String,
    host_id: Option<Uuid>,
    pool_id: Option<Uuid>,
    delete_with_instance: bool,
    delete_protection: bool,
}

/// But for those that go already.
async fn volumes_of(conn: &mut PgConnection, instance: Uuid) -> Result<Vec<Going>, sqlx::Error> {
    sqlx::query_as!(
        Going,
        "SELECT id, name, host_id, pool_id, delete_with_instance, delete_protection FROM volumes
         WHERE instance_id = $1 AND removal_id IS NULL ORDER BY id FOR UPDATE",
        instance
    )
    .fetch_all(conn)
    .await
}

/// Those that go with the instance, and those that stay.
async fn divide(conn: &mut PgConnection, instance: Uuid) -> Result<(Vec<Going>, Vec<Going>), ApiError> {
    let (going, staying): (Vec<_>, Vec<_>) =
        volumes_of(conn, instance).await?.into_iter().partition(|volume| volume.delete_with_instance);
    if let Some(protected) = going.iter().find(|volume| volume.delete_protection) {
        let detail = format!(
            "its volume {} would go with it and is protected; set the volume's `delete_with_instance` or its \
             `delete_protection` to false first",
            protected.name
        );
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    Ok((going, staying))
}

/// An instance on a host is to go: from now on its host removes the layers of those that go with it, and lets the others
/// go.
pub(crate) async fn request(
    conn: &mut PgConnection,
    instance: Uuid,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let (going, staying) = divide(conn, instance).await?;
    for volume in going {
        layers::remove_volume(conn, volume.id, Told::WithInstance, now).await?;
    }
    for volume in staying {
        super::attachments::leave(conn, volume.id, now).await?;
    }
    Ok(())
}

/// An instance that is on no host goes at once. What it would have taken along goes, too; data of it that is on a
/// host is removed there.
pub(crate) async fn of_unplaced(
    conn: &mut PgConnection,
    instance: Uuid,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let (going, staying) = divide(conn, instance).await?;
    let ids: Vec<_> = going.iter().chain(&staying).map(|volume| volume.id).collect();
    release(conn, &ids, now).await?;
    for volume in going {
        match volume.host_id.or(volume.pool_id) {
            None => layers::forget_volume(conn, volume.id, now).await?,
            Some(_) => layers::remove_volume(conn, volume.id, Told::Now, now).await?,
        }
    }
    Ok(())
}

/// Locks the volumes of instances that are gone, before anything of theirs is given back.
pub(crate) async fn lock(conn: &mut PgConnection, instances: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT FROM volumes WHERE instance_id = ANY($1) ORDER BY id FOR UPDATE", instances)
        .execute(conn)
        .await?;
    Ok(())
}

/// The host of the instance, which is locked, is dead: no guest has the shared volumes any more that were to leave it or to
/// go with it. Files that are to go are removed by another host of their pool. Gives whether the instance has no volume
/// any more.
pub(crate) async fn release_of_lost(
    conn: &mut PgConnection,
    instance: Uuid,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let volumes = sqlx::query!(
        r#"SELECT id, CASE WHEN removal_id IS NULL THEN operation_id END AS operation,
                  pool_id IS NOT NULL AND (removal_id IS NOT NULL OR attachment_state = 'detaching') AS "leaves!"
           FROM volumes WHERE instance_id = $1 ORDER BY id FOR UPDATE"#,
        instance
    )
    .fetch_all(&mut *conn)
    .await?;
    let (leaving, staying): (Vec<_>, Vec<_>) = volumes.into_iter().partition(|volume| volume.leaves);
    let ids: Vec<_> = leaving.iter().map(|volume| volume.id).collect();
    release(conn, &ids, now).await?;
    for operation in leaving.into_iter().filter_map(|volume| volume.operation) {
        finish(conn, operation.into(), &End::Succeeded, now).await?;
    }
    Ok(staying.is_empty())
}

/// Of these instances nothing is left on their host: the volumes that were to go with them are gone, the others are
/// attached to nothing.
pub(crate) async fn complete(
    conn: &mut PgConnection,
    instances: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let removals = sqlx::query_scalar!(
        r#"SELECT removal_id AS "removal!" FROM volumes WHERE instance_id = ANY($1) AND removal_id IS NOT NULL"#,
        instances
    )
    .fetch_all(&mut *conn)
    .await?;
    layers::forget_removals(conn, &removals).await?;
    let freed = sqlx::query_scalar!("SELECT id FROM volumes WHERE instance_id = ANY($1)", instances)
        .fetch_all(&mut *conn)
        .await?;
    release(conn, &freed, now).await
}
