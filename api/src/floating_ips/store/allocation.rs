//! SQL of taking an address out of a pool.

use std::net::{IpAddr, Ipv4Addr};

use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::refusal;
use crate::auth::{Allowed, actions};
use crate::floating_ips::types::CreateFloatingIp;
use crate::http::{ApiError, ErrorCode, FieldError, Selector};

/// A pool, locked: nobody else takes an address of it until the transaction ends.
#[derive(Debug)]
struct Pool {
    id: Uuid,
    name: String,
    first_address: IpAddr,
    last_address: IpAddr,
}

/// Makes a floating IP of the address that is asked for, or of the one that has been free for longest.
pub(in super::super) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateFloatingIp>,
    id: Uuid,
    new: &CreateFloatingIp,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let pool = lock_pool(conn, new.address_pool.as_deref()).await?;
    let address = match new.address {
        Some(address) => chosen(&pool, address)?,
        None => longest_free(conn, &pool).await?,
    };
    let inserted = sqlx::query!(
        "INSERT INTO floating_ips (id, project_id, name, labels, address_pool_id, address, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
        id,
        allowed.project().as_uuid(),
        new.name.as_str(),
        Json(&new.labels) as _,
        pool.id,
        address as _,
        now
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(refusal)
}

/// The pool that is named, or the only one there is.
async fn lock_pool(conn: &mut PgConnection, named: Option<&str>) -> Result<Pool, ApiError> {
    let missing =
        |message: String| ApiError::invalid(vec![FieldError::new("/address_pool", "not_found", message)]);
    let selector = match named {
        Some(named) => {
            Selector::parse(named).ok_or_else(|| missing("there is no such address pool".to_owned()))?
        }
        None => only_pool(conn).await?,
    };
    let pool = sqlx::query_as!(
        Pool,
        r#"SELECT id, name, first_address AS "first_address: IpAddr", last_address AS "last_address: IpAddr"
           FROM address_pools WHERE id = $1 OR name = $2 FOR NO KEY UPDATE"#,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await?;
    pool.ok_or_else(|| missing("there is no such address pool".to_owned()))
}

async fn only_pool(conn: &mut PgConnection) -> Result<Selector, ApiError> {
    let pools =
        sqlx::query!("SELECT id, name FROM address_pools ORDER BY name LIMIT 10").fetch_all(conn).await?;
    match pools.as_slice() {
        [] => Err(ApiError::because(
            ErrorCode::AddressPoolExhausted,
            "there is no address pool; ask an operator to make one",
        )),
        [only] => Ok(Selector::Id(only.id)),
        several => {
            let names: Vec<_> = several.iter().map(|pool| pool.name.as_str()).collect();
            let message = format!("there are several address pools; name one: {}", names.join(", "));
            Err(ApiError::invalid(vec![FieldError::new("/address_pool", "invalid", message)]))
        }
    }
}

fn chosen(pool: &Pool, address: Ipv4Addr) -> Result<IpAddr, ApiError> {
    let address = IpAddr::V4(address);
    if (pool.first_address..=pool.last_address).contains(&address) {
        return Ok(address);
    }
    let Pool { name, first_address, last_address, .. } = pool;
    let message = format!("the pool {name} gives addresses from {first_address} to {last_address}");
    Err(ApiError::invalid(vec![FieldError::new("/address", "out_of_range", message)]))
}

/// The lowest address that was never given: the first of the pool, or one that follows another. When there is none,
/// the one that was given back before all others.
async fn longest_free(conn: &mut PgConnection, pool: &Pool) -> Result<IpAddr, ApiError> {
    let longest_free = sqlx::query_scalar!(
        r#"WITH known AS (
               SELECT address FROM floating_ips WHERE address_pool_id = $1
               UNION ALL
               SELECT address FROM released_floating_addresses WHERE address_pool_id = $1)
           SELECT address AS "address!: IpAddr" FROM (
               SELECT candidate AS address, 0 AS turn
               FROM (SELECT $2::inet AS candidate UNION ALL SELECT address + 1 FROM known) candidates
               WHERE NOT EXISTS (SELECT FROM floating_ips given WHERE given.address = candidate)
                 AND NOT EXISTS (SELECT FROM released_floating_addresses released
                                 WHERE released.address = candidate)
               UNION ALL
               SELECT address, turn FROM released_floating_addresses WHERE address_pool_id = $1) free
           WHERE address BETWEEN $2 AND $3
           ORDER BY turn, address LIMIT 1"#,
        pool.id,
        pool.first_address as _,
        pool.last_address as _
    )
    .fetch_optional(conn)
    .await?;
    longest_free.ok_or_else(|| {
        let detail = format!(
            "every address of the pool {} is given; delete a floating IP that nothing needs, name another pool, or \
             ask an operator for more addresses",
            pool.name
        );
        ApiError::because(ErrorCode::AddressPoolExhausted, detail)
    })
}
