//! The layouts of the tables of older versions that a start takes over, and what becomes of their
//! entries in the layout of this version.
//!
//! This is the record of the layout. Every change of [`xdp_common::ABI_VERSION`] adds a line, and a
//! migration or the reason why there is none.
//!
//! | ABI | what changed with it | taken over |
//! | --- | --- | --- |
//! | 1, 2 | before the slow path: other hooks, other counters | no |
//! | 3 | slots of 128 bytes in one map; pins are named after the VIP | yes |
//! | 4 | HALF and FRAGMENT; later the outbound SPIs and LAST_SEEN of a session | yes |
//! | 5 | the rules of proofs; the words of FLOW, SESSION and META are those of 4 | yes |
//! | 6 | the hash key has a map of its own; PORTS also has the creation and native ESP | yes |
//! | 7 | slots in two halves and maps, META of two pages, SERVICE, VIP and PIN, counters of TCP | this one |
//!
//! The words that 3 to 6 share have one meaning, and a word that an earlier one of them does not have
//! is zero there, so one conversion serves all four. 4 to 6 were in commits of one day (2026-11-27) and
//! in no release; who built one of these may have them. An ABI 6 whose pins have the name of an instance
//! (no release had it) is not taken over: its place is that of the new tables.
//!
//! Not carried: HALF, FRAGMENT, HOSTPEER, NEXTHOP, LIMIT and cached next hops. They are learned again,
//! and until then packets are forwarded as at a first start.

use crate::tables::retired::Amount;
use std::ops::RangeInclusive;
use xdp_common::Direction;
use xdp_common::slot::{self, Key, STATE, flow, session};
use xdp_core::Word;
use xdp_core::table::{Halves, State};

/// The versions of the ABI whose tables can be taken over.
pub(crate) const VERSIONS: RangeInclusive<u64> = 3..=6;
/// Words of META in all of them.
pub(crate) const META_WORDS: usize = 512;
/// A word of META that none of them uses: how far the take-over is.
pub(crate) const PROGRESS: usize = META_WORDS - 1;

/// What [`PROGRESS`] may be.
pub(crate) mod progress {
    /// The retired totals are in the new tables.
    pub(crate) const RETIRED: u64 = 1;
    /// Everything is in the new tables, and what is left may be removed.
    pub(crate) const DONE: u64 = 2;
}

/// The block of a CPU: the egress words are where they are today, and each hook had room for the
/// counters of eight classes.
pub(crate) mod block {
    use xdp_common::{Direction, cpu};

    /// Classes of a direction.
    const CLASSES: usize = 8;
    /// Counters of a class.
    const QUANTITIES: usize = 4;
    /// Counters before those of the classes.
    const REASONS: usize = 64;
    /// Counters of a hook.
    pub(crate) const HOOK_WORDS: usize = REASONS + Direction::ALL.len() * CLASSES * QUANTITIES;
    /// Words of a block.
    pub(crate) const WORDS: usize = cpu::COUNTERS + xdp_common::Hook::ALL.len() * HOOK_WORDS;

    /// Where the counter stands today that stood at this place.
    pub(crate) const fn place_now(at: usize) -> usize {
        let (hook, at) = (
            (at - cpu::COUNTERS) / HOOK_WORDS,
            (at - cpu::COUNTERS) % HOOK_WORDS,
        );
        let first = cpu::COUNTERS + hook * xdp_common::counters::WORDS;
        if at < REASONS {
            return first + at;
        }
        let of_direction = CLASSES * QUANTITIES;
        let (direction, rest) = ((at - REASONS) / of_direction, (at - REASONS) % of_direction);
        first + REASONS + direction * xdp_common::counters::CLASSES * QUANTITIES + rest
    }
}

/// Counters of a session, in each direction.
const SESSION_COUNTERS: usize = 4;
/// Words of a slot.
pub(crate) const WORDS: usize = 16;
/// A slot of FLOW or SESSION.
pub(crate) type OldSlot<W> = [W; WORDS];

