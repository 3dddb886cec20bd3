//! The words of META: what outlives the daemon and belongs to no table.

use crate::limits::INTERFACES;

/// Words of META: one page.
pub const WORDS: usize = 512;

/// Live entries of FLOW; the dataplane adds, the daemon takes away.
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
/// Random; tells one set of maps from the next.
pub const GENERATION: usize = 6;
/// What the instance was told, as bits: [`flag`].
pub const FLAGS: usize = 7;
/// Prefixes in PEERS: of `--deny` (bits 32-63) and of `--except-peer` (0-31).
pub const LISTED: usize = 8;
/// The VIP, network order, in the low four bytes of the word in memory.
pub const VIP: usize = 9;
/// The server's address, likewise.
pub const SERVER: usize = 10;
/// The number (inode) of the network namespace that the interfaces are in.
pub const NAMESPACE: usize = 11;
/// Interfaces with generic XDP, as bits: that of WAN k is k, that of LAN k is `INTERFACES` + k.
pub const GENERIC: usize = 13;
/// The server's next hop, as flows remember theirs (`slot::flow::HOP`): for packets that belong to no flow.
pub const SERVER_HOP: usize = 14;
/// First of the sixteen words of the hash key.
pub const SECRET: usize = 16;
/// Which of the two books of retired totals is valid: 0 or 1. Flipping it is the commit.
pub const BOOK: usize = 32;
/// The first WAN; the others follow. Of each the interface index (0: none) and, in two words, the name when it was
/// attached: `stats` may run where nobody can look it up.
pub const WANS: usize = 40;
/// The first LAN; the others follow likewise.
pub const LANS: usize = WANS + INTERFACES * INTERFACE_WORDS;
/// Words of an interface.
pub const INTERFACE_WORDS: usize = 3;
/// The books of retired totals begin here.
pub const BOOKS: usize = 64;
/// Words of a book.
pub const BOOK_WORDS: usize = 128;

/// The words of a book.
pub mod book {
    /// Retired packets inbound; the other three follow: bytes in, packets out, bytes out.
    pub const ESP: usize = 0;
    /// Slot (index + 1) that was added last, so that a crash between commit and release adds it once only.
    pub const LAST_SLOT: usize = 8;
    /// The state word that slot had.
    pub const LAST_STATE: usize = 9;
    /// Retired flows.
    pub const FLOWS: usize = 10;
    /// Retired sessions.
    pub const SESSIONS: usize = 11;
}

/// The bits of [`FLAGS`].
pub mod flag {
    /// `--dry-run`.
    pub const DRY_RUN: u64 = 1;
    /// `--dedicated`.
    pub const DEDICATED: u64 = 1 << 1;
    /// The server is an address of this host.
    pub const SERVER_IS_LOCAL: u64 = 1 << 2;
}
const _: () = assert!(LANS + INTERFACES * INTERFACE_WORDS <= BOOKS);
const _: () = assert!(BOOKS + 2 * BOOK_WORDS <= WORDS);
