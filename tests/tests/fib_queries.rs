//! What the FIB is asked for a packet: all that the kernel's rules may look at.

use ikenat_tests::bpf::fixture::{self, PEER, peer_sends, server_sends};
use ikenat_tests::bpf::host::{self, Host, Tables};
use ikenat_tests::lab::frames::{DONT_FRAGMENT, Packet};
use ikenat_tests::lab::icmp_errors::{about, error_from_outside, time_exceeded};
use ikenat_tests::lab::topology::{CLIENT, LAN_MAC, SERVER, SERVER_MAC, VIP};
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
    }
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
