//! The networks of a real host.
//!
//! Packet rules come first, so that a device is never there without them; then devices, then the rules in the
//! namespaces that have been made, then what is served there.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8Path;
use networking::links::{self, Links};
use networking::names;
use networking::packets::{self, Packets};
use networking::services::Services;
use protocol::NetworkId;
use protocol::agent::{HostNetwork, Network, NetworkFault, NetworkSubject};

use super::{Found, HostNetworking, LookError, Outcome};
use crate::metadata::{Listeners, Metadata};

/// Makes networks with the kernel, nftables and dnsmasq. Needs root.
pub struct RealNetworking {
    packets: Packets,
    links: Links,
    services: Services,
    listeners: Listeners,
}

impl RealNetworking {
    /// `folder` is for the files of the services, whose users pass through it.
    pub fn new(
        links: links::Surroundings,
        packets: packets::Surroundings,
        folder: &Utf8Path,
        metadata: Arc<Metadata>,
    ) -> Self {
        Self {
            packets: Packets::new(packets),
            links: Links::new(links),
            services: Services::new(folder),
            listeners: Listeners::new(metadata),
        }
    }
}

#[async_trait]
impl HostNetworking for RealNetworking {
    async fn converge(&self, wanted: &HostNetwork) -> Outcome {
        // INVARIANT: without their rules no devices are made.
        if let Err(error) = self.packets.guard(wanted).await {
            return nothing_works(wanted, "set packet rules", &error);
        }
        let linked = match self.links.converge(wanted).await {
            Ok(linked) => linked,
            Err(error) => return nothing_works(wanted, "make network devices", &error),
        };
        let ruled = match self.packets.converge(wanted).await {
            Ok(ruled) => ruled,
            Err(error) => return nothing_works(wanted, "set packet rules", &error),
        };
        let served = self.services.converge(wanted).await.faults;
        let told = self.listeners.converge(wanted).await;
        // A guest that gets no address at its start may never ask again.
        let mut unusable = of_networks(ruled.faults.iter().chain(&served).chain(&told));
        let explained = of_networks(&linked.faults);
        let mut faults = [linked.faults, ruled.faults, served, told].concat();
        for id in without_bridge(wanted) {
            unusable.insert(id);
            if !explained.contains(&id) {
                let detail = "its bridge is not there".to_owned();
                faults.push(NetworkFault { subject: NetworkSubject::Network(id), detail });
            }
        }
        Outcome { faults, unusable }
    }

    async fn look(&self, wanted: &HostNetwork) -> Result<Vec<Found>, LookError> {
        super::look(&self.links, &self.packets, &self.services, Some(wanted)).await
    }
}

fn of_networks<'a>(faults: impl IntoIterator<Item = &'a NetworkFault>) -> HashSet<NetworkId> {
    let of_network = |fault: &NetworkFault| match fault.subject {
        NetworkSubject::Network(id) => Some(id),
        _ => None,
    };
    faults.into_iter().filter_map(of_network).collect()
}

/// Networks whose bridge is not there, by the kernel's list of this thread's namespace.
fn without_bridge(wanted: &HostNetwork) -> Vec<NetworkId> {
    let devices = devices();
    let is_missing = |network: &&Network| !devices.contains(&names::bridge(network.vni));
    wanted.networks.iter().filter(is_missing).map(|network| network.id).collect()
}

/// The names of all network devices; none when they cannot be read.
pub(crate) fn devices() -> HashSet<String> {
    let listing = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    listing.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// No network can be used; the operator reads why.
fn nothing_works(
    wanted: &HostNetwork,
    attempted: &str,
    error: &(dyn std::error::Error + 'static),
) -> Outcome {
    let detail = format!("the host cannot {attempted}: {}", crate::chain(error));
    tracing::error!(detail, "no network can be made");
    let faults = vec![NetworkFault { subject: NetworkSubject::Host, detail }];
    Outcome { faults, unusable: wanted.networks.iter().map(|network| network.id).collect() }
}
