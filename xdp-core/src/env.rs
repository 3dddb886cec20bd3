//! The environment of the packet logic: the trait [`Env`] for tables and kernel, and the types that
//! it exchanges with them (side, next hop, FIB result, verdict).

use crate::frame::Frame;
use crate::neighbour::table::{self as neighbour_table, Gateway, Neighbour};
use crate::packet::PackedPacket;
use crate::table::Buckets;
use crate::table::recent::{self, Details};
use crate::table::word::Word;
use crate::vip::Vips;
use crate::wire::segment::Segment;
use xdp_common::{Class, Config, Direction, Hook, Reason, cpu};

/// Where a frame was seen: the side of the interface that received it, or egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peers' side.
    Wan,
    /// The server's side.
    Lan,
    /// A one-armed gateway: one interface for both sides.
    Both,
    /// A frame that leaves by a WAN.
    Out,
}

/// What the FIB is asked: all of a packet that the kernel's rules (`ip rule`) may look at, with its
/// translated addresses. A mark is not among it: before these hooks no packet has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FibQuery {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// IPv4 total length.
    pub total_length: u16,
    /// Type of service.
    pub tos: u8,
    /// Number of the IP protocol.
    pub protocol: u8,
    /// Source and destination port; zero without UDP, and in all fragments: the kernel does not read
    /// the ports of a first fragment either, so that all take the same route.
    pub ports: [u16; 2],
    /// The interface on which the packet arrives; 0: that on which this one has arrived.
    pub ingress: u32,
    /// The interface by which it is to leave, whatever rules say about its ingress; 0: any.
    pub egress: u32,
}

impl FibQuery {
    /// The length of a question that is about the route alone: no link is too small for it. Zero is no such
    /// length: in tc the kernel then compares the frame at hand with the MTU of the interface.
    pub const ANY_LENGTH: u16 = 20;

    /// A packet of a protocol without ports.
    #[inline(always)]
    #[must_use]
    pub const fn without_ports(
        (source, destination): ([u8; 4], [u8; 4]),
        (protocol, tos): (u8, u8),
        total_length: u16,
    ) -> Self {
        Self {
            source,
            destination,
            total_length,
            tos,
            protocol,
            ports: [0; 2],
            ingress: 0,
            egress: 0,
        }
    }
}

/// The kernel FIB's result for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FibResult {
    /// There is a route, and the neighbour's MAC address is known.
    Neighbour(Neighbour),
    /// There is a route, but the neighbour has no MAC address yet.
    Unresolved {
        /// Egress interface.
        ifindex: u32,
        /// The gateway, or the destination itself when it is on the link.
        gateway: Gateway,
    },
    /// The packet is larger than the route's MTU, which is the value.
    TooBig(u16),
    /// The destination is this host, or not a unicast address: not forwarded.
    NotForwarded,
    /// There is no route.
    NoRoute,
    /// The interface that received it does not forward.
    ForwardingDisabled,
}

/// The next hop. XDP needs no more of it, since it writes the MAC addresses itself; tc keeps the
/// gateway elsewhere ([`Env::keep_gateway`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Egress interface; 0: the host's own stack.
    pub ifindex: u32,
}

impl NextHop {
    /// The host's own stack: it routes, decrements the TTL and fragments, or delivers to a server
    /// on this host.
    pub const STACK: Self = Self { ifindex: 0 };

    /// True for [`NextHop::STACK`].
    #[inline(always)]
    #[must_use]
    pub const fn is_stack(&self) -> bool {
        self.ifindex == 0
    }
}

/// The tables and the kernel, as the processing of one packet needs them.
pub trait Env: Vips {
    /// The kind of word.
    type Word: Word;
    /// The FLOW table.
    type Flows: Buckets<Word = Self::Word>;
    /// The SESSION table.
    type Sessions: Buckets<Word = Self::Word>;
    /// The hook that this environment sends with.
    const HOOK: Hook;

