//! Tests of the wrap of 32-bit jiffies: five minutes after each boot (`INITIAL_JIFFIES` in
//! linux/jiffies.h), and every 49 days at 1,000 Hz. It must not make any stamp look old or young.

#![cfg(not(loom))]

#[path = "support/owned.rs"]
mod owned;

use owned::Owned;
use std::sync::atomic::AtomicU64;
use xdp_common::limits::ICMP_BURST;
use xdp_common::slot::flow;
use xdp_common::slot::nexthop::{CONFIRMED, WORDS as NEXTHOP_WORDS};
use xdp_common::{Config, cpu};
use xdp_core::Word;
use xdp_core::conntrack::flow as flows;
use xdp_core::icmp::rate_limit;
use xdp_core::neighbour::{cached_hop, table as neighbour_table};
use xdp_core::table::recent;

/// Jiffies per second, and the shift for a tick of about one second.
const RATES: [(u64, u32); 4] = [(100, 7), (250, 8), (300, 8), (1000, 10)];
const WRAP: u64 = 1 << 32;

#[test]
fn a_next_hop_lives_as_long_across_the_wrap_as_elsewhere() {
    let config = Config {
        tick_shift: 8,
        ..Config::ZERO
    }
    .seal();
    let egress = cpu::egress(1500, 7);
    let life = |from: u64| {
        let word = cached_hop::word(
            2,
            cached_hop::stamp(&config.directions[0].translation, egress, from),
        );
        let counts = |jiffies: &u64| {
            cached_hop::mac(
                word,
                cached_hop::stamp(&config.directions[0].translation, egress, *jiffies),
            )
            .is_some()
        };
        (from..from + (1 << 13)).take_while(counts).count()
    };
    for before in [1, 100, 1000, 2047] {
        // The same position within the unit of a stamp, long before.
        assert_eq!(life(WRAP - before), life((1 << 20) - before), "{before}");
        assert!(life(WRAP - before) as u64 >= before, "{before}");
    }
}

#[test]
fn a_neighbour_is_confirmed_as_often_across_the_wrap_as_elsewhere() {
    for (rate, shift) in RATES {
        let confirmations = |from: u64, to: u64| {
            let entry: [AtomicU64; NEXTHOP_WORDS] = Default::default();
            let tick =
                |jiffies: u64| u32::try_from(jiffies >> shift & 0xffff_ffff).expect("32 bits");
            Word::store(&entry[CONFIRMED], u64::from(tick(from)));
            let every = usize::try_from(rate / 10).expect("small");
            let moments = (from..to).step_by(every);
            moments
                .filter(|now| neighbour_table::confirmation_due(&entry, tick(*now), 4))
                .count()
        };
        let minute = 60 * rate;
        // The wraps of jiffies, and of the ticks derived from them.
        for wrap in [WRAP, WRAP << shift] {
            let across = confirmations(wrap - minute, wrap + minute);
            let elsewhere = confirmations(WRAP / 2, WRAP / 2 + 2 * minute);
            assert!(
                across.abs_diff(elsewhere) <= 1,
                "{rate}: {across}, {elsewhere}"
            );
            assert!(across > 10, "{rate}: {across}");
        }
    }
}

#[test]
fn what_was_remembered_before_the_wrap_is_recalled_behind_it() {
    for (rate, shift) in RATES {
        let config = Config {
            tick_shift: shift,
            ..Config::ZERO
        };
        let tick = |jiffies: u64| recent::short_tick(&config, jiffies);
        // Ticks of 16 bits wrap more often than jiffies of 32.
        for wrap in [WRAP, 1 << (16 + shift)] {
            let bucket = recent::Bucket::<AtomicU64>::default();
            recent::remember(&bucket, 0xabcd << 40, tick(wrap - rate), [0; 3]);
            let recalled = |later: u64| {
                recent::recall(&bucket, 0xabcd << 40, tick(wrap - rate + later), 30).is_some()
            };
            assert!(
                recalled(0) && recalled(2 * rate) && recalled(20 * rate),
                "{rate}"
            );
            assert!(!recalled(60 * rate), "{rate}");
        }
    }
}

#[test]
fn a_packet_behind_the_wrap_is_the_latest() {
    let table = Owned::new(1, AtomicU64::default);
    let slot = &table.arrays().hot()[0];
    let seen = || Word::load(&slot[flow::SEEN]) >> 32;
    for (sequence, jiffies) in (1..).zip([WRAP - 2, WRAP - 1, WRAP, WRAP + 1]) {
        flows::count_packet(&table.arrays(), slot, sequence, 100, jiffies);
        assert_eq!(seen(), jiffies & 0xffff_ffff, "{jiffies}");
    }
    assert_eq!(Word::load(&slot[flow::PACKETS]), 4);
}

#[test]
fn errors_are_limited_across_the_wrap_as_elsewhere() {
    for (rate, shift) in RATES {
        let passed = |from: u64| {
            let word = AtomicU64::new(0);
            let moments = (from..from + 20 * rate).step_by(2);
            moments
                .filter(|now| rate_limit::take_token(&word, shift, *now))
                .count()
        };
        let across = passed(WRAP - 10 * rate);
        assert_eq!(across, passed(WRAP / 2), "{rate}");
        assert!(across as u64 > ICMP_BURST, "{rate}: {across}");
    }
}
