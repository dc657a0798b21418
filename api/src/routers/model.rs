//! Which routes a router may have, and what its interfaces are called on the wire.

use std::collections::HashSet;

use ipnet::IpNet;
use protocol::MacAddress;

use super::types::StaticRoute;
use crate::http::{FieldError, validate_cidr};
use crate::subnets::{is_usable, reserved};

/// So many static routes a router may have.
const MAX_ROUTES: usize = 100;

/// The first two bytes of the address of every router's interface: given out by ourselves, and no guest's.
const MAC_PREFIX: [u8; 2] = [0x02, 0x72];

/// Where a router stands: the range of a subnet, and its own address there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stand {
    pub cidr: IpNet,
    pub address: std::net::IpAddr,
}

/// A random address for an interface.
pub(super) fn random_mac() -> String {
    let [a, b] = MAC_PREFIX;
    let [c, d, e, f] = rand::random::<[u8; 4]>();
    MacAddress::from_bytes([a, b, c, d, e, f]).map_or_else(|_| random_mac(), |mac| mac.to_string())
}

/// A random number for a router.
pub(super) fn random_number() -> i32 {
    rand::random_range(1..=0x1f_ffff)
}

/// Adds an error for each route that cannot be.
pub(super) fn validate_routes(
    routes: &[StaticRoute],
    stands: &[Stand],
    external: bool,
    errors: &mut Vec<FieldError>,
) {
    if routes.len() > MAX_ROUTES {
        errors.push(FieldError::new("/routes", "too_many", format!("at most {MAX_ROUTES} routes")));
        return;
    }
    let mut destinations = HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        let at = format!("/routes/{index}/destination");
        validate_cidr(&at, route.destination, errors);
        if !destinations.insert(route.destination.trunc()) {
            errors.push(FieldError::new(&at, "invalid", "another route has this destination"));
        }
        if let Some(why) = wrong_destination(route.destination.trunc(), stands, external) {
            errors.push(FieldError::new(&at, "invalid", why));
        }
        if let Some(why) = wrong_next_hop(route, stands) {
            errors.push(FieldError::new(format!("/routes/{index}/next_hop"), "invalid", why));
        }
    }
}

fn wrong_destination(destination: IpNet, stands: &[Stand], external: bool) -> Option<String> {
    if external && destination.prefix_len() == 0 && matches!(destination, IpNet::V4(_)) {
        return Some("the router is external and leads everything out already".to_owned());
    }
    if let Some(stand) = stands.iter().find(|stand| stand.cidr.contains(&destination)) {
        return Some(format!("the router stands in {} itself", stand.cidr));
    }
    if matches!(destination, IpNet::V6(_)) || destination.prefix_len() == 0 {
        return None;
    }
    let (range, what) = reserved::around(&destination)?;
    Some(format!("it is in {range}: {what}"))
}

fn wrong_next_hop(route: &StaticRoute, stands: &[Stand]) -> Option<String> {
    let hop = route.next_hop;
    if hop.is_ipv4() != matches!(route.destination, IpNet::V4(_)) {
        return Some("next hop and destination are of one family".to_owned());
    }
    let Some(stand) = stands.iter().find(|stand| stand.cidr.contains(&hop)) else {
        return Some("it is in no subnet that the router stands in; add an interface there first".to_owned());
    };
    // Hosts refuse a route by an address that is nobody's.
    if !is_usable(&stand.cidr, hop) {
        return Some(format!("it is an address of the subnet {} that no port has", stand.cidr));
    }
    (stand.address == hop).then(|| "it is the router's own address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_route_is_pointed_at() {
        let stands = [
            Stand { cidr: "10.0.0.0/24".parse().unwrap(), address: "10.0.0.1".parse().unwrap() },
            Stand { cidr: "fd00::/64".parse().unwrap(), address: "fd00::1".parse().unwrap() },
        ];
        let pointers = |destination: &str, next_hop: &str, external| {
            let route = |destination: &str, next_hop: &str| StaticRoute {
                destination: destination.parse().unwrap(),
                next_hop: next_hop.parse().unwrap(),
            };
            let mut errors = Vec::new();
            let routes = [route("192.168.0.0/16", "10.0.0.9"), route(destination, next_hop)];
            validate_routes(&routes, &stands, external, &mut errors);
            errors.into_iter().map(|error| error.pointer).collect::<Vec<_>>()
        };
        for (destination, next_hop) in [
            ("192.168.0.0/16", "10.0.0.8"),
            ("192.168.1.1/24", "10.0.0.8"),
            ("10.0.0.0/24", "10.0.0.8"),
            ("10.0.0.128/25", "10.0.0.8"),
            ("0.0.0.0/0", "10.0.0.8"),
            ("169.254.169.254/32", "10.0.0.8"),
            ("100.64.0.0/10", "10.0.0.8"),
        ] {
            assert_eq!(pointers(destination, next_hop, true), ["/routes/1/destination"], "{destination}");
        }
        for next_hop in ["10.0.1.8", "10.0.0.1", "10.0.0.0", "10.0.0.255", "fd00::8"] {
            assert_eq!(pointers("172.16.0.0/12", next_hop, true), ["/routes/1/next_hop"], "{next_hop}");
        }
        assert!(pointers("172.16.0.0/12", "10.0.0.8", true).is_empty());
        assert!(pointers("10.0.0.0/8", "10.0.0.8", true).is_empty());
        assert!(pointers("::/0", "fd00::8", true).is_empty());
        assert_eq!(pointers("::/0", "fd00::", true), ["/routes/1/next_hop"]);
        assert!(pointers("0.0.0.0/0", "10.0.0.8", false).is_empty());
    }

    #[test]
    fn what_is_random_is_in_its_range() {
        for _ in 0..1000 {
            assert!((1..=2_097_151).contains(&random_number()));
            assert!(random_mac().starts_with("02:72:"));
        }
    }
}
