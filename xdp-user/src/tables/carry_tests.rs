//! Tests of carrying whole tables, also by a start that dies in between.

use super::*;
use crate::tables::test_table::TestTable;
use std::sync::atomic::AtomicU64;
use xdp_common::meta;
use xdp_common::slot::{flow, half_of};
use xdp_common::{Direction, Secret};

const SECRET: Secret = [0x9e37_79b9_7f4a_7c15; 16];
const NUMBERS: Numbers = Numbers { service: 2, vip: 1 };
const PEERS: u8 = 20;

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// The tables of an older version with one session and two flows of each of some peers.
struct Old {
    flows: Vec<OldSlot<AtomicU64>>,
    sessions: Vec<OldSlot<AtomicU64>>,
    meta: Vec<AtomicU64>,
    cpus: Vec<[AtomicU64; older::block::WORDS]>,
}

fn block<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Old {
    fn new() -> Self {
        let slot = |kind: u64, peer: u8, spi: u32, of: &[(usize, u64)]| {
            let mut slot = [0_u64; older::WORDS];
            slot[0] = 2 | kind << 9;
            let address = u32::from_ne_bytes([198, 51, 100, peer]);
            slot[1] = u64::from(spi.to_be()) << 32 | u64::from(address);
            for (word, value) in of {
                slot[*word] = *value;
            }
            slot.map(AtomicU64::new)
        };
        let counted = |packets| [(4, packets), (5, packets * 100), (8, 5000)];
        let flows = (0..PEERS).flat_map(|peer| {
            let amount = u64::from(peer) + 1;
            [
                slot(0, peer, 0x100, &counted(amount)),
                slot(1, peer, 0x200, &counted(2 * amount)),
            ]
        });
        let sessions = (0..PEERS).map(|peer| slot(4, peer, 0, &[(8, 7), (9, 6)]));
        let old = Self {
            flows: flows.collect(),
            sessions: sessions.collect(),
            meta: words(older::META_WORDS),
            cpus: vec![block(), block()],
        };
        for (at, block) in old.cpus.iter().enumerate() {
            for (word, counter) in block.iter().enumerate() {
                Word::store(counter, (at + 1) as u64 * 1000 + word as u64);
            }
        }
        // Totals of before, and a flow and a session that were retired and not added yet.
        let five = Entry {
            kind: EntryKind::Flow,
            index: 5,
            state: 3,
        };
        let amount = retired::Amount {
            packets: 50,
            bytes: 5000,
        };
        retired::add(&old.meta, five, Direction::Inbound, amount);
        for word in [&old.flows[0][0], &old.sessions[0][0]] {
            Word::store(word, Word::load(word) & !0x7f | 3);
        }
        old
    }

    fn tables(&self) -> OldTables<'_, AtomicU64> {
        OldTables {
            flows: &self.flows,
            sessions: &self.sessions,
            meta: &self.meta,
            cpus: &self.cpus,
        }
    }
}

struct New {
    flows: TestTable<AtomicU64>,
    sessions: TestTable<AtomicU64>,
    meta: Vec<AtomicU64>,
    cpus: Vec<[AtomicU64; cpu::WORDS]>,
}

impl New {
    fn of_buckets(buckets: usize) -> Self {
        Self {
            flows: TestTable::new(buckets),
            sessions: TestTable::new(buckets),
            meta: words(meta::WORDS),
            cpus: vec![block(), block()],
        }
    }

    fn tables(&self) -> NewTables<'_, AtomicU64> {
        NewTables {
            words: TableWords {
                flows: self.flows.arrays(),
                sessions: self.sessions.arrays(),
                meta: &self.meta,
                secret: &SECRET,
            },
            cpus: &self.cpus,
            numbers: NUMBERS,
            now: 9000,
            rate: 1000,
        }
    }

    /// Packets of live flows and of retired ones.
    fn packets(&self) -> [u64; 2] {
        let live = self.flows.arrays().iter();
        let live = live.map(|slot| Word::load(&slot.hot[flow::PACKETS])).sum();
        let retired = retired::read(&self.meta);
        [live, retired.esp.iter().map(|amount| amount.packets).sum()]
    }

    fn counters(&self) -> u64 {
        let blocks = self.cpus.iter().flatten();
        blocks.map(Word::load).sum()
    }
}

