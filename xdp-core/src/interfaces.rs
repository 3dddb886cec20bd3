//! The interfaces of each side, by their indices.

use xdp_common::limits::MACVLANS;
use xdp_common::{Config, Direction};

/// The position of an interface among those of a side, counted from one; 0: it is not there.
/// Computed without branches: the verifier would follow each branch of a search to the end of the
/// program.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a place is small")]
pub fn position_of<const N: usize>(interfaces: &[u32; N], ifindex: u32) -> usize {
    let mut found = 0;
    let mut place = 0;
    while place < N {
        // All ones when they are equal; hidden from the compiler, which would make a branch of it.
        let same = u64::from(interfaces[place] ^ ifindex).wrapping_sub(1);
        found += (core::hint::black_box(same) >> 63) * (place as u64 + 1);
        place += 1;
    }
    found as usize
}

/// True when a packet may leave by this interface: an outbound packet is handled only when its
/// route leaves by a WAN.
#[inline(always)]
pub(crate) fn may_leave_by(config: &Config, direction: Direction, ifindex: u32) -> bool {
    direction == Direction::Inbound || is_wan(config, ifindex)
}

/// True for a WAN, or a macvlan on top of one.
#[inline(always)]
pub(crate) fn is_wan(config: &Config, ifindex: u32) -> bool {
    position_of(&config.wans, ifindex) != 0 || is_macvlan(&config.wan_macvlans, ifindex)
}

/// The same for a LAN.
#[inline(always)]
pub(crate) fn is_lan(config: &Config, ifindex: u32) -> bool {
    position_of(&config.lans, ifindex) != 0 || is_macvlan(&config.lan_macvlans, ifindex)
}

/// True for a WAN that has a VIP, or a macvlan on top of one.
#[inline(always)]
pub(crate) fn is_uplink(config: &Config, ifindex: u32) -> bool {
    position_of(&config.uplinks, ifindex) != 0 || is_macvlan(&config.uplink_macvlans, ifindex)
}

/// Whether an interface is in a list of macvlans.
#[inline(always)]
fn is_macvlan(macvlans: &[u32; MACVLANS], ifindex: u32) -> bool {
    // The verifier knows whether the list is empty.
    macvlans[0] != 0 && position_of(macvlans, ifindex) != 0
}
