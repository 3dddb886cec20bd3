//! The rate limits for ICMP errors: what packets with forged addresses can take from the errors that
//! others need.
//!
//! The packets go through the slow path's packet logic on the host.

use std::net::Ipv4Addr;

use ikenat_tests::bpf::gateway::{Gateway, NOW, forged_error, from_client, from_server};
use ikenat_tests::lab::frames::icmp::{code, kind, quote};
use ikenat_tests::lab::frames::{DONT_FRAGMENT, Icmp, Packet};
use ikenat_tests::lab::topology::{LAN_MAC, SERVER, SERVER_MAC};
use xdp_common::limits::{ICMP_BUCKETS, ICMP_BUCKETS_PER_PEER, ICMP_BURST};
use xdp_common::{Direction, Reason};
use xdp_core::Side;
use xdp_core::icmp::rate_limit::Origin;

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

/// So many peers to whom the server sends ESP.
fn established(gateway: &mut Gateway, count: usize) -> Vec<Ipv4Addr> {
    let esp = [0xc0, 1, 2, 3, 0, 0, 0, 1, 9, 9, 9, 9];
    let mut peers = Vec::new();
    for _ in 0..count {
        let peer = gateway.next_peer();
        let verdict = gateway.outbound(4500, (peer, 4500), &esp, NOW);
        assert_eq!(verdict, "forward esp-in-udp out");
        peers.push(peer);
    }
    peers
}

/// What is forged in the name of others, or makes the server answer them, takes no error from a peer
/// with a session: path MTU discovery of the clients goes on in both directions.
#[test]
fn errors_to_strangers_take_nothing_from_peers_with_a_session() {
    let mut gateway = Gateway::default();
    let peers = established(&mut gateway, 100);
    let expiring = |packet: Packet| Packet { ttl: 1, ..packet };
    let exceeded = "answered time-exceeded";
    type Kind<'k> = (Side, &'k dyn Fn(Ipv4Addr) -> Packet, &'k str);
    let kinds: [Kind<'_>; 4] = [
        (Side::Wan, &|peer| too_big(from_client(peer, 1600)), NEEDED),
        (Side::Lan, &|peer| too_big(from_server(peer, 1600)), NEEDED),
        (
            Side::Wan,
            &|peer| expiring(from_client(peer, 100)),
            exceeded,
        ),
        (
            Side::Lan,
            &|peer| expiring(from_server(peer, 100)),
            exceeded,
        ),
    ];
    for (side, packet, answer) in kinds {
        let mut refused = 0;
        for _ in 0..60_000 {
            let stranger = gateway.next_peer();
            let verdict = gateway.verdict(side, &packet(stranger), NOW);
            refused += usize::from(verdict == "dropped icmp-limited");
        }
        assert!(refused > 10_000, "{refused}: not every bucket is full");
        for peer in &peers {
            assert_eq!(
                gateway.verdict(side, &packet(*peer), NOW),
                answer,
                "{side:?}"
            );
        }
    }
}

/// Routers outside report the MTU of the path to a client. Neither forged errors about packets to
/// strangers, nor those that a client forges about packets to itself, from any number of reporters,
/// take these reports from the others.
#[test]
fn forged_errors_take_nothing_from_peers_with_a_session() {
    let mut gateway = Gateway::default();
    let peers = established(&mut gateway, 201);
    let reporter = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(45, 0, 0, 0)) + number);
    let mut refused = 0;
    for number in 0..300_000 {
        let about = match number % 3 {
            0 => peers[0],
            _ => gateway.next_peer(),
        };
        let verdict = gateway.verdict(Side::Wan, &forged_error(about, reporter(number)), NOW);
        refused += usize::from(verdict == "dropped icmp-limited");
    }
    assert!(refused > 50_000, "{refused}: not every bucket is full");
    let reported = peers[1..].iter().filter(|peer| {
        let error = forged_error(**peer, Ipv4Addr::new(46, 0, 0, 1));
        gateway.verdict(Side::Wan, &error, NOW) == "forward icmp in untracked"
    });
    let reported = reported.count();
    assert!(reported >= 190, "{reported} of 200");
}

/// No origin of errors takes anything from another one (the limit is RFC 1812 section 4.3.2.8): its
/// buckets are its own, half of them for peers with a session, and all buckets belong to one.
#[test]
fn each_origin_of_errors_has_buckets_of_its_own() {
    const PEERS: usize = 20_000;
    type Kind = (fn(u8) -> Origin, usize);
    let origins: [Kind; 6] = [
        (
            |_| Origin::Own(Direction::Inbound, Reason::TimeExceeded),
            32,
        ),
        (|_| Origin::Own(Direction::Inbound, NEEDS), 32),
        (
            |_| Origin::Own(Direction::Outbound, Reason::TimeExceeded),
            32,
        ),
        (|_| Origin::Own(Direction::Outbound, NEEDS), 32),
        (|n| Origin::Reporter(Direction::Outbound, [192, 0, 2, n]), 8),
        (|n| Origin::Reporter(Direction::Inbound, [192, 0, 2, n]), 4),
    ];
    let mut gateway = Gateway::with_sizes(1 << 14, 1 << 14);
    let known = established(&mut gateway, PEERS);
    let strangers: Vec<Ipv4Addr> = (0..PEERS).map(|_| gateway.next_peer()).collect();
    let mut all = Vec::new();
    for (origin, part) in origins {
        for peers in [&known, &strangers] {
            for (peer, reporter) in peers.iter().flat_map(|peer| (0..8).map(move |n| (peer, n))) {
                gateway.allows_error(*peer, origin(reporter));
            }
            let used = gateway.tables.take_used_icmp_buckets();
            assert_eq!(used.len() * part, ICMP_BUCKETS as usize, "{:?}", origin(0));
            all.extend(used);
        }
    }
    all.sort_unstable();
    assert!(
        all.into_iter().eq(0..ICMP_BUCKETS as usize),
        "shared buckets"
    );
}

const NEEDS: Reason = Reason::FragmentationNeeded;

/// The reporters of errors about one peer have a few buckets, whatever they are.
#[test]
fn the_reporters_of_one_peer_share_a_few_buckets() {
    let mut gateway = Gateway::default();
    let peer = established(&mut gateway, 1)[0];
    for number in 0..10_000_u32 {
        let reporter = Origin::Reporter(Direction::Inbound, number.to_be_bytes());
        gateway.allows_error(peer, reporter);
    }
    let used = gateway.tables.take_used_icmp_buckets().len();
    assert_eq!(used, ICMP_BUCKETS_PER_PEER as usize);
}
