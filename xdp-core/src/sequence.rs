//! The sequence numbers of one SPI: highest, wraps, reordered.
//!
//! It may not know who stores the word. Layout: highest (bits 32-63), wraps (16-31), next-hop index (0-15).

/// No next hop is known.
pub const NO_HOP: u16 = 0xffff;

/// The word of [`xdp_common::slot::flow::HIGHEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Highest(pub u64);

impl Highest {
    /// The word of the first packet.
    #[inline(always)]
    pub const fn first(sequence: u32, hop: u16) -> Self {
        Self((sequence as u64) << 32 | hop as u64)
    }

    /// Index of the next hop.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
    pub const fn hop(self) -> u16 {
        self.0 as u16
    }

    /// The same with another next hop.
    #[inline(always)]
    pub const fn with_hop(self, hop: u16) -> Self {
        Self(self.0 & !0xffff | hop as u64)
    }

    /// Takes a packet's number in. True when it was above the highest so far, in serial-number arithmetic (RFC 1982):
    /// the low 32 bits of an extended number (RFC 4303 section 2.2.1) wrap.
    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "serial-number arithmetic")]
    pub const fn advance(self, sequence: u32) -> (Self, bool) {
        let highest = (self.0 >> 32) as u32;
        let ahead = sequence.wrapping_sub(highest) as i32;
        if ahead <= 0 {
            return (self, false);
        }
        let wraps = self.0 & 0xffff_0000;
        let wraps = if sequence < highest {
            wraps.wrapping_add(0x1_0000) & 0xffff_0000
        } else {
            wraps
        };
        (
            Self((sequence as u64) << 32 | wraps | self.0 & 0xffff),
            true,
        )
    }
}