/// Words of a slot. Those of the key, state, direction and class are where they are today.
mod old {
    pub(super) const KEY: usize = 1;
    pub(super) mod flow {
        pub(in super::super) const PACKETS: usize = 4;
        pub(in super::super) const BYTES: usize = 5;
        pub(in super::super) const SEEN: usize = 6;
        pub(in super::super) const FIRST_SEEN: usize = 8;
        pub(in super::super) const FIRST: usize = 9;
        pub(in super::super) const REORDERED: usize = 10;
        pub(in super::super) const LATE: usize = 11;
    }
    pub(super) mod session {
        pub(in super::super) const LAST_SEEN: usize = 4;
        pub(in super::super) const PORTS: usize = 7;
        pub(in super::super) const COUNTERS: usize = 8;
    }
}

/// The numbers of the old VIP and of its service in the new tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Of the service.
    pub(crate) service: u16,
    /// Of the VIP.
    pub(crate) vip: u16,
}

/// The peer's address.
pub(crate) fn peer<W: Word>(slot: &OldSlot<W>) -> [u8; 4] {
    slot[old::KEY].low().to_ne_bytes()
}

fn is_live<W: Word>(slot: &OldSlot<W>) -> bool {
    State::of(slot[STATE].load()) == State::Live
}

/// The key of a live flow.
pub(crate) fn flow_key<W: Word>(slot: &OldSlot<W>, numbers: Numbers) -> Option<Key> {
    let state = slot[STATE].load();
    let spi = u32::from_be((slot[old::KEY].load() >> 32).try_into().unwrap_or_default());
    let (class, direction) = (slot::class(state), slot::direction(state));
    is_live(slot).then(|| slot::flow_key(peer(slot), spi, class, direction, numbers.service))
}

/// The key of a live session.
pub(crate) fn session_key<W: Word>(slot: &OldSlot<W>, numbers: Numbers) -> Option<Key> {
    is_live(slot).then(|| slot::session_key(peer(slot), numbers.service))
}

/// When a flow was first seen, in jiffies.
pub(crate) fn first_seen<W: Word>(slot: &OldSlot<W>) -> u64 {
    slot[old::flow::FIRST_SEEN].load()
}

/// What the flows of a peer show of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FromFlows {
    /// When the first of them was first seen, in jiffies.
    pub(crate) first_seen: u64,
    /// The server sends native ESP.
    pub(crate) native: bool,
}

impl FromFlows {
    /// What one flow shows.
    pub(crate) fn of<W: Word>(slot: &OldSlot<W>) -> Self {
        let state = slot[STATE].load();
        let outbound = slot::direction(state) == Direction::Outbound;
        Self {
            first_seen: first_seen(slot),
            native: outbound && !slot::class(state).eq(&xdp_common::Class::EspInUdp),
        }
    }

    /// What both show.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            first_seen: self.first_seen.min(other.first_seen),
            native: self.native || other.native,
        }
    }
}

/// Writes a flow, except for its counters, into a slot that has its key. The range of sequence numbers
/// that is not believed yet is left out: it counts in packets.
pub(crate) fn fill_flow<W: Word, V: Word>(from: &OldSlot<V>, numbers: Numbers, to: Halves<'_, W>) {
    let word = to.hot[slot::SPI_VIP].load();
    to.hot[slot::SPI_VIP].store(slot::with_vip(word, numbers.vip));
    to.hot[flow::SEEN].store(from[old::flow::SEEN].load());
    to.cold[flow::FIRST_SEEN].store(from[old::flow::FIRST_SEEN].load());
    to.cold[flow::FIRST].store(from[old::flow::FIRST].load());
    to.cold[flow::LATE].store(from[old::flow::LATE].load());
}

/// Writes a session, except for its counters and its numbers of SPIs, into a slot that has its key.
/// `now` is in jiffies.
pub(crate) fn fill_session<W: Word, V: Word>(
    from: &OldSlot<V>,
    numbers: Numbers,
    (flows, now): (Option<FromFlows>, u64),
    tick_shift: u32,
    to: Halves<'_, W>,
) {
    let seen = from[old::session::LAST_SEEN].load();
    to.hot[session::LAST_SEEN].store(seen);
    to.hot[session::PIN].store(session::proven_pin(numbers.vip));
    let ports = from[old::session::PORTS].load();
    let known = if ports >> 32 == 0 {
        let silent = low(now).wrapping_sub(low(seen));
        let last = now.saturating_sub(silent.into());
        let created = flows.map_or(last, |flows| flows.first_seen.min(last)) >> tick_shift;
        let native = flows.is_some_and(|flows| flows.native);
        ports | session::created_at(created) | (u64::from(native) * session::NATIVE_ESP)
    } else {
        ports
    };
    to.hot[session::PORTS_CREATED].store(known);
}

