//! The highest sequence number of a flow: what raises it, and what does not.

use proptest::prelude::*;
use std::sync::atomic::AtomicU64;
use xdp_common::limits::{SEQUENCE_AGREEING, SEQUENCE_JUMP};
use xdp_common::slot::flow;
use xdp_core::Word;
use xdp_core::conntrack::flow as flows;
use xdp_core::table::Slot;

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn low(number: u64) -> u32 {
    number as u32
}

/// A flow whose first packet had this number.
fn flow_from(first: u32) -> Slot<AtomicU64> {
    let slot: Slot<AtomicU64> = Default::default();
    Word::store(&slot[flow::SEEN], u64::from(first));
    Word::store(&slot[flow::FIRST], u64::from(first) << 32);
    slot
}

/// The highest number with its wraps, and how many packets were late.
fn state(slot: &Slot<AtomicU64>) -> (u64, u64) {
    let wraps = Word::load(&slot[flow::FIRST]) >> 16 & 0xffff;
    let highest = Word::load(&slot[flow::SEEN]) & 0xffff_ffff;
    (wraps << 32 | highest, Word::load(&slot[flow::REORDERED]))
}

fn count(slot: &Slot<AtomicU64>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        flows::count_packet(slot, low(number), 100, 7);
    }
}

const FAR: u64 = 1 << 30;
const AGREEING: u64 = SEQUENCE_AGREEING;

/// Whoever has seen one packet of a tunnel can send another with its SPI and any number.
#[test]
fn one_packet_far_ahead_changes_nothing() {
    for first in [1, 0xe000_0000, 0xffff_fff0] {
        let slot = flow_from(first);
        let first = u64::from(first);
        let mut expected = first;
        for packet in 1..1000 {
            // Its numbers follow one another, but never two of them without one of the peer.
            count(&slot, [first + FAR + packet]);
            assert_eq!(state(&slot), (expected, 0), "{first:#x} {packet}");
            expected = first + packet;
            count(&slot, [expected]);
            assert_eq!(state(&slot), (expected, 0), "{first:#x} {packet}");
        }
    }
}

/// A tunnel that lost a minute of traffic on the way goes on with another range.
#[test]
fn a_gap_is_believed_after_some_packets_in_a_row() {
    let slot = flow_from(1);
    count(&slot, (0..AGREEING - 1).map(|at| FAR + at));
    assert_eq!(state(&slot), (1, 0));
    count(&slot, [FAR + AGREEING - 1]);
    assert_eq!(state(&slot), (FAR + AGREEING - 1, 0));
}

/// Who sends many of them in a row is believed, and the peer as well, after its next few packets.
#[test]
fn a_forged_range_does_not_last() {
    for first in [1 << 31, 0xffff_0000_u32] {
        let slot = flow_from(first);
        let first = u64::from(first);
        count(&slot, (0..AGREEING).map(|at| first + FAR + at));
        assert_eq!(state(&slot), (first + FAR + AGREEING - 1, 0), "forged");
        count(&slot, (1..=AGREEING).map(|at| first + at));
        assert_eq!(
            state(&slot),
            (first + AGREEING, AGREEING),
            "the peer's, without a wrap"
        );
        count(&slot, [first + AGREEING + 1]);
        assert_eq!(state(&slot), (first + AGREEING + 1, AGREEING));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 4096 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The highest sequence number only increases, in serial-number arithmetic, and wraps are
    /// counted.
    #[test]
    fn the_highest_sequence_number(start: u32, wraps: bool, steps in prop::collection::vec(0..1_000_000_u32, 1..200), port: u16) {
        // Half of the cases begin shortly before the wrap.
        let first = if wraps { start | 0xffff_0000 } else { start };
        let slot: Slot<AtomicU64> = Default::default();
        Word::store(&slot[flow::SEEN], u64::from(first));
        Word::store(&slot[flow::FIRST], u64::from(first) << 32 | u64::from(port));
        let mut true_highest = u64::from(first);
        let mut late = 0;
        for (i, step) in steps.into_iter().enumerate() {
            let next = if i % 5 == 4 {
                true_highest.saturating_sub(u64::from(step % 1000))
            } else {
                true_highest + u64::from(step % (SEQUENCE_JUMP + 1))
            };
            flows::count_packet(&slot, low(next), 100, 7);
            if next <= true_highest {
                late += 1;
                prop_assert_eq!(Word::load(&slot[flow::LATE]), u64::from(low(next)) << 32 | u64::from(low(true_highest)));
            }
            true_highest = true_highest.max(next);
            prop_assert_eq!(Word::load(&slot[flow::SEEN]), 7 << 32 | u64::from(low(true_highest)));
            let kept = Word::load(&slot[flow::FIRST]);
            prop_assert_eq!((kept >> 16) & 0xffff, (true_highest >> 32) & 0xffff);
            prop_assert_eq!((kept >> 32, kept & 0xffff), (u64::from(first), u64::from(port)));
            prop_assert_eq!(Word::load(&slot[flow::REORDERED]), late);
        }
    }
}
