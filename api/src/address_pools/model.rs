//! Which addresses a pool may hold.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::http::{FieldError, validate_cidr};
use crate::subnets::reserved;

/// The addresses that a pool gives out, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

impl Range {
    /// What is given out unless the operator says otherwise: everything but the addresses of the network itself
    /// and of everybody in it, which a range of one or two addresses does not have.
    fn of(cidr: Ipv4Net) -> Self {
        let (network, broadcast) = (cidr.network(), cidr.broadcast());
        if cidr.prefix_len() >= 31 {
            return Self { first: network, last: broadcast };
        }
        Self { first: (u32::from(network) + 1).into(), last: (u32::from(broadcast) - 1).into() }
    }

    /// The range that is asked for, within `cidr`.
    pub(super) fn checked(
        cidr: Ipv4Net,
        first: Option<Ipv4Addr>,
        last: Option<Ipv4Addr>,
        errors: &mut Vec<FieldError>,
    ) -> Self {
        let usual = Self::of(cidr);
        let range = Self { first: first.unwrap_or(usual.first), last: last.unwrap_or(usual.last) };
        for (pointer, address) in [("/first_address", range.first), ("/last_address", range.last)] {
            if !cidr.contains(&address) {
                errors.push(FieldError::new(pointer, "out_of_range", format!("{address} is not in {cidr}")));
            }
        }
        if range.first > range.last {
            let message = format!("{} is below {}", range.last, range.first);
            errors.push(FieldError::new("/last_address", "out_of_range", message));
        }
        range
    }
}

/// The range of a pool, if a pool may have it.
pub(super) fn check_cidr(cidr: IpNet, errors: &mut Vec<FieldError>) -> Option<Ipv4Net> {
    let IpNet::V4(v4) = cidr else {
        let message = "a pool holds IPv4 addresses; with IPv6 every instance has a public address";
        errors.push(FieldError::new("/cidr", "invalid", message));
        return None;
    };
    validate_cidr("/cidr", cidr, errors);
    if let Some((range, what)) = reserved::touched(&cidr.trunc()) {
        errors.push(FieldError::new("/cidr", "invalid", format!("it overlaps {range}: {what}")));
    }
    Some(v4.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(cidr: &str) -> bool {
        let mut errors = Vec::new();
        check_cidr(cidr.parse().unwrap(), &mut errors);
        !errors.is_empty()
    }

    #[test]
    fn ranges_with_a_meaning_are_no_pools() {
        for wrong in [
            "100.64.0.0/24",
            "100.127.255.0/24",
            "127.0.0.0/8",
            "169.254.1.0/24",
            "224.0.0.0/24",
            "0.0.0.0/0",
            "100.0.0.0/8",
            "255.255.255.255/32",
            "2001:db8::/64",
            "203.0.113.1/24",
        ] {
            assert!(refused(wrong), "{wrong}");
        }
        for fine in ["203.0.113.0/24", "192.168.7.0/28", "100.128.0.0/24", "203.0.113.7/32"] {
            assert!(!refused(fine), "{fine}");
        }
    }

    #[test]
    fn the_usual_range_leaves_out_what_is_nobodys() {
        for (cidr, first, last) in [
            ("203.0.113.0/24", "203.0.113.1", "203.0.113.254"),
            ("203.0.113.0/30", "203.0.113.1", "203.0.113.2"),
            ("203.0.113.4/31", "203.0.113.4", "203.0.113.5"),
            ("203.0.113.7/32", "203.0.113.7", "203.0.113.7"),
        ] {
            let usual = Range { first: first.parse().unwrap(), last: last.parse().unwrap() };
            assert_eq!(Range::of(cidr.parse().unwrap()), usual, "{cidr}");
        }
    }
}
