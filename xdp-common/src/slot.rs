//! The layout of table entries: the words of a slot in FLOW and SESSION (128 bytes: two cache
//! lines, the first one hot), of a way in HALF, FRAGMENT and HOSTPEER, and of an entry in
//! NEXTHOP.
//!
//! `xdp_core::table` finds, claims and retires slots.

use crate::counters::{Class, Direction};

/// Words of a slot.
pub const WORDS: usize = 16;
/// Slots of a bucket: one value of the map.
pub const WAYS: usize = 4;

/// The state word: state (bits 0-6), place in the bucket (7-8), kind of the key (9-12), generation
/// (13-63).
pub const STATE: usize = 0;
/// First of the three words of the key.
pub const KEY: usize = 1;
/// Words of a key.
pub const KEY_WORDS: usize = 3;

/// A whole key, compared word by word.
pub type Key = [u64; KEY_WORDS];

/// The words of a FLOW slot beyond the key.
pub mod flow {
    /// Packets.
    pub const PACKETS: usize = 4;
    /// Bytes: IPv4 total length.
    pub const BYTES: usize = 5;
    /// Last seen, in jiffies (bits 32-63), and highest sequence number (0-31).
    pub const SEEN: usize = 6;
    /// The neighbour's MAC address (bits 16-63) and the stamp under which it is valid (0-15; see
    /// `xdp_core::hop`).
    pub const HOP: usize = 7;
    /// First seen, in jiffies (all 64 bits).
    pub const FIRST_SEEN: usize = 8;
    /// First sequence number (bits 32-63), wraps (16-31) and the peer's UDP port (0-15; 0 for
    /// native ESP), which is checked whenever the next hop has expired: every few seconds.
    pub const FIRST: usize = 9;
    /// Packets with a sequence number not above the highest one.
    pub const REORDERED: usize = 10;
    /// The last such packet: its sequence number (bits 32-63), and the highest one at that time
    /// (0-31).
    pub const LATE: usize = 11;
    /// A range far from the highest number that is not believed yet: its last number (bits 32-63),
    /// the number of that packet (8-31), and how many have come in a row (0-7).
    pub const PROBATION: usize = 12;
}

/// The words of a SESSION slot beyond the key.
pub mod session {
    /// The server's last encrypted IKE message or keepalive, in jiffies (low 32 bits). ESP refreshes
    /// its flows, and the daemon copies the latest of them to here as it visits them. If that was an
    /// inbound one, the upper half has the server's last packet.
    pub const LAST_SEEN: usize = 4;
    /// Number of open SPIs: outbound in the upper half, inbound in the lower ([`super::spis_of`]).
    pub const SPIS: usize = 5;
    /// The next hop towards the peer, in the format of flows ([`super::flow::HOP`]).
    pub const HOP: usize = 6;
    /// What is known of the peer, and when the session was created: the server sends it native ESP
    /// (bit 63, [`NATIVE_ESP`]), the tick of the creation (bits 32-62, [`created`]), and the peer's UDP
    /// port on 500 (bits 16-31) and on 4500 (0-15; [`port_on`]; zero: unknown). Only what proves the
    /// session writes them, and what the server sends to a living SA.
    pub const PORTS_CREATED: usize = 7;
    /// In [`PORTS_CREATED`]: the server has sent native ESP.
    pub const NATIVE_ESP: u64 = 1 << 63;
    /// The bits of a tick in [`PORTS_CREATED`].
    pub const CREATED_MASK: u32 = 0x7fff_ffff;
    /// First of eight counters: for each of the [`COUNTED`] classes, inbound and outbound.
    pub const COUNTERS: usize = 8;
    /// Classes that a session counts: IKE, NAT-T IKE, keepalive, other.
    pub const COUNTED: usize = 4;

    /// [`PORTS_CREATED`] of a session that is created at this tick.
    #[inline(always)]
    #[must_use]
    pub const fn created_at(tick: u64) -> u64 {
        (tick & CREATED_MASK as u64) << 32
    }

    /// The tick of the creation, of which [`CREATED_MASK`] is kept.
    #[inline(always)]
    #[must_use]
    pub const fn created(ports_created: u64) -> u32 {
        (ports_created >> 32) as u32 & CREATED_MASK
    }

    /// The peer's port on one of the server's, which is 500 if `ike`, else 4500.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are meant")]
    pub const fn port_on(ports_created: u64, ike: bool) -> u16 {
        (ports_created >> shift(ike)) as u16
    }

    /// The word with another port of the peer.
    #[inline(always)]
    #[must_use]
    pub const fn with_port(ports_created: u64, ike: bool, port: u16) -> u64 {
        ports_created & !(0xffff << shift(ike)) | (port as u64) << shift(ike)
    }

    #[inline(always)]
    const fn shift(ike: bool) -> u32 {
        16 * ike as u32
    }
}

/// One SPI of a direction in [`session::SPIS`].
#[inline(always)]
#[must_use]
pub const fn one_spi(direction: Direction) -> u64 {
    1 << (32 * direction as u32)
}

