//! SQL of networks. What hosts and controllers need is in the files below.

pub(super) mod document;
pub(super) mod pending;

use protocol::{NetworkId, ProjectId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::no_network;
use super::types::Network;
use crate::auth::{Action, Allowed, InProject, OfResource, actions};
use crate::http::{
    ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, counted, violated_constraint,
};
use crate::quotas;

/// VNIs that are tried before a call gives up; of sixteen million, few are taken.
const VNI_TRIES: usize = 32;
/// So many of what is in the way are named.
const NAMED: i64 = 3;

/// A network's row.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub vni: i32,
    pub mtu: i32,
    pub is_default: bool,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Network {
        Network {
            id: self.id.into(),
            name: self.name,
            description: self.description,
            labels: self.labels.0,
            vni: self.vni,
            mtu: self.mtu,
            is_default: self.is_default,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// A network that is about to be made.
pub(crate) struct NewNetwork<'a> {
    pub id: NetworkId,
    pub project: ProjectId,
    pub name: &'a str,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub mtu: i32,
    pub is_default: bool,
    pub now: OffsetDateTime,
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::CreateNetwork>,
    new: &NewNetwork<'_>,
) -> Result<Row, ApiError> {
    insert_with_vni(conn, new, random_vni).await
}

/// Makes the network that instances of a new project get.
pub(crate) async fn insert_default(conn: &mut PgConnection, new: &NewNetwork<'_>) -> Result<(), ApiError> {
    insert_with_vni(conn, new, random_vni).await.map(drop)
}

fn random_vni() -> i32 {
    rand::random_range(1..=protocol::Vni::MAX).cast_signed()
}

/// Takes the first VNI that nobody has.
pub(super) async fn insert_with_vni(
    conn: &mut PgConnection,
    new: &NewNetwork<'_>,
    mut vni: impl FnMut() -> i32,
) -> Result<Row, ApiError> {
    for _ in 0..VNI_TRIES {
        let inserted = sqlx::query_as!(
            Row,
            r#"INSERT INTO networks (id, project_id, name, description, labels, vni, mtu, is_default, created_at,
                                     updated_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
               ON CONFLICT ON CONSTRAINT networks_vni_unique DO NOTHING
               RETURNING id, name, description, labels AS "labels: Json<Labels>", generation, vni, mtu,
                         is_default, created_at, updated_at"#,
            new.id.as_uuid(),
            new.project.as_uuid(),
            new.name,
            new.description,
            Json(new.labels) as _,
            vni(),
            new.mtu,
            new.is_default,
            new.now
        )
        .fetch_optional(&mut *conn)
        .await;
        if let Some(row) = inserted.map_err(name_taken)? {
            return Ok(row);
        }
    }
    Err(ApiError::internal(format!("{VNI_TRIES} random VNIs were taken")))
}

/// The network that a field of a body names, kept from being deleted until the transaction ends.
pub(crate) async fn named<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    name: &str,
    pointer: &str,
) -> Result<NetworkId, ApiError> {
    let missing = || ApiError::invalid(vec![no_network(pointer)]);
    let selector = Selector::parse(name).ok_or_else(missing)?;
    let id = sqlx::query_scalar!(
        "SELECT id FROM networks WHERE project_id = $1 AND (id = $2 OR name = $3) FOR KEY SHARE",
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await?;
    id.map(NetworkId::from).ok_or_else(missing)
}

/// The network that an instance gets when it asks for none, kept like [`named`].
pub(crate) async fn default_of<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<NetworkId>, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "SELECT id FROM networks WHERE project_id = $1 AND is_default FOR KEY SHARE",
        allowed.project().as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(NetworkId::from))
}

/// The network that a list is narrowed to. One that is not there has nothing: it becomes the id of none.
pub(crate) async fn filtered<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    wanted: Option<&str>,
) -> Result<Option<Uuid>, sqlx::Error> {
    let Some(wanted) = wanted else { return Ok(None) };
    let Some(selector) = Selector::parse(wanted) else { return Ok(Some(Uuid::nil())) };
    let row = find_one(conn, allowed, &selector).await?;
    Ok(Some(row.map_or(Uuid::nil(), |row| row.id)))
}

