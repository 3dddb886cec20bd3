//! The reasons for which a packet is not forwarded, as one enum: the number is the index of the
//! counter, the name is what users read.
//!
//! Forwarded packets are counted by [`crate::Class`] instead: one counter per packet on the fast
//! path, not two.

/// The outcome for a packet that is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Passed unchanged to the stack of the host.
    Punted,
    /// Handled, but XDP cannot send it: passed unchanged to the tc program on the same device.
    Slow,
    /// Handled and dropped, and an ICMP error informed its sender.
    Answered,
    /// Handled and dropped.
    Dropped,
}

impl Outcome {
    /// The word that `status` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Punted => "punted",
            Self::Slow => "slow",
            Self::Answered => "answered",
            Self::Dropped => "dropped",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $outcome:ident, $name:literal;)*) => {
        /// Why a packet was not forwarded by this hook. The number is the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $number,)* }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The outcome for the packet.
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome,)* }
            }

            /// The name that `status` prints.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// EtherType other than IPv4 (a VLAN tag among them), or a frame too short to have one.
    NotIpv4 = 0, Punted, "not-ipv4";
    /// The destination MAC is not that of the interface (broadcast, multicast, promiscuous;
    /// [`Self::GroupFrame`] is an exception).
    NotOurMac = 1, Punted, "not-our-mac";
    /// Inbound: the destination is not the VIP. Outbound: the source is not the server.
    OtherAddress = 2, Punted, "other-address";
    /// Neither UDP nor ESP nor TCP. AH (51) is among them: it cannot cross a NAT.
    OtherProtocol = 3, Punted, "other-protocol";
    /// UDP or TCP, but on none of the handled ports.
    OtherPort = 4, Punted, "other-port";
    /// A non-first fragment of UDP or TCP that nothing connects with handled traffic.
    OtherFragment = 5, Punted, "other-fragment";
    /// The IPv4, UDP or TCP header contradicts itself or the frame's length.
    Malformed = 6, Punted, "malformed";
    /// Outbound: the route does not leave by a WAN (the server talks to the gateway, the LAN or a
    /// DMZ), or the destination is no host (0.0.0.0/8, multicast, 240.0.0.0/4, broadcast).
    NotByWan = 7, Punted, "not-by-wan";
    /// ICMP that is not an error about a handled packet.
    OtherIcmp = 8, Punted, "other-icmp";
    /// Forwarding is off on the device that the packet came from.
    ForwardingDisabled = 9, Punted, "forwarding-disabled";
    /// From or to a peer that `--except-peer` leaves to the gateway.
    ExceptPeer = 10, Punted, "except-peer";
    /// The neighbour has no MAC yet.
    NeighbourUnresolved = 11, Slow, "neighbour-unresolved";
    /// One packet every few seconds, so that the kernel goes on confirming the neighbour.
    NeighbourConfirm = 12, Slow, "neighbour-confirm";
    /// The egress does not accept frames from XDP (bridge, tap, VLAN, a veth whose peer runs no
    /// program).
    EgressNotXdp = 13, Slow, "egress-not-xdp";
    /// The UDP or TCP checksum is still the sender's partial one (CHECKSUM_PARTIAL on a veth).
    ChecksumPartial = 14, Slow, "checksum-partial";
    /// ICMP to the VIP or from the server: perhaps an error about a handled packet.
    Icmp = 15, Slow, "icmp";
    /// The TTL expires here: an ICMP error goes to the sender.
    TtlExpired = 16, Slow, "ttl-expired";
    /// Larger than the MTU of the egress: the packet is fragmented, or an ICMP error goes to the
    /// sender.
    TooBig = 17, Slow, "too-big";
    /// The server is an address of this host: the packet is translated in tc and passed to the
    /// stack.
    ServerIsLocal = 18, Slow, "server-is-local";
    /// Outbound, too big, and fragmentation is allowed: the kernel fragments the packet, and the tc
    /// egress program translates the fragments.
    ToFragment = 19, Slow, "to-fragment";
    /// Time exceeded was sent (RFC 792, type 11 code 0).
    TimeExceeded = 20, Answered, "time-exceeded";
    /// Fragmentation needed was sent (RFC 1191 section 4, type 3 code 4).
    FragmentationNeeded = 21, Answered, "fragmentation-needed";
    /// Inbound, from an address that no client has (the VIP, the server, loopback, multicast,
    /// 240.0.0.0/4, 0.0.0.0/8).
    BogusSource = 22, Dropped, "bogus-source";
    /// Inbound: there is no route to the server.
    NoRoute = 23, Dropped, "no-route";
    /// Inbound: forwarding is off on the WAN.
    ForwardingDisabledInbound = 24, Dropped, "forwarding-disabled-inbound";
    /// The frame could not be written (a bug: it was checked before).
    Unwritable = 25, Dropped, "unwritable";
    /// From or to a peer that `--deny` refuses.
    Denied = 26, Dropped, "denied";
    /// An ICMP error that ikenat would send or translate, beyond the limit of the peer; or one that
    /// must not be sent, because later fragments cause no ICMP error (RFC 1122 section 3.2.2).
    IcmpLimited = 27, Dropped, "icmp-limited";
    /// An ICMP error with a wrong checksum or a wrong quoted header (RFC 5508 section 4.2 REQ-3),
    /// or too short to show what it quotes.
    IcmpMalformed = 28, Dropped, "icmp-malformed";
    /// An ICMP error about an ICMP error (RFC 1122 section 3.2.2).
    IcmpNested = 29, Dropped, "icmp-nested";
    /// An ICMP error from outside that quotes the server's own address, which is never visible
    /// outside.
    IcmpSpoofed = 30, Dropped, "icmp-spoofed";
    /// A first fragment too short for the fields that decide about it: ports, SPI and sequence
    /// number, or the TCP header (RFC 1858 section 3); or a later one that begins in a TCP header.
    FragmentTiny = 31, Dropped, "fragment-tiny";
    /// A later fragment that begins before the first one ends.
    FragmentOverlap = 32, Dropped, "fragment-overlap";
    /// A fragment that ends beyond the largest possible packet.
    FragmentPastEnd = 33, Dropped, "fragment-past-end";
    /// Inbound, from an address behind a LAN, or this host's own there: forged.
    InsideSource = 34, Dropped, "inside-source";
    /// With a source route (RFC 791 section 3.1): its sender chooses the way of the replies, and
    /// reaches what it could not address.
    SourceRoute = 35, Dropped, "source-route";
    /// Inbound, from a peer of the host itself, and neither a flow nor a session of the server claims
    /// it. On egress: a packet of the host that teaches such a peer.
    HostPeer = 36, Punted, "host-peer";
    /// Inbound, a later fragment before its first one, and nothing shows whether it is handled: tc
    /// forwards it, and gives a copy to the host.
    FragmentUndecided = 37, Slow, "fragment-undecided";
    /// Inbound native ESP of an unknown SPI, from an address that is a peer of the host and a client of
    /// the server: tc forwards it, and gives a copy to the host.
    EspUndecided = 38, Slow, "esp-undecided";
    /// Twelve IPv4 options or more: not read, so that they may hide a source route, and a daemon of the
    /// host on the VIP's own port must not answer them.
    ManyOptions = 39, Dropped, "many-options";
    /// Inbound, on one of the service's ports or ESP, in a frame to a group (RFC 1122 section 3.3.6).
    GroupFrame = 40, Dropped, "group-frame";
    /// Inbound, a RST to another VIP of the service than that by which the peer has a connection from this
    /// port: the server would take it for one of that connection.
    OtherVip = 41, Dropped, "other-vip";
}
