//! What the packet logic needs from outside, and the words in which it answers: the side of a frame, the next hop, the
//! FIB's result, the verdict, and the trait [`Env`] for tables and kernel.

use crate::neighbour::table::{self as neighbour_table, Neighbour};
use crate::packet::PackedPacket;
use crate::table::Buckets;
use crate::table::recent;
use crate::table::word::Word;
use xdp_common::{Class, Direction, Hook, Reason, cpu};

/// Which interface a frame came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The clients' side.
    Wan,
    /// The server's side.
    Lan,
    /// A one-armed gateway: one interface for both.
    Both,
    /// On the way out by a WAN.
    Out,
}

/// What the kernel's FIB says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FibResult {
    /// There is a way, and the neighbour's MAC is known.
    Neighbour(Neighbour),
    /// There is a way, but the neighbour has no MAC yet.
    Unresolved(NextHop),
    /// The packet does not fit: the way's MTU.
    TooBig(u16),
    /// The destination is this host, or no unicast address: not forwarded.
    NotForwarded,
    /// There is no way.
    NoRoute,
    /// The device that it came from does not forward.
    ForwardingDisabled,
}

/// The way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Egress interface; 0: the host's own stack.
    pub ifindex: u32,
    /// The gateway, or the destination itself when it is on the link.
    pub gateway: [u8; 4],
}

impl NextHop {
    /// The host's own stack: it routes, counts the TTL down and fragments, or delivers to a server on this host.
    pub const STACK: Self = Self {
        ifindex: 0,
        gateway: [0; 4],
    };

    /// The way to a neighbour.
    #[inline(always)]
    #[must_use]
    pub const fn to(neighbour: &Neighbour) -> Self {
        Self {
            ifindex: neighbour.ifindex,
            gateway: neighbour.gateway,
        }
    }

    /// True for [`NextHop::STACK`].
    #[inline(always)]
    #[must_use]
    pub const fn is_stack(&self) -> bool {
        self.ifindex == 0
    }
}

/// The tables and the kernel, as one packet needs them.
pub trait Env {
    /// The kind of word.
    type Word: Word;
    /// FLOW and SESSION.
    type Buckets: Buckets<Word = Self::Word> + ?Sized;
    /// The hook that this environment sends with.
    const HOOK: Hook;

    /// FLOW.
    fn flows(&self) -> &Self::Buckets;
    /// SESSION.
    fn sessions(&self) -> &Self::Buckets;
    /// A bucket of HALF.
    fn half_open(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// A bucket of FRAGMENT.
    fn fragments(&self, index: u32) -> Option<&recent::Bucket<Self::Word>>;
    /// An entry of NEXTHOP.
    fn neighbour(&self, index: u32) -> Option<&neighbour_table::Entry<Self::Word>>;
    /// What PEERS says of a peer ([`xdp_common::config::EXCEPT`], [`xdp_common::config::DENY`]).
    fn peer_list(&self, peer: [u8; 4]) -> Option<u32>;
    /// A token bucket for ICMP errors.
    fn icmp_bucket(&self, index: u32) -> Option<&Self::Word>;
    /// A word of META.
    fn meta(&self, index: usize) -> Option<&Self::Word>;
    /// The block of the CPU that this runs on.
    fn cpu_block(&self) -> Option<&[Self::Word; cpu::WORDS]>;
    /// `jiffies_64`.
    fn jiffies(&self) -> u64;
    /// Asks the FIB for the way of a packet from `source` to `destination` of this length.
    fn fib_lookup(&self, source: [u8; 4], destination: [u8; 4], total_length: u16) -> FibResult;
    /// Puts what is known of the packet away. In the kernel this is memory whose contents the verifier does not know: so
    /// it follows all that comes after once, and not once for each kind of packet and each way through its headers.
    fn store_packet(&self, packed: PackedPacket);
    /// Takes it back.
    fn load_packet(&self) -> Option<PackedPacket>;
    /// A peer has given its proof. For the log.
    fn established(&self, peer: [u8; 4], by: Direction);
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not forwarded by this hook; the reason says whether it is left alone or dropped.
    NotForwarded(Reason),
    /// Not forwarded: its sender is to be told why ([`crate::icmp::error`]). No byte has changed.
    Answer {
        /// What is to be said: [`Reason::TimeExceeded`] or [`Reason::FragmentationNeeded`].
        reason: Reason,
        /// MTU of the way, for the latter.
        mtu: u16,
    },
    /// Rewritten (unless this is a dry run): send it this way, and count it.
    Forward {
        /// The way out.
        hop: NextHop,
        /// Which way it goes.
        direction: Direction,
        /// What it is.
        class: Class,
        /// IPv4 total length.
        bytes: u16,
        /// A table has counted it.
        tracked: bool,
    },
}
