//! SQL of instances that go to another host with what is on the disk of theirs: see `migrations/0052_moving_disks.sql` and
//! `migrations/0055_live_disks.sql`.

use std::net::{IpAddr, SocketAddr};

use protocol::agent::{CopiedLayer, DesiredBody, DesiredObject};
use protocol::{HostId, InstanceId, LayerId, Revision};
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::migrations::{Migration, New};
use super::placement;
use crate::hosts;
use crate::nudge::{self, Topic};
use crate::scheduler::Request;
use crate::volumes::store::hosts::ImageRow;

/// An operation has so much more time than what it waits for.
const LONGER: Duration = Duration::minutes(5);

/// What keeps its disks where they are, in words.
pub(in crate::instances) async fn bound_by(
    conn: &mut PgConnection,
    instance: Uuid,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("SELECT disks_bound_by($1)", instance).fetch_one(conn).await
}

/// How much of the disk of its host it has.
pub(in crate::instances) async fn gib(conn: &mut PgConnection, instance: Uuid) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(sum(size_gib), 0)::integer AS "gib!" FROM volumes WHERE instance_id = $1 AND pool_id IS NULL"#,
        instance
    )
    .fetch_one(conn)
    .await
}

/// What another host has to offer that is to take the instance with its disks. None does that has still to remove files
/// of these layers: it could not tell them from those that are to come.
pub(in crate::instances) async fn request(
    conn: &mut PgConnection,
    instance: InstanceId,
) -> Result<Option<Request>, sqlx::Error> {
    let Some(mut request) = placement::request(conn, instance).await? else { return Ok(None) };
    let leaving = sqlx::query_scalar!(
        r#"SELECT host_id AS "host!" FROM layer_removals
           WHERE copies && layers_to_copy($1) AND host_id IS NOT NULL"#,
        instance.as_uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    request.volumes_on = None;
    request.size.disk_gib = gib(conn, instance.as_uuid()).await?;
    request.least.disk_gib = request.size.disk_gib;
    request.leaving.extend(leaving.into_iter().map(HostId::from));
    Ok(Some(request))
}

/// Gives the operation of a copy as long as that has.
pub(in crate::instances) async fn allow_time(conn: &mut PgConnection, new: &New) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE operations SET deadline_at = greatest(deadline_at, $2) WHERE id = $1",
        new.operation.as_uuid(),
        new.due_at + LONGER
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes where the destination waits, and tells the source. False when that was known.
pub(in crate::instances) async fn set_ready(
    conn: &mut PgConnection,
    of: &Migration,
    address: SocketAddr,
) -> Result<bool, sqlx::Error> {
    let known = sqlx::query_scalar!(
        r#"SELECT (address, port) IS NOT DISTINCT FROM ($2::text::inet, $3) AS "known!" FROM migrations WHERE id = $1"#,
        of.id,
        address.ip().to_string(),
        i32::from(address.port())
    )
    .fetch_one(&mut *conn)
    .await?;
    if known {
        return Ok(false);
    }
    let revision = hosts::store::bump_revision(conn, of.source()).await?;
    sqlx::query!(
        "UPDATE migrations SET address = $2::text::inet, port = $3, source_revision = $4 WHERE id = $1",
        of.id,
        address.ip().to_string(),
        i32::from(address.port()),
        revision.0
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Host(of.source())).await?;
    Ok(true)
}

/// Locks the volumes of an instance, which is locked, and what they stand on. Whether they are what was copied, and nothing
/// else needs it where it is.
pub(in crate::instances) async fn is_as_it_was(
    conn: &mut PgConnection,
    of: &Migration,
) -> Result<bool, sqlx::Error> {
    sqlx::query!("SELECT FROM volumes WHERE instance_id = $1 ORDER BY id FOR UPDATE", of.instance_id)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "SELECT FROM layers WHERE id = ANY (layers_to_copy($1)) ORDER BY id FOR UPDATE",
        of.instance_id
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        r#"SELECT (layers = layers_to_copy(instance_id) AND disks_bound_by(instance_id) IS NULL) AS "same!"
           FROM migrations WHERE id = $1"#,
        of.id
    )
    .fetch_one(conn)
    .await
}

