//! SQL of what is made of snapshots: volumes that go back to them, and new ones.

use protocol::{HostId, LayerId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::model::changed_hardware;
use super::super::types::SnapshotVolume;
use super::Row;
use super::taking::Sealed;
use crate::clock::Clock;
use crate::http::{ApiError, ErrorCode, FieldError, Selector};
use crate::instances::store::guests::{self, Activity};
use crate::volumes::AttachmentState;
use crate::volumes::store::layers;

/// The volume in the snapshot that a body names, or the only one. `pointer` is where the name stands in the body.
pub(crate) fn choose<'a>(
    snapshot: &'a Row,
    volume: Option<&str>,
    pointer: &str,
) -> Result<&'a SnapshotVolume, ApiError> {
    let volumes = &snapshot.volumes.0;
    let invalid = |code, message: &str| ApiError::invalid(vec![FieldError::new(pointer, code, message)]);
    match (volume, volumes.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(invalid("missing", "the snapshot has several volumes; name one")),
        (Some(volume), _) => {
            let selector = Selector::parse(volume);
            let found = selector.and_then(|selector| {
                volumes.iter().find(|one| {
                    one.id.is_some() && one.id == selector.id() || Some(one.name.as_str()) == selector.name()
                })
            });
            found.ok_or_else(|| invalid("not_found", "the snapshot has no such volume"))
        }
    }
}

/// What the snapshot, which is locked, holds of a volume. Neither a merge nor its way to a host moves it before the
/// transaction ends.
///
/// # Errors
/// `wrong_state` while a host merges something below it, except for the volume `own`.
pub(crate) async fn sealed(
    conn: &mut PgConnection,
    snapshot: Uuid,
    position: i32,
    own: Option<Uuid>,
) -> Result<Sealed, ApiError> {
    sqlx::query!(
        "SELECT FROM snapshot_volumes WHERE snapshot_id = $1 AND position = $2 FOR SHARE",
        snapshot,
        position
    )
    .execute(&mut *conn)
    .await?;
    let row = sqlx::query!(
        r#"SELECT l.id AS layer, l.host_id AS "host?", l.pool_id AS "pool?", s.size_gib, s.image_id
           FROM snapshot_volumes s JOIN layers l ON l.id = s.layer_id
           WHERE s.snapshot_id = $1 AND s.position = $2 FOR SHARE OF l"#,
        snapshot,
        position
    )
    .fetch_one(&mut *conn)
    .await?;
    layers::refuse_merging(conn, row.layer, own).await?;
    Ok(Sealed {
        layer: row.layer,
        host: row.host.map(HostId::from),
        pool: row.pool,
        size_gib: row.size_gib,
        image: row.image_id,
    })
}

/// The name of the shared pool in which the snapshot has what it holds of a volume.
pub(crate) async fn pool(
    conn: &mut PgConnection,
    snapshot: Uuid,
    position: i32,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT p.name FROM snapshot_volumes s JOIN layers l ON l.id = s.layer_id JOIN pools p ON p.id = l.pool_id
         WHERE s.snapshot_id = $1 AND s.position = $2",
        snapshot,
        position
    )
    .fetch_optional(conn)
    .await
}

/// Locks the volumes that a snapshot shows, with the instances that have them. Called before anything is decided, so it
/// tells nothing but which.
pub(crate) async fn lock_shown(
    conn: &mut PgConnection,
    project: &str,
    snapshot: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let (Some(project), Some(snapshot)) = (Selector::parse(project), Selector::parse(snapshot)) else {
        return Ok(Vec::new());
    };
    let instances = sqlx::query_scalar!(
        "SELECT i.id FROM instances i WHERE i.id IN (
             SELECT v.instance_id FROM snapshots s
             JOIN projects p ON p.id = s.project_id
             JOIN snapshot_volumes sv ON sv.snapshot_id = s.id
             JOIN volumes v ON v.id = sv.volume_id
             WHERE (p.id = $1 OR p.name = $2) AND (s.id = $3 OR s.name = $4))
         ORDER BY i.id FOR UPDATE",
        project.id(),
        project.name(),
        snapshot.id(),
        snapshot.name()
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        "SELECT FROM volumes WHERE id IN (
             SELECT sv.volume_id FROM snapshots s
             JOIN projects p ON p.id = s.project_id
             JOIN snapshot_volumes sv ON sv.snapshot_id = s.id
             WHERE (p.id = $1 OR p.name = $2) AND (s.id = $3 OR s.name = $4))
         ORDER BY id FOR UPDATE",
        project.id(),
        project.name(),
        snapshot.id(),
        snapshot.name()
    )
    .execute(conn)
    .await?;
    Ok(instances)
}

