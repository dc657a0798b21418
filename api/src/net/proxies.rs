//! Which of our neighbours are proxies that we believe, and which addresses are one neighbour.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The proxies whose word about their clients is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether this canonical address is a proxy's.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Networks and single addresses, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(parse_network).collect::<Result<_, _>>().map(Self)
    }
}

fn parse_network(entry: &str) -> Result<IpNet, String> {
    let network = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| format!("`{entry}` is no address and no network like 10.0.0.0/8"))?;
    // Addresses are compared in their canonical form, so such a network would never match.
    match network {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(format!("`{entry}`: write IPv4 networks as IPv4"))
        }
        network => Ok(network.trunc()),
    }
}

/// All that one customer of a provider has: an IPv4 address, or the /64 that an IPv6 host picks its
/// addresses from. Whoever is to be counted is counted as this.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        assert_eq!("".parse(), Ok(TrustedProxies::default()));
        assert_eq!("10.1.2.3/8".parse::<TrustedProxies>(), "10.0.0.0/8".parse());
        for wrong in ["10.0.0.0/33", "proxy.example", "10.0.0.0/8;::1", "::ffff:10.0.0.0/104"] {
            let error = wrong.parse::<TrustedProxies>().unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn neighbours_count_as_one() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(neighbourhood(address.parse().unwrap()).to_string(), expected);
        }
    }
}
