//! SQL of what a floating IP is to stand for.

use std::net::IpAddr;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::{Allowed, actions};
use crate::http::{ApiError, ErrorCode, FieldError, Selector};

/// An address of a port.
#[derive(Debug, Clone)]
pub(in super::super) struct Target {
    pub port_id: Uuid,
    pub instance_id: Option<Uuid>,
    pub address: IpAddr,
    subnet_id: Uuid,
    subnet: String,
}

/// The body names something that is not there.
pub(in super::super) fn not_found(pointer: &str, message: &str) -> ApiError {
    ApiError::invalid(vec![FieldError::new(pointer, "not_found", message)])
}

pub(in super::super) fn no_port() -> ApiError {
    not_found("/port", "the project has no such port")
}

pub(in super::super) fn no_instance() -> ApiError {
    not_found("/instance", "the project has no such instance")
}

/// The instance that has the port, if one has.
pub(in super::super) async fn instance_of(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::AssociateFloatingIp>,
    port: &Selector,
) -> Result<Option<Uuid>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT instance_id FROM ports WHERE project_id = $1 AND (id = $2 OR name = $3)",
        allowed.project().as_uuid(),
        port.id(),
        port.name()
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.flatten())
}

/// The first port of an instance, of those that stay.
pub(in super::super) async fn first_port(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::AssociateFloatingIp>,
    instance: &Selector,
) -> Result<Uuid, ApiError> {
    let found = sqlx::query!(
        r#"SELECT i.name, p.id AS "port?"
           FROM instances i LEFT JOIN ports p ON p.instance_id = i.id AND NOT p.detaching
           WHERE i.project_id = $1 AND (i.id = $2 OR i.name = $3) ORDER BY p.position LIMIT 1"#,
        allowed.project().as_uuid(),
        instance.id(),
        instance.name()
    )
    .fetch_optional(conn)
    .await?;
    let found = found.ok_or_else(no_instance)?;
    found.port.ok_or_else(|| {
        let detail = format!("the instance {} has no port; attach one first", found.name);
        ApiError::because(ErrorCode::WrongState, detail)
    })
}

/// The IPv4 address of a port that is asked for, or its primary one.
pub(in super::super) async fn target(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::AssociateFloatingIp>,
    port: &Selector,
    address: Option<IpAddr>,
) -> Result<Target, ApiError> {
    let port = sqlx::query!(
        "SELECT id, name FROM ports WHERE project_id = $1 AND (id = $2 OR name = $3) FOR KEY SHARE",
        allowed.project().as_uuid(),
        port.id(),
        port.name()
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(no_port)?;
    let target = sqlx::query_as!(
        Target,
        r#"SELECT p.id AS port_id, p.instance_id, a.address AS "address: IpAddr", s.id AS subnet_id,
                  s.name AS subnet
           FROM ports p
           JOIN subnet_addresses a ON a.port_id = p.id
           JOIN subnets s ON s.id = a.subnet_id
           WHERE p.id = $1 AND family(a.address) = 4 AND ($2::inet IS NULL OR a.address = $2)
           ORDER BY s.id LIMIT 1"#,
        port.id,
        address as _
    )
    .fetch_optional(conn)
    .await?;
    target.ok_or_else(|| match address {
        Some(_) => not_found("/fixed_address", "the port does not have this address"),
        None => {
            let detail = format!("the port {} has no IPv4 address; give it one first", port.name);
            ApiError::because(ErrorCode::WrongState, detail)
        }
    })
}

/// Holds the external router that stands in the target's subnet until the transaction ends.
///
/// # Errors
/// `wrong_state` when there is none: nothing would lead to the address.
pub(in super::super) async fn hold_way_out(conn: &mut PgConnection, target: &Target) -> Result<(), ApiError> {
    let router = sqlx::query!(
        "SELECT r.name, r.external FROM router_interfaces i JOIN routers r ON r.id = i.router_id
         WHERE i.subnet_id = $1 FOR SHARE OF i, r",
        target.subnet_id
    )
    .fetch_optional(conn)
    .await?;
    let subnet = &target.subnet;
    let detail = match router {
        Some(router) if router.external => return Ok(()),
        Some(router) => format!(
            "the router {} in the subnet {subnet} does not lead out of the cloud; set its `external` to true",
            router.name
        ),
        None => format!(
            "no router leads out of the subnet {subnet}; make a router with `external` true and add an interface in \
             that subnet with its add_interface"
        ),
    };
    Err(ApiError::because(ErrorCode::WrongState, detail))
}
