//! SQL of guests that the cloud does not know.

mod lists;

use std::collections::BTreeMap;

use protocol::agent::UnknownGuest;
use protocol::{HostId, MacAddress, NetworkId};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::clock::Clock;

pub(super) use lists::list;

/// As many addresses may a host keep from others, whatever it says.
pub(super) const MOST_ADDRESSES: i64 = 1000;

/// Takes in which guests a host has; the caller has checked how much it says, and that it may.
pub(crate) async fn fold(
    conn: &mut PgConnection,
    host: HostId,
    guests: Vec<UnknownGuest>,
    clock: &Clock,
) -> Result<(), sqlx::Error> {
    let guests: BTreeMap<_, _> = guests.into_iter().map(|guest| (guest.id.as_uuid(), guest)).collect();
    let ids: Vec<_> = guests.keys().copied().collect();
    for (id, guest) in &guests {
        sqlx::query!(
            "INSERT INTO unknown_guests AS known (id, host_id, instance_id, runs, spec, first_seen_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT ON CONSTRAINT unknown_guests_unique
             DO UPDATE SET runs = excluded.runs, spec = coalesce(excluded.spec, known.spec)
             WHERE (known.runs, known.spec) IS DISTINCT FROM (excluded.runs, coalesce(excluded.spec, known.spec))",
            clock.new_id::<uuid::Uuid>(),
            host.as_uuid(),
            id,
            guest.runs,
            guest.spec.as_ref().map(Json) as _,
            clock.now()
        )
        .execute(&mut *conn)
        .await?;
    }
    lock_subnets(conn, host).await?;
    sqlx::query!(
        "DELETE FROM unknown_guests WHERE host_id = $1 AND instance_id <> ALL($2)",
        host.as_uuid(),
        &ids
    )
    .execute(&mut *conn)
    .await?;
    keep_addresses(conn, host).await
}

/// Hosts that have such guests.
pub(super) async fn hosts(conn: &mut PgConnection) -> Result<Vec<HostId>, sqlx::Error> {
    let hosts = sqlx::query_scalar!("SELECT DISTINCT host_id FROM unknown_guests ORDER BY 1");
    Ok(hosts.fetch_all(conn).await?.into_iter().map(HostId::from).collect())
}

/// Forgets those of the host if it is declared dead, or if its agent was put back to a release that does not tell of them,
/// and otherwise keeps their addresses.
pub(super) async fn settle(conn: &mut PgConnection, host: HostId) -> Result<(), sqlx::Error> {
    lock_subnets(conn, host).await?;
    sqlx::query!(
        "DELETE FROM unknown_guests g USING hosts h
         WHERE g.host_id = $1 AND h.id = g.host_id AND (h.declared_dead_at IS NOT NULL OR h.protocol_version < 2)",
        host.as_uuid()
    )
    .execute(&mut *conn)
    .await?;
    keep_addresses(conn, host).await
}

/// Everybody locks subnets in this order.
async fn lock_subnets(conn: &mut PgConnection, host: HostId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT FROM subnets WHERE id IN (
             SELECT a.subnet_id FROM subnet_addresses a JOIN unknown_guests g ON g.id = a.unknown_guest_id
             WHERE g.host_id = $1
             UNION SELECT subnet_id FROM unknown_guest_addresses WHERE host_id = $1)
         ORDER BY id FOR NO KEY UPDATE",
        host.as_uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What its guests have is theirs, and nothing else.
async fn keep_addresses(conn: &mut PgConnection, host: HostId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM subnet_addresses a USING unknown_guests g
         WHERE g.id = a.unknown_guest_id AND g.host_id = $1
           AND NOT EXISTS (SELECT FROM unknown_guest_addresses w
                           WHERE (w.guest_id, w.subnet_id, w.address) = (g.id, a.subnet_id, a.address))",
        host.as_uuid()
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO subnet_addresses (subnet_id, address, unknown_guest_id)
         SELECT DISTINCT ON (s.id, w.address) s.id, w.address, w.guest_id
         FROM unknown_guest_addresses w
         JOIN subnets s ON (s.id, s.network_id) = (w.subnet_id, w.network_id) AND w.address << s.cidr
         WHERE w.host_id = $1
           AND NOT EXISTS (SELECT FROM subnet_addresses a WHERE (a.subnet_id, a.address) = (s.id, w.address))
         ORDER BY s.id, w.address, w.guest_id
         LIMIT greatest(0, $2 - (SELECT count(*) FROM subnet_addresses a JOIN unknown_guests g ON g.id = a.unknown_guest_id
                                 WHERE g.host_id = $1))
         ON CONFLICT DO NOTHING",
        host.as_uuid(),
        MOST_ADDRESSES
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether such a guest has this MAC address in the network.
pub(crate) async fn has_mac(
    conn: &mut PgConnection,
    network: NetworkId,
    mac: MacAddress,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM unknown_guest_cards WHERE network_id = $1 AND mac = $2::text::macaddr) AS "has!""#,
        network.as_uuid(),
        mac.to_string()
    )
    .fetch_one(conn)
    .await
}
