//! Frames byte by byte: a builder whose checksums are correct or deliberately wrong, and a reader
//! that verifies them.
//!
//! Invariant: this code does not use `xdp-core`. A test with the same arithmetic as the dataplane
//! would share its faults.

mod build;
pub mod icmp;
mod read;

pub use build::{Body, Checksum, Packet};
pub use icmp::Icmp;
pub use read::{Captured, Verdict, describe, not_ipv4};

use std::net::Ipv4Addr;

/// A hardware address.
pub type Mac = [u8; 6];

/// IP protocol numbers that the tests use.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ESP.
    pub const ESP: u8 = 50;
}

pub(crate) const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const IPV4: usize = 20;
const UDP: usize = 8;
const TCP: usize = 20;
/// Flag "more fragments" in the word that holds the fragment offset.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
/// Flag "don't fragment" in the same word.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// The one's complement sum of big-endian words; an odd last byte is the high half of a word.
fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |total, pair| {
        add(
            total,
            u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]),
        )
    })
}

/// One's complement addition.
fn add(left: u16, right: u16) -> u16 {
    let (total, carry) = left.overflowing_add(right);
    total + u16::from(carry)
}

/// RFC 768: a computed zero is sent as all ones, because zero means "not computed".
fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xFFFF } else { checksum }
}

fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u16 {
    let addresses = add(sum(&source.octets()), sum(&destination.octets()));
    add(addresses, add(u16::from(protocol), length))
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

/// A timestamp option of this length (RFC 791 section 3.1: type, length, pointer, flags, and room for
/// timestamps), a multiple of four; none at 0.
pub fn timestamp(length: u8) -> Vec<u8> {
    let mut option = vec![0; usize::from(length)];
    if let Some(head) = option.first_chunk_mut() {
        *head = [68, length, 5, 0];
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    #[test]
    fn a_known_header_has_its_known_checksum() {
        // The example of RFC 1071's errata and many textbooks: 4500 0073 .. 40 11, checksum b861.
        let mut packet = Packet::udp(
            (Ipv4Addr::new(192, 168, 0, 1), 1),
            (Ipv4Addr::new(192, 168, 0, 199), 2),
            vec![0; 0x73 - 28],
        );
        packet.id = 0;
        packet.flags = DONT_FRAGMENT;
        assert_eq!(packet.build()[24..26], [0xB8, 0x61]);
    }

    #[test]
    fn the_reader_finds_what_the_builder_put_in() {
        for (checksum, verdict) in [
            (Checksum::Right, Verdict::Right),
            (Checksum::Zero, Verdict::Zero),
            (Checksum::OffBy(0x0101), Verdict::Wrong),
        ] {
            for length in [0, 1, 2, 101] {
                let frame = Packet::udp((A, 500), (B, 4500), vec![0xA5; length])
                    .with_checksum(checksum)
                    .build();
                let read = Captured::read(&frame).expect("an IPv4 frame");
                assert!(read.header_checksum);
                assert_eq!(read.ports(), Some((500, 4500)));
                assert_eq!(read.udp_checksum(), Some(verdict), "{checksum:?} {length}");
                assert_eq!(read.udp_payload(), Some(vec![0xA5; length].as_slice()));
            }
        }
    }

    #[test]
    fn fragments_cover_the_datagram_once() {
        let packet = Packet::udp((A, 500), (B, 500), (0..=255).collect::<Vec<u8>>());
        let whole = Captured::read(&packet.build()).expect("an IPv4 frame");
        let parts: Vec<Captured> = packet
            .build_fragments(&[64, 128])
            .iter()
            .map(|frame| Captured::read(frame).expect("an IPv4 frame"))
            .collect();
        let flags: Vec<u16> = parts.iter().map(|part| part.flags).collect();
        assert_eq!(flags, [MORE_FRAGMENTS, MORE_FRAGMENTS | 8, 16]);
        assert!(parts.iter().all(|part| part.header_checksum));
        let body: Vec<u8> = parts.iter().flat_map(|part| part.body.clone()).collect();
        assert_eq!(body, whole.body);
    }
}
