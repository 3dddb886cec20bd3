//! The words of a slot in FLOW and SESSION, and of a way in HALF: 128 bytes each, two cache lines, the first one hot.
//!
//! How a slot is found, claimed and retired is `xdp_core::table`; here is only what stands where.

use crate::counters::{Class, Direction};

/// Words of a slot.
pub const WORDS: usize = 16;
/// Slots of a bucket: one value of the map.
pub const WAYS: usize = 4;

/// Word of the state: state (8 bits), generation (24 bits), tag (32 bits).
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
    /// Highest sequence number (bits 32-63), wraps (16-31), next-hop index (0-15).
    pub const HIGHEST: usize = 6;
    /// Last seen, in jiffies (bits 32-63), and last sequence number (0-31).
    pub const LAST: usize = 7;
    /// First seen, in jiffies (all 64 bits).
    pub const FIRST_SEEN: usize = 8;
    /// First sequence number (bits 32-63) and the peer's last UDP port (0-15; 0 for native ESP).
    pub const FIRST: usize = 9;
    /// Packets whose sequence number was not above the highest one.
    pub const REORDERED: usize = 10;
}

/// The words of a SESSION slot beyond the key.
pub mod session {
    /// Last IKE message or keepalive, in jiffies (low 32 bits). ESP refreshes its flows instead.
    pub const LAST_SEEN: usize = 4;
    /// Inbound SPIs that are open.
    pub const SPIS: usize = 5;
    /// First seen, in jiffies (all 64 bits).
    pub const FIRST_SEEN: usize = 6;
    /// The peer's last UDP port on 500 (bits 16-31) and 4500 (0-15).
    pub const PORTS: usize = 7;
    /// First of eight counters: [`COUNTED`] classes, inbound and outbound of each in turn.
    pub const COUNTERS: usize = 8;
    /// Classes that a session counts: IKE, NAT-T IKE, keepalive, other.
    pub const COUNTED: usize = 4;
}

/// The four words of a way in HALF and FRAGMENT.
pub mod recent {
    /// Words of a way.
    pub const WORDS: usize = 4;
    /// Digest (bits 16-63) and tick (0-15). It alone decides.
    pub const DIGEST: usize = 0;
    /// First word of a note for people (the peer's address); may be torn, decides nothing.
    pub const NOTE: usize = 1;
    /// Words of the note.
    pub const NOTE_WORDS: usize = 3;
}

/// The words of an entry in NEXTHOP.
pub mod nexthop {
    /// Words of an entry: one cache line.
    pub const WORDS: usize = 8;
    /// Egress interface (bits 32-63) and gateway, network order (0-31). Zero: free. Written once.
    pub const KEY: usize = 0;
    /// Sequence number: odd while somebody writes.
    pub const SEQUENCE: usize = 1;
    /// Destination MAC in the low six bytes, MTU above.
    pub const DESTINATION: usize = 2;
    /// Source MAC in the low six bytes.
    pub const SOURCE: usize = 3;
    /// Tick of the last packet that went through the neighbour layer.
    pub const CONFIRMED: usize = 4;
}

/// The two words of an IPv4 address, mapped into IPv6 (RFC 4291 section 2.5.5.2), so that IPv6 needs no other slot.
#[inline(always)]
pub const fn peer_words(address: [u8; 4]) -> [u64; 2] {
    [0, 0xffff_0000_0000 | u32::from_be_bytes(address) as u64]
}

/// The address of two words of a key, if it is an IPv4 one.
#[inline(always)]
pub const fn peer_address(words: [u64; 2]) -> Option<[u8; 4]> {
    if words[0] != 0 || words[1] >> 32 != 0xffff {
        return None;
    }
    let [_, _, _, _, a, b, c, d] = words[1].to_be_bytes();
    Some([a, b, c, d])
}

/// The key of a flow: peer, SPI, kind, direction, service. The port is no part of it: it may change while an SA lives.
#[inline(always)]
pub const fn flow_key(peer: [u8; 4], spi: u32, class: Class, direction: Direction) -> Key {
    let [high, low] = peer_words(peer);
    [
        high,
        low,
        (spi as u64) << 32 | (class as u64) << 8 | direction as u64,
    ]
}

/// The key of a session: the whole address (port 0, service 0).
#[inline(always)]
pub const fn session_key(peer: [u8; 4]) -> Key {
    let [high, low] = peer_words(peer);
    [high, low, 1 << 63]
}
