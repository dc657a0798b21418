//! SQL of volumes in instances.

use protocol::InstanceId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::disks::MAX_DISKS;
use super::NewAttachment;
use crate::auth::{Action, Allowed, InProject};
use crate::http::{ApiError, ErrorCode, FieldError, Selector};
use crate::pools::store::Named;
use crate::volumes::AttachmentState;

/// A volume that is attached to nothing, locked.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub id: Uuid,
    pub name: String,
    pub host_id: Option<Uuid>,
    pub pool: Option<Named>,
    /// What it was made from, and for which architecture that is.
    pub image: Option<(Uuid, String)>,
}

/// The body names a volume that is not there.
pub(crate) fn no_volume(pointer: &str) -> ApiError {
    let message = "this project has no such volume";
    ApiError::invalid(vec![FieldError::new(format!("{pointer}/volume"), "not_found", message)])
}

/// Locks volumes by name or id, in one order, and refuses those that cannot be attached. Each comes with the place in
/// the body that names it.
pub(crate) async fn take<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    named: &[(&str, &str)],
) -> Result<Vec<Taken>, ApiError> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = named.iter().map(|(name, _)| (*name).to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT v.id, v.name, v.host_id, v.pool_id, p.name AS "pool_name?", v.image_id,
                  m.architecture AS "architecture?", v.attachment_state, v.deletion_requested_at
           FROM volumes v LEFT JOIN images m ON m.id = v.image_id LEFT JOIN pools p ON p.id = v.pool_id
           WHERE v.project_id = $1 AND (v.name = ANY($2) OR v.id::text = ANY($2)) ORDER BY v.id FOR UPDATE OF v"#,
        allowed.project().as_uuid(),
        &names
    )
    .fetch_all(conn)
    .await?;
    let mut taken: Vec<Taken> = Vec::new();
    for (name, pointer) in named {
        let found = Selector::parse(name).and_then(|selector| {
            rows.iter().find(|row| selector.id() == Some(row.id) || selector.name() == Some(&row.name))
        });
        let row = found.ok_or_else(|| no_volume(pointer))?;
        if taken.iter().any(|one| one.id == row.id) {
            let field = FieldError::new(format!("{pointer}/volume"), "duplicate", "a volume is one disk");
            return Err(ApiError::invalid(vec![field]));
        }
        let refused = match row.attachment_state.as_deref().map(AttachmentState::parse) {
            _ if row.deletion_requested_at.is_some() => Some((ErrorCode::WrongState, "is being deleted")),
            Some(AttachmentState::Detaching) => {
                Some((ErrorCode::InUse, "is being detached; wait until its guest has let go of it"))
            }
            Some(_) => Some((ErrorCode::InUse, "is attached to an instance; detach it there first")),
            None => None,
        };
        if let Some((code, why)) = refused {
            return Err(ApiError::because(code, format!("the volume {} {why}", row.name)));
        }
        let image = row.image_id.zip(row.architecture.clone());
        let pool = row.pool_id.zip(row.pool_name.clone()).map(|(id, name)| Named { id, name });
        taken.push(Taken { id: row.id, name: row.name.clone(), host_id: row.host_id, pool, image });
    }
    Ok(taken)
}

/// Where an instance is, and what it has.
pub(crate) struct Place {
    pub host: Option<Uuid>,
    /// The host of volumes that it has.
    volumes_on: Option<Uuid>,
    positions: Vec<i32>,
}

impl Place {
    /// Where volumes have to be that it gets.
    pub(crate) fn home(&self) -> Option<Uuid> {
        self.host.or(self.volumes_on)
    }

    /// For further disks; the first place is for the one that it boots from.
    pub(crate) fn free_positions(&self) -> Vec<i32> {
        let all = 1..i32::try_from(MAX_DISKS).unwrap_or(i32::MAX);
        all.filter(|position| !self.positions.contains(position)).collect()
    }
}

