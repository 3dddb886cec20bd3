//! The NEXTHOP table: how an entry is claimed, written, retired and freed, also when another CPU
//! comes in between.

#![cfg(not(loom))]

mod support;
#[path = "support/traced.rs"]
mod traced;

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use support::read_neighbour;
use traced::{traced, writes};
use xdp_common::limits::NEXTHOPS;
use xdp_common::slot::nexthop::{ADDRESS, DESTINATION, KEY, SEQUENCE, SOURCE};
use xdp_core::Word;
use xdp_core::neighbour::table::{Entry, claim, confirmation_due, free, hash, key, retire, write};
use xdp_core::neighbour::{Gateway, Neighbour};

const ROUTER: Neighbour = Neighbour {
    ifindex: 2,
    gateway: Gateway::v4([192, 0, 2, 1]),
    destination: 0x0a01_0000_0002,
    source: 0x0101_0000_0002,
    mtu: 1500,
};

#[test]
fn the_contents_are_written_while_the_sequence_number_is_odd() {
    let entry = traced();
    assert!(claim(&entry, &ROUTER));
    writes(&entry);
    let expected = |destination: u64, sequence: u64| {
        [
            (SEQUENCE, sequence + 1),
            (DESTINATION, 1500 << 48 | destination),
            (SOURCE, ROUTER.source),
            // No IPv6 address.
            (ADDRESS, 0),
            (ADDRESS + 1, 0),
            (SEQUENCE, sequence + 2),
        ]
    };
    write(&entry, &ROUTER);
    assert_eq!(writes(&entry), expected(ROUTER.destination, 0));
    write(&entry, &ROUTER);
    assert_eq!(writes(&entry), [], "nothing has changed");
    let other = Neighbour {
        destination: 0x0b01_0000_0002,
        ..ROUTER
    };
    write(&entry, &other);
    assert_eq!(writes(&entry), expected(other.destination, 2));
    let other = Neighbour {
        source: 0x0201_0000_0002,
        ..other
    };
    write(&entry, &other);
    assert_eq!(writes(&entry).len(), 6, "its own MAC address has changed");
    let other = Neighbour { mtu: 1400, ..other };
    write(&entry, &other);
    assert_eq!(writes(&entry).len(), 6, "the MTU has changed");
    assert_eq!(read_neighbour(&entry), Some(other));
}

/// An entry that has never been written is not the same as one whose contents are zero.
#[test]
fn the_first_write_always_makes_an_entry_readable() {
    let entry = traced();
    let unknown = Neighbour {
        destination: 0,
        source: 0,
        mtu: 0,
        ..ROUTER
    };
    assert!(claim(&entry, &unknown));
    write(&entry, &unknown);
    assert_eq!(read_neighbour(&entry), Some(unknown));
}

#[test]
fn what_another_cpu_is_writing_is_left_to_it() {
    let entry = traced();
    assert!(claim(&entry, &ROUTER));
    Word::store(&entry[SEQUENCE], 5);
    writes(&entry);
    write(&entry, &ROUTER);
    assert_eq!(writes(&entry), [], "it has begun");
    entry[SEQUENCE].value.set(6);
    entry[SEQUENCE].rival.set(Some(7));
    write(&entry, &ROUTER);
    assert_eq!(writes(&entry), [], "it begins at this moment");
}

#[test]
fn a_free_entry_belongs_to_whoever_comes_first() {
    let entry = traced();
    entry[KEY]
        .rival
        .set(Some(key(2, &Gateway::v4([192, 0, 2, 9]))));
    assert!(!claim(&entry, &ROUTER), "another neighbour's");
    let entry = traced();
    entry[KEY].rival.set(Some(key(2, &ROUTER.gateway)));
    assert!(claim(&entry, &ROUTER), "the same neighbour's");
    assert_eq!(writes(&entry), []);
    assert!(claim(&entry, &ROUTER));
    for other in [
        Neighbour {
            ifindex: 3,
            ..ROUTER
        },
        Neighbour {
            gateway: Gateway::v4([192, 0, 2, 9]),
            ..ROUTER
        },
    ] {
        assert!(!claim(&entry, &other), "{other:?}");
    }
}

/// Between the two steps of the daemon no neighbour finds the entry or gets it; afterwards it is as
/// new.
#[test]
fn a_retired_entry_is_nobodys_until_it_is_freed() {
    let entry: Entry<AtomicU64> = Default::default();
    let own = key(ROUTER.ifindex, &ROUTER.gateway);
    let other = Neighbour {
        gateway: Gateway::v4([192, 0, 2, 9]),
        ..ROUTER
    };
    assert!(claim(&entry, &ROUTER));
    write(&entry, &ROUTER);
    assert!(confirmation_due(&entry, 100, 4));
    assert!(!retire(&entry, key(2, &other.gateway)), "another's");
    assert_eq!(read_neighbour(&entry), Some(ROUTER));
    assert!(retire(&entry, own));
    assert!(!retire(&entry, own), "twice");
    assert!(!claim(&entry, &ROUTER) && !claim(&entry, &other));
    free(&entry);
    assert!(entry.iter().all(|word| Word::load(word) == 0));
    assert!(claim(&entry, &other));
    assert_eq!(read_neighbour(&entry), None, "nothing of its predecessor");
}

/// Neighbours of one link and one address on several links begin at different entries.
#[test]
fn neighbours_are_spread_over_the_table() {
    let places = |of: &dyn Fn(u8) -> Neighbour| {
        let places: HashSet<u32> = (1..=200).map(|n| of(n).hash() % NEXTHOPS).collect();
        places.len()
    };
    let on_one_link = |n: u8| Neighbour {
        gateway: Gateway::v4([192, 0, 2, n]),
        ..ROUTER
    };
    let on_many_links = |n: u8| Neighbour {
        ifindex: n.into(),
        ..ROUTER
    };
    // At random 139 of 256 are expected.
    assert!(places(&on_one_link) > 100 && places(&on_many_links) > 100);
    assert_eq!(ROUTER.hash(), hash(key(ROUTER.ifindex, &ROUTER.gateway)));
}
