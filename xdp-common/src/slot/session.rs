//! The words of a SESSION slot beyond those that all slots have.

/// Hot, of a service with several VIPs: the VIP that the peer uses (bits 0-15), that it is known (bit
/// 16), and that it is proven (bit 17).
pub const PIN: usize = super::SPI_VIP;
const PINNED: u64 = 1 << 16;
const PROVEN: u64 = 1 << 17;

/// [`PIN`] of a peer whose VIP is proven.
#[inline(always)]
#[must_use]
pub const fn proven_pin(vip: u16) -> u64 {
    PROVEN | PINNED | vip as u64
}

/// [`PIN`] after a packet that may be forged has come to this VIP.
#[inline(always)]
#[must_use]
pub const fn claim_pin(before: u64, vip: u16) -> u64 {
    if before & PROVEN == 0 {
        PINNED | vip as u64
    } else {
        before
    }
}

/// The number of the VIP that the peer uses, if it is known.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub const fn pinned(pin: u64) -> Option<u16> {
    if pin & PINNED == 0 {
        None
    } else {
        Some(pin as u16)
    }
}

/// Hot: the server's last encrypted IKE message or keepalive, in jiffies (low 32 bits). ESP
/// refreshes its flows, and the daemon copies the latest of them to here as it visits them. If that
/// was an inbound one, the upper half has the server's last packet.
pub const LAST_SEEN: usize = 3;
/// Hot: number of open SPIs: outbound in the upper half, inbound in the lower
/// ([`super::half_of`]).
pub const SPIS: usize = 4;
/// Hot: the next hop towards the peer, in the format of flows ([`super::flow::HOP`]).
pub const HOP: usize = 5;
/// Hot: what is known of the peer, and when the session was created: the server sends it native ESP
/// (bit 63, [`NATIVE_ESP`]), the tick of the creation (bits 32-62, [`created`]), and the peer's UDP
/// port on 500 (bits 16-31) and on 4500 (0-15; [`port_on`]; zero: unknown). Only what proves the
/// session writes them, and what the server sends to a living SA.
pub const PORTS_CREATED: usize = 6;
/// In [`PORTS_CREATED`]: the server has sent native ESP.
pub const NATIVE_ESP: u64 = 1 << 63;
/// The bits of a tick in [`PORTS_CREATED`].
pub const CREATED_MASK: u32 = 0x7fff_ffff;
/// Cold: first of the words of the [`COUNTED`] classes, one for each: packets outbound in the
/// upper half and inbound in the lower one ([`super::half_of`]). Each half is a counter of its
/// own, and begins at zero again after 2^32 packets.
pub const COUNTERS: usize = 2;
/// Classes that a session counts: IKE, NAT-T IKE, keepalive, other, TCP.
pub const COUNTED: usize = 5;

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
