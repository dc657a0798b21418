//! Which addresses an import may speak to: the Internet, and what the operator names.
//!
//! The control plane stands where tenants do not: without this, a URL would let them speak to its neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ranges that are no addresses of the Internet, with what they are.
const FORBIDDEN_V4: [(Ipv4Addr, u8, &str); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "unspecified"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by carriers"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "reserved"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "reserved"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "reserved"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// The same of version 6. What is not in 2000::/3 is forbidden anyway; these have a name of their own.
const FORBIDDEN_V6: [(Ipv6Addr, u8, &str); 11] = [
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "an IPv4 address in disguise"),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 32, "an IPv4 address in disguise"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "private"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 9, "link-local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "reserved"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "for documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "an IPv4 address in disguise"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "for documentation"),
];

/// What is forbidden about the address, wherever this cloud is.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let of = |(range, length, _): &&(Ipv4Addr, u8, _)| {
                (bits ^ range.to_bits()) >> (32 - u32::from(*length)) == 0
            };
            FORBIDDEN_V4.iter().find(of).map(|(_, _, what)| *what)
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let of = |(range, length, _): &&(Ipv6Addr, u8, _)| {
                (bits ^ range.to_bits()) >> (128 - u32::from(*length)) == 0
            };
            let named = FORBIDDEN_V6.iter().find(of).map(|(_, _, what)| *what);
            named.or((bits >> 125 != 1).then_some("reserved"))
        }
    }
}

/// Judges addresses for one import.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// What the operator allows; goes before everything else.
    pub allowed: Vec<IpNet>,
    /// The cloud's own: of this machine, of its hosts, of what it gives out.
    pub own: Vec<IpNet>,
}

impl Guard {
    /// What is forbidden about the address.
    pub(super) fn objection(&self, address: IpAddr) -> Option<&'static str> {
        if self.allowed.iter().any(|range| range.contains(&address)) {
            return None;
        }
        special(address).or_else(|| {
            self.own.iter().any(|range| range.contains(&address)).then_some("of this cloud itself")
        })
    }
}

/// The addresses of this machine.
pub(super) fn own_addresses() -> Vec<IpNet> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    interfaces.filter_map(address).map(IpNet::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(allowed: &[&str], own: &[&str]) -> Guard {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Guard { allowed: parse(allowed), own: parse(own) }
    }

    #[test]
    fn only_the_internet_is_allowed() {
        let guard = guard(&["192.168.7.0/24", "fd07::/64"], &["198.41.0.0/24"]);
        for (address, objection) in [
            ("1.1.1.1", None),
            ("2606:4700::1111", None),
            ("192.168.7.9", None),
            ("fd07::1", None),
            ("192.168.8.9", Some("private")),
            ("10.255.255.255", Some("private")),
            ("172.31.0.1", Some("private")),
            ("172.32.0.1", None),
            ("100.64.0.1", Some("shared by carriers")),
            ("100.127.255.255", Some("shared by carriers")),
            ("100.128.0.1", None),
            ("127.0.0.1", Some("loopback")),
            ("127.9.9.9", Some("loopback")),
            ("0.0.0.0", Some("unspecified")),
            ("169.254.169.254", Some("link-local")),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.250", Some("multicast")),
            ("255.255.255.255", Some("reserved")),
            ("198.41.0.4", Some("of this cloud itself")),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::ffff:8.8.8.8", Some("an IPv4 address in disguise")),
            ("::ffff:192.168.7.9", Some("an IPv4 address in disguise")),
            ("::7f00:1", Some("reserved")),
            ("64:ff9b::7f00:1", Some("an IPv4 address in disguise")),
            ("64:ff9b:1::1", Some("an IPv4 address in disguise")),
            ("2002:7f00:1::", Some("an IPv4 address in disguise")),
            ("2001::1", Some("reserved")),
            ("fd08::1", Some("private")),
            ("fe80::1", Some("link-local")),
            ("fec0::1", Some("link-local")),
            ("ff02::1", Some("multicast")),
            ("4000::1", Some("reserved")),
        ] {
            assert_eq!(guard.objection(address.parse().unwrap()), objection, "{address}");
        }
    }

    #[test]
    fn this_machine_is_its_own() {
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert!(own_addresses().iter().any(|range| range.contains(&loopback)));
    }

    proptest! {
        /// The standard library knows some of them too.
        #[test]
        fn what_the_standard_library_calls_special_is_forbidden(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let special_there = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation();
            prop_assert!(!special_there || special(address.into()).is_some(), "{address}");
            let disguised = special(address.to_ipv6_mapped().into());
            prop_assert_eq!(disguised, Some("an IPv4 address in disguise"));
        }
    }
}
