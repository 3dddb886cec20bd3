//! The next hop that a flow remembers: one word, so that it can be read and written by several CPUs at once and is never
//! half of one and half of another.
//!
//! It may not know how a route is found. The direction of a flow says which egress it takes, and so the source MAC
//! address; what differs between flows is the neighbour's. A stamp says how long it counts: it changes every few
//! seconds by itself, so that a change is followed also when the daemon is dead, and at once when the daemon counts up
//! the epoch of the egress.

use crate::neighbour::table::Neighbour;
use crate::table::word::Word;
use xdp_common::{Config, cpu};

/// The stamp of this moment. Time and epoch only grow, so their sum does not come back before its 15 bits are through:
/// three days, in which a silent flow has long been forgotten. The upper bit is always set, so that memory that nobody has
/// written is nobody's address.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "16 bits are kept")]
pub const fn stamp(config: &Config, egress: u64, jiffies: u64) -> u16 {
    // The same for both directions.
    (jiffies >> (config.directions[0].hop_shift & 63)).wrapping_add(egress) as u16 | 0x8000
}

/// The word for a neighbour, to be used from now on.
#[inline(always)]
#[must_use]
pub const fn word(mac: u64, stamp: u16) -> u64 {
    mac << 16 | stamp as u64
}

/// The word that says: not known. No stamp is zero.
pub const UNKNOWN: u64 = 0;

/// The neighbour's MAC address in the low six bytes, when the word counts at this moment.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "16 bits are compared")]
pub const fn mac(word: u64, stamp: u16) -> Option<u64> {
    if (word ^ stamp as u64) as u16 != 0 {
        return None;
    }
    Some(word >> 16)
}

/// What a flow may remember of a neighbour on its way out: nothing when the way is not that of its direction, or when
/// it is narrower than its egress, whose MTU is all that the fast path looks at.
#[inline(always)]
#[must_use]
pub fn for_neighbour<W: Word>(
    config: &Config,
    outbound: bool,
    egress: u64,
    neighbour: &Neighbour,
    jiffies: u64,
) -> u64 {
    let direction_config = &config.directions[W::opaque(usize::from(outbound)) & 1];
    let stamp = stamp(config, egress, jiffies);
    let fits = neighbour.mtu == 0 || neighbour.mtu >= cpu::egress_mtu(egress);
    if fits
        && neighbour.ifindex == direction_config.egress
        && neighbour.source == direction_config.source_mac
    {
        word(neighbour.destination, stamp)
    } else {
        UNKNOWN
    }
}
