//! Ranges that mean something of their own everywhere: no subnet and no pool has addresses of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const RESERVED: &[(IpNet, &str)] = &[
    (v4([0, 0, 0, 0], 8), "addresses of this host"),
    (v4([100, 64, 0, 0], 10), "addresses between routers and their hosts"),
    (v4([127, 0, 0, 0], 8), "loopback addresses"),
    (v4([169, 254, 0, 0], 16), "link-local addresses"),
    (v4([224, 0, 0, 0], 4), "multicast addresses"),
    (v4([240, 0, 0, 0], 4), "reserved addresses"),
    (v6([0; 8], 8), "unspecified, loopback and mapped addresses"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local addresses"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast addresses"),
];

const fn v4(address: [u8; 4], prefix: u8) -> IpNet {
    let [a, b, c, d] = address;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(address: [u16; 8], prefix: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = address;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

/// Such a range that has addresses in common with this one, and what they are.
pub(crate) fn touched(cidr: &IpNet) -> Option<(IpNet, &'static str)> {
    // Prefixes overlap in no other way.
    RESERVED.iter().find(|(range, _)| range.contains(cidr) || cidr.contains(range)).copied()
}

/// Such a range that has all addresses of this one, and what they are.
pub(crate) fn around(cidr: &IpNet) -> Option<(IpNet, &'static str)> {
    RESERVED.iter().find(|(range, _)| range.contains(cidr)).copied()
}
