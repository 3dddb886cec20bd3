//! ICMP messages byte by byte (RFC 792, RFC 1191), correct or deliberately wrong, with the packets
//! that they quote.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{Checksum, ETHERNET, IPV4, Packet, add, address, sum};

/// Type, code, checksum and the four bytes whose meaning depends on the type.
const HEADER: usize = 8;

/// ICMP types that the tests use.
pub mod kind {
    /// An answer to [`ECHO`].
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (RFC 6633: obsolete).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// A ping.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER: u8 = 12;
}

/// Codes of [`kind::UNREACHABLE`] that the tests name.
pub mod code {
    /// No host has that address.
    pub const HOST: u8 = 1;
    /// No socket listens on that port.
    pub const PORT: u8 = 3;
    /// Fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

/// An ICMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The four bytes behind the checksum: unused, pointer, MTU, or identifier and number.
    pub rest: [u8; 4],
    /// How its checksum is computed. [`Checksum::Zero`] has no special meaning here: the field is
    /// zero.
    pub checksum: Checksum,
    /// What follows: in an error, the packet that caused it.
    pub data: Vec<u8>,
}

impl Icmp {
    /// A message with a right checksum.
    pub fn new(kind: u8, code: u8, data: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            code,
            rest: [0; 4],
            checksum: Checksum::Right,
            data: data.into(),
        }
    }

    /// Fragmentation needed, with the MTU of the next link (RFC 1191 section 4).
    pub fn fragmentation_needed(mtu: u16, data: impl Into<Vec<u8>>) -> Self {
        let [high, low] = mtu.to_be_bytes();
        Self {
            rest: [0, 0, high, low],
            ..Self::new(kind::UNREACHABLE, code::FRAGMENTATION_NEEDED, data)
        }
    }

    /// The same with other four bytes behind the checksum.
    pub fn with_rest(mut self, rest: [u8; 4]) -> Self {
        self.rest = rest;
        self
    }

    /// The same with another checksum.
    pub fn with_checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// The MTU of the next link, where a router puts it.
    pub fn mtu(&self) -> u16 {
        u16::from_be_bytes([self.rest[2], self.rest[3]])
    }

    /// The message.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest);
        bytes.extend(&self.data);
        let right = !sum(&bytes);
        let field = match self.checksum {
            Checksum::Right => right,
            Checksum::Zero => 0,
            Checksum::OffBy(error) => add(right, error),
        };
        bytes[2..4].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    /// Reads a message and keeps the error of its checksum.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() >= HEADER, "ICMP of {} bytes", bytes.len());
        // With a right checksum the sum is all ones; what is more than that is the error.
        let total = sum(bytes);
        let checksum = if total == 0xFFFF {
            Checksum::Right
        } else {
            Checksum::OffBy(total)
        };
        Ok(Self {
            kind: bytes[0],
            code: bytes[1],
            rest: [bytes[4], bytes[5], bytes[6], bytes[7]],
            checksum,
            data: bytes[HEADER..].to_vec(),
        })
    }
}

/// The start of a packet as an error quotes it: its IPv4 header and `length` bytes after that, or
/// as many as there are.
pub fn quote(packet: &Packet, length: usize) -> Vec<u8> {
    let frame = packet.build();
    let header = IPV4 + packet.options.len();
    let end = frame.len() - packet.padding.len();
    frame[ETHERNET..end.min(ETHERNET + header + length)].to_vec()
}

/// Source and destination of a quoted packet.
pub fn quoted_addresses(quote: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr)> {
    ensure!(
        quote.len() >= IPV4 && quote[0] >> 4 == 4,
        "a quote of {} bytes that holds no IPv4 header",
        quote.len()
    );
    Ok((address(&quote[12..16]), address(&quote[16..20])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_message_has_its_known_checksum() {
        // The first echo request of many captures: identifier 1, number 1, "abcd...wabcdefghi".
        let data: Vec<u8> = (b'a'..=b'w').chain(b'a'..=b'i').collect();
        let echo = Icmp::new(kind::ECHO, 0, data).with_rest([0, 1, 0, 1]);
        assert_eq!(echo.build()[..8], [8, 0, 0x4D, 0x5A, 0, 1, 0, 1]);
    }

    #[test]
    fn the_reader_finds_what_the_builder_put_in() {
        for checksum in [Checksum::Right, Checksum::OffBy(0x1234)] {
            for length in [0, 1, 28, 549] {
                let message =
                    Icmp::fragmentation_needed(1280, vec![0xA5; length]).with_checksum(checksum);
                let read = Icmp::read(&message.build()).expect("a message");
                assert_eq!(read, message);
                assert_eq!(read.mtu(), 1280);
            }
        }
    }

    #[test]
    fn a_quote_ends_where_it_should() {
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
        let mut packet = Packet::udp((a, 1), (b, 2), [7; 30]);
        packet.padding = vec![0; 9];
        assert_eq!(quote(&packet, 8), packet.build()[14..42]);
        assert_eq!(quote(&packet, 1000).len(), 20 + 8 + 30);
        assert_eq!(
            quoted_addresses(&quote(&packet, 0)).expect("a header"),
            (a, b)
        );
        assert!(quoted_addresses(&quote(&packet, 0)[..19]).is_err());
    }
}
