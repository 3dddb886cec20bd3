//! The IPv4 header (RFC 791 section 3.1).

use crate::frame::Frame;

/// Length of the header without options.
pub const LENGTH: usize = 20;
/// Offset of the byte of version and header length.
pub const VERSION_LENGTH: usize = 0;
/// Offset of the type of service.
pub const TOS: usize = 1;
/// Offset of the total length.
pub const TOTAL_LENGTH: usize = 2;
/// Offset of the identification.
pub const ID: usize = 4;
/// Offset of the word of flags and fragment offset.
pub const FLAGS: usize = 6;
/// Offset of the TTL; the protocol number follows.
pub const TTL: usize = 8;
/// Offset of the protocol number.
pub const PROTOCOL: usize = 9;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SOURCE: usize = 12;
/// Offset of the destination address.
pub const DESTINATION: usize = 16;

/// Version 4 and a header without options.
pub const WITHOUT_OPTIONS: u8 = 0x45;
/// "Don't fragment" in the word of flags and offset.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments".
const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset in that word.
const OFFSET: u16 = 0x1fff;

/// An IP protocol number, as a type of its own so that it is never compared with an EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(u8);

impl Protocol {
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ESP (RFC 4303).
    pub const ESP: Self = Self(50);

    /// The protocol with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// True for UDP and TCP. In one comparison, for the same reason as [`Self::is_tcp_not_udp`].
    #[inline(always)]
    pub fn has_ports(self) -> bool {
        let number = u32::from(core::hint::black_box(self.0));
        (number ^ u32::from(Self::UDP.0)) * (number ^ u32::from(Self::TCP.0)) == 0
    }

    /// 1 for TCP, 0 for UDP, whose number is odd: for arithmetic, where the verifier would follow a branch
    /// to the end of the program.
    #[inline(always)]
    pub fn is_tcp_not_udp(self) -> usize {
        usize::from(core::hint::black_box(!self.0) & 1)
    }

    /// The number, for a hash.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The header's fields, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version and header length in units of four bytes.
    pub version_length: u8,
    /// Type of service.
    pub tos: u8,
    /// Length of the whole packet.
    pub total_length: u16,
    /// Identification, network order.
    pub id: [u8; 2],
    /// Flags and fragment offset.
    pub flags_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: Protocol,
    /// Header checksum.
    pub checksum: u16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Header {
    /// Reads the fixed part of the header that follows Ethernet.
    #[inline(always)]
    pub fn read_outer<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        frame.array(super::ethernet::LENGTH).map(Self::parse::<F>)
    }

