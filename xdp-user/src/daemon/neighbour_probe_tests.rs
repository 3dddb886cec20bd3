use super::*;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};

const ROUTER: NeighbourKey = (3, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)));

/// A neighbour table with one neighbour, to which packets are sent all the time.
struct Table {
    answers_unicast: bool,
    answers_broadcast: bool,
    now: RefCell<Neighbour>,
    probes: RefCell<u32>,
}

impl Table {
    fn new(answers_unicast: bool, answers_broadcast: bool) -> Self {
        Self {
            answers_unicast,
            answers_broadcast,
            now: RefCell::new(Neighbour::Resolved),
            probes: RefCell::new(0),
        }
    }
}

impl Arp for Table {
    fn state(&self, _: NeighbourKey) -> Option<Neighbour> {
        Some(*self.now.borrow())
    }
    fn probe(&self, _: NeighbourKey) -> bool {
        *self.probes.borrow_mut() += 1;
        if !self.answers_unicast {
            self.now.replace(Neighbour::Probing);
        }
        true
    }
    fn delete(&self, _: NeighbourKey) -> bool {
        self.now.replace(if self.answers_broadcast {
            Neighbour::Resolved
        } else {
            Neighbour::Failed
        });
        true
    }
}

/// Passes a second apart: the second and the report of each that has one.
fn run(
    prober: &mut Prober,
    table: &Table,
    from: Instant,
    seconds: std::ops::Range<u64>,
) -> Vec<(u64, Silence)> {
    seconds
        .flat_map(|second| {
            let now = from + Duration::from_secs(second);
            let said = prober.pass(&[ROUTER], table, now);
            said.into_iter().map(move |(_, said)| (second, said))
        })
        .collect()
}

#[test]
fn a_neighbour_that_answers_is_probed_each_second() {
    let table = Table::new(true, true);
    let said = run(&mut Prober::default(), &table, Instant::now(), 0..100);
    assert_eq!(said, []);
    assert_eq!(*table.probes.borrow(), 100);
}

#[test]
fn one_that_answers_broadcasts_only_is_left_alone_after_three_rounds() {
    let (table, mut prober, start) = (Table::new(false, true), Prober::default(), Instant::now());
    let said = run(&mut prober, &table, start, 0..100);
    assert_eq!(said, [(1, Silence::NoReply), (6, Silence::BroadcastsOnly)]);
    assert_eq!(*table.probes.borrow(), 3);
    // Once in a pause it is tried, and nothing new is said.
    let said = run(&mut prober, &table, start, 100..1000);
    assert_eq!(said, []);
    assert_eq!(*table.probes.borrow(), 6);
}

#[test]
fn one_that_answers_again_is_probed_again() {
    let (mut table, mut prober, start) =
        (Table::new(false, true), Prober::default(), Instant::now());
    run(&mut prober, &table, start, 0..10);
    table.answers_unicast = true;
    assert_eq!(run(&mut prober, &table, start, 10..400), []);
    assert_eq!(*table.probes.borrow(), 3 + 94, "from second 306 on");
    // Then it counts from one again.
    table.answers_unicast = false;
    let said = run(&mut prober, &table, start, 400..420);
    let pause = (406, Silence::BroadcastsOnly);
    assert_eq!(said.last(), Some(&pause), "{said:?}");
}

#[test]
fn one_that_is_dead_is_reported_once_and_is_not_deaf() {
    let (table, mut prober, start) = (Table::new(false, false), Prober::default(), Instant::now());
    let said = run(&mut prober, &table, start, 0..3);
    assert_eq!(said, [(1, Silence::NoReply)]);
    for second in 1..58 {
        // It comes back for a moment each time.
        table.now.replace(Neighbour::Resolved);
        run(&mut prober, &table, start, second * 3..second * 3 + 3);
    }
    assert_eq!(*table.probes.borrow(), 1 + 57);
}

#[test]
fn what_is_not_used_is_forgotten_except_for_its_pause() {
    let (table, mut prober, start) = (Table::new(false, true), Prober::default(), Instant::now());
    run(&mut prober, &table, start, 0..10);
    let at = |second| start + Duration::from_secs(second);
    assert_eq!(prober.pass(&[], &table, at(11)), []);
    assert_eq!(prober.pass(&[ROUTER], &table, at(12)), []);
    assert_eq!(*table.probes.borrow(), 3, "it is paused");
    prober.pass(&[], &table, at(400));
    assert!(prober.asked.is_empty());
}
