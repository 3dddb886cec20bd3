//! Tests in which the daemon dies after each single write in turn: whatever the next one does must
//! correct the tables.

use super::*;
use crate::tables::test_table::TestTable;
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use xdp_common::Class;
use xdp_common::meta;
use xdp_common::slot::{flow_key, session_key};

thread_local! {
    /// Writes that are left until the daemon dies.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A word that ignores what a dead daemon writes.
#[derive(Default)]
struct Mortal(AtomicU64);

fn alive() -> bool {
    LEFT.with(|left| {
        let now = left.get();
        left.set(now.saturating_sub(usize::from(now != usize::MAX)));
        now > 0
    })
}

impl Word for Mortal {
    fn load(&self) -> u64 {
        Word::load(&self.0)
    }
    fn store(&self, value: u64) {
        if alive() {
            Word::store(&self.0, value);
        }
    }
    fn add(&self, value: u64) {
        if alive() {
            Word::add(&self.0, value);
        }
    }
    fn replace(&self, old: u64, new: u64) -> bool {
        // True ends the retry loop of a dead daemon.
        !alive() || Word::replace(&self.0, old, new)
    }
    fn publish(&self, value: u64) {
        if alive() {
            Word::publish(&self.0, value);
        }
    }
}

struct Tables {
    flows: TestTable<Mortal>,
    sessions: TestTable<Mortal>,
    meta: Vec<Mortal>,
}

const SECRET: Secret = [7; 16];
const PEER: [u8; 4] = [203, 0, 113, 10];
const SERVICE: u16 = 255;
/// The state of a live slot, without what follows from its place and its key.
const LIVE: u64 = 1 << 22 | 2;

impl Tables {
    /// Two inbound flows and an outbound one of one session.
    fn new() -> Self {
        let tables = Self {
            flows: TestTable::new(2),
            sessions: TestTable::new(1),
            meta: (0..meta::WORDS).map(|_| Mortal::default()).collect(),
        };
        for (at, spi, direction) in [
            (1, 0x1000, Direction::Inbound),
            (2, 0x2000, Direction::Inbound),
            (5, 0x3000, Direction::Outbound),
        ] {
            let key = flow_key(PEER, spi, Class::Esp, direction, SERVICE);
            let slot = tables.flows.put(at, LIVE, &key);
            slot.hot[flow::PACKETS].store(10);
            slot.hot[flow::BYTES].store(1000);
        }
        let session = tables.sessions.put(3, LIVE, &session_key(PEER, SERVICE));
        session.hot[session::SPIS].store(2);
        tables.meta[FLOW_ENTRIES].store(3);
        tables.meta[SESSION_ENTRIES].store(1);
        tables
    }

    fn words(&self) -> TableWords<'_, Mortal> {
        TableWords {
            flows: self.flows.arrays(),
            sessions: self.sessions.arrays(),
            meta: &self.meta,
            secret: &SECRET,
        }
    }

    fn flow(&self, index: usize) -> Halves<'_, Mortal> {
        self.flows.arrays().get(index).expect("a slot of FLOW")
    }

    /// The hot half of the only session.
    fn session(&self) -> &Slot<Mortal> {
        &self.sessions.arrays().hot()[3]
    }

    fn retire(&self, flows: &[usize], sessions: &[usize]) {
        for &index in flows {
            let slot = &self.flows.arrays().hot()[index];
            assert!(table::retire(slot, slot[STATE].load()));
        }
        for &index in sessions {
            let slot = &self.sessions.arrays().hot()[index];
            assert!(table::retire(slot, slot[STATE].load()));
        }
    }

    /// What a daemon does when it starts.
    fn recover(&self) {
        let words = self.words();
        reclaim(words, &dying(words.flows), &dying(words.sessions));
        let corrected = recount(words, || Ok::<(), Infallible>(()));
        assert_eq!(corrected, Ok(true));
    }

    fn entries(&self) -> (u64, u64) {
        (
            self.meta[FLOW_ENTRIES].load(),
            self.meta[SESSION_ENTRIES].load(),
        )
    }
}

#[test]
fn a_reclaimed_flow_is_added_to_the_totals_and_leaves_the_numbers() {
    let tables = Tables::new();
    tables.retire(&[1], &[]);
    let freed = reclaim(tables.words(), &[1], &[]);
    assert_eq!(
        freed,
        Reclaimed {
            flows: 1,
            sessions: 0
        }
    );
    assert_eq!(tables.entries(), (2, 1));
    assert_eq!(tables.session()[session::SPIS].load(), 1);
    assert_eq!(
        retired::read(&tables.meta).esp[0],
        Amount {
            packets: 10,
            bytes: 1000
        }
    );
    assert_eq!(State::of(tables.flow(1).hot[STATE].load()), State::Free);
}

