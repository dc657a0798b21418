//! Ports as network cards of instances: made or taken when an instance asks for one, given back when it lets go.
//!
//! [`prepare`] finds what is named before the instance is written, [`attach`] plugs it in.

use std::net::IpAddr;

use protocol::{InstanceId, NetworkId, PortId};
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::model::HELD;
pub(crate) use super::store::cards::{came_to_host, on_host};
use super::store::cards::{free_positions, plug};
pub(crate) use super::store::leaving::{detach, leaving, release, release_leaving};
use super::store::{self, NewPort, addresses, parts};
use super::types::{WantedAddress, validate_groups};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::clock::Clock;
use crate::http::{ApiError, ErrorCode, FieldError, Labels, Mutation, Selector};
use crate::networks;

/// The most cards of an instance.
pub(crate) const MAX_CARDS: usize = 16;

/// A network card: a new port in a network, or a port that is there.
#[derive(Debug, Default, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedCard {
    /// Name or id of a network: a new port in it, which goes with the instance.
    #[schema(example = "default")]
    pub network: Option<String>,
    /// Name or id of a port that is attached to nothing. It stays when the instance goes.
    pub port: Option<String>,
    /// The new port's address; a free one of each family unless given.
    #[schema(value_type = Option<String>, format = "ip")]
    pub address: Option<IpAddr>,
    /// The new port's security groups, names or ids; the project's default group unless given.
    #[schema(max_items = 16)]
    pub security_groups: Option<Vec<String>>,
}

impl WantedCard {
    /// `pointer` is where the card stands in the body.
    pub(crate) fn validate(&self, pointer: &str, errors: &mut Vec<FieldError>) {
        if self.network.is_some() == self.port.is_some() {
            errors.push(FieldError::new(pointer, "invalid", "either a network or a port"));
        }
        if self.port.is_some() && self.address.is_some() {
            let message = "a port has its addresses already";
            errors.push(FieldError::new(format!("{pointer}/address"), "invalid", message));
        }
        if self.port.is_some() && self.security_groups.is_some() {
            let message = "a port has its security groups already";
            errors.push(FieldError::new(format!("{pointer}/security_groups"), "invalid", message));
        }
        let groups = format!("{pointer}/security_groups");
        validate_groups(self.security_groups.as_deref(), &groups, errors);
    }
}

/// Asks for the right to change each port that is there: to become a card is a change of it.
///
/// # Errors
/// `validation_failed` at the card when the caller may not know of its port, `forbidden` otherwise.
pub(crate) async fn check_ports<A: Action<On: InProject>>(
    mut change: Mutation<A>,
    project: &str,
    wanted: &[WantedCard],
    pointer: impl Fn(usize) -> String,
) -> Result<Mutation<A>, ApiError> {
    let (conn, allowed) = change.parts();
    lock_ports(conn, allowed, wanted).await?;
    for (index, port) in
        wanted.iter().enumerate().filter_map(|(index, card)| Some((index, card.port.as_ref()?)))
    {
        change = change.also::<actions::UpdatePort>((project, port), || no_port(&pointer(index))).await?;
    }
    Ok(change)
}

