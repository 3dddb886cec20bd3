//! The rate limits for ICMP errors: what packets with forged addresses can take from the errors that
//! others need.
//!
//! The packets go through the slow path's packet logic on the host.

use std::net::Ipv4Addr;

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::gateway::{Gateway, NOW, forged_error, from_client, from_server};
use ikenat_tests::bpf::host::{Host, Tables};
use ikenat_tests::lab::frames::icmp::{code, kind, quote};
use ikenat_tests::lab::frames::{DONT_FRAGMENT, Icmp, Packet};
use ikenat_tests::lab::topology::{LAN_MAC, SERVER, SERVER_MAC};
use xdp_common::limits::{ICMP_BUCKETS, ICMP_BURST};
use xdp_common::{Direction, Reason};
use xdp_core::icmp::rate_limit::{self, Origin};
use xdp_core::{FibResult, Side};

fn too_big(packet: Packet) -> Packet {
    Packet {
        flags: DONT_FRAGMENT,
        ..packet
    }
}

/// How many of so many equal packets are answered, all at the same moment.
fn answers(gateway: &Gateway, side: Side, packet: &Packet, count: usize, answer: &str) -> u64 {
    let verdicts = (0..count).map(|_| gateway.verdict(side, packet, NOW));
    let verdicts: Vec<String> = verdicts.collect();
    let answered = verdicts.iter().filter(|verdict| *verdict == answer).count();
    let limited = verdicts
        .iter()
        .filter(|verdict| *verdict == "dropped icmp-limited")
        .count();
    assert_eq!(answered + limited, count, "{verdicts:?}");
    u64::try_from(answered).expect("a small number")
}

const NEEDED: &str = "answered fragmentation-needed";

/// The server has to learn the path MTU of a peer in whose name somebody sends packets that expire
/// here.
#[test]
fn packets_that_expire_take_nothing_from_path_mtu_discovery() {
    let mut gateway = Gateway::default();
    let peer = gateway.next_peer();
    let expiring = Packet {
        ttl: 1,
        ..from_client(peer, 100)
    };
    let answered = answers(
        &gateway,
        Side::Wan,
        &expiring,
        1000,
        "answered time-exceeded",
    );
    assert_eq!(answered, ICMP_BURST);
    let big = too_big(from_server(peer, 1600));
    assert_eq!(answers(&gateway, Side::Lan, &big, 1000, NEEDED), ICMP_BURST);
    // Nor from that of the peer itself, for its packets to the server.
    let big = too_big(from_client(peer, 1600));
    assert_eq!(answers(&gateway, Side::Wan, &big, 1000, NEEDED), ICMP_BURST);
}

/// Any number of reporters, and so any bucket of theirs, can be forged.
#[test]
fn forged_errors_take_nothing_from_own_errors_and_from_the_servers_side() {
    let mut gateway = Gateway::default();
    let peer = gateway.next_peer();
    let mut refused = 0;
    for number in 0..100_000_u32 {
        let reporter = Ipv4Addr::from(u32::from(Ipv4Addr::new(45, 0, 0, 0)) + number);
        let verdict = gateway.verdict(Side::Wan, &forged_error(peer, reporter), NOW);
        refused += usize::from(verdict == "dropped icmp-limited");
    }
    assert!(
        refused > 10_000,
        "{refused}: not every bucket of reporters is full"
    );
    for _ in 0..100 {
        let other = gateway.next_peer();
        let big = too_big(from_server(other, 1600));
        assert_eq!(gateway.verdict(Side::Lan, &big, NOW), NEEDED);
        let big = too_big(from_client(other, 1600));
        assert_eq!(gateway.verdict(Side::Wan, &big, NOW), NEEDED);
        // The server has no socket for a packet of the peer.
        let quoted = quote(&Packet::udp((other, 4500), (SERVER, 4500), [1; 40]), 8);
        let error = Icmp::new(kind::UNREACHABLE, code::PORT, quoted);
        let error = Packet::icmp(SERVER, other, &error).with_macs(LAN_MAC, SERVER_MAC);
        assert_eq!(
            gateway.verdict(Side::Lan, &error, NOW),
            "forward icmp out untracked"
        );
    }
}

/// No origin of errors takes anything from another one (the limit is RFC 1812 section 4.3.2.8): its
/// buckets are its own, and all buckets belong to one.
#[test]
fn each_origin_of_errors_has_buckets_of_its_own() {
    let origins = [
        (Origin::Own(Direction::Inbound, Reason::TimeExceeded), 16),
        (
            Origin::Own(Direction::Inbound, Reason::FragmentationNeeded),
            16,
        ),
        (Origin::Own(Direction::Outbound, Reason::TimeExceeded), 16),
        (
            Origin::Own(Direction::Outbound, Reason::FragmentationNeeded),
            16,
        ),
        (Origin::Reporter(Direction::Outbound, SERVER.octets()), 4),
        (Origin::Reporter(Direction::Inbound, [192, 0, 2, 1]), 2),
    ];
    let config = fixture::config();
    let fib = |_: [u8; 4], _: [u8; 4], _: u16| FibResult::NoRoute;
    let mut all = Vec::new();
    for (origin, part) in origins {
        let tables = Tables::new(&config);
        let host = Host::<true>::new(&tables, &fib, NOW);
        for peer in 0..100_000_u32 {
            rate_limit::allow(&host, &config, peer.to_be_bytes(), origin, NOW);
        }
        let used = tables.used_icmp_buckets();
        assert_eq!(used.len() * part, ICMP_BUCKETS as usize, "{origin:?}");
        all.extend(used);
    }
    all.sort_unstable();
    assert!(
        all.into_iter().eq(0..ICMP_BUCKETS as usize),
        "shared buckets"
    );
}
