//! SQL of pools, for operators and for whoever names one. What agents say of them is in the file below.

pub(crate) mod orders;
pub(crate) mod reports;

use protocol::PoolId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreatePool, Pool, UpdatePool};
use crate::auth::{Allowed, actions};
use crate::hosts::Capacity;
use crate::http::{ApiError, ErrorCode, FieldError, Selector, Version, violated_constraint};

/// A pool's row, with how many hosts have it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub generation: i64,
    pub overcommit_percent: i32,
    pub low_percent: i32,
    pub low: bool,
    pub disk_gib_capacity: i32,
    pub disk_gib_reserved: i32,
    pub hosts: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Pool {
        Pool {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            overcommit_percent: self.overcommit_percent,
            low_percent: self.low_percent,
            low: self.low,
            disk_gib: Capacity { total: self.disk_gib_capacity, reserved: self.disk_gib_reserved },
            hosts: self.hosts,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// A new pool is the directory that most of the hosts have that were told of it before.
pub(super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::CreatePool>,
    id: PoolId,
    new: &CreatePool,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO pools (id, name, description, overcommit_percent, low_percent, identity, disk_gib_capacity, low,
                            created_at, updated_at)
         SELECT $1, $2, $3, $4, $6, h.identity, pool_capacity(h.total_bytes, $4, 0),
                coalesce(pool_is_low(h.total_bytes, h.free_bytes, $6, false), false), $5, $5
         FROM (VALUES (1)) one
         LEFT JOIN LATERAL (SELECT identity, max(total_bytes) AS total_bytes, min(free_bytes) AS free_bytes FROM host_pools
                            WHERE pool_name = $2 AND identity IS NOT NULL
                            GROUP BY identity ORDER BY count(*) DESC, min(host_id::text) LIMIT 1) h ON true",
        id.as_uuid(),
        new.name.as_str(),
        new.description,
        new.overcommit_percent(),
        now,
        new.low_percent()
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| match violated_constraint(&error) {
        Some("pools_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a pool of this name already")
        }
        _ => error.into(),
    })
}

pub(super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListPools>,
    after: Uuid,
    name: Option<&str>,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, generation, overcommit_percent, low_percent, low, disk_gib_capacity,
                  disk_gib_reserved,
                  (SELECT count(*) FROM pool_hosts h WHERE h.pool_id = p.id) AS "hosts!", created_at, updated_at
           FROM pools p WHERE id > $1 AND ($2::text IS NULL OR name = $2) ORDER BY id LIMIT $3"#,
        after,
        name,
        rows
    )
    .fetch_all(conn)
    .await
}

/// Pools belong to nobody and hold no secrets: looking one up needs no proof.
pub(super) async fn read(conn: &mut PgConnection, selector: &Selector) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, generation, overcommit_percent, low_percent, low, disk_gib_capacity,
                  disk_gib_reserved,
                  (SELECT count(*) FROM pool_hosts h WHERE h.pool_id = p.id) AS "hosts!", created_at, updated_at
           FROM pools p WHERE id = $1 OR name = $2"#,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdatePool>,
    id: Uuid,
    patch: &UpdatePool,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE pools p SET description = coalesce($2, description), generation = generation + 1, updated_at = $4,
                overcommit_percent = coalesce($3, overcommit_percent), low_percent = coalesce($5, low_percent),
                low = coalesce((SELECT pool_is_low(max(h.total_bytes), min(h.free_bytes), coalesce($5, p.low_percent), p.low)
                                FROM host_pools h WHERE h.pool_name = p.name AND h.identity = p.identity), low),
                disk_gib_capacity = pool_capacity(
                    (SELECT max(h.total_bytes) FROM host_pools h WHERE h.pool_name = p.name AND h.identity = p.identity),
                    coalesce($3, overcommit_percent), disk_gib_reserved)
         WHERE id = $1",
        id,
        patch.description,
        patch.overcommit_percent,
        now,
        patch.low_percent
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeletePool>,
    id: Uuid,
) -> Result<(), ApiError> {
    let deleted = sqlx::query!("DELETE FROM pools WHERE id = $1", id).execute(conn).await;
    deleted.map(drop).map_err(|error| match violated_constraint(&error) {
        Some("volumes_pool_id_fkey" | "layers_pool_id_fkey") => {
            ApiError::because(ErrorCode::InUse, "volumes or snapshots are in it; delete them first, and wait until they are gone")
        }
        // The row of a volume may go before its files.
        Some("layer_removals_pool_id_fkey") => ApiError::because(
            ErrorCode::InUse,
            "hosts still remove files of deleted volumes or snapshots in it; try again when they have done that",
        ),
        _ => error.into(),
    })
}

/// A pool that a body names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub id: Uuid,
    pub name: String,
}

/// The pool that the body names at `pointer`, which stays until the transaction ends.
pub(crate) async fn named(conn: &mut PgConnection, name: &str, pointer: &str) -> Result<Named, ApiError> {
    let missing = || ApiError::invalid(vec![FieldError::new(pointer, "not_found", "there is no such pool")]);
    let selector = Selector::parse(name).ok_or_else(missing)?;
    let found = sqlx::query_as!(
        Named,
        "SELECT id, name FROM pools WHERE id = $1 OR name = $2 FOR KEY SHARE",
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await?;
    found.ok_or_else(missing)
}

/// What policies call the pool that a body names: its name, also where the body has its id; as it stands in the body when
/// there is no such pool.
pub(crate) async fn called(conn: &mut PgConnection, pool: &str) -> Result<String, sqlx::Error> {
    let found = match Selector::parse(pool) {
        Some(selector) => read(conn, &selector).await?,
        None => None,
    };
    Ok(found.map_or_else(|| pool.to_owned(), |row| row.name))
}

/// Locks pools of which something is to be reserved or given back, in one order for everybody.
pub(crate) async fn lock(conn: &mut PgConnection, pools: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT FROM pools WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", pools)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether the host has the pool.
pub(crate) async fn is_on(conn: &mut PgConnection, pool: Uuid, host: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pool_hosts WHERE pool_id = $1 AND host_id = $2) AS "is_on!""#,
        pool,
        host
    )
    .fetch_one(conn)
    .await
}
