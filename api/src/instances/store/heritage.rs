//! SQL of what an instance has from the snapshot, the instance or the volume that it is made from, as far as policies ask
//! for it.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::{Action, Allowed, Fact, InProject, keys};
use crate::http::Selector;
use crate::images::ImageRow;
use crate::instances::CustomSize;

/// Empty for an instance that is made from none of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::instances) struct Heritage {
    pub instance_type_id: Option<Uuid>,
    /// Its size, of an instance.
    vcpus: Option<i32>,
    memory_mib: Option<i32>,
    image_id: Option<Uuid>,
    /// What policies call the image: with the name of its project if that is another one.
    image: Option<String>,
    image_project: Option<String>,
    root_disk_gib: Option<i32>,
    /// The shared pool that the volume is in that it boots from.
    root_pool: Option<String>,
}

impl Heritage {
    /// The same from another image, which policies call like that.
    pub(in crate::instances) fn with_image(self, image: &ImageRow, called: String) -> Self {
        Self {
            image_id: Some(image.id),
            image: Some(called),
            image_project: Some(image.project_name.clone()),
            ..self
        }
    }

    /// What it has in place of its type's size.
    pub(in crate::instances) fn size(&self) -> CustomSize {
        match (self.vcpus, self.memory_mib) {
            (Some(vcpus), Some(memory_mib)) => CustomSize::of(vcpus, memory_mib),
            _ => CustomSize::default(),
        }
    }

    /// All but those of its type and size.
    pub(in crate::instances) fn facts(&self) -> Vec<(&'static str, Fact<'_>)> {
        let texts = [
            (keys::IMAGE, &self.image),
            (keys::IMAGE_PROJECT, &self.image_project),
            (keys::ROOT_POOL, &self.root_pool),
        ];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, Fact::Text(text.as_deref()?))));
        let image = self.image_id.map(|id| (keys::IMAGE_ID, Fact::Id(id)));
        let size = self.root_disk_gib.map(|size| (keys::ROOT_DISK_GIB, Fact::Number(size.into())));
        texts.chain(image).chain(size).collect()
    }
}

pub(in crate::instances) async fn of_snapshot<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    snapshot: &Selector,
) -> Result<Heritage, sqlx::Error> {
    let found = sqlx::query_as!(
        Heritage,
        r#"SELECT s.instance_type_id, NULL::int AS vcpus, NULL::int AS memory_mib, s.image_id,
                  r.size_gib AS "root_disk_gib?", p.name AS "root_pool?",
                  CASE WHEN m.project_id = s.project_id THEN m.name ELSE o.name || '/' || m.name END AS image,
                  o.name AS "image_project?"
           FROM snapshots s
           LEFT JOIN snapshot_volumes r ON r.snapshot_id = s.id AND r.position = 0
           LEFT JOIN layers l ON l.id = r.layer_id
           LEFT JOIN pools p ON p.id = l.pool_id
           LEFT JOIN images m ON m.id = s.image_id
           LEFT JOIN projects o ON o.id = m.project_id
           WHERE s.project_id = $1 AND (s.id = $2 OR s.name = $3)"#,
        allowed.project().as_uuid(),
        snapshot.id(),
        snapshot.name()
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.unwrap_or_default())
}

pub(in crate::instances) async fn of_instance<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    instance: &Selector,
) -> Result<Heritage, sqlx::Error> {
    let found = sqlx::query_as!(
        Heritage,
        r#"SELECT i.instance_type_id AS "instance_type_id?", i.vcpus AS "vcpus?", i.memory_mib AS "memory_mib?",
                  i.image_id AS "image_id?", v.size_gib AS "root_disk_gib?", p.name AS "root_pool?",
                  CASE WHEN m.project_id = i.project_id THEN m.name ELSE o.name || '/' || m.name END AS image,
                  o.name AS "image_project?"
           FROM instances i
           LEFT JOIN volumes v ON v.instance_id = i.id AND v.position = 0
           LEFT JOIN pools p ON p.id = v.pool_id
           LEFT JOIN images m ON m.id = i.image_id
           LEFT JOIN projects o ON o.id = m.project_id
           WHERE i.project_id = $1 AND (i.id = $2 OR i.name = $3)"#,
        allowed.project().as_uuid(),
        instance.id(),
        instance.name()
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.unwrap_or_default())
}

/// Of a volume that an instance boots from.
pub(in crate::instances) async fn of_volume<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    volume: &Selector,
) -> Result<Heritage, sqlx::Error> {
    let found = sqlx::query_as!(
        Heritage,
        r#"SELECT NULL::uuid AS instance_type_id, NULL::int AS vcpus, NULL::int AS memory_mib, v.image_id,
                  v.size_gib AS "root_disk_gib?", p.name AS "root_pool?",
                  CASE WHEN m.project_id = v.project_id THEN m.name ELSE o.name || '/' || m.name END AS image,
                  o.name AS "image_project?"
           FROM volumes v
           LEFT JOIN pools p ON p.id = v.pool_id
           LEFT JOIN images m ON m.id = v.image_id
           LEFT JOIN projects o ON o.id = m.project_id
           WHERE v.project_id = $1 AND (v.id = $2 OR v.name = $3)"#,
        allowed.project().as_uuid(),
        volume.id(),
        volume.name()
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.unwrap_or_default())
}
