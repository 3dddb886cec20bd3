//! Tests of what a removed service or VIP leaves, with tables filled by hand and a clock of their own.

use super::*;
use crate::config::services::Service;
use crate::error::Error;
use crate::tables::clock::Moment;
use crate::tables::retired;
use crate::tables::services::{Records, ServiceRecord};
use crate::tables::test_table::TestTable;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use xdp_common::meta::{FLOW_ENTRIES, SESSION_ENTRIES, server_hop};
use xdp_common::services::{NUMBERS, service, vip};
use xdp_common::slot::recent::BUCKET_WORDS;
use xdp_common::slot::{Key, flow_key, host_peer, session_key};
use xdp_common::{Class, Direction, Secret, Vip};
use xdp_core::table::hash::{digest_key, host_peer_digest};
use xdp_core::table::{self, Place, recent};

#[path = "removal_small_tests.rs"]
mod small_tables;

const SECRET: Secret = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59];
const BUCKETS: usize = 64;
/// Late enough for every age.
const START: u64 = 100_000;
const A: &str = "a:203.0.113.1=192.168.0.1";
const B: &str = "b:203.0.113.2=192.168.0.2";
const C: &str = "c:203.0.113.3,203.0.113.4=192.168.0.3";

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn buckets() -> Vec<Bucket<AtomicU64>> {
    let bucket = |_| std::array::from_fn::<_, BUCKET_WORDS, _>(|_| AtomicU64::new(0));
    (0..SLICES).map(bucket).collect()
}

struct World {
    flows: TestTable<AtomicU64>,
    sessions: TestTable<AtomicU64>,
    meta: Vec<AtomicU64>,
    services: Vec<AtomicU64>,
    vips: Vec<AtomicU64>,
    /// HALF, PIN, FRAGMENT, HOSTPEER.
    small: [Vec<Bucket<AtomicU64>>; 4],
    removal: Removal,
    tick: u64,
    graces: Cell<u32>,
}

fn removal(config: &Config) -> Removal {
    let anchor = Moment {
        jiffies: 0,
        monotonic: 0,
    };
    Removal::new(Clock::new(1, anchor), config)
}

/// Programs whose constants have none of the numbers of a test.
fn programs(service: u16, number: u16) -> Config {
    let mut config = Config {
        several_vips: 1,
        ..bytemuck::Zeroable::zeroed()
    };
    config.vips.vips[usize::from(number)] = Vip {
        address: [203, 0, 113, 200],
        service,
        number,
        ..Vip::default()
    };
    config
}

impl World {
    fn new(services: &[&str]) -> Self {
        let world = Self {
            flows: TestTable::new(BUCKETS),
            sessions: TestTable::new(BUCKETS),
            meta: words(meta::WORDS),
            services: words(NUMBERS as usize * service::WORDS),
            vips: words(NUMBERS as usize * vip::WORDS),
            small: std::array::from_fn(|_| buckets()),
            removal: removal(&programs(500, 500)),
            tick: START,
            graces: Cell::new(0),
        };
        world.configure(services);
        world
    }

    fn records(&self) -> Records {
        Records::decode(&self.services, &self.vips)
    }

    /// A start with these services.
    fn configure(&self, texts: &[&str]) {
        let service = |text: &&str| -> Service { text.parse().expect(text) };
        let services: Vec<ServiceRecord> = texts
            .iter()
            .map(|text| ServiceRecord::of(&service(text)))
            .collect();
        let records = self.records();
        let next = records.next(&services, "").expect("there are numbers");
        next.encode(&self.services, &self.vips);
    }

