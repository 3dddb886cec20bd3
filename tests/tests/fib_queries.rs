//! What the FIB is asked for a packet: all that the kernel's rules may look at.

use ikenat_tests::bpf::fixture::{self, PEER, Services, VIP_2, peer_sends, server_sends};
use ikenat_tests::bpf::host::{self, Host, Tables};
use ikenat_tests::lab::frames::{DONT_FRAGMENT, Packet};
use ikenat_tests::lab::icmp_errors::{about, error_from_outside, time_exceeded};
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::{Config, Hook};
use xdp_core::neighbour::Gateway;
use xdp_core::{FibQuery, Side};

const MESSAGE: usize = 60;
const LARGE: usize = 1400;
const UDP: u8 = 17;
const ESP: u8 = 50;

/// What the FIB is asked for a frame.
fn asked(config: &Config, hook: Hook, (side, frame): (Side, &[u8])) -> FibQuery {
    fn ask<const TC: bool>(config: &Config, side: Side, mut frame: Vec<u8>) -> Option<FibQuery> {
        let tables = Tables::new(config);
        let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
        let host = Host::<TC>::new(&tables, &fib, 1 << 20);
        host.run(config, side, &mut frame);
        host.asked()
    }
    let ask = if hook == Hook::Tc {
        ask::<true>
    } else {
        ask::<false>
    };
    ask(config, side, frame.to_vec()).expect("the FIB is asked")
}

/// `ip rule` may look at each of these, and the kernel at what it finds in a packet itself: no ports
/// in a fragment, and not in the first one either.
#[test]
fn the_fib_is_asked_with_all_that_rules_look_at() {
    let config = fixture::config();
    for hook in [Hook::Xdp, Hook::Tc] {
        for port in [500, 4500] {
            let (side, mut packet) = server_sends(port, vec![0xc1; MESSAGE]);
            packet.tos = 0xb8;
            let found = asked(&config, hook, (side, &packet.build()));
            let expected = FibQuery {
                egress: 0,
                source: VIP.octets(),
                destination: PEER.octets(),
                total_length: 88,
                tos: 0xb8,
                protocol: UDP,
                ports: [port, port],
                ingress: 0,
            };
            assert_eq!(found, expected);
        }
        let (_, to_peer) = server_sends(4500, vec![0xc1; MESSAGE]);
        let mut esp = Packet::raw(SERVER, PEER, 50, vec![0xc1; MESSAGE]);
        esp = esp.with_macs(LAN_MAC, SERVER_MAC);
        let found = asked(&config, hook, (Side::Lan, &esp.build()));
        assert_eq!((found.protocol, found.ports), (ESP, [0, 0]));
        let fragments = to_peer.build_fragments(&[32]);
        let found = asked(&config, hook, (Side::Lan, &fragments[0]));
        assert_eq!((found.protocol, found.ports), (UDP, [0, 0]));
    }
    let moved = Packet::udp((SERVER, 4500), (PEER, 61_000), vec![0xc1; MESSAGE]);
    let moved = moved.with_macs(LAN_MAC, SERVER_MAC).build();
    let found = asked(&config, Hook::Xdp, (Side::Lan, &moved));
    assert_eq!(found.ports, [4500, 61_000]);
}

/// Who is inside is asked last, as a packet from the LAN.
#[test]
fn inside_sources_are_looked_up_as_the_servers_reply() {
    let config = fixture::config();
    let (side, packet) = peer_sends(500, vec![0x21; MESSAGE]);
    for hook in [Hook::Xdp, Hook::Tc] {
        let found = asked(&config, hook, (side, &packet.build()));
        assert_eq!(found.destination, PEER.octets());
        assert_eq!(found.ingress, config.lan_ifindex);
        assert_eq!(found.total_length, 20, "of no MTU");
    }
}

