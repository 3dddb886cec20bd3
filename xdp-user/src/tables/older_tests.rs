//! Tests of the conversion of each word of older entries.

use super::*;
use std::sync::atomic::AtomicU64;
use xdp_common::Class;
use xdp_common::slot::{ADDRESS, SPI_VIP};

const PEER: [u8; 4] = [198, 51, 100, 7];
const NUMBERS: Numbers = Numbers { service: 3, vip: 5 };
const SHIFT: u32 = 10;
const NOW: u64 = 0x5_0000_9000;

/// The kind of a key in a state word: bit 0 outbound, bit 1 native, bit 2 session.
fn slot_of(kind: u64, spi: u32, words: &[(usize, u64)]) -> OldSlot<AtomicU64> {
    let mut slot = [0_u64; WORDS];
    // Live, in the third place of its bucket, in the ninth life.
    slot[STATE] = 2 | 2 << 7 | kind << 9 | 9 << 13;
    slot[1] = u64::from(spi.to_be()) << 32 | u64::from(u32::from_ne_bytes(PEER));
    for (word, value) in words {
        slot[*word] = *value;
    }
    slot.map(AtomicU64::new)
}

/// Both halves of a slot.
#[derive(Default)]
struct New {
    hot: [AtomicU64; slot::WORDS],
    cold: [AtomicU64; slot::WORDS],
}

impl New {
    fn halves(&self) -> Halves<'_, AtomicU64> {
        Halves {
            hot: &self.hot,
            cold: &self.cold,
        }
    }

    fn words(&self) -> [[u64; slot::WORDS]; 2] {
        [&self.hot, &self.cold].map(|half| half.each_ref().map(Word::load))
    }
}

#[test]
fn keys_keep_address_spi_class_and_direction() {
    for (kind, class, direction) in [
        (0, Class::EspInUdp, Direction::Inbound),
        (1, Class::EspInUdp, Direction::Outbound),
        (2, Class::Esp, Direction::Inbound),
        (3, Class::Esp, Direction::Outbound),
    ] {
        let key = flow_key(&slot_of(kind, 0xC0DE_0001, &[]), NUMBERS);
        assert_eq!(
            key,
            Some(slot::flow_key(PEER, 0xC0DE_0001, class, direction, 3))
        );
    }
    let session = slot_of(4, 0, &[]);
    assert_eq!(
        session_key(&session, NUMBERS),
        Some(slot::session_key(PEER, 3))
    );
}

#[test]
fn only_what_is_live_has_a_key() {
    for state in [0, 1, 3, 4] {
        let slot = slot_of(0, 1, &[(STATE, state)]);
        assert_eq!(flow_key(&slot, NUMBERS), None, "{state}");
        assert_eq!(session_key(&slot, NUMBERS), None, "{state}");
    }
}

/// All words of a flow of any of these versions.
fn flow_words() -> Vec<(usize, u64)> {
    vec![
        (4, 1000),                            // packets
        (5, 120_000),                         // bytes
        (6, 0x8000 << 32 | 0x41),             // seen, highest
        (7, 0xdead_beef),                     // next hop
        (8, 0x5_0000_1000),                   // first seen
        (9, 7 << 32 | 2 << 16 | 4501),        // first sequence, wraps, port
        (10, 3),                              // reordered
        (11, 0x30 << 32 | 0x40),              // late
        (12, 0x99 << 32 | 0x1234 << 8 | 0x1), // probation, from 4 on
    ]
}

