//! Tests of expiry: a whole table visited slice by slice, with a clock of the test's own.

use super::*;
use crate::tables::clock::Moment;
use crate::tables::retired;
use crate::tables::test_table::TestTable;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use xdp_common::slot::{Key, WAYS, flow_key, session_key};
use xdp_common::{Class, Secret, meta};
use xdp_core::table::hash::digest_key;
use xdp_core::table::{self, Halves, Place};

/// Jiffies per second.
const RATE: u64 = 1;
const IDLE: u64 = 300;
/// The first moment: late enough for every age.
const START: u64 = 100_000;
const A: [u8; 4] = [203, 0, 113, 10];
const B: [u8; 4] = [203, 0, 113, 11];
const SERVICE: u16 = 17;
const SECRET: Secret = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59];
const BUCKETS: usize = 64;

struct World {
    flows: TestTable<AtomicU64>,
    sessions: TestTable<AtomicU64>,
    meta: Vec<AtomicU64>,
    expiry: Expiry,
    now: u64,
    graces: Cell<u32>,
}

fn insert(table: &TestTable<AtomicU64>, key: Key, rest: &[(usize, u64)]) {
    let table = table.arrays();
    let place = Place::new(digest_key(&SECRET, &key), table.mask().expect("buckets"));
    let inserted = table::insert(&table, place, &key, |slot| {
        for (at, value) in rest {
            Word::store(&slot.hot[*at], *value);
        }
    });
    assert!(inserted.is_some());
}

impl World {
    fn new() -> Self {
        let anchor = Moment {
            jiffies: 0,
            monotonic: 0,
        };
        Self {
            flows: TestTable::new(BUCKETS),
            sessions: TestTable::new(BUCKETS),
            meta: (0..meta::WORDS).map(|_| AtomicU64::new(0)).collect(),
            expiry: Expiry::new(Clock::new(RATE, anchor), 300),
            now: START,
            graces: Cell::new(0),
        }
    }

    /// A flow with so many packets, the last one `age` seconds before the start.
    fn flow(&self, peer: [u8; 4], spi: u32, direction: Direction, packets: u64, age: u64) {
        let key = flow_key(peer, spi, Class::Esp, direction, SERVICE);
        let seen = (START - age) << 32 | 1;
        insert(
            &self.flows,
            key,
            &[(flow::PACKETS, packets), (flow::SEEN, seen)],
        );
        Word::add(&self.meta[FLOW_ENTRIES], 1);
    }

    /// A session with the server's last message `age` seconds before the start.
    fn session(&self, peer: [u8; 4], age: u64, spis: u64) {
        let words = [(session::LAST_SEEN, START - age), (session::SPIS, spis)];
        insert(&self.sessions, session_key(peer, SERVICE), &words);
        Word::add(&self.meta[meta::SESSION_ENTRIES], 1);
    }

    /// Passes of so many seconds.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            let words = TableWords {
                flows: self.flows.arrays(),
                sessions: self.sessions.arrays(),
                meta: &self.meta,
                secret: &SECRET,
            };
            let grace = || {
                self.graces.set(self.graces.get() + 1);
                Ok(())
            };
            let freed = self.expiry.pass_at(self.now, words, grace);
            freed.expect("the grace period never fails");
            self.now += 1;
        }
    }

    /// As after so many seconds in which no daemon ran.
    fn sleep(&mut self, seconds: u64) {
        self.now += seconds;
    }

    fn is_there(&self, spi: u32) -> bool {
        let mut flows = self.flows.arrays().iter().filter_map(table::snapshot);
        flows.any(|flow| flow.spi() == spi)
    }

    fn has_session(&self, peer: [u8; 4]) -> bool {
        let mut sessions = self.sessions.arrays().iter().filter_map(table::snapshot);
        sessions.any(|session| session.peer() == Some(peer))
    }

    fn send(&self, spi: u32) {
        let is_it =
            |slot: &Halves<'_, _>| table::snapshot(*slot).is_some_and(|flow| flow.spi() == spi);
        let slot = self.flows.arrays().iter().find(is_it);
        let slot = slot.expect("the flow is there").hot;
        Word::add(&slot[flow::PACKETS], 1);
        Word::store(&slot[flow::SEEN], self.now << 32 | 1);
    }
}

