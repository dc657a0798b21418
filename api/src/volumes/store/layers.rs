//! SQL of layers: how they come, become one and go. What that does to the structure is in the functions of
//! `migrations/0022_snapshots.sql`.

use protocol::{HostId, LayerId, VolumeId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::http::{ApiError, ErrorCode};
use crate::nudge::{self, Topic};

/// Gives up layers. What nobody needs any more goes with them; hosts that have files of it are told.
pub(crate) async fn give_up(
    conn: &mut PgConnection,
    layers: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let hosts = sqlx::query_scalar!("SELECT host FROM remove_layers($1, $2)", layers, now)
        .fetch_all(&mut *conn)
        .await?;
    // What stands alone on something spare may become one with it.
    nudge::send(conn, Topic::Merges).await?;
    tell(conn, hosts).await
}

/// Wakes hosts. What is in a shared pool that no host has now is for none of them.
async fn tell(conn: &mut PgConnection, hosts: Vec<Option<Uuid>>) -> Result<(), sqlx::Error> {
    let topics: Vec<_> = hosts.into_iter().flatten().map(|host| Topic::Host(host.into())).collect();
    nudge::send_all(conn, &topics).await
}

/// When the host of a volume that is to go removes its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Now,
    /// With the end of the instance that has it.
    WithInstance,
}

/// Lets a volume go whose data is on a host or in a shared pool. Its row goes when a host has removed the files.
pub(crate) async fn remove_volume(
    conn: &mut PgConnection,
    volume: Uuid,
    told: Told,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let removed = sqlx::query!(
        r#"SELECT r.removal AS "removal!", r.host
           FROM volumes v CROSS JOIN LATERAL remove_layers(ARRAY[v.layer_id], $2, $3) r WHERE v.id = $1"#,
        volume,
        now,
        told == Told::Now
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE volumes SET deletion_requested_at = $2, removal_id = $3, generation = generation + 1,
                            updated_at = $2
         WHERE id = $1",
        volume,
        now,
        removed.removal
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Merges).await?;
    if told == Told::Now { tell(conn, vec![removed.host]).await } else { Ok(()) }
}

/// The end of a volume of which no host has anything.
pub(crate) async fn forget_volume(
    conn: &mut PgConnection,
    volume: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let layer = sqlx::query_scalar!(
        "DELETE FROM volumes WHERE id = $1 AND host_id IS NULL AND pool_id IS NULL RETURNING layer_id",
        volume
    )
    .fetch_one(&mut *conn)
    .await?;
    give_up(conn, &[layer], now).await
}

/// The files that these orders name are gone, and with them the volumes that they were of.
pub(crate) async fn forget_removals(conn: &mut PgConnection, done: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT forget_removals($1)", done).execute(&mut *conn).await?;
    // Now something may stand alone on a layer.
    nudge::send(conn, Topic::Merges).await
}

/// Gives a volume a new layer to write to, and returns the one below it, to which nobody writes from now on. An
/// instance that has the volume has to hear of it.
pub(crate) async fn cover(
    conn: &mut PgConnection,
    volume: Uuid,
    new: LayerId,
    now: OffsetDateTime,
) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT cover_layer($1, $2, $3) AS "layer!""#, volume, new.as_uuid(), now)
        .fetch_one(conn)
        .await
}

/// A volume in the chain of which something should be merged.
pub(crate) struct ToMerge {
    pub volume: Uuid,
    pub instance: Uuid,
}

pub(crate) async fn to_merge(conn: &mut PgConnection) -> Result<Vec<ToMerge>, sqlx::Error> {
    sqlx::query_as!(
        ToMerge,
        r#"SELECT volume AS "volume!", instance AS "instance!" FROM volumes_to_merge() ORDER BY volume"#
    )
    .fetch_all(conn)
    .await
}

