//! The layout of table entries: the words of a slot in FLOW and SESSION, of a way in HALF, PIN,
//! FRAGMENT and HOSTPEER, and of an entry in NEXTHOP.
//!
//! A slot of FLOW and SESSION consists of two halves of 64 bytes, a cache line each, in two maps: the
//! hot half, which every packet reads and writes, and the cold one (FLOW_COLD, SESSION_COLD), which
//! few do. They have the same index, which the hot half contains.
//!
//! `xdp_core::table` finds, claims and retires slots.

pub mod half;
pub mod host_peer;
pub mod pin;
pub mod recent;
pub mod session;

use crate::counters::{Class, Direction};

/// Words of each half of a slot.
pub const WORDS: usize = 8;
/// Slots of a bucket: one value of the map of the hot halves. A cold half is a value of its own.
pub const WAYS: usize = 4;

/// Hot: the state word: state (bits 0-6), place in the bucket (7-8), kind of the key (9-12), number of
/// the service (13-21), generation (22-63).
pub const STATE: usize = 0;
/// Hot: the word that identifies an entry beside the state word. IPv4: SPI (bits 32-63; zero in a
/// session) and peer (0-31) in the byte order of the packet, so that no conversion is needed. IPv6: a
/// keyed digest of the address.
pub const KEY: usize = 1;
/// Hot: the SPI in the byte order of the packet (bits 32-63; zero in a session), which for IPv6 is part
/// of the key, and in the lower half the number of the VIP of the last packet (0-15), or in a session
/// [`session::PIN`].
pub const SPI_VIP: usize = 2;
/// Hot: the number of the slot in the table (bits 0-31), by which its cold half is found: index of the
/// bucket times [`WAYS`], and the place in it.
pub const NUMBER: usize = 7;
/// Cold: first of the two words of the peer's address ([`peer_words`]).
pub const ADDRESS: usize = 0;

/// The bits of a state word that belong to the key: kind and service.
pub const KEY_BITS: u64 = KIND | SERVICE;
const KIND: u64 = 0x1e00;
/// Kind of the key: a flow from the server.
const OUTBOUND: u64 = 1 << 9;
/// Kind of the key: native ESP.
const NATIVE: u64 = 1 << 10;
/// Kind of the key: a session.
const SESSION: u64 = 1 << 11;
/// Kind of the key: the peer has an IPv6 address, and [`KEY`] does not tell it from all others.
pub const IPV6: u64 = 1 << 12;
const SERVICE_SHIFT: u32 = 13;
const SERVICE: u64 = 0x1ff << SERVICE_SHIFT;

/// What identifies an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its bits in the state word ([`KEY_BITS`]).
    pub bits: u64,
    /// The word [`KEY`].
    pub word: u64,
    /// The SPI, in the byte order of the packet; zero: a session.
    pub spi: u32,
    /// The peer's address, which is in the cold half.
    pub address: [u64; 2],
}

impl Key {
    /// The number of the service if this is the key of a session, else zero.
    #[inline(always)]
    #[must_use]
    pub const fn service_of_session(&self) -> u16 {
        (self.bits & SESSION != 0) as u16 * service(self.bits)
    }

    /// Whether state word and [`KEY`] are enough to tell it from every other key.
    #[inline(always)]
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.bits & IPV6 == 0
    }
}

/// A copy of both halves of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contents {
    /// The hot half.
    pub hot: [u64; WORDS],
    /// The cold half.
    pub cold: [u64; WORDS],
}

impl Contents {
    /// The peer's address; `None`: it is not an IPv4 one.
    #[inline]
    #[must_use]
    pub const fn peer(&self) -> Option<[u8; 4]> {
        peer_address([self.cold[ADDRESS], self.cold[ADDRESS + 1]])
    }

    /// The SPI of a flow.
    #[inline]
    #[must_use]
    pub const fn spi(&self) -> u32 {
        u32::from_be((self.hot[SPI_VIP] >> 32) as u32)
    }

    /// The key.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> Key {
        Key {
            bits: self.hot[STATE] & KEY_BITS,
            word: self.hot[KEY],
            spi: (self.hot[SPI_VIP] >> 32) as u32,
            address: [self.cold[ADDRESS], self.cold[ADDRESS + 1]],
        }
    }
}

/// The direction of a flow, by its state word.
#[inline]
#[must_use]
pub const fn direction(state: u64) -> Direction {
    if state & OUTBOUND == 0 {
        Direction::Inbound
    } else {
        Direction::Outbound
    }
}

/// How the ESP of a flow is carried, by its state word.
#[inline]
#[must_use]
pub const fn class(state: u64) -> Class {
    if state & NATIVE == 0 {
        Class::EspInUdp
    } else {
        Class::Esp
    }
}

/// The number of an entry's service, by its state word.
#[inline]
#[must_use]
pub const fn service(state: u64) -> u16 {
    ((state & SERVICE) >> SERVICE_SHIFT) as u16
}

