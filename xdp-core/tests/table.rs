//! Single-threaded tests of the table on the host: against a model, under Miri, and at every load.

#![cfg(not(loom))]

#[path = "support/owned.rs"]
mod owned;
#[path = "support/traced.rs"]
mod traced;

use owned::Owned;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use traced::{Traced, traced, writes};
use xdp_common::slot::{self, Key, NUMBER, STATE, WAYS, WORDS, flow_key};
use xdp_common::{Class, Direction};
use xdp_core::Word;
use xdp_core::table::hash::digest_key;
use xdp_core::table::{self, Halves, Place, State};

/// A counter in the hot half ...
const COUNT: usize = slot::flow::PACKETS;
/// ... and one in the cold half.
const COLD_COUNT: usize = slot::flow::REORDERED;

struct Table {
    owned: Owned<AtomicU64>,
    secret: xdp_common::Secret,
}

fn secret(seed: u64) -> xdp_common::Secret {
    let mut state = seed;
    std::array::from_fn(|_| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

impl Table {
    fn new(buckets: usize, seed: u64) -> Self {
        Self {
            owned: Owned::new(buckets, AtomicU64::default),
            secret: secret(seed),
        }
    }

    fn place(&self, key: &Key) -> Place {
        let mask = self.owned.arrays().mask().expect("a bucket");
        Place::new(digest_key(&self.secret, key), mask)
    }

    /// The steps of the dataplane for a packet. False: untracked.
    fn count(&self, key: &Key) -> bool {
        if let Some(Halves { hot, cold }) = self.find(key) {
            Word::add(&hot[COUNT], 1);
            Word::add(&cold[COLD_COUNT], 1);
            return true;
        }
        let arrays = self.owned.arrays();
        let inserted = table::insert(&arrays, self.place(key), key, |slot| {
            Word::store(&slot.hot[COUNT], 1);
            Word::store(&slot.cold[COLD_COUNT], 1);
        });
        inserted.is_some()
    }

    /// Both halves of a key's slot: the cold one as the hot one names it.
    fn find(&self, key: &Key) -> Option<Halves<'_, AtomicU64>> {
        let arrays = self.owned.arrays();
        let found = table::find(&arrays, self.place(key), key)?;
        let number = usize::try_from(Word::load(&found[NUMBER])).expect("a number");
        arrays.get(number)
    }

    /// The steps of the daemon for an expired entry. Returns its count, if there was an entry.
    fn retire(&self, key: &Key) -> Option<u64> {
        let slot = self.find(key)?;
        assert!(table::retire(slot.hot, Word::load(&slot.hot[STATE])));
        let words = table::snapshot(slot).expect("a dying slot");
        table::free(slot);
        assert_eq!(words.hot[COUNT], words.cold[COLD_COUNT]);
        Some(words.hot[COUNT])
    }

    fn live(&self) -> HashMap<Key, u64> {
        let mut sums = HashMap::new();
        for words in self.owned.arrays().iter().filter_map(table::snapshot) {
            assert_eq!(words.hot[COUNT], words.cold[COLD_COUNT]);
            *sums.entry(words.key()).or_default() += words.hot[COUNT];
        }
        sums
    }
}

#[derive(Clone, Debug)]
enum Step {
    Count(u64),
    Retire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..40_u64).prop_map(Step::Count),
        1 => (0..40_u64).prop_map(Step::Retire),
    ];
    prop::collection::vec(step, 1..400)
}

fn key(number: u64) -> Key {
    // Four keys per word, which differ in their direction or service.
    let direction = Direction::ALL[usize::from(number & 1 == 1)];
    let service = [0, 0x1ff][usize::from(number & 2 == 2)];
    let spi = low(0x100 + number / 4);
    flow_key([10, 0, 0, 1], spi, Class::Esp, direction, service)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Conservation: every packet is counted in the table, retired, or untracked; each key has only
    /// its own packets.
    #[test]
    fn it_agrees_with_a_map(steps in steps(), seed: u64, size in 0..4_u32) {
        let table = Table::new(1 << size, seed);
        let mut model: HashMap<Key, u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Count(number) => {
                    let known = model.contains_key(&key(number));
                    let counted = table.count(&key(number));
                    prop_assert!(counted || !known, "an entry that exists is always found");
                    if counted {
                        *model.entry(key(number)).or_default() += 1;
                    }
                }
                Step::Retire(number) => {
                    prop_assert_eq!(table.retire(&key(number)), model.remove(&key(number)));
                }
            }
        }
        prop_assert_eq!(table.live(), model);
    }

    /// Both candidate buckets are inside the table, and differ when there are at least two buckets.
    #[test]
    fn every_key_has_two_places(peer: [u8; 4], spi: u32, seed: u64, size in 1..20_u32) {
        let key = flow_key(peer, spi, Class::Esp, Direction::Inbound, 0);
        let place = Place::new(digest_key(&secret(seed), &key), (1 << size) - 1);
        let numbers = place.buckets();
        prop_assert!(numbers[0] != numbers[1] && numbers.iter().all(|n| *n < 1 << size));
    }
}

