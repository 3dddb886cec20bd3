//! What packets of strangers must not do, and what is no packet for a stranger.
//!
//! The packets go through the slow path's packet logic on the host.

use std::net::Ipv4Addr;

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::gateway::{Gateway, NOW, forged_error, from_client, from_server};
use ikenat_tests::bpf::host::{Fib, Host, Tables, word};
use ikenat_tests::lab::frames::icmp::{code, kind, quote};
use ikenat_tests::lab::frames::{DONT_FRAGMENT, Icmp, Packet, protocol};
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, GATEWAY_LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC,
};
use xdp_common::{Config, Direction, Hook};
use xdp_core::neighbour::Gateway as GatewayAddress;
use xdp_core::{FibQuery, FibResult, Side};

/// In tc the kernel compares the frame at hand with the MTU of the route if a question has no length. The
/// LAN of the source has a smaller one than that of the server.
#[test]
fn inside_addresses_are_no_sources_outside_in_long_frames() {
    const MTU_OF_SOURCE: u16 = 1400;
    let config = fixture::config();
    let source = Ipv4Addr::new(192, 168, 0, 77);
    let length = 1500;
    let rules = |query: &FibQuery| {
        let compared = match query.total_length {
            0 => length,
            asked => asked,
        };
        (query.destination == source.octets()).then(|| {
            if compared > MTU_OF_SOURCE {
                return FibResult::TooBig(MTU_OF_SOURCE);
            }
            FibResult::Unresolved {
                ifindex: config.lan_ifindex,
                gateway: GatewayAddress::v4(source.octets()),
            }
        })
    };
    let tables = Tables::new(&config);
    let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
    let host = Host::<true>::new(&tables, &fib, NOW).with_rules(&rules);
    let payload = usize::from(length) - 28;
    let mut frame = from_client(source, payload).build();
    assert_eq!(frame.len(), 14 + usize::from(length));
    let verdict = word(host.run(&config, Side::Wan, &mut frame));
    assert_eq!(verdict, "dropped inside-source");
}

/// A default route leads to the WAN whatever the address is: what is no host stays here.
#[test]
fn what_the_server_sends_to_no_host_is_left_to_this_host() {
    let gateway = Gateway::default();
    for destination in [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [239, 255, 255, 250],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ] {
        let packet = from_server(Ipv4Addr::from(destination), 100);
        let verdict = gateway.verdict(Side::Lan, &packet, NOW);
        assert_eq!(verdict, "punted not-by-wan", "{destination:?}");
    }
    for destination in [
        [1, 0, 0, 1],
        [126, 0, 0, 1],
        [128, 0, 0, 1],
        [223, 255, 255, 1],
    ] {
        let packet = from_server(Ipv4Addr::from(destination), 100);
        let verdict = gateway.verdict(Side::Lan, &packet, NOW);
        assert!(
            verdict.starts_with("forward "),
            "{destination:?}: {verdict}"
        );
    }
}

/// No host outside has an address of the server's network or of the gateway.
#[test]
fn inside_addresses_are_no_sources_outside() {
    let gateway = Gateway::default();
    let [a, b, c, _] = SERVER.octets();
    let inside = [Ipv4Addr::from([a, b, c, 77]), GATEWAY_LAN];
    let error = |source| {
        let quoted = quote(&Packet::udp((VIP, 4500), (CLIENT, 4500), [1; 40]), 8);
        let error = Icmp::new(kind::UNREACHABLE, code::HOST, quoted);
        Packet::icmp(source, VIP, &error).with_macs(WAN_MAC, CLIENT_MAC)
    };
    let kinds: [fn(Ipv4Addr) -> Packet; 6] = [
        |source| Packet::tcp((source, 40_000), (VIP, 4500), []),
        |source| Packet::tcp((source, 40_000), (VIP, 4500), *b"IKETCP12"),
        |source| Packet::udp((source, 500), (VIP, 500), [1; 40]),
        |source| Packet::udp((source, 4500), (VIP, 4500), [1; 40]),
        |source| Packet::udp((source, 4500), (VIP, 4500), [0xff]),
        |source| Packet::raw(source, VIP, protocol::ESP, [1; 40]),
    ];
    for source in inside {
        for kind in kinds {
            let packet = kind(source).with_macs(WAN_MAC, CLIENT_MAC);
            let verdict = gateway.verdict(Side::Wan, &packet, NOW);
            assert_eq!(verdict, "dropped inside-source", "{source}");
        }
        let verdict = gateway.verdict(Side::Wan, &error(source), NOW);
        assert_eq!(verdict, "dropped inside-source", "an error of {source}");
    }
    let streams = || gateway.tables.streams(Hook::Tc, Direction::Inbound);
    assert_eq!(streams(), 0, "a forged stream is none");
    for kind in kinds {
        let packet = kind(CLIENT).with_macs(WAN_MAC, CLIENT_MAC);
        let verdict = gateway.verdict(Side::Wan, &packet, NOW);
        assert!(verdict.starts_with("forward "), "{verdict}");
    }
    assert_eq!(streams(), 1);
    assert_eq!(
        gateway.verdict(Side::Wan, &error(CLIENT), NOW),
        "forward icmp in untracked"
    );
}

