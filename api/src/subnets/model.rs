//! What a subnet may be, and which addresses it keeps for what. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::reserved;
use super::types::{AddressRange, CreateSubnet};
use crate::http::FieldError;

/// The most allocation ranges of a subnet.
pub(super) const MAX_RANGES: usize = 16;
/// The most resolvers of a subnet.
pub(super) const MAX_DNS_SERVERS: usize = 3;

/// A subnet with every address decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub cidr: IpNet,
    pub gateway: Option<IpAddr>,
    pub service_address: IpAddr,
    /// Both ends included, in order, apart; without gateway and service address.
    pub ranges: Vec<(IpAddr, IpAddr)>,
}

/// The plan of a subnet with nothing but its range.
pub(crate) fn plan_default(cidr: IpNet) -> Option<Plan> {
    let (first, last) = usable(&cidr);
    let (gateway, service) = (first, first + 1);
    Some(Plan {
        cidr,
        gateway: Some(address(&cidr, gateway)),
        service_address: address(&cidr, service),
        ranges: vec![(address(&cidr, first + 2), address(&cidr, last))],
    })
    .filter(|_| first + 2 <= last)
}

/// Decides every address, or says which fields are wrong.
pub(super) fn plan(new: &CreateSubnet) -> Result<Plan, Vec<FieldError>> {
    let mut errors = Vec::new();
    check_cidr(&new.cidr, &mut errors);
    check_dns_servers(&new.dns_servers, &mut errors);
    if errors.iter().any(|error| error.pointer == "/cidr") {
        return Err(errors);
    }
    let cidr = new.cidr;
    let (first, last) = usable(&cidr);
    let gateway = match new.gateway {
        None => Some(first),
        Some(None) => None,
        Some(Some(chosen)) => inside(&cidr, chosen, "/gateway", &mut errors),
    };
    let service = match new.service_address {
        Some(chosen) => inside(&cidr, chosen, "/service_address", &mut errors),
        None => Some(beside(gateway, first, last)),
    };
    if service.is_some() && service == gateway {
        errors.push(FieldError::new("/service_address", "invalid", "another address than the gateway's"));
    }
    let kept: Vec<u128> = gateway.into_iter().chain(service).collect();
    let ranges = match &new.allocation_ranges {
        Some(ranges) => chosen_ranges(&cidr, ranges, &kept, &mut errors),
        None => rest(first, last, kept),
    };
    let Some(service) = service.filter(|_| errors.is_empty()) else { return Err(errors) };
    Ok(Plan {
        cidr,
        gateway: gateway.map(|number| address(&cidr, number)),
        service_address: address(&cidr, service),
        ranges: ranges.into_iter().map(|(a, b)| (address(&cidr, a), address(&cidr, b))).collect(),
    })
}

pub(super) fn check_dns_servers(servers: &[IpAddr], errors: &mut Vec<FieldError>) {
    if servers.len() > MAX_DNS_SERVERS {
        let message = format!("at most {MAX_DNS_SERVERS} resolvers");
        errors.push(FieldError::new("/dns_servers", "too_many", message));
    }
    for (index, server) in servers.iter().enumerate() {
        // No router leads there.
        if let Some((range, what)) = reserved::around(&(*server).into()) {
            let message = format!("the address of a machine that answers; {range} are {what}");
            errors.push(FieldError::new(format!("/dns_servers/{index}"), "invalid", message));
        }
    }
}

fn check_cidr(cidr: &IpNet, errors: &mut Vec<FieldError>) {
    let mut wrong = |code, message: String| errors.push(FieldError::new("/cidr", code, message));
    if cidr.addr() != cidr.network() {
        return wrong("host_bits", format!("bits behind the prefix are set; write {}", cidr.trunc()));
    }
    let (widest, narrowest) = if cidr.network().is_ipv4() { (8, 29) } else { (64, 124) };
    if cidr.prefix_len() > narrowest {
        wrong("too_small", format!("at least a /{narrowest}"));
    }
    if cidr.prefix_len() < widest {
        wrong("too_large", format!("at most a /{widest}"));
    }
    if let Some((prefix, what)) = reserved::touched(cidr) {
        wrong("reserved", format!("{prefix} are {what}; take private addresses, like 10.0.0.0/24"));
    }
}

