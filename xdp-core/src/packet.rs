//! The parsed packet, and the four words that it is packed into between two steps of the pipeline.

use crate::vip::{Found, Vips};
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{esp, udp};
use xdp_common::limits::{IKE_PORT, NATT_PORT};
use xdp_common::vips::VIPS;
use xdp_common::{Class, Config, Direction};

/// A handled packet, as far as its headers show.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Inbound or outbound.
    pub direction: Direction,
    /// The class of its contents.
    pub class: Class,
    /// The peer's address.
    pub peer: [u8; 4],
    /// The peer's port of UDP or TCP; 0 without ports.
    pub port: u16,
    /// SPI and sequence number; zero when it is not ESP, or ESP that cannot be tracked.
    pub esp: esp::Header,
    /// Offset of the IKE header; 0: there is none.
    pub ike_at: usize,
    /// IPv4 total length.
    pub total_length: u16,
    /// TTL on arrival.
    pub ttl: u8,
    /// IP protocol.
    pub protocol: Protocol,
    /// Offset of the UDP or TCP header; 0: there is none in this packet (ESP, or a non-first fragment).
    pub transport_at: usize,
    /// Length of that header in units of four bytes.
    pub transport_words: u8,
    /// Its payload begins a stream of IKE over TCP.
    pub begins_stream: bool,
    /// IPv4 identification, for the fragments.
    pub id: [u8; 2],
    /// True for the first of several fragments.
    pub first_fragment: bool,
    /// Length of the IPv4 header with its options, in units of four bytes. A number and not a truth
    /// value, since a comparison this early would be two paths for the verifier.
    pub header_words: u8,
    /// DF is set: the packet must not be fragmented.
    pub dont_fragment: bool,
    /// Offset of a fragment's data in units of eight bytes; 0: a first fragment, or a whole packet.
    pub offset: u16,
    /// Length of the data: the total length less that of the header.
    pub data: u16,
    /// Type of service.
    pub tos: u8,
    /// Number of the VIP.
    pub vip: u16,
    /// Outbound: nothing shows which of several VIPs the peer uses, and this is the first one.
    pub vip_guessed: bool,
}

/// A bit above the number of a VIP: nothing shows that the peer uses it.
pub(crate) const VIP_GUESSED: u32 = 1 << 16;

/// True for an address of no host on the Internet, although a default route leads there. What the
/// server sends to one is left to this host.
#[inline(always)]
pub const fn is_no_host(address: [u8; 4]) -> bool {
    matches!(address[0], 0 | 127 | 224..=255)
}

/// [`Packet`] as words, which [`crate::Env::store_packet`] stores and [`crate::Env::load_packet`]
/// loads.
pub type PackedPacket = [u64; 4];

/// All headers end well before this: an offset loaded from memory is bounded by it for the
/// verifier.
const OFFSETS: u64 = 0x7f;

/// The length of a header has four bits, below the number of the VIP.
const HEADER_WORDS: u64 = 0xf;
const VIP_SHIFT: u32 = 52;
/// That of a transport header has as many.
const TRANSPORT_SHIFT: u32 = 8;
const _: () = assert!(VIPS <= 1 << (64 - VIP_SHIFT));

impl Packet {
    /// Where its IKE header is. `None`: it has none, or one without a marker.
    #[inline(always)]
    pub(crate) const fn ike_header(&self) -> Option<usize> {
        if self.ike_at == 0 || self.is_unmarked_ike() {
            None
        } else {
            Some(self.ike_at)
        }
    }

    /// True for IKE between port 500 and 4500, which has no marker: what looks like one, or like ESP, is part of
    /// an SPI.
    #[inline(always)]
    pub(crate) const fn is_unmarked_ike(&self) -> bool {
        matches!(self.class, Class::NattIke | Class::EspInUdp) && self.port == IKE_PORT
    }

    /// A packet of which only the IPv4 header is known, such as a fragment without ports, or one
    /// that an ICMP error quotes.
    #[inline(always)]
    pub const fn fragment((direction, vip): Found, peer: [u8; 4], ip: &ipv4::Header) -> Self {
        Self {
            direction,
            vip,
            class: Class::Fragment,
            peer,
            port: 0,
            esp: NO_ESP,
            ike_at: 0,
            total_length: ip.total_length,
            ttl: ip.ttl,
            protocol: ip.protocol,
            transport_at: 0,
            transport_words: UDP_WORDS,
            begins_stream: false,
            id: ip.id,
            first_fragment: ip.is_first_fragment(),
            header_words: ip.version_length & 0xf,
            dont_fragment: ip.dont_fragment(),
            offset: ip.offset(),
            data: 0,
            tos: ip.tos,
            vip_guessed: false,
        }
    }

    /// A hop word for what this packet belongs to: none if its VIP is a guess, which holds for this
    /// packet alone.
    #[inline(always)]
    pub fn hop_to_keep<V: Vips>(&self, config: &Config, hop: u64) -> u64 {
        if V::has_several(config) {
            hop & u64::from(self.vip_guessed).wrapping_sub(1)
        } else {
            hop
        }
    }

