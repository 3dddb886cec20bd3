//! Reclaims retired slots: adds their counters to the retired totals, frees the slots and lowers
//! the numbers of entries.
//!
//! Invariant: a grace period has passed since the entries were retired. The daemon may die at any
//! step: the next one starts again with the entries that are dying, and [`recount`] corrects a
//! number that was not lowered.

use crate::tables::clock::tick_shift;
use crate::tables::retired::{self, Amount, Entry, EntryKind};
use std::collections::HashMap;
use std::ops::AddAssign;
use xdp_common::Secret;
use xdp_common::counters::Direction;
use xdp_common::meta::{FLOW_ENTRIES, HZ, SESSION_ENTRIES};
use xdp_common::slot::{self, ADDRESS, KEY, STATE, flow, half_of, one_spi, session};
use xdp_core::Word;
use xdp_core::table::hash::digest_key;
use xdp_core::table::{self, Arrays, Halves, Place, Slot, State};

/// What a flow and its session have in common: the two words of the peer's address, and the service.
type SessionId = ([u64; 2], u16);

/// The tables and META, as words.
#[derive(Debug)]
pub struct TableWords<'w, W> {
    /// FLOW.
    pub flows: Arrays<'w, W>,
    /// SESSION.
    pub sessions: Arrays<'w, W>,
    /// META.
    pub meta: &'w [W],
    /// The key of the tables' hash.
    pub secret: &'w Secret,
}

impl<W> Clone for TableWords<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for TableWords<'_, W> {}

/// The peer and the service of a slot.
fn session_id<W: Word>(slot: Halves<'_, W>) -> SessionId {
    let address = [0, 1].map(|word| slot.cold[ADDRESS + word].load());
    (address, slot::service(slot.hot[STATE].load()))
}

impl<'w, W: Word> TableWords<'w, W> {
    /// The live session of a flow's peer and service. The key of a flow has the whole of an IPv4 address,
    /// so the cold half, another cache line for each flow that expiry visits, is not read.
    pub fn session_of(self, flow: &Slot<W>) -> Option<&'w Slot<W>> {
        let peer = flow[KEY].low().to_ne_bytes();
        let key = slot::session_key(peer, slot::service(flow[STATE].load()));
        let place = Place::new(digest_key(self.secret, &key), self.sessions.mask()?);
        let found = table::find(&self.sessions, place, &key)?;
        self.sessions.hot().get(found[slot::NUMBER].low() as usize)
    }

    /// Whether a session counts a flow of its peer. It does not count those of an earlier session
    /// of that peer, which has ended meanwhile. Two CPUs may disagree about the tick.
    #[expect(clippy::cast_possible_truncation, reason = "a tick is 32 bits")]
    fn counts(self, session: &Slot<W>, flow: Halves<'_, W>) -> bool {
        let shift = tick_shift(self.meta[HZ].load());
        let created = session::created(session[session::PORTS_CREATED].load());
        let first_seen = (flow.cold[flow::FIRST_SEEN].load() >> shift) as u32;
        let age = first_seen.wrapping_sub(created).wrapping_add(1) & session::CREATED_MASK;
        age <= session::CREATED_MASK / 2
    }
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Flows.
    pub flows: usize,
    /// Sessions.
    pub sessions: usize,
}

impl AddAssign for Reclaimed {
    fn add_assign(&mut self, more: Self) {
        self.flows += more.flows;
        self.sessions += more.sessions;
    }
}

/// Reclaims those of these slots that are dying.
pub fn reclaim<W: Word>(
    words: TableWords<'_, W>,
    flows: &[usize],
    sessions: &[usize],
) -> Reclaimed {
    let mut freed = Reclaimed::default();
    // The entry that the totals name as added last must be freed before another entry replaces its
    // name there.
    let last = retired::last(words.meta);
    let of_last = |kind, slots: Arrays<'_, W>| {
        last.filter(|entry| entry.kind == kind)
            .filter(|entry| {
                slots
                    .get(entry.index)
                    .is_some_and(|slot| slot.hot[STATE].load() == entry.state)
            })
            .map(|entry| entry.index)
    };
    if let Some(index) = of_last(EntryKind::Flow, words.flows) {
        freed.flows += usize::from(reclaim_flow(words, index));
    }
    if let Some(index) = of_last(EntryKind::Session, words.sessions) {
        freed.sessions += usize::from(reclaim_session(words, index));
    }
    for &index in flows {
        freed.flows += usize::from(reclaim_flow(words, index));
    }
    for &index in sessions {
        freed.sessions += usize::from(reclaim_session(words, index));
    }
    freed
}

fn reclaim_flow<W: Word>(words: TableWords<'_, W>, index: usize) -> bool {
    let Some(slot) = words.flows.get(index) else {
        return false;
    };
    let direction = slot::direction(slot.hot[STATE].load());
    // The slot is about to be zeroed.
    let session = words.session_of(slot.hot);
    let is_counted = session.is_some_and(|session| words.counts(session, slot));
    let amount = Amount {
        packets: slot.hot[flow::PACKETS].load(),
        bytes: slot.hot[flow::BYTES].load(),
    };
    if !free_slot(
        words.meta,
        slot,
        EntryKind::Flow,
        index,
        (direction, amount),
    ) {
        return false;
    }
    one_less(&words.meta[FLOW_ENTRIES]);
    if let Some(session) = session.filter(|_| is_counted) {
        one_spi_less(&session[session::SPIS], direction);
    }
    true
}