/// Asks for the next merge in the chain of a volume, which is locked with its instance; false when there is none. The
/// instance has to hear of it.
pub(crate) async fn plan_merge(
    conn: &mut PgConnection,
    of: &ToMerge,
    new: LayerId,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT plan_merge($1, $2, $3, $4) AS "planned!""#,
        of.volume,
        of.instance,
        new.as_uuid(),
        now
    )
    .fetch_one(conn)
    .await
}

/// Takes merges back that nobody will carry out, because their volume has left the chain.
pub(crate) async fn take_back_merges(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT take_back_merges()").execute(conn).await?;
    Ok(())
}

/// Refuses to begin something on a layer, which is locked or below a volume that is, while a host merges what is below. What
/// `own` itself was asked for does not count.
pub(crate) async fn refuse_merging(
    conn: &mut PgConnection,
    layer: Uuid,
    own: Option<Uuid>,
) -> Result<(), ApiError> {
    let merging = sqlx::query_scalar!(r#"SELECT merging_below($1, $2) AS "merging!""#, layer, own)
        .fetch_one(conn)
        .await?;
    if !merging {
        return Ok(());
    }
    let detail = "a host is merging layers below this data; try again when it has";
    Err(ApiError::because(ErrorCode::WrongState, detail).retry_after(5))
}

/// Layers of which a host has said that they stand on what was below their parent.
pub(crate) async fn merged(conn: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("SELECT id FROM layers WHERE parent_merge = 'done' ORDER BY id").fetch_all(conn).await
}

/// The instances and volumes that stand on a layer, in their order.
pub(crate) async fn above(
    conn: &mut PgConnection,
    layer: Uuid,
) -> Result<(Vec<Uuid>, Vec<Uuid>), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT coalesce(array_agg(DISTINCT v.instance_id) FILTER (WHERE v.instance_id IS NOT NULL), '{}')
                      AS "instances!",
                  coalesce(array_agg(v.id), '{}') AS "volumes!"
           FROM volumes v WHERE v.id IN (SELECT volumes_above($1))"#,
        layer
    )
    .fetch_one(conn)
    .await?;
    let (mut instances, mut volumes) = (row.instances, row.volumes);
    instances.sort_unstable();
    volumes.sort_unstable();
    Ok((instances, volumes))
}

/// Takes a merge in that a host has carried out. What stands on the layer is locked.
pub(crate) async fn finish_merge(
    conn: &mut PgConnection,
    layer: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let hosts = sqlx::query_scalar!("SELECT host FROM finish_merge($1, $2)", layer, now)
        .fetch_all(&mut *conn)
        .await?;
    tell(conn, hosts).await
}

/// Locks volumes, in their order.
pub(crate) async fn lock_volumes(conn: &mut PgConnection, volumes: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT FROM volumes WHERE id = ANY($1) ORDER BY id FOR UPDATE", volumes)
        .execute(conn)
        .await?;
    Ok(())
}

/// What a host reports of a volume of one of its instances: these layers are merged into those below.
pub(crate) struct Merged {
    pub instance: Uuid,
    pub volume: VolumeId,
    pub layers: Vec<LayerId>,
}

/// Notes what was merged, as far as it was asked for in the chain of this volume on this host. The rest means nothing.
pub(crate) async fn note_merged(
    conn: &mut PgConnection,
    host: HostId,
    said: &[Merged],
) -> Result<(), sqlx::Error> {
    for one in said {
        let layers: Vec<_> = one.layers.iter().map(|layer| layer.as_uuid()).collect();
        let noted = sqlx::query!(
            "UPDATE layers SET parent_merge = 'done'
             WHERE parent_merge = 'asked' AND merge_of = $3 AND parent_id = ANY($4) AND id IN (
                 SELECT unnest(chain_of(v.layer_id)) FROM volumes v JOIN instances i ON i.id = v.instance_id
                 WHERE v.id = $3 AND i.id = $2 AND i.host_id = $1)",
            host.as_uuid(),
            one.instance,
            one.volume.as_uuid(),
            &layers
        )
        .execute(&mut *conn)
        .await?;
        if noted.rows_affected() > 0 {
            nudge::send(conn, Topic::Merges).await?;
        }
    }
    Ok(())
}
