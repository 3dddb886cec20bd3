//! The first word of the details of an entry in PIN: the peer's IPv4 address in the byte order of the
//! packet (bits 32-63), the peer's port if the entry is of a connection of TCP (16-31), and the number
//! of the service (0-15). The second one is the initiator's SPI, or zero; the third one the number of
//! the VIP (0-15).

use crate::limits::{PIN_CONNECTION_TICKS, PIN_TICKS};

/// The word of a peer of a service; with a port, of a connection of it.
#[inline(always)]
#[must_use]
pub const fn owner(peer: u32, port: u16, service: u16) -> u64 {
    (peer as u64) << 32 | (port as u64) << 16 | service as u64
}

/// How many ticks the VIP is remembered.
#[inline(always)]
#[must_use]
pub const fn limit(owner: u64) -> u16 {
    if owner & 0xffff_0000 == 0 {
        PIN_TICKS
    } else {
        PIN_CONNECTION_TICKS
    }
}

/// The number of the service.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub const fn service(owner: u64) -> u16 {
    owner as u16
}

/// The VIP in the third word.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub const fn vip(third: u64) -> u16 {
    third as u16
}