/// Two keys with the same first bucket have the same second one only if all of their hash is the
/// same.
#[test]
fn every_bit_of_a_hash_decides_about_the_buckets() {
    for hash in [0, u64::MAX, 0xdead_beef_cafe_babe_u64] {
        let step = |hash| {
            let place = Place::new(hash, u32::MAX);
            place.first() ^ place.second()
        };
        for bit in 0..64 {
            let decided = if bit < 32 { (bit + 7) % 32 } else { bit - 32 };
            // The lowest bit is always set, so that the buckets differ.
            let expected = (1 << decided) & !1;
            assert_eq!(step(hash ^ 1 << bit) ^ step(hash), expected, "bit {bit}");
        }
    }
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let table = Table::new(2, 1);
    let counted = (0..100).filter(|n| table.count(&key(*n))).count();
    assert_eq!(counted, 2 * WAYS);
    assert_eq!(table.live().len(), 2 * WAYS);
    assert!(table.live().values().all(|count| *count == 1));
}

#[test]
fn a_freed_slot_is_zero_and_of_the_next_generation() {
    let table = Table::new(1, 1);
    assert!(table.count(&key(7)));
    let Halves { hot, cold } = table.find(&key(7)).expect("a live slot");
    let before = Word::load(&hot[STATE]);
    assert_eq!(table.retire(&key(7)), Some(1));
    assert_eq!(State::of(Word::load(&hot[STATE])), State::Free);
    let mut words = hot[STATE + 1..].iter().chain(cold);
    assert!(words.all(|word| Word::load(word) == 0));
    let generation = |word: u64| word >> 22;
    let free = Word::load(&hot[STATE]);
    assert_eq!(generation(free), generation(before) + 1);
    assert!(table::snapshot(Halves { hot, cold }).is_none());
    assert!(table.count(&key(7)));
    let live = Word::load(&hot[STATE]);
    assert_eq!(State::of(live), State::Live);
    assert_eq!(generation(live), generation(free), "until it is freed");
}

/// The two halves of a slot: the first words, and the rest.
fn halves(words: &[Traced; 2 * WORDS]) -> Halves<'_, Traced> {
    let (halves, _) = words.as_chunks::<WORDS>();
    Halves {
        hot: &halves[0],
        cold: &halves[1],
    }
}

/// A reader that has seen the old state before the zeroes sees another one after them.
#[test]
fn freeing_is_announced_before_the_words_are_zero() {
    let words: [Traced; 2 * WORDS] = traced();
    let slot = halves(&words);
    // Dying, the third of its bucket, of the fifth generation.
    let dying = 5 << 22 | 7 << 13 | 6 << 9 | 2 << 7 | 3;
    slot.hot[STATE].store(dying);
    writes(&words);
    table::free(slot);
    let mut order = writes(&words);
    assert_eq!(order.remove(0), (STATE, dying & !0x7f | 4));
    assert_eq!(order.pop(), Some((STATE, 6 << 22)));
    order.sort_unstable();
    let zeroes: Vec<_> = (STATE + 1..2 * WORDS).map(|at| (at, 0)).collect();
    assert_eq!(order, zeroes, "each word of both halves once");
}

#[test]
fn only_a_retired_slot_is_freed() {
    // Free, claimed, live; dying, and what a killed daemon has begun to free.
    for (state, is_freed) in [(0, false), (1, false), (2, false), (3, true), (4, true)] {
        let words: [Traced; 2 * WORDS] = traced();
        words[STATE].store(5 << 22 | state);
        writes(&words);
        table::free(halves(&words));
        assert_eq!(!writes(&words).is_empty(), is_freed, "{state}");
    }
}

