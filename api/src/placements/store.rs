//! SQL of questions about placement.

use std::collections::BTreeMap;

use protocol::agent::{Architecture, GuestHardware};
use protocol::{HostId, InstanceId};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::auth::{Allowed, actions};
use crate::http::Labels;
use crate::instance_types::features_of;
use crate::instances::Reference;
use crate::placement_groups::store::rule;
use crate::scheduler::capacity::Placed;
use crate::scheduler::{Group, Needs, Request, Size};

/// An instance of any project, with where it is.
pub(super) struct Found {
    pub instance: Reference,
    pub project: Reference,
    pub host: Option<HostId>,
}

pub(super) async fn find(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ExplainPlacement>,
    id: InstanceId,
) -> Result<Option<Found>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT i.id, i.name, i.host_id, p.id AS project_id, p.name AS project_name
         FROM instances i JOIN projects p ON p.id = i.project_id WHERE i.id = $1",
        id.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Found {
        instance: Reference { id: row.id, name: row.name },
        project: Reference { id: row.project_id, name: row.project_name },
        host: row.host_id.map(HostId::from),
    }))
}

/// The names of all hosts.
pub(super) async fn host_names(conn: &mut PgConnection) -> Result<BTreeMap<HostId, String>, sqlx::Error> {
    let rows = sqlx::query!("SELECT id, name FROM hosts").fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.name)).collect())
}

/// An instance that has a host, and whether nothing of it is on the host's own disk.
pub(super) struct OnHost {
    pub placed: Placed,
    pub shared: bool,
}

/// Every instance that has a host, with what it would ask of another one: room for the disks that it has here, too.
pub(super) async fn placed(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::GetCapacity>,
) -> Result<Vec<OnHost>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT i.host_id AS "host_id!", i.architecture, i.vcpus_held AS "vcpus!",
                  i.memory_mib_held AS "memory_mib!", t.name AS type_name,
                  t.hardware AS "hardware: Json<GuestHardware>",
                  t.host_labels AS "host_labels: Json<Labels>", t.tolerations,
                  (SELECT coalesce(sum(v.size_gib), 0)::integer FROM volumes v
                   WHERE v.instance_id = i.id AND v.pool_id IS NULL) AS "disk_gib!",
                  ARRAY(SELECT DISTINCT v.pool_id FROM volumes v
                        WHERE v.instance_id = i.id AND v.pool_id IS NOT NULL) AS "pools!: Vec<Uuid>",
                  i.on_host_failure = 'restart' AS "needs_guard!",
                  g.id AS "group_id?", g.name AS "group_name?", g.policy AS "policy?", g.strength AS "strength?",
                  g.scope AS "scope?"
           FROM instances i JOIN instance_types t ON t.id = i.instance_type_id
           LEFT JOIN placement_groups g ON g.id = i.placement_group_id
           WHERE i.host_id IS NOT NULL AND i.deletion_requested_at IS NULL ORDER BY i.id"#
    )
    .fetch_all(conn)
    .await?;
    let mut groups = BTreeMap::<Uuid, Vec<HostId>>::new();
    for row in &rows {
        if let Some(group) = row.group_id {
            groups.entry(group).or_default().push(row.host_id.into());
        }
    }
    let placed = rows.into_iter().filter_map(|row| {
        let host = HostId::from(row.host_id);
        let group = row.group_id.zip(row.group_name).map(|(id, name)| {
            let text = |column: Option<String>| column.unwrap_or_default();
            let mut members = groups.get(&id).cloned().unwrap_or_default();
            if let Some(own) = members.iter().position(|member| *member == host) {
                members.remove(own);
            }
            Group { id, name, rule: rule(&text(row.policy), &text(row.strength), &text(row.scope)), members }
        });
        let size = Size { vcpus: row.vcpus, memory_mib: row.memory_mib, disk_gib: row.disk_gib };
        let request = Request {
            architecture: Architecture::from_name(&row.architecture)?,
            size,
            least: size,
            root_disk_gib: 0,
            type_name: row.type_name,
            needs: Needs {
                features: features_of(&row.hardware.0),
                host_labels: row.host_labels.0,
                tolerations: row.tolerations,
            },
            group,
            volumes_on: None,
            pools: row.pools.into_iter().map(Into::into).collect(),
            needs_guard: row.needs_guard,
            leaving: Vec::new(),
            left: None,
            image_on: Vec::new(),
        };
        Some(OnHost { placed: Placed { host, request }, shared: row.disk_gib == 0 })
    });
    Ok(placed.collect())
}