/// Takes a counter out of an old table, which no program writes any more.
fn take<W: Word>(word: &W) -> u64 {
    loop {
        let before = word.load();
        if before == 0 || word.replace(before, 0) {
            return before;
        }
    }
}

/// Moves a counter. A process that dies between the two steps loses the count of this one entry, and
/// counts nothing twice.
pub(crate) fn move_counter<W: Word, V: Word>(from: &V, to: &W) {
    let count = take(from);
    if count != 0 {
        to.add(count);
    }
}

/// Packets and bytes of a flow.
pub(crate) fn amount<W: Word>(from: &OldSlot<W>) -> Amount {
    Amount {
        packets: from[old::flow::PACKETS].load(),
        bytes: from[old::flow::BYTES].load(),
    }
}

/// Zeroes them.
pub(crate) fn forget_amount<W: Word>(from: &OldSlot<W>) {
    for word in [old::flow::BYTES, old::flow::PACKETS] {
        from[word].store(0);
    }
}

/// Changes a word until the change is of what it contains.
fn update<W: Word>(word: &W, change: impl Fn(u64) -> u64) {
    loop {
        let before = word.load();
        let after = change(before);
        if before == after || word.replace(before, after) {
            return;
        }
    }
}

/// Whether one stamp or sequence number is after another one, in serial-number arithmetic (RFC 1982).
const fn is_ahead(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

/// The later of two stamps or sequence numbers.
const fn later(one: u32, other: u32) -> u32 {
    if is_ahead(one, other) { one } else { other }
}

#[expect(clippy::cast_possible_truncation, reason = "the half is meant")]
const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Adds to a flow what the old programs have counted for it, and joins what both have seen last and
/// first. The new programs may count at the same time.
pub(crate) fn settle_flow<W: Word, V: Word>(from: &OldSlot<V>, to: Halves<'_, W>) {
    let seen = from[old::flow::SEEN].load();
    update(&to.hot[flow::SEEN], |word| {
        let stamp = later(high(seen), high(word));
        let highest = later(low(seen), low(word));
        u64::from(stamp) << 32 | u64::from(highest)
    });
    let (began, first) = (first_seen(from), from[old::flow::FIRST].load());
    let is_older = began < to.cold[flow::FIRST_SEEN].load();
    const WRAPS: u64 = 0xffff_0000;
    update(&to.cold[flow::FIRST], |word| {
        let sequence = if is_older { first } else { word } & !0xffff_ffff;
        sequence | (first & WRAPS).max(word & WRAPS) | word & 0xffff
    });
    update(&to.cold[flow::FIRST_SEEN], |word| word.min(began));
    move_counter(&from[old::flow::REORDERED], &to.cold[flow::REORDERED]);
    move_counter(&from[old::flow::BYTES], &to.hot[flow::BYTES]);
    move_counter(&from[old::flow::PACKETS], &to.hot[flow::PACKETS]);
}

/// The same for a session.
pub(crate) fn settle_session<W: Word, V: Word>(from: &OldSlot<V>, to: Halves<'_, W>) {
    let seen = from[old::session::LAST_SEEN].load();
    update(&to.hot[session::LAST_SEEN], |word| {
        if is_ahead(low(seen), low(word)) {
            seen
        } else {
            word
        }
    });
    for counter in 0..2 * SESSION_COUNTERS {
        let count = take(&from[old::session::COUNTERS + counter]);
        let word = session::COUNTERS + counter / 2;
        W::add_to_half(to.cold, 2 * word + counter % 2, low(count));
    }
}

#[cfg(test)]
#[path = "older_tests.rs"]
mod tests;