/// The network of the proof.
pub(super) async fn find<A: Action<On: InProject + OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Row>, sqlx::Error> {
    find_one(conn, allowed, allowed.selector()).await
}

async fn find_one<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, labels AS "labels: Json<Labels>", generation, vni, mtu, is_default,
                  created_at, updated_at
           FROM networks WHERE project_id = $1 AND (id = $2 OR name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListNetworks>,
    after: Uuid,
    name: Option<&str>,
    labels: &LabelSelector,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, description, labels AS "labels: Json<Labels>", generation, vni, mtu, is_default,
                  created_at, updated_at
           FROM networks
           WHERE project_id = $1 AND id > $2 AND ($3::text IS NULL OR name = $3)
             AND labels @> $4 AND labels ?& $5 AND NOT labels ?| $6
             AND NOT labels @> ANY($7)
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

pub(super) async fn update(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::UpdateNetwork>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE networks SET name = $3, description = $4, labels = $5, generation = $6, updated_at = $7
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        row.description,
        Json(&row.labels.0) as _,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Deletes the network with its subnets; refused while a port or a router is in it.
pub(super) async fn delete(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::DeleteNetwork>,
    id: Uuid,
) -> Result<(), ApiError> {
    // In the order in which everybody locks them.
    quotas::store::lock(conn, allowed.project()).await?;
    sqlx::query!("SELECT FROM subnets WHERE network_id = $1 ORDER BY id FOR UPDATE", id)
        .execute(&mut *conn)
        .await?;
    refuse_used(conn, id).await?;
    sqlx::query!(
        "DELETE FROM subnet_addresses a USING subnets s WHERE s.id = a.subnet_id AND s.network_id = $1",
        id
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM subnets WHERE network_id = $1", id).execute(&mut *conn).await?;
    sqlx::query!("DELETE FROM networks WHERE id = $1 AND project_id = $2", id, allowed.project().as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// Says what is still in the network, the first of each by name.
async fn refuse_used(conn: &mut PgConnection, id: Uuid) -> Result<(), ApiError> {
    let used = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM ports WHERE network_id = $1) AS "ports!",
                  ARRAY(SELECT p.name || coalesce(' of the instance ' || i.name, '')
                        FROM ports p LEFT JOIN instances i ON i.id = p.instance_id
                        WHERE p.network_id = $1 ORDER BY p.name LIMIT $2) AS "port_names!",
                  (SELECT count(DISTINCT r.router_id) FROM router_interfaces r JOIN subnets s ON s.id = r.subnet_id
                   WHERE s.network_id = $1) AS "routers!",
                  ARRAY(SELECT DISTINCT o.name FROM router_interfaces r
                        JOIN subnets s ON s.id = r.subnet_id JOIN routers o ON o.id = r.router_id
                        WHERE s.network_id = $1 ORDER BY o.name LIMIT $2) AS "router_names!""#,
        id,
        NAMED
    )
    .fetch_one(conn)
    .await?;
    let kinds =
        [("port", used.ports, &used.port_names), ("router", used.routers, &used.router_names)].into_iter();
    let there: Vec<_> = kinds
        .filter_map(|(kind, count, names)| {
            let more = if i64::try_from(names.len()).is_ok_and(|named| named < count) { ", …" } else { "" };
            Some(format!("{} ({}{more})", counted(&[(count, kind)])?, names.join(", ")))
        })
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "still in it: {}; delete the ports, of which those of instances go with these or by `detach_port`, and remove \
         the routers' interfaces first",
        there.join(" and ")
    );
    Err(ApiError::because(ErrorCode::InUse, detail))
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("networks_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a network of this name in the project already")
        }
        _ => error.into(),
    }
}
