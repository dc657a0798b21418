//! SQL of where routers stand.

use std::net::IpAddr;

use ipnet::IpNet;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::DRAWS;
use crate::auth::{Allowed, actions};
use crate::http::{ApiError, ErrorCode, FieldError, Selector, violated_constraint};
use crate::routers::model::{Stand, random_mac};
use crate::routers::types::RouterInterface;

/// An interface's row, with the address that is kept beside it.
#[derive(Debug, Clone)]
pub(crate) struct InterfaceRow {
    pub id: Uuid,
    pub router_id: Uuid,
    pub network_id: Uuid,
    pub subnet_id: Uuid,
    pub cidr: IpNet,
    pub address: IpAddr,
    pub mac: String,
}

impl InterfaceRow {
    pub(super) fn to_wire(&self) -> RouterInterface {
        RouterInterface {
            id: self.id.into(),
            network_id: self.network_id.into(),
            subnet_id: self.subnet_id.into(),
            address: self.address,
            mac_address: self.mac.clone(),
        }
    }

    pub(crate) fn stand(&self) -> Stand {
        Stand { cidr: self.cidr, address: self.address }
    }
}

/// A subnet as routers see it.
#[derive(Debug, Clone)]
pub(crate) struct SubnetRow {
    pub id: Uuid,
    pub name: String,
    pub cidr: IpNet,
    pub gateway: Option<IpAddr>,
}

/// Where these routers stand, oldest first.
pub(crate) async fn of_routers(
    conn: &mut PgConnection,
    routers: &[Uuid],
) -> Result<Vec<InterfaceRow>, sqlx::Error> {
    sqlx::query_as!(
        InterfaceRow,
        r#"SELECT i.id, i.router_id, s.network_id, i.subnet_id, i.cidr AS "cidr: IpNet",
                  a.address AS "address: IpAddr", i.mac::text AS "mac!"
           FROM router_interfaces i
           JOIN subnets s ON s.id = i.subnet_id
           JOIN subnet_addresses a ON a.subnet_id = i.subnet_id AND a.router_interface_id = i.id
           WHERE i.router_id = ANY($1) ORDER BY i.id"#,
        routers
    )
    .fetch_all(conn)
    .await
}

/// A subnet of this project, held as it is until the transaction ends.
pub(crate) async fn subnet(
    conn: &mut PgConnection,
    project: Uuid,
    selector: &Selector,
) -> Result<Option<SubnetRow>, sqlx::Error> {
    sqlx::query_as!(
        SubnetRow,
        r#"SELECT id, name, cidr AS "cidr: IpNet", gateway AS "gateway: IpAddr"
           FROM subnets WHERE project_id = $1 AND (id = $2 OR name = $3) FOR NO KEY UPDATE"#,
        project,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// Puts the router into the subnet, at its gateway address.
pub(crate) async fn add(
    conn: &mut PgConnection,
    router: Uuid,
    id: Uuid,
    subnet: &SubnetRow,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let Some(gateway) = subnet.gateway else {
        let detail = format!("the subnet {} has no gateway address for a router", subnet.name);
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    };
    insert(conn, router, id, subnet, now).await?;
    take_address(conn, id, subnet, gateway).await
}

async fn insert(
    conn: &mut PgConnection,
    router: Uuid,
    id: Uuid,
    subnet: &SubnetRow,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    for _ in 0..DRAWS {
        let inserted = sqlx::query!(
            "INSERT INTO router_interfaces (id, router_id, subnet_id, cidr, mac, created_at)
             VALUES ($1, $2, $3, $4::inet::cidr, $5::text::macaddr, $6)
             ON CONFLICT ON CONSTRAINT router_interfaces_mac_unique DO NOTHING",
            id,
            router,
            subnet.id,
            subnet.cidr,
            random_mac(),
            now
        )
        .execute(&mut *conn)
        .await
        .map_err(|error| refusal(error, subnet))?;
        if inserted.rows_affected() > 0 {
            return Ok(());
        }
    }
    Err(ApiError::because(ErrorCode::Busy, "no free MAC address for a router was found; try again"))
}

fn refusal(error: sqlx::Error, subnet: &SubnetRow) -> ApiError {
    let SubnetRow { name, cidr, .. } = subnet;
    match violated_constraint(&error) {
        Some("router_interfaces_subnet_unique") => ApiError::because(
            ErrorCode::InUse,
            format!("a router stands in the subnet {name} already; remove its interface first"),
        ),
        Some("router_interfaces_are_apart") => ApiError::because(
            ErrorCode::RangeOverlaps,
            format!("{cidr} overlaps another subnet of this router, which could not tell them apart"),
        ),
        Some("router_interfaces_subnet_id_fkey") => subnet_not_found(),
        _ => error.into(),
    }
}

/// The body names a subnet that is not there.
pub(crate) fn subnet_not_found() -> ApiError {
    ApiError::invalid(vec![FieldError::new("/subnet", "not_found", "the project has no such subnet")])
}

/// The gateway address has been kept for a router, unless a port has it.
async fn take_address(
    conn: &mut PgConnection,
    interface: Uuid,
    subnet: &SubnetRow,
    gateway: IpAddr,
) -> Result<(), ApiError> {
    let taken = sqlx::query!(
        "INSERT INTO subnet_addresses AS a (subnet_id, address, router_interface_id) VALUES ($1, $2, $3)
         ON CONFLICT (subnet_id, address) DO UPDATE SET router_interface_id = $3, reserved = false
         WHERE a.reserved",
        subnet.id,
        gateway as _,
        interface
    )
    .execute(conn)
    .await?;
    if taken.rows_affected() == 0 {
        let detail = format!(
            "a port has {gateway}, the gateway address of the subnet {}; give the port another address first",
            subnet.name
        );
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    Ok(())
}

/// Takes the router out of the subnet; its address stays kept for a router.
pub(crate) async fn remove(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::RemoveRouterInterface>,
    interface: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE subnet_addresses SET router_interface_id = NULL, reserved = true WHERE router_interface_id = $1",
        interface
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM router_interfaces WHERE id = $1", interface).execute(conn).await?;
    Ok(())
}
