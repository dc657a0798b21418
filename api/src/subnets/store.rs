//! SQL of subnets.

use protocol::{NetworkId, ProjectId, SubnetId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::Plan;
use super::types::{AddressRange, Subnet};
use crate::auth::{Action, Allowed, InProject, OfResource, actions};
use crate::http::{
    ApiError, ErrorCode, FieldError, LabelSelector, Labels, Version, counted, violated_constraint,
};
use crate::instances::Reference;
use crate::networks::stored;

/// A subnet's row with the name of its network.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub network_id: Uuid,
    pub network_name: String,
    pub cidr: String,
    pub gateway: Option<String>,
    pub service_address: String,
    pub ranges: Json<Vec<AddressRange>>,
    pub dns_servers: Vec<String>,
    pub dhcp: bool,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Result<Subnet, ApiError> {
        Ok(Subnet {
            id: self.id.into(),
            name: self.name,
            labels: self.labels.0,
            network: Reference { id: self.network_id, name: self.network_name },
            cidr: stored(&self.cidr)?,
            gateway: self.gateway.as_deref().map(stored).transpose()?,
            service_address: stored(&self.service_address)?,
            allocation_ranges: self.ranges.0,
            dns_servers: self.dns_servers.iter().map(|server| stored(server)).collect::<Result<_, _>>()?,
            dhcp: self.dhcp,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// A subnet that is about to be made.
pub(crate) struct NewSubnet<'a> {
    pub id: SubnetId,
    pub project: ProjectId,
    pub network: NetworkId,
    pub name: &'a str,
    pub labels: &'a Labels,
    pub plan: &'a Plan,
    pub dns_servers: &'a [std::net::IpAddr],
    pub dhcp: bool,
    pub now: OffsetDateTime,
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::CreateSubnet>,
    new: &NewSubnet<'_>,
) -> Result<(), ApiError> {
    insert_planned(conn, new).await
}

/// Makes a subnet as planned, for its owner or with a new project.
pub(crate) async fn insert_planned(conn: &mut PgConnection, new: &NewSubnet<'_>) -> Result<(), ApiError> {
    let plan = new.plan;
    let cidr = plan.cidr.to_string();
    if let Some(name) = overlapping(conn, new.network, &cidr).await? {
        return Err(overlap(&name));
    }
    let dns_servers: Vec<_> = new.dns_servers.iter().map(ToString::to_string).collect();
    let inserted = sqlx::query!(
        "INSERT INTO subnets (id, project_id, network_id, name, labels, cidr, gateway, service_address, dhcp,
                              dns_servers, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6::text::cidr, $7::text::inet, $8::text::inet, $9, $10::text[]::inet[],
                 $11, $11)",
        new.id.as_uuid(),
        new.project.as_uuid(),
        new.network.as_uuid(),
        new.name,
        Json(new.labels) as _,
        cidr,
        plan.gateway.map(|address| address.to_string()),
        plan.service_address.to_string(),
        new.dhcp,
        &dns_servers,
        new.now
    )
    .execute(&mut *conn)
    .await;
    inserted.map_err(|error| match violated_constraint(&error) {
        // Somebody was faster.
        Some("subnets_of_a_network_are_apart") => overlap("another subnet"),
        _ => name_taken(error),
    })?;
    let (first, last): (Vec<_>, Vec<_>) =
        plan.ranges.iter().map(|(first, last)| (first.to_string(), last.to_string())).unzip();
    sqlx::query!(
        "INSERT INTO subnet_allocation_ranges (subnet_id, first_address, last_address)
         SELECT $1, first::inet, last::inet FROM unnest($2::text[], $3::text[]) r (first, last)",
        new.id.as_uuid(),
        &first,
        &last
    )
    .execute(&mut *conn)
    .await?;
    let kept: Vec<_> =
        plan.gateway.into_iter().chain([plan.service_address]).map(|address| address.to_string()).collect();
    sqlx::query!(
        "INSERT INTO subnet_addresses (subnet_id, address, reserved)
         SELECT $1, kept::inet, true FROM unnest($2::text[]) kept",
        new.id.as_uuid(),
        &kept
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The name of a subnet of the network that this prefix touches.
async fn overlapping(
    conn: &mut PgConnection,
    network: NetworkId,
    cidr: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT name FROM subnets WHERE network_id = $1 AND cidr && $2::text::cidr ORDER BY cidr LIMIT 1",
        network.as_uuid(),
        cidr
    )
    .fetch_optional(conn)
    .await
}

fn overlap(name: &str) -> ApiError {
    let detail = format!("its addresses overlap with those of {name} in the network; choose others");
    ApiError::because(ErrorCode::SubnetOverlaps, detail).with_fields(vec![FieldError::new(
        "/cidr",
        "overlap",
        format!("overlaps with {name}"),
    )])
}

/// The subnet of the proof.
pub(super) async fn find<A: Action<On: InProject + OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    find_one(conn, allowed, allowed.selector().id(), allowed.selector().name()).await
}

/// A subnet of the project.
pub(super) async fn find_one<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    id: Option<Uuid>,
    name: Option<&str>,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.id, s.name, s.labels AS "labels: Json<Labels>", s.generation, s.network_id,
                  n.name AS network_name, s.cidr::text AS "cidr!", host(s.gateway) AS gateway,
                  host(s.service_address) AS "service_address!", subnet_ranges(s.id) AS "ranges!: Json<Vec<AddressRange>>",
                  ARRAY(SELECT host(server) FROM unnest(s.dns_servers) server) AS "dns_servers!: Vec<String>",
                  s.dhcp, s.created_at, s.updated_at
           FROM subnets s JOIN networks n ON n.id = s.network_id
           WHERE s.project_id = $1 AND (s.id = $2 OR s.name = $3)"#,
        allowed.project().as_uuid(),
        id,
        name
    )
    .fetch_optional(conn)
    .await
}