pub(crate) async fn place_of(conn: &mut PgConnection, instance: InstanceId) -> Result<Place, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT host_id, (SELECT v.host_id FROM volumes v
                            WHERE v.instance_id = i.id AND v.host_id IS NOT NULL LIMIT 1) AS volumes_on,
                  ARRAY(SELECT v.position FROM volumes v WHERE v.instance_id = i.id) AS "positions!"
           FROM instances i WHERE id = $1"#,
        instance.as_uuid()
    )
    .fetch_one(conn)
    .await?;
    Ok(Place { host: row.host_id, volumes_on: row.volumes_on, positions: row.positions })
}

/// Attaches a volume. Its next report counts only when it comes from there.
pub(crate) async fn plug(
    conn: &mut PgConnection,
    volume: Uuid,
    at: NewAttachment,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE volumes SET instance_id = $2, position = $3, delete_with_instance = $4, updated_at = $5,
                            attachment_state = 'attaching', spec_generation = spec_generation + 1
         WHERE id = $1",
        volume,
        at.instance.as_uuid(),
        at.position,
        at.delete_with_instance,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts those of the instance's volumes that are on no host on this one.
pub(crate) async fn place(
    conn: &mut PgConnection,
    instance: InstanceId,
    host: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT place_volumes($1, $2)", instance.as_uuid(), host).execute(conn).await?;
    Ok(())
}

/// Locks all volumes of an instance. Names one that is not in a shared pool, if there is such a one.
pub(crate) async fn lock_all_shared(
    conn: &mut PgConnection,
    instance: Uuid,
) -> Result<Option<String>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT name, pool_id FROM volumes WHERE instance_id = $1 ORDER BY id FOR UPDATE",
        instance
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().find(|row| row.pool_id.is_none()).map(|row| row.name))
}

/// Names a volume of the instance, all of which are locked, of which the host has still to merge layers, or has merged some
/// and that is not taken in.
pub(crate) async fn merging(conn: &mut PgConnection, instance: Uuid) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT name FROM volumes
         WHERE instance_id = $1
           AND EXISTS (SELECT FROM layers WHERE id = ANY (chain_of(layer_id)) AND parent_merge IS NOT NULL)
         ORDER BY id LIMIT 1",
        instance
    )
    .fetch_optional(conn)
    .await
}

/// A volume of an instance, locked.
pub(crate) struct Attached {
    pub id: Uuid,
    pub position: i32,
    pub state: AttachmentState,
    /// Whether it is in a shared pool.
    pub shared: bool,
}

/// Finds a volume of the instance.
pub(crate) async fn find_attached<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    instance: Uuid,
    volume: &str,
) -> Result<Attached, ApiError> {
    let missing = || {
        let message = "this instance has no such volume";
        ApiError::invalid(vec![FieldError::new("/volume", "not_found", message)])
    };
    let selector = Selector::parse(volume).ok_or_else(missing)?;
    let row = sqlx::query!(
        r#"SELECT id, position AS "position!", attachment_state AS "attachment_state!",
                  pool_id IS NOT NULL AS "shared!" FROM volumes
           WHERE project_id = $1 AND instance_id = $2 AND (id = $3 OR name = $4) FOR UPDATE"#,
        allowed.project().as_uuid(),
        instance,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(missing)?;
    let state = AttachmentState::parse(&row.attachment_state);
    Ok(Attached { id: row.id, position: row.position, state, shared: row.shared })
}

/// The guest is to let go of a volume, which then stays whatever becomes of the instance.
pub(crate) async fn leave(
    conn: &mut PgConnection,
    volume: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE volumes SET attachment_state = 'detaching', delete_with_instance = false, updated_at = $2
         WHERE id = $1",
        volume,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The volumes are attached to nothing any more.
pub(crate) async fn release(
    conn: &mut PgConnection,
    volumes: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT release_volumes($1, $2)", volumes, now).execute(conn).await?;
    Ok(())
}
