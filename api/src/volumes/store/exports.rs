//! SQL of volumes that become images.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::{Action, Allowed, InProject};
use crate::http::Selector;

/// A volume, locked.
#[derive(Debug)]
pub(crate) struct Exported {
    pub id: Uuid,
    pub name: String,
    pub host_id: Option<Uuid>,
    /// The shared pool that it is in.
    pub pool_id: Option<Uuid>,
    pub size_gib: i32,
    pub image_id: Option<Uuid>,
    pub instance_id: Option<Uuid>,
    pub position: Option<i32>,
    pub is_detaching: bool,
    pub deletion_requested: bool,
    /// Of its chain.
    pub layers: i32,
}

/// A volume of the project.
pub(crate) async fn lock<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Exported>, sqlx::Error> {
    sqlx::query_as!(
        Exported,
        r#"SELECT id, name, host_id, pool_id, size_gib, image_id, instance_id, position,
                  coalesce(attachment_state = 'detaching', false) AS "is_detaching!",
                  deletion_requested_at IS NOT NULL AS "deletion_requested!",
                  cardinality(chain_of(layer_id)) AS "layers!"
           FROM volumes WHERE project_id = $1 AND (id = $2 OR name = $3) FOR UPDATE"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// The volume that an instance of the project, which is locked, boots from.
pub(crate) async fn lock_root<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    instance: &Selector,
) -> Result<Option<Exported>, sqlx::Error> {
    let root = sqlx::query_scalar!(
        "SELECT v.id FROM volumes v JOIN instances i ON i.id = v.instance_id
         WHERE i.project_id = $1 AND (i.id = $2 OR i.name = $3) AND v.position = 0",
        allowed.project().as_uuid(),
        instance.id(),
        instance.name()
    )
    .fetch_optional(&mut *conn)
    .await?;
    match root {
        Some(root) => lock(conn, allowed, &Selector::Id(root)).await,
        None => Ok(None),
    }
}
