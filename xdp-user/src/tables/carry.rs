//! Carries the entries and counters of an older version's tables ([`crate::tables::older`]) into those
//! of this one, while programs count.
//!
//! [`copy`] comes before the programs are exchanged: it creates the entries, without counters, so that
//! no packet meets a table that does not know it. [`settle`] comes after it, once no old program runs:
//! it creates what has come meanwhile, and moves the counters. At each moment a count is in one of the
//! two tables, so a start that dies is finished by another one, which does both again.

use crate::sys::one_cpu;
use crate::tables::clock::tick_shift;
use crate::tables::older::{self, FromFlows, Numbers, OldSlot, PROGRESS, progress};
use crate::tables::reclaim::TableWords;
use crate::tables::retired::{self, Entry, EntryKind};
use std::collections::HashMap;
use xdp_common::cpu;
use xdp_common::meta::{FLOW_ENTRIES, JIFFIES, SESSION_ENTRIES};
use xdp_common::slot::{self, Key, STATE, one_spi, session};
use xdp_core::Word;
use xdp_core::table::hash::digest_key;
use xdp_core::table::{self, Arrays, Halves, Place, State};

/// The tables of an older version, as words.
#[derive(Debug)]
pub(crate) struct OldTables<'w, W> {
    /// FLOW.
    pub(crate) flows: &'w [OldSlot<W>],
    /// SESSION.
    pub(crate) sessions: &'w [OldSlot<W>],
    /// META.
    pub(crate) meta: &'w [W],
    /// CPU.
    pub(crate) cpus: &'w [[W; older::block::WORDS]],
}

/// The tables of this version, as words.
#[derive(Debug)]
pub(crate) struct NewTables<'w, W> {
    /// FLOW, SESSION and META.
    pub(crate) words: TableWords<'w, W>,
    /// CPU.
    pub(crate) cpus: &'w [[W; cpu::WORDS]],
    /// The numbers of the VIP.
    pub(crate) numbers: Numbers,
    /// The present moment in jiffies.
    pub(crate) now: u64,
    /// Jiffies per second.
    pub(crate) rate: u64,
}

/// The entries that were carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// SPIs.
    pub flows: usize,
    /// Peers.
    pub sessions: usize,
    /// Entries for which the new tables have no room.
    pub without_room: usize,
}

/// The slot of a key; `None`: there is none.
fn find<'w, W: Word>(
    table: Arrays<'w, W>,
    new: &TableWords<'_, W>,
    key: &Key,
) -> Option<Halves<'w, W>> {
    let place = Place::new(digest_key(new.secret, key), table.mask()?);
    let number = table::find(&table, place, key)?[slot::NUMBER].low();
    table.get(number as usize)
}

/// Creates the entry of a key unless there is one. `None`: there is no room.
fn find_or_insert<'w, W: Word>(
    table: Arrays<'w, W>,
    new: &TableWords<'_, W>,
    (key, entries): (&Key, usize),
    fill: impl FnOnce(Halves<'_, W>),
) -> Option<(Halves<'w, W>, bool)> {
    if let Some(found) = find(table, new, key) {
        return Some((found, false));
    }
    let place = Place::new(digest_key(new.secret, key), table.mask()?);
    let number = table::insert(&table, place, key, fill)?[slot::NUMBER].low();
    new.meta[entries].add(1);
    Some((table.get(number as usize)?, true))
}

fn from_flows<W: Word>(flows: &[OldSlot<W>], numbers: Numbers) -> HashMap<[u8; 4], FromFlows> {
    let mut peers: HashMap<[u8; 4], FromFlows> = HashMap::new();
    for slot in flows {
        if older::flow_key(slot, numbers).is_some() {
            let found = FromFlows::of(slot);
            let known = peers.entry(older::peer(slot)).or_insert(found);
            *known = known.and(found);
        }
    }
    peers
}

