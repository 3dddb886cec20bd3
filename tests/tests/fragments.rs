//! Which datagram a fragment without ports belongs to (RFC 791 section 3.2: source, destination,
//! protocol and identification).
//!
//! The packets go through the slow path's packet logic on the host.

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::{Config, Hook};
use xdp_core::Side;

const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
const ID: u16 = 0x1234;
/// The first fragment has so many bytes of data.
const CUT: usize = 48;

/// A fragment at this offset that has the same length in any case.
fn later(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, id: u16, offset: usize) -> Packet {
    let mut packet = Packet::raw(from, to, protocol, [3; 16]);
    packet.id = id;
    packet.flags = u16::try_from(offset / 8).expect("small");
    packet
}

/// All datagrams share one bucket, so that only the entry shows which one it belongs to.
#[test]
fn a_later_fragment_follows_the_first_one_of_its_own_datagram() {
    let config = Config {
        fragment_mask: 0,
        ..fixture::config()
    }
    .seal();
    let tables = Tables::new(&config);
    let fib = |_: [u8; 4], destination, length| fixture::fib(&config, destination, length);
    let verdict = |side, mut frame: Vec<u8>| {
        let ran = host::run_in(Hook::Tc, (&tables, &fib, &config), side, &mut frame);
        host::word(ran.verdict)
    };
    let inbound = |from, protocol, id, offset| {
        let packet = later(from, VIP, protocol, id, offset);
        verdict(Side::Wan, packet.with_macs(WAN_MAC, CLIENT_MAC).build())
    };
    let mut whole = Packet::udp((PEER, 500), (VIP, 500), [3; 100]).with_macs(WAN_MAC, CLIENT_MAC);
    whole.id = ID;
    let first = verdict(Side::Wan, whole.build_fragments(&[CUT])[0].clone());
    assert_eq!(first, "forward ike in untracked");
    let handled = "forward fragment in untracked";
    let foreign = "punted other-fragment";
    assert_eq!(inbound(PEER, protocol::UDP, ID, CUT), handled);
    for other in [ID + 1, ID ^ 0x100] {
        let verdict = inbound(PEER, protocol::UDP, other, CUT);
        assert_eq!(verdict, foreign, "identification {other:#x}");
    }
    let verdict_of_other = inbound(OTHER, protocol::UDP, ID, CUT);
    assert_eq!(verdict_of_other, foreign, "another peer");
    // It would overlap the end of the first one.
    assert_eq!(
        inbound(PEER, protocol::UDP, ID, CUT - 8),
        "dropped fragment-overlap"
    );
    let esp = inbound(PEER, protocol::ESP, ID, CUT - 8);
    assert_eq!(esp, handled, "another protocol");
    let back = later(SERVER, PEER, protocol::UDP, ID, CUT).with_macs(LAN_MAC, SERVER_MAC);
    let back = verdict(Side::Lan, back.build());
    assert_eq!(back, foreign, "the other direction");
}
