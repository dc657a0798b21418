//! SQL of ports. How they get their parts is in the files below.

pub(super) mod addresses;
pub(super) mod cards;
pub(super) mod leaving;
pub(super) mod parts;

use protocol::agent::NetworkFault;
use protocol::{MacAddress, NetworkId, PortId};
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{Seen, shown};
use super::types::{AddressPair, Port, PortAddress};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::hosts::unknown_guests;
use crate::http::{ApiError, ErrorCode, LabelSelector, Labels, Selector, Version, violated_constraint};
use crate::instances::Reference;
use crate::networks::{dns_domain, no_network, stored};
use crate::quotas;

/// MAC addresses that are tried before a call gives up; of sixteen million per network, few are taken.
const MAC_TRIES: usize = 32;

/// A port's row with what belongs to it, and what is known of its host.
#[derive(Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub name: String,
    pub labels: Json<Labels>,
    pub generation: i64,
    pub network_id: Uuid,
    pub network_name: String,
    pub mac: String,
    pub addresses: Json<Vec<StoredAddress>>,
    pub pairs: Json<Vec<AddressPair>>,
    pub groups: Json<Vec<StoredGroup>>,
    pub instance_id: Option<Uuid>,
    pub instance_name: Option<String>,
    pub hostname: Option<String>,
    pub project_name: String,
    pub owned_by_instance: bool,
    pub detaching: bool,
    pub placed: bool,
    pub host_revision: Option<i64>,
    pub network_applied: Option<i64>,
    pub network_faults: Option<Json<Vec<NetworkFault>>>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// As `port_addresses()` of the database gives it.
#[derive(Clone, Deserialize)]
pub(crate) struct StoredAddress {
    pub subnet_id: Uuid,
    pub subnet_name: String,
    pub address: std::net::IpAddr,
}

#[derive(Clone, Deserialize)]
pub(super) struct StoredGroup {
    pub id: Uuid,
    pub name: String,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> Result<Port, ApiError> {
        let groups: Vec<_> = self.groups.0.iter().map(|group| group.id.into()).collect();
        let (status, status_detail) = shown(&Seen {
            port: self.id.into(),
            network: self.network_id.into(),
            security_groups: &groups,
            attached: self.instance_id.is_some(),
            detaching: self.detaching,
            placed: self.placed,
            came_at: self.host_revision,
            applied: self.network_applied,
            faults: self.network_faults.as_ref().map(|faults| &faults.0[..]).unwrap_or_default(),
        });
        let instance = self.instance_id.zip(self.instance_name);
        Ok(Port {
            id: self.id.into(),
            name: self.name,
            labels: self.labels.0,
            network: Reference { id: self.network_id, name: self.network_name },
            mac: stored(&self.mac)?,
            addresses: self
                .addresses
                .0
                .into_iter()
                .map(|one| PortAddress {
                    subnet: Reference { id: one.subnet_id, name: one.subnet_name },
                    address: one.address,
                })
                .collect(),
            allowed_address_pairs: self.pairs.0,
            security_groups: self
                .groups
                .0
                .into_iter()
                .map(|group| Reference { id: group.id, name: group.name })
                .collect(),
            instance: instance.map(|(id, name)| Reference { id, name }),
            owned_by_instance: self.owned_by_instance,
            dns_name: self.hostname.map(|hostname| format!("{hostname}.{}", dns_domain(&self.project_name))),
            status,
            status_detail,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// A port that is about to be made.
pub(super) struct NewPort<'a> {
    pub id: PortId,
    pub network: NetworkId,
    pub name: &'a str,
    pub labels: &'a Labels,
    /// A random one unless given.
    pub mac: Option<MacAddress>,
    /// The instance that owns it, and the position of the card.
    pub owner: Option<(Uuid, i32)>,
    pub now: OffsetDateTime,
}

pub(super) async fn insert<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    new: &NewPort<'_>,
) -> Result<(), ApiError> {
    let Some(mac) = new.mac else { return insert_with_mac(conn, allowed, new, random_mac).await };
    if try_insert(conn, allowed, new, mac).await? {
        return Ok(());
    }
    let who = if unknown_guests::has_mac(conn, new.network, mac).await? {
        addresses::UNKNOWN_GUEST
    } else {
        "another port"
    };
    let detail = format!("{who} of the network has the MAC address {mac}; choose another one");
    Err(ApiError::because(ErrorCode::AddressTaken, detail))
}

/// In the range that QEMU's cards have.
fn random_mac() -> Option<MacAddress> {
    let [a, b, c]: [u8; 3] = rand::random();
    MacAddress::from_bytes([0x52, 0x54, 0x00, a, b, c]).ok()
}

/// Takes the first MAC address that nobody in the network has.
pub(super) async fn insert_with_mac<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    new: &NewPort<'_>,
    mut mac: impl FnMut() -> Option<MacAddress>,
) -> Result<(), ApiError> {
    for _ in 0..MAC_TRIES {
        if let Some(mac) = mac()
            && try_insert(conn, allowed, new, mac).await?
        {
            return Ok(());
        }
    }
    Err(ApiError::internal(format!("{MAC_TRIES} random MAC addresses were taken")))
}

/// False when the MAC address is taken.
async fn try_insert<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    new: &NewPort<'_>,
    mac: MacAddress,
) -> Result<bool, ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO ports (id, project_id, network_id, name, labels, mac, instance_id, position,
                            owned_by_instance, created_at, updated_at)
         SELECT $1, $2, $3, $4, $5, $6::text::macaddr, $7, $8, $7::uuid IS NOT NULL, $9, $9
         WHERE NOT EXISTS (SELECT FROM unknown_guest_cards WHERE network_id = $3 AND mac = $6::text::macaddr)
         ON CONFLICT ON CONSTRAINT ports_mac_unique DO NOTHING",
        new.id.as_uuid(),
        allowed.project().as_uuid(),
        new.network.as_uuid(),
        new.name,
        Json(new.labels) as _,
        mac.to_string(),
        new.owner.map(|(instance, _)| instance),
        new.owner.map(|(_, position)| position),
        new.now
    )
    .execute(conn)
    .await
    .map_err(name_taken)?;
    Ok(inserted.rows_affected() == 1)
}