/// The first and the last address that somebody may have: neither the network's own, nor IPv4's broadcast
/// address or IPv6's anycast address of routers.
fn usable(cidr: &IpNet) -> (u128, u128) {
    let last = number(cidr.broadcast());
    (number(cidr.network()) + 1, if cidr.network().is_ipv4() { last - 1 } else { last })
}

/// Whether a port may have this address of the subnet.
pub(crate) fn is_usable(cidr: &IpNet, chosen: IpAddr) -> bool {
    let (first, last) = usable(cidr);
    cidr.contains(&chosen) && (first..=last).contains(&number(chosen))
}

fn inside(cidr: &IpNet, chosen: IpAddr, pointer: &str, errors: &mut Vec<FieldError>) -> Option<u128> {
    if is_usable(cidr, chosen) {
        return Some(number(chosen));
    }
    let (first, last) = usable(cidr);
    let message = format!("from {} to {}", address(cidr, first), address(cidr, last));
    errors.push(FieldError::new(pointer, "out_of_range", message));
    None
}

/// The address next to the gateway.
fn beside(gateway: Option<u128>, first: u128, last: u128) -> u128 {
    match gateway {
        None => first,
        Some(gateway) if gateway == last => gateway - 1,
        Some(gateway) => gateway + 1,
    }
}

/// Everything but what is kept.
fn rest(first: u128, last: u128, mut kept: Vec<u128>) -> Vec<(u128, u128)> {
    kept.sort_unstable();
    let mut ranges = Vec::new();
    let mut next = first;
    for hole in kept {
        if next < hole {
            ranges.push((next, hole - 1));
        }
        next = hole + 1;
    }
    if next <= last {
        ranges.push((next, last));
    }
    ranges
}

