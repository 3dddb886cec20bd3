//! The ESP header (RFC 4303 section 2), and what distinguishes it from IKE on UDP 4500 (RFC 3948
//! section 2).

use crate::frame::Frame;

/// Length of SPI and sequence number.
pub const LENGTH: usize = 8;
/// Offset of the SPI.
pub const SPI: usize = 0;
/// Offset of the sequence number.
pub const SEQUENCE: usize = 4;
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
            spi: u32::from_be(F::get32::<SPI, LENGTH>(bytes)),
            sequence: u32::from_be(F::get32::<SEQUENCE, LENGTH>(bytes)),
        })
    }

    /// The header as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; LENGTH] {
        let [a, b, c, d] = self.spi.to_be_bytes();
        let [e, f, g, h] = self.sequence.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}
