//! ICMP errors (RFC 792): type, code, checksum, four bytes of their own, and the quoted packet.

use crate::frame::Frame;

/// Length of the header; the quote follows.
pub const LENGTH: usize = 8;
/// Offset of the checksum in the header.
pub const CHECKSUM: usize = 2;
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
