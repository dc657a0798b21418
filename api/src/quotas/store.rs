//! SQL of quotas. Usage is never written here: that is the business of the triggers.

use std::collections::BTreeMap;

use protocol::ProjectId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::Resource;
use super::types::{Limit, Quota, QuotaDefault, QuotaEffect, QuotaSource};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, Version};

fn known(resource: &str) -> Result<Resource, ApiError> {
    Resource::parse(resource).ok_or_else(|| ApiError::internal(format!("unknown resource {resource}")))
}

/// The project's quotas, and the version of its limits.
pub(super) async fn list<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<(Vec<Quota>, Version), ApiError> {
    let rows = sqlx::query!(
        r#"SELECT q.resource, q.used, q.overridden, q.generation,
                  CASE WHEN q.overridden THEN q.limit_value ELSE d.limit_value END AS limit_value
           FROM project_quotas q JOIN quota_defaults d USING (resource) WHERE q.project_id = $1"#,
        allowed.project().as_uuid()
    )
    .fetch_all(conn)
    .await?;
    let version = Version(rows.iter().map(|row| row.generation).sum());
    let quotas = rows.into_iter().map(|row| {
        Ok::<_, ApiError>(Quota {
            resource: known(&row.resource)?,
            limit: Limit(row.limit_value),
            used: row.used,
            source: if row.overridden { QuotaSource::Project } else { QuotaSource::Default },
        })
    });
    let mut quotas = quotas.collect::<Result<Vec<_>, _>>()?;
    quotas.sort_by_key(|quota| quota.resource);
    Ok((quotas, version))
}

/// Locks the project's quotas until the transaction ends, in the order of the triggers: for whoever locks afterwards what
/// others lock after them.
pub(crate) async fn lock(conn: &mut PgConnection, project: ProjectId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT FROM project_quotas WHERE project_id = $1 ORDER BY resource FOR NO KEY UPDATE",
        project.as_uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives the project limits of its own; `None` takes one away, so that the default holds again.
pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UpdateQuotas>,
    patch: &BTreeMap<Resource, Option<Limit>>,
) -> Result<(), sqlx::Error> {
    for (resource, limit) in patch {
        sqlx::query!(
            "UPDATE project_quotas SET overridden = $3, limit_value = $4, generation = generation + 1
             WHERE project_id = $1 AND resource = $2",
            allowed.project().as_uuid(),
            resource.as_str(),
            limit.is_some(),
            limit.and_then(|limit| limit.0)
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// The operator's defaults and their version.
pub(super) async fn defaults<A: Action>(
    conn: &mut PgConnection,
    _allowed: &Allowed<A>,
) -> Result<(Vec<QuotaDefault>, Version), ApiError> {
    let rows =
        sqlx::query!("SELECT resource, limit_value, generation FROM quota_defaults").fetch_all(conn).await?;
    let version = Version(rows.iter().map(|row| row.generation).sum());
    let defaults = rows.into_iter().map(|row| {
        Ok::<_, ApiError>(QuotaDefault { resource: known(&row.resource)?, limit: Limit(row.limit_value) })
    });
    let mut defaults = defaults.collect::<Result<Vec<_>, _>>()?;
    defaults.sort_by_key(|default| default.resource);
    Ok((defaults, version))
}

/// Locks the defaults until the transaction ends.
pub(super) async fn lock_defaults(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdateQuotaDefaults>,
) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT FROM quota_defaults ORDER BY resource FOR NO KEY UPDATE").execute(conn).await?;
    Ok(())
}

pub(super) async fn update_defaults(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdateQuotaDefaults>,
    patch: &BTreeMap<Resource, Limit>,
) -> Result<(), sqlx::Error> {
    for (resource, limit) in patch {
        sqlx::query!(
            "UPDATE quota_defaults SET limit_value = $2, generation = generation + 1 WHERE resource = $1",
            resource.as_str(),
            limit.0
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// What would become of the project's quotas if it used so much more.
pub(crate) async fn forecast<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    more: &[(Resource, i64)],
) -> Result<Vec<QuotaEffect>, ApiError> {
    let (quotas, _) = list(conn, allowed).await?;
    let effects = quotas.into_iter().filter_map(|quota| {
        let (_, amount) = more.iter().find(|(resource, _)| *resource == quota.resource)?;
        let Quota { resource, limit, used, .. } = quota;
        Some(QuotaEffect { resource, limit, used, after: used + amount })
    });
    Ok(effects.collect())
}

/// What this transaction, which has charged the project so much, does to its quotas.
pub(crate) async fn effect<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    charged: &[(Resource, i64)],
) -> Result<Vec<QuotaEffect>, ApiError> {
    let (quotas, _) = list(conn, allowed).await?;
    let effects = quotas.into_iter().filter_map(|quota| {
        let (_, amount) = charged.iter().find(|(resource, _)| *resource == quota.resource)?;
        let Quota { resource, limit, used: after, .. } = quota;
        Some(QuotaEffect { resource, limit, used: after - amount, after })
    });
    Ok(effects.collect())
}

/// A project whose usage is not what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub project: ProjectId,
    pub resource: String,
    /// What the project is charged with.
    pub used: i64,
    /// What there is.
    pub counted: i64,
}

/// Counts everything anew and says where usage is wrong; never anywhere, as long as the triggers are there.
pub async fn drift(conn: &mut PgConnection) -> Result<Vec<Drift>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT project_id AS "project_id!", resource AS "resource!",
                  coalesce(q.used, 0) AS "used!", coalesce(r.used, 0) AS "counted!"
           FROM project_quotas q FULL JOIN recount_quotas() r USING (project_id, resource)
           WHERE coalesce(q.used, 0) <> coalesce(r.used, 0) ORDER BY project_id, resource"#
    )
    .fetch_all(conn)
    .await?;
    let drifts = rows.into_iter().map(|row| Drift {
        project: row.project_id.into(),
        resource: row.resource,
        used: row.used,
        counted: row.counted,
    });
    Ok(drifts.collect())
}

/// From now on, until it is turned off or the transaction ends, charges are made beyond limits: for what only moves from one
/// row to another, and is charged already.
pub(crate) async fn charge_anyway(conn: &mut PgConnection, on: bool) -> Result<(), sqlx::Error> {
    let value = if on { "on" } else { "off" };
    sqlx::query_scalar!("SELECT set_config('cumulo.charge_anyway', $1, true)", value).fetch_one(conn).await?;
    Ok(())
}

/// Before instances go, before ports of which guests have let go are free, and before the volumes of these removals are
/// forgotten: locks the cards and what the projects have used, in the order of everybody. Hosts are locked after that.
pub(crate) async fn lock_before_going(
    conn: &mut PgConnection,
    instances: &[Uuid],
    let_go: &[Uuid],
    removals: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT lock_before_going($1, $2, $3)", instances, let_go, removals).execute(conn).await?;
    Ok(())
}