/// A rule may look at the VIP (`ip rule add from VIP`) and at the LAN: both are those of the service.
#[test]
fn inside_sources_are_looked_up_for_the_vip_of_the_packet() {
    const LAN_2: u32 = 9;
    let mut config = Services::Many.of(fixture::config());
    config.vips.translations[0][7].egress = LAN_2;
    let (other, server) = (
        Ipv4Addr::from(config.vips.vips[7].address),
        Ipv4Addr::from(config.vips.vips[7].server),
    );
    let to = |vip, packet: Packet| {
        Packet {
            destination: vip,
            ..packet
        }
        .with_macs(WAN_MAC, CLIENT_MAC)
    };
    let udp = |length| Packet::udp((PEER, 4500), (VIP, 4500), vec![0x21; length]);
    let error = |vip| {
        let quoted = Packet::udp((vip, 4500), (PEER, 4500), [1; 40]);
        error_from_outside(PEER, &about(&quoted, &time_exceeded(), 64))
    };
    for (vip, server, lan) in [
        (VIP, SERVER, config.lan_ifindex),
        (VIP_2, SERVER, config.lan_ifindex),
        (other, server, LAN_2),
    ] {
        let expiring = Packet {
            ttl: 1,
            ..udp(MESSAGE)
        };
        let segment = Packet::tcp((PEER, 40_000), (VIP, 4500), *b"IKETCP12");
        let fragments = to(vip, udp(MESSAGE)).build_fragments(&[32]);
        let own = Packet::raw(vip, PEER, 50, vec![0xc3; MESSAGE])
            .with_macs(CLIENT_MAC, WAN_MAC)
            .build();
        let native = Packet::raw(SERVER, PEER, 50, vec![0xc1; MESSAGE]);
        let native = Packet {
            source: server,
            ..native
        }
        .with_macs(LAN_MAC, SERVER_MAC)
        .build();
        let proof = Packet::udp((server, 4500), (PEER, 4500), vec![0xc1; MESSAGE]);
        let proof = proof.with_macs(LAN_MAC, SERVER_MAC).build();
        let esp = to(vip, Packet::raw(PEER, VIP, 50, vec![0xc2; MESSAGE])).build();
        let whole = to(vip, udp(MESSAGE)).build();
        let cases = [
            ("what no table counts", vec![(Side::Wan, whole)]),
            ("a stream", vec![(Side::Wan, to(vip, segment).build())]),
            (
                "what is answered",
                vec![(Side::Wan, to(vip, expiring).build())],
            ),
            ("an error", vec![(Side::Wan, to(vip, error(vip)).build())]),
            (
                "a fragment without its first",
                vec![(Side::Lan, proof), (Side::Wan, fragments[1].clone())],
            ),
            (
                "ESP that may be the host's",
                vec![(Side::Lan, native), (Side::Out, own), (Side::Wan, esp)],
            ),
        ];
        for (name, frames) in cases {
            let asked = ask_all(&config, frames);
            let about_source: Vec<_> = asked
                .iter()
                .filter(|query| query.destination == PEER.octets() && query.ingress != 0)
                .map(|query| (query.source, query.ingress))
                .collect();
            // Rules may lead replies of the VIP past the routes of the LAN.
            let expected = [(vip.octets(), lan), (server.octets(), lan)];
            assert!(!about_source.is_empty(), "{name}");
            for asked in about_source.chunks(2) {
                assert_eq!(asked, expected, "{name}");
            }
        }
    }
}

/// All that the FIB is asked by tc for frames that come one after the other.
fn ask_all(config: &Config, frames: Vec<(Side, Vec<u8>)>) -> Vec<FibQuery> {
    let tables = Tables::new(config);
    let fib = |_: [u8; 4], destination: [u8; 4], length| match destination {
        // The other servers.
        [10, ..] => fixture::fib(config, SERVER.octets(), length),
        _ => fixture::fib(config, destination, length),
    };
    let mut asked = Vec::new();
    for (side, mut frame) in frames {
        if side == Side::Out {
            let host = Host::<true, true>::new(&tables, &fib, 1 << 20);
            host.run(config, side, &mut frame);
        } else {
            let host = Host::<true>::new(&tables, &fib, 1 << 20);
            host.run(config, side, &mut frame);
            asked.extend(host.questions());
        }
    }
    asked
}

/// tc keeps the gateway of the packet's own route, although the route of its source is asked for later.
#[test]
fn tc_sends_to_the_gateway_of_the_packets_route() {
    let config = fixture::config();
    let (_, inbound) = peer_sends(500, vec![0x21; MESSAGE]);
    let (_, outbound) = server_sends(500, vec![0x21; MESSAGE]);
    let seen = Packet {
        source: VIP,
        ..outbound.clone()
    };
    let error = about(&seen, &time_exceeded(), 64);
    let from_outside = error_from_outside(PEER, &error);
    for (side, packet, gateway) in [
        (Side::Wan, inbound, SERVER),
        (Side::Lan, outbound, CLIENT),
        (Side::Wan, from_outside, SERVER),
    ] {
        let tables = Tables::new(&config);
        let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
        let host = Host::<true>::new(&tables, &fib, 1 << 20);
        let verdict = host::word(host.run(&config, side, &mut packet.build()));
        assert!(verdict.starts_with("forward"), "{verdict}");
        assert_eq!(host.gateway(), Some(Gateway::v4(gateway.octets())));
    }
}

/// The FIB is asked with the length of what leaves. Only tc sees what a device has merged.
#[test]
fn merged_datagrams_are_as_large_as_each_of_them() {
    let config = fixture::config();
    let (side, packet) = server_sends(4500, vec![0xc1; 10 * LARGE]);
    let tables = Tables::new(&config);
    let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
    for (merged, length, expected) in [
        (0, 10 * LARGE + 28, "answered fragmentation-needed"),
        (LARGE, LARGE + 28, "forward"),
        (MESSAGE, MESSAGE + 28, "forward"),
        (2 * LARGE, 2 * LARGE + 28, "answered fragmentation-needed"),
    ] {
        let merged = u32::try_from(merged).expect("small");
        let host = Host::<true>::new(&tables, &fib, 1 << 20).with_merged(merged);
        let mut frame = Packet {
            flags: DONT_FRAGMENT,
            ..packet.clone()
        }
        .build();
        let verdict = host::word(host.run(&config, side, &mut frame));
        assert!(verdict.starts_with(expected), "{merged}: {verdict}");
        let asked = host.asked().expect("the FIB is asked").total_length;
        assert_eq!(usize::from(asked), length);
    }
}