    /// Reads the fixed part of the header at `at`: in the quote of an ICMP error.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes(at, Self::parse::<F>)
    }

    #[inline(always)]
    fn parse<F: Frame + ?Sized>(bytes: &[u8; LENGTH]) -> Self {
        let [ttl, protocol] = F::get16::<TTL, LENGTH>(bytes).to_ne_bytes();
        Self {
            version_length: bytes[VERSION_LENGTH],
            tos: bytes[TOS],
            total_length: u16::from_be(F::get16::<TOTAL_LENGTH, LENGTH>(bytes)),
            id: F::get16::<ID, LENGTH>(bytes).to_ne_bytes(),
            flags_offset: u16::from_be(F::get16::<FLAGS, LENGTH>(bytes)),
            ttl,
            protocol: Protocol(protocol),
            checksum: u16::from_be(F::get16::<CHECKSUM, LENGTH>(bytes)),
            source: F::get32::<SOURCE, LENGTH>(bytes).to_ne_bytes(),
            destination: F::get32::<DESTINATION, LENGTH>(bytes).to_ne_bytes(),
        }
    }

    /// The header as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; LENGTH] {
        let [a, b] = self.total_length.to_be_bytes();
        let [c, d] = self.id;
        let [e, f] = self.flags_offset.to_be_bytes();
        let [g, h] = self.checksum.to_be_bytes();
        let [i, j, k, l] = self.source;
        let [m, n, o, p] = self.destination;
        let (first, tos) = (self.version_length, self.tos);
        let (ttl, protocol) = (self.ttl, self.protocol.0);
        [
            first, tos, a, b, c, d, e, f, ttl, protocol, g, h, i, j, k, l, m, n, o, p,
        ]
    }

    /// The sum of the words of this header without its checksum, not folded; it has no options. The
    /// complement of the folded sum is the checksum (RFC 791 section 3.1).
    #[inline(always)]
    #[must_use]
    pub fn sum(&self) -> u64 {
        let pair = |high: u8, low: u8| u64::from(u16::from_be_bytes([high, low]));
        let address = |[a, b, c, d]: [u8; 4]| pair(a, b) + pair(c, d);
        pair(self.version_length, self.tos)
            + u64::from(self.total_length)
            + pair(self.id[0], self.id[1])
            + u64::from(self.flags_offset)
            + pair(self.ttl, self.protocol.0)
            + address(self.source)
            + address(self.destination)
    }

    /// Length of the header with its options, 20 to 60, or `None` when version or length are wrong.
    #[inline(always)]
    pub fn header_length(&self) -> Option<usize> {
        let words = self.version_length & 0xf;
        (self.version_length >> 4 == 4 && words >= 5).then_some(usize::from(words) * 4)
    }

    /// True unless this is the first fragment or the whole packet.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.flags_offset & OFFSET != 0
    }

    /// True for the first of several fragments.
    #[inline(always)]
    pub const fn is_first_fragment(&self) -> bool {
        self.flags_offset & (OFFSET | MORE_FRAGMENTS) == MORE_FRAGMENTS
    }

    /// True when DF is set: the packet must not be fragmented.
    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_offset & DONT_FRAGMENT != 0
    }

    /// Where this fragment's data belongs, in units of eight bytes.
    #[inline(always)]
    pub const fn offset(&self) -> u16 {
        self.flags_offset & OFFSET
    }
}

/// Loose and strict source route (RFC 791 section 3.1).
const SOURCE_ROUTES: [u8; 2] = [131, 137];
/// End of the option list.
const END_OF_OPTIONS: u8 = 0;
/// No operation: the other option without a length.
const NO_OPERATION: u8 = 1;
/// The most options that are read, single bytes of padding among them: each of them is paid for
/// again and again by the verifier.
const OPTIONS: usize = 12;

/// What the options of a header are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Options {
    /// None of them is a source route.
    Harmless,
    /// One of them is.
    SourceRoute,
    /// The lengths do not add up.
    Malformed,
    /// There are more than any sender needs: they are not read.
    TooMany,
}

/// No option that begins in a header ends beyond this: it bounds an offset that comes from a packet,
/// for the verifier.
const OFFSET_MASK: usize = 0x1ff;

/// Reads the options of the header that follows Ethernet.
// Out of line: two callers, and packets with options are rare. The length of the header is read once
// more, and the offset masked in each turn: otherwise the verifier would go on with each of their
// values.
#[inline(never)]
pub fn options<F: Frame + ?Sized>(frame: &F) -> Options {
    let Some(length) = Header::read_outer(frame).and_then(|ip| ip.header_length()) else {
        return Options::Malformed;
    };
    let end = super::ethernet::LENGTH + length;
    let mut next = super::ethernet::LENGTH + LENGTH;
    let mut count = 0;
    while count < OPTIONS {
        count += 1;
        if next >= end {
            return if next == end {
                Options::Harmless
            } else {
                Options::Malformed
            };
        }
        let Some([kind, length]) = frame.with_bytes(next, |bytes: &[u8; 2]| *bytes) else {
            // A single byte at the very end of the frame is no option with a length.
            return Options::Harmless;
        };
        if kind == SOURCE_ROUTES[0] || kind == SOURCE_ROUTES[1] {
            return Options::SourceRoute;
        }
        if kind == END_OF_OPTIONS {
            return Options::Harmless;
        }
        let is_padding = kind == NO_OPERATION;
        if !is_padding && length < 2 {
            return Options::Malformed;
        }
        let after = next + if is_padding { 1 } else { usize::from(length) };
        // The compiler knows that it changes nothing, and would leave it out; the verifier does not.
        next = core::hint::black_box(after) & OFFSET_MASK;
    }
    Options::TooMany
}
