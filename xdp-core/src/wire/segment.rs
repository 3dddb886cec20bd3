//! A segment of TCP as what follows connections sees it (RFC 9293 section 3.1).

use crate::wire::tcp;
use xdp_common::Direction;

/// What a segment says about its connection, in two numbers as they are in the packet: what is computed from
/// them branches, and the verifier would follow each branch to the end.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The bytes of its data (bits 16-31), that it comes from the peer (8), and its flags (0-7).
    shape: u64,
    /// Its acknowledgment number (bits 32-63), and its sequence number.
    numbers: u64,
}

/// No more data from the sender.
pub const FIN: u8 = 1;
/// The beginning of a connection.
pub const SYN: u8 = 1 << 1;
/// The connection is reset.
pub const RST: u8 = 1 << 2;
/// The acknowledgment number counts.
pub const ACK: u8 = 1 << 4;

/// Number of the bit: it comes from the peer.
const INBOUND: u32 = 8;
const DATA: u32 = 16;

impl Segment {
    /// What a header says, in a segment with so many bytes of data.
    #[inline(always)]
    #[must_use]
    pub const fn of(direction: Direction, header: &tcp::Header, data: u16) -> Self {
        let flags = header.flags & (FIN | SYN | RST | ACK);
        let inbound = 1 - direction as u64;
        Self {
            shape: flags as u64 | inbound << INBOUND | (data as u64) << DATA,
            numbers: (header.acknowledgment as u64) << 32 | header.sequence as u64,
        }
    }

    /// As two numbers.
    #[inline(always)]
    #[must_use]
    pub const fn pack(&self) -> [u64; 2] {
        [self.shape, self.numbers]
    }

    /// The segment of two numbers.
    #[inline(always)]
    #[must_use]
    pub const fn unpack([shape, numbers]: [u64; 2]) -> Self {
        Self { shape, numbers }
    }

    /// Whether it comes from the peer.
    #[inline(always)]
    #[must_use]
    pub const fn is_inbound(&self) -> bool {
        self.shape >> INBOUND & 1 != 0
    }

    /// Whether it has this flag.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.shape & flag as u64 != 0
    }

    /// Whether it has these flags and no others.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the flags")]
    pub const fn is(&self, flags: u8) -> bool {
        self.shape as u8 == flags
    }

    /// Whether it has data.
    #[inline(always)]
    #[must_use]
    pub const fn has_data(&self) -> bool {
        self.shape >> DATA != 0
    }

    /// The sequence number.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub const fn sequence(&self) -> u32 {
        self.numbers as u32
    }

    /// The acknowledgment number.
    #[inline(always)]
    #[must_use]
    pub const fn acknowledgment(&self) -> u64 {
        self.numbers >> 32
    }

    /// The sequence number that follows it (RFC 9293 section 3.4): SYN and FIN have one each.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    pub const fn next(&self) -> u32 {
        let flags = (self.shape & 1) + (self.shape >> 1 & 1);
        (self.numbers as u32).wrapping_add((self.shape >> DATA) as u32 + flags as u32)
    }
}
