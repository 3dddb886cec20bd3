//! The words of META: state that outlives the daemon and belongs to no table.

use crate::limits::INTERFACES;
use crate::vips::SERVICES;

/// Words of META: two pages.
pub const WORDS: usize = 1024;

/// Live entries of FLOW; the dataplane increments the number, the daemon decrements it.
pub const FLOW_ENTRIES: usize = 0;
/// Live entries of SESSION.
pub const SESSION_ENTRIES: usize = 1;
/// Not zero once the words below have been written: the ABI version.
pub const VERSION: usize = 2;
/// Jiffies per second.
pub const HZ: usize = 3;
/// `jiffies_64` at some moment ...
pub const JIFFIES: usize = 4;
/// ... and `CLOCK_MONOTONIC` in nanoseconds at the same one.
pub const MONOTONIC: usize = 5;
/// Options of the instance, as bits: [`flag`].
pub const FLAGS: usize = 7;
/// Inode number of the network namespace of the interfaces.
pub const NAMESPACE: usize = 11;
/// Interfaces with generic XDP, as bits: WAN k is bit k, LAN k is bit `INTERFACES` + k.
pub const GENERIC: usize = 13;
/// Which of the two copies of the retired totals is valid: 0 or 1. Changing this word is the
/// commit.
pub const RETIRED_COPY: usize = 32;
/// The tick of the last packet that taught a peer in HOSTPEER; 0: there was none. Inbound packets
/// read it, and no word of its cache line changes often.
pub const HOST_PEER_LAST_TICK: usize = 33;
/// The first WAN; the others follow. Each has the interface index (0: none) and, in two words, the
/// name that it had when it was attached: `stats` may run in a namespace where the name cannot be
/// looked up. One that is to be attached when it appears has a name and no index.
pub const WANS: usize = 40;
/// The first LAN; the others follow in the same format.
pub const LANS: usize = WANS + INTERFACES * INTERFACE_WORDS;
/// Words per interface.
pub const INTERFACE_WORDS: usize = 3;
/// Start of the two copies of the retired totals.
pub const RETIRED: usize = 64;
/// Words per copy of the retired totals.
pub const RETIRED_WORDS: usize = 128;
/// Packets lost after the redirect to the first WAN; the other WANs and the LANs follow.
pub const LOST: usize = RETIRED + 2 * RETIRED_WORDS;

/// The next hop of the server of each service, by the service's number: the second page.
const SERVER_HOPS: usize = WORDS / 2;

/// The next hop of a service's server, in the format of the hop word of flows (`slot::flow::HOP`): for
/// packets that belong to no flow. With one service it is zero while the host has peers of its own
/// ([`HOST_PEER_LAST_TICK`]).
#[inline(always)]
#[must_use]
pub const fn server_hop(service: u16) -> usize {
    SERVER_HOPS + service as usize % (WORDS - SERVER_HOPS)
}

/// The words of one copy of the retired totals.
pub mod retired {
    /// Packets of retired flows, inbound; the other three follow: bytes in, packets out, bytes out.
    pub const ESP: usize = 0;
    /// The slot (index + 1) that was added last, so that after a crash between commit and release
    /// it is not added twice.
    pub const LAST_SLOT: usize = 8;
    /// The state word of that slot.
    pub const LAST_STATE: usize = 9;
    /// Number of retired flows.
    pub const FLOWS: usize = 10;
    /// Number of retired sessions.
    pub const SESSIONS: usize = 11;
}

/// The bits of [`FLAGS`].
pub mod flag {
    /// `--dry-run`.
    pub const DRY_RUN: u64 = 1;
    /// The daemon waits for running programs by updating a map of maps, and not by membarrier(2).
    pub const GRACE_BY_MAP: u64 = 1 << 3;
}
const _: () = assert!(LANS + INTERFACES * INTERFACE_WORDS <= RETIRED);
const _: () = assert!(LOST + 2 * INTERFACES <= SERVER_HOPS);
const _: () = assert!(SERVICES <= WORDS - SERVER_HOPS);
