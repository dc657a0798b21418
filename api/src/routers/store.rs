//! SQL of routers.

pub(crate) mod defaults;
pub(crate) mod hosts;
pub(super) mod interfaces;

use std::net::IpAddr;

use ipnet::IpNet;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use self::interfaces::InterfaceRow;
use super::model::random_number;
use super::types::{Router, StaticRoute};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};

/// So often a random number or address that is taken is drawn again. Two million numbers are there.
const DRAWS: usize = 32;

/// A router's row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub labels: Json<Labels>,
    pub external: bool,
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// A static route's row.
#[derive(Debug, Clone)]
pub(super) struct RouteRow {
    pub router_id: Uuid,
    pub destination: IpNet,
    pub next_hop: IpAddr,
}

/// Where routers stand, and their routes.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    pub interfaces: Vec<InterfaceRow>,
    pub routes: Vec<RouteRow>,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    /// The router, with its own of the parts of several.
    pub(super) fn into_wire(self, parts: &Parts) -> Router {
        let interfaces = parts.interfaces.iter().filter(|interface| interface.router_id == self.id);
        let routes = parts.routes.iter().filter(|route| route.router_id == self.id);
        Router {
            id: self.id.into(),
            name: self.name,
            labels: self.labels.0,
            external: self.external,
            interfaces: interfaces.map(InterfaceRow::to_wire).collect(),
            routes: routes
                .map(|route| StaticRoute { destination: route.destination, next_hop: route.next_hop })
                .collect(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// Inserts a router with a free random number.
pub(super) async fn insert(
    conn: &mut PgConnection,
    project: Uuid,
    id: Uuid,
    name: &str,
    labels: &Labels,
    external: bool,
    now: OffsetDateTime,
) -> Result<Row, ApiError> {
    for _ in 0..DRAWS {
        let inserted = sqlx::query_as!(
            Row,
            r#"INSERT INTO routers (id, project_id, name, labels, number, external, created_at, updated_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
               ON CONFLICT ON CONSTRAINT routers_number_unique DO NOTHING
               RETURNING id, name, labels AS "labels: Json<Labels>", external, generation, created_at, updated_at"#,
            id,
            project,
            name,
            Json(labels) as _,
            random_number(),
            external,
            now
        )
        .fetch_optional(&mut *conn)
        .await
        .map_err(name_taken)?;
        if let Some(row) = inserted {
            return Ok(row);
        }
    }
    Err(ApiError::because(ErrorCode::Busy, "no free number for a router was found; try again"))
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListRouters>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, labels AS "labels: Json<Labels>", external, generation, created_at, updated_at
           FROM routers
           WHERE project_id = $1 AND id > $2 AND ($3::text IS NULL OR name = $3)
             AND labels @> $4 AND labels ?& $5 AND NOT labels ?| $6 AND NOT labels @> ANY($7)
           ORDER BY id LIMIT $8"#,
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
        r#"SELECT id, name, labels AS "labels: Json<Labels>", external, generation, created_at, updated_at
           FROM routers WHERE project_id = $1 AND (id = $2 OR name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// Where these routers stand, and their routes.
pub(super) async fn parts(conn: &mut PgConnection, routers: &[Uuid]) -> Result<Parts, sqlx::Error> {
    let interfaces = interfaces::of_routers(&mut *conn, routers).await?;
    let routes = sqlx::query_as!(
        RouteRow,
        r#"SELECT router_id, destination AS "destination: IpNet", next_hop AS "next_hop: IpAddr"
           FROM router_static_routes WHERE router_id = ANY($1) ORDER BY router_id, destination"#,
        routers
    )
    .fetch_all(conn)
    .await?;
    Ok(Parts { interfaces, routes })
}

/// Writes what a patch or a change of interfaces has made of the row.
pub(super) async fn update<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE routers SET name = $3, labels = $4, external = $5, generation = $6, updated_at = $7
         WHERE project_id = $1 AND id = $2",
        allowed.project().as_uuid(),
        row.id,
        row.name,
        Json(&row.labels.0) as _,
        row.external,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Gives the router these static routes and no others.
pub(super) async fn replace_routes(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdateRouter>,
    router: Uuid,
    routes: &[StaticRoute],
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM router_static_routes WHERE router_id = $1", router).execute(&mut *conn).await?;
    let destinations: Vec<IpNet> = routes.iter().map(|route| route.destination).collect();
    let hops: Vec<IpNet> = routes.iter().map(|route| route.next_hop.into()).collect();
    sqlx::query!(
        "INSERT INTO router_static_routes (router_id, destination, next_hop)
         SELECT $1, destination::cidr, next_hop FROM unnest($2::inet[], $3::inet[]) AS r (destination, next_hop)",
        router,
        &destinations,
        &hops
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Names of floating IPs of ports in the subnets that this router stands in, if there are any; at most five.
pub(super) async fn floating_ips(
    conn: &mut PgConnection,
    router: Uuid,
    subnet: Option<Uuid>,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT string_agg(name, ', ' ORDER BY name) FROM (
             SELECT f.name FROM floating_ips f
             JOIN subnet_addresses a ON (a.port_id, a.address) = (f.port_id, f.fixed_address)
             JOIN router_interfaces i ON i.subnet_id = a.subnet_id
             WHERE i.router_id = $1 AND ($2::uuid IS NULL OR i.subnet_id = $2) ORDER BY f.name LIMIT 5) shown",
        router,
        subnet
    )
    .fetch_one(conn)
    .await
}

/// Deletes the router; refused while it stands anywhere.
pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeleteRouter>,
    router: Uuid,
) -> Result<(), ApiError> {
    let subnets = sqlx::query_scalar!(
        "SELECT string_agg(s.name, ', ' ORDER BY s.name)
         FROM router_interfaces i JOIN subnets s ON s.id = i.subnet_id WHERE i.router_id = $1",
        router
    )
    .fetch_one(&mut *conn)
    .await?;
    if let Some(subnets) = subnets {
        let through = floating_ips(conn, router, None).await?;
        let through = through.map(|names| format!(", and floating IPs lead through it ({names})"));
        let detail = format!(
            "it has interfaces in subnets ({subnets}){}; disassociate floating IPs, and remove the interfaces",
            through.unwrap_or_default()
        );
        return Err(ApiError::because(ErrorCode::InUse, detail));
    }
    sqlx::query!("DELETE FROM routers WHERE id = $1", router).execute(conn).await?;
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("routers_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a router of this name in the project already")
        }
        _ => error.into(),
    }
}