fn chosen_ranges(
    cidr: &IpNet,
    chosen: &[AddressRange],
    kept: &[u128],
    errors: &mut Vec<FieldError>,
) -> Vec<(u128, u128)> {
    if chosen.len() > MAX_RANGES {
        let message = format!("at most {MAX_RANGES} ranges");
        errors.push(FieldError::new("/allocation_ranges", "too_many", message));
        return Vec::new();
    }
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    for (index, range) in chosen.iter().enumerate() {
        let pointer = |field: &str| format!("/allocation_ranges/{index}{field}");
        let first = inside(cidr, range.first, &pointer("/first"), errors);
        let last = inside(cidr, range.last, &pointer("/last"), errors);
        let (Some(first), Some(last)) = (first, last) else { continue };
        if first > last {
            errors.push(FieldError::new(pointer("/last"), "out_of_range", "not below the first address"));
        } else if kept.iter().any(|kept| (first..=last).contains(kept)) {
            let message = "neither the gateway nor the service address is in it";
            errors.push(FieldError::new(pointer(""), "reserved", message));
        } else if ranges.iter().any(|&(a, b)| first <= b && a <= last) {
            errors.push(FieldError::new(pointer(""), "overlap", "apart from the ranges before it"));
        } else {
            ranges.push((first, last));
        }
    }
    ranges.sort_unstable();
    ranges
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of this number, of the subnet's family.
fn address(cidr: &IpNet, number: u128) -> IpAddr {
    match cidr {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish(cidr: &str) -> CreateSubnet {
        serde_json::from_value(serde_json::json!({"name": "s", "network": "n", "cidr": cidr})).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn defaults_are_first_next_and_the_rest() {
        let made = plan(&wish("10.0.0.0/24")).unwrap();
        assert_eq!(made.gateway, Some(ip("10.0.0.1")));
        assert_eq!(made.service_address, ip("10.0.0.2"));
        assert_eq!(made.ranges, [(ip("10.0.0.3"), ip("10.0.0.254"))]);
        assert_eq!(plan_default("10.0.0.0/24".parse().unwrap()), Some(made));
        let made = plan(&wish("fd00::/64")).unwrap();
        assert_eq!(made.ranges, [(ip("fd00::3"), ip("fd00::ffff:ffff:ffff:ffff"))]);
    }

    #[test]
    fn what_cannot_be_a_subnet_says_why() {
        for (cidr, code) in [
            ("10.0.0.1/24", "host_bits"),
            ("10.0.0.0/30", "too_small"),
            ("10.0.0.0/7", "too_large"),
            ("12.0.0.0/7", "too_large"),
            ("127.0.0.0/24", "reserved"),
            ("169.254.0.0/24", "reserved"),
            ("100.100.0.0/24", "reserved"),
            ("100.0.0.0/8", "reserved"),
            ("224.1.0.0/24", "reserved"),
            ("0.0.0.0/8", "reserved"),
            ("255.255.255.0/24", "reserved"),
            ("fe80::/64", "reserved"),
            ("ff02::/64", "reserved"),
            ("::/96", "reserved"),
            ("fd00::/125", "too_small"),
            ("2000::/3", "too_large"),
            ("fd00::/63", "too_large"),
        ] {
            let errors = plan(&wish(cidr)).unwrap_err();
            assert_eq!((errors[0].pointer.as_str(), errors[0].code), ("/cidr", code), "{cidr}");
        }
    }

    #[test]
    fn resolvers_are_machines_that_can_be_reached() {
        for (server, is_fine) in [
            ("192.0.2.53", true),
            ("2001:db8::53", true),
            ("10.0.0.9", true),
            ("0.0.0.0", false),
            ("127.0.0.53", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("224.0.0.251", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("fe80::1", false),
            ("ff02::fb", false),
        ] {
            let mut errors = Vec::new();
            check_dns_servers(&[ip(server)], &mut errors);
            assert_eq!(errors.is_empty(), is_fine, "{server}");
        }
    }

    #[test]
    fn chosen_addresses_are_checked_one_by_one() {
        let mut wrong = wish("10.0.0.0/24");
        wrong.gateway = Some(Some(ip("10.0.0.255")));
        wrong.service_address = Some(ip("10.0.1.1"));
        let range = |first, last| AddressRange { first: ip(first), last: ip(last) };
        wrong.allocation_ranges = Some(vec![
            range("10.0.0.9", "10.0.0.5"),
            range("10.0.0.20", "10.0.0.30"),
            range("10.0.0.30", "10.0.0.40"),
            range("10.0.0.0", "10.0.0.2"),
        ]);
        let errors = plan(&wrong).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/gateway",
                "/service_address",
                "/allocation_ranges/0/last",
                "/allocation_ranges/2",
                "/allocation_ranges/3/first"
            ]
        );
        let mut right = wish("10.0.0.0/24");
        right.gateway = Some(None);
        right.allocation_ranges = Some(vec![range("10.0.0.1", "10.0.0.9")]);
        assert_eq!(plan(&right).unwrap_err()[0].code, "reserved");
    }

    proptest! {
        /// Gateway, service address and ranges are the usable addresses, each once.
        #[test]
        fn nothing_is_lost_and_nothing_twice(prefix in 20u8..=29, gateway: u32, none: bool) {
            let mut wanted = wish("10.16.0.0/12");
            wanted.cidr = IpNet::new(ip("10.16.0.0"), prefix).unwrap();
            let (first, last) = usable(&wanted.cidr);
            let chosen = first + u128::from(gateway) % (last - first + 1);
            wanted.gateway = Some((!none).then(|| address(&wanted.cidr, chosen)));
            let made = plan(&wanted).unwrap();
            let mut all: Vec<u128> = made.gateway.into_iter().chain([made.service_address]).map(number).collect();
            for (from, to) in made.ranges {
                all.extend(number(from)..=number(to));
            }
            all.sort_unstable();
            prop_assert_eq!(all, (first..=last).collect::<Vec<_>>());
        }
    }
}