/// The open SPIs of a direction in [`session::SPIS`].
#[inline(always)]
#[must_use]
pub const fn spis_of(word: u64, direction: Direction) -> u64 {
    word >> (32 * direction as u32) & 0xffff_ffff
}

/// The four words of a way in HALF, FRAGMENT and HOSTPEER.
pub mod recent {
    /// Words of a way.
    pub const WORDS: usize = 4;
    /// Digest (bits 16-63) and tick (0-15).
    pub const DIGEST: usize = 0;
    /// First word of the details: the peer's address in two words; then in HALF ([`super::half`]) the
    /// initiator's SPI, in FRAGMENT the end of the first fragment (bits 0-12) and bits 13-63 of the digest, in HOSTPEER
    /// [`super::host_peer`]. Two CPUs may have written parts of them.
    pub const DETAILS: usize = 1;
    /// Words of the details.
    pub const DETAILS_WORDS: usize = 3;
}

/// The second word of the details of an entry in HALF: that of the peer's address, whose upper bits are
/// the same for every IPv4 address, and in their place the peer's port on 500 to which the reply went.
pub mod half {
    const PORT_SHIFT: u32 = 48;

    /// The word with a port.
    #[inline(always)]
    #[must_use]
    pub const fn with_ike_port(peer_word: u64, port: u16) -> u64 {
        peer_word | (port as u64) << PORT_SHIFT
    }

    /// The word of the address.
    #[inline(always)]
    #[must_use]
    pub const fn peer_word(word: u64) -> u64 {
        word & ((1 << PORT_SHIFT) - 1)
    }

    /// The port; zero: the reply did not go there.
    #[inline(always)]
    #[must_use]
    pub const fn ike_port(word: u64) -> u16 {
        (word >> PORT_SHIFT) as u16
    }
}

/// The third word of the details of an entry in HOSTPEER: [`ANSWERED`](host_peer::ANSWERED) (bit 63),
/// the tick of the host's last packet (bits 32-62), and what identifies the entry beside the peer's
/// address (bits 0-31): ports, zero for ESP, or [`ANY_UDP`](host_peer::ANY_UDP).
pub mod host_peer {
    /// The peer has answered: the entry gives way to no other one.
    pub const ANSWERED: u64 = 1 << 63;
    /// The bits of a tick that an entry keeps.
    pub const TICK_MASK: u64 = 0x7fff_ffff;
    /// In place of ports: the host sends UDP to the peer, whatever the ports. For its later fragments,
    /// which show none. Such an entry stands beside those with ports.
    pub const ANY_UDP: u32 = u32::MAX;

    /// The tick of an entry.
    #[inline(always)]
    #[must_use]
    pub const fn tick(word: u64) -> u64 {
        word >> 32 & TICK_MASK
    }

    /// The peer's port (bits 16-31) and that of the VIP (0-15). Zero stands for ESP.
    #[inline(always)]
    #[must_use]
    pub const fn ports(peer: u16, vip: u16) -> u32 {
        (peer as u32) << 16 | vip as u32
    }

    /// The peer's port and the VIP's.
    #[inline(always)]
    #[must_use]
    pub const fn split(ports: u32) -> (u16, u16) {
        let [a, b, c, d] = ports.to_be_bytes();
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }
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

/// Marks a session in the third word of a key.
const SESSION: u64 = 1 << 63;

/// The first word of a key: SPI (bits 32-63) and peer (0-31) in the byte order of the packet, so
/// that no conversion is needed.
#[inline(always)]
const fn first_word(peer: [u8; 4], spi: u32) -> u64 {
    (spi.to_be() as u64) << 32 | u32::from_ne_bytes(peer) as u64
}

/// The key of a flow: peer and SPI; zero (an IPv6 peer would use the first two words, and its SPI
/// the upper half of the third); class and direction. The port is not part of it: it may change
/// during the lifetime of an SA.
#[inline(always)]
#[must_use]
pub const fn flow_key(peer: [u8; 4], spi: u32, class: Class, direction: Direction) -> Key {
    [
        first_word(peer, spi),
        0,
        (class as u64) << 8 | direction as u64,
    ]
}

/// The key of a session: the whole address (port 0, service 0).
#[inline(always)]
#[must_use]
pub const fn session_key(peer: [u8; 4]) -> Key {
    [first_word(peer, 0), 0, SESSION]
}

/// The part of a key's third word that is in the state word as well, four bits: direction, native
/// ESP, session, and one for IPv6. So two words show that a slot belongs to an IPv4 key.
#[inline(always)]
#[must_use]
pub const fn kind(key: &Key) -> u64 {
    let native = key[2] >> 8 == Class::Esp as u64;
    key[2] & 1 | (native as u64) << 1 | (key[2] >> 63) << 2
}

/// The peer of a slot, given all its words.
#[inline(always)]
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of a word are meant"
)]
pub const fn peer(words: &[u64; WORDS]) -> [u8; 4] {
    (words[KEY] as u32).to_ne_bytes()
}

/// The SPI of a FLOW slot, given all its words.
#[inline(always)]
#[must_use]
pub const fn spi(words: &[u64; WORDS]) -> u32 {
    u32::from_be((words[KEY] >> 32) as u32)
}
