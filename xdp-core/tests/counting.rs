//! What counting a packet writes: what changes rarely is written only when it changes, since it is
//! in another cache line.

#![cfg(not(loom))]

#[path = "support/traced.rs"]
mod traced;

use traced::{Traced, traced, writes};
use xdp_common::slot::{WORDS, flow};
use xdp_common::{Class, Direction};
use xdp_core::Word;
use xdp_core::conntrack::flow::count_and_refresh;
use xdp_core::packet::Packet;
use xdp_core::wire::esp;
use xdp_core::wire::ipv4::{self, Protocol};

/// Inbound ESP in UDP from this port.
fn from_port(port: u16) -> Packet {
    let ip = ipv4::Header {
        version_length: ipv4::WITHOUT_OPTIONS,
        tos: 0,
        total_length: 100,
        id: [0; 2],
        flags_offset: 0,
        ttl: 64,
        protocol: Protocol::UDP,
        checksum: 0,
        source: [198, 51, 100, 7],
        destination: [203, 0, 113, 1],
    };
    Packet {
        class: Class::EspInUdp,
        port,
        esp: esp::Header {
            spi: 0x1234,
            sequence: 1,
        },
        ..Packet::fragment(Direction::Inbound, ip.source, &ip)
    }
}

/// What was written to the port and to the next hop.
fn rare(slot: &[Traced]) -> Vec<(usize, u64)> {
    let all = writes(slot).into_iter();
    all.filter(|(place, _)| [flow::FIRST, flow::HOP].contains(place))
        .collect()
}

#[test]
fn a_flow_follows_the_port_of_its_peer() {
    let slot: [Traced; WORDS] = traced();
    // The first number and the wraps, which stay.
    for kept in [0, 9 << 32 | 3 << 16] {
        slot[flow::FIRST].store(kept | 4500);
        // All bits of the second one differ.
        for port in [1024, !1024, u16::MAX, 4500] {
            writes(&slot);
            for expected in [vec![(flow::FIRST, kept | u64::from(port))], vec![]] {
                count_and_refresh(&slot, &from_port(port), 7, 0);
                assert_eq!(rare(&slot), expected, "{port}");
            }
        }
    }
}

#[test]
fn a_flow_keeps_its_next_hop_while_there_is_no_other() {
    let slot: [Traced; WORDS] = traced();
    count_and_refresh(&slot, &from_port(0), 7, 0xabc);
    assert_eq!(rare(&slot), [(flow::HOP, 0xabc)]);
    count_and_refresh(&slot, &from_port(0), 7, 0);
    assert_eq!(rare(&slot), []);
}