/// Locks the ports that are named in one order, whatever the order of the cards.
async fn lock_ports<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    wanted: &[WantedCard],
) -> Result<(), sqlx::Error> {
    let names = Selector::texts(wanted.iter().filter_map(|card| card.port.as_ref()));
    sqlx::query!(
        "SELECT FROM ports WHERE project_id = $1 AND (name = ANY($2) OR id::text = ANY($2))
         ORDER BY id FOR UPDATE",
        allowed.project().as_uuid(),
        &names
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn no_port(pointer: &str) -> ApiError {
    let message = "this project has no such port";
    ApiError::invalid(vec![FieldError::new(format!("{pointer}/port"), "not_found", message)])
}

/// Cards that can be plugged in.
pub(crate) struct Prepared {
    cards: Vec<Card>,
}

enum Card {
    Existing(Uuid),
    New(NewCard),
}

struct NewCard {
    network: NetworkId,
    address: Option<IpAddr>,
    groups: Vec<Uuid>,
    /// Where it stands in the body.
    pointer: String,
}

impl Prepared {
    /// How many ports will be made.
    pub(crate) fn made(&self) -> i64 {
        let made = self.cards.iter().filter(|card| matches!(card, Card::New(_))).count();
        i64::try_from(made).unwrap_or(i64::MAX)
    }
}

/// Finds what the cards name, and keeps it. `pointer` says where a card stands in the body.
pub(crate) async fn prepare<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    wanted: &[WantedCard],
    pointer: impl Fn(usize) -> String,
) -> Result<Prepared, ApiError> {
    let mut cards = Vec::new();
    for (index, card) in wanted.iter().enumerate() {
        let Some(name) = &card.network else { continue };
        let pointer = pointer(index);
        let network = networks::store::named(conn, allowed, name, &format!("{pointer}/network")).await?;
        let at = format!("{pointer}/security_groups");
        let groups = parts::groups_named(conn, allowed, card.security_groups.as_deref(), &at).await?;
        cards.push((index, Card::New(NewCard { network, address: card.address, groups, pointer })));
    }
    for (index, port) in take_ports(conn, allowed, wanted, &pointer).await? {
        cards.push((index, Card::Existing(port)));
    }
    cards.sort_by_key(|(index, _)| *index);
    Ok(Prepared { cards: cards.into_iter().map(|(_, card)| card).collect() })
}

/// The card of the project's default network, if there is one.
pub(crate) async fn prepare_default<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Prepared, ApiError> {
    match networks::store::default_of(conn, allowed).await? {
        Some(network) => {
            let network = Some(network.to_string());
            prepare(conn, allowed, &[WantedCard { network, ..WantedCard::default() }], |_| String::new())
                .await
        }
        None => Ok(Prepared { cards: Vec::new() }),
    }
}

/// The ports that are there, each attached to nothing. They are locked.
async fn take_ports<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    wanted: &[WantedCard],
    pointer: impl Fn(usize) -> String,
) -> Result<Vec<(usize, Uuid)>, ApiError> {
    let named: Vec<(usize, &String)> =
        wanted.iter().enumerate().filter_map(|(index, card)| Some((index, card.port.as_ref()?))).collect();
    let names = Selector::texts(named.iter().map(|(_, name)| *name));
    let rows = sqlx::query!(
        "SELECT id, name, instance_id, detaching FROM ports
         WHERE project_id = $1 AND (name = ANY($2) OR id::text = ANY($2))",
        allowed.project().as_uuid(),
        &names
    )
    .fetch_all(conn)
    .await?;
    let mut taken: Vec<(usize, Uuid)> = Vec::new();
    for (index, name) in named {
        let wrong = |code, message| {
            ApiError::invalid(vec![FieldError::new(format!("{}/port", pointer(index)), code, message)])
        };
        let found = Selector::parse(name).and_then(|selector| {
            rows.iter().find(|row| selector.id() == Some(row.id) || selector.name() == Some(&row.name))
        });
        let row = found.ok_or_else(|| no_port(&pointer(index)))?;
        if taken.iter().any(|(_, id)| *id == row.id) {
            return Err(wrong("duplicate", "a port is one card"));
        }
        if row.detaching {
            let detail = format!("the port {} is being detached: {HELD}", row.name);
            return Err(ApiError::because(ErrorCode::InUse, detail));
        }
        if row.instance_id.is_some() {
            let detail = format!("the port {} is a card of an instance; detach it there first", row.name);
            return Err(ApiError::because(ErrorCode::InUse, detail));
        }
        taken.push((index, row.id));
    }
    Ok(taken)
}

/// Plugs the cards in, behind those that the instance has.
pub(crate) async fn attach<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    prepared: &Prepared,
    instance: InstanceId,
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let mut positions = free_positions(conn, instance).await?.into_iter();
    let mut made = Vec::new();
    for card in &prepared.cards {
        let position = positions.next().ok_or_else(|| {
            ApiError::because(ErrorCode::WrongState, "an instance has at most 16 network cards; detach one")
        })?;
        match card {
            Card::Existing(port) => plug(conn, *port, instance, position, now).await?,
            Card::New(card) => {
                let id: PortId = clock.new_id();
                let (network, name, labels) = (card.network, own_name(id), Labels::new());
                let owner = Some((instance.as_uuid(), position));
                let new = NewPort { id, network, name: &name, labels: &labels, mac: None, owner, now };
                store::insert(conn, allowed, &new).await?;
                made.push((id, card));
            }
        }
    }
    let networks: Vec<_> = made.iter().map(|(_, card)| card.network).collect();
    let subnets = addresses::lock_subnets(conn, &networks).await?;
    for (id, card) in made {
        let of_network: Vec<_> =
            subnets.iter().filter(|subnet| subnet.network == card.network.as_uuid()).collect();
        let pointer = &card.pointer;
        match card.address {
            None => addresses::give_automatic(conn, id, &of_network).await?,
            address => {
                let wanted = [WantedAddress { subnet: None, address }];
                let at = |_, field: &str| format!("{pointer}{field}");
                addresses::give_wanted(conn, id, &of_network, &wanted, at).await?;
            }
        }
        parts::set_groups(conn, id, &card.groups, &format!("{pointer}/security_groups")).await?;
    }
    Ok(())
}

/// The name of a port that was made with its instance: `port-` and the random part of its id.
fn own_name(id: PortId) -> String {
    let digits = id.as_uuid().simple().to_string();
    format!("port-{}", &digits[digits.len() - 12..])
}