/// RFC 791 section 3.1: type, length, pointer, addresses.
const LOOSE: [u8; 7] = [131, 7, 4, 198, 51, 100, 9];
const STRICT: [u8; 7] = [137, 7, 4, 198, 51, 100, 9];

/// A source route is dropped wherever it stands among the options; its numbers within another option
/// mean nothing.
#[test]
fn source_routes_are_dropped_in_both_directions() {
    let mut gateway = Gateway::default();
    let dropped = "dropped source-route";
    for route in [LOOSE, STRICT] {
        for (options, refused) in [
            (route.to_vec(), true),
            ([&[1; 5][..], &route].concat(), true),
            ([&[1; 11][..], &route].concat(), true),
            // Router alert (RFC 2113) before it.
            ([&[148, 4, 0, 0][..], &route].concat(), true),
            // A timestamp (68) of 11 bytes whose data looks like one.
            ([&[68, 11, 5, 0][..], &route].concat(), false),
            // After the end of the list.
            ([&[0][..], &route].concat(), false),
        ] {
            let mut options = options;
            options.resize(options.len().next_multiple_of(4), 0);
            let peer = gateway.next_peer();
            for (side, packet) in [
                (Side::Wan, from_client(peer, 100)),
                (Side::Lan, from_server(peer, 100)),
            ] {
                let packet = Packet {
                    options: options.clone(),
                    ..packet
                };
                let verdict = gateway.verdict(side, &packet, NOW);
                let got = verdict == dropped;
                assert_eq!(got, refused, "{options:?} {side:?}: {verdict}");
                assert!(got || verdict.starts_with("forward "), "{verdict}");
            }
            let error = Packet {
                options: options.clone(),
                ..forged_error(peer, CLIENT)
            };
            let verdict = gateway.verdict(Side::Wan, &error, NOW);
            assert_eq!(verdict == dropped, refused, "an error: {verdict}");
        }
    }
}

/// The host's own stack answers options whose lengths are wrong (RFC 1122 section 3.2.1.8).
#[test]
fn options_that_contradict_themselves_are_left_to_the_host() {
    let mut gateway = Gateway::default();
    let wraps = [1, 1, 1, 1, 68, 255, 5, 0];
    let past_the_end = [68, 5, 5, 0];
    for options in [
        &[68, 0, 0, 0][..],
        &[68, 1, 0, 0],
        &[1, 1, 148, 1],
        &[1, 1, 1, 148],
        &past_the_end,
        &wraps,
    ] {
        let packet = Packet {
            options: options.to_vec(),
            ..from_client(gateway.next_peer(), 100)
        };
        let verdict = gateway.verdict(Side::Wan, &packet, NOW);
        assert_eq!(verdict, "punted malformed", "{options:?}");
    }
}

/// A daemon of the host on the VIP's own port would answer them, and so teach a peer of the host.
#[test]
fn more_options_than_are_read_are_dropped() {
    let mut gateway = Gateway::default();
    for options in [
        [1; 12].to_vec(),
        [1; 40].to_vec(),
        [&[1; 33][..], &LOOSE].concat(),
        // Router alert as often as it fits into 40 bytes, with padding between.
        [148, 4, 0, 0, 1].repeat(8),
    ] {
        let peer = gateway.next_peer();
        for (side, packet) in [
            (Side::Wan, from_client(peer, 100)),
            (Side::Lan, from_server(peer, 100)),
            (Side::Wan, forged_error(peer, CLIENT)),
        ] {
            let options = options.clone();
            let packet = Packet { options, ..packet };
            let verdict = gateway.verdict(side, &packet, NOW);
            assert_eq!(verdict, "dropped many-options", "{packet:?}");
        }
    }
}