/// The flows of all peers but the first count 3 for each packet of their number; that one's inbound
/// flow is retired.
const LIVE: u64 = 3 * (PEERS as u64) * (PEERS as u64 + 1) / 2 - 1;
const RETIRED: u64 = 50 + 1;

fn counted_before(old: &Old) -> u64 {
    let blocks = old.cpus.iter().flat_map(|block| &block[cpu::COUNTERS..]);
    blocks.map(Word::load).sum()
}

fn settled(old: &Old, new: &New) -> Carried {
    settle(&old.tables(), &new.tables(), || Ok::<_, ()>(())).expect("no step fails")
}

#[test]
fn everything_is_carried_once() {
    let (old, new) = (Old::new(), New::of_buckets(64));
    let counted = counted_before(&old);
    let copied = copy(&old.tables(), &new.tables());
    assert_eq!(new.packets(), [0, 0], "no counters before the exchange");
    let expected = Carried {
        flows: 2 * usize::from(PEERS) - 1,
        sessions: usize::from(PEERS) - 1,
        without_room: 0,
    };
    assert_eq!(copied, expected);
    for _ in 0..2 {
        assert_eq!(settled(&old, &new), expected);
        assert_eq!(new.packets(), [LIVE, RETIRED]);
        assert_eq!(new.counters(), counted);
        let numbers = [FLOW_ENTRIES, SESSION_ENTRIES].map(|word| Word::load(&new.meta[word]));
        assert_eq!(numbers, [39, 19]);
    }
    let totals = retired::read(&new.meta);
    assert_eq!((totals.flows, totals.sessions), (2, 1));
    for slot in new.sessions.arrays().iter() {
        if State::of(Word::load(&slot.hot[STATE])) == State::Live {
            let spis = Word::load(&slot.hot[session::SPIS]);
            assert_eq!(
                Direction::ALL.map(|direction| half_of(spis, direction)),
                [1, 1]
            );
            assert_eq!(Word::load(&slot.cold[session::COUNTERS]), 6 << 32 | 7);
        }
    }
}

/// Whatever step is the last of a start, the next one finishes it.
#[test]
fn a_start_that_ends_at_any_step_is_finished_by_the_next() {
    for last in 0..6 {
        let (old, new) = (Old::new(), New::of_buckets(64));
        let counted = counted_before(&old);
        let mut step = 0;
        let ended = settle(&old.tables(), &new.tables(), || {
            step += 1;
            if step > last { Err(()) } else { Ok(()) }
        });
        assert_eq!(ended, Err(()), "step {last}");
        settled(&old, &new);
        assert_eq!(new.packets(), [LIVE, RETIRED], "step {last}");
        assert_eq!(new.counters(), counted, "step {last}");
    }
}

#[test]
fn what_the_new_programs_have_counted_is_added_to() {
    let (old, new) = (Old::new(), New::of_buckets(64));
    copy(&old.tables(), &new.tables());
    for slot in new.flows.arrays().iter() {
        if State::of(Word::load(&slot.hot[STATE])) == State::Live {
            Word::add(&slot.hot[flow::PACKETS], 1);
        }
    }
    settled(&old, &new);
    assert_eq!(new.packets(), [LIVE + 39, RETIRED]);
}

#[test]
fn what_finds_no_room_is_in_the_retired_totals() {
    let (old, new) = (Old::new(), New::of_buckets(4));
    for _ in 0..2 {
        let carried = settled(&old, &new);
        assert!(carried.without_room >= 23, "{carried:?}");
        let [live, retired] = new.packets();
        assert_eq!(live + retired, LIVE + RETIRED);
    }
}

#[test]
fn the_totals_of_tables_that_were_in_use_are_added_to() {
    let (old, new) = (Old::new(), New::of_buckets(64));
    let one = Entry {
        kind: EntryKind::Flow,
        index: 1,
        state: 3,
    };
    let amount = retired::Amount {
        packets: 1000,
        bytes: 1,
    };
    retired::add(&new.meta, one, Direction::Outbound, amount);
    settled(&old, &new);
    assert_eq!(new.packets(), [LIVE, RETIRED + 1000]);
}
