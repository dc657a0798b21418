//! The files of a network's dnsmasq, purely from the document. Whatever comes from users is an address, a [`protocol::Name`] or
//! a validated domain: no text of theirs can be an option.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{fs, io, io::Write as _};

use ipnet::IpNet;
use protocol::agent::{Network, Port, Subnet};

use super::process::READY;
use super::resolver;
use crate::names;

pub(super) const CONFIG: &str = "dnsmasq.conf";
const NAMES: &str = "hosts";
pub(super) const STATIONS: &str = "dhcp-hosts";
pub(super) const LEASES: &str = "leases";

/// How long an address is promised to a guest, in seconds.
const LEASE_SECONDS: u32 = 3600;
/// Who dnsmasq runs as.
const USER: &str = "nobody";
const GROUP: &str = "nogroup";
const READABLE: u32 = 0o644;

/// Tells one content from another.
pub(super) type Digest = u64;

/// What dnsmasq reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    /// Read once, at the start.
    pub config: String,
    /// Names and addresses, as in `hosts(5)`.
    pub names: String,
    /// What is told to which card.
    pub stations: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RenderError {
    #[error("its domain {0:?} is not a domain name: give it another")]
    Domain(String),
    #[error("the folder of its files has a line break in its name")]
    Folder,
}

impl Files {
    /// The files of `network`, to be in `folder`.
    pub(super) fn of(network: &Network, folder: &Path) -> Result<Self, RenderError> {
        if !is_domain(&network.dns_domain) {
            return Err(RenderError::Domain(network.dns_domain.clone()));
        }
        let folder = folder.to_str().filter(|path| !path.contains('\n')).ok_or(RenderError::Folder)?;
        Ok(Self { config: config(network, folder), names: hosts(network), stations: stations(network) })
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        for (name, contents) in self.named() {
            let new = folder.join(format!("{name}.new"));
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(READABLE).open(&new)?;
            file.write_all(contents.as_bytes())?;
            fs::rename(new, folder.join(name))?;
        }
        Ok(())
    }

    /// The names of those files that are not there, or are there with another content.
    pub(super) fn differing(&self, folder: &Path) -> io::Result<Vec<&'static str>> {
        let mut names = Vec::new();
        for (name, contents) in self.named() {
            match fs::read(folder.join(name)) {
                Ok(found) if found == contents.as_bytes() => (),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => names.push(name),
            }
        }
        Ok(names)
    }

    fn named(&self) -> [(&'static str, &String); 3] {
        [(CONFIG, &self.config), (NAMES, &self.names), (STATIONS, &self.stations)]
    }

    /// Of what is read at the start.
    pub(super) fn config(&self) -> Digest {
        digest(&self.config)
    }

    /// Of what is read again at a SIGHUP.
    pub(super) fn hosts(&self) -> Digest {
        digest(&(&self.names, &self.stations))
    }
}

