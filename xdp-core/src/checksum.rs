//! Incremental updates of the Internet checksum (RFC 1624 equation 3): a wrong checksum stays
//! wrong.
//!
//! A running sum and the field of a header are different types; UDP's field has a finisher of its
//! own, because there zero means "no checksum" (RFC 768). In TCP it does not (RFC 9293 section 3.1).

/// The change of a ones'-complement sum when words of a packet are replaced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// No change.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Replaces two bytes by two others.
    #[inline(always)]
    pub const fn replace2(self, old: [u8; 2], new: [u8; 2]) -> Self {
        let old = u16::from_be_bytes(old);
        let new = u16::from_be_bytes(new);
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Replaces four bytes by four others.
    #[inline(always)]
    pub const fn replace4(self, old: [u8; 4], new: [u8; 4]) -> Self {
        let [a, b, c, d] = old;
        let [e, f, g, h] = new;
        self.replace2([a, b], [e, f]).replace2([c, d], [g, h])
    }

    /// `~(~HC + ~m + m')`
    #[inline(always)]
    const fn apply(self, field: [u8; 2]) -> u16 {
        !fold(self.0 + !u16::from_be_bytes(field) as u64)
    }

    /// The new field of an IPv4 or TCP header.
    #[inline(always)]
    pub const fn ip_field(self, field: [u8; 2]) -> [u8; 2] {
        self.apply(field).to_be_bytes()
    }

    /// The new field of a UDP header, or of a TCP header (`is_tcp` is 1).
    // Without branches: the verifier would follow each of them to the end of the program.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are meant")]
    pub fn field(self, is_tcp: usize, field: [u8; 2]) -> [u8; 2] {
        let is_udp = is_tcp as u32 ^ 1;
        // 1 for zero.
        let is_zero = |number: u16| core::hint::black_box(u32::from(number).wrapping_sub(1)) >> 31;
        let sum = self.apply(field);
        let computed_zero = is_zero(sum) & is_udp;
        let none = is_zero(u16::from_be_bytes(field)) & is_udp;
        let sum = u32::from(sum) | (computed_zero * 0xffff);
        ((sum & !(none * 0xffff)) as u16).to_be_bytes()
    }

    /// The new field of a UDP header: zero ("none") stays zero, a computed zero becomes 0xFFFF (RFC
    /// 768).
    #[inline(always)]
    pub const fn udp_field(self, field: [u8; 2]) -> [u8; 2] {
        if field[0] == 0 && field[1] == 0 {
            return field;
        }
        match self.apply(field) {
            0 => [0xff, 0xff],
            sum => sum.to_be_bytes(),
        }
    }
}

/// Folds a sum of 16-bit words (fewer than 2^16 of them) into one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum that a sender leaves in the checksum field of UDP or TCP when it expects its device to
/// finish it (CHECKSUM_PARTIAL): the folded pseudo-header, not complemented. None of the other 65,535
/// values can be a partial checksum. `length`: of header and data.
#[inline(always)]
pub const fn partial(source: [u8; 4], destination: [u8; 4], protocol: u8, length: u16) -> u16 {
    let s = u32::from_be_bytes(source);
    let d = u32::from_be_bytes(destination);
    fold(
        (s >> 16) as u64
            + (s & 0xffff) as u64
            + (d >> 16) as u64
            + (d & 0xffff) as u64
            + length as u64
            + protocol as u64,
    )
}

/// Subtracts `minus` from the field of an IPv4 header in one's complement: `HC - (~m + m')`, which
/// is `~(~HC + ~m + m')` of RFC 1624 equation 3, also where the result is zero. In the machine's
/// byte order, because the sum does not depend on it (RFC 1071 section 2 (B)). The field is the low
/// half of the result.
#[inline(always)]
#[must_use]
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the borrow is the sign"
)]
pub const fn ip_less(field: u16, minus: u32) -> u32 {
    let difference = (field as u32).wrapping_sub(minus);
    difference.wrapping_add((difference as i32 >> 16) as u32)
}

/// Adds `plus`, which is `~(~m + m')`, to the field of a UDP header in one's complement. Like
/// [`ip_less`], except that a zero becomes 0xFFFF, as RFC 768 requires. Not for a field of zero,
/// which means "none". The field is the low half of the result here, too.
#[inline(always)]
#[must_use]
pub const fn udp_more(field: u16, plus: u32) -> u32 {
    let sum = field as u32 + plus;
    sum + (sum >> 16)
}
