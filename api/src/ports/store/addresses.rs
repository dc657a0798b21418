//! How a port gets its addresses. Which are free is kept by the database, see `allocate_address()` of
//! `0014_networks.sql`.

use std::net::IpAddr;

use ipnet::IpNet;
use protocol::{NetworkId, PortId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::types::WantedAddress;
use crate::http::{ApiError, ErrorCode, FieldError, Selector};
use crate::networks::stored;
use crate::subnets::is_usable;

/// To users: one of theirs, or one of those before them.
pub(super) const UNKNOWN_GUEST: &str =
    "a running guest that the cloud does not know any more, which its operator has to look after,";

/// A subnet of a network, locked.
pub(in super::super) struct SubnetRef {
    pub id: Uuid,
    pub network: Uuid,
    pub name: String,
    pub cidr: IpNet,
}

/// The subnets of these networks, oldest first, locked in the order in which everybody locks them.
pub(in super::super) async fn lock_subnets(
    conn: &mut PgConnection,
    networks: &[NetworkId],
) -> Result<Vec<SubnetRef>, ApiError> {
    let networks: Vec<_> = networks.iter().map(|network| network.as_uuid()).collect();
    let rows = sqlx::query!(
        r#"SELECT id, network_id, name, cidr::text AS "cidr!" FROM subnets WHERE network_id = ANY($1)
           ORDER BY id FOR NO KEY UPDATE"#,
        &networks
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(SubnetRef { id: row.id, network: row.network_id, name: row.name, cidr: stored(&row.cidr)? })
        })
        .collect()
}

/// Locks the subnets that the port has an address of.
pub(super) async fn lock_subnets_of(conn: &mut PgConnection, port: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT FROM subnets WHERE id IN (SELECT subnet_id FROM subnet_addresses WHERE port_id = $1)
         ORDER BY id FOR NO KEY UPDATE",
        port
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives the port an address of each family, from the oldest subnet of the network that has one left.
///
/// # Errors
/// `subnet_exhausted` when the network has subnets of a family, and no address in them.
pub(in super::super) async fn give_automatic(
    conn: &mut PgConnection,
    port: PortId,
    subnets: &[&SubnetRef],
) -> Result<(), ApiError> {
    for four in [true, false] {
        let family: Vec<_> =
            subnets.iter().filter(|subnet| subnet.cidr.network().is_ipv4() == four).collect();
        let mut given = family.is_empty();
        for subnet in &family {
            if !given {
                given = allocate(conn, subnet.id, port).await?;
            }
        }
        if !given {
            let names: Vec<_> = family.iter().map(|subnet| subnet.name.as_str()).collect();
            return Err(exhausted(&names.join(", ")));
        }
    }
    Ok(())
}

/// Gives the port the addresses that were asked for. `pointer` is where they stand in the body.
pub(in super::super) async fn give_wanted(
    conn: &mut PgConnection,
    port: PortId,
    subnets: &[&SubnetRef],
    wanted: &[WantedAddress],
    pointer: impl Fn(usize, &str) -> String,
) -> Result<(), ApiError> {
    let mut used = Vec::new();
    for (index, wanted) in wanted.iter().enumerate() {
        let wrong = |field, code, message: &str| {
            ApiError::invalid(vec![FieldError::new(pointer(index, field), code, message)])
        };
        let subnet = match (&wanted.subnet, wanted.address) {
            (Some(name), _) => by_name(subnets, name)
                .ok_or_else(|| wrong("/subnet", "not_found", "this network has no such subnet"))?,
            (None, Some(address)) => subnets
                .iter()
                .find(|subnet| subnet.cidr.contains(&address))
                .ok_or_else(|| wrong("/address", "out_of_range", "no subnet of the network has it"))?,
            (None, None) => return Err(wrong("", "missing", "a subnet, an address, or both")),
        };
        if used.contains(&subnet.id) {
            return Err(wrong("", "duplicate", "a port has one address in a subnet"));
        }
        used.push(subnet.id);
        match wanted.address {
            Some(address) if is_usable(&subnet.cidr, address) => {
                take(conn, subnet, port, address).await?;
            }
            Some(_) => {
                return Err(wrong(
                    "/address",
                    "out_of_range",
                    "an address of the subnet that a port may have",
                ));
            }
            None if allocate(conn, subnet.id, port).await? => {}
            None => return Err(exhausted(&subnet.name)),
        }
    }
    Ok(())
}

fn by_name<'a>(subnets: &[&'a SubnetRef], name: &str) -> Option<&'a SubnetRef> {
    let selector = Selector::parse(name)?;
    subnets
        .iter()
        .find(|subnet| selector.id() == Some(subnet.id) || selector.name() == Some(&subnet.name))
        .copied()
}

/// False when the subnet has no free address.
async fn allocate(conn: &mut PgConnection, subnet: Uuid, port: PortId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT allocate_address($1, $2) IS NOT NULL AS "given!""#, subnet, port.as_uuid())
        .fetch_one(conn)
        .await
}

async fn take(
    conn: &mut PgConnection,
    subnet: &SubnetRef,
    port: PortId,
    address: IpAddr,
) -> Result<(), ApiError> {
    let taken = sqlx::query!(
        "INSERT INTO subnet_addresses (subnet_id, address, port_id) VALUES ($1, $2::text::inet, $3)
         ON CONFLICT ON CONSTRAINT subnet_addresses_unique DO NOTHING",
        subnet.id,
        address.to_string(),
        port.as_uuid()
    )
    .execute(&mut *conn)
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(());
    }
    let has_guest = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM subnet_addresses
                          WHERE subnet_id = $1 AND address = $2::text::inet AND unknown_guest_id IS NOT NULL) AS "has!""#,
        subnet.id,
        address.to_string()
    )
    .fetch_one(conn)
    .await?;
    let detail = if has_guest {
        format!("{UNKNOWN_GUEST} has {address} of {}; choose another one", subnet.name)
    } else {
        format!("{address} of {} is taken or reserved; choose another one", subnet.name)
    };
    Err(ApiError::because(ErrorCode::AddressTaken, detail))
}

fn exhausted(names: &str) -> ApiError {
    let detail = format!("{names} has no free address; delete ports, or add a subnet to the network");
    ApiError::because(ErrorCode::SubnetExhausted, detail)
}
