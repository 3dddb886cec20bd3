//! Which entry of a bucket of PIN gives way to a new one.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use xdp_common::limits::PIN_CONNECTION_TICKS;
use xdp_common::slot::recent::{DETAILS, DIGEST, WORDS};
use xdp_common::slot::{WAYS, pin};
use xdp_core::conntrack::places::{Own, put};
use xdp_core::table::recent::{Bucket, named};
use xdp_core::table::word::Word;

const TICK: u16 = 60_000;
const PROVEN: u64 = pin::PROVEN | pin::EXISTS;

/// A bucket with a clock.
struct World {
    bucket: Bucket<AtomicU64>,
    tick: u16,
}

impl World {
    fn new() -> Self {
        Self {
            bucket: std::array::from_fn(|_| AtomicU64::new(0)),
            tick: TICK,
        }
    }

    /// Writes the entry of a number, whose digest chooses way 0 among equally old ones.
    fn put(&self, number: u64, word: u64) {
        let fresh = named(3 << 62 | number << 16, self.tick);
        put(&self.bucket, fresh, [number, number + 100, word]);
    }

    /// The numbers of the entries, way by way.
    fn numbers(&self) -> [u64; WAYS] {
        std::array::from_fn(|way| {
            let [digest, owner, spi] = [DIGEST, DETAILS, DETAILS + 1]
                .map(|at| self.bucket[way * WORDS + at].load(Ordering::Relaxed));
            let number = digest << 2 >> 18;
            assert_eq!(
                (owner, spi),
                (number, if number == 0 { 0 } else { number + 100 })
            );
            number
        })
    }

    /// A bucket with two connections that are proven, 1 and 2, and two claims, 3 and 4, each a tick later.
    fn full() -> Self {
        let mut world = Self::new();
        for (number, word) in [(1, PROVEN), (2, PROVEN), (3, pin::EXISTS), (4, pin::EXISTS)] {
            world.put(number, word);
            world.tick += 1;
        }
        assert_eq!(world.numbers(), [1, 2, 3, 4]);
        world
    }
}

#[test]
fn empty_places_come_first_and_its_own_before_them() {
    let mut world = World::new();
    for number in [1, 2, 1, 3, 2, 1] {
        world.put(number, pin::EXISTS);
        world.tick += 1;
    }
    assert_eq!(world.numbers(), [1, 2, 3, 0]);
}

#[test]
fn claims_displace_the_oldest_claim_and_nothing_proven() {
    let mut world = World::full();
    for number in 5..9 {
        world.put(number, pin::EXISTS);
        world.tick += 1;
    }
    assert_eq!(world.numbers(), [1, 2, 7, 8]);
}

#[test]
fn a_proven_one_displaces_the_oldest_proven_one_and_no_claim_of_the_other_ways() {
    let mut world = World::full();
    world.put(5, PROVEN);
    world.tick += 1;
    assert_eq!(world.numbers(), [5, 2, 3, 4]);
    world.put(6, PROVEN);
    assert_eq!(world.numbers(), [5, 6, 3, 4]);
}

/// An old proven one stays before a young claim in the ways of the proven.
#[test]
fn a_proven_one_displaces_a_claim_before_a_proven_one() {
    let mut world = World::new();
    world.put(1, PROVEN);
    world.tick += 1;
    for number in [2, 3, 4] {
        world.put(number, pin::EXISTS);
        world.tick += 1;
    }
    world.put(5, PROVEN);
    assert_eq!(world.numbers(), [1, 5, 3, 4]);
}

/// The two that are not displaced by claims are those that were proven, or have sent, last. The others stay as long
/// as nothing claims their place.
#[test]
fn a_claim_that_is_proven_changes_places_with_the_oldest_proven_one() {
    let mut world = World::full();
    world.put(3, PROVEN);
    world.tick += 1;
    assert_eq!(world.numbers(), [3, 2, 1, 4]);
    world.put(4, PROVEN);
    world.tick += 1;
    assert_eq!(world.numbers(), [3, 4, 1, 2]);
    world.put(5, pin::EXISTS);
    assert_eq!(world.numbers(), [3, 4, 5, 2]);
    let word = Own::read(&world.bucket, named(3 << 62 | 2 << 16, world.tick), 2).before;
    assert_eq!(word, PROVEN, "it is what it was");
}

#[test]
fn a_proven_one_that_is_too_old_gives_way_to_a_claim() {
    let mut world = World::full();
    // The second one is of the tick after the first one's.
    world.tick = (TICK + 1).wrapping_add(PIN_CONNECTION_TICKS);
    world.put(5, pin::EXISTS);
    assert_eq!(world.numbers(), [5, 2, 3, 4], "the first one alone is");
    world.put(6, pin::EXISTS);
    assert_eq!(world.numbers(), [5, 2, 6, 4]);
}

