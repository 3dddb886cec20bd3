//! The hop word: the next hop that a flow caches. It is one word, so that several CPUs can read and
//! write it at once and a reader never sees half of one and half of another.
//!
//! The direction of a flow determines its egress, and so the source MAC address; only the
//! neighbour's MAC address differs between flows. A stamp limits how long the word is valid: it
//! changes every few seconds by itself, so that a change of the route is followed even when the
//! daemon is dead, and at once when the daemon increments the epoch of the egress. See
//! `docs/decisions/hop-word.md`.

use crate::neighbour::table::Neighbour;
use xdp_common::cpu;
use xdp_common::vips::Translation;

/// The current stamp of a translation. Time and epoch only grow, so their sum does not repeat before its
/// 15 bits are exhausted: after three days, or nine hours where the service has several VIPs. A flow that
/// was silent for exactly that long, which only a longer idle timeout allows, then uses its old next hop
/// once more, for eight seconds or one. The upper bit is always set, so that memory that was never
/// written is not a valid address.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "16 bits are kept")]
pub const fn stamp(translation: &Translation, egress: u64, jiffies: u64) -> u16 {
    (jiffies >> (translation.hop_shift & 63)).wrapping_add(egress) as u16 | 0x8000
}

/// The word for a neighbour, valid from now on.
#[inline(always)]
#[must_use]
pub const fn word(mac: u64, stamp: u16) -> u64 {
    mac << 16 | stamp as u64
}

/// The word for an unknown next hop. No stamp is zero.
pub const UNKNOWN: u64 = 0;

/// The neighbour's MAC address in the low six bytes, if the word is valid at this moment.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "16 bits are compared")]
pub const fn mac(word: u64, stamp: u16) -> Option<u64> {
    if (word ^ stamp as u64) as u16 != 0 {
        return None;
    }
    Some(word >> 16)
}

/// The hop word that a flow may cache for a neighbour: [`UNKNOWN`] when the route does not leave by
/// the egress of the flow's translation, or when its MTU is smaller than that of the egress, which is
/// all that the fast path checks.
#[inline(always)]
#[must_use]
pub fn for_neighbour(
    translation: &Translation,
    egress: u64,
    neighbour: &Neighbour,
    jiffies: u64,
) -> u64 {
    let stamp = stamp(translation, egress, jiffies);
    let fits = neighbour.mtu == 0 || neighbour.mtu >= cpu::egress_mtu(egress);
    if fits && neighbour.ifindex == translation.egress && neighbour.source == translation.source_mac
    {
        word(neighbour.destination, stamp)
    } else {
        UNKNOWN
    }
}
