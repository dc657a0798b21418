//! What may pass: nftables' rules of a host and of its routers, made by its JSON interface.
//!
//! [`Packets::guard`] comes before devices are made, [`Packets::converge`] after. Both render the tables from the
//! document (pure), compare them with a listing, and apply the difference as one transaction per namespace.
//! Whatever is missing lets nothing pass: a tap without a port, a port without its groups, a table of the two.
//!
//! Tables named `cumulo` are ours whole, `bridge` and `inet` on the host and `inet` in each router; nothing else
//! is touched.

mod drops;
mod expr;
mod forwarded;
mod groups;
mod guests;
mod host;
mod limits;
mod look;
mod nft;
mod plan;
mod ranges;
mod refused;
mod router;
mod ruleset;
mod seen;
mod spoof;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject};
use serde_json::Value;

pub use self::drops::{DropKind, Drops};
use self::host::Zones;
use self::nft::Place;
use self::refused::{LeftOut, Memory, Search};
use self::ruleset::{Datum, Family, Part, Table};
use self::seen::Seen;
use crate::links::external;
use crate::names;

/// Where namespaces are named.
const NAMESPACES: &str = "/run/netns";

/// What the host's rules depend on beside the document.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Where VXLAN comes in; the rule about its senders is for any address if there is none.
    pub underlay: Option<IpAddr>,
    /// Where no guest may get through a router: the underlay's network, management. The peers, the underlay
    /// address, transit, loopback, link-local and multicast addresses are so without being named.
    pub protected: Vec<IpNet>,
    /// The interface on which floating addresses are answered for; without it, packets of routers come in by the
    /// devices of the host's default routes.
    pub external: Option<String>,
}

/// What [`Packets::converge`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub changed: bool,
    /// What has no rules, and therefore passes nothing.
    pub faults: Vec<NetworkFault>,
}

