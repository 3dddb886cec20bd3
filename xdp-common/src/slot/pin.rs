//! The first word of the details of an entry in PIN: the peer's IPv4 address in the byte order of the
//! packet (bits 32-63) and the number of the service (0-15). The second one is the initiator's SPI, or
//! zero; the third one the number of the VIP.

/// The word of a peer of a service.
#[inline(always)]
#[must_use]
pub const fn owner(peer: u32, service: u16) -> u64 {
    (peer as u64) << 32 | service as u64
}

/// The number of the service.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub const fn service(owner: u64) -> u16 {
    owner as u16
}
