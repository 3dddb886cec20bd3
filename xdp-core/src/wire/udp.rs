//! The UDP header (RFC 768).

use crate::frame::Frame;

/// Length of the header.
pub const LENGTH: usize = 8;
/// Offset of the source port.
pub const SOURCE: usize = 0;
/// Offset of the destination port.
pub const DESTINATION: usize = 2;
/// Offset of the length.
pub const DATAGRAM_LENGTH: usize = 4;
/// Offset of the checksum.
pub const CHECKSUM: usize = 6;

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            source: u16::from_be(F::get16::<SOURCE, LENGTH>(bytes)),
            destination: u16::from_be(F::get16::<DESTINATION, LENGTH>(bytes)),
            length: u16::from_be(F::get16::<DATAGRAM_LENGTH, LENGTH>(bytes)),
            checksum: u16::from_be(F::get16::<CHECKSUM, LENGTH>(bytes)),
        })
    }

    /// The header as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; LENGTH] {
        let [a, b] = self.source.to_be_bytes();
        let [c, d] = self.destination.to_be_bytes();
        let [e, f] = self.length.to_be_bytes();
        let [g, h] = self.checksum.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}
