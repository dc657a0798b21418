//! How the networks of a host differ from a document, without changing anything.

use networking::Difference;
use networking::links::Links;
use networking::packets::Packets;
use networking::services::Services;
use protocol::agent::{HostNetwork, NetworkSubject};

/// What a difference is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Devices,
    PacketRules,
    Services,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub part: Part,
    pub subject: NetworkSubject,
    /// What is to be done about it.
    pub detail: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("the network devices cannot be looked at")]
    Devices(#[source] networking::links::LinksError),
    #[error("the packet rules cannot be looked at")]
    PacketRules(#[source] networking::packets::PacketsError),
    #[error("the services of the networks cannot be looked at")]
    Services(#[source] std::io::Error),
}

/// What an agent would change to make the host match. A host that was never told of networks has no rules and
/// needs none.
pub async fn look(
    links: &Links,
    packets: &Packets,
    services: &Services,
    wanted: Option<&HostNetwork>,
) -> Result<Vec<Found>, LookError> {
    let nothing = HostNetwork::default();
    let document = wanted.unwrap_or(&nothing);
    let devices = Box::pin(links.look(document)).await.map_err(LookError::Devices)?;
    let rules = match wanted {
        Some(wanted) => packets.look(wanted).await.map_err(LookError::PacketRules)?,
        None => Vec::new(),
    };
    let served = services.look(document).await.map_err(LookError::Services)?;
    let of = |part, differences: Vec<Difference>| {
        differences.into_iter().map(move |Difference { subject, detail }| Found { part, subject, detail })
    };
    Ok(of(Part::Devices, devices)
        .chain(of(Part::PacketRules, rules))
        .chain(of(Part::Services, served))
        .collect())
}
