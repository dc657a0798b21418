//! SQL of lists of instances: which ones, page by page, and then what there is to say of them.

use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::super::model::InstanceState;
use super::super::types::Reference;
use super::row::{NicRow, Row, VolumeRow};
use crate::auth::{Allowed, actions};
use crate::http::{LabelSelector, Labels};
use crate::scheduler::Explanation;

/// What a list asks for.
pub(in crate::instances) struct Filter<'a> {
    pub after: Uuid,
    pub name: Option<&'a str>,
    pub labels: &'a LabelSelector,
    pub state: Option<InstanceState>,
    pub rows: i64,
}

/// The ids of a project's instances.
pub(in crate::instances) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListInstances>,
    filter: &Filter<'_>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM instances
         WHERE project_id = $1 AND id > $2 AND ($3::text IS NULL OR name = $3)
           AND labels @> $4 AND labels ?& $5 AND NOT labels ?| $6 AND NOT labels @> ANY($7)
           AND ($8::text IS NULL OR shown_state = $8)
         ORDER BY id LIMIT $9",
        allowed.project().as_uuid(),
        filter.after,
        filter.name,
        filter.labels.equal(),
        filter.labels.present(),
        filter.labels.absent(),
        &filter.labels.not_equal(),
        filter.state.map(InstanceState::as_str),
        filter.rows
    )
    .fetch_all(conn)
    .await
}

/// What a list of all projects' instances asks for.
pub(in crate::instances) struct CloudFilter<'a> {
    pub after: Uuid,
    pub name: Option<&'a str>,
    pub state: Option<InstanceState>,
    /// Of the project with this name or id; `None` is any.
    pub project: Option<&'a str>,
    /// On the host with this name or id; `None` is any.
    pub host: Option<&'a str>,
    pub rows: i64,
}

/// An instance, and whose it is.
pub(in crate::instances) struct OfCloud {
    pub id: Uuid,
    pub project: Reference,
}

/// The ids of all projects' instances. States and hosts have an index, which a plan that is kept for whatever is asked does
/// not use: PostgreSQL plans this anew each time.
pub(in crate::instances) async fn list_of_cloud(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListCloudInstances>,
    filter: &CloudFilter<'_>,
) -> Result<Vec<OfCloud>, sqlx::Error> {
    let mut tx = conn.begin().await?;
    sqlx::query!("SET LOCAL plan_cache_mode = force_custom_plan").execute(&mut *tx).await?;
    let rows = sqlx::query!(
        "SELECT i.id, p.id AS project_id, p.name AS project_name
         FROM instances i JOIN projects p ON p.id = i.project_id
         WHERE i.id > $1 AND ($2::text IS NULL OR i.name = $2) AND ($3::text IS NULL OR i.shown_state = $3)
           AND ($4::text IS NULL OR i.project_id = (SELECT id FROM projects WHERE name = $4 OR id::text = $4))
           AND ($5::text IS NULL OR i.host_id = (SELECT id FROM hosts WHERE name = $5 OR id::text = $5))
         ORDER BY i.id LIMIT $6",
        filter.after,
        filter.name,
        filter.state.map(InstanceState::as_str),
        filter.project,
        filter.host,
        filter.rows
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let found = rows
        .into_iter()
        .map(|row| OfCloud { id: row.id, project: Reference { id: row.project_id, name: row.project_name } });
    Ok(found.collect())
}

/// What there is to say of listed instances, in their order. One that has gone since is left out.
pub(in crate::instances) async fn rows_of(
    conn: &mut PgConnection,
    listed: &[Uuid],
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT i.id, i.name, i.labels AS "labels: Json<Labels>", i.generation,
                  i.image_id, CASE WHEN u.usable THEN m.name ELSE i.image_name END AS "image_name!",
                  NOT u.usable AS "image_gone!", i.instance_type_id, t.name AS instance_type_name,
                  i.placement_group_id, g.name AS "placement_group_name?",
                  i.architecture, i.firmware, i.vcpus, i.memory_mib, i.hostname,
                  instance_nics(i.id) AS "nics!: Json<Vec<NicRow>>",
                  instance_volumes(i.id) AS "volumes!: Json<Vec<VolumeRow>>", i.power, i.boot,
                  i.stop_mode, i.stop_timeout_seconds,
                  i.deletion_requested_at, i.operation_id, o.kind AS operation_kind, o.status AS operation_status,
                  i.host_id, h.name AS "host_name?", h.last_seen_at AS "host_last_seen_at?",
                  i.placement_explanation AS "placement_explanation: Json<Explanation>",
                  i.observed_generation, i.observed_boot, i.observed_state, i.observed_end_reason,
                  i.observed_paused, i.observed_detail, i.created_at, i.updated_at, i.description,
                  i.on_host_failure, i.delete_protection, i.key_pairs, i.stop_at, i.delete_at, i.lease_principal_id, i.lease_failure,
                  i.resized_from_type_id, f.name AS "resized_from_type_name?", i.resized_from_vcpus,
                  i.resized_from_memory_mib, i.resize_confirm_at
           FROM instances i
           JOIN images m ON m.id = i.image_id
           CROSS JOIN LATERAL (SELECT may_use_image(m, i.project_id)) u (usable)
           JOIN instance_types t ON t.id = i.instance_type_id
           JOIN operations o ON o.id = i.operation_id
           LEFT JOIN placement_groups g ON g.id = i.placement_group_id
           LEFT JOIN hosts h ON h.id = i.host_id
           LEFT JOIN instance_types f ON f.id = i.resized_from_type_id
           WHERE i.id = ANY($1) ORDER BY i.id"#,
        listed
    )
    .fetch_all(conn)
    .await
}
