//! SQL of clones of a whole instance: what its volumes hold now, for new ones.

use protocol::{HostId, ProjectId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::taking::{Sealed, Source, Taken, refuse_taking, volumes};
use crate::clock::Clock;
use crate::http::{ApiError, ErrorCode};
use crate::instances::store::guests::{self, Activity};
use crate::quotas;
use crate::volumes::store::layers;

/// What a volume of an instance holds now.
pub(crate) struct Copied {
    pub position: i32,
    pub sealed: Sealed,
    pub volume: Uuid,
    /// The generation of the volume from which on nobody writes to that.
    pub spec_generation: i64,
}

/// Seals all volumes of an instance, which is locked, at one instant. Where its guest runs, its host has to make that so
/// first: the flag says whether there is something to wait for.
///
/// # Errors
/// `wrong_state` while the guest is on its way, or its host merges layers.
pub(crate) async fn seal(
    conn: &mut PgConnection,
    project: ProjectId,
    instance: Uuid,
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<(Vec<Copied>, bool), ApiError> {
    refuse_taking(conn, instance).await?;
    let guest = guests::find(conn, instance).await?;
    if guest.deleting || guest.activity == Activity::Unclear {
        let detail = format!(
            "the guest of {} is on its way up or down, or paused; try again when it runs or is stopped",
            guest.name
        );
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let taken = volumes(conn, Source::Instance(instance)).await?;
    taken.iter().try_for_each(Taken::check)?;
    for volume in &taken {
        layers::refuse_merging(conn, volume.layer_id, None).await?;
    }
    // Before its host is told.
    quotas::store::lock(conn, project).await?;
    let mut copied = Vec::new();
    for volume in taken {
        let layer = layers::cover(conn, volume.id, clock.new_id(), now).await?;
        let row = sqlx::query!(
            r#"SELECT l.host_id AS "host_id?", l.pool_id AS "pool_id?", v.spec_generation
               FROM layers l, volumes v WHERE l.id = $1 AND v.id = $2"#,
            layer,
            volume.id
        )
        .fetch_one(&mut *conn)
        .await?;
        copied.push(Copied {
            position: volume.position.unwrap_or_default(),
            sealed: Sealed {
                layer,
                host: row.host_id.map(HostId::from),
                pool: row.pool_id,
                size_gib: volume.size_gib,
                image: volume.image_id,
            },
            volume: volume.id,
            spec_generation: row.spec_generation,
        });
    }
    copied.sort_by_key(|one| one.position);
    guests::renew(conn, instance, now).await?;
    Ok((copied, guest.activity == Activity::Running))
}

/// Lets a clone wait until nobody writes any more to what its volumes stand on.
pub(crate) async fn wait_for(
    conn: &mut PgConnection,
    clone: Uuid,
    copied: &[(Uuid, i64)],
) -> Result<(), sqlx::Error> {
    for (volume, spec_generation) in copied {
        sqlx::query!(
            "INSERT INTO cloned_volumes (instance_id, volume_id, spec_generation) VALUES ($1, $2, $3)",
            clone,
            volume,
            spec_generation
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
