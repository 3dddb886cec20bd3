//! Tests of the report: rates, totals, and which SPIs are listed.

use super::*;
use crate::report::selection::{PreviousCounts, Sort};
use crate::report::wanted_services::WantedServices;
use crate::tables::clock::{Clock, Moment};
use crate::tables::overview::Overview;
use crate::tables::retired::RetiredTotals;
use std::time::Duration;
use xdp_common::counters::WORDS;

fn snapshot() -> Snapshot {
    let moment = Moment {
        jiffies: 10_000,
        monotonic: 0,
    };
    let mut counters = [[0; WORDS]; Hook::ALL.len()];
    let esp = class(Direction::Inbound, Class::Esp);
    let udp = class(Direction::Inbound, Class::EspInUdp);
    counters[Hook::Xdp as usize][udp + Quantity::Packets as usize] = 90;
    counters[Hook::Tc as usize][udp + Quantity::Packets as usize] = 3;
    counters[Hook::Xdp as usize][esp + Quantity::Packets as usize] = 7;
    counters[Hook::Xdp as usize][esp + Quantity::UntrackedPackets as usize] = 5;
    Snapshot {
        overview: Overview {
            services: Vec::new(),
            service_names: [(0, "default"), (1, "office")]
                .map(|(number, name)| (number, name.to_owned()))
                .into(),
            flags: 0,
            namespace: 1,
            generation: 55,
            interfaces: Vec::new(),
            absent: Vec::new(),
            counters,
            tables: Vec::new(),
            host_peers: Vec::new(),
        },
        clock: Clock::new(250, moment),
        now: 10_000,
        flows: vec![flow(10, 0xc1, 95)],
        tracked: [
            Amount {
                packets: 95,
                bytes: 9500,
            },
            Amount::default(),
        ],
        sessions: vec![session_of(10)],
        half_open: vec![HalfOpen {
            peer: peer(5),
            age: 250,
        }],
        retired: RetiredTotals::default(),
    }
}

const fn peer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, number)
}

fn flow(number: u8, spi: u32, packets: u64) -> FlowRecord {
    FlowRecord {
        peer: peer(number),
        service: 0,
        port: 4500,
        class: Class::EspInUdp,
        spi,
        direction: Direction::Inbound,
        packets,
        bytes: packets * 100,
        first_seen: 7_000,
        age: 500,
        first_sequence: 1,
        last_sequence: 100,
        highest: 0x1_0000_0064,
        reordered: 0,
    }
}

fn session_of(number: u8) -> SessionRecord {
    SessionRecord {
        peer: peer(number),
        service: 0,
        age: 1_000,
        counters: Default::default(),
        spis: 1,
    }
}

#[test]
fn totals_add_both_hooks_and_both_kinds() {
    let totals = totals(&snapshot());
    assert_eq!(totals.esp.inbound.packets, 100);
    assert_eq!(totals.untracked.inbound.packets, 5);
    assert_eq!(
        totals.tracked.inbound,
        Traffic {
            packets: 95,
            bytes: 9500
        }
    );
    assert_eq!(totals.esp.outbound, Traffic::default());
}

fn first_spi<'s>(instance: &InstanceStats<'s>) -> Spi<'s> {
    instance.spis.iter().next().expect("one is listed")
}

#[test]
fn the_rate_is_the_mean_of_the_life_or_that_since_the_last_look() {
    let all = Selection::default();
    let mut snapshot = snapshot();
    // Ten seconds from the first packet to the last.
    let spi = first_spi(&InstanceStats::of("default", &snapshot, &all, None));
    assert!((spi.packets_per_second - 9.5).abs() < 1e-9);
    let earlier = PreviousCounts::of(&snapshot);
    snapshot.flows[0].packets += 20;
    snapshot.flows.push(flow(11, 0xc2, 7));
    let since = Some((&earlier, Duration::from_secs(2)));
    let now = InstanceStats::of("default", &snapshot, &all, since);
    let rates: Vec<f64> = now.spis.iter().map(|spi| spi.packets_per_second).collect();
    assert!((rates[0] - 10.0).abs() < 1e-9);
    assert!((rates[1] - 3.5).abs() < 1e-9, "a new SPI");
}

