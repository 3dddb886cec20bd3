//! Headers as bytes: what `emit` writes is what the RFCs' figures show, and `read` reads it back.

#![cfg(not(loom))]

use proptest::prelude::*;
use xdp_core::Frame;
use xdp_core::checksum::fold;
use xdp_core::wire::ethernet::{self, EtherType};
use xdp_core::wire::icmp::{self, Kind};
use xdp_core::wire::ike;
use xdp_core::wire::ipv4::{self, Protocol};
use xdp_core::wire::{esp, tcp, udp};

/// The example that RFC 1071 and textbooks calculate by hand: 192.168.0.1 to 192.168.0.199, UDP.
#[rustfmt::skip]
const IPV4: [u8; 20] = [
    0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61,
    192, 168, 0, 1, 192, 168, 0, 199,
];

#[test]
fn ipv4_is_the_figure_of_rfc_791() {
    let header = ipv4::Header {
        version_length: ipv4::WITHOUT_OPTIONS,
        tos: 0,
        total_length: 0x73,
        id: [0; 2],
        flags_offset: ipv4::DONT_FRAGMENT,
        ttl: 64,
        protocol: Protocol::UDP,
        checksum: 0xb861,
        source: [192, 168, 0, 1],
        destination: [192, 168, 0, 199],
    };
    assert_eq!(header.emit(), IPV4);
    assert_eq!(!fold(header.sum()), 0xb861);
    assert_eq!(ipv4::Header::read(&IPV4[..], 0), Some(header));
    assert_eq!(ipv4::Header::read(&IPV4[..19], 0), None);
    assert!(header.dont_fragment() && !header.is_first_fragment() && !header.is_later_fragment());
}

#[test]
fn the_other_headers_are_their_figures() {
    let frame: [u8; 14] = [2, 0, 0, 0, 1, 10, 2, 0, 0, 0, 1, 1, 8, 0];
    let header = ethernet::Header {
        destination: [2, 0, 0, 0, 1, 10],
        source: [2, 0, 0, 0, 1, 1],
        ether_type: EtherType::IPV4,
    };
    assert_eq!(header.emit(), frame);
    assert_eq!(ethernet::Header::read(&frame[..]), Some(header));
    assert!(!header.has_group_source());

    // RFC 768: source port, destination port, length, checksum.
    let datagram = [0x11, 0x94, 0x01, 0xf4, 0x00, 0x09, 0xab, 0xcd];
    let header = udp::Header {
        source: 4500,
        destination: 500,
        length: 9,
        checksum: 0xabcd,
    };
    assert_eq!(header.emit(), datagram);
    assert_eq!(udp::Header::read(&datagram[..], 0), Some(header));

    // RFC 4303 section 2: SPI, sequence number.
    let packet = [0xc0, 0xde, 0x00, 0x01, 0x00, 0x00, 0x01, 0x02];
    let header = esp::Header {
        spi: 0xc0de_0001,
        sequence: 258,
    };
    assert_eq!(header.emit(), packet);
    assert_eq!(esp::Header::read(&packet[..], 0), Some(header));

    // RFC 1191 section 4: type 3, code 4, the MTU in the low two bytes.
    let message = [3, 4, 0x12, 0x34, 0, 0, 0x05, 0xdc];
    let header = icmp::Header {
        kind: Kind::UNREACHABLE,
        code: icmp::FRAGMENTATION_NEEDED,
        checksum: 0x1234,
        rest: [0, 0, 0x05, 0xdc],
    };
    assert_eq!(header.emit(), message);
    assert_eq!(icmp::Header::read(&message[..], 0), Some(header));
}

#[test]
fn ike_is_the_figure_of_rfc_7296() {
    // Section 3.1: an IKE_SA_INIT response.
    #[rustfmt::skip]
    let message: [u8; ike::LENGTH] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        33, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0x01, 0x02,
    ];
    let header = ike::Header {
        initiator: [1, 2, 3, 4, 5, 6, 7, 8],
        responder: [9, 10, 11, 12, 13, 14, 15, 16],
        next_payload: 33,
        version: 0x20,
        exchange_type: 34,
        flags: 0x20,
        message_id: 0,
        length: 258,
    };
    assert_eq!(header.emit(), message);
    assert_eq!(ike::Header::read(&message[..], 0), Some(header));
    assert_eq!(ike::Header::read(&message[..27], 0), None);
    assert!(header.has_both_spis() && header.has_chosen_responder_spi());
}

proptest! {
    /// What is read is what was written, at any offset, whatever the bytes are.
    #[test]
    fn emit_writes_what_read_reads(bytes: [u8; 64], at in 0_usize..32) {
        let frame = &bytes[..];
        let part = |length: usize| &bytes[at..at + length];
        let ethernet = ethernet::Header::read(frame).expect("64 bytes");
        prop_assert_eq!(&ethernet.emit()[..], &bytes[..ethernet::LENGTH]);
        prop_assert_eq!(&ipv4::Header::read(frame, at).expect("64 bytes").emit()[..], part(ipv4::LENGTH));
        prop_assert_eq!(&udp::Header::read(frame, at).expect("64 bytes").emit()[..], part(udp::LENGTH));
        prop_assert_eq!(&esp::Header::read(frame, at).expect("64 bytes").emit()[..], part(esp::LENGTH));
        prop_assert_eq!(&icmp::Header::read(frame, at).expect("64 bytes").emit()[..], part(icmp::LENGTH));
        prop_assert_eq!(&ike::Header::read(frame, at).expect("64 bytes").emit()[..], part(ike::LENGTH));
        let outer = ipv4::Header::read_outer(frame).expect("64 bytes");
        prop_assert_eq!(Some(outer), ipv4::Header::read(frame, ethernet::LENGTH));
    }

    /// A header with that checksum sums to 0xffff (RFC 791 section 3.1, RFC 1071).
    #[test]
    fn the_complement_of_the_sum_is_the_checksum(bytes: [u8; 20]) {
        let header = ipv4::Header::read(&bytes[..], 0).expect("20 bytes");
        let sealed = ipv4::Header { checksum: !fold(header.sum()), ..header };
        prop_assert_eq!(sealed.emit()[..].sum(0, ipv4::LENGTH), Some(0xffff));
    }
}

/// RFC 9293 section 3.1.
#[test]
fn tcp_is_the_figure_of_rfc_9293() {
    #[rustfmt::skip]
    let segment = [
        0x9c, 0x40, 0x11, 0x94, 1, 2, 3, 4, 5, 6, 7, 8,
        0x50, 0x18, 0x20, 0x01, 0xab, 0xcd, 0, 9,
    ];
    let header = tcp::Header {
        source: 40_000,
        destination: 4500,
        sequence: 0x0102_0304,
        acknowledgment: 0x0506_0708,
        data_offset: 0x50,
        flags: 0x18,
        window: 0x2001,
        checksum: 0xabcd,
        urgent: 9,
    };
    assert_eq!(header.emit(), segment);
    assert_eq!(header.words(), 5);
    assert_eq!(tcp::Header::read(&segment[..], 0), Some(header));
    assert_eq!(tcp::Header::read(&segment[..19], 0), None);
    assert_eq!(tcp::ports(&segment[..4], 0), Some((40_000, 4500)));
    assert_eq!(tcp::ports(&segment[..3], 0), None);
}