/// 16 bits of ticks come round in 18 hours.
#[test]
fn the_oldest_is_found_when_the_clock_has_come_round() {
    let mut world = World::new();
    world.tick = u16::MAX - 2;
    for number in 1..=5 {
        world.put(number, pin::EXISTS);
        world.tick = world.tick.wrapping_add(1);
    }
    assert_eq!(world.numbers(), [5, 2, 3, 4]);
}

/// In a bucket of entries of one tick the digest chooses, so that no place is everybody's.
#[test]
fn of_equally_old_ones_the_digest_chooses() {
    let chosen = [0_u64, 1, 2, 3].map(|tie| {
        let world = World::new();
        for number in 1..=4 {
            world.put(number, pin::EXISTS);
        }
        let fresh = named(tie << 62 | 9 << 16, world.tick);
        put(&world.bucket, fresh, [0, 0, pin::EXISTS]);
        let is_new =
            |way: &usize| world.bucket[way * WORDS + DIGEST].load(Ordering::Relaxed) == fresh;
        (0..WAYS).find(is_new).expect("it has a place")
    });
    let mut places = chosen;
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3]);
}

/// An entry is that of a connection only if its owner is the same: the digest has 48 bits.
#[test]
fn an_entry_of_another_owner_is_not_read() {
    let world = World::full();
    let fresh = named(3 << 62 | 2 << 16, world.tick);
    let read = |owner| Own::read(&world.bucket, fresh, owner).before;
    assert_eq!([read(2), read(1), read(2 + (1 << 63))], [PROVEN, 0, 0]);
}

/// Another CPU writes between reading an entry and writing it.
#[test]
fn what_another_cpu_has_written_since_an_entry_was_read_stays() {
    const SENT: u64 = pin::EXISTS | pin::SENT;
    let words = |world: &World| world.bucket.each_ref().map(Word::load);
    for refreshes in [false, true] {
        // Its place has another owner.
        let world = World::full();
        let later = named(3 << 62 | 3 << 16, world.tick);
        let own = Own::read(&world.bucket, later, 3);
        assert_eq!(own.before, pin::EXISTS);
        world.put(5, pin::EXISTS);
        let there = words(&world);
        assert!(own.update(&world.bucket, later, 3, (SENT, refreshes)));
        assert_eq!(words(&world), there, "{refreshes}");
        assert_eq!(world.numbers(), [1, 2, 5, 4]);
        // It is proven.
        let world = World::new();
        world.put(1, pin::EXISTS);
        let later = named(3 << 62 | 1 << 16, world.tick + 1);
        let own = Own::read(&world.bucket, later, 1);
        Word::store(&world.bucket[DETAILS + 2], PROVEN);
        let mut there = words(&world);
        assert!(own.update(&world.bucket, later, 1, (SENT, refreshes)));
        there[DIGEST] += u64::from(refreshes);
        assert_eq!(words(&world), there, "{refreshes}");
    }
}

/// A word of a bucket, which another CPU changes after a number of loads of any of them.
struct Racing(AtomicU64);

thread_local! {
    static LOADS: Cell<usize> = const { Cell::new(0) };
}

/// Of each way, its word with the digest and its last one.
const LOADS_OF_RANKING: usize = 2 * WAYS;

impl Word for Racing {
    fn load(&self) -> u64 {
        LOADS.set(LOADS.get() + 1);
        let word = Word::load(&self.0);
        let is_proven_now = LOADS.get() == LOADS_OF_RANKING + 2;
        if is_proven_now {
            word | pin::PROVEN
        } else {
            word
        }
    }
    fn store(&self, value: u64) {
        Word::store(&self.0, value);
    }
    fn add(&self, value: u64) {
        Word::add(&self.0, value);
    }
    fn replace(&self, old: u64, new: u64) -> bool {
        Word::replace(&self.0, old, new)
    }
    fn publish(&self, value: u64) {
        Word::publish(&self.0, value);
    }
}

#[test]
fn what_is_proven_while_another_cpu_looks_for_a_place_stays() {
    let words: [u64; WAYS * WORDS] = std::array::from_fn(|at| {
        let number = [1, 2, 3, 4][at / WORDS];
        match at % WORDS {
            DIGEST => named(3 << 62 | u64::from(number) << 16, TICK + number),
            DETAILS => number.into(),
            _ => 0,
        }
    });
    let bucket: Bucket<Racing> = words.map(|word| Racing(AtomicU64::new(word)));
    let fresh = named(3 << 62 | 9 << 16, TICK + 9);
    let owners = || [0, 1, 2, 3].map(|way| Word::load(&bucket[way * WORDS + DETAILS].0));
    put(&bucket, fresh, [9, 0, pin::EXISTS]);
    assert_eq!(owners(), [1, 2, 3, 4], "the first one was proven meanwhile");
    put(&bucket, fresh, [9, 0, pin::EXISTS]);
    assert_eq!(owners(), [9, 2, 3, 4]);
}
