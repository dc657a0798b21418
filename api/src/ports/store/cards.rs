//! SQL of ports as network cards of instances.

use protocol::{HostId, InstanceId, PortId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::cards::MAX_CARDS;
use crate::http::{ApiError, ErrorCode};

/// Where cards can be plugged in, in their order.
pub(in super::super) async fn free_positions(
    conn: &mut PgConnection,
    instance: InstanceId,
) -> Result<Vec<i32>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT position AS "position!" FROM generate_series(0, $2 - 1) position
           WHERE NOT EXISTS (SELECT FROM ports p WHERE p.instance_id = $1 AND p.position = position.position)
           ORDER BY 1"#,
        instance.as_uuid(),
        i32::try_from(MAX_CARDS).unwrap_or(i32::MAX)
    )
    .fetch_all(conn)
    .await
}

/// Guests and hypervisors tell the cards of an instance by their addresses, which are unique in a network only.
async fn check_mac(conn: &mut PgConnection, port: Uuid, instance: InstanceId) -> Result<(), ApiError> {
    let same = sqlx::query!(
        r#"SELECT card.name, card.mac::text AS "mac!" FROM ports port JOIN ports card ON card.mac = port.mac
           WHERE port.id = $1 AND card.instance_id = $2"#,
        port,
        instance.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    let Some(same) = same else { return Ok(()) };
    let detail = format!(
        "the instance has a card with the MAC address {}, the port {}; detach that one, or make a port with another \
         MAC address",
        same.mac, same.name
    );
    Err(ApiError::because(ErrorCode::AddressTaken, detail))
}

/// Makes a port that is there a card of the instance.
pub(in super::super) async fn plug(
    conn: &mut PgConnection,
    port: Uuid,
    instance: InstanceId,
    position: i32,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    check_mac(conn, port, instance).await?;
    sqlx::query!(
        "UPDATE ports SET instance_id = $2, position = $3, updated_at = $4 WHERE id = $1",
        port,
        instance.as_uuid(),
        position,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The instance's new cards come to its host with this revision of its network document.
pub(crate) async fn came_to_host(
    conn: &mut PgConnection,
    instance: InstanceId,
    revision: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE ports SET host_revision = $2 WHERE instance_id = $1 AND host_revision IS NULL",
        instance.as_uuid(),
        revision
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which of these ports are cards of instances on this host.
pub(crate) async fn on_host(
    conn: &mut PgConnection,
    host: HostId,
    ports: &[PortId],
) -> Result<Vec<PortId>, sqlx::Error> {
    let ports: Vec<_> = ports.iter().map(|port| port.as_uuid()).collect();
    let own = sqlx::query_scalar!(
        "SELECT p.id FROM ports p JOIN instances i ON i.id = p.instance_id
         WHERE i.host_id = $1 AND p.id = ANY($2)",
        host.as_uuid(),
        &ports
    )
    .fetch_all(conn)
    .await?;
    Ok(own.into_iter().map(PortId::from).collect())
}
