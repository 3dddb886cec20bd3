//! The IPv4 header (RFC 791 section 3.1).

use crate::frame::Frame;

/// Offset of the header: directly after Ethernet. Frames with a VLAN tag are not handled.
pub const AT: usize = super::ethernet::LENGTH;
/// Length of the header without options.
pub const LENGTH: usize = 20;
/// Offset of the TTL in the frame.
pub const TTL: usize = AT + 8;
/// Offset of the protocol number.
pub const PROTOCOL: usize = AT + 9;
/// Offset of the header checksum.
pub const CHECKSUM: usize = AT + 10;
/// Offset of the source address.
pub const SOURCE: usize = AT + 12;
/// Offset of the destination address.
pub const DESTINATION: usize = AT + 16;

/// "Don't fragment" in the word of flags and offset.
const DONT_FRAGMENT: u16 = 0x4000;
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
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ESP (RFC 4303).
    pub const ESP: Self = Self(50);

    /// The protocol with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// The number, for a hash.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The header's fields, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    version_length: u8,
    /// Length of the whole packet.
    pub total_length: u16,
    /// Identification, network order.
    pub id: [u8; 2],
    flags_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: Protocol,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Header {
    /// Reads the fixed part of the header.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        frame.array(AT).map(Self::of::<F>)
    }

    /// The same for a header elsewhere: in the quote of an ICMP error.
    #[inline(always)]
    pub fn read_at<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes(at, Self::of::<F>)
    }

    #[inline(always)]
    fn of<F: Frame + ?Sized>(b: &[u8; LENGTH]) -> Self {
        let [ttl, protocol] = F::get16::<8, LENGTH>(b).to_ne_bytes();
        Self {
            version_length: b[0],
            total_length: u16::from_be(F::get16::<2, LENGTH>(b)),
            id: F::get16::<4, LENGTH>(b).to_ne_bytes(),
            flags_offset: u16::from_be(F::get16::<6, LENGTH>(b)),
            ttl,
            protocol: Protocol(protocol),
            source: F::get32::<12, LENGTH>(b).to_ne_bytes(),
            destination: F::get32::<16, LENGTH>(b).to_ne_bytes(),
        }
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