fn reclaim_session<W: Word>(words: TableWords<'_, W>, index: usize) -> bool {
    let Some(slot) = words.sessions.get(index) else {
        return false;
    };
    let nothing = (Direction::Inbound, Amount::default());
    let freed = free_slot(words.meta, slot, EntryKind::Session, index, nothing);
    if freed {
        one_less(&words.meta[SESSION_ENTRIES]);
    }
    freed
}

/// Adds the counters of a dying slot to the retired totals and frees the slot. The counters of a
/// slot that a daemon was freeing when it died have been added, and some of its words are zero
/// already.
fn free_slot<W: Word>(
    meta: &[W],
    slot: Halves<'_, W>,
    kind: EntryKind,
    index: usize,
    (direction, amount): (Direction, Amount),
) -> bool {
    let state = slot.hot[STATE].load();
    match State::of(state) {
        State::Free | State::Claimed | State::Live => return false,
        State::Freeing => {}
        State::Dying => {
            let entry = Entry { kind, index, state };
            retired::add(meta, entry, direction, amount);
        }
    }
    table::free(slot);
    true
}

/// Subtracts one, but never below zero: the dataplane may add at the same moment.
fn one_less<W: Word>(word: &W) {
    loop {
        let before = word.load();
        if before == 0 || word.replace(before, before - 1) {
            return;
        }
    }
}

/// Subtracts one SPI of a direction, likewise.
fn one_spi_less<W: Word>(word: &W, direction: Direction) {
    loop {
        let before = word.load();
        let none = half_of(before, direction) == 0;
        if none || word.replace(before, before - one_spi(direction)) {
            return;
        }
    }
}

/// The slots that a dead daemon left dying, or was freeing.
pub fn dying<W: Word>(table: Arrays<'_, W>) -> Vec<usize> {
    let is_left = |slot: &Slot<W>| match State::of(slot[STATE].load()) {
        State::Dying | State::Freeing => true,
        State::Free | State::Claimed | State::Live => false,
    };
    table
        .hot()
        .iter()
        .enumerate()
        .filter(|(_, slot)| is_left(slot))
        .map(|(index, _)| index)
        .collect()
}

fn taken<W: Word>(table: Arrays<'_, W>) -> u64 {
    table
        .hot()
        .iter()
        .filter(|slot| State::of(slot[STATE].load()) != State::Free)
        .count() as u64
}

/// How often a count is tried before it is left to the next start. Only a table that grows all the
/// time needs more tries.
const TRIES: usize = 20;

/// Corrects the numbers of entries and of SPIs. A daemon that dies between freeing a slot and
/// lowering the number leaves the number too high by one, for every such death. Without a
/// correction, a table would seem full one entry early.
///
/// A program may insert during the count. It first claims the slot and then adds to the number, and
/// `grace` waits for all programs that are running. So the count lies between two grace periods,
/// and the number is read before the first and after the second. If it is the same, no insert
/// overlapped the count: an insert that began before would have added by the end of the first grace
/// period, one that began during the count by the end of the second. Then number minus count is the
/// drift. It is subtracted in one atomic addition, so that later inserts are not lost.
///
/// The SPIs of sessions are counted in the same window: the insert of a flow adds to its session
/// before it adds to the number of FLOW. Returns true when everything was corrected.
pub fn recount<W: Word, E>(
    words: TableWords<'_, W>,
    mut grace: impl FnMut() -> Result<(), E>,
) -> Result<bool, E> {
    for _ in 0..TRIES {
        let numbers = || [FLOW_ENTRIES, SESSION_ENTRIES].map(|word| words.meta[word].load());
        let before = numbers();
        grace()?;
        let counted = [taken(words.flows), taken(words.sessions)];
        let drifts = spi_drifts(words);
        grace()?;
        if numbers() != before {
            continue;
        }
        for ((word, number), count) in [FLOW_ENTRIES, SESSION_ENTRIES]
            .into_iter()
            .zip(before)
            .zip(counted)
        {
            words.meta[word].add(count.wrapping_sub(number));
        }
        for (session, drift) in drifts {
            session[session::SPIS].add(drift);
        }
        return Ok(true);
    }
    Ok(false)
}

fn live_sessions<W: Word>(sessions: Arrays<'_, W>) -> HashMap<SessionId, &Slot<W>> {
    sessions
        .iter()
        .filter(|slot| State::of(slot.hot[STATE].load()) == State::Live)
        .map(|slot| (session_id(slot), slot.hot))
        .collect()
}

/// What to add to each session's numbers of SPIs, in the format of `session::SPIS`.
fn spi_drifts<'w, W: Word>(words: TableWords<'w, W>) -> Vec<(&'w Slot<W>, u64)> {
    let sessions = live_sessions(words.sessions);
    let mut counts: HashMap<SessionId, u64> = HashMap::new();
    for slot in words.flows.iter() {
        let counts_it = |session: &&Slot<W>| words.counts(session, slot);
        let state = slot.hot[STATE].load();
        if State::of(state) == State::Live && sessions.get(&session_id(slot)).is_some_and(counts_it)
        {
            let direction = slot::direction(state);
            *counts.entry(session_id(slot)).or_default() += one_spi(direction);
        }
    }
    sessions
        .into_iter()
        .filter_map(|(id, slot)| {
            let counted = counts.get(&id).copied().unwrap_or_default();
            let drift = counted.wrapping_sub(slot[session::SPIS].load());
            (drift != 0).then_some((slot, drift))
        })
        .collect()
}

#[cfg(test)]
#[path = "reclaim_tests.rs"]
mod tests;
