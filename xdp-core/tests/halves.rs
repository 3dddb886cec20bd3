//! The two halves of a slot where a key alone does not tell: a digest in place of an address, a table
//! without cold halves, and counters that are halves of words.

#![cfg(not(loom))]

#[path = "support/owned.rs"]
mod owned;

use owned::Owned;
use std::sync::atomic::AtomicU64;
use xdp_common::slot::{IPV6, Key};
use xdp_core::Word;
use xdp_core::table::{self, Place};

/// The place of every key in a table of one bucket.
const ANYWHERE: Place = Place::new(0, 0);

/// A key as IPv6 will have it: a digest in place of the address.
fn digest_of(address: [u64; 2], digest: u64, spi: u32) -> Key {
    Key {
        bits: IPV6,
        word: digest,
        spi,
        address,
    }
}

/// Two addresses with one digest: the second one gets no entry, and never that of the first.
#[test]
fn where_the_key_is_a_digest_the_address_is_compared() {
    let [one, other] = [[0x2001_0db8 << 32, 1], [0x2001_0db8 << 32, 2]];
    let table = Owned::new(1, AtomicU64::default);
    let arrays = table.arrays();
    let find = |key: &Key| table::find(&arrays, ANYWHERE, key).is_some();
    let insert = |key: &Key| table::insert(&arrays, ANYWHERE, key, |_| ()).is_some();
    let first = digest_of(one, 0xabc, 0x1000);
    assert!(!find(&first) && insert(&first) && find(&first));
    for address in [other, [0, 1]] {
        let key = digest_of(address, 0xabc, 0x1000);
        assert!(!find(&key) && !insert(&key), "{address:?}");
    }
    // Another SPI or digest is another entry.
    for key in [
        digest_of(other, 0xabc, 0x2000),
        digest_of(other, 0xdef, 0x1000),
    ] {
        assert!(!find(&key) && insert(&key) && find(&key));
    }
    // An IPv4 key with the same word is another one as well.
    let ipv4 = Key {
        bits: 0,
        ..digest_of(one, 0xabc, 0x1000)
    };
    assert!(!find(&ipv4) && insert(&ipv4) && find(&ipv4));
    let keys = arrays
        .iter()
        .filter_map(table::snapshot)
        .map(|words| words.key());
    assert_eq!(keys.filter(|key| *key == first || *key == ipv4).count(), 2);
}

/// A cold half that is missing costs the entry and leaves the slot free.
#[test]
fn without_a_cold_half_nothing_is_inserted() {
    let hot: [table::Bucket<AtomicU64>; 1] = Default::default();
    let arrays = table::Arrays::new(&hot, &[]);
    let key = digest_of([0, 1], 7, 9);
    let inserted = table::insert(&arrays, ANYWHERE, &key, |_| unreachable!());
    assert!(inserted.is_none());
    assert!(
        hot[0]
            .as_flattened()
            .iter()
            .all(|word| Word::load(word) == 0)
    );
}

/// The halves of a word of counters wrap by themselves.
#[test]
fn a_half_that_wraps_does_not_carry_into_the_other() {
    let words = [0, 0x7000_0000_ffff_ffff].map(AtomicU64::new);
    for (half, value, sum) in [
        (2, 2, 0x7000_0000_0000_0001),
        (3, 0x9000_0003, 0x0000_0003_0000_0001),
        (3, u32::MAX, 0x0000_0002_0000_0001),
    ] {
        Word::add_to_half(&words, half, value);
        assert_eq!(words.each_ref().map(Word::load), [0, sum]);
    }
}