/// The peer's first session has ended, and a second one counts two of the three flows.
#[test]
fn a_session_loses_no_spi_of_an_earlier_one() {
    for shift in [0, 8] {
        let tables = Tables::new();
        tables.meta[HZ].store(1 << shift);
        tables.session()[session::PORTS_CREATED].store(session::NATIVE_ESP | 1000 << 32 | 4500);
        for (at, first_seen) in [(1, 900), (2, 1000), (5, 1001)] {
            tables.flow(at).cold[flow::FIRST_SEEN].store(first_seen << shift);
        }
        let counted = one_spi(Direction::Inbound) + one_spi(Direction::Outbound);
        let spis = &tables.session()[session::SPIS];
        spis.store(counted);
        tables.recover();
        assert_eq!(
            spis.load(),
            counted,
            "a start counts what the dataplane counts"
        );
        tables.retire(&[1], &[]);
        reclaim(tables.words(), &[1], &[]);
        assert_eq!(spis.load(), counted);
        tables.retire(&[2, 5], &[]);
        reclaim(tables.words(), &[2, 5], &[]);
        assert_eq!(spis.load(), 0);
        assert_eq!(tables.entries(), (0, 1));
    }
}

#[test]
fn a_live_slot_is_left_alone() {
    let tables = Tables::new();
    assert_eq!(reclaim(tables.words(), &[1], &[3]), Reclaimed::default());
    assert_eq!(tables.entries(), (3, 1));
    assert_eq!(retired::read(&tables.meta).flows, 0);
}

#[test]
fn a_number_never_falls_below_zero() {
    let tables = Tables::new();
    tables.meta[FLOW_ENTRIES].store(0);
    tables.session()[session::SPIS].store(0);
    tables.retire(&[1], &[]);
    reclaim(tables.words(), &[1], &[]);
    assert_eq!(tables.entries(), (0, 1));
    assert_eq!(tables.session()[session::SPIS].load(), 0);
}

#[test]
fn whatever_write_is_the_last_the_next_daemon_makes_it_right() {
    let mut deaths = 0;
    for lifetime in 0.. {
        let tables = Tables::new();
        tables.retire(&[1, 5], &[]);
        LEFT.set(lifetime);
        reclaim(tables.words(), &[5, 1], &[]);
        let died = LEFT.get() == 0;
        LEFT.set(usize::MAX);
        tables.recover();

        let page = retired::read(&tables.meta);
        let ten = Amount {
            packets: 10,
            bytes: 1000,
        };
        assert_eq!(page.esp, [ten, ten], "after {lifetime} writes");
        assert_eq!(page.flows, 2, "after {lifetime} writes");
        assert_eq!(tables.entries(), (1, 1), "after {lifetime} writes");
        assert_eq!(
            tables.session()[session::SPIS].load(),
            1,
            "after {lifetime} writes"
        );
        for index in [1, 5] {
            let slot = tables.flow(index);
            assert_eq!(State::of(slot.hot[STATE].load()), State::Free);
            let mut words = slot.hot[STATE + 1..].iter().chain(slot.cold);
            assert!(
                words.all(|word| word.load() == 0),
                "after {lifetime} writes"
            );
        }
        if !died {
            break;
        }
        deaths += 1;
    }
    assert!(
        deaths > 2 * meta::RETIRED_WORDS,
        "only {deaths} deaths: the daemon was never killed"
    );
}

#[test]
fn the_same_for_sessions() {
    for lifetime in 0..400 {
        let tables = Tables::new();
        tables.retire(&[1, 2, 5], &[3]);
        LEFT.set(lifetime);
        reclaim(tables.words(), &[1, 2, 5], &[3]);
        LEFT.set(usize::MAX);
        tables.recover();
        let page = retired::read(&tables.meta);
        assert_eq!(
            (page.flows, page.sessions),
            (3, 1),
            "after {lifetime} writes"
        );
        assert_eq!(page.esp[0].packets, 20, "after {lifetime} writes");
        assert_eq!(tables.entries(), (0, 0), "after {lifetime} writes");
    }
}

#[test]
fn a_count_that_something_disturbs_is_tried_again() {
    let tables = Tables::new();
    tables.meta[FLOW_ENTRIES].store(9);
    let mut disturbances = 3;
    let corrected = recount(tables.words(), || {
        if disturbances > 0 {
            disturbances -= 1;
            tables.meta[SESSION_ENTRIES].add(1);
        }
        Ok::<(), Infallible>(())
    });
    assert_eq!(corrected, Ok(true));
    assert_eq!(tables.entries(), (3, 1));
}
