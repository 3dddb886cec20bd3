//! Tests of the records: slots as the dataplane writes them, and what is read from them.

use super::*;
use crate::tables::clock::Moment;
use crate::tables::test_table::TestTable;
use std::sync::atomic::AtomicU64;
use xdp_common::slot::{flow_key, session_key};

const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const NOW: u64 = 1 << 33;

fn clock() -> Clock {
    let anchor = Moment {
        jiffies: NOW,
        monotonic: 0,
    };
    Clock::new(250, anchor)
}

const SERVICE: u16 = 0x1a5;

/// A slot's state, key, hot words and cold words.
type Slot = (u64, slot::Key, Vec<(usize, u64)>, Vec<(usize, u64)>);

fn table(slots: Vec<Slot>) -> TestTable<AtomicU64> {
    let table = TestTable::new(1);
    for (number, (state, key, hot, cold)) in slots.into_iter().enumerate() {
        let slot = table.put(number, state, &key);
        for (half, words) in [(slot.hot, hot), (slot.cold, cold)] {
            for (at, value) in words {
                Word::store(&half[at], value);
            }
        }
    }
    table
}

/// An ESP flow. `first` and `last` are jiffies before now, and a sequence number; a last number
/// below `highest` (extended by its wraps) was late.
fn esp(packets: u64, first: (u64, u64), last: (u64, u64), highest: u64) -> Slot {
    let (class, direction) = (Class::EspInUdp, Direction::Outbound);
    let key = flow_key(PEER.octets(), 0xc123_4567, class, direction, SERVICE);
    let seen = |ago: u64| (NOW - ago) & 0xffff_ffff;
    let low = highest & 0xffff_ffff;
    let is_late = last.1 != low;
    let hot = [
        (flow::PACKETS, packets),
        (flow::BYTES, packets * 100),
        (flow::SEEN, seen(last.0) << 32 | low),
    ];
    let cold = [
        (flow::FIRST_SEEN, NOW - first.0),
        (flow::FIRST, first.1 << 32 | highest >> 32 << 16 | 4500),
        (flow::REORDERED, u64::from(is_late)),
        (flow::LATE, if is_late { last.1 << 32 | low } else { 0 }),
    ];
    (LIVE, key, hot.into(), cold.into())
}

const LIVE: u64 = 2;

fn read_table(table: &TestTable<AtomicU64>) -> Vec<FlowRecord> {
    let retired = RetiredTotals::default();
    flows(table.arrays(), &retired, (&clock(), NOW), |_| true).records
}

fn read(slots: Vec<Slot>) -> Vec<FlowRecord> {
    read_table(&table(slots))
}

#[test]
fn every_word_of_a_flow_is_read() {
    let flows = read(vec![esp(10, (500, 1), (250, 12), 12)]);
    let [flow] = flows.as_slice() else {
        panic!("{flows:?}");
    };
    assert_eq!((flow.peer, flow.port, flow.spi), (PEER, 4500, 0xc123_4567));
    assert_eq!(flow.service, SERVICE);
    assert_eq!(
        (flow.class, flow.direction),
        (Class::EspInUdp, Direction::Outbound)
    );
    assert_eq!((flow.packets, flow.bytes, flow.age), (10, 1000, 250));
    assert_eq!(
        (flow.first_sequence, flow.last_sequence, flow.highest),
        (1, 12, 12)
    );
    assert_eq!(flow.estimated_loss(), 2);
}

#[test]
fn two_slots_of_one_key_are_one_flow() {
    let flows = read(vec![
        esp(10, (400, 3), (250, 12), 12),
        esp(3, (500, 1), (300, 4), 4),
    ]);
    let [flow] = flows.as_slice() else {
        panic!("{flows:?}");
    };
    assert_eq!((flow.packets, flow.bytes), (13, 1300));
    assert_eq!((flow.first_sequence, flow.first_seen), (1, NOW - 500));
    assert_eq!((flow.last_sequence, flow.age, flow.highest), (12, 250, 12));
    assert_eq!(flow.estimated_loss(), 0);
}

#[test]
fn a_late_packet_is_the_last_one_until_a_higher_number_comes() {
    let slots = table(vec![esp(10, (500, 1), (250, 9), 12)]);
    let late = read_table(&slots);
    assert_eq!((late[0].last_sequence, late[0].highest), (9, 12));
    Word::store(&slots.arrays().hot()[0][flow::SEEN], 5 << 32 | 13);
    let after = read_table(&slots);
    assert_eq!((after[0].last_sequence, after[0].highest), (13, 13));
}

