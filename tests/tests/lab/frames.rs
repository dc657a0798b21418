//! Frames by hand, for a guest to send as they are.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

pub type Hardware = [u8; 6];

pub const BROADCAST: Hardware = [0xff; 6];

pub const ARP: u16 = 0x0806;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;

pub fn hardware(text: &str) -> Result<Hardware> {
    let bytes = hex::decode(text.replace(':', "")).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.with_context(|| format!("{text} is no MAC"))
}

pub fn ether(to: Hardware, from: Hardware, kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), body].concat()
}

/// A datagram.
pub fn udp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), text: &[u8]) -> Vec<u8> {
    let datagram = udp(from.1, to.1, text);
    let length = (20 + datagram.len()) as u16;
    let mut header = [0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[12..16].copy_from_slice(&from.0.octets());
    header[16..20].copy_from_slice(&to.0.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], &datagram].concat()
}

/// Without a checksum, which IPv4 permits.
fn udp(from: u16, to: u16, text: &[u8]) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], text].concat()
}

/// What an ARP message says of its sender, followed by bytes that fill the frame.
pub fn arp(
    operation: u16,
    sender: (Hardware, Ipv4Addr),
    target: (Hardware, Ipv4Addr),
    text: &[u8],
) -> Vec<u8> {
    let (from, to) = (sender.1.octets(), target.1.octets());
    [&[0, 1, 8, 0, 6, 4], &operation.to_be_bytes()[..], &sender.0, &from, &target.0, &to, text].concat()
}

/// An ICMPv6 message that has come over no router.
pub fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0], body].concat();
    let sum = checksum(&[&pseudo_header(from, to, message.len(), 58)[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet6(from, to, 58, &message)
}

pub fn udp6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), text: &[u8]) -> Vec<u8> {
    let mut datagram = udp(from.1, to.1, text);
    let sum = checksum(&[&pseudo_header(from.0, to.0, datagram.len(), 17)[..], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    packet6(from.0, to.0, 17, &datagram)
}

fn packet6(from: Ipv6Addr, to: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0], &length[..], &[next, 255], &from.octets(), &to.octets(), body].concat()
}

fn pseudo_header(from: Ipv6Addr, to: Ipv6Addr, length: usize, next: u8) -> Vec<u8> {
    let length = (length as u16).to_be_bytes();
    [&from.octets()[..], &to.octets(), &[0, 0], &length, &[0, 0, 0, next]].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The address that a card gives itself (RFC 4291, appendix A).
pub fn link_local([a, b, c, d, e, f]: Hardware) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
