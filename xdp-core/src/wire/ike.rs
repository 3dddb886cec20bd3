//! The IKE header (RFC 7296 section 3.1; ISAKMP, RFC 2408 section 3.1, has its cookies at the same
//! offset).

use crate::frame::Frame;

/// Length of the header.
pub const LENGTH: usize = 28;

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
            initiator: F::get64::<0, LENGTH>(bytes).to_ne_bytes(),
            responder: F::get64::<8, LENGTH>(bytes).to_ne_bytes(),
        })
    }

    /// True when both sides have chosen their SPI.
    #[inline(always)]
    pub const fn is_complete(&self) -> bool {
        u64::from_ne_bytes(self.initiator) != 0 && u64::from_ne_bytes(self.responder) != 0
    }
}