/// Nothing shows whose a later fragment is before its first one: the host gets a copy of it.
#[test]
fn fragments_without_a_first_one_are_copied_to_the_host() {
    let config = fixture::config();
    let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
    let run = |config: &Config, before: &[(Side, Packet)], later: &[u8]| {
        let tables = Tables::new(config);
        for (side, packet) in before {
            Host::<true>::new(&tables, &fib, NOW).run(config, *side, &mut packet.build());
        }
        let host = Host::<true>::new(&tables, &fib, NOW);
        let verdict = host.run(config, Side::Wan, &mut later.to_vec());
        (word(verdict), host.copies())
    };
    let pieces = from_client(CLIENT, 100).build_fragments(&[48]);
    let esp = [0xc0, 1, 2, 3, 0, 0, 0, 1, 9, 9, 9, 9];
    let proof = Packet::udp((SERVER, 4500), (CLIENT, 4500), esp).with_macs(LAN_MAC, SERVER_MAC);
    let session = [(Side::Lan, proof)];
    let forwarded = |copies| ("forward fragment in untracked".to_owned(), copies);
    assert_eq!(run(&config, &session, &pieces[1]), forwarded(1));
    let unknown = ("punted other-fragment".to_owned(), 0);
    assert_eq!(run(&config, &[], &pieces[1]), unknown);
    // Whoever says that the VIP is for the server alone gets no copy, and a dry run makes none.
    let mut dedicated = config;
    dedicated.vip.dedicated = 1;
    assert_eq!(run(&dedicated, &session, &pieces[1]), forwarded(0));
    let dry_run = Config {
        dry_run: 1,
        ..config
    };
    assert_eq!(run(&dry_run, &session, &pieces[1]), forwarded(0));
}

/// A fragment whose source is behind a LAN is dropped before the host gets a copy of it, whether it
/// arrives before its first one or after it. Its address may have been a client's before, and that
/// of a peer of the host.
#[test]
fn fragments_from_inside_addresses_are_not_copied_to_the_host() {
    let config = fixture::config();
    let leads_to = |ifindex| {
        move |_: [u8; 4], destination: [u8; 4], _: u16| FibResult::Unresolved {
            ifindex,
            gateway: GatewayAddress::v4(destination),
        }
    };
    let (outside, inside) = (leads_to(config.wan_ifindex), leads_to(config.lan_ifindex));
    let esp = [0xc0, 1, 2, 3, 0, 0, 0, 1, 9, 9, 9, 9];
    let proof = Packet::udp((SERVER, 4500), (CLIENT, 4500), esp).with_macs(LAN_MAC, SERVER_MAC);
    let own = Packet::raw(VIP, CLIENT, protocol::ESP, [1; 40]).with_macs(CLIENT_MAC, WAN_MAC);
    let udp = from_client(CLIENT, 100);
    let native = Packet::raw(CLIENT, VIP, protocol::ESP, [1; 100]).with_macs(WAN_MAC, CLIENT_MAC);
    let run = |fib: &Fib<'_>, pieces: &[Vec<u8>]| {
        let tables = Tables::new(&config);
        let proven = Host::<true>::new(&tables, &outside, NOW);
        proven.run(&config, Side::Lan, &mut proof.build());
        let egress = Host::<true, true>::new(&tables, &outside, NOW);
        egress.run(&config, Side::Out, &mut own.build());
        let host = Host::<true>::new(&tables, fib, NOW);
        let verdicts = pieces.iter().map(|piece| {
            let verdict = host.run(&config, Side::Wan, &mut piece.clone());
            word(verdict)
        });
        let last = verdicts.last().expect("a fragment");
        (last, host.copies())
    };
    let dropped = ("dropped inside-source".to_owned(), 0);
    let shared = ("forward fragment in untracked".to_owned(), 1);
    let [udp, native] = [udp, native].map(|packet| packet.build_fragments(&[48]));
    for pieces in [&udp, &native] {
        assert_eq!(run(&outside, &pieces[1..]), shared);
        assert_eq!(run(&inside, &pieces[1..]), dropped, "before the first one");
    }
    assert_eq!(run(&inside, &udp), dropped, "after the first one");
}

/// No ICMP error goes out to an address behind a LAN because a packet from outside has it as its source.
#[test]
fn packets_from_inside_addresses_are_not_answered() {
    let gateway = Gateway::default();
    let [a, b, c, _] = SERVER.octets();
    for source in [Ipv4Addr::from([a, b, c, 77]), GATEWAY_LAN] {
        let expiring = Packet {
            ttl: 1,
            ..from_client(source, 100)
        };
        let too_big = Packet {
            flags: DONT_FRAGMENT,
            ..from_client(source, 1600)
        };
        for packet in [expiring, too_big] {
            let verdict = gateway.verdict(Side::Wan, &packet, NOW);
            assert_eq!(verdict, "dropped inside-source", "{source}");
        }
    }
}
