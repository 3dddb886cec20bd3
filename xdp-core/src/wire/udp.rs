//! The UDP header (RFC 768).

use crate::frame::Frame;

/// Length of the header.
pub const LENGTH: usize = 8;
/// Offset of the checksum in the header.
pub const CHECKSUM: usize = 6;

/// The header's fields.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length of header and data.
    pub length: u16,
    /// Checksum; zero: none.
    pub checksum: u16,
}

impl Header {
    /// Reads the header at `at`.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes::<LENGTH, _>(at, |bytes| Self {
            source: u16::from_be(F::get16::<0, LENGTH>(bytes)),
            destination: u16::from_be(F::get16::<2, LENGTH>(bytes)),
            length: u16::from_be(F::get16::<4, LENGTH>(bytes)),
            checksum: u16::from_be(F::get16::<6, LENGTH>(bytes)),
        })
    }
}
