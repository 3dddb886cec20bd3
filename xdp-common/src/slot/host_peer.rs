//! The details of an entry in HOSTPEER: the number of the VIP from which the host sends; the peer's
//! address, as in the second of its two words ([`peer_words`]); and in the third word [`ANSWERED`] (bit 63),
//! the tick of the host's last packet (bits 32-62), and what identifies the entry beside the peer's
//! address (bits 0-31): ports, zero for ESP, or [`ANY_UDP`].

use crate::slot::{peer_address, peer_words};

/// The words of the VIP and of the peer.
#[inline(always)]
#[must_use]
pub const fn key_words(vip: u16, peer: [u8; 4]) -> [u64; 2] {
    let [_, address] = peer_words(peer);
    [vip as u64, address]
}

/// The peer in the second word.
#[must_use]
pub const fn peer(address: u64) -> Option<[u8; 4]> {
    peer_address([0, address])
}

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