/// Creates the entries of all live flows and sessions that the new tables do not have yet.
pub(crate) fn copy<W: Word>(old: &OldTables<'_, W>, new: &NewTables<'_, W>) -> Carried {
    let (words, numbers) = (&new.words, new.numbers);
    let peers = from_flows(old.flows, numbers);
    let shift = tick_shift(new.rate);
    let mut carried = Carried::default();
    for slot in old.sessions {
        let Some(key) = older::session_key(slot, numbers) else {
            continue;
        };
        let flows = peers.get(&older::peer(slot)).copied();
        let fill = |to: Halves<'_, W>| {
            older::fill_session(slot, numbers, (flows, new.now), shift, to);
        };
        match find_or_insert(words.sessions, words, (&key, SESSION_ENTRIES), fill) {
            Some(_) => carried.sessions += 1,
            None => carried.without_room += 1,
        }
    }
    for slot in old.flows {
        let Some(key) = older::flow_key(slot, numbers) else {
            continue;
        };
        let fill = |to: Halves<'_, W>| older::fill_flow(slot, numbers, to);
        match find_or_insert(words.flows, words, (&key, FLOW_ENTRIES), fill) {
            Some((halves, is_new)) => {
                carried.flows += 1;
                if let Some(of_peer) = words.session_of(halves.hot).filter(|_| is_new) {
                    let direction = slot::direction(halves.hot[STATE].load());
                    of_peer[session::SPIS].add(one_spi(direction));
                }
            }
            None => carried.without_room += 1,
        }
    }
    carried
}

/// Moves all counters, once no old program runs any more. `pass` is called after each part, and may
/// fail in a test.
pub(crate) fn settle<W: Word, E>(
    old: &OldTables<'_, W>,
    new: &NewTables<'_, W>,
    mut pass: impl FnMut() -> Result<(), E>,
) -> Result<Carried, E> {
    let carried = copy(old, new);
    pass()?;
    move_retired(old, new);
    pass()?;
    let (words, numbers) = (&new.words, new.numbers);
    for (at, slot) in old.sessions.iter().enumerate() {
        let key = older::session_key(slot, numbers);
        if let Some(to) = key.and_then(|key| find(words.sessions, words, &key)) {
            older::settle_session(slot, to);
        }
        if at == old.sessions.len() / 2 {
            pass()?;
        }
    }
    for (at, slot) in old.flows.iter().enumerate() {
        if let Some(key) = older::flow_key(slot, numbers) {
            match find(words.flows, words, &key) {
                Some(to) => older::settle_flow(slot, to),
                None => retire((at, slot), words.meta),
            }
        }
        if at == old.flows.len() / 2 {
            pass()?;
        }
    }
    pass()?;
    move_cpu(old.cpus, new.cpus);
    pass()?;
    Ok(carried)
}

/// Names in the totals of what comes from older tables: no slot has such a number.
const BEYOND: usize = usize::MAX >> 2;

/// Adds a flow for which there is no room to the retired totals, once.
fn retire<W: Word>((at, slot): (usize, &OldSlot<W>), meta: &[W]) {
    let state = slot[STATE].load();
    let amount = older::amount(slot);
    if amount.packets != 0 {
        let (kind, index) = (EntryKind::Flow, BEYOND + at);
        retired::add(
            meta,
            Entry { kind, index, state },
            slot::direction(state),
            amount,
        );
        older::forget_amount(slot);
    }
}

/// Moves the retired totals, and with them the entries that the old daemon had retired and not added
/// yet.
fn move_retired<W: Word>(old: &OldTables<'_, W>, new: &NewTables<'_, W>) {
    if old.meta[PROGRESS].load() >= progress::RETIRED {
        return;
    }
    let mut totals = retired::read(old.meta);
    let earlier = totals;
    let is_missing = |kind, index, state| {
        State::of(state) == State::Dying && !earlier.contains(Entry { kind, index, state })
    };
    for (index, slot) in old.flows.iter().enumerate() {
        let state = slot[STATE].load();
        if is_missing(EntryKind::Flow, index, state) {
            totals.esp[slot::direction(state) as usize] += older::amount(slot);
            totals.flows += 1;
        }
    }
    for (index, slot) in old.sessions.iter().enumerate() {
        totals.sessions += u64::from(is_missing(EntryKind::Session, index, slot[STATE].load()));
    }
    let name = Entry {
        kind: EntryKind::Session,
        index: BEYOND,
        state: old.meta[JIFFIES].load(),
    };
    retired::add_totals(new.words.meta, name, &totals);
    old.meta[PROGRESS].publish(progress::RETIRED);
}

/// Moves the counters of the hooks into the block of the CPU on which this thread runs. Programs add to
/// them without atomics; none of them interrupts an addition of this thread there.
fn move_cpu<W: Word>(old: &[[W; older::block::WORDS]], new: &[[W; cpu::WORDS]]) {
    one_cpu::stay(|number| {
        let Some(to) = new.get(number).or(new.first()) else {
            return;
        };
        for block in old {
            for (at, from) in block.iter().enumerate().skip(cpu::COUNTERS) {
                older::move_counter(from, &to[older::block::place_now(at)]);
            }
        }
    });
}

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;
