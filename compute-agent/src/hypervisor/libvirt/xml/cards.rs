//! The network cards of a domain: rendered for its start and for hot-plug, and read back.

use protocol::MacAddress;
use protocol::agent::Nic;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use serde::Serialize;

use super::model::Boot;
use crate::hypervisor::{Card, DomainSpec};

#[derive(Debug, Serialize)]
#[serde(rename = "interface")]
pub(super) struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Address,
    source: Bridge,
    target: Tap,
    model: Model,
    mtu: Size,
    /// Boot code is loaded into the guest only for a card that it may boot from.
    rom: Rom,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
}

#[derive(Debug, Serialize)]
struct Address {
    #[serde(rename = "@address")]
    address: MacAddress,
}

#[derive(Debug, Serialize)]
struct Bridge {
    #[serde(rename = "@bridge")]
    bridge: String,
}

#[derive(Debug, Serialize)]
struct Tap {
    #[serde(rename = "@dev")]
    dev: String,
}

#[derive(Debug, Serialize)]
struct Model {
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct Size {
    #[serde(rename = "@size")]
    size: u16,
}

#[derive(Debug, Serialize)]
struct Rom {
    #[serde(rename = "@enabled")]
    enabled: &'static str,
}

/// All cards that a domain starts with.
pub(super) fn interfaces(spec: &DomainSpec) -> Vec<Interface> {
    let (_, first) = spec.hardware.boot_order.places();
    let card = |(index, nic): (usize, &Nic)| {
        let boot = first.filter(|_| index == 0).map(|order| Boot { order });
        Interface {
            model: Model { kind: spec.hardware.nic_model.as_str() },
            rom: Rom { enabled: if boot.is_some() { "yes" } else { "no" } },
            boot,
            ..interface(nic)
        }
    };
    spec.nics.iter().enumerate().map(card).collect()
}

/// As it is plugged into a running domain.
pub(super) fn interface(nic: &Nic) -> Interface {
    Interface {
        kind: "bridge",
        mac: Address { address: nic.mac },
        source: Bridge { bridge: networking::names::bridge(nic.vni) },
        target: Tap { dev: networking::names::tap(nic.port_id) },
        model: Model { kind: "virtio" },
        mtu: Size { size: nic.mtu },
        rom: Rom { enabled: "no" },
        boot: None,
    }
}

/// The element that plugs a card in.
pub(in super::super) fn card(nic: &Nic) -> Result<String, quick_xml::SeError> {
    quick_xml::se::to_string(&interface(nic))
}

/// The element of a card that is there, by which it is pulled out: libvirt finds it by its address.
pub(in super::super) fn card_at(mac: MacAddress) -> String {
    format!(r#"<interface type="bridge"><mac address="{mac}"/><source bridge="any"/></interface>"#)
}

/// The cards in the XML of a running domain. One whose address is none of ours is left out.
pub(in super::super) fn cards(domain: &str) -> Result<Vec<Card>, quick_xml::Error> {
    let mut reader = Reader::from_str(domain);
    let (mut cards, mut open) = (Vec::new(), None::<(Option<MacAddress>, Option<String>)>);
    loop {
        match reader.read_event()? {
            Event::Eof => return Ok(cards),
            Event::Start(element) if element.name().as_ref() == "interface" => open = Some((None, None)),
            Event::End(element) if element.name().as_ref() == "interface" => {
                if let Some((Some(mac), tap)) = open.take() {
                    cards.push(Card { mac, tap });
                }
            }
            Event::Empty(element) | Event::Start(element) => match (&mut open, element.name().as_ref()) {
                (Some((mac, _)), "mac") => {
                    *mac = attribute(&element, "address")?.and_then(|address| address.parse().ok());
                }
                (Some((_, tap)), "target") => *tap = attribute(&element, "dev")?,
                _ => {}
            },
            _ => {}
        }
    }
}

pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, quick_xml::Error> {
    let Some(attribute) = element.try_get_attribute(name)? else { return Ok(None) };
    Ok(Some(attribute.normalized_value(XmlVersion::Explicit1_0)?.into_owned()))
}
