//! What counting a packet writes: what changes rarely is written only when it changes, since it is
//! in the cold half.

#![cfg(not(loom))]

#[path = "support/traced.rs"]
mod traced;

use std::collections::BTreeSet;
use traced::{Traced, traced, writes};
use xdp_common::slot::{WORDS, flow};
use xdp_common::{Class, Direction};
use xdp_core::Word;
use xdp_core::conntrack::flow::{count_and_refresh, count_packet};
use xdp_core::packet::Packet;
use xdp_core::table::Arrays;
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
        ..Packet::fragment((Direction::Inbound, 0), ip.source, &ip)
    }
}

/// The halves of the only slot of a table.
struct Flow {
    hot: [Traced; WORDS],
    cold: [[Traced; WORDS]; 1],
}

impl Flow {
    fn new() -> Self {
        let (hot, cold) = (traced(), [traced()]);
        Self { hot, cold }
    }

    /// Counts a packet of the general path.
    fn count(&self, packet: &Packet, hop: u64) {
        count_and_refresh(&Arrays::new(&[], &self.cold), &self.hot, packet, 7, hop);
    }

    /// What was written since the last time, in the hot half and in the cold one.
    fn writes(&self) -> [Vec<(usize, u64)>; 2] {
        [writes(&self.hot), writes(&self.cold[0])]
    }
}

#[test]
fn a_flow_follows_the_port_of_its_peer() {
    let counted = Flow::new();
    // The first number and the wraps, which stay.
    for kept in [0, 9 << 32 | 3 << 16] {
        counted.cold[0][flow::FIRST].store(kept | 4500);
        // All bits of the second one differ.
        for port in [1024, !1024, u16::MAX, 4500] {
            // The sequence number is ahead, so nothing else is unusual.
            counted.hot[flow::SEEN].store(0);
            counted.writes();
            for expected in [vec![(flow::FIRST, kept | u64::from(port))], vec![]] {
                counted.count(&from_port(port), 0);
                assert_eq!(counted.writes()[1], expected, "{port}");
                counted.hot[flow::SEEN].store(0);
            }
        }
    }
}

#[test]
fn a_flow_keeps_its_next_hop_while_there_is_no_other() {
    let counted = Flow::new();
    let hops = || {
        let [hot, _] = counted.writes();
        let is_hop = |(at, _): &(usize, u64)| *at == flow::HOP;
        hot.into_iter().filter(is_hop).collect::<Vec<_>>()
    };
    counted.count(&from_port(0), 0xabc);
    assert_eq!(hops(), [(flow::HOP, 0xabc)]);
    counted.count(&from_port(0), 0);
    assert_eq!(hops(), []);
}

/// A packet of the fast path touches one cache line.
#[test]
fn a_packet_in_order_neither_reads_nor_writes_the_cold_half() {
    let hot: [Traced; WORDS] = traced();
    // A table without cold halves: a look-up would find none, and the packet would not be counted.
    let none = Arrays::new(&[], &[]);
    for sequence in 1..4 {
        count_packet(&none, &hot, sequence, 100, 7);
        assert_eq!(hot[flow::SEEN].load(), 7 << 32 | u64::from(sequence));
    }
    assert_eq!(hot[flow::PACKETS].load(), 3);
    let written: BTreeSet<usize> = writes(&hot).into_iter().map(|(at, _)| at).collect();
    assert_eq!(written, [flow::PACKETS, flow::BYTES, flow::SEEN].into());
}
