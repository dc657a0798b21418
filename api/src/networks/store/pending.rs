//! SQL of changes that hosts have to hear of.

use protocol::HostId;
use sqlx::PgConnection;

/// Replaces changes of projects, of groups and of everything by one for each host concerned. False when there were none.
pub(in super::super) async fn expand(conn: &mut PgConnection, limit: i64) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query!(
        "DELETE FROM pending_network_changes WHERE id IN (
             SELECT id FROM pending_network_changes WHERE host_id IS NULL ORDER BY id LIMIT $1
             FOR UPDATE SKIP LOCKED)
         RETURNING project_id, security_group_id",
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let everyone = taken.iter().any(|row| row.project_id.is_none() && row.security_group_id.is_none());
    let projects: Vec<_> = taken.iter().filter_map(|row| row.project_id).collect();
    let groups: Vec<_> = taken.iter().filter_map(|row| row.security_group_id).collect();
    sqlx::query!(
        "INSERT INTO pending_network_changes (host_id)
         SELECT h.id FROM hosts h
         WHERE $1 OR EXISTS (SELECT FROM instances i WHERE i.host_id = h.id AND i.project_id = ANY($2))
            OR h.id IN (SELECT i.host_id FROM port_security_groups m
                        JOIN ports p ON p.id = m.port_id JOIN instances i ON i.id = p.instance_id
                        WHERE m.security_group_id = ANY($3))",
        everyone,
        &projects,
        &groups
    )
    .execute(conn)
    .await?;
    Ok(!taken.is_empty())
}

/// Takes at most this many hosts that have something to hear of.
pub(in super::super) async fn take_hosts(
    conn: &mut PgConnection,
    limit: i64,
) -> Result<Vec<HostId>, sqlx::Error> {
    let hosts = sqlx::query_scalar!(
        r#"WITH chosen AS (
               SELECT DISTINCT host_id FROM pending_network_changes WHERE host_id IS NOT NULL
               ORDER BY host_id LIMIT $1)
           DELETE FROM pending_network_changes p USING chosen WHERE p.host_id = chosen.host_id
           RETURNING p.host_id AS "host_id!""#,
        limit
    )
    .fetch_all(conn)
    .await?;
    let hosts: std::collections::BTreeSet<HostId> = hosts.into_iter().map(HostId::from).collect();
    Ok(hosts.into_iter().collect())
}