/// The destination has all but what the guest writes to: from now on both hosts are told of the guest. What they have said of
/// the files, or say late, is not of this: it has another id.
pub(in crate::instances) async fn begin_guest(
    conn: &mut PgConnection,
    of: &Migration,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let revision = hosts::store::bump_networks(conn, of.destination()).await?.unwrap_or_default();
    sqlx::query!(
        "UPDATE migrations SET id = gen_random_uuid(), received_at = $2, address = NULL, port = NULL,
                source_revision = NULL, desired_revision = $3
         WHERE id = $1",
        of.id,
        now,
        revision.0
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Host(of.destination())).await
}

/// The volumes are the destination's, and the source has to remove the files that it has of them. Both hosts are held.
pub(super) async fn change_place(
    conn: &mut PgConnection,
    of: &Migration,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let layers = sqlx::query_scalar!(r#"SELECT layers_to_copy($1) AS "layers!""#, of.instance_id)
        .fetch_one(&mut *conn)
        .await?;
    if layers.is_empty() {
        return Ok(());
    }
    sqlx::query!("SELECT rehost_volumes($1, $2)", of.instance_id, of.destination_host_id)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("SELECT remove_copies($1, $2, $3)", of.source_host_id, &layers, now).fetch_one(conn).await?;
    Ok(())
}

#[derive(Debug, Deserialize)]
struct LayerRow {
    id: LayerId,
    below: Option<LayerId>,
    size_gib: u32,
    image: Option<ImageRow>,
}

impl LayerRow {
    /// `None` when its image has no content.
    fn into_layer(self, fresh: bool) -> Option<CopiedLayer> {
        let image = match self.image {
            Some(image) => Some(image.into_source()?),
            None => None,
        };
        Some(CopiedLayer {
            id: self.id,
            below: self.below,
            image,
            size_gib: protocol::SizeGib(self.size_gib),
            fresh,
        })
    }
}

/// What the host has to take and to give, newer than the revision. INVARIANT: a host whose agent does not know of that
/// hears nothing of it.
pub(super) async fn after(
    conn: &mut PgConnection,
    host: HostId,
    after: Revision,
) -> Result<Vec<DesiredObject>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT m.id, m.instance_id, m.source_host_id, m.destination_host_id, m.layers AS "layers!", m.tops,
                  CASE WHEN m.source_host_id = $1 THEN m.source_revision ELSE m.desired_revision END AS "revision!",
                  host(m.address) AS address, m.port,
                  copied_layers(m.instance_id) AS "copied!: Json<Vec<LayerRow>>"
           FROM migrations m
           WHERE cardinality(m.layers) > 0 AND NOT m.sends_guest
             AND (m.destination_host_id = $1 AND m.desired_revision > $2
                  OR m.source_host_id = $1 AND m.source_revision > $2)
             AND (SELECT knows_disk_moves(h.inventory) FROM hosts h WHERE h.id = $1)"#,
        host.as_uuid(),
        after.0
    )
    .fetch_all(conn)
    .await?;
    let objects = rows.into_iter().filter_map(|row| {
        let (id, instance_id) = (row.id.into(), row.instance_id.into());
        let (runs, tops) = (row.tops.is_some(), row.tops.unwrap_or_default());
        let body = if row.destination_host_id == host.as_uuid() {
            let layers = row.copied.0.into_iter().map(|layer| {
                let fresh = tops.contains(&layer.id.as_uuid());
                layer.into_layer(fresh)
            });
            let layers = layers.collect::<Option<_>>()?;
            DesiredBody::TakeDisks { id, instance_id, source: row.source_host_id.into(), layers }
        } else {
            let address: IpAddr = row.address.as_deref()?.parse().ok()?;
            DesiredBody::GiveDisks {
                id,
                instance_id,
                destination: row.destination_host_id.into(),
                address: (address, u16::try_from(row.port?).ok()?).into(),
                layers: row.layers.into_iter().filter(|id| !tops.contains(id)).map(LayerId::from).collect(),
                runs,
            }
        };
        Some(DesiredObject { revision: Revision(row.revision), body })
    });
    Ok(objects.collect())
}