#[test]
fn a_flow_keeps_what_was_seen_and_gets_no_counters_yet() {
    let new = New::default();
    new.hot[SPI_VIP].store(0xAABB << 32, std::sync::atomic::Ordering::SeqCst);
    fill_flow(&slot_of(1, 0xAABB, &flow_words()), NUMBERS, new.halves());
    let [hot, cold] = new.words();
    assert_eq!(hot[SPI_VIP], 0xAABB << 32 | 5);
    assert_eq!([hot[flow::PACKETS], hot[flow::BYTES]], [0, 0]);
    assert_eq!(hot[flow::SEEN], 0x8000 << 32 | 0x41);
    assert_eq!(hot[flow::HOP], 0, "it is found again");
    assert_eq!(cold[ADDRESS], 0, "the key is not its business");
    assert_eq!(cold[flow::FIRST_SEEN], 0x5_0000_1000);
    assert_eq!(cold[flow::FIRST], 7 << 32 | 2 << 16 | 4501);
    assert_eq!(cold[flow::REORDERED], 0);
    assert_eq!(cold[flow::LATE], 0x30 << 32 | 0x40);
    assert_eq!(cold[flow::PROBATION], 0);
}

#[test]
fn counters_are_added_once_to_what_the_new_programs_count() {
    let old = slot_of(1, 0xAABB, &flow_words());
    let new = New::default();
    fill_flow(&old, NUMBERS, new.halves());
    Word::add(&new.hot[flow::PACKETS], 10);
    Word::add(&new.hot[flow::BYTES], 1200);
    // The old programs have gone on after the copy.
    Word::store(&old[6], 0x8010 << 32 | 0x50);
    for _ in 0..2 {
        settle_flow(&old, new.halves());
        let [hot, cold] = new.words();
        assert_eq!([hot[flow::PACKETS], hot[flow::BYTES]], [1010, 121_200]);
        assert_eq!(hot[flow::SEEN], 0x8010 << 32 | 0x50);
        assert_eq!(cold[flow::REORDERED], 3);
        assert_eq!(cold[flow::FIRST], 7 << 32 | 2 << 16 | 4501);
    }
}

#[test]
fn what_the_new_programs_have_seen_last_stays() {
    let old = slot_of(1, 0xAABB, &flow_words());
    let new = New::default();
    // They have made the entry: a later beginning, another port.
    Word::store(&new.hot[flow::SEEN], 0x8020 << 32 | 0x60);
    Word::store(&new.cold[flow::FIRST_SEEN], 0x5_0000_8001);
    Word::store(&new.cold[flow::FIRST], 0x55 << 32 | 4502);
    settle_flow(&old, new.halves());
    let [hot, cold] = new.words();
    assert_eq!(hot[flow::SEEN], 0x8020 << 32 | 0x60);
    assert_eq!(cold[flow::FIRST_SEEN], 0x5_0000_1000);
    assert_eq!(cold[flow::FIRST], 7 << 32 | 2 << 16 | 4502);
    // Numbers and stamps wrap.
    Word::store(&new.hot[flow::SEEN], 0xffff_fff0 << 32 | 0xffff_ff00);
    Word::store(&old[6], 0x10 << 32 | 0x20);
    settle_flow(&old, new.halves());
    assert_eq!(new.words()[0][flow::SEEN], 0x10 << 32 | 0x20);
}

fn flows(native: bool) -> Option<FromFlows> {
    Some(FromFlows {
        first_seen: 0x5_0000_1000,
        native,
    })
}

#[test]
fn a_session_of_abi_3_is_as_old_as_its_first_flow() {
    let old = slot_of(
        4,
        0,
        &[(4, 0x8000), (5, 2), (6, 0xdead), (7, 501 << 16 | 4501)],
    );
    for native in [false, true] {
        let new = New::default();
        fill_session(&old, NUMBERS, (flows(native), NOW), SHIFT, new.halves());
        let [hot, _] = new.words();
        assert_eq!(hot[session::LAST_SEEN], 0x8000);
        assert_eq!(hot[session::SPIS], 0, "they are counted as flows are added");
        assert_eq!(hot[session::HOP], 0);
        assert_eq!(session::pinned(hot[session::PIN]), Some(5));
        let known = hot[session::PORTS_CREATED];
        assert_eq!(session::port_on(known, true), 501);
        assert_eq!(session::port_on(known, false), 4501);
        assert_eq!(known & session::NATIVE_ESP != 0, native);
        assert_eq!(u64::from(session::created(known)), 0x5_0000_1000 >> SHIFT);
    }
    // Without a flow, as old as its last message: of that only 32 bits are known.
    let new = New::default();
    fill_session(&old, NUMBERS, (None, NOW), SHIFT, new.halves());
    let created = session::created(new.words()[0][session::PORTS_CREATED]);
    assert_eq!(u64::from(created), 0x5_0000_8000 >> SHIFT);
}

