//! The retired totals in META: what expired entries had counted, added exactly once although the
//! daemon may die at any instruction.
//!
//! META holds the totals twice. The inactive copy is written completely (the active one, the
//! addition, and the name of the entry), then one exchange makes it the active one. Until then
//! nothing has happened. From then on the active copy names the entry, so that a daemon that finds
//! the entry still dying knows that it was added.

use std::ops::AddAssign;
use xdp_common::counters::Direction;
use xdp_common::meta::{RETIRED, RETIRED_COPY, RETIRED_WORDS, retired};
use xdp_core::Word;

/// Which table an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// FLOW.
    Flow,
    /// SESSION.
    Session,
}

/// Names one use of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its table.
    pub kind: EntryKind,
    /// Index of the slot.
    pub index: usize,
    /// Its state word, which contains the generation.
    pub state: u64,
}

/// Bit in a name: the entry is one of SESSION.
const SESSION: u64 = 1 << 63;

impl Entry {
    /// A number that is never zero, and never the same for two tables.
    fn name(self) -> u64 {
        let table = match self.kind {
            EntryKind::Flow => 0,
            EntryKind::Session => SESSION,
        };
        table | (self.index as u64 + 1)
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, more: Self) {
        self.packets = self.packets.wrapping_add(more.packets);
        self.bytes = self.bytes.wrapping_add(more.bytes);
    }
}

/// The active copy of the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetiredTotals {
    /// Retired ESP of each direction.
    pub esp: [Amount; 2],
    /// Retired flows.
    pub flows: u64,
    /// Retired sessions.
    pub sessions: u64,
    /// Which copy this is, and the entry that was added last: they change with every commit.
    mark: [u64; 3],
}

impl RetiredTotals {
    /// True when this entry was added last, whatever the state of its slot is.
    pub fn contains(&self, entry: Entry) -> bool {
        self.mark[1] == entry.name() && self.mark[2] == entry.state
    }
}

const fn at(active: usize, word: usize) -> usize {
    RETIRED + active * RETIRED_WORDS + word
}

fn active<W: Word>(meta: &[W]) -> usize {
    usize::from(meta[RETIRED_COPY].load() & 1 == 1)
}

/// Reads the active totals.
pub fn read<W: Word>(meta: &[W]) -> RetiredTotals {
    loop {
        let active = active(meta);
        let word = |word: usize| meta[at(active, word)].load();
        let amount = |direction: Direction| Amount {
            packets: word(retired::ESP + 2 * direction as usize),
            bytes: word(retired::ESP + 2 * direction as usize + 1),
        };
        let totals = RetiredTotals {
            esp: Direction::ALL.map(amount),
            flows: word(retired::FLOWS),
            sessions: word(retired::SESSIONS),
            mark: [
                active as u64,
                word(retired::LAST_SLOT),
                word(retired::LAST_STATE),
            ],
        };
        // Two commits in between would have rewritten this copy: then its mark has changed.
        let unchanged = totals.mark[1] == word(retired::LAST_SLOT)
            && totals.mark[2] == word(retired::LAST_STATE)
            && usize::from(meta[RETIRED_COPY].load() & 1 == 1) == active;
        if unchanged {
            return totals;
        }
    }
}

/// The entry that was added last, if there is one.
pub fn last<W: Word>(meta: &[W]) -> Option<Entry> {
    let [_, name, state] = read(meta).mark;
    let index = usize::try_from(name & !SESSION).ok()?.checked_sub(1)?;
    let kind = if name & SESSION == 0 {
        EntryKind::Flow
    } else {
        EntryKind::Session
    };
    Some(Entry { kind, index, state })
}

/// Adds the counters of an entry once: an entry that the active totals name already is left out.
pub fn add<W: Word>(meta: &[W], entry: Entry, direction: Direction, amount: Amount) {
    let now = active(meta);
    if read(meta).contains(entry) {
        return;
    }
    let next = 1 - now;
    for word in 0..RETIRED_WORDS {
        meta[at(next, word)].store(meta[at(now, word)].load());
    }
    let add = |word: usize, value: u64| {
        let cell = &meta[at(next, word)];
        cell.store(cell.load().wrapping_add(value));
    };
    match entry.kind {
        EntryKind::Flow => {
            add(retired::ESP + 2 * direction as usize, amount.packets);
            add(retired::ESP + 2 * direction as usize + 1, amount.bytes);
            add(retired::FLOWS, 1);
        }
        EntryKind::Session => add(retired::SESSIONS, 1),
    }
    meta[at(next, retired::LAST_SLOT)].store(entry.name());
    meta[at(next, retired::LAST_STATE)].store(entry.state);
    meta[RETIRED_COPY].publish(next as u64);
}

/// Adds the totals of other tables under this name, once likewise.
pub(crate) fn add_totals<W: Word>(meta: &[W], name: Entry, more: &RetiredTotals) {
    let totals = read(meta);
    if totals.contains(name) {
        return;
    }
    let now = active(meta);
    let next = 1 - now;
    for word in 0..RETIRED_WORDS {
        meta[at(next, word)].store(meta[at(now, word)].load());
    }
    let add = |word: usize, value: u64| {
        let cell = &meta[at(next, word)];
        cell.store(cell.load().wrapping_add(value));
    };
    for (direction, amount) in more.esp.iter().enumerate() {
        add(retired::ESP + 2 * direction, amount.packets);
        add(retired::ESP + 2 * direction + 1, amount.bytes);
    }
    add(retired::FLOWS, more.flows);
    add(retired::SESSIONS, more.sessions);
    meta[at(next, retired::LAST_SLOT)].store(name.name());
    meta[at(next, retired::LAST_STATE)].store(name.state);
    meta[RETIRED_COPY].publish(next as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use xdp_common::meta::WORDS;

    fn meta() -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    fn flow(index: usize, state: u64) -> Entry {
        Entry {
            kind: EntryKind::Flow,
            index,
            state,
        }
    }

    const TEN: Amount = Amount {
        packets: 10,
        bytes: 1000,
    };

    #[test]
    fn amounts_add_up_by_direction() {
        let meta = meta();
        add(&meta, flow(0, 3), Direction::Inbound, TEN);
        add(&meta, flow(1, 3), Direction::Outbound, TEN);
        add(&meta, flow(2, 3), Direction::Outbound, TEN);
        let totals = read(&meta);
        assert_eq!(totals.esp[0], TEN);
        assert_eq!(totals.esp[1].packets, 20);
        assert_eq!((totals.flows, totals.sessions), (3, 0));
    }

    #[test]
    fn the_same_life_is_added_once_and_the_next_one_again() {
        let meta = meta();
        add(&meta, flow(5, 0x103), Direction::Inbound, TEN);
        add(&meta, flow(5, 0x103), Direction::Inbound, TEN);
        assert_eq!(read(&meta).esp[0].packets, 10);
        add(&meta, flow(5, 0x203), Direction::Inbound, TEN);
        assert_eq!(read(&meta).esp[0].packets, 20);
    }

    #[test]
    fn a_session_in_the_same_slot_is_another_entry() {
        let meta = meta();
        add(&meta, flow(5, 0x103), Direction::Inbound, TEN);
        let session = Entry {
            kind: EntryKind::Session,
            index: 5,
            state: 0x103,
        };
        assert!(!read(&meta).contains(session));
        add(&meta, session, Direction::Inbound, Amount::default());
        let totals = read(&meta);
        assert_eq!((totals.flows, totals.sessions), (1, 1));
        assert_eq!(totals.esp[0], TEN);
    }
}
