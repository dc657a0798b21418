//! What there is to read: the names are EC2's.

use std::net::IpAddr;

use protocol::agent::{HostNetwork, InstanceSpec, Network, Port};

/// The dates are what clients ask for; all versions are alike.
const VERSIONS: [&str; 5] = ["2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest"];

/// A file or a folder.
enum Node {
    Text(String),
    Bytes(Vec<u8>),
    Folder(Vec<(String, Node)>),
    /// Keys are listed as `0=name`, and found by the number.
    Keys(Vec<String>),
}

/// Whom the answers are about.
pub(super) struct Subject<'a> {
    pub document: &'a HostNetwork,
    pub network: &'a Network,
    /// The card that asks.
    pub port: &'a Port,
    pub spec: &'a InstanceSpec,
}

/// Whether a path begins with a version, and what comes after that.
pub(super) fn below_version(path: &str) -> Option<&str> {
    let (version, rest) = path.trim_start_matches('/').split_once('/')?;
    VERSIONS.contains(&version).then_some(rest)
}

/// What is at a path; a folder is a list of names.
pub(super) fn read(subject: &Subject<'_>, path: &str) -> Option<Vec<u8>> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some((version, rest)) = parts.split_first() else { return Some(VERSIONS.join("\n").into()) };
    if !VERSIONS.contains(version) {
        return None;
    }
    walk(root(subject), rest)
}

fn walk(node: Node, parts: &[&str]) -> Option<Vec<u8>> {
    let Some((first, rest)) = parts.split_first() else { return Some(shown(node)) };
    match node {
        Node::Text(_) | Node::Bytes(_) => None,
        Node::Folder(nodes) => {
            let (_, node) = nodes.into_iter().find(|(name, _)| name == first)?;
            walk(node, rest)
        }
        Node::Keys(keys) => {
            let key = keys.into_iter().nth(first.parse().ok()?)?;
            walk(folder([("openssh-key", text(&key))]), rest)
        }
    }
}

fn shown(node: Node) -> Vec<u8> {
    let lines = match node {
        Node::Bytes(bytes) => return bytes,
        Node::Text(text) => text,
        Node::Folder(nodes) => {
            let name = |(name, node)| match node {
                Node::Text(_) | Node::Bytes(_) => name,
                Node::Folder(_) | Node::Keys(_) => name + "/",
            };
            nodes.into_iter().map(name).collect::<Vec<_>>().join("\n")
        }
        Node::Keys(keys) => (0..keys.len()).map(|n| format!("{n}=key-{n}")).collect::<Vec<_>>().join("\n"),
    };
    lines.into()
}

fn root(subject: &Subject<'_>) -> Node {
    let mut nodes = vec![("meta-data".to_owned(), meta_data(subject))];
    let user_data = subject.spec.seed.user_data_bytes();
    nodes.extend(user_data.map(|data| ("user-data".to_owned(), Node::Bytes(data))));
    Node::Folder(nodes)
}

fn meta_data(subject: &Subject<'_>) -> Node {
    let Subject { network, port, spec, .. } = subject;
    let hostname = hostname(network, port);
    let mut nodes = vec![
        ("hostname", text(&hostname)),
        ("instance-id", text(&spec.id)),
        ("instance-type", text(&port.metadata.instance_type)),
        ("local-hostname", text(&hostname)),
        ("mac", text(&port.mac)),
        ("network", folder([("interfaces", folder([("macs", cards(subject))]))])),
    ];
    nodes.extend(addresses(port, IpAddr::is_ipv4).next().map(|address| ("local-ipv4", text(&address))));
    nodes.extend(port.metadata.public_ipv4.map(|address| ("public-ipv4", text(&address))));
    if !spec.seed.ssh_authorized_keys.is_empty() {
        nodes.push(("public-keys", Node::Keys(spec.seed.ssh_authorized_keys.clone())));
    }
    nodes.sort_by_key(|(name, _)| *name);
    folder(nodes)
}

/// All cards of the instance, in the order in which the guest has them.
fn cards(subject: &Subject<'_>) -> Node {
    let ports =
        || subject.document.networks.iter().flat_map(|net| net.ports.iter().map(move |port| (net, port)));
    let cards = subject.spec.nics.iter().enumerate().filter_map(|(number, nic)| {
        let (network, port) = ports().find(|(_, port)| port.id == nic.port_id)?;
        Some((port.mac.to_string(), card(network, port, number)))
    });
    Node::Folder(cards.collect())
}

fn card(network: &Network, port: &Port, number: usize) -> Node {
    let lines = |values: Vec<String>| (!values.is_empty()).then(|| text(&values.join("\n")));
    let v4: Vec<_> = addresses(port, IpAddr::is_ipv4).map(|address| address.to_string()).collect();
    let v6: Vec<_> = addresses(port, IpAddr::is_ipv6).map(|address| address.to_string()).collect();
    let groups = port.security_groups.iter().map(ToString::to_string).collect();
    let subnet = |is_family: fn(&IpAddr) -> bool| {
        let id = port.addresses.iter().find(|a| is_family(&a.address))?.subnet_id;
        network.subnets.iter().find(|subnet| subnet.id == id)
    };
    let nodes = [
        ("device-number", Some(text(&number))),
        ("interface-id", Some(text(&port.id))),
        ("ipv6s", lines(v6)),
        ("local-hostname", Some(text(&hostname(network, port)))),
        ("local-ipv4s", lines(v4)),
        ("mac", Some(text(&port.mac))),
        ("public-ipv4s", port.metadata.public_ipv4.as_ref().map(text)),
        ("security-group-ids", lines(groups)),
        ("subnet-id", subnet(IpAddr::is_ipv4).map(|subnet| text(&subnet.id))),
        ("subnet-ipv4-cidr-block", subnet(IpAddr::is_ipv4).map(|subnet| text(&subnet.cidr))),
        ("subnet-ipv6-cidr-blocks", subnet(IpAddr::is_ipv6).map(|subnet| text(&subnet.cidr))),
        ("vpc-id", Some(text(&network.id))),
    ];
    folder(nodes.into_iter().filter_map(|(name, node)| Some((name, node?))))
}

fn addresses(port: &Port, is_family: fn(&IpAddr) -> bool) -> impl Iterator<Item = IpAddr> {
    port.addresses.iter().map(|address| address.address).filter(is_family)
}

fn hostname(network: &Network, port: &Port) -> String {
    format!("{}.{}", port.hostname.as_str(), network.dns_domain)
}

fn text(value: &(impl ToString + ?Sized)) -> Node {
    Node::Text(value.to_string())
}

fn folder<'a>(nodes: impl IntoIterator<Item = (&'a str, Node)>) -> Node {
    Node::Folder(nodes.into_iter().map(|(name, node)| (name.to_owned(), node)).collect())
}