/// A volume that goes back.
struct Back {
    name: String,
    layer_id: Uuid,
    instance_id: Option<Uuid>,
    attachment_state: Option<String>,
    deleting: bool,
}

/// Puts a volume back to what a snapshot holds of it. Both are locked, and `locked` are the instances that are. Returns
/// the layer that is to be given up, and the instance that has to hear of it.
pub(crate) async fn put_back(
    conn: &mut PgConnection,
    snapshot: Uuid,
    shown: &SnapshotVolume,
    locked: &[Uuid],
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<(Uuid, Option<Uuid>), ApiError> {
    let gone = || {
        let detail = format!("the volume {} is gone; make a new one from the snapshot", shown.name);
        ApiError::because(ErrorCode::WrongState, detail)
    };
    let id = shown.id.ok_or_else(gone)?;
    let volume = sqlx::query_as!(
        Back,
        r#"SELECT name, layer_id, instance_id, attachment_state, removal_id IS NOT NULL AS "deleting!"
           FROM volumes WHERE id = $1"#,
        id
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(gone)?;
    volume.check()?;
    if let Some(instance) = volume.instance_id {
        if !locked.contains(&instance) {
            // Attached a moment ago.
            return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
        }
        super::taking::refuse_taking(conn, instance).await?;
        let guest = guests::find(conn, instance).await?;
        if guest.activity != Activity::Off {
            let (name, advice) = (&guest.name, guest.until_off());
            let detail = format!("the instance {name} may be writing to {}; {advice}", volume.name);
            return Err(ApiError::because(ErrorCode::WrongState, detail));
        }
    }
    let held = sealed(conn, snapshot, shown.position, Some(id)).await?;
    let top: LayerId = clock.new_id();
    sqlx::query!(
        "INSERT INTO layers (id, host_id, pool_id, parent_id, created_at) VALUES ($1, $2, $3, $4, $5)",
        top.as_uuid(),
        held.host.map(HostId::as_uuid),
        held.pool,
        held.layer,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE volumes SET layer_id = $2, spec_generation = spec_generation + 1, generation = generation + 1,
                            updated_at = $3
         WHERE id = $1",
        id,
        top.as_uuid(),
        now
    )
    .execute(&mut *conn)
    .await?;
    Ok((volume.layer_id, volume.instance_id))
}

impl Back {
    fn check(&self) -> Result<(), ApiError> {
        let leaving =
            self.attachment_state.as_deref().map(AttachmentState::parse) == Some(AttachmentState::Detaching);
        let why = match (self.deleting, leaving) {
            (true, _) => "is being deleted",
            (_, true) => "is being detached; wait until its guest has let go of it",
            _ => return Ok(()),
        };
        Err(ApiError::because(ErrorCode::WrongState, format!("the volume {} {why}", self.name)))
    }
}

/// The instance that goes on from the memory of a snapshot, of which all volumes went back. It is the one that is locked.
pub(crate) async fn resumed(
    conn: &mut PgConnection,
    snapshot: &Row,
    locked: &[Uuid],
) -> Result<Uuid, ApiError> {
    let refuse = |why: String| {
        let detail = format!(
            "its memory does not fit any more: {why}; restore it with `memory` set to false, and boot from the disks"
        );
        ApiError::because(ErrorCode::WrongState, detail)
    };
    let instance = snapshot.instance_id.filter(|instance| locked.contains(instance));
    let instance = instance.ok_or_else(|| refuse("its instance is gone, or has other volumes".to_owned()))?;
    let hardware = sqlx::query!(
        r#"SELECT hardware AS "then!", instance_hardware($2) AS "now!" FROM snapshots WHERE id = $1"#,
        snapshot.id,
        instance
    )
    .fetch_one(conn)
    .await?;
    let changed = changed_hardware(&hardware.then, &hardware.now);
    if changed.is_empty() {
        return Ok(instance);
    }
    Err(refuse(format!("{} changed since", changed.join(" and "))))
}