/// What a list asks for.
pub(super) struct Filter<'a> {
    pub after: Uuid,
    pub name: Option<&'a str>,
    pub labels: &'a LabelSelector,
    /// Of this network; `None` is any.
    pub network: Option<Uuid>,
    pub rows: i64,
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListSubnets>,
    filter: &Filter<'_>,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.id, s.name, s.labels AS "labels: Json<Labels>", s.generation, s.network_id,
                  n.name AS network_name, s.cidr::text AS "cidr!", host(s.gateway) AS gateway,
                  host(s.service_address) AS "service_address!", subnet_ranges(s.id) AS "ranges!: Json<Vec<AddressRange>>",
                  ARRAY(SELECT host(server) FROM unnest(s.dns_servers) server) AS "dns_servers!: Vec<String>",
                  s.dhcp, s.created_at, s.updated_at
           FROM subnets s JOIN networks n ON n.id = s.network_id
           WHERE s.project_id = $1 AND s.id > $2 AND ($3::text IS NULL OR s.name = $3)
             AND ($4::uuid IS NULL OR s.network_id = $4)
             AND s.labels @> $5 AND s.labels ?& $6 AND NOT s.labels ?| $7
             AND NOT s.labels @> ANY($8)
           ORDER BY s.id LIMIT $9"#,
        allowed.project().as_uuid(),
        filter.after,
        filter.name,
        filter.network,
        filter.labels.equal(),
        filter.labels.present(),
        filter.labels.absent(),
        &filter.labels.not_equal(),
        filter.rows
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UpdateSubnet>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE subnets SET name = $3, labels = $4, dns_servers = $5::text[]::inet[], generation = $6,
                updated_at = $7
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        Json(&row.labels.0) as _,
        &row.dns_servers,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Deletes a subnet that no port and no router has an address of.
pub(super) async fn delete(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::DeleteSubnet>,
    id: Uuid,
) -> Result<(), ApiError> {
    let used = sqlx::query!(
        r#"SELECT count(port_id) AS "ports!", count(router_interface_id) AS "routers!"
           FROM subnet_addresses WHERE subnet_id = $1"#,
        id
    )
    .fetch_one(&mut *conn)
    .await?;
    refuse_used(used.ports, used.routers)?;
    sqlx::query!("DELETE FROM subnet_addresses WHERE subnet_id = $1", id).execute(&mut *conn).await?;
    sqlx::query!("DELETE FROM subnets WHERE id = $1 AND project_id = $2", id, allowed.project().as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

fn refuse_used(ports: i64, routers: i64) -> Result<(), ApiError> {
    let Some(there) = counted(&[(ports, "port"), (routers, "router")]) else { return Ok(()) };
    let detail = format!("still in it: {there}; delete the ports and remove the routers' interfaces first");
    Err(ApiError::because(ErrorCode::InUse, detail))
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("subnets_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a subnet of this name in the project already")
        }
        Some("subnets_network_id_fkey") => ApiError::invalid(vec![crate::networks::no_network("/network")]),
        _ => error.into(),
    }
}