    fn words(&self) -> TableWords<'_, AtomicU64> {
        TableWords {
            flows: self.flows.arrays(),
            sessions: self.sessions.arrays(),
            meta: &self.meta,
            secret: &SECRET,
        }
    }

    fn small(&self) -> SmallTables<'_, AtomicU64> {
        let [halves, pins, fragments, host_peers] = &self.small;
        SmallTables {
            services: &self.services,
            vips: &self.vips,
            halves,
            pins,
            fragments,
            host_peers,
        }
    }

    fn insert(&self, table: &TestTable<AtomicU64>, key: Key, rest: &[(usize, u64)]) {
        let table = table.arrays();
        let place = Place::new(digest_key(&SECRET, &key), table.mask().expect("buckets"));
        let inserted = table::insert(&table, place, &key, |slot| {
            for (at, value) in rest {
                Word::store(&slot.hot[*at], *value);
            }
        });
        assert!(inserted.is_some());
    }

    /// A session with one flow of ten packets, of this service and VIP.
    fn peer(&self, last: u8, service: u16, vip: u16) {
        let (peer, spi) = ([198, 51, 100, last], 0x1000 + u32::from(last));
        let key = flow_key(peer, spi, Class::EspInUdp, Direction::Outbound, service);
        let own = u64::from(key.spi) << 32 | u64::from(vip);
        let rest = [
            (SPI_VIP, own),
            (flow::PACKETS, 10),
            (flow::BYTES, 100),
            (flow::HOP, 7),
        ];
        self.insert(&self.flows, key, &rest);
        let pin = session::proven_pin(vip);
        let rest = [
            (session::PIN, pin),
            (session::SPIS, 1 << 32),
            (session::HOP, 7),
        ];
        self.insert(&self.sessions, session_key(peer, service), &rest);
        Word::add(&self.meta[FLOW_ENTRIES], 1);
        Word::add(&self.meta[SESSION_ENTRIES], 1);
    }

    fn pass(&mut self) -> Removed {
        self.tick += 1;
        let mut removal = std::mem::replace(&mut self.removal, removal(&programs(500, 500)));
        let grace = || {
            self.graces.set(self.graces.get() + 1);
            Ok(())
        };
        let removed = removal.pass_at(self.tick, self.words(), self.small(), grace);
        self.removal = removal;
        removed.expect("a grace period")
    }

    /// Passes until numbers are free: how many, and after how many ticks.
    fn until_free(&mut self) -> (usize, u64) {
        let began = self.tick;
        for _ in 0..SECONDS {
            let removed = self.pass();
            if removed.numbers > 0 {
                return (removed.numbers, self.tick - began);
            }
        }
        (0, self.tick - began)
    }

    /// Peer, service and VIP of each flow.
    fn flows(&self) -> Vec<(u8, u16, u16)> {
        let table = self.flows.arrays();
        let live = table.iter().filter_map(table::snapshot);
        let mut found: Vec<_> = live
            .map(|flow| {
                let [.., last] = flow.peer().expect("IPv4");
                let vip = slot::vip(flow.hot[SPI_VIP]);
                (last, slot::service(flow.hot[STATE]), vip)
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Packets of flows and retired ones together.
    fn packets(&self) -> u64 {
        let table = self.flows.arrays();
        let live = table.iter().filter_map(table::snapshot);
        let tracked: u64 = live.map(|flow| flow.hot[flow::PACKETS]).sum();
        let retired = retired::read(&self.meta).esp;
        tracked + retired.iter().map(|amount| amount.packets).sum::<u64>()
    }

    fn pins(&self) -> Vec<Option<u16>> {
        let table = self.sessions.arrays();
        let live = table.iter().filter_map(table::snapshot);
        live.map(|one| session::pinned(one.hot[session::PIN]))
            .collect()
    }
}

#[test]
fn entries_of_a_removed_service_go_and_those_of_others_stay() {
    let mut world = World::new(&[A, B, C]);
    for last in 0..30 {
        world.peer(last, u16::from(last % 3), u16::from(last % 3));
    }
    Word::store(&world.meta[server_hop(1)], 7);
    let stays: Vec<_> = world
        .flows()
        .into_iter()
        .filter(|flow| flow.1 != 1)
        .collect();
    world.configure(&[A, C]);
    let (freed, ticks) = world.until_free();
    // The service and its VIP, after the programs of before cannot matter any more.
    assert_eq!(freed, 2);
    assert!(ticks >= HOLD, "{ticks}");
    assert_eq!(world.flows(), stays);
    assert_eq!(world.pins().len(), 20);
    assert_eq!(world.packets(), 300);
    let numbers = [FLOW_ENTRIES, SESSION_ENTRIES].map(|word| Word::load(&world.meta[word]));
    assert_eq!(numbers, [20, 20]);
    assert_eq!(Word::load(&world.meta[server_hop(1)]), 0);
    let totals = retired::read(&world.meta);
    assert_eq!((totals.flows, totals.sessions), (10, 10));
    // The next one gets the numbers.
    world.configure(&[A, C, "d:203.0.113.9=192.168.0.9"]);
    let going = Numbers::going(&world.services, &world.vips);
    assert!(going.is_empty());
    assert_eq!(world.records().current()[1].name, "d");
}

#[test]
fn a_removed_vip_is_forgotten_and_sessions_live() {
    let mut world = World::new(&[C]);
    for last in 0..4 {
        world.peer(last, 0, u16::from(last % 2));
    }
    world.configure(&["c:203.0.113.4=192.168.0.3"]);
    let (freed, _) = world.until_free();
    assert_eq!(freed, 1);
    let flows = [(0, 0, NO_VIP), (1, 0, 1), (2, 0, NO_VIP), (3, 0, 1)];
    assert_eq!(world.flows(), flows);
    let mut pins = world.pins();
    pins.sort_unstable();
    assert_eq!(pins, [None, None, Some(1), Some(1)]);
    for slot in world.flows.arrays().hot() {
        let hop = Word::load(&slot[flow::HOP]);
        assert_eq!(hop != 0, slot::vip(Word::load(&slot[SPI_VIP])) == 1);
    }
    assert_eq!(world.packets(), 40);
}

#[test]
fn a_service_that_comes_back_keeps_what_it_has() {
    let mut world = World::new(&[A, B]);
    for last in 0..20 {
        world.peer(last, 1, 1);
    }
    world.configure(&[A]);
    world.pass();
    let left = world.flows();
    // Some are gone already, with the first slice; the totals have them.
    assert!(!left.is_empty());
    world.configure(&[A, B]);
    // Another daemon: the one before has ended for this start.
    world.removal = removal(&programs(500, 500));
    assert_eq!(world.until_free().0, 0);
    assert_eq!((world.flows(), world.packets()), (left, 200));
    assert_eq!(world.records().current().len(), 2);
}

#[test]
fn the_next_daemon_goes_on() {
    let mut world = World::new(&[A, B]);
    for last in 0..20 {
        world.peer(last, 1, 1);
    }
    world.configure(&[A]);
    for _ in 0..HOLD {
        world.pass();
    }
    // It died before the number was free, and the next one waits again.
    world.removal = removal(&programs(500, 500));
    let (freed, ticks) = world.until_free();
    assert!(freed == 2 && ticks >= HOLD, "{freed} after {ticks}");
    assert_eq!((world.flows(), world.packets()), (Vec::new(), 200));
}

#[test]
fn a_number_in_the_constants_of_programs_is_not_touched() {
    let mut world = World::new(&[A, B]);
    world.peer(0, 0, 0);
    world.peer(1, 1, 1);
    world.configure(&[B]);
    // The programs for one VIP write zeros, whatever number its record has.
    let one: Config = bytemuck::Zeroable::zeroed();
    for config in [one, programs(0, 0)] {
        world.removal = removal(&config);
        assert_eq!(world.until_free().0, 0);
        assert_eq!(world.flows(), [(0, 0, 0), (1, 1, 1)]);
    }
}

#[test]
fn nothing_is_touched_before_a_grace_period() {
    let mut world = World::new(&[A, B]);
    world.peer(1, 1, 1);
    world.pass();
    assert_eq!(world.graces.get(), 0, "nothing is going");
    world.configure(&[A]);
    let mut other = removal(&programs(500, 500));
    let refuse = || Err(Error::system("wait")(std::io::ErrorKind::Other.into()));
    other
        .pass_at(START, world.words(), world.small(), refuse)
        .expect_err("no grace period");
    assert_eq!(world.flows(), [(1, 1, 1)]);
    world.pass();
    assert!(world.graces.get() >= 1);
}

#[test]
fn two_thousand_changes_of_the_vip_one_after_the_other_use_up_no_number() {
    let mut world = World::new(&[A]);
    for change in 0..2000_u32 {
        let [_, _, high, low] = (change + 1).to_be_bytes();
        let text = format!("a:198.18.{high}.{low}=192.168.0.1");
        world.configure(&[&text]);
        // Each is a start of another daemon.
        world.removal = removal(&programs(500, 500));
        world.until_free();
    }
    assert!(Numbers::going(&world.services, &world.vips).is_empty());
}
