//! SQL of cards that leave their instances. A port is attached to nothing, or gone, when no guest has its card any more.

use protocol::agent::{InstanceReport, ObservedState};
use protocol::{HostId, InstanceId, MacAddress, OperationId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::{Action, Allowed, InProject};
use crate::http::{ApiError, FieldError, Selector};
use crate::networks::stored;

/// Pulls a card of an instance, which is locked, out. One that is on a host leaves when that has said that the guest has
/// let go. False when that was asked for before.
pub(crate) async fn detach<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    instance: InstanceId,
    placed: bool,
    port: &str,
    now: OffsetDateTime,
) -> Result<bool, ApiError> {
    let missing =
        || ApiError::invalid(vec![FieldError::new("/port", "not_found", "this instance has no such port")]);
    let selector = Selector::parse(port).ok_or_else(missing)?;
    let row = sqlx::query!(
        "SELECT id, detaching FROM ports
         WHERE project_id = $1 AND instance_id = $2 AND (id = $3 OR name = $4) FOR UPDATE",
        allowed.project().as_uuid(),
        instance.as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(missing)?;
    if row.detaching {
        return Ok(false);
    }
    if placed {
        sqlx::query!("UPDATE ports SET detaching = true, updated_at = $2 WHERE id = $1", row.id, now)
            .execute(conn)
            .await?;
    } else {
        release(conn, &[], &[row.id], now).await?;
    }
    Ok(true)
}

/// Ports of an instance that are on their way out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// The guest has let go of them.
    pub let_go: Vec<Uuid>,
    /// The guest has others still.
    pub is_held: bool,
}

/// INVARIANT: a guest has let go of a card when its host has reported, at the generation that asked for it, without that
/// card. The instance is locked.
pub(crate) async fn leaving(
    conn: &mut PgConnection,
    report: &InstanceReport,
    generation: i64,
) -> Result<Leaving, ApiError> {
    let ports = sqlx::query!(
        r#"SELECT id, mac::text AS "mac!" FROM ports WHERE instance_id = $1 AND detaching ORDER BY id"#,
        report.id.as_uuid()
    )
    .fetch_all(conn)
    .await?;
    let is_newest = report.generation.0 >= generation;
    // Of what is gone nobody has a card. An agent that does not tell is believed to have seen the generation through.
    let held = report.leaving_cards.iter().flatten().filter(|_| report.state != ObservedState::Absent);
    let held: Vec<MacAddress> = held.copied().collect();
    let mut leaving = Leaving::default();
    for port in ports {
        if is_newest && !held.contains(&stored(&port.mac)?) {
            leaving.let_go.push(port.id);
        } else {
            leaving.is_held = true;
        }
    }
    Ok(leaving)
}

/// Before instances go, and when guests have let go of ports: those that were made with an instance go, the others are
/// attached to nothing.
pub(crate) async fn release(
    conn: &mut PgConnection,
    instances: &[Uuid],
    ports: &[Uuid],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT release_ports($1, $2, $3)", instances, ports, now).execute(conn).await?;
    Ok(())
}

/// No guest has the cards any more that were to leave the instance, which is locked.
pub(crate) async fn release_leaving(
    conn: &mut PgConnection,
    instance: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let ports = sqlx::query_scalar!("SELECT id FROM ports WHERE instance_id = $1 AND detaching", instance)
        .fetch_all(&mut *conn)
        .await?;
    release(conn, &[], &ports, now).await
}

/// Hosts that are declared dead, with cards that were to leave.
pub(in super::super) async fn lost_hosts(conn: &mut PgConnection) -> Result<Vec<HostId>, sqlx::Error> {
    let hosts = sqlx::query_scalar!(
        "SELECT h.id FROM hosts h
         WHERE h.declared_dead_at IS NOT NULL
           AND EXISTS (SELECT FROM ports p JOIN instances i ON i.id = p.instance_id
                       WHERE i.host_id = h.id AND p.detaching)
         ORDER BY h.id"
    )
    .fetch_all(conn)
    .await?;
    Ok(hosts.into_iter().map(HostId::from).collect())
}

/// Releases the cards that were to leave instances of a host on which no guest runs. Gives the operations that asked
/// for that.
pub(in super::super) async fn release_of_lost(
    conn: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> Result<Vec<OperationId>, sqlx::Error> {
    let instances = sqlx::query_scalar!(
        "SELECT id FROM instances WHERE host_id = $1
           AND id IN (SELECT instance_id FROM ports WHERE detaching) ORDER BY id FOR UPDATE",
        host.as_uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    let ports =
        sqlx::query_scalar!("SELECT id FROM ports WHERE instance_id = ANY($1) AND detaching", &instances)
            .fetch_all(&mut *conn)
            .await?;
    release(conn, &[], &ports, now).await?;
    let operations = sqlx::query_scalar!(
        "SELECT o.id FROM instances i JOIN operations o ON o.id = i.operation_id
         WHERE i.id = ANY($1) AND o.kind = 'detach_port'",
        &instances
    )
    .fetch_all(conn)
    .await?;
    Ok(operations.into_iter().map(OperationId::from).collect())
}