/// A port of the project.
pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT p.id, p.name, p.labels AS "labels: Json<Labels>", p.generation, p.network_id,
                  n.name AS network_name, p.mac::text AS "mac!",
                  port_addresses(p.id) AS "addresses!: Json<Vec<StoredAddress>>",
                  port_pairs(p.id) AS "pairs!: Json<Vec<AddressPair>>",
                  port_groups(p.id) AS "groups!: Json<Vec<StoredGroup>>",
                  p.instance_id, i.name AS "instance_name?", i.hostname AS "hostname?", j.name AS project_name,
                  p.owned_by_instance, p.detaching,
                  i.host_id IS NOT NULL AS "placed!", p.host_revision, h.network_applied AS "network_applied?",
                  h.network_faults AS "network_faults?: Json<Vec<NetworkFault>>", p.created_at, p.updated_at
           FROM ports p
           JOIN networks n ON n.id = p.network_id
           JOIN projects j ON j.id = p.project_id
           LEFT JOIN instances i ON i.id = p.instance_id
           LEFT JOIN hosts h ON h.id = i.host_id
           WHERE p.project_id = $1 AND (p.id = $2 OR p.name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// What a list asks for.
pub(super) struct Filter<'a> {
    pub after: Uuid,
    pub name: Option<&'a str>,
    pub labels: &'a LabelSelector,
    /// In this network; `None` is any.
    pub network: Option<Uuid>,
    /// Of the instance with this name or id; `None` is any.
    pub instance: Option<&'a str>,
    pub rows: i64,
}

pub(super) async fn list(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListPorts>,
    filter: &Filter<'_>,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT p.id, p.name, p.labels AS "labels: Json<Labels>", p.generation, p.network_id,
                  n.name AS network_name, p.mac::text AS "mac!",
                  port_addresses(p.id) AS "addresses!: Json<Vec<StoredAddress>>",
                  port_pairs(p.id) AS "pairs!: Json<Vec<AddressPair>>",
                  port_groups(p.id) AS "groups!: Json<Vec<StoredGroup>>",
                  p.instance_id, i.name AS "instance_name?", i.hostname AS "hostname?", j.name AS project_name,
                  p.owned_by_instance, p.detaching,
                  i.host_id IS NOT NULL AS "placed!", p.host_revision, h.network_applied AS "network_applied?",
                  h.network_faults AS "network_faults?: Json<Vec<NetworkFault>>", p.created_at, p.updated_at
           FROM ports p
           JOIN networks n ON n.id = p.network_id
           JOIN projects j ON j.id = p.project_id
           LEFT JOIN instances i ON i.id = p.instance_id
           LEFT JOIN hosts h ON h.id = i.host_id
           WHERE p.project_id = $1 AND p.id > $2 AND ($3::text IS NULL OR p.name = $3)
             AND ($4::uuid IS NULL OR p.network_id = $4)
             AND ($5::text IS NULL OR i.name = $5 OR i.id::text = $5)
             AND p.labels @> $6 AND p.labels ?& $7 AND NOT p.labels ?| $8
             AND NOT p.labels @> ANY($9)
           ORDER BY p.id LIMIT $10"#,
        allowed.project().as_uuid(),
        filter.after,
        filter.name,
        filter.network,
        filter.instance,
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
    allowed: &Allowed<actions::UpdatePort>,
    row: &Row,
) -> Result<(), ApiError> {
    let updated = sqlx::query!(
        "UPDATE ports SET name = $3, labels = $4, generation = $5, updated_at = $6
         WHERE id = $1 AND project_id = $2",
        row.id,
        allowed.project().as_uuid(),
        row.name,
        Json(&row.labels.0) as _,
        row.generation,
        row.updated_at
    )
    .execute(conn)
    .await;
    updated.map(drop).map_err(name_taken)
}

/// Deletes a port with its addresses; a floating address of it stands for nothing then.
pub(super) async fn delete<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    // In the order in which everybody locks them.
    quotas::store::lock(conn, allowed.project()).await?;
    addresses::lock_subnets_of(conn, id).await?;
    sqlx::query!("DELETE FROM ports WHERE id = $1 AND project_id = $2", id, allowed.project().as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match violated_constraint(&error) {
        Some("ports_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is a port of this name in the project already")
        }
        Some("ports_network_id_fkey") => ApiError::invalid(vec![no_network("/network")]),
        _ => error.into(),
    }
}