    /// The FLOW table.
    fn flows(&self) -> &Self::Flows;
    /// The SESSION table.
    fn sessions(&self) -> &Self::Sessions;
    /// A bucket of HALF.
    fn half_open(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// A bucket of PIN.
    fn pin_bucket(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// A bucket of FRAGMENT.
    fn fragments(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// A bucket of HOSTPEER.
    fn host_peer_bucket(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// On egress: the index of the interface that received the packet; 0: the host made it.
    fn received_on(&self) -> u32;
    /// On egress: the tc program on ingress has handled the packet.
    fn is_handled(&self) -> bool;
    /// In tc on ingress: gives the host's stack a copy of the packet, as it came. It is counted under
    /// this reason: [`Reason::OtherFragment`] or [`Reason::HostPeer`].
    fn copy_to_host(&self, reason: Reason);
    /// An entry of NEXTHOP.
    fn neighbour(&self, index: u32) -> Option<&neighbour_table::Entry<Self::Word>>;
    /// How PEERS treats a peer by the list of a service ([`xdp_common::config::EXCEPT`],
    /// [`xdp_common::config::DENY`]).
    fn peer_list(&self, list: u16, peer: [u8; 4]) -> Option<u32>;
    /// A token bucket for ICMP errors.
    fn icmp_bucket(&self, index: u32) -> Option<&Self::Word>;
    /// A word of META.
    fn meta(&self, index: usize) -> Option<&Self::Word>;
    /// The block of the current CPU.
    fn cpu_block(&self) -> Option<&[Self::Word; cpu::WORDS]>;
    /// `jiffies_64`.
    fn jiffies(&self) -> u64;
    /// Asks the FIB for the route of a packet.
    fn fib_lookup(&self, query: &FibQuery) -> FibResult;
    /// The payload of each datagram in a frame that the device has merged of several (UDP GRO), in
    /// bytes; 0: it was not merged. Only tc sees such frames.
    fn merged_size(&self) -> u32;
    /// Stores the parsed packet. In the kernel this is memory whose contents the verifier does not
    /// know: so it follows the code after this once, and not once for each kind of packet and each
    /// path through its headers.
    fn store_packet(&self, packed: PackedPacket);
    /// Loads the stored packet.
    fn load_packet(&self) -> Option<PackedPacket>;
    /// In tc: keeps the gateway to which this packet will be sent, beside the stored packet and for
    /// the same reason.
    fn keep_gateway(&self, gateway: &Gateway);
    /// Follows the connection of the stored packet, a segment of TCP
    /// ([`crate::conntrack::connection::follow`]). This and the next six are steps that the environment calls,
    /// so that the verifier can go through each of them once.
    fn follow_segment<F: Frame + ?Sized>(&self, frame: &F, config: &Config, jiffies: u64) -> usize;
    /// Gives the stored packet, if it is outbound, the VIP of its peer ([`crate::conntrack::pin::settle`]), given
    /// what [`Self::follow_segment`] has found.
    fn settle_vip<F: Frame + ?Sized>(
        &self,
        frame: &F,
        config: &Config,
        jiffies: u64,
        segment: usize,
    );
    /// Writes down which VIP the stored packet shows ([`crate::conntrack::pin::note`]).
    fn note_vip<F: Frame + ?Sized>(&self, frame: &F, config: &Config, jiffies: u64);
    /// What becomes of a segment ([`crate::conntrack::connection::decide`]).
    fn decide_segment(&self, word: u64, segment: &Segment, vip: u16) -> usize;
    /// The word of a connection after a segment by a VIP ([`crate::conntrack::connection::after`]).
    fn follow_connection(&self, before: u64, segment: &Segment, vip: u16) -> u64;
    /// Writes an entry to the bucket of PIN with this index ([`crate::conntrack::places::put`]).
    fn put_pin(&self, index: u32, fresh: u64, details: Details);
    /// Where an address is, seen from the server of a VIP ([`crate::inside::locate`]).
    fn locate(&self, config: &Config, vip: u16, addresses: ([u8; 4], [u8; 4])) -> usize;
    /// Reports that a peer has given its proof. For the log.
    fn established(&self, peer: [u8; 4], by: Direction);
}

/// The verdict on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not forwarded by this hook; the reason says whether it is punted or dropped.
    NotForwarded(Reason),
    /// Not forwarded: its sender gets an ICMP error ([`crate::icmp::error`]). No byte has changed.
    Answer {
        /// The error: [`Reason::TimeExceeded`] or [`Reason::FragmentationNeeded`].
        reason: Reason,
        /// MTU of the route, for the latter.
        mtu: u16,
    },
    /// Rewritten (unless this is a dry run): send it to the next hop, and count it.
    Forward {
        /// The next hop.
        hop: NextHop,
        /// Inbound or outbound.
        direction: Direction,
        /// The class of its contents.
        class: Class,
        /// IPv4 total length.
        bytes: u16,
        /// True when a table has counted it.
        tracked: bool,
    },
}
