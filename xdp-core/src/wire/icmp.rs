//! ICMP errors (RFC 792): type, code, checksum, four bytes of their own, and the quoted packet.

use crate::frame::Frame;

/// Length of the header; the quote follows.
pub const LENGTH: usize = 8;
/// Offset of the type.
pub const KIND: usize = 0;
/// Offset of the code.
pub const CODE: usize = 1;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;
/// Offset of the four bytes whose meaning depends on the type.
pub const REST: usize = 4;
/// Bytes after the quoted IPv4 header that every error must carry (RFC 792): the UDP header, or SPI
/// and sequence number.
pub const QUOTED: usize = 8;

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// Destination unreachable.
    pub const UNREACHABLE: Self = Self(3);
    /// Redirect. An error for RFC 1122, but only about the next hop of its receiver.
    pub const REDIRECT: Self = Self(5);
    /// Source quench, which hosts no longer act upon (RFC 6633).
    pub const SOURCE_QUENCH: Self = Self(4);
    /// Time exceeded.
    pub const TIME_EXCEEDED: Self = Self(11);
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: Self = Self(12);

    /// The kind with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// The number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// True for the errors that a NAT passes on to the sender of the quoted packet.
    #[inline(always)]
    pub const fn is_passed_on(self) -> bool {
        matches!(
            self,
            Self::UNREACHABLE | Self::TIME_EXCEEDED | Self::PARAMETER_PROBLEM
        )
    }

    /// True for every error: none may be sent about one of them (RFC 1122 section 3.2.2).
    #[inline(always)]
    pub const fn is_error(self) -> bool {
        self.is_passed_on() || matches!(self, Self::SOURCE_QUENCH | Self::REDIRECT)
    }

    /// The kind of the message at `at`.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        // Read with the byte after it: the verifier gives no range for a single byte at a variable
        // offset.
        frame.with_bytes::<2, _>(at, |&[kind, _]| Self(kind))
    }
}

/// Code of [`Kind::UNREACHABLE`]: the packet is too big, and DF is set.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type.
    pub kind: Kind,
    /// Code.
    pub code: u8,
    /// Checksum over the whole message.
    pub checksum: u16,
    /// Depends on the type. In "fragmentation needed" the last two bytes are the MTU of the next hop
    /// (RFC 1191 section 4).
    pub rest: [u8; 4],
}

impl Header {
    /// Reads the header at `at`.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes::<LENGTH, _>(at, |bytes| Self {
            kind: Kind(bytes[KIND]),
            code: bytes[CODE],
            checksum: u16::from_be(F::get16::<CHECKSUM, LENGTH>(bytes)),
            rest: F::get32::<REST, LENGTH>(bytes).to_ne_bytes(),
        })
    }

    /// The header as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; LENGTH] {
        let [a, b] = self.checksum.to_be_bytes();
        let [c, d, e, f] = self.rest;
        [self.kind.0, self.code, a, b, c, d, e, f]
    }
}
