//! The networks of a real host.
//!
//! Packet rules come first, so that a device is never there without them; then devices, then the rules in the
//! namespaces that have been made, then what is served there.

use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8Path;
use networking::links::{self, Links};
use networking::packets::{self, Packets};
use networking::services::Services;
use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject};

use super::{HostNetworking, Outcome};
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
        let served = self.services.converge(wanted).await;
        let told = self.listeners.converge(wanted).await;
        Outcome { faults: [linked.faults, ruled.faults, served.faults, told].concat() }
    }
}

/// No network can be used; the operator reads why.
fn nothing_works(wanted: &HostNetwork, attempted: &str, error: &dyn std::error::Error) -> Outcome {
    let detail = format!("the host cannot {attempted}: {}", chain(error));
    tracing::error!(detail, "no network can be made");
    let host = NetworkFault { subject: NetworkSubject::Host, detail };
    let networks = wanted.networks.iter().map(|network| NetworkFault {
        subject: NetworkSubject::Network(network.id),
        detail: format!("the host cannot {attempted}"),
    });
    Outcome { faults: std::iter::once(host).chain(networks).collect() }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
