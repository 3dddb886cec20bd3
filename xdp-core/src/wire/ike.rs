//! The IKE header (RFC 7296 section 3.1; ISAKMP, RFC 2408 section 3.1, has its cookies at the same
//! offset).

use crate::frame::Frame;

/// Length of the header.
pub const LENGTH: usize = 28;
/// Offset of the initiator's SPI.
pub const INITIATOR_SPI: usize = 0;
/// Offset of the responder's SPI.
pub const RESPONDER_SPI: usize = 8;
/// Length of the two SPIs at the start of the header.
pub const SPIS_LENGTH: usize = 16;

/// The pair of SPIs, network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spis {
    /// The initiator's SPI (cookie).
    pub initiator: [u8; 8],
    /// The responder's SPI (cookie); zero in the first message.
    pub responder: [u8; 8],
}

impl Spis {
    /// Reads the pair from the header at `at`; `None` when a whole header does not fit.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes::<LENGTH, _>(at, |bytes| Self {
            initiator: F::get64::<INITIATOR_SPI, LENGTH>(bytes).to_ne_bytes(),
            responder: F::get64::<RESPONDER_SPI, LENGTH>(bytes).to_ne_bytes(),
        })
    }

    /// The two SPIs as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; SPIS_LENGTH] {
        let [a, b, c, d, e, f, g, h] = self.initiator;
        let [i, j, k, l, m, n, o, p] = self.responder;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// True when both sides have chosen their SPI.
    #[inline(always)]
    pub const fn is_complete(&self) -> bool {
        u64::from_ne_bytes(self.initiator) != 0 && u64::from_ne_bytes(self.responder) != 0
    }
}
