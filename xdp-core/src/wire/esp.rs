//! The ESP header (RFC 4303 section 2), and what distinguishes it from IKE on UDP 4500 (RFC 3948
//! section 2).

use crate::frame::Frame;

/// Length of SPI and sequence number.
pub const LENGTH: usize = 8;
/// SPIs from 1 to 255 are reserved, 0 is never sent (RFC 4303 section 2.1).
pub const FIRST_SPI: u32 = 256;
/// The four zero bytes before IKE on UDP 4500 (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The one byte of a NAT-keepalive (RFC 3948 section 2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// The fields that are not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Security parameters index.
    pub spi: u32,
    /// The low 32 bits of the sequence number (all that ESN sends, section 2.2.1).
    pub sequence: u32,
}

impl Header {
    /// Reads the header at `at`.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes::<LENGTH, _>(at, |bytes| Self {
            spi: u32::from_be(F::get32::<0, LENGTH>(bytes)),
            sequence: u32::from_be(F::get32::<4, LENGTH>(bytes)),
        })
    }
}
