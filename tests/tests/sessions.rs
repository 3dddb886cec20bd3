//! What a session counts and remembers of its peer.
//!
//! The packets go through the slow path's packet logic on the host.

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::gateway::{Gateway, NOW};
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::Direction;
use xdp_common::slot::{Contents, half_of, session};
use xdp_core::Side;

/// The server's ESP, which makes the peer established.
fn establish(gateway: &Gateway, peer: Ipv4Addr, now: u64) {
    let esp = b"\xee\0\0\x01\0\0\0\x01 encrypted";
    let verdict = gateway.outbound(4500, (peer, 4500), esp, now);
    assert_eq!(verdict, "forward esp-in-udp out");
}

/// The words of the only session.
fn only(gateway: &Gateway) -> Contents {
    let [words] = gateway.tables.sessions()[..] else {
        panic!("one session");
    };
    words
}

/// At a moment whose jiffies have more than 32 bits.
#[test]
fn a_session_knows_when_it_was_established() {
    let mut gateway = Gateway::default();
    let now = 0x12_3456_7890;
    let peer = gateway.next_peer();
    establish(&gateway, peer, now);
    let words = only(&gateway);
    assert_eq!(words.hot[session::LAST_SEEN], 0x3456_7890);
    let tick = now >> fixture::config().tick_shift;
    let created = session::created(words.hot[session::PORTS_CREATED]);
    assert_eq!(u64::from(created), tick & 0x7fff_ffff);
}

/// Makes a packet of source, destination and payload.
type Make = fn((Ipv4Addr, u16), (Ipv4Addr, u16), &[u8]) -> Packet;

/// What is neither ESP nor a fragment has a counter of its kind and direction.
#[test]
fn each_kind_of_message_is_counted_by_itself() {
    let mut gateway = Gateway::default();
    let peer = gateway.next_peer();
    establish(&gateway, peer, NOW);
    let marked = [0; 12];
    let udp: Make = |from, to, payload| Packet::udp(from, to, payload);
    let tcp: Make = |from, to, payload| Packet::tcp(from, to, payload);
    let messages: [(Make, u16, &[u8]); session::COUNTED] = [
        (udp, 500, &[7; 40]),
        (udp, 4500, &marked),
        (udp, 4500, &[0xff]),
        (udp, 4500, &[1; 3]),
        (tcp, 4500, &[1; 3]),
    ];
    let mut expected = [[0; 2]; session::COUNTED];
    for (kind, (make, port, message)) in messages.into_iter().enumerate() {
        let to_vip = make((peer, port), (VIP, port), message).with_macs(WAN_MAC, CLIENT_MAC);
        let to_peer = make((SERVER, port), (peer, port), message).with_macs(LAN_MAC, SERVER_MAC);
        for times in 0..=kind {
            let verdict = gateway.verdict(Side::Wan, &to_vip, NOW);
            assert!(!verdict.ends_with("untracked"), "{verdict}");
            expected[kind][Direction::Inbound as usize] += 1;
            if times > 0 {
                gateway.verdict(Side::Lan, &to_peer, NOW);
                expected[kind][Direction::Outbound as usize] += 1;
            }
            let counters = &only(&gateway).cold[session::COUNTERS..];
            let (counters, unused) = counters.split_at(session::COUNTED);
            let counted = |word: &u64| Direction::ALL.map(|direction| half_of(*word, direction));
            let counted: Vec<[u64; 2]> = counters.iter().map(counted).collect();
            assert_eq!(counted, expected, "{message:?}");
            assert_eq!(unused, [0]);
        }
    }
}

/// The ports to which the server sends what no forged address can make it send.
#[test]
fn a_session_follows_the_ports_of_its_peer() {
    let mut gateway = Gateway::default();
    let peer = gateway.next_peer();
    establish(&gateway, peer, NOW);
    let ports = || {
        let word = only(&gateway).hot[session::PORTS_CREATED];
        [true, false].map(|ike| session::port_on(word, ike))
    };
    assert_eq!(ports(), [0, 4500]);
    // RFC 7296 section 3.1: a response of IKE_AUTH begins with SK.
    let kind = [46, 0x20, 35, 0x20, 0, 0, 0, 1, 0, 0, 0, 40];
    let encrypted = [&b"initiatoresponde"[..], &kind, &[0x55; 12]].concat();
    let marked = [&[0; 4], &encrypted[..]].concat();
    for (port, message, far, expected) in [
        (500, &encrypted[..], 0x1234, [0x1234, 4500]),
        (4500, &marked, 0x5678, [0x1234, 0x5678]),
        (4500, &[0xff], 0x8765, [0x1234, 0x8765]),
        (500, &encrypted, 0x4321, [0x4321, 0x8765]),
        // Neither ESP, nor IKE, nor a keepalive.
        (4500, &[1; 3], 0x1111, [0x4321, 0x8765]),
    ] {
        let verdict = gateway.outbound(port, (peer, far), message, NOW);
        assert!(!verdict.ends_with("untracked"), "{verdict}");
        assert_eq!(ports(), expected, "{far:#x}");
    }
}

/// ESP is the server's proof of a port, and may be a stranger's who has seen an SPI.
#[test]
fn only_the_servers_esp_moves_the_port_of_a_session() {
    let mut gateway = Gateway::default();
    let peer = gateway.next_peer();
    establish(&gateway, peer, NOW);
    let port = || session::port_on(only(&gateway).hot[session::PORTS_CREATED], false);
    let inbound = b"\xef\0\0\x01\0\0\0\x01 encrypted";
    for far in [4500, 1111] {
        let verdict = gateway.inbound((peer, far), 4500, inbound, NOW);
        assert_eq!(verdict, "forward esp-in-udp in");
        assert_eq!(port(), 4500, "from {far}");
    }
    let outbound = b"\xee\0\0\x01\0\0\0\x02 encrypted";
    gateway.outbound(4500, (peer, 2222), outbound, NOW);
    assert_eq!(port(), 2222);
}

/// Of ESP without UDP a session knows only that there is some.
#[test]
fn a_session_knows_that_the_server_sends_native_esp() {
    let mut gateway = Gateway::default();
    let peer = gateway.next_peer();
    establish(&gateway, peer, NOW);
    let before = only(&gateway).hot[session::PORTS_CREATED];
    for spi in [0x1000_u32, 0x1001, 0x1001] {
        let esp = [&spi.to_be_bytes()[..], &[0, 0, 0, 1], &[0x55; 32]].concat();
        let packet = Packet::raw(SERVER, peer, protocol::ESP, esp).with_macs(LAN_MAC, SERVER_MAC);
        let verdict = gateway.verdict(Side::Lan, &packet, NOW);
        assert_eq!(verdict, "forward esp out");
        let now = only(&gateway).hot[session::PORTS_CREATED];
        assert_eq!(now, before | 1 << 63, "{spi:#x}");
    }
}
