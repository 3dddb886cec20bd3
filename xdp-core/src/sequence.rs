//! The order of sequence numbers of one SPI: which of two is later, and which to believe.

use xdp_common::limits::{SEQUENCE_AGREEING, SEQUENCE_JUMP};

/// True when `sequence` is above `highest`, in serial-number arithmetic (RFC 1982): the low 32 bits of
/// an extended number (RFC 4303 section 2.2.1) wrap.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_wrap, reason = "serial-number arithmetic")]
pub const fn is_ahead(sequence: u32, highest: u32) -> bool {
    sequence.wrapping_sub(highest) as i32 > 0
}

/// True when `sequence` is so far above or below `highest` that a single packet is not believed:
/// whoever has seen an SPI can send any number, and one that is far ahead would make all later packets
/// of the peer late.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_wrap, reason = "serial-number arithmetic")]
pub const fn is_far(sequence: u32, highest: u32) -> bool {
    (sequence.wrapping_sub(highest) as i32).unsigned_abs() > SEQUENCE_JUMP
}

/// A new range that is not believed yet: its last number (bits 32-63), the number of that packet
/// among those of the flow (8-31), and how many have come in a row (0-7). Zero: none.
pub type Probation = u64;

/// A packet far from the highest number, the `packet`-th of its flow. `None`: its range is believed
/// from now on, because so many packets in a row agree, as receivers of RTP do it (RFC 3550 appendix
/// A.1).
#[inline(always)]
#[must_use]
pub const fn next_probation(probation: Probation, packet: u64, sequence: u32) -> Option<Probation> {
    let count = probation & 0xff;
    let last = (probation >> 32) as u32;
    let in_a_row = packet.wrapping_sub(probation >> 8) & 0xff_ffff == 1;
    let follows = is_ahead(sequence, last) && !is_far(sequence, last);
    let count = if count != 0 && in_a_row && follows {
        count + 1
    } else {
        1
    };
    if count >= SEQUENCE_AGREEING {
        None
    } else {
        Some((sequence as u64) << 32 | (packet & 0xff_ffff) << 8 | count)
    }
}
