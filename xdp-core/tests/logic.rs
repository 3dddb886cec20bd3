//! Property tests of the arithmetic: checksums, sequence numbers, remembered digests.

#![cfg(not(loom))]

mod support;

use proptest::prelude::*;
use std::sync::atomic::AtomicU64;
use support::read_neighbour;
use xdp_common::limits::{ICMP_BURST, ICMP_RATE};
use xdp_common::slot::nexthop::WORDS as NEXTHOP_WORDS;
use xdp_common::{Config, cpu};
use xdp_core::checksum::{Delta, fold, ip_less, partial, udp_more};
use xdp_core::icmp::rate_limit;
use xdp_core::neighbour::cached_hop;
use xdp_core::neighbour::table as neighbour_table;
use xdp_core::neighbour::{Gateway, Neighbour};
use xdp_core::table::recent;

/// The sum as RFC 1071 defines it, over all words at once.
fn sum(words: &[u16]) -> u16 {
    let mut total: u32 = words.iter().map(|word| u32::from(*word)).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

fn words(bytes: [u8; 4]) -> [u16; 2] {
    let [a, b, c, d] = bytes;
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// RFC 1071 section 2: the carries are added, also the one that this addition makes.
#[test]
fn a_fold_adds_both_carries() {
    for (total, folded) in [
        (0, 0),
        (0xffff, 0xffff),
        (0x1_0000, 1),
        (0x1_fffe, 0xffff),
        (0x1_ffff, 1),
        (0x7_fffa, 2),
        (0xffff_0001, 1),
    ] {
        assert_eq!(fold(total), folded, "{total:#x}");
    }
}

/// Every field against every change of one word would be 2^48 cases; every change of one word
/// against a few fields is 2^32. This test combines all old words with all new ones, in steps that
/// visit each residue.
#[test]
#[cfg(not(miri))]
fn an_incremental_update_is_the_full_sum() {
    for old in (0..=u16::MAX).step_by(7) {
        for new in (0..=u16::MAX).step_by(251) {
            let rest = 0x1234;
            let field = !sum(&[old, rest]);
            let updated = Delta::new()
                .replace2(old.to_be_bytes(), new.to_be_bytes())
                .ip_field(field.to_be_bytes());
            let updated = u16::from_be_bytes(updated);
            assert_eq!(sum(&[new, rest, updated]), 0xffff, "{old:#x} -> {new:#x}");
        }
    }
}

/// The folded constants of the fast path give the same result as RFC 1624 equation 3: for every
/// field, and for every constant in steps that visit each residue.
#[test]
#[cfg(not(miri))]
fn a_folded_constant_gives_the_same_field() {
    for change in (0..=0xffff_u32).step_by(13).chain([0xffff]) {
        for field in (0..=u16::MAX).step_by(7).chain([0, 1, 0xfffe, 0xffff]) {
            let wanted = !fold(u64::from(!field) + u64::from(change));
            let [low, high, ..] = ip_less(field, change).to_le_bytes();
            assert_eq!(
                u16::from_le_bytes([low, high]),
                wanted,
                "{field:#x} {change:#x}"
            );
            if field != 0 {
                let [low, high, ..] = udp_more(field, !change & 0xffff).to_le_bytes();
                let wanted = if wanted == 0 { 0xffff } else { wanted };
                assert_eq!(
                    u16::from_le_bytes([low, high]),
                    wanted,
                    "{field:#x} {change:#x}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 4096 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// RFC 1624: the error of a checksum, right or wrong, is the same before and after.
    #[test]
    fn an_error_is_kept(old: [u8; 4], new: [u8; 4], rest: u16, error: u16) {
        let [a, b] = words(old);
        let [c, d] = words(new);
        let field = sum(&[!sum(&[a, b, rest]), error]);
        let updated = Delta::new().replace4(old, new).ip_field(field.to_be_bytes());
        let updated = u16::from_be_bytes(updated);
        let before = sum(&[a, b, rest, field]);
        let after = sum(&[c, d, rest, updated]);
        // 0 and 0xffff are the same number in one's complement.
        prop_assert_eq!(before % 0xffff, after % 0xffff);
    }

    /// RFC 768: zero means no checksum and stays; a computed zero is sent as all ones.
    #[test]
    fn udp_zero_is_special(old: [u8; 4], new: [u8; 4], field: u16) {
        let delta = Delta::new().replace4(old, new);
        prop_assert_eq!(delta.udp_field([0, 0]), [0, 0]);
        let updated = delta.udp_field(field.to_be_bytes());
        if field != 0 {
            prop_assert_ne!(updated, [0, 0]);
            let plain = delta.ip_field(field.to_be_bytes());
            prop_assert_eq!(updated, if plain == [0, 0] { [0xff, 0xff] } else { plain });
        }
    }

    /// Without branches it is the same; in TCP zero has no meaning (RFC 9293 section 3.1).
    #[test]
    fn the_field_of_udp_or_tcp_is_the_same_without_branches(old: [u8; 4], new: [u8; 4], field: u16, zero: bool) {
        let delta = Delta::new().replace4(old, new);
        // The second one is the field that becomes zero.
        for field in [[0, 0], if zero { Delta::new().replace4(new, old).ip_field([0, 0]) } else { field.to_be_bytes() }] {
            prop_assert_eq!(delta.field(0, field), delta.udp_field(field));
            prop_assert_eq!(delta.field(1, field), delta.ip_field(field));
        }
    }

    #[test]
    fn a_partial_checksum_is_the_pseudo_header(source: [u8; 4], destination: [u8; 4], length: u16) {
        let [a, b] = words(source);
        let [c, d] = words(destination);
        prop_assert_eq!(partial(source, destination, 17, length), sum(&[a, b, c, d, 17, length]));
        prop_assert_eq!(fold(u64::from(length) << 16), length);
    }

    /// A next hop is valid until its stamp has changed, by time or by epoch.
    #[test]
    fn a_next_hop_counts_for_a_while(mac in 1..1_u64 << 48, jiffies in 0_u64..1 << 40, epoch in 0_u16..0xfff0) {
        let config = Config { tick_shift: 8, ..Config::ZERO }.seal();
        let egress = cpu::egress(1500, epoch);
        let now = cached_hop::stamp(&config.directions[0].translation, egress, jiffies);
        let word = cached_hop::word(mac, now);
        prop_assert_eq!(cached_hop::mac(word, now), Some(mac));
        prop_assert_eq!(cached_hop::mac(word, cached_hop::stamp(&config.directions[0].translation, cpu::egress(1500, epoch + 1), jiffies)), None);
        prop_assert_eq!(cached_hop::mac(word, cached_hop::stamp(&config.directions[0].translation, egress, jiffies + (1 << 11))), None);
        prop_assert_eq!(cached_hop::mac(cached_hop::UNKNOWN, now), None, "unknown, and memory that was never written");
    }

    #[test]
    fn a_digest_is_recalled_until_it_is_old(digests in prop::collection::vec(any::<u64>(), 1..12), tick: u16, limit in 1..100_u16) {
        let bucket = recent::Bucket::<AtomicU64>::default();
        for digest in &digests {
            recent::remember(&bucket, *digest, tick, [1, 2, 77]);
        }
        let last = digests[digests.len() - 1];
        prop_assert_eq!(recent::recall(&bucket, last, tick.wrapping_add(limit), limit), Some([1, 2, 77]));
        prop_assert_eq!(recent::recall(&bucket, last, tick.wrapping_add(limit + 1), limit), None);
        prop_assert!(recent::recall(&bucket, last ^ (1 << 16), tick, limit).is_none() || digests.iter().any(|d| (d ^ last ^ (1 << 16)) >> 16 == 0));
    }

    #[test]
    fn a_neighbour_is_read_as_it_was_written(ifindex in 1..1000_u32, gateway: [u8; 4], destination in 0..1_u64 << 48, source in 0..1_u64 << 48, mtu: u16) {
        let entry: [AtomicU64; NEXTHOP_WORDS] = Default::default();
        let gateway = Gateway::v4(gateway);
        let neighbour = Neighbour { ifindex, gateway, destination, source, mtu };
        prop_assert_eq!(read_neighbour(&entry), None);
        prop_assert!(neighbour_table::claim(&entry, &neighbour));
        prop_assert_eq!(read_neighbour(&entry), None, "claimed, but nothing is known");
        neighbour_table::write(&entry, &neighbour);
        prop_assert_eq!(read_neighbour(&entry), Some(neighbour));
        let other = Neighbour { ifindex: ifindex + 1, ..neighbour };
        prop_assert!(!neighbour_table::claim(&entry, &other), "an entry belongs to one gateway for good");
        let moved = Neighbour { destination: 2, ..neighbour };
        neighbour_table::write(&entry, &moved);
        prop_assert_eq!(read_neighbour(&entry), Some(moved));
    }
}

#[test]
fn the_oldest_way_is_overwritten() {
    let bucket = recent::Bucket::<AtomicU64>::default();
    let digest = |number: u64| number << 40;
    for (tick, number) in [(9, 3), (10, 1), (11, 2), (12, 4)] {
        recent::remember(&bucket, digest(number), tick, [0; 3]);
    }
    recent::remember(&bucket, digest(5), 13, [0; 3]);
    assert_eq!(
        recent::recall(&bucket, digest(3), 13, 100),
        None,
        "the oldest"
    );
    for kept in [1, 2, 4, 5] {
        assert_eq!(recent::recall(&bucket, digest(kept), 13, 100), Some([0; 3]));
    }
}

/// Another CPU may have written an entry after this one has read the clock: it is young.
#[test]
fn an_entry_of_the_next_tick_is_young() {
    let bucket = recent::Bucket::<AtomicU64>::default();
    let digest = |number: u64| number << 40;
    for tick in [0_u16, 9, u16::MAX] {
        let next = tick.wrapping_add(1);
        recent::remember(&bucket, digest(1), next, [1; 3]);
        assert_eq!(recent::recall(&bucket, digest(1), tick, 0), Some([1; 3]));
        for number in 2..=5 {
            recent::remember(&bucket, digest(number), tick, [number; 3]);
        }
        assert_eq!(
            recent::recall(&bucket, digest(1), tick, 0),
            Some([1; 3]),
            "{tick}"
        );
    }
}

/// All come within one tick: each place gives way to a part of them.
#[test]
fn of_equally_old_ways_the_digest_chooses() {
    let lost_by = |choice: u64| {
        let bucket = recent::Bucket::<AtomicU64>::default();
        for number in 1..=4 {
            recent::remember(&bucket, number << 40, 9, [number; 3]);
        }
        recent::remember(&bucket, choice << 62 | 5 << 40, 9, [0; 3]);
        let is_lost = |number: &u64| recent::recall(&bucket, number << 40, 9, 100).is_none();
        let lost: Vec<u64> = (1..=4).filter(is_lost).collect();
        assert_eq!(lost.len(), 1, "{choice}: {lost:?}");
        lost[0]
    };
    let mut lost = [0, 1, 2, 3].map(lost_by);
    lost.sort_unstable();
    assert_eq!(lost, [1, 2, 3, 4]);
}

/// The other entries of the bucket stay.
#[test]
fn what_is_remembered_again_stays_where_it_is() {
    let bucket = recent::Bucket::<AtomicU64>::default();
    let digest = |number: u64| number << 40;
    for number in 1..=4 {
        recent::remember(&bucket, digest(number), 9, [number; 3]);
    }
    for tick in 10..15 {
        recent::remember(&bucket, digest(2), tick, [7; 3]);
    }
    for (number, details) in [(1, 1), (2, 7), (3, 3), (4, 4)] {
        let recalled = recent::recall(&bucket, digest(number), 15, 100);
        assert_eq!(recalled, Some([details; 3]), "{number}");
    }
}

/// At most a burst at once, then the steady rate, wherever the clock starts; also for a word that
/// was never written.
#[test]
fn icmp_errors_are_limited_to_a_burst_and_a_rate() {
    for (shift, start) in [(8, 0_u64), (8, 0xffff_0000), (10, 1 << 40), (7, 5)] {
        let word = AtomicU64::default();
        let second = 1_u64 << shift;
        let passed = |from: u64, to: u64, step: u64| {
            (from..to)
                .step_by(usize::try_from(step).expect("small"))
                .filter(|now| rate_limit::take_token(&word, shift, *now))
                .count() as u64
        };
        let at_once = (0..100)
            .filter(|_| rate_limit::take_token(&word, shift, start))
            .count() as u64;
        assert_eq!(at_once, ICMP_BURST, "{shift} {start}");
        let steady = passed(start + 1, start + 10 * second, 1);
        assert!(
            steady.abs_diff(10 * ICMP_RATE) <= 2,
            "{steady} in ten seconds at {shift} {start}"
        );
        let rested = start + 30 * second;
        let at_once = (0..100)
            .filter(|_| rate_limit::take_token(&word, shift, rested))
            .count() as u64;
        assert_eq!(at_once, ICMP_BURST, "after a rest at {shift} {start}");
    }
}

#[test]
fn a_neighbour_is_confirmed_once_per_period() {
    let entry: [AtomicU64; NEXTHOP_WORDS] = Default::default();
    assert!(neighbour_table::confirmation_due(&entry, 100, 4));
    assert!(!neighbour_table::confirmation_due(&entry, 103, 4));
    assert!(neighbour_table::confirmation_due(&entry, 104, 4));
    assert!(!neighbour_table::confirmation_due(&entry, 104, 4));
}

/// The fast path asks nothing of a route but its neighbour: it must leave by the egress of the
/// direction, with that one's MAC address, and carry what the egress carries.
#[test]
fn a_next_hop_is_remembered_only_if_the_fast_path_could_use_it() {
    let config = Config {
        wan_ifindex: 2,
        lan_ifindex: 3,
        wan_mac: [2, 0, 0, 0, 1, 1],
        lan_mac: [2, 0, 0, 0, 2, 254],
        tick_shift: 8,
        ..Config::ZERO
    }
    .seal();
    for outbound in [false, true] {
        let direction = &config.directions[usize::from(outbound)].translation;
        let other = &config.directions[usize::from(!outbound)].translation;
        let egress = cpu::egress(1500, 7);
        let usual = Neighbour {
            ifindex: direction.egress,
            gateway: Gateway::v4([192, 0, 2, 1]),
            destination: 0x0102_0304_0506,
            source: direction.source_mac,
            mtu: 1500,
        };
        let of = |neighbour: Neighbour| {
            let word = cached_hop::for_neighbour(direction, egress, &neighbour, 9);
            cached_hop::mac(
                word,
                cached_hop::stamp(&config.directions[0].translation, egress, 9),
            )
        };
        let known = Some(usual.destination);
        assert_eq!(of(usual), known);
        assert_eq!(of(Neighbour { mtu: 0, ..usual }), known, "not known");
        assert_eq!(of(Neighbour { mtu: 9000, ..usual }), known);
        assert_eq!(of(Neighbour { mtu: 1499, ..usual }), None);
        let elsewhere = [
            Neighbour {
                ifindex: other.egress,
                ..usual
            },
            Neighbour {
                source: other.source_mac,
                ..usual
            },
        ];
        assert_eq!(elsewhere.map(of), [None; 2]);
    }
}

/// Memory that was never written is zero, and so never a valid next hop.
#[test]
fn no_stamp_is_zero() {
    let config = Config {
        tick_shift: 8,
        ..Config::ZERO
    }
    .seal();
    for time in 0..=u64::from(u16::MAX) {
        let stamp = cached_hop::stamp(
            &config.directions[0].translation,
            cpu::egress(1500, 0),
            time << 11,
        );
        assert_eq!(
            cached_hop::mac(cached_hop::UNKNOWN, stamp),
            None,
            "{time:#x}"
        );
    }
}
