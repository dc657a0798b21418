//! Looks for operations that do not end.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::store::DEADLINE;
use crate::hosts::UNREACHABLE_AFTER;
use crate::verify::Finding;

/// A controller ends what is overdue within seconds.
const ENDED_WITHIN: Duration = Duration::minutes(5);
/// An agent tells of each step as it does it. What may take longer has a later deadline than others, and is left out.
const STEP_WITHIN: Duration = Duration::minutes(10);

/// Operations whose deadline is long past, and those of instances on hosts that could go on and do not.
pub(crate) async fn verify(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'operation_overdue' AS "code!", o.id AS "id?",
                  format('%s of %s is not over %s minutes after its deadline; if that lasts while the control plane runs, its log '
                         'tells why', o.kind, o.resource_name,
                         (extract(epoch FROM $1::timestamptz - o.deadline_at) / 60)::bigint) AS "detail!"
           FROM operations o WHERE o.status = 'running' AND o.deadline_at < $2
           UNION ALL
           SELECT 'operation_stalled', o.id,
                  format('%s of %s has made no step for %s minutes, and its host %s is ready; `cumulo drift list --host %s` and the log '
                         'of the agent there tell more', o.kind, o.resource_name,
                         (extract(epoch FROM $1 - o.updated_at) / 60)::bigint, h.name, h.name)
           FROM operations o JOIN instances i ON i.id = o.resource_id JOIN hosts h ON h.id = i.host_id
           WHERE o.status = 'running' AND o.deadline_at >= $1 AND o.updated_at < $3
             AND o.deadline_at - o.created_at <= make_interval(secs => $4)
             AND h.last_seen_at >= $5 AND h.hypervisor_degraded IS NULL"#,
        now,
        now - ENDED_WITHIN,
        now - STEP_WITHIN,
        DEADLINE.as_seconds_f64(),
        now - UNREACHABLE_AFTER
    )
    .fetch_all(conn)
    .await
}
