//! What teaches the gateway the peers of the host itself, and what strangers cannot bring about.
//!
//! The packets go through the packet logic on the host.

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::gateway::{Gateway, NOW};
use ikenat_tests::bpf::host::{Host, Tables, word};
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, SERVER, VIP, WAN_MAC};
use xdp_common::config::EXCEPT;
use xdp_common::{Config, Vip};
use xdp_core::{FibResult, Side};

/// The peers of the host itself are learned from what the host sends, and from nothing else that
/// leaves by the WAN with the VIP as its source.
#[test]
fn only_what_the_host_sends_teaches_its_peers() {
    let config = fixture::config();
    let tables = Tables::new(&config);
    let fib = |_: [u8; 4], _: [u8; 4], _: u16| FibResult::NoRoute;
    let egress = || Host::<true, true>::new(&tables, &fib, NOW);
    let sent = |port| {
        let packet = Packet::udp((VIP, port), (CLIENT, port), [7; 40]);
        packet.with_macs(CLIENT_MAC, WAN_MAC).build()
    };
    let verdict = |host: Host<'_, true, true>, port| {
        let verdict = host.run(&config, Side::Out, &mut sent(port));
        word(verdict)
    };
    let other = "punted other-address";
    assert_eq!(verdict(egress().handled(), 500), other);
    assert_eq!(
        verdict(egress().received_on(config.wan_ifindex), 500),
        other
    );
    assert_eq!(verdict(egress(), 53), other);
    let gateway = |port| {
        let packet = Packet::udp((CLIENT, port), (VIP, port), [7; 40]);
        let mut frame = packet.with_macs(WAN_MAC, CLIENT_MAC).build();
        let host = Host::<true>::new(&tables, &fib, NOW);
        word(host.run(&config, Side::Wan, &mut frame))
    };
    assert_eq!(gateway(500), "dropped no-route", "nothing was taught");
    // The host itself, and a host behind it.
    assert_eq!(verdict(egress(), 500), "punted host-peer");
    assert_eq!(gateway(500), "punted host-peer");
    let from_lan = egress().received_on(config.lan_ifindex);
    assert_eq!(verdict(from_lan, 4500), "punted host-peer");
    assert_eq!(gateway(4500), "punted host-peer");
    // On a one-armed gateway they are behind the WAN.
    let one_armed = fixture::one_armed(config);
    let from_wan = egress().received_on(config.wan_ifindex);
    let taught = from_wan.run(&one_armed, Side::Out, &mut sent(500));
    assert_eq!(word(taught), "punted host-peer");
}

/// A list decides first: the peers of `--except-peer` need no entry.
#[test]
fn listed_peers_are_not_learned() {
    let usual = fixture::config();
    let config = Config {
        lists: 1,
        vip: Vip {
            list: 1,
            ..usual.vip
        },
        ..usual
    };
    let mut tables = Tables::new(&config);
    tables.list(1, CLIENT.octets(), EXCEPT);
    let fib = |_: [u8; 4], _: [u8; 4], _: u16| FibResult::NoRoute;
    let packet = Packet::udp((VIP, 500), (CLIENT, 500), [7; 40]).with_macs(CLIENT_MAC, WAN_MAC);
    let host = Host::<true, true>::new(&tables, &fib, NOW);
    let verdict = host.run(&config, Side::Out, &mut packet.build());
    assert_eq!(word(verdict), "punted other-address");
}

/// RFC 1122 section 3.3.6: what was broadcast on the link to a unicast address is discarded. Otherwise
/// a neighbour on the WAN would reach a daemon of the host on the VIP's own port.
#[test]
fn frames_to_a_group_do_not_reach_the_hosts_daemon() {
    let gateway = Gateway::default();
    let sent = |mac, packet: Packet| packet.with_macs(mac, CLIENT_MAC);
    let other_host = [0x02, 0, 0, 0, 0x99, 0x99];
    for group in [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 18]] {
        for packet in [
            Packet::udp((CLIENT, 500), (VIP, 500), [7; 40]),
            Packet::udp((CLIENT, 500), (VIP, 4500), [7; 40]),
            Packet::raw(CLIENT, VIP, protocol::ESP, [7; 40]),
        ] {
            let frame = sent(group, packet.clone());
            let verdict = gateway.verdict(Side::Wan, &frame, NOW);
            assert_eq!(verdict, "dropped group-frame", "{group:x?}");
            let in_xdp = gateway.verdict_in_xdp(Side::Wan, &frame, NOW);
            assert_eq!(in_xdp, "dropped group-frame", "{group:x?}");
            let verdict = gateway.verdict(Side::Wan, &sent(other_host, packet), NOW);
            assert_eq!(verdict, "punted not-our-mac", "of another host");
        }
        // Others may mean it: a relay of DHCP, for example.
        let other_port = Packet::udp((CLIENT, 500), (VIP, 68), [7; 40]);
        let verdict = gateway.verdict(Side::Wan, &sent(group, other_port), NOW);
        assert_eq!(verdict, "punted not-our-mac");
        let from_server = Packet::udp((SERVER, 500), (CLIENT, 500), [7; 40]);
        let verdict = gateway.verdict(Side::Lan, &sent(group, from_server), NOW);
        assert_eq!(verdict, "punted not-our-mac");
    }
}

/// A macvlan of a WAN (the virtual MAC address of VRRP) receives from outside as the WAN does; one of
/// a LAN, and any other interface of the host, from inside.
#[test]
fn what_a_macvlan_of_a_wan_has_received_teaches_nothing() {
    let with_macvlans = |wan, lan, config| Config {
        wan_macvlans: wan,
        lan_macvlans: lan,
        ..config
    };
    let (on_wan, on_lan) = ([20, 21, 0, 0, 0, 0, 0, 0], [30, 0, 0, 0, 0, 0, 0, 0]);
    let config = with_macvlans(on_wan, on_lan, fixture::config());
    let one_armed = with_macvlans(on_wan, on_wan, fixture::one_armed(fixture::config()));
    for (config, received_on, taught) in [
        (config, config.wan_ifindex, false),
        (config, 20, false),
        (config, 21, false),
        (config, config.lan_ifindex, true),
        (config, 30, true),
        (config, 40, true),
        // Hosts behind it are on its WAN.
        (one_armed, 20, true),
    ] {
        let tables = Tables::new(&config);
        let fib = |_: [u8; 4], _: [u8; 4], _: u16| FibResult::NoRoute;
        let host = Host::<true, true>::new(&tables, &fib, NOW).received_on(received_on);
        let packet = Packet::udp((VIP, 500), (CLIENT, 500), [7; 40]);
        let mut frame = packet.with_macs(CLIENT_MAC, WAN_MAC).build();
        let verdict = word(host.run(&config, Side::Out, &mut frame));
        assert_eq!(verdict == "punted host-peer", taught, "{received_on}");
    }
}