use Direction::{Inbound, Outbound};

/// In which any entry is visited.
const SWEEP: u64 = SLICES as u64;

#[test]
fn slices_are_all_of_a_table_once() {
    for slots in [64, 256, 1 << 20] {
        let all: Vec<usize> = (0..SLICES)
            .flat_map(|number| slice(slots, number))
            .collect();
        assert!(all.into_iter().eq(0..slots));
    }
}

#[test]
fn an_old_flow_goes_into_the_retired_totals() {
    let mut world = World::new();
    world.session(B, 0, 0);
    world.flow(B, 0x1000, Outbound, 100, 0);
    world.flow(B, 0x2000, Outbound, 100, 3601);
    world.run(SWEEP);
    assert!(world.is_there(0x1000) && !world.is_there(0x2000));
    assert_eq!(retired::read(&world.meta).esp[1].packets, 100);
    assert_eq!(Word::load(&world.meta[FLOW_ENTRIES]), 1);
    assert_eq!(
        world.graces.get(),
        1,
        "one for each slice that had an old entry"
    );
}

#[test]
fn a_silent_flow_of_a_live_session_stays_an_hour() {
    let mut world = World::new();
    world.flow(A, 0x1000, Outbound, 100, 0);
    world.flow(A, 0x2000, Outbound, 100, 3000);
    world.flow(A, 0x3000, Outbound, 100, 3601);
    world.session(A, 2000, 0);
    world.run(SWEEP);
    assert!(world.is_there(0x1000) && world.is_there(0x2000) && !world.is_there(0x3000));
    // The busy flow keeps the session, and so the silent one.
    for _ in 0..5 {
        world.run(100);
        world.send(0x1000);
    }
    assert!(world.has_session(A) && world.is_there(0x2000));
    world.run(101 + SWEEP);
    assert!(!world.is_there(0x2000), "after an hour");
}

#[test]
fn a_silent_session_goes_with_all_its_flows() {
    let mut world = World::new();
    world.flow(A, 0x1000, Inbound, 100, 100);
    world.flow(A, 0x2000, Outbound, 100, 200);
    world.session(A, 2000, 1 << 32 | 1);
    world.flow(B, 0x3000, Outbound, 100, 0);
    world.session(B, 0, 0);
    world.run(2 * SWEEP);
    assert!(world.has_session(A));
    world.run(IDLE - 100);
    assert!(!world.has_session(A) && world.has_session(B));
    world.run(SWEEP);
    assert!(!world.is_there(0x1000) && !world.is_there(0x2000) && world.is_there(0x3000));
}

/// Peers enough that some have their session in an earlier slice than their flow, and some in a
/// later one.
fn peers() -> impl Iterator<Item = ([u8; 4], u32)> {
    (1..=40).map(|number| ([198, 51, 100, number], 0x1000 + u32::from(number)))
}

/// A packet just before the session's turn counts, also in a flow that had been silent for almost
/// the idle time when it was visited.
#[test]
fn no_session_goes_whose_flow_had_a_packet_within_the_idle_time() {
    for second in 0..SWEEP {
        let mut world = World::new();
        for (peer, spi) in peers() {
            world.session(peer, IDLE - SWEEP, 0);
            world.flow(peer, spi, Outbound, 100, IDLE - SWEEP);
        }
        world.run(second);
        for (_, spi) in peers() {
            world.send(spi);
        }
        world.run(IDLE);
        for (peer, _) in peers() {
            assert!(
                world.has_session(peer),
                "{peer:?}, a packet after {second} s"
            );
        }
    }
}

