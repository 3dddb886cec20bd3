//! The per-CPU counters: one array of words per hook, indexed by the functions below.
//!
//! Plain (not atomic) additions suffice: a program runs with softirqs disabled on its CPU, and each
//! CPU has a block of its own ([`crate::cpu`]).

use crate::reason::Reason;

/// The program that counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// The XDP program, on receive.
    Xdp = 0,
    /// The tc ingress program of the slow path.
    Tc = 1,
    /// The tc egress program on a WAN: packets that the kernel has fragmented, and packets of a
    /// server on this host.
    Egress = 2,
}

impl Hook {
    /// All hooks, in the order of their index in the map.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::Tc, Self::Egress];

    /// The word that `status` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Egress => "egress",
        }
    }
}

/// The direction of a packet. Outbound is from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Client to server.
    Inbound = 0,
    /// Server to client.
    Outbound = 1,
}

impl Direction {
    /// Both directions, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// The word that `stats` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "in",
            Self::Outbound => "out",
        }
    }

    /// The other one.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }
}

/// The class of a forwarded packet, as far as its headers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// IKE on UDP 500.
    Ike = 0,
    /// IKE on UDP 4500, behind the Non-ESP Marker (RFC 3948 section 2.2).
    NattIke = 1,
    /// One byte 0xFF on UDP 4500 (RFC 3948 section 2.3).
    Keepalive = 2,
    /// ESP on UDP 4500 (RFC 3948 section 2.1).
    EspInUdp = 3,
    /// Native ESP, IP protocol 50.
    Esp = 4,
    /// A non-first fragment: neither ports nor SPI.
    Fragment = 5,
    /// On a handled port or protocol 50, but too short to be any of the above.
    Other = 6,
    /// An ICMP error about a handled packet.
    Icmp = 7,
    /// TCP 4500: IKE, and perhaps ESP, in a stream (RFC 9329).
    Tcp = 8,
}

impl Class {
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Ike,
        Self::NattIke,
        Self::Keepalive,
        Self::EspInUdp,
        Self::Esp,
        Self::Fragment,
        Self::Other,
        Self::Icmp,
        Self::Tcp,
    ];

    /// The class with this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Ike),
            1 => Some(Self::NattIke),
            2 => Some(Self::Keepalive),
            3 => Some(Self::EspInUdp),
            4 => Some(Self::Esp),
            5 => Some(Self::Fragment),
            6 => Some(Self::Other),
            7 => Some(Self::Icmp),
            8 => Some(Self::Tcp),
            _ => None,
        }
    }

    /// The word that `stats` and `status` print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ike => "ike",
            Self::NattIke => "natt-ike",
            Self::Keepalive => "keepalive",
            Self::EspInUdp => "esp-in-udp",
            Self::Esp => "esp",
            Self::Fragment => "fragment",
            Self::Other => "other",
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
        }
    }

    /// True for the two classes that carry an SPI.
    pub const fn is_esp(self) -> bool {
        matches!(self, Self::EspInUdp | Self::Esp)
    }
}

/// The quantities that are counted per class and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Quantity {
    /// Forwarded packets.
    Packets = 0,
    /// Their bytes: the IPv4 total length.
    Bytes = 1,
    /// Forwarded packets that no table entry has counted.
    UntrackedPackets = 2,
    /// The bytes of these packets.
    UntrackedBytes = 3,
}

/// Why a forwarded packet got no entry, although its peer has a session or has proved that it may
/// have one. (Any other untracked packet is one of a peer without a proof.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Untracked {
    /// The session has as many inbound SPIs as the server's SPIs allow.
    SpiLimit = 0,
    /// FLOW is full, or only its reserve is free.
    FlowTableFull = 1,
    /// SESSION is full.
    SessionTableFull = 2,
}

impl Untracked {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::SpiLimit, Self::FlowTableFull, Self::SessionTableFull];

    /// The word that `status` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpiLimit => "spi-limit",
            Self::FlowTableFull => "flow-table-full",
            Self::SessionTableFull => "session-table-full",
        }
    }
}

/// Start of the counters of untracked packets; those of the reasons come before.
const UNTRACKED_BASE: usize = 56;
/// Start of the class counters.
const CLASS_BASE: usize = 64;
const QUANTITIES: usize = 4;
/// The classes of a direction for which there is room.
pub const CLASSES: usize = 16;
/// Start of the counters of streams, one for each direction.
const STREAM_BASE: usize = CLASS_BASE + Direction::ALL.len() * CLASSES * QUANTITIES;
/// Words per hook and CPU: a power of two, so that a mask keeps an index within them.
pub const WORDS: usize = 256;
const _: () = assert!(Class::ALL.len() <= CLASSES, "a class has no counters");
const _: () = assert!(STREAM_BASE + Direction::ALL.len() <= WORDS);
const _: () = assert!(
    Reason::ALL.len() <= UNTRACKED_BASE,
    "a reason has no counter"
);
const _: () = assert!(UNTRACKED_BASE + Untracked::ALL.len() <= CLASS_BASE);

/// The counters of one hook on one CPU.
pub type Counters = [u64; WORDS];

/// The index of a reason's counter.
#[inline(always)]
pub const fn reason(reason: Reason) -> usize {
    reason as usize
}

/// The index of the counter of a cause.
#[inline(always)]
pub const fn untracked(cause: Untracked) -> usize {
    UNTRACKED_BASE + cause as usize
}

/// The index of the first of a class's four counters in a direction; a [`Quantity`] is added to it.
#[inline(always)]
pub const fn class(direction: Direction, class: Class) -> usize {
    CLASS_BASE + (direction as usize * CLASSES + class as usize) * QUANTITIES
}

/// The index of the counter of forwarded segments with which a stream of IKE over TCP begins (RFC 9329
/// section 4), in a direction.
#[inline(always)]
pub const fn stream(direction: Direction) -> usize {
    STREAM_BASE + direction as usize
}
