//! The names of what we make on a host. What bears such a name is ours to change and to remove; nothing else
//! is.
//!
//! An interface name has at most 15 bytes. Ids are UUIDs of version 7, whose last twelve digits are random.

use protocol::{MacAddress, PortId, RouterId, RouterInterfaceId, Vni};
use uuid::Uuid;

fn tail(id: Uuid) -> String {
    let digits = id.simple().to_string();
    digits[digits.len() - 12..].to_owned()
}

/// The tap of a port, `ct0123456789ab`.
pub fn tap(port: PortId) -> String {
    format!("ct{}", tail(port.as_uuid()))
}

/// The bridge of a network on this host, `cbr16777215`.
pub fn bridge(vni: Vni) -> String {
    format!("cbr{vni}")
}

/// The VXLAN device of a network, `cvx16777215`.
pub fn vxlan(vni: Vni) -> String {
    format!("cvx{vni}")
}

/// The namespace with the services of a network, `cumulo-net-16777215`.
pub fn services_namespace(vni: Vni) -> String {
    format!("cumulo-net-{vni}")
}

/// The bridge's end of the link to a network's services, `csv16777215`; the other end is `eth0`.
pub fn services_link(vni: Vni) -> String {
    format!("csv{vni}")
}

/// The namespace of a router, `cumulo-router-0123456789ab`.
pub fn router_namespace(router: RouterId) -> String {
    format!("cumulo-router-{}", tail(router.as_uuid()))
}

/// The bridge's end of a router's interface, `cri0123456789ab`.
pub fn router_link(interface: RouterInterfaceId) -> String {
    format!("cri{}", tail(interface.as_uuid()))
}

/// The router's end of that link, in its namespace, `if0123456789ab`.
pub fn router_interface(interface: RouterInterfaceId) -> String {
    format!("if{}", tail(interface.as_uuid()))
}

/// The host's end of a router's way out, `cre0123456789ab`; the router's end is `external`.
pub fn router_uplink(router: RouterId) -> String {
    format!("cre{}", tail(router.as_uuid()))
}

/// The router's end of its way out, in its namespace.
pub const ROUTER_EXTERNAL: &str = "external";

/// The services' end of their link, in their namespace.
pub const SERVICES_INTERFACE: &str = "eth0";

/// The address of a network's services, on every host alike, `02:63:00:ff:ff:ff`.
pub fn services_mac(vni: Vni) -> MacAddress {
    mac(0x63, vni)
}

/// The address of a network's bridge, on every host alike, `02:62:00:ff:ff:ff`. Nobody speaks to it.
pub(crate) fn bridge_mac(vni: Vni) -> MacAddress {
    mac(0x62, vni)
}

fn mac(kind: u8, vni: Vni) -> MacAddress {
    let [_, a, b, c] = vni.get().to_be_bytes();
    MacAddress::from_bytes([0x02, kind, 0, a, b, c]).expect("locally administered, no group")
}

/// Whether a device of the root namespace bears a name of ours. Taps do not count: libvirt makes and removes
/// them.
pub(crate) fn is_our_device(name: &str) -> bool {
    let Some((prefix, rest)) = name.split_at_checked(3) else { return false };
    match prefix {
        "cbr" | "cvx" | "csv" => is_vni(rest),
        "cri" | "cre" => is_tail(rest),
        _ => false,
    }
}

/// Whether a device bears the name of a card of ours.
pub(crate) fn is_tap(name: &str) -> bool {
    name.strip_prefix("ct").is_some_and(is_tail)
}

/// Whether a network namespace bears a name of ours.
pub(crate) fn is_our_namespace(name: &str) -> bool {
    name.strip_prefix("cumulo-net-").is_some_and(is_vni)
        || name.strip_prefix("cumulo-router-").is_some_and(is_tail)
}

fn is_vni(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| Vni::try_from(number).is_ok() && number.to_string() == text)
}

fn is_tail(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel() {
        let vni = Vni::try_from(Vni::MAX).unwrap();
        let id = Uuid::max();
        for name in [
            tap(id.into()),
            bridge(vni),
            vxlan(vni),
            services_link(vni),
            router_link(id.into()),
            router_interface(id.into()),
            router_uplink(id.into()),
        ] {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn only_exact_names_are_ours() {
        let vni = Vni::try_from(7).unwrap();
        let id = Uuid::max();
        for name in
            [bridge(vni), vxlan(vni), services_link(vni), router_link(id.into()), router_uplink(id.into())]
        {
            assert!(is_our_device(&name), "{name}");
        }
        for name in
            ["cbr", "cbr0", "cbr07", "cbr+7", "cbr16777216", "cbr7x", "cri7", "creature", "ct0123456789ab"]
        {
            assert!(!is_our_device(name), "{name}");
        }
        assert!(is_tap(&tap(id.into())) && !is_tap("ct0") && !is_tap(&router_link(id.into())));
        assert!(is_our_namespace(&services_namespace(vni)));
        assert!(is_our_namespace(&router_namespace(id.into())));
        assert!(!is_our_namespace("cumulo-net-"));
        assert!(!is_our_namespace("cumulo-router-lab"));
    }
}
