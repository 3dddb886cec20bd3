//! The frame reader: bytes to header fields, with a verdict on the checksums.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Result, bail, ensure};

use super::{
    DONT_FRAGMENT, ETHERNET, ETHERTYPE_IPV4, IPV4, Icmp, MORE_FRAGMENTS, UDP, add, address,
    protocol, pseudo_header, sum,
};

/// What the UDP checksum of a captured frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Right.
    Right,
    /// Not computed.
    Zero,
    /// The sum of the pseudo header only: the sender's kernel leaves the rest to the device.
    Partial,
    /// None of these.
    Wrong,
}

/// A captured IPv4 frame, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Flags and fragment offset.
    pub flags: u16,
    /// Whether the header checksum is right.
    pub header_checksum: bool,
    /// From the first byte of the IPv4 header to the last of the packet, without padding.
    pub packet: Vec<u8>,
    /// What follows the IPv4 header, without padding.
    pub body: Vec<u8>,
}

impl Captured {
    /// Reads a frame; one that is not IPv4, or shorter than it says, is an error.
    pub fn read(frame: &[u8]) -> Result<Self> {
        ensure!(
            frame.len() >= ETHERNET + IPV4,
            "a frame of {} bytes",
            frame.len()
        );
        ensure!(
            frame[12..14] == ETHERTYPE_IPV4,
            "EtherType {:02x?}",
            &frame[12..14]
        );
        let ip = &frame[ETHERNET..];
        let header = usize::from(ip[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        if ip[0] >> 4 != 4 || header < IPV4 || total < header || ip.len() < total {
            bail!(
                "an IPv4 header of {header} bytes in {total}, captured {}",
                ip.len()
            );
        }
        Ok(Self {
            source: address(&ip[12..16]),
            destination: address(&ip[16..20]),
            ttl: ip[8],
            id: u16::from_be_bytes([ip[4], ip[5]]),
            protocol: ip[9],
            flags: u16::from_be_bytes([ip[6], ip[7]]),
            header_checksum: sum(&ip[..header]) == 0xFFFF,
            packet: ip[..total].to_vec(),
            body: ip[header..total].to_vec(),
        })
    }

    /// Source and destination port of an unfragmented UDP datagram.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let whole = self.flags & !DONT_FRAGMENT == 0;
        if self.protocol != protocol::UDP || !whole || self.body.len() < UDP {
            return None;
        }
        let word = |at: usize| u16::from_be_bytes([self.body[at], self.body[at + 1]]);
        Some((word(0), word(2)))
    }

    /// The ICMP message in an unfragmented packet.
    pub fn icmp(&self) -> Option<Icmp> {
        let whole = self.flags & !DONT_FRAGMENT == 0;
        let icmp = self.protocol == protocol::ICMP && whole;
        icmp.then(|| Icmp::read(&self.body).ok()).flatten()
    }

    /// The offset of a fragment in its datagram, and whether more fragments follow; `None` for a
    /// whole packet.
    pub fn fragment(&self) -> Option<(usize, bool)> {
        let more = self.flags & MORE_FRAGMENTS != 0;
        let offset = usize::from(self.flags & !(MORE_FRAGMENTS | DONT_FRAGMENT)) * 8;
        (more || offset > 0).then_some((offset, more))
    }

    /// What an unfragmented UDP datagram carries.
    pub fn udp_payload(&self) -> Option<&[u8]> {
        self.ports().map(|_| &self.body[UDP..])
    }

    /// What the checksum of an unfragmented UDP datagram is.
    pub fn udp_checksum(&self) -> Option<Verdict> {
        self.ports()?;
        let field = u16::from_be_bytes([self.body[6], self.body[7]]);
        let length = u16::try_from(self.body.len()).ok()?;
        let pseudo = pseudo_header(self.source, self.destination, protocol::UDP, length);
        Some(if field == 0 {
            Verdict::Zero
        } else if add(pseudo, sum(&self.body)) == 0xFFFF {
            Verdict::Right
        } else if field == pseudo {
            Verdict::Partial
        } else {
            Verdict::Wrong
        })
    }
}

/// Whether the frame is something else than IPv4 (ARP above all).
pub fn not_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) != Some(&ETHERTYPE_IPV4)
}

/// One line about a frame, and its bytes, for an error.
pub fn describe(frame: &[u8]) -> String {
    let mut text = match Captured::read(frame) {
        Ok(ip) => format!(
            "{} -> {} protocol {} ttl {} flags {:04x} ports {:?} header checksum {} UDP checksum {:?}:",
            ip.source,
            ip.destination,
            ip.protocol,
            ip.ttl,
            ip.flags,
            ip.ports(),
            if ip.header_checksum { "right" } else { "wrong" },
            ip.udp_checksum()
        ),
        Err(error) => format!("not a complete IPv4 packet ({error}):"),
    };
    for byte in frame.iter().take(128) {
        let _ = write!(text, " {byte:02x}");
    }
    text
}
