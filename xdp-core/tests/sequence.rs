//! The highest sequence number of a flow: what raises it, and what does not.

#[path = "support/owned.rs"]
mod owned;

use owned::Owned;
use proptest::prelude::*;
use std::sync::atomic::AtomicU64;
use xdp_common::limits::{SEQUENCE_AGREEING, SEQUENCE_JUMP};
use xdp_common::slot::flow;
use xdp_core::Word;
use xdp_core::conntrack::flow as flows;
use xdp_core::table::Halves;

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn low(number: u64) -> u32 {
    number as u32
}

/// A flow, the first in a table.
struct Flow(Owned<AtomicU64>);

impl Flow {
    /// A flow whose first packet had this number, and came from this port.
    fn from(first: u32, port: u16) -> Self {
        let this = Self(Owned::new(1, AtomicU64::default));
        let Halves { hot, cold } = this.slot();
        Word::store(&hot[flow::SEEN], u64::from(first));
        Word::store(&cold[flow::FIRST], u64::from(first) << 32 | u64::from(port));
        this
    }

    fn slot(&self) -> Halves<'_, AtomicU64> {
        self.0.arrays().get(0).expect("the first slot")
    }

    fn count(&self, number: u64) {
        flows::count_packet(&self.0.arrays(), self.slot().hot, low(number), 100, 7);
    }
}

fn flow_from(first: u32) -> Flow {
    Flow::from(first, 0)
}

/// The highest number with its wraps, and how many packets were late.
fn state(flow: &Flow) -> (u64, u64) {
    let Halves { hot, cold } = flow.slot();
    let wraps = Word::load(&cold[flow::FIRST]) >> 16 & 0xffff;
    let highest = Word::load(&hot[flow::SEEN]) & 0xffff_ffff;
    (wraps << 32 | highest, Word::load(&cold[flow::REORDERED]))
}

fn count(flow: &Flow, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        flow.count(number);
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
        let counted = Flow::from(first, port);
        let Halves { hot, cold } = counted.slot();
        let mut true_highest = u64::from(first);
        let mut late = 0;
        for (i, step) in steps.into_iter().enumerate() {
            let next = if i % 5 == 4 {
                true_highest.saturating_sub(u64::from(step % 1000))
            } else {
                true_highest + u64::from(step % (SEQUENCE_JUMP + 1))
            };
            counted.count(next);
            if next <= true_highest {
                late += 1;
                prop_assert_eq!(Word::load(&cold[flow::LATE]), u64::from(low(next)) << 32 | u64::from(low(true_highest)));
            }
            true_highest = true_highest.max(next);
            prop_assert_eq!(Word::load(&hot[flow::SEEN]), 7 << 32 | u64::from(low(true_highest)));
            let kept = Word::load(&cold[flow::FIRST]);
            prop_assert_eq!((kept >> 16) & 0xffff, (true_highest >> 32) & 0xffff);
            prop_assert_eq!((kept >> 32, kept & 0xffff), (u64::from(first), u64::from(port)));
            prop_assert_eq!(Word::load(&cold[flow::REORDERED]), late);
        }
    }
}