#[test]
fn a_wrapped_sequence_number_goes_on_counting() {
    let flows = read(vec![esp(10, (400, 0xffff_fffe), (250, 7), 0x1_0000_0007)]);
    assert_eq!(flows[0].highest, 0x1_0000_0007);
    assert_eq!(flows[0].estimated_loss(), 0);
}

#[test]
fn free_and_claimed_slots_are_not_read() {
    for state in [0, 1] {
        let (_, key, hot, cold) = esp(1, (500, 1), (250, 1), 1);
        assert_eq!(read(vec![(state, key, hot, cold)]), []);
    }
}

#[test]
fn a_session_is_as_young_as_its_youngest_flow() {
    let table = table(vec![session(SERVICE), session(SERVICE + 1)]);
    let flows = read(vec![esp(1, (9, 1), (7, 1), 1 << 32)]);
    let sessions = sessions(table.arrays(), &flows, (&clock(), NOW), |_| true);
    let [own, other] = sessions.as_slice() else {
        panic!("{sessions:?}");
    };
    assert_eq!((own.service, own.spis, own.age), (SERVICE, 1, 7));
    assert_eq!(
        own.counters,
        [[4, 3], [2, 0], [0, u64::from(u32::MAX)], [0, 0], [0, 0]]
    );
    let of_other = (other.service, other.spis, other.age);
    assert_eq!(of_other, (SERVICE + 1, 0, 1000), "the flow is not its own");
}

fn session(service: u16) -> Slot {
    let hot = [(session::LAST_SEEN, (NOW - 1000) & 0xffff_ffff)];
    let cold = [
        (session::COUNTERS, 3 << 32 | 4),
        (session::COUNTERS + 1, 2),
        (session::COUNTERS + 2, u64::from(u32::MAX) << 32),
    ];
    let key = session_key(PEER.octets(), service);
    (LIVE, key, hot.into(), cold.into())
}

#[test]
fn flows_of_two_services_are_two() {
    let one = esp(10, (500, 1), (250, 12), 12);
    let mut other = esp(3, (500, 1), (300, 4), 4);
    let (class, direction) = (Class::EspInUdp, Direction::Outbound);
    other.1 = flow_key(PEER.octets(), 0xc123_4567, class, direction, SERVICE ^ 1);
    let found = read(vec![one, other]);
    let services = |flow: &FlowRecord| (flow.service, flow.packets);
    let found: Vec<_> = found.iter().map(services).collect();
    assert_eq!(found, [(SERVICE ^ 1, 3), (SERVICE, 10)]);
}

#[test]
fn only_the_flows_of_wanted_peers_become_records_and_all_are_summed_up() {
    let table = table(vec![esp(10, (500, 1), (250, 12), 12)]);
    let all = (&clock(), NOW);
    let retired = RetiredTotals::default();
    let flows = flows(table.arrays(), &retired, all, |peer| peer != PEER);
    assert_eq!(flows.records, []);
    let [inbound, outbound] = flows.tracked;
    assert_eq!(
        (inbound.packets, outbound.packets, outbound.bytes),
        (0, 10, 1000)
    );
}

#[test]
fn a_join_finds_every_pair() {
    let mut left: Vec<(u32, Vec<char>)> = [1, 3, 4, 7].map(|key| (key, Vec::new())).into();
    let right = [
        (0, 'a'),
        (1, 'b'),
        (1, 'c'),
        (2, 'd'),
        (4, 'e'),
        (7, 'f'),
        (8, 'g'),
    ];
    merge_join(
        &mut left,
        &right,
        (|left| left.0, |right| right.0),
        |left, right| {
            left.1.push(right.1);
        },
    );
    let found = left
        .into_iter()
        .map(|(_, found)| found.into_iter().collect());
    let found: Vec<String> = found.collect();
    assert_eq!(found, ["bc", "", "e", "f"]);
}

/// Sixteen times the peers need sixteen times the work, not 256 times.
#[test]
fn joining_sessions_and_flows_reads_each_a_few_times() {
    for peers in [1_000_u32, 16_000] {
        let mut sessions: Vec<u32> = (0..peers).collect();
        let flows: Vec<u32> = (0..2 * peers).map(|flow| flow / 2).collect();
        let reads = std::cell::Cell::new(0_u32);
        let key = |one: &u32| {
            reads.set(reads.get() + 1);
            *one
        };
        let mut pairs = 0;
        merge_join(&mut sessions, &flows, (key, key), |_, _| pairs += 1);
        assert_eq!(pairs, 2 * peers);
        assert!(reads.get() <= 6 * peers, "{} reads", reads.get());
    }
}