#[test]
fn numbers_look_as_scripts_expect_them() {
    let snapshot = snapshot();
    let instance = InstanceStats::of("default", &snapshot, &Selection::default(), None);
    assert_eq!(instance.generation, 55);
    let spi = first_spi(&instance);
    let json = serde_json::to_value(&spi).expect("serializes");
    assert_eq!(json["spi"], "0x000000c1");
    assert_eq!(json["kind"], "esp-in-udp");
    assert_eq!(json["direction"], "in");
    assert_eq!(json["port"], 4500);
    assert_eq!(json["highest_sequence"], 0x64);
    assert!((spi.last_seen_secs - 2.0).abs() < 1e-9);
    assert!((spi.first_seen_secs - 12.0).abs() < 1e-9);
}

/// Three flows of two peers, and a half-open peer before them.
fn several() -> Snapshot {
    Snapshot {
        flows: vec![flow(10, 0xc1, 95), flow(10, 0xc2, 300), flow(11, 0xc3, 200)],
        sessions: vec![session_of(10), session_of(11)],
        ..snapshot()
    }
}

fn listed(selection: &Selection) -> (Vec<u32>, Vec<Ipv4Addr>) {
    let snapshot = several();
    let instance = InstanceStats::of("default", &snapshot, selection, None);
    assert_eq!(
        instance.totals.tracked.inbound.packets, 95,
        "not a sum of what is listed"
    );
    assert_eq!(instance.spis.len(), instance.spis.iter().count());
    (
        instance.spis.iter().map(|spi| spi.spi).collect(),
        instance
            .sessions
            .iter()
            .map(|session| session.peer)
            .collect(),
    )
}

#[test]
fn without_a_selection_all_are_listed_by_peer() {
    assert_eq!(
        listed(&Selection::default()),
        (vec![0xc1, 0xc2, 0xc3], vec![peer(5), peer(10), peer(11)])
    );
}

#[test]
fn the_first_of_an_order_are_listed_with_their_peers() {
    let sorted = |sort, top| Selection {
        sort,
        top,
        ..Selection::default()
    };
    let all = vec![peer(5), peer(10), peer(11)];
    assert_eq!(
        listed(&sorted(Sort::Packets, None)),
        (vec![0xc2, 0xc3, 0xc1], all)
    );
    assert_eq!(
        listed(&sorted(Sort::Bytes, Some(2))),
        (vec![0xc2, 0xc3], vec![peer(10), peer(11)])
    );
    assert_eq!(
        listed(&sorted(Sort::Peer, Some(1))),
        (vec![0xc1], vec![peer(10)])
    );
    // All are equal, so they stay in their order.
    assert_eq!(listed(&sorted(Sort::LastSeen, Some(2))).0, [0xc1, 0xc2]);
}

#[test]
fn an_spi_is_listed_with_its_peer() {
    let selection = Selection {
        spis: vec![0xc3, 0xffff],
        ..Selection::default()
    };
    assert_eq!(listed(&selection), (vec![0xc3], vec![peer(11)]));
}

#[test]
fn a_service_is_listed_with_its_spis_and_peers() {
    let mut snapshot = several();
    let record = |text: &str| ServiceRecord::of(&text.parse().expect(text));
    snapshot.overview.services = vec![
        record("default:203.0.113.1=192.168.0.1"),
        record("office:203.0.113.2=192.168.0.2"),
    ];
    snapshot.flows[2].service = 1;
    snapshot.sessions[1].service = 1;
    let selection = Selection {
        services: WantedServices::new(vec!["office".to_owned()]),
        ..Selection::default()
    };
    assert!(selection.is_partial());
    let instance = InstanceStats::of("default", &snapshot, &selection, None);
    let services: Vec<&str> = instance.services.iter().map(|one| &*one.name).collect();
    let spis: Vec<u32> = instance.spis.iter().map(|spi| spi.spi).collect();
    // A half-open peer is of no service.
    let peers: Vec<Ipv4Addr> = instance.sessions.iter().map(|one| one.peer).collect();
    assert_eq!(
        (services, spis, peers),
        (vec!["office"], vec![0xc3], vec![peer(11)])
    );
}

#[test]
fn a_peer_is_wanted_by_any_of_its_prefixes() {
    let all = Selection::default();
    assert!(all.wants(peer(10)) && !all.is_partial());
    let some = Selection {
        peers: ["203.0.113.8/30", "198.51.100.7/32"]
            .map(|prefix| prefix.parse().expect("a prefix"))
            .into(),
        ..Selection::default()
    };
    assert!(some.wants(peer(10)) && !some.wants(peer(12)) && some.is_partial());
}
