//! Peers on a list: `--except-peer` leaves them to the host, `--deny-peer` drops their packets.
//!
//! The packets go through the packet logic on the host.

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::config::{DENY, EXCEPT};
use xdp_common::{Config, Hook};
use xdp_core::Side;

const EXCEPTED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

#[test]
fn a_list_decides_about_the_packets_from_and_to_its_peers() {
    let config = Config {
        lists: 1,
        ..fixture::config()
    }
    .seal();
    let mut tables = Tables::new(&config);
    tables.list(EXCEPTED.octets(), EXCEPT);
    tables.list(DENIED.octets(), DENY);
    let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
    let verdict = |hook, side, packet: &Packet| {
        let mut frame = packet.build();
        let ran = host::run_in(hook, (&tables, &fib, &config), side, &mut frame);
        host::word(ran.verdict)
    };
    for (peer, [inbound, outbound]) in [
        (EXCEPTED, ["punted except-peer"; 2]),
        (DENIED, ["dropped denied"; 2]),
        (
            OTHER,
            ["forward ike in untracked", "forward ike out untracked"],
        ),
    ] {
        for hook in [Hook::Xdp, Hook::Tc] {
            let packet = Packet::udp((peer, 500), (VIP, 500), [7; 40]);
            let packet = packet.with_macs(WAN_MAC, CLIENT_MAC);
            assert_eq!(verdict(hook, Side::Wan, &packet), inbound);
            let packet = Packet::udp((SERVER, 500), (peer, 500), [7; 40]);
            let packet = packet.with_macs(LAN_MAC, SERVER_MAC);
            assert_eq!(verdict(hook, Side::Lan, &packet), outbound);
        }
    }
}
