//! The first two words of the details of an entry in HALF: those of the peer's address, or [`NO_PEER`] in
//! the first one. The upper bits of the second one are the same for every IPv4 address; in their place is the
//! peer's port on 500 to which the reply went.

/// In place of the first word of the peer's address, if the server has sent its SPI to two addresses. No unicast
/// address of IPv6 begins like this.
pub const NO_PEER: u64 = u64::MAX;

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
