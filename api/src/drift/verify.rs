//! Looks for differences that nobody has mended, and for hosts that have not looked.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::hosts::UNREACHABLE_AFTER;
use crate::verify::Finding;

/// What mends itself has mended itself by then.
const OLD: Duration = Duration::hours(1);
/// An agent looks once a minute, while it is heard of.
const NOT_LOOKED: Duration = Duration::minutes(15);

/// What of hosts that are heard of differs for long, and guests that run on two hosts. Of silent ones nobody knows.
pub(crate) async fn verify(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<Vec<Finding>, sqlx::Error> {
    sqlx::query_as!(
        Finding,
        r#"SELECT 'instance_on_two_hosts' AS "code!", i.id AS "id?",
                  format('a guest of %s runs on %s, which is not to have it, and the instance is on %s: see at once that only one '
                         'of them writes to its disks', i.name, h.name, coalesce(o.name, 'no host')) AS "detail!"
           FROM drift d JOIN hosts h ON h.id = d.host_id JOIN instances i ON i.id = d.subject_id
           LEFT JOIN hosts o ON o.id = i.host_id
           WHERE d.kind = 'instance' AND d.code = 'unknown_guest' AND i.host_id IS DISTINCT FROM d.host_id
           UNION ALL
           SELECT * FROM (
               SELECT DISTINCT ON (h.name) 'host_drift', h.id,
                      format('%s differs from what is wanted of it in %s things for more than an hour; the oldest, %s: %s; `cumulo drift '
                             'list --host %s` names all with their repair', h.name, count(*) OVER (PARTITION BY h.id),
                             d.code, d.detail, h.name)
               FROM drift d JOIN hosts h ON h.id = d.host_id
               WHERE d.first_seen_at < $1 AND h.last_seen_at >= $3
               ORDER BY h.name, d.first_seen_at, d.id) old
           UNION ALL
           SELECT 'host_drift_unknown', h.id,
                  format('%s is heard of, and its agent has not looked for %s minutes for what differs; its log tells why', h.name,
                         (extract(epoch FROM $4::timestamptz - l.looked_at) / 60)::bigint)
           FROM host_looks l JOIN hosts h ON h.id = l.host_id
           WHERE greatest(l.looked_at, h.heard_again_at) < $2 AND h.last_seen_at >= $3 AND h.hypervisor_degraded IS NULL"#,
        now - OLD,
        now - NOT_LOOKED,
        now - UNREACHABLE_AFTER,
        now
    )
    .fetch_all(conn)
    .await
}
