//! The words of the details of an entry in PIN: the peer's IPv4 address in the byte order of the packet
//! (bits 32-63), the peer's port of TCP (16-31), that the entry is of a connection (15), and the number of
//! the service (0-14); then the initiator's SPI, or zero; then the number of the VIP.
//!
//! The last word of a connection has more, above the number of its VIP (0-9): that the connection is proven
//! (16), that a SYN has come to another VIP and neither side has sent what ends that (17), the number of that
//! one (18-27), that the server has sent a segment (28), that there is a VIP (29), that the peer and the
//! server have sent a FIN (30, 31), and the acknowledgment number of that segment, which proves the connection
//! (32-63).

use crate::limits::{PIN_CONNECTION_TICKS, PIN_TICKS};

/// In the first word: the entry is of a connection. No number of a service is that large.
const CONNECTION: u64 = 1 << 15;
const _: () = assert!(crate::vips::SERVICES as u64 <= CONNECTION);

/// The first word of a peer of a service, or of an IKE SA.
#[inline(always)]
#[must_use]
pub const fn owner(peer: u32, service: u16) -> u64 {
    (peer as u64) << 32 | service as u64
}

/// The first word of a connection from a port of the peer. The port may be zero.
#[inline(always)]
#[must_use]
pub const fn connection(peer: u32, port: u16, service: u16) -> u64 {
    owner(peer, service) | (port as u64) << 16 | CONNECTION
}

/// The same first word for all connections of the peer.
#[inline(always)]
#[must_use]
pub const fn without_port(connection: u64) -> u64 {
    connection & !(0xffff << 16)
}

/// How many ticks the VIP is remembered.
#[inline(always)]
#[must_use]
pub const fn limit(owner: u64) -> u16 {
    if owner & CONNECTION == 0 {
        PIN_TICKS
    } else {
        PIN_CONNECTION_TICKS
    }
}

/// The number of the service.
#[inline(always)]
#[must_use]
pub const fn service(owner: u64) -> u16 {
    (owner & (CONNECTION - 1)) as u16
}

const VIP: u64 = 0x3ff;
const _: () = assert!(crate::vips::VIPS as u64 <= VIP + 1);
const OTHER_SHIFT: u32 = 17;
const NUMBER_SHIFT: u32 = 32;

/// In the last word of a connection: the peer has acknowledged exactly what the server has sent by its VIP.
pub const PROVEN: u64 = 1 << 16;
/// A SYN has come to another VIP; with the number of that VIP. It is over when the server accepts it, or the
/// peer sends by the connection's own VIP.
pub const OTHER: u64 = (VIP << 1 | 1) << OTHER_SHIFT;
/// The server has sent a segment by its VIP, whose acknowledgment number is in the word.
pub const SENT: u64 = 1 << 28;
/// There is an entry.
pub const EXISTS: u64 = 1 << 29;
/// The peer has sent a FIN by its VIP.
pub const PEER_FIN: u64 = 1 << 30;
/// The server has sent a FIN by it.
pub const SERVER_FIN: u64 = 1 << 31;

/// The number of the VIP in the last word.
#[inline(always)]
#[must_use]
pub const fn vip(word: u64) -> u16 {
    (word & VIP) as u16
}

/// The last word of a connection that may be forged.
#[inline(always)]
#[must_use]
pub const fn claimed(vip: u16) -> u64 {
    EXISTS | vip as u64 & VIP
}

/// The same after the server has sent a segment by this VIP that has this acknowledgment number.
#[inline(always)]
#[must_use]
pub const fn sent(vip: u16, number: u32) -> u64 {
    (number as u64) << NUMBER_SHIFT | SENT | claimed(vip)
}

/// That acknowledgment number.
#[inline(always)]
#[must_use]
pub const fn number(word: u64) -> u64 {
    word >> NUMBER_SHIFT
}

/// One if a flag, which is one of the bits above, is set in a word, else zero.
#[inline(always)]
#[must_use]
pub const fn has(word: u64, flag: u64) -> u64 {
    word >> flag.trailing_zeros() & 1
}

/// The number of the VIP that has got a SYN, if there is one ([`has`] of [`OTHER`]).
#[inline(always)]
#[must_use]
pub const fn other(word: u64) -> u16 {
    (word >> (OTHER_SHIFT + 1) & VIP) as u16
}

/// The same word after a SYN has come to another VIP.
#[inline(always)]
#[must_use]
pub const fn with_other(word: u64, vip: u16) -> u64 {
    word & !OTHER | ((vip as u64 & VIP) << 1 | 1) << OTHER_SHIFT
}
