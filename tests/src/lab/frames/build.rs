//! The frame builder: header fields to bytes.

use std::net::Ipv4Addr;

use super::{
    ETHERNET, ETHERTYPE_IPV4, IPV4, Icmp, MORE_FRAGMENTS, Mac, TCP, UDP, add, never_zero, protocol,
    pseudo_header, sum,
};

/// How the checksum of a UDP or TCP header is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// As RFC 768 and RFC 9293 say.
    Right,
    /// Not computed by the sender.
    Zero,
    /// Wrong by this much in one's complement: a correct NAT leaves the difference as it is.
    OffBy(u16),
}

/// What follows the IPv4 header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A UDP datagram.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// How its checksum is computed.
        checksum: Checksum,
        /// What it carries.
        payload: Vec<u8>,
    },
    /// A segment of TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Its flags.
        flags: u8,
        /// Its sequence number, and its acknowledgment number.
        numbers: [u32; 2],
        /// How its checksum is computed. [`Checksum::Zero`] has no special meaning here: the field is
        /// zero.
        checksum: Checksum,
        /// Options, a multiple of four bytes.
        options: Vec<u8>,
        /// What it carries.
        payload: Vec<u8>,
    },
    /// Any other protocol, from the byte after the IPv4 header on.
    Raw {
        /// IP protocol number.
        protocol: u8,
        /// What it carries.
        payload: Vec<u8>,
    },
}

/// An IPv4 packet in an Ethernet frame, to be changed field by field and then built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet destination.
    pub to_mac: Mac,
    /// Ethernet source.
    pub from_mac: Mac,
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Type of service with the ECN bits.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset of the whole packet.
    pub flags: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Added to the right IPv4 header checksum.
    pub header_checksum_off_by: u16,
    /// The rest of the packet.
    pub body: Body,
    /// Ethernet padding behind the packet.
    pub padding: Vec<u8>,
}

