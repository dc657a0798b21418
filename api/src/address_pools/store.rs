//! SQL of address pools.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use protocol::AddressPoolId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::Range;
use super::types::{AddressPool, AddressUsage, CreateAddressPool};
use crate::auth::{Action, Allowed, OfResource, actions};
use crate::http::{ApiError, ErrorCode, Selector, Version, violated_constraint};

/// A pool's row, with how many of its addresses are given.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub cidr: IpNet,
    pub first_address: IpAddr,
    pub last_address: IpAddr,
    pub total: i64,
    pub given: i64,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> AddressPool {
        AddressPool {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            cidr: self.cidr,
            first_address: self.first_address,
            last_address: self.last_address,
            addresses: AddressUsage { total: self.total, given: self.given },
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::CreateAddressPool>,
    id: AddressPoolId,
    new: &CreateAddressPool,
    (cidr, range): (Ipv4Net, Range),
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    refuse_hosts(conn, range, None).await?;
    let inserted = sqlx::query!(
        "INSERT INTO address_pools
             (id, name, description, cidr, first_address, last_address, created_at, updated_at)
         VALUES ($1, $2, $3, $4::inet::cidr, $5, $6, $7, $7)",
        id.as_uuid(),
        new.name.as_str(),
        new.description,
        IpNet::V4(cidr),
        IpAddr::V4(range.first) as _,
        IpAddr::V4(range.last) as _,
        now
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(refusal)
}

/// Refuses a range with an address at which a host is reached by the others: what comes to a floating IP would be taken
/// from that host. Addresses that this pool has already are not looked at.
async fn refuse_hosts(conn: &mut PgConnection, range: Range, pool: Option<Uuid>) -> Result<(), ApiError> {
    let host = sqlx::query!(
        r#"SELECT h.name, host(h.underlay_address) AS "address!" FROM hosts h
           WHERE h.underlay_address BETWEEN $1 AND $2
             AND NOT EXISTS (SELECT FROM address_pools p
                             WHERE p.id = $3 AND h.underlay_address BETWEEN p.first_address AND p.last_address)
           ORDER BY h.underlay_address LIMIT 1"#,
        IpAddr::V4(range.first) as _,
        IpAddr::V4(range.last) as _,
        pool
    )
    .fetch_optional(conn)
    .await?;
    let Some(host) = host else { return Ok(()) };
    let detail = format!(
        "{} is where the host {} is reached by the others; leave it out with `first_address` and `last_address`",
        host.address, host.name
    );
    Err(ApiError::because(ErrorCode::RangeOverlaps, detail))
}

pub(super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListAddressPools>,
    after: Uuid,
    name: Option<&str>,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, cidr AS "cidr: IpNet", first_address AS "first_address: IpAddr",
                  last_address AS "last_address: IpAddr", last_address - first_address + 1 AS "total!",
                  (SELECT count(*) FROM floating_ips f WHERE f.address_pool_id = p.id) AS "given!",
                  generation, created_at, updated_at
           FROM address_pools p WHERE id > $1 AND ($2::text IS NULL OR name = $2) ORDER BY id LIMIT $3"#,
        after,
        name,
        rows
    )
    .fetch_all(conn)
    .await
}

/// The pool of the proof.
pub(super) async fn find<A: Action<On: OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    read(conn, allowed.selector()).await
}

pub(super) async fn read(conn: &mut PgConnection, selector: &Selector) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, cidr AS "cidr: IpNet", first_address AS "first_address: IpAddr",
                  last_address AS "last_address: IpAddr", last_address - first_address + 1 AS "total!",
                  (SELECT count(*) FROM floating_ips f WHERE f.address_pool_id = p.id) AS "given!",
                  generation, created_at, updated_at
           FROM address_pools p WHERE id = $1 OR name = $2"#,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// Writes the row. Refused when addresses that are given would be outside.
pub(super) async fn update(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdateAddressPool>,
    row: &Row,
) -> Result<(), ApiError> {
    let outside = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM floating_ips
           WHERE address_pool_id = $1 AND NOT address BETWEEN $2 AND $3"#,
        row.id,
        row.first_address as _,
        row.last_address as _
    )
    .fetch_one(&mut *conn)
    .await?;
    if outside > 0 {
        let detail =
            format!("{outside} floating IPs have addresses outside of that range; delete them first");
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    if let (IpAddr::V4(first), IpAddr::V4(last)) = (row.first_address, row.last_address) {
        refuse_hosts(conn, Range { first, last }, Some(row.id)).await?;
    }
    let updated = sqlx::query!(
        "UPDATE address_pools SET name = $2, description = $3, first_address = $4, last_address = $5,
                                  generation = $6, updated_at = $7
         WHERE id = $1",
        row.id,
        row.name,
        row.description,
        row.first_address as _,
        row.last_address as _,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(refusal)
}

pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeleteAddressPool>,
    row: &Row,
) -> Result<(), ApiError> {
    let deleted = sqlx::query!("DELETE FROM address_pools WHERE id = $1", row.id).execute(conn).await;
    deleted.map(drop).map_err(|error| match violated_constraint(&error) {
        Some("floating_ips_address_pool_id_fkey") => ApiError::because(
            ErrorCode::InUse,
            format!(
                "{} of its addresses are floating IPs of projects; they must be deleted first",
                row.given
            ),
        ),
        _ => error.into(),
    })
}

fn refusal(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("address_pools_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is an address pool of this name already")
        }
        Some("address_pools_are_apart") => ApiError::because(
            ErrorCode::RangeOverlaps,
            "another pool has addresses of this range; choose a range that no pool has",
        ),
        _ => error.into(),
    }
}
