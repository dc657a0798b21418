//! What is shown of guests that the cloud does not know. Their specifications are read as far as they can be: a replica of
//! another release may have stored them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use protocol::MacAddress;
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::super::types::{MaybeKnown, UnknownAddress, UnknownCard, UnknownGuest, UnknownVolume};
use crate::instances::Reference;

#[derive(Debug, Default, Deserialize)]
struct Spec {
    hostname: String,
    project_id: Option<Uuid>,
    vcpus: i64,
    memory_mib: i64,
    volumes: Vec<Volume>,
    cards: Vec<Card>,
}

#[derive(Debug, Deserialize)]
struct Volume {
    id: Uuid,
    size_gib: i64,
    pool: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Card {
    network_id: Uuid,
    mac: MacAddress,
    addresses: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    subnet_id: Uuid,
    address: IpAddr,
}

/// What the cloud knows of what such guests have.
#[derive(Debug, Default)]
struct Known {
    names: HashMap<Uuid, String>,
    /// The project of each network.
    projects: HashMap<Uuid, Uuid>,
    kept: HashSet<(Uuid, IpAddr)>,
}

/// In the order of the instances' ids.
pub(in super::super) async fn list(
    conn: &mut PgConnection,
    host: Uuid,
    after: Uuid,
    rows: i64,
) -> Result<Vec<UnknownGuest>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT g.id, g.instance_id, g.runs, g.spec AS "spec: Json<Spec>", g.first_seen_at, i.name AS "instance?"
           FROM unknown_guests g LEFT JOIN instances i ON i.id = g.instance_id
           WHERE g.host_id = $1 AND g.instance_id > $2 ORDER BY g.instance_id LIMIT $3"#,
        host,
        after,
        rows
    )
    .fetch_all(&mut *conn)
    .await?;
    let guests: Vec<_> = rows.iter().map(|row| row.id).collect();
    let specs: Vec<_> = rows.iter().filter_map(|row| row.spec.as_ref().map(|spec| &spec.0)).collect();
    let known = Known::of(conn, &guests, &specs).await?;
    let guests = rows.into_iter().map(|row| {
        let told = row.spec.map(|spec| spec.0);
        let project = told.as_ref().and_then(|spec| known.project(spec));
        let size = told.as_ref().map(|spec| (spec.vcpus, spec.memory_mib));
        let hostname = told.as_ref().map(|spec| spec.hostname.clone());
        let spec = told.unwrap_or_default();
        UnknownGuest {
            id: row.instance_id,
            runs: row.runs,
            instance: row.instance.map(|name| Reference { id: row.instance_id, name }),
            hostname,
            project,
            vcpus: size.map(|(vcpus, _)| vcpus),
            memory_mib: size.map(|(_, memory)| memory),
            volumes: spec.volumes.into_iter().enumerate().map(volume).collect(),
            cards: spec.cards.into_iter().map(|card| known.card(card)).collect(),
            since: row.first_seen_at,
        }
    });
    Ok(guests.collect())
}

fn volume((index, volume): (usize, Volume)) -> UnknownVolume {
    UnknownVolume { id: volume.id, size_gib: volume.size_gib, boot: index == 0, pool: volume.pool }
}

impl Known {
    async fn of(conn: &mut PgConnection, guests: &[Uuid], specs: &[&Spec]) -> Result<Self, sqlx::Error> {
        let cards = || specs.iter().flat_map(|spec| &spec.cards);
        let networks: Vec<_> = cards().map(|card| card.network_id).collect();
        let subnets: Vec<_> = cards().flat_map(|card| &card.addresses).map(|one| one.subnet_id).collect();
        let projects: Vec<_> = specs.iter().filter_map(|spec| spec.project_id).collect();
        let found = sqlx::query!(
            r#"SELECT id AS "id!", name AS "name!", project_id FROM (
                   SELECT id, name, project_id FROM networks WHERE id = ANY($1)
                   UNION ALL SELECT id, name, NULL FROM subnets WHERE id = ANY($2)
                   UNION ALL SELECT id, name, NULL FROM projects
                   WHERE id = ANY($3) OR id IN (SELECT project_id FROM networks WHERE id = ANY($1))) found"#,
            &networks,
            &subnets,
            &projects
        )
        .fetch_all(&mut *conn)
        .await?;
        let kept = sqlx::query!(
            r#"SELECT subnet_id, address AS "address: IpAddr" FROM subnet_addresses WHERE unknown_guest_id = ANY($1)"#,
            guests
        )
        .fetch_all(conn)
        .await?;
        Ok(Self {
            projects: found.iter().filter_map(|one| Some((one.id, one.project_id?))).collect(),
            names: found.into_iter().map(|one| (one.id, one.name)).collect(),
            kept: kept.into_iter().map(|one| (one.subnet_id, one.address)).collect(),
        })
    }

    fn named(&self, id: Uuid) -> MaybeKnown {
        MaybeKnown { id, name: self.names.get(&id).cloned() }
    }

    /// As its host was told, or whose the networks are: earlier releases did not tell.
    fn project(&self, spec: &Spec) -> Option<MaybeKnown> {
        let of_networks = || spec.cards.iter().find_map(|card| self.projects.get(&card.network_id).copied());
        Some(self.named(spec.project_id.or_else(of_networks)?))
    }

    fn card(&self, card: Card) -> UnknownCard {
        let addresses = card.addresses.into_iter().map(|one| UnknownAddress {
            subnet: self.named(one.subnet_id),
            address: one.address,
            kept: self.kept.contains(&(one.subnet_id, one.address)),
        });
        UnknownCard { network: self.named(card.network_id), mac: card.mac, addresses: addresses.collect() }
    }
}
