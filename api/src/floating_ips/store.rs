//! SQL of floating IPs.

pub(super) mod allocation;
pub(super) mod association;

use std::net::IpAddr;

use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::FloatingIp;
use crate::auth::{Action, Allowed, InProject, OfResource, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};

/// A floating IP's row, with the instance that has its port.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub labels: Json<Labels>,
    pub address: IpAddr,
    pub address_pool_id: Uuid,
    pub port_id: Option<Uuid>,
    pub fixed_address: Option<IpAddr>,
    pub instance_id: Option<Uuid>,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> FloatingIp {
        FloatingIp {
            id: self.id.into(),
            name: self.name,
            labels: self.labels.0,
            address: self.address,
            address_pool_id: self.address_pool_id.into(),
            port_id: self.port_id.map(Into::into),
            fixed_address: self.fixed_address,
            instance_id: self.instance_id.map(Into::into),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListFloatingIps>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT f.id, f.name, f.labels AS "labels: Json<Labels>", f.address AS "address: IpAddr",
                  f.address_pool_id, f.port_id, f.fixed_address AS "fixed_address: IpAddr",
                  p.instance_id AS "instance_id?", f.generation, f.created_at, f.updated_at
           FROM floating_ips f LEFT JOIN ports p ON p.id = f.port_id
           WHERE f.project_id = $1 AND f.id > $2 AND ($3::text IS NULL OR f.name = $3)
             AND f.labels @> $4 AND f.labels ?& $5 AND NOT f.labels ?| $6 AND NOT f.labels @> ANY($7)
           ORDER BY f.id LIMIT $8"#,
        allowed.project().as_uuid(),
        after,
        name,
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        rows
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT f.id, f.name, f.labels AS "labels: Json<Labels>", f.address AS "address: IpAddr",
                  f.address_pool_id, f.port_id, f.fixed_address AS "fixed_address: IpAddr",
                  p.instance_id AS "instance_id?", f.generation, f.created_at, f.updated_at
           FROM floating_ips f LEFT JOIN ports p ON p.id = f.port_id
           WHERE f.project_id = $1 AND (f.id = $2 OR f.name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// The floating IP of the proof, locked. Nothing else is locked after it: everybody locks ports, quotas and subnets first.
pub(super) async fn lock<A: Action<On: InProject + OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    let selector = allowed.selector();
    sqlx::query!(
        "SELECT FROM floating_ips WHERE project_id = $1 AND id = $2 FOR UPDATE",
        allowed.project().as_uuid(),
        selector.id()
    )
    .execute(&mut *conn)
    .await?;
    find(conn, allowed, selector).await
}

/// Writes name and labels, and what the floating IP stands for.
pub(super) async fn update<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE floating_ips SET name = $3, labels = $4, port_id = $5, fixed_address = $6, generation = $7,
                                 updated_at = $8
         WHERE project_id = $1 AND id = $2",
        allowed.project().as_uuid(),
        row.id,
        row.name,
        Json(&row.labels.0) as _,
        row.port_id,
        row.fixed_address as _,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(refusal)
}

/// Deletes the floating IP; its address is free from then on, whatever it stood for.
pub(super) async fn delete(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::DeleteFloatingIp>,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM floating_ips WHERE project_id = $1 AND id = $2",
        allowed.project().as_uuid(),
        id
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn refusal(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("floating_ips_name_unique") => ApiError::because(
            ErrorCode::NameTaken,
            "there is a floating IP of this name in the project already",
        ),
        Some("floating_ips_address_unique") => ApiError::because(
            ErrorCode::InUse,
            "the address is given already; choose another one, or leave it out",
        ),
        Some("floating_ips_one_per_address") => ApiError::because(
            ErrorCode::InUse,
            "another floating IP stands for this address; disassociate that one first",
        ),
        // The port lost the address while it was looked at.
        Some("floating_ips_of_a_port") => association::not_found("/port", "the port has no such address"),
        _ => error.into(),
    }
}
