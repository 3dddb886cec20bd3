//! The words of a per-CPU block: one value of the map CPU for each possible CPU.
//!
//! One look-up gives the fast path all it needs to know of its egress and all its counters. The
//! daemon writes the egress words of every block. Only the programs of that CPU write the counters;
//! all others read them.

use crate::Direction;
use crate::counters::{self, Hook};
use crate::limits::INTERFACES;

/// The first WAN as an egress of XDP, an [`egress`] word; the others follow, in the order of
/// [`crate::Config::wans`]. The daemon keeps them up to date.
pub const EGRESS_WAN: usize = 0;
/// The first LAN as an egress of XDP; the others follow in the order of [`crate::Config::lans`].
pub const EGRESS_LAN: usize = EGRESS_WAN + INTERFACES;
/// Start of the counters of all hooks, on a cache line of their own.
pub const COUNTERS: usize = EGRESS_LAN + INTERFACES;
/// Words per block: a multiple of a cache line, so that no two CPUs write to the same line.
pub const WORDS: usize = COUNTERS + Hook::ALL.len() * counters::WORDS;
const _: () = assert!(WORDS.is_multiple_of(8));
// The general path computes the index from the number of the direction.
const _: () = assert!(EGRESS_WAN == 0);

/// The index of a hook's first counter.
#[inline(always)]
#[must_use]
pub const fn counters(hook: Hook) -> usize {
    COUNTERS + hook as usize * counters::WORDS
}

/// The index of the egress word of a direction.
#[inline(always)]
#[must_use]
pub const fn egress_of(direction: Direction) -> usize {
    match direction {
        Direction::Inbound => EGRESS_LAN,
        Direction::Outbound => EGRESS_WAN,
    }
}

/// What the dataplane must know of an egress, in one word. Zero: the driver does not accept frames
/// that XDP redirects to it. Otherwise bit 16 is set, and the word holds the MTU (bits 48-63; 0:
/// not known, or not to be relied on: then the FIB is asked for each packet), [`NOT_SHARED`], and the
/// epoch (0-15). The epoch changes when a route or a neighbour may have changed,
/// and invalidates all next hops that were remembered before.
#[inline(always)]
#[must_use]
pub const fn egress(mtu: u16, epoch: u16) -> u64 {
    (mtu as u64) << 48 | 1 << 16 | epoch as u64
}

/// A bit in an [`egress`] word: rules of the host look at more than a session has in common, so only
/// flows cache next hops.
pub const NOT_SHARED: u64 = 1 << 17;

/// The MTU in an [`egress`] word for packets with a shared next hop: 0 with [`NOT_SHARED`]. Computed
/// without a branch: the verifier would follow it to the end of the program.
#[inline(always)]
#[must_use]
pub const fn shared_mtu(word: u64) -> u16 {
    let shared = ((word / NOT_SHARED) & 1).wrapping_sub(1);
    egress_mtu(word & shared)
}

/// The MTU in an [`egress`] word.
#[inline(always)]
#[must_use]
pub const fn egress_mtu(word: u64) -> u16 {
    (word >> 48) as u16
}
