//! Peers on a list: `--except-peer` leaves them to the host, `--deny` drops their packets.
//!
//! The packets go through the packet logic on the host.

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::config::{DENY, EXCEPT, LIST_BITS, peers_key};
use xdp_common::{Config, Hook, Vip};
use xdp_core::Side;

const EXCEPTED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// The usual configuration; its service has the list with this number.
fn with_list(list: u16) -> Config {
    let config = fixture::config();
    Config {
        lists: 1,
        vip: Vip { list, ..config.vip },
        ..config
    }
    .seal()
}

/// What becomes of a packet of a peer to a VIP, or of its server to the peer, at XDP and in tc.
fn verdicts(
    (tables, config): (&Tables, &Config),
    side: Side,
    (source, destination): (Ipv4Addr, Ipv4Addr),
) -> [String; 2] {
    let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
    let (to, from) = match side {
        Side::Lan => (LAN_MAC, SERVER_MAC),
        Side::Wan | Side::Both | Side::Out => (WAN_MAC, CLIENT_MAC),
    };
    let packet = Packet::udp((source, 500), (destination, 500), [7; 40]).with_macs(to, from);
    [Hook::Xdp, Hook::Tc].map(|hook| {
        let mut frame = packet.build();
        let ran = host::run_in(hook, (tables, &fib, config), side, &mut frame);
        host::word(ran.verdict)
    })
}

#[test]
fn a_list_decides_about_the_packets_from_and_to_its_peers() {
    let config = with_list(1);
    let mut tables = Tables::new(&config);
    tables.list(1, EXCEPTED.octets(), EXCEPT);
    tables.list(1, DENIED.octets(), DENY);
    let of = |side, addresses| verdicts((&tables, &config), side, addresses);
    for (peer, [inbound, outbound]) in [
        (EXCEPTED, ["punted except-peer"; 2]),
        (DENIED, ["dropped denied"; 2]),
        (
            OTHER,
            ["forward ike in untracked", "forward ike out untracked"],
        ),
    ] {
        assert_eq!(of(Side::Wan, (peer, VIP)), [inbound; 2]);
        assert_eq!(of(Side::Lan, (SERVER, peer)), [outbound; 2]);
    }
}

/// Each service has a list of its own, several share one, or it has none.
#[test]
fn the_list_of_a_service_is_not_that_of_another() {
    let config = with_list(0);
    let egresses = [config.first_lan(), config.first_wan()];
    let vip = |number: u16, list| {
        let [address, server] = [VIP, SERVER].map(|usual| {
            let [a, b, c, d] = usual.octets();
            [a, b, c, d + u8::try_from(number).expect("small")]
        });
        let vip = Vip {
            address,
            server,
            service: number,
            number,
            first: number,
            list,
            ..config.vip
        };
        (vip, egresses)
    };
    let lists = [0, 2, 1, 2];
    let vips: Vec<_> = (0..).zip(lists).map(|(at, list)| vip(at, list)).collect();
    let config = config.with_vips(&vips).expect("four services");
    let mut tables = Tables::new(&config);
    tables.list(1, EXCEPTED.octets(), EXCEPT);
    tables.list(2, EXCEPTED.octets(), DENY);
    for ((vip, _), list) in vips.iter().zip(lists) {
        let inbound = (EXCEPTED, vip.address.into());
        let outbound = (vip.server.into(), EXCEPTED);
        for (side, addresses, forwarded) in [
            (Side::Wan, inbound, "forward ike in untracked"),
            (Side::Lan, outbound, "forward ike out untracked"),
        ] {
            let found = verdicts((&tables, &config), side, addresses);
            match list {
                0 => assert_eq!(found, [forwarded; 2]),
                1 => assert_eq!(found, ["punted except-peer"; 2]),
                _ => assert_eq!(found, ["dropped denied"; 2]),
            }
        }
    }
}

/// A number of a list and an address cannot be taken for those of another one.
#[test]
fn keys_of_lists_have_the_bytes_of_both() {
    assert_eq!(peers_key(0x0102, [3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(LIST_BITS, 16);
}