#[derive(Debug, thiserror::Error)]
pub enum PacketsError {
    #[error("could not run nft to {what}; is nftables installed?")]
    Run { what: &'static str, source: std::io::Error },
    #[error("nft would not {what}: {detail}")]
    Refused { what: &'static str, detail: String },
    #[error("nft did not {what} within {} seconds; does it hang?", .limit.as_secs())]
    Hung { what: &'static str, limit: std::time::Duration },
    #[error("nft's listing is no JSON")]
    Listing(#[source] serde_json::Error),
    #[error("could not read the host's routes")]
    Routes(#[source] std::io::Error),
    #[error("could not read the names of namespaces")]
    Namespaces(#[source] std::io::Error),
}

/// The packet rules of this host.
#[derive(Debug, Clone)]
pub struct Packets {
    surroundings: Surroundings,
    refused: Memory,
}

/// The host's own tables as they are.
struct SeenHost {
    tables: [Option<Seen>; 2],
    zones: Zones,
}

impl Packets {
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, refused: Memory::default() }
    }

    /// Makes the host's own tables match, before the devices do: a new tap meets its rules, and any other passes
    /// nothing.
    pub async fn guard(&self, want: &HostNetwork) -> Result<(), PacketsError> {
        self.converge_host(want).await?;
        Ok(())
    }

    /// Makes all rules match: those of the host, and those in the namespaces of routers, which have to be there.
    pub async fn converge(&self, want: &HostNetwork) -> Result<Outcome, PacketsError> {
        let mut outcome = self.converge_host(want).await?;
        let protected = self.protected(want);
        for router in &want.routers {
            let namespace = names::router_namespace(router.id);
            let (table, faults) = router::table(router, &protected);
            outcome.faults.extend(faults);
            match converge_router(&namespace, &table).await {
                Ok(changed) => outcome.changed |= changed,
                Err(error) => outcome.faults.push(NetworkFault {
                    subject: NetworkSubject::Router(router.id),
                    detail: format!("forwards nothing out of the cloud: {error}"),
                }),
            }
        }
        Ok(outcome)
    }

    /// Takes the host's own tables away. Only when no device of ours is left: what they guard, nothing guards then.
    pub async fn remove(&self) -> Result<(), PacketsError> {
        let mut commands = Vec::new();
        for family in [Family::Bridge, Family::Inet] {
            if nft::list(Place::Host, family).await?.is_some() {
                commands.push(plan::delete(family));
            }
        }
        if commands.is_empty() { Ok(()) } else { nft::apply(Place::Host, commands).await }
    }

    /// What was dropped on the host and in its routers, by kind. A kind that never occurred counts 0.
    pub async fn drops(&self) -> Result<Vec<Drops>, PacketsError> {
        let routers = router_namespaces()?;
        let host = [Family::Bridge, Family::Inet].map(|family| (Place::Host, family));
        let inside = routers.iter().map(|name| (Place::Namespace(name), Family::Inet));
        let mut counts: BTreeMap<DropKind, (u64, u64)> =
            DropKind::ALL.into_iter().map(|kind| (kind, (0, 0))).collect();
        for (place, family) in host.into_iter().chain(inside) {
            let seen = nft::list(place, family).await?.unwrap_or_default();
            for (name, (packets, bytes)) in seen.counters {
                if let Some(count) = DropKind::of_counter(&name).and_then(|kind| counts.get_mut(&kind)) {
                    *count = (count.0 + packets, count.1 + bytes);
                }
            }
        }
        Ok(counts.into_iter().map(|(kind, (packets, bytes))| Drops { kind, packets, bytes }).collect())
    }

    async fn converge_host(&self, want: &HostNetwork) -> Result<Outcome, PacketsError> {
        let outside = external::devices(self.surroundings.external.as_deref()).await;
        let outside = outside.map_err(PacketsError::Routes)?;
        let known = self.refused.recall(want);
        let (commands, faults) = self.plan_host(want, &SeenHost::list().await?, &outside, &known);
        if commands.is_empty() {
            return Ok(Outcome { changed: false, faults });
        }
        let refusal = match nft::apply(Place::Host, commands).await {
            Ok(()) => return Ok(Outcome { changed: true, faults }),
            Err(refusal @ PacketsError::Refused { .. }) => refusal,
            Err(error) => return Err(error),
        };
        // Something may have changed after it was listed.
        let seen = SeenHost::list().await?;
        let plan = |left_out: &LeftOut| self.plan_host(want, &seen, &outside, left_out);
        let mut search = Search::new(want, &known);
        let without_all = plan(search.left_out()).0;
        if refused::reason(nft::check(Place::Host, without_all).await)?.is_some() {
            return Err(refusal);
        }
        while let Some(trial) = search.trial() {
            let commands = plan(&trial).0;
            let refused = refused::reason(nft::check(Place::Host, commands).await)?;
            if let Some(found) = search.learn(refused) {
                self.refused.remember(found);
            }
        }
        let (commands, faults) = plan(search.left_out());
        nft::apply(Place::Host, commands).await?;
        Ok(Outcome { changed: true, faults })
    }

    fn plan_host(
        &self,
        want: &HostNetwork,
        seen: &SeenHost,
        outside: &BTreeSet<String>,
        left_out: &LeftOut,
    ) -> (Vec<Value>, Vec<NetworkFault>) {
        let (tables, faults) = self.render(want, &seen.zones, outside, left_out);
        let with_seen = tables.iter().zip(&seen.tables);
        (with_seen.flat_map(|(table, seen)| plan::plan(table, seen.as_ref())).collect(), faults)
    }

    fn render(
        &self,
        want: &HostNetwork,
        had: &Zones,
        outside: &BTreeSet<String>,
        left_out: &LeftOut,
    ) -> ([Table; 2], Vec<NetworkFault>) {
        let mut refused = left_out.groups.clone();
        for group in &want.security_groups {
            refused.extend(groups::refusal(group).map(|detail| (group.id, detail)));
        }
        let (guests, mut faults) = guests::guests(want, &refused, &left_out.ports);
        let inet = host::table(want, &guests, &refused, had, &self.protected(want), outside);
        faults.extend(
            refused
                .into_iter()
                .map(|(id, detail)| NetworkFault { subject: NetworkSubject::SecurityGroup(id), detail }),
        );
        ([spoof::table(&guests), inet], faults)
    }

    fn protected(&self, want: &HostNetwork) -> BTreeSet<IpNet> {
        let always = ["100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];
        let always = always.into_iter().filter_map(|net| net.parse().ok());
        let hosts = want.peers.iter().copied().chain(self.surroundings.underlay).map(IpNet::from);
        ranges::widest(always.chain(hosts).chain(self.surroundings.protected.iter().copied()))
    }
}

impl SeenHost {
    async fn list() -> Result<Self, PacketsError> {
        let bridge = nft::list(Place::Host, Family::Bridge).await?;
        let inet = nft::list(Place::Host, Family::Inet).await?;
        let zones = inet.as_ref().map(zones_of).unwrap_or_default();
        Ok(Self { tables: [bridge, inet], zones })
    }
}

async fn converge_router(namespace: &str, table: &Table) -> Result<bool, PacketsError> {
    let place = Place::Namespace(namespace);
    let seen = nft::list(place, table.family).await?;
    let commands = plan::plan(table, seen.as_ref());
    let changed = !commands.is_empty();
    if changed {
        nft::apply(place, commands).await?;
    }
    Ok(changed)
}

/// The zones that networks have now: established connections are known by them.
fn zones_of(seen: &Seen) -> Zones {
    let elements = seen.sets.get("zones").map(|map| &map.elements);
    let zone = |(key, datum): (&Vec<Part>, &Option<Datum>)| match (key.as_slice(), datum) {
        ([Part::Word(bridge)], Some(Datum::Goto(chain))) => {
            Some((bridge.clone(), chain.strip_prefix("zone_")?.parse().ok()?))
        }
        _ => None,
    };
    elements.into_iter().flatten().filter_map(zone).collect()
}

fn router_namespaces() -> Result<Vec<String>, PacketsError> {
    let entries = match Path::new(NAMESPACES).read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PacketsError::Namespaces(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(PacketsError::Namespaces)?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with("cumulo-router-")).map(str::to_owned));
    }
    Ok(names)
}
