//! The order of sequence numbers of one SPI: which of two is later.

/// True when `sequence` is above `highest` in serial-number arithmetic (RFC 1982): the low 32 bits
/// of an extended number (RFC 4303 section 2.2.1) wrap.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_wrap, reason = "serial-number arithmetic")]
pub const fn is_ahead(sequence: u32, highest: u32) -> bool {
    sequence.wrapping_sub(highest) as i32 > 0
}