/// Of another version of the standard library it may be another, which costs a restart of dnsmasq.
fn digest(content: &impl Hash) -> Digest {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Labels of lower-case letters, digits and inner hyphens, at most 253 characters in all (RFC 1123).
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether names outside the cloud are asked of the host's resolvers: no subnet has resolvers of its own.
pub(super) fn asks_host(network: &Network) -> bool {
    network.subnets.iter().all(|subnet| subnet.dns_servers.is_empty())
}

fn config(network: &Network, folder: &str) -> String {
    let (domain, interface) = (&network.dns_domain, names::SERVICES_INTERFACE);
    let mut lines = vec![
        format!("user={USER}"),
        format!("group={GROUP}"),
        format!("pid-file={folder}/{READY}"),
        // To standard error, which is kept for when it does not start.
        "log-facility=-".to_owned(),
        "quiet-dhcp".to_owned(),
        "quiet-dhcp6".to_owned(),
        "quiet-ra".to_owned(),
        format!("interface={interface}"),
        "except-interface=lo".to_owned(),
        "bind-dynamic".to_owned(),
        "no-resolv".to_owned(),
        "no-poll".to_owned(),
        "no-hosts".to_owned(),
        format!("addn-hosts={folder}/{NAMES}"),
        "domain-needed".to_owned(),
        "bogus-priv".to_owned(),
        format!("domain={domain}"),
        format!("local=/{domain}/"),
        format!("dhcp-hostsfile={folder}/{STATIONS}"),
        format!("dhcp-leasefile={folder}/{LEASES}"),
        "dhcp-authoritative".to_owned(),
        // Addresses belong to ports, and so do names.
        "dhcp-ignore=tag:!known".to_owned(),
        "dhcp-ignore-names".to_owned(),
        "no-ping".to_owned(),
    ];
    let mut servers: Vec<_> = network.subnets.iter().flat_map(|subnet| &subnet.dns_servers).collect();
    servers.sort_unstable();
    servers.dedup();
    if asks_host(network) {
        lines.push(format!("server={}#{}", resolver::ADDRESS.ip(), resolver::ADDRESS.port()));
    }
    lines.extend(servers.into_iter().map(|server| format!("server={server}")));
    for (n, subnet) in network.subnets.iter().enumerate().filter(|(_, subnet)| subnet.dhcp) {
        lines.extend(subnet_options(network, &format!("s{n}"), subnet));
    }
    if network.subnets.iter().any(|subnet| subnet.dhcp && subnet.cidr.addr().is_ipv6()) {
        let routed = network.subnets.iter().any(|subnet| subnet.routed && subnet.cidr.addr().is_ipv6());
        let lifetime = if routed { 1800 } else { 0 };
        lines.push("enable-ra".to_owned());
        lines.push(format!("ra-param={interface},mtu:{},60,{lifetime}", network.mtu));
    }
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn subnet_options(network: &Network, tag: &str, subnet: &Subnet) -> Vec<String> {
    let service = subnet.service_address;
    match subnet.cidr {
        IpNet::V4(cidr) => {
            let gateway = subnet.gateway.filter(|_| subnet.routed);
            let mut routes = format!("{}/32,{service}", super::METADATA_ADDRESS);
            if let Some(gateway) = gateway {
                // Whoever heeds this option ignores the router's (RFC 3442).
                _ = write!(routes, ",0.0.0.0/0,{gateway}");
            }
            // Without a value it is not sent; dnsmasq would name itself.
            let router = gateway.map(|gateway| format!(",{gateway}")).unwrap_or_default();
            vec![
                format!("dhcp-range=set:{tag},{},static,{},{LEASE_SECONDS}", cidr.network(), cidr.netmask()),
                format!("dhcp-option=tag:{tag},option:router{router}"),
                format!("dhcp-option=tag:{tag},option:dns-server,{service}"),
                format!("dhcp-option=tag:{tag},option:mtu,{}", network.mtu),
                format!("dhcp-option=tag:{tag},option:classless-static-route,{routes}"),
            ]
        }
        IpNet::V6(cidr) => vec![
            format!("dhcp-range=set:{tag},{},static,{},{LEASE_SECONDS}", cidr.network(), cidr.prefix_len()),
            format!("dhcp-option=tag:{tag},option6:dns-server,[{service}]"),
        ],
    }
}

/// The full name first: it is the answer to the question whose an address is.
fn hosts(network: &Network) -> String {
    let local =
        network.ports.iter().flat_map(|port| port.addresses.iter().map(|a| (a.address, &port.hostname)));
    let remote =
        network.remote_ports.iter().flat_map(|port| port.addresses.iter().map(|a| (*a, &port.hostname)));
    let mut text = String::new();
    for (address, name) in local.chain(remote) {
        let name = name.as_str();
        _ = writeln!(text, "{address} {name}.{} {name}", network.dns_domain);
    }
    text
}

/// A line for each address family: the card's first address of IPv4, and all of IPv6.
fn stations(network: &Network) -> String {
    let mut text = String::new();
    for port in &network.ports {
        let served: Vec<_> = served(network, port).collect();
        let first = served.iter().find(|address| address.is_ipv4()).map(ToString::to_string);
        let v6 = served.iter().filter(|address| address.is_ipv6()).map(|address| format!("[{address}]"));
        for address in first.into_iter().chain(v6) {
            _ = writeln!(text, "{},{address}{},{LEASE_SECONDS}", port.mac, told_name(port));
        }
    }
    text
}

/// The host name behind its comma; nothing where dnsmasq would take it for a word of its own.
fn told_name(port: &Port) -> String {
    match port.hostname.as_str() {
        "ignore" | "infinite" => String::new(),
        name => format!(",{name}"),
    }
}

/// The addresses of a port in subnets with DHCP.
fn served<'a>(network: &'a Network, port: &'a Port) -> impl Iterator<Item = IpAddr> + 'a {
    let has_dhcp = |id| network.subnets.iter().any(|subnet| subnet.id == id && subnet.dhcp);
    port.addresses.iter().filter(move |address| has_dhcp(address.subnet_id)).map(|address| address.address)
}
