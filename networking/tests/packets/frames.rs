//! Frames by hand, and a wire to put them on.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::world::inside;

pub type Hardware = [u8; 6];

pub const BROADCAST: Hardware = [0xff; 6];

/// The guest's end of a tap: raw frames in and out.
pub struct Card(OwnedFd);

impl Card {
    pub fn of(namespace: &str) -> Self {
        inside(namespace, || {
            let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll)
                .unwrap();
            let address: LinkAddr = nix::ifaddrs::getifaddrs()
                .unwrap()
                .filter(|interface| interface.interface_name == "eth0")
                .find_map(|interface| interface.address?.as_link_addr().copied())
                .unwrap();
            assert_eq!(address.family(), Some(AddressFamily::Packet));
            bind(raw.as_raw_fd(), &address).unwrap();
            setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100)).unwrap();
            Self(raw)
        })
    }

    pub fn send(&self, frame: &[u8]) {
        assert_eq!(send(self.0.as_raw_fd(), frame, MsgFlags::empty()), Ok(frame.len()));
    }

    /// Whether a frame with these bytes in it comes within the time.
    pub fn hears(&self, bytes: &[u8], within: Duration) -> bool {
        let mut buffer = [0; 4096];
        let rounds = within.as_millis().div_ceil(100);
        (0..rounds).any(|_| {
            std::iter::from_fn(|| {
                recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok().map(|n| buffer[..n].to_vec())
            })
            .any(|frame| frame.windows(bytes.len()).any(|window| window == bytes))
        })
    }
}

pub fn ether(to: Hardware, from: Hardware, kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), body].concat()
}

/// `offset` holds flags and offset of the fragment as they stand in the header.
pub fn ip4(from: &str, to: &str, protocol: u8, offset: u16, body: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(|address| address.parse::<Ipv4Addr>().unwrap().octets());
    let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut header =
        [&[0x45, 0], &length[..], &[0x12, 0x34], &offset.to_be_bytes(), &[64, protocol, 0, 0], &from, &to]
            .concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], body].concat()
}

pub fn ip6(from: &str, to: &str, next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0], &length[..], &[next, hops], &from, &to, body].concat()
}

pub fn udp(from: u16, to: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + body.len()).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], body].concat()
}

/// An ICMP echo request.
pub fn ping(identifier: u16) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0][..], &identifier.to_be_bytes(), &[0, 1]].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A datagram for IPv6, where its checksum is not optional.
pub fn udp6(from: &str, to: &str, source: u16, target: u16, body: &[u8]) -> Vec<u8> {
    let mut datagram = udp(source, target, body);
    let [from, to] = [from, to].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
    let length = u32::try_from(datagram.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&from[..], &to, &length, &[0, 0, 0, 17], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

pub fn arp(operation: u16, sender: (Hardware, &str), target: (Hardware, &str)) -> Vec<u8> {
    let [from, to] = [sender.1, target.1].map(|address| address.parse::<Ipv4Addr>().unwrap().octets());
    [&[0, 1, 8, 0, 6, 4], &operation.to_be_bytes()[..], &sender.0, &from, &target.0, &to].concat()
}

/// An ICMPv6 message with its checksum, in a packet.
pub fn icmp6(from: &str, to: &str, kind: u8, body: &[u8]) -> Vec<u8> {
    ip6(from, to, 58, 255, &icmp6_body(from, to, kind, body))
}

pub fn icmp6_body(from: &str, to: &str, kind: u8, body: &[u8]) -> Vec<u8> {
    let [source, target] = [from, to].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
    let mut message = [&[kind, 0, 0, 0], body].concat();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&source[..], &target, &length, &[0, 0, 0, 58], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The body of a neighbour solicitation or advertisement: flags, target, options.
pub fn neighbour(flags: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let target = target.parse::<Ipv6Addr>().unwrap().octets();
    [&[flags, 0, 0, 0], &target[..], options].concat()
}

/// A link-layer option: 1 of the source, 2 of the target.
pub fn link_option(kind: u8, mac: Hardware) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