    /// True when the IPv4 header has options.
    #[inline(always)]
    pub const fn has_options(&self) -> bool {
        self.header_words > MIN_HEADER_WORDS
    }

    /// Source and destination port as the kernel's rules see them ([`crate::env::FibQuery::ports`]).
    // Without branches: the verifier would follow each one to the end of the program.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "ports have 16 bits")]
    pub fn routed_ports(&self) -> [u16; 2] {
        // All ones with ports, and no first fragment.
        let has_ports = ((self.transport_at as u64 & OFFSETS) + OFFSETS) >> 7;
        // Hidden from the compiler, which would make a branch of it.
        let is_read = has_ports & !u64::from(self.first_fragment);
        let mask = 0_u64.wrapping_sub(core::hint::black_box(is_read));
        // 1 unless the class is IKE.
        let other = ((self.class as u64 ^ Class::Ike as u64) + 0xf) >> 4;
        let service = u64::from(IKE_PORT) + u64::from(NATT_PORT - IKE_PORT) * other;
        let service = core::hint::black_box(service);
        let ports = (u64::from(self.port) | service << 16) & mask;
        let ports = ports << (16 * self.direction as u64);
        // Outbound the peer's port is the destination: the upper half moves around.
        let ports = ports | ports >> 32;
        [ports as u16, (ports >> 16) as u16]
    }

    /// The length of the packets that leave: the kernel cuts a frame that was merged of datagrams with
    /// a payload of this size into these. 0: it was not merged.
    // Without branches, likewise.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "no more than before")]
    pub fn length_to_send(&self, merged: u32) -> u16 {
        let merged = u64::from(core::hint::black_box(merged));
        // All ones for a merged frame.
        let mask = 0_u64.wrapping_sub((merged + 0xffff_ffff) >> 32);
        let header = 4 * u64::from(self.transport_words);
        let cut = (header + merged).wrapping_sub(u64::from(self.data));
        u64::from(self.total_length).wrapping_add(cut & mask) as u16
    }

    /// Packs the packet into words.
    #[inline(always)]
    pub const fn pack(&self) -> PackedPacket {
        let id = u16::from_ne_bytes(self.id) as u64;
        let kind =
            (self.class as u64) << 4 | (self.direction as u64) << 1 | self.first_fragment as u64;
        [
            (u32::from_ne_bytes(self.peer) as u64) << 32
                | (self.port as u64) << 16
                | self.total_length as u64,
            (self.esp.spi as u64) << 32 | self.esp.sequence as u64,
            id << 48
                | (self.ttl as u64) << 40
                | (self.protocol.number() as u64) << 32
                | (self.transport_at as u64 & OFFSETS) << 24
                | (self.ike_at as u64 & OFFSETS) << 16
                | (self.transport_words as u64 & HEADER_WORDS) << TRANSPORT_SHIFT
                | kind,
            (self.vip as u64) << VIP_SHIFT
                | (self.header_words as u64 & HEADER_WORDS) << 48
                | (self.data as u64) << 32
                | (self.offset as u64) << 16
                | (self.tos as u64) << 8
                | (self.vip_guessed as u64) << 2
                | (self.begins_stream as u64) << 1
                | self.dont_fragment as u64,
        ]
    }

    /// Unpacks a packet. `None`: no packet was packed there.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of words are meant")]
    pub const fn unpack([addresses, esp, rest, cut]: PackedPacket) -> Option<Self> {
        let Some(class) = Class::from_number(rest >> 4 & 0xf) else {
            return None;
        };
        Some(Self {
            direction: if rest & 2 == 0 {
                Direction::Inbound
            } else {
                Direction::Outbound
            },
            class,
            peer: ((addresses >> 32) as u32).to_ne_bytes(),
            port: (addresses >> 16) as u16,
            esp: esp::Header {
                spi: (esp >> 32) as u32,
                sequence: esp as u32,
            },
            ike_at: (rest >> 16 & OFFSETS) as usize,
            total_length: addresses as u16,
            ttl: (rest >> 40) as u8,
            protocol: Protocol::from_number((rest >> 32) as u8),
            transport_at: (rest >> 24 & OFFSETS) as usize,
            transport_words: (rest >> TRANSPORT_SHIFT & HEADER_WORDS) as u8,
            begins_stream: cut & 2 != 0,
            id: ((rest >> 48) as u16).to_ne_bytes(),
            first_fragment: rest & 1 != 0,
            header_words: (cut >> 48 & HEADER_WORDS) as u8,
            dont_fragment: cut & 1 != 0,
            offset: (cut >> 16) as u16,
            data: (cut >> 32) as u16,
            tos: (cut >> 8) as u8,
            vip: (cut >> VIP_SHIFT) as u16,
            vip_guessed: cut & 4 != 0,
        })
    }
}

/// Words of a header without options.
const MIN_HEADER_WORDS: u8 = ipv4::WITHOUT_OPTIONS & 0xf;

/// Words of a UDP header.
#[expect(clippy::cast_possible_truncation, reason = "two")]
const UDP_WORDS: u8 = (udp::LENGTH / 4) as u8;

const NO_ESP: esp::Header = esp::Header {
    spi: 0,
    sequence: 0,
};
