//! Every fate of a packet that is not "forwarded", as one enum: the number counts it, the name is what people read.
//!
//! Forwarded packets are counted by [`crate::Class`] instead: one counter per packet on the hot path, not two.

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Left alone, byte for byte: the host's own stack has it.
    Punted,
    /// Ours, but XDP cannot send it: passed untouched to the tc program on the same device.
    Slow,
    /// Ours, and gone.
    Dropped,
}

impl Outcome {
    /// The word that `status` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Punted => "punted",
            Self::Slow => "slow",
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

            /// What became of the packet.
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
    /// The destination MAC is not that of the interface (broadcast, multicast, promiscuous).
    NotOurMac = 1, Punted, "not-our-mac";
    /// Inbound: the destination is not the VIP. Outbound: the source is not the server.
    OtherAddress = 2, Punted, "other-address";
    /// Neither UDP nor ESP. AH (51) is among them: it cannot cross a NAT.
    OtherProtocol = 3, Punted, "other-protocol";
    /// UDP, but neither of our ports.
    OtherPort = 4, Punted, "other-port";
    /// A non-first UDP fragment that nothing connects with us.
    OtherFragment = 5, Punted, "other-fragment";
    /// The IPv4 or UDP header contradicts itself or the frame's length.
    Malformed = 6, Punted, "malformed";
    /// Outbound: the route does not leave by the WAN (the server talks to the gateway, the LAN or a DMZ).
    NotByWan = 7, Punted, "not-by-wan";
    /// Outbound, TTL 1: the kernel answers time exceeded.
    TtlExpiredOutbound = 8, Punted, "ttl-expired-outbound";
    /// Forwarding is off on the device that the packet came from.
    ForwardingDisabled = 9, Punted, "forwarding-disabled";

    /// The neighbour has no MAC yet.
    NeighbourUnresolved = 10, Slow, "neighbour-unresolved";
    /// One packet every few seconds, so that the kernel goes on confirming the neighbour.
    NeighbourConfirm = 11, Slow, "neighbour-confirm";
    /// The egress does not take frames from XDP (bridge, tap, VLAN, a veth without a program on its peer).
    EgressNotXdp = 12, Slow, "egress-not-xdp";
    /// The UDP checksum is still the sender's partial one (CHECKSUM_PARTIAL on a veth).
    ChecksumPartial = 13, Slow, "checksum-partial";

    /// Inbound, TTL 1.
    TtlExpiredInbound = 14, Dropped, "ttl-expired-inbound";
    /// Inbound, from an address that no client has (the VIP, the server, loopback, multicast, 0.0.0.0).
    BogusSource = 15, Dropped, "bogus-source";
    /// Larger than the MTU of the way out.
    TooBig = 16, Dropped, "too-big";
    /// Inbound: there is no route to the server.
    NoRoute = 17, Dropped, "no-route";
    /// Inbound: forwarding is off on the WAN.
    ForwardingDisabledInbound = 18, Dropped, "forwarding-disabled-inbound";
    /// The frame could not be written (a bug: it was checked before).
    Unwritable = 19, Dropped, "unwritable";
}
