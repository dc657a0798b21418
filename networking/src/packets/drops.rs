//! Why packets are dropped. Each kind is a named counter in the tables that can drop for it.

/// A reason to drop a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropKind {
    /// To or from a tap that no port of the document stands for.
    UnknownTap,
    /// A guest's frame from a hardware address that is not the port's.
    Mac,
    /// An ARP message that speaks for an address that is not the port's.
    Arp,
    /// A guest's packet from an IPv4 address that is not the port's.
    Ipv4Source,
    /// The same of IPv6.
    Ipv6Source,
    /// A neighbour or router solicitation, or an advertisement, that speaks for somebody else.
    Neighbour,
    /// A guest that acts as an IPv6 router: advertisements, redirects, multicast queries.
    RouterAdvertisement,
    /// A guest that answers DHCP.
    DhcpServer,
    /// A frame with a VLAN tag.
    Vlan,
    /// Spanning tree, LLDP and the like.
    LinkControl,
    /// Neither IPv4, IPv6 nor ARP.
    Ethertype,
    /// A first fragment too small for its transport header, or a second one that would overwrite it.
    Fragment,
    /// IPv6 extension headers that hide what is in the packet, or source routing.
    ExtensionHeader,
    /// A guest's packet to the host itself.
    Host,
    /// A packet that the rules of security groups have not seen.
    Unfiltered,
    /// A packet of no connection.
    Invalid,
    /// No security group allows the sender to send it.
    Egress,
    /// No security group allows the receiver to get it.
    Ingress,
    /// VXLAN that comes from no peer, or leaves a router.
    Underlay,
    /// A router was to forward it to where no guest may go.
    Protected,
    /// A router's packet from an address that is not its own.
    RouterSource,
    /// From outside to a router, and to no floating IP.
    Unsolicited,
    /// It would begin more connections than one port may have, or may begin in so short a time.
    TooMuch,
}

impl DropKind {
    pub const ALL: [Self; 23] = [
        Self::UnknownTap,
        Self::Mac,
        Self::Arp,
        Self::Ipv4Source,
        Self::Ipv6Source,
        Self::Neighbour,
        Self::RouterAdvertisement,
        Self::DhcpServer,
        Self::Vlan,
        Self::LinkControl,
        Self::Ethertype,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::Host,
        Self::Unfiltered,
        Self::Invalid,
        Self::Egress,
        Self::Ingress,
        Self::Underlay,
        Self::Protected,
        Self::RouterSource,
        Self::Unsolicited,
        Self::TooMuch,
    ];

    /// The counter's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTap => "unknown_tap",
            Self::Mac => "mac",
            Self::Arp => "arp",
            Self::Ipv4Source => "ipv4_source",
            Self::Ipv6Source => "ipv6_source",
            Self::Neighbour => "neighbour",
            Self::RouterAdvertisement => "router_advertisement",
            Self::DhcpServer => "dhcp_server",
            Self::Vlan => "vlan",
            Self::LinkControl => "link_control",
            Self::Ethertype => "ethertype",
            Self::Fragment => "fragment",
            Self::ExtensionHeader => "extension_header",
            Self::Host => "host",
            Self::Unfiltered => "unfiltered",
            Self::Invalid => "invalid",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Underlay => "underlay",
            Self::Protected => "protected",
            Self::RouterSource => "router_source",
            Self::Unsolicited => "unsolicited",
            Self::TooMuch => "too_much",
        }
    }

    pub(super) fn of_counter(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What was dropped for one reason since the table was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops {
    pub kind: DropKind,
    pub packets: u64,
    pub bytes: u64,
}