/// A slot may die while it is copied. A copy of a slot that was freed, or that has another life
/// since, is none.
#[test]
fn a_copy_is_of_one_life() {
    let state = |generation: u64, state: u64| generation << 22 | 1 << 9 | state;
    let (claimed, live, dying, freeing) = (1, 2, 3, 4);
    for (before, after, is_one) in [
        (state(5, live), state(5, live), true),
        (state(5, live), state(5, dying), true),
        (state(5, dying), state(5, dying), true),
        (state(5, live), state(5, freeing), false),
        (state(5, dying), state(5, freeing), false),
        (state(5, dying), 6 << 22, false),
        (state(5, live), state(6, claimed), false),
        (state(5, live), state(6, live), false),
        (state(5, live), state(6, dying), false),
        (state(5, claimed), state(5, live), false),
        (5 << 22, 5 << 22, false),
    ] {
        let words: [Traced; 2 * WORDS] = traced();
        words[STATE].store(before);
        words[STATE].later.set(Some(after));
        let copy = table::snapshot(halves(&words));
        assert_eq!(copy.is_some(), is_one, "{before:#x}, {after:#x}");
    }
}

#[test]
fn retiring_asks_for_the_very_state_that_was_seen() {
    let table = Table::new(1, 1);
    assert!(table.count(&key(7)));
    let slot = table.find(&key(7)).expect("an entry").hot;
    let seen = Word::load(&slot[STATE]);
    assert!(!table::retire(slot, seen ^ 0x100), "another generation");
    assert!(table::retire(slot, seen));
    let dying = Word::load(&slot[STATE]);
    assert_eq!(dying & !0x7f, seen & !0x7f, "all but the state stays");
    assert!(!table::retire(slot, seen), "twice");
    assert!(table.find(&key(7)).is_none());
}

/// Every slot's number leads to its own cold half, and each key's words are in both.
#[test]
fn a_hot_half_leads_to_its_own_cold_half() {
    let table = Table::new(4, 3);
    let counted: Vec<u64> = (0..100).filter(|n| table.count(&key(*n))).collect();
    assert!(counted.len() > 8);
    for (number, slot) in table.owned.arrays().iter().enumerate() {
        if let Some(words) = table::snapshot(slot) {
            assert_eq!(words.hot[NUMBER], number as u64);
            assert_eq!(words.peer(), Some([10, 0, 0, 1]));
        }
    }
    for n in counted {
        let found = table::snapshot(table.find(&key(n)).expect("an entry")).expect("live");
        assert_eq!(found.key(), key(n));
        assert_eq!(found.spi(), low(0x100 + n / 4));
        assert_eq!(slot::direction(found.hot[STATE]) as u64, n & 1);
        let service = if n & 2 == 2 { 0x1ff } else { 0 };
        assert_eq!(slot::service(found.hot[STATE]), service);
        assert_eq!(slot::class(found.hot[STATE]), Class::Esp);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn low(word: u64) -> u32 {
    word as u32
}

/// The share of keys that find no slot, at every load up to the limit (one half) and beyond. Random
/// peers and SPIs, and sequential ones, which a weak hash does not spread.
#[test]
#[cfg(not(miri))]
fn up_to_half_load_hardly_a_key_is_left_without_a_slot() {
    const BUCKETS: usize = 1 << 15;
    let slots = 4 << 15_u32;
    for (kind, counted_up) in [("random", false), ("ascending", true)] {
        let table = Table::new(BUCKETS, 42);
        let noise = |n: u64| n.wrapping_mul(0xd134_2543_de82_ef95) ^ n >> 7;
        let mut untracked = 0_u32;
        for number in 0..slots * 9 / 10 {
            let n = u64::from(number);
            let spi = low(if counted_up { n } else { noise(n) });
            let peer = low(if counted_up {
                0x0a00_0000 + n / 4
            } else {
                noise(!n)
            });
            let peer = peer.to_be_bytes();
            let key = flow_key(peer, spi, Class::EspInUdp, Direction::Inbound, 0);
            if !table.count(&key) {
                untracked += 1;
            }
            if (number + 1) % (slots / 10) == 0 {
                let load = f64::from(number + 1) / f64::from(slots);
                println!(
                    "load {load:.1}: {untracked} of {} {kind} keys without a slot",
                    number + 1
                );
                // One in 8,192 at the limit; the measured numbers were zero to three in 65,535.
                assert!(load > 0.45 || untracked == 0);
                assert!(load > 0.55 || untracked <= (number + 1) >> 13);
            }
        }
    }
}