/// The words of a FLOW slot beyond those that all slots have.
pub mod flow {
    /// Hot: packets.
    pub const PACKETS: usize = 3;
    /// Hot: bytes: IPv4 total length.
    pub const BYTES: usize = 4;
    /// Hot: last seen, in jiffies (bits 32-63), and highest sequence number (0-31).
    pub const SEEN: usize = 5;
    /// Hot: the neighbour's MAC address (bits 16-63) and the stamp under which it is valid (0-15; see
    /// `xdp_core::neighbour::cached_hop`).
    pub const HOP: usize = 6;
    /// Cold: first seen, in jiffies (all 64 bits).
    pub const FIRST_SEEN: usize = 2;
    /// Cold: first sequence number (bits 32-63), wraps (16-31) and the peer's UDP port (0-15; 0 for
    /// native ESP), which is checked whenever the next hop has expired: every few seconds.
    pub const FIRST: usize = 3;
    /// Cold: packets with a sequence number not above the highest one.
    pub const REORDERED: usize = 4;
    /// Cold: the last such packet: its sequence number (bits 32-63), and the highest one at that time
    /// (0-31).
    pub const LATE: usize = 5;
    /// Cold: a range far from the highest number that is not believed yet: its last number (bits
    /// 32-63), the number of that packet (8-31), and how many have come in a row (0-7).
    pub const PROBATION: usize = 6;
}

/// One SPI of a direction in [`session::SPIS`].
#[inline(always)]
#[must_use]
pub const fn one_spi(direction: Direction) -> u64 {
    1 << (32 * direction as u32)
}

/// The half of a direction in [`session::SPIS`] or in a word of counters.
#[inline(always)]
#[must_use]
pub const fn half_of(word: u64, direction: Direction) -> u64 {
    word >> (32 * direction as u32) & 0xffff_ffff
}

/// The words of an entry in NEXTHOP.
pub mod nexthop {
    /// Words of an entry: one cache line.
    pub const WORDS: usize = 8;
    /// Egress interface (bits 32-63) and gateway, network order (0-31). Zero: free.
    pub const KEY: usize = 0;
    /// Sequence number: odd during a write.
    pub const SEQUENCE: usize = 1;
    /// Destination MAC in the low six bytes, MTU above.
    pub const DESTINATION: usize = 2;
    /// Source MAC in the low six bytes.
    pub const SOURCE: usize = 3;
    /// Tick of the last packet that went through the neighbour layer.
    pub const CONFIRMED: usize = 4;
    /// Two words: the address of an IPv6 gateway, network order. Zero: the gateway is IPv4, and its
    /// address is in the key; that of an IPv6 one is folded there.
    pub const ADDRESS: usize = 5;
}

/// The two words of an IPv4 address, mapped into IPv6 (RFC 4291 section 2.5.5.2), so that IPv6
/// needs no other slot format.
#[inline(always)]
pub const fn peer_words(address: [u8; 4]) -> [u64; 2] {
    [0, 0xffff_0000_0000 | u32::from_be_bytes(address) as u64]
}

/// The IPv4 address in two words of a key, if they hold one.
#[inline(always)]
pub const fn peer_address(words: [u64; 2]) -> Option<[u8; 4]> {
    if words[0] != 0 || words[1] >> 32 != 0xffff {
        return None;
    }
    let [_, _, _, _, a, b, c, d] = words[1].to_be_bytes();
    Some([a, b, c, d])
}

/// The word [`KEY`] of an IPv4 peer.
#[inline(always)]
#[must_use]
pub const fn key_word(peer: [u8; 4], spi: u32) -> u64 {
    (spi.to_be() as u64) << 32 | u32::from_ne_bytes(peer) as u64
}

/// The bits of a service's number in the state words of its entries.
#[inline(always)]
#[must_use]
pub const fn service_bits(service: u16) -> u64 {
    (service as u64) << SERVICE_SHIFT & SERVICE
}

/// The bits of a flow's key in its state word, with those of its service.
#[inline(always)]
#[must_use]
pub const fn flow_bits(class: Class, direction: Direction, service_bits: u64) -> u64 {
    let native = (class as u64 == Class::Esp as u64) as u64 * NATIVE;
    let outbound = (direction as u64 & 1) * OUTBOUND;
    service_bits | native | outbound
}

/// The key of a flow. The port is not part of it: it may change during the lifetime of an SA.
#[inline(always)]
#[must_use]
pub const fn flow_key(
    peer: [u8; 4],
    spi: u32,
    class: Class,
    direction: Direction,
    service: u16,
) -> Key {
    let bits = flow_bits(class, direction, service_bits(service));
    flow_key_of(peer, spi, bits)
}

/// The same, given its bits ([`flow_bits`]).
#[inline(always)]
#[must_use]
pub const fn flow_key_of(peer: [u8; 4], spi: u32, bits: u64) -> Key {
    Key {
        bits,
        word: key_word(peer, spi),
        spi: spi.to_be(),
        address: peer_words(peer),
    }
}

/// The key of a session: the peer's address (port 0) and the service.
#[inline(always)]
#[must_use]
pub const fn session_key(peer: [u8; 4], service: u16) -> Key {
    Key {
        bits: service_bits(service) | SESSION,
        word: key_word(peer, 0),
        spi: 0,
        address: peer_words(peer),
    }
}

/// In place of the number of a VIP: the one that the flow had was removed.
pub const NO_VIP: u16 = u16::MAX;

/// The VIP of the last packet, in the word [`SPI_VIP`] of a flow.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub const fn vip(word: u64) -> u16 {
    word as u16
}

/// The word [`SPI_VIP`] of a flow with another VIP.
#[inline(always)]
#[must_use]
pub const fn with_vip(word: u64, vip: u16) -> u64 {
    word & !0xffff | vip as u64
}