/// The flows have not been visited for an hour, so nothing is known about the sessions.
#[test]
fn a_daemon_that_comes_back_expires_no_live_session() {
    for running_before in [0, 5, 40] {
        let mut world = World::new();
        for (peer, spi) in peers() {
            world.flow(peer, spi, Outbound, 100, 0);
            world.session(peer, 0, 0);
        }
        world.run(running_before);
        world.sleep(3600);
        for (_, spi) in peers() {
            world.send(spi);
        }
        world.run(3 * SWEEP);
        for (peer, spi) in peers() {
            assert!(world.has_session(peer) && world.is_there(spi), "{peer:?}");
        }
    }
}

#[test]
fn the_servers_word_is_never_replaced_by_an_older_one() {
    let mut world = World::new();
    world.flow(A, 0x1000, Outbound, 100, 50);
    world.session(A, 10, 0);
    world.run(SWEEP);
    let mut sessions = world.sessions.arrays().iter();
    let live = sessions.find_map(table::snapshot).expect("the session");
    assert_eq!(live.hot[session::LAST_SEEN], START - 10);
}

#[test]
fn an_spi_with_few_packets_stays_while_there_is_room() {
    let mut world = World::new();
    world.flow(A, 0x1000, Inbound, 1, 11);
    world.session(A, 0, 1);
    world.run(100);
    assert!(world.is_there(0x1000));
}

#[test]
fn in_a_table_that_fills_up_an_spi_with_few_packets_goes() {
    let mut world = World::new();
    world.flow(A, 0x1000, Inbound, 2, 11);
    world.flow(A, 0x2000, Inbound, 3, 11);
    world.flow(A, 0x3000, Outbound, 1, 11);
    world.session(A, 0, 2);
    // Half of the slots may be in use at most, and half of these are.
    let half = (BUCKETS * WAYS / 4) as u64;
    Word::store(&world.meta[FLOW_ENTRIES], half);
    world.run(SWEEP);
    assert!(world.is_there(0x1000), "exactly half");
    Word::store(&world.meta[FLOW_ENTRIES], half + 1);
    world.run(SWEEP);
    assert!(!world.is_there(0x1000) && world.is_there(0x2000) && world.is_there(0x3000));
}

#[test]
fn in_a_session_that_fills_up_an_spi_with_few_packets_goes() {
    let mut world = World::new();
    world.flow(A, 0x1000, Inbound, 2, 11);
    world.flow(A, 0x2000, Inbound, 2, 0);
    // With one SPI of the server twelve are allowed.
    world.session(A, 0, 1 << 32 | 5);
    world.run(SWEEP);
    assert!(world.is_there(0x1000), "less than half are in use");
    let mut world = World::new();
    world.flow(A, 0x1000, Inbound, 2, 11);
    world.flow(A, 0x2000, Inbound, 2, 0);
    world.session(A, 0, 1 << 32 | 6);
    world.run(5);
    assert!(world.is_there(0x2000), "not within ten seconds");
    world.run(SWEEP);
    assert!(!world.is_there(0x1000));
}

/// What waits for its grace period has a place that was allocated before.
#[test]
fn a_table_of_which_everything_is_old_needs_no_more_memory() {
    let mut world = World::new();
    world.flows = TestTable::new(1 << 15);
    let flows = world.flows.arrays();
    let mask = (1 << 15) - 1;
    for number in 0..1_u32 << 16 {
        let key = flow_key(A, 0x1000 + number, Class::Esp, Outbound, SERVICE);
        let place = Place::new(digest_key(&SECRET, &key), mask);
        table::insert(&flows, place, &key, |slot| {
            Word::store(&slot.hot[flow::SEEN], (START - IDLE - 1) << 32);
        });
    }
    let room = (
        world.expiry.retiring.flows.capacity(),
        world.expiry.retiring.sessions.capacity(),
    );
    world.run(SWEEP);
    let now = (
        world.expiry.retiring.flows.capacity(),
        world.expiry.retiring.sessions.capacity(),
    );
    assert_eq!(room, now);
    let freed = retired::read(&world.meta).flows;
    assert!(freed > 65_000, "{freed} of 65,536");
    let left = world.flows.arrays().iter().find_map(table::snapshot);
    assert_eq!(left, None);
}

#[path = "expiry_forged_tests.rs"]
mod forged;