#[test]
fn a_session_of_abi_6_keeps_when_it_was_created_and_the_servers_last_packet() {
    let ports = session::NATIVE_ESP | session::created_at(0x1234) | 501 << 16 | 4501;
    let old = slot_of(
        4,
        0,
        &[(4, 0x7000 << 32 | 0x8000), (5, 1 << 32 | 2), (7, ports)],
    );
    let new = New::default();
    fill_session(&old, NUMBERS, (flows(false), NOW), SHIFT, new.halves());
    let [hot, _] = new.words();
    assert_eq!(hot[session::LAST_SEEN], 0x7000 << 32 | 0x8000);
    assert_eq!(hot[session::PORTS_CREATED], ports);
}

#[test]
fn the_eight_counters_of_a_session_become_eight_halves_and_are_added_once() {
    let counters: Vec<(usize, u64)> = (0..8).map(|at| (8 + at, 10 + at as u64)).collect();
    let old = slot_of(4, 0, &counters);
    Word::store(&old[4], 0x8100);
    let new = New::default();
    Word::store(&new.hot[session::LAST_SEEN], 0x8000);
    Word::store(&new.cold[session::COUNTERS], 1 << 32 | 2);
    for _ in 0..2 {
        settle_session(&old, new.halves());
        let [hot, cold] = new.words();
        assert_eq!(hot[session::LAST_SEEN], 0x8100);
        assert_eq!(cold[session::COUNTERS], 12 << 32 | 12);
        assert_eq!(cold[session::COUNTERS + 1], 13 << 32 | 12);
        assert_eq!(cold[session::COUNTERS + 2], 15 << 32 | 14);
        assert_eq!(cold[session::COUNTERS + 3], 17 << 32 | 16);
    }
}

#[test]
fn flows_show_native_esp_of_the_server_alone() {
    let of = |kind| FromFlows::of(&slot_of(kind, 1, &[(8, kind * 10)]));
    assert_eq!(
        [0, 1, 2, 3].map(|kind| of(kind).native),
        [false, false, false, true]
    );
    let both = of(3).and(of(1));
    assert_eq!(
        both,
        FromFlows {
            first_seen: 10,
            native: true
        }
    );
}

#[test]
fn each_counter_of_a_hook_has_its_place_of_today() {
    use xdp_common::counters::{self, Quantity, reason, untracked};
    use xdp_common::{Hook, Reason, Untracked, cpu};
    for hook in Hook::ALL {
        let then = |at: usize| block::place_now(cpu::COUNTERS + hook as usize * 128 + at);
        let now = |at: usize| cpu::counters(hook) + at;
        for reason_of in Reason::ALL {
            assert_eq!(then(reason(*reason_of)), now(reason(*reason_of)));
        }
        for cause in Untracked::ALL {
            assert_eq!(then(untracked(cause)), now(untracked(cause)));
        }
        for direction in Direction::ALL {
            for class in Class::ALL.into_iter().filter(|class| *class != Class::Tcp) {
                let number = direction as usize * 8 + class as usize;
                for quantity in 0..4 {
                    let today = now(counters::class(direction, class) + quantity);
                    assert_eq!(then(64 + number * 4 + quantity), today);
                }
            }
        }
    }
    assert_eq!(Quantity::UntrackedBytes as usize, 3);
    assert_eq!(block::WORDS, 8 + 3 * 128);
}
