//! Which guests have exporters of their own, for Prometheus' `http_sd_config`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::prometheus::labels_named;
use super::store::Scraped;
use super::types::{AddressKind, ScrapeTarget};

const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const SCHEME: &str = "prometheus.io/scheme";
/// That of the node exporter.
const USUAL_PORT: u16 = 9100;

/// The target of an instance; `None` when it has no such address, or its labels name no port.
pub(super) fn target(instance: &Scraped, kind: AddressKind) -> Option<ScrapeTarget> {
    let nics = instance.nics.iter().filter(|nic| !nic.detaching);
    let mut addresses = nics.flat_map(|nic| nic.addresses.iter().map(|one| (&nic.network_name, one.address)));
    let public = |private: &IpAddr| instance.floating_ips.get(private).copied();
    let (network, private) = match kind {
        AddressKind::Private => addresses.next()?,
        AddressKind::Public => addresses.find(|(_, address)| public(address).is_some())?,
    };
    let public = public(&private);
    let address = if kind == AddressKind::Public { public? } else { private };
    let port = match instance.labels.get(PORT) {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => USUAL_PORT,
    };
    let mut labels: BTreeMap<String, String> = labels_named("__meta_cumulo_label_", &instance.labels);
    let mut add = |name: &str, value: String| drop(labels.insert(name.to_owned(), value));
    add("instance_id", instance.id.to_string());
    add("instance_name", instance.name.clone());
    add("__meta_cumulo_project", instance.project.clone());
    add("__meta_cumulo_instance_type", instance.instance_type.clone());
    add("__meta_cumulo_network", network.clone());
    add("__meta_cumulo_private_ip", private.to_string());
    if let Some(public) = public {
        add("__meta_cumulo_public_ip", public.to_string());
    }
    if let Some(path) = instance.labels.get(PATH) {
        add("__metrics_path__", format!("/{}", path.trim_start_matches('/')));
    }
    if let Some(scheme) =
        instance.labels.get(SCHEME).filter(|scheme| ["http", "https"].contains(&scheme.as_str()))
    {
        add("__scheme__", scheme.clone());
    }
    Some(ScrapeTarget { targets: vec![SocketAddr::new(address, port).to_string()], labels })
}