impl Packet {
    /// A packet with usual header fields between two addresses.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, body: Body) -> Self {
        Self {
            to_mac: [0; 6],
            from_mac: [0; 6],
            source,
            destination,
            ttl: 64,
            tos: 0,
            id: 0x1234,
            flags: 0,
            options: Vec::new(),
            header_checksum_off_by: 0,
            body,
            padding: Vec::new(),
        }
    }

    /// A UDP datagram with a right checksum.
    pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: impl Into<Vec<u8>>) -> Self {
        let body = Body::Udp {
            source: from.1,
            destination: to.1,
            checksum: Checksum::Right,
            payload: payload.into(),
        };
        Self::new(from.0, to.0, body)
    }

    /// A segment of TCP with ACK and PSH, without options, with a right checksum.
    pub fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: impl Into<Vec<u8>>) -> Self {
        let body = Body::Tcp {
            source: from.1,
            destination: to.1,
            flags: 0x18,
            numbers: [0x1122_3344, 0x5566_7788],
            checksum: Checksum::Right,
            options: Vec::new(),
            payload: payload.into(),
        };
        Self::new(from.0, to.0, body)
    }

    /// A packet of another protocol.
    pub fn raw(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        payload: impl Into<Vec<u8>>,
    ) -> Self {
        let payload = payload.into();
        Self::new(source, destination, Body::Raw { protocol, payload })
    }

    /// An ICMP message.
    pub fn icmp(source: Ipv4Addr, destination: Ipv4Addr, message: &Icmp) -> Self {
        Self::raw(source, destination, protocol::ICMP, message.build())
    }

    /// The same packet with another ICMP message in it.
    pub fn with_icmp(mut self, message: &Icmp) -> Self {
        self.body = Body::Raw {
            protocol: protocol::ICMP,
            payload: message.build(),
        };
        self
    }

    /// The same with other hardware addresses.
    pub fn with_macs(mut self, to: Mac, from: Mac) -> Self {
        self.to_mac = to;
        self.from_mac = from;
        self
    }

    /// The same with another checksum of UDP or TCP; other protocols stay as they are.
    pub fn with_checksum(mut self, wanted: Checksum) -> Self {
        if let Body::Udp { checksum, .. } | Body::Tcp { checksum, .. } = &mut self.body {
            *checksum = wanted;
        }
        self
    }

    fn protocol(&self) -> u8 {
        match self.body {
            Body::Udp { .. } => protocol::UDP,
            Body::Tcp { .. } => protocol::TCP,
            Body::Raw { protocol, .. } => protocol,
        }
    }

    /// What follows the IPv4 header, with the checksum filled in.
    fn body_bytes(&self) -> Vec<u8> {
        let (source, destination, checksum, payload) = match &self.body {
            Body::Raw { payload, .. } => return payload.clone(),
            Body::Tcp { .. } => return self.segment(),
            Body::Udp {
                source,
                destination,
                checksum,
                payload,
            } => (source, destination, checksum, payload),
        };
        let length = u16::try_from(UDP + payload.len()).expect("a UDP datagram below 64 KiB");
        let mut bytes = Vec::with_capacity(UDP + payload.len());
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        let right = !add(
            pseudo_header(self.source, self.destination, protocol::UDP, length),
            sum(&bytes),
        );
        let field = match *checksum {
            Checksum::Zero => 0,
            Checksum::Right => never_zero(right),
            Checksum::OffBy(error) => never_zero(add(right, error)),
        };
        bytes[6..8].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    /// A segment of TCP (RFC 9293 section 3.1).
    fn segment(&self) -> Vec<u8> {
        let Body::Tcp {
            source,
            destination,
            flags,
            numbers,
            checksum,
            options,
            payload,
        } = &self.body
        else {
            return Vec::new();
        };
        let words = u8::try_from((TCP + options.len()) / 4).expect("at most 60 bytes of header");
        let mut bytes = Vec::new();
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(numbers.map(u32::to_be_bytes).as_flattened());
        bytes.extend([words << 4, *flags, 0x20, 0x01, 0, 0, 0, 0]);
        bytes.extend(options);
        bytes.extend(payload);
        let length = u16::try_from(bytes.len()).expect("a segment below 64 KiB");
        let pseudo = pseudo_header(self.source, self.destination, protocol::TCP, length);
        let right = !add(pseudo, sum(&bytes));
        let field = match *checksum {
            Checksum::Zero => 0,
            Checksum::Right => right,
            Checksum::OffBy(error) => add(right, error),
        };
        bytes[16..18].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        self.frame(&self.body_bytes(), self.flags, &self.padding)
    }

    /// The same datagram in fragments, cut before each offset (multiples of eight, ascending).
    pub fn build_fragments(&self, cuts: &[usize]) -> Vec<Vec<u8>> {
        let body = self.body_bytes();
        let mut starts = vec![0];
        starts.extend(cuts);
        let ends = starts[1..].iter().copied().chain([body.len()]);
        let ends: Vec<usize> = ends.collect();
        starts
            .iter()
            .zip(ends)
            .map(|(&start, end)| {
                assert!(
                    start % 8 == 0 && start < end,
                    "a cut at {start} of {}",
                    body.len()
                );
                let more = if end < body.len() { MORE_FRAGMENTS } else { 0 };
                let offset = u16::try_from(start / 8).expect("an offset below 64 KiB");
                self.frame(&body[start..end], self.flags | more | offset, &[])
            })
            .collect()
    }

    fn frame(&self, body: &[u8], flags: u16, padding: &[u8]) -> Vec<u8> {
        let header = IPV4 + self.options.len();
        let total = u16::try_from(header + body.len()).expect("a packet below 64 KiB");
        let version_and_length =
            0x40 | u8::try_from(header / 4).expect("at most 60 bytes of header");
        let mut ip = vec![version_and_length, self.tos];
        ip.extend(total.to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend(flags.to_be_bytes());
        ip.extend([self.ttl, self.protocol(), 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(self.destination.octets());
        ip.extend(&self.options);
        let checksum = add(!sum(&ip), self.header_checksum_off_by);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = Vec::with_capacity(ETHERNET + usize::from(total) + padding.len());
        frame.extend(self.to_mac);
        frame.extend(self.from_mac);
        frame.extend(ETHERTYPE_IPV4);
        frame.extend(ip);
        frame.extend(body);
        frame.extend(padding);
        frame
    }
}
