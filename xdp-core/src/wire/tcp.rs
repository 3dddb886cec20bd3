//! The TCP header (RFC 9293 section 3.1), and what begins a stream of IKE over TCP (RFC 9329 section
//! 4).

use crate::frame::Frame;

/// Length of the header without options.
pub const LENGTH: usize = 20;
/// Offset of the source port.
pub const SOURCE: usize = 0;
/// Offset of the destination port.
pub const DESTINATION: usize = 2;
/// Offset of the sequence number.
pub const SEQUENCE: usize = 4;
/// Offset of the acknowledgment number.
pub const ACKNOWLEDGMENT: usize = 8;
/// Offset of the length of the header in units of four bytes (upper half); the flags follow.
pub const DATA_OFFSET: usize = 12;
/// Offset of the window.
pub const WINDOW: usize = 14;
/// Offset of the checksum.
pub const CHECKSUM: usize = 16;
/// Offset of the urgent pointer.
pub const URGENT: usize = 18;
/// The first bytes of a stream of IKE over TCP, which its originator sends.
pub const STREAM_PREFIX: [u8; 6] = *b"IKETCP";

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Length of the header with its options in units of four bytes (upper half of the byte).
    pub data_offset: u8,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Checksum. Zero is a checksum like any other.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

impl Header {
    /// Reads the header at `at`.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Self> {
        frame.with_bytes::<LENGTH, _>(at, |bytes| {
            let [data_offset, flags] = F::get16::<DATA_OFFSET, LENGTH>(bytes).to_ne_bytes();
            Self {
                source: u16::from_be(F::get16::<SOURCE, LENGTH>(bytes)),
                destination: u16::from_be(F::get16::<DESTINATION, LENGTH>(bytes)),
                sequence: u32::from_be(F::get32::<SEQUENCE, LENGTH>(bytes)),
                acknowledgment: u32::from_be(F::get32::<ACKNOWLEDGMENT, LENGTH>(bytes)),
                data_offset,
                flags,
                window: u16::from_be(F::get16::<WINDOW, LENGTH>(bytes)),
                checksum: u16::from_be(F::get16::<CHECKSUM, LENGTH>(bytes)),
                urgent: u16::from_be(F::get16::<URGENT, LENGTH>(bytes)),
            }
        })
    }

    /// Length of the header with its options in units of four bytes, as it claims.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> u8 {
        self.data_offset >> 4
    }

    /// The header as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; LENGTH] {
        let [a, b] = self.source.to_be_bytes();
        let [c, d] = self.destination.to_be_bytes();
        let [e, f, g, h] = self.sequence.to_be_bytes();
        let [i, j, k, l] = self.acknowledgment.to_be_bytes();
        let [m, n] = self.window.to_be_bytes();
        let [o, p] = self.checksum.to_be_bytes();
        let [q, r] = self.urgent.to_be_bytes();
        let (data_offset, flags) = (self.data_offset, self.flags);
        [
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            data_offset,
            flags,
            m,
            n,
            o,
            p,
            q,
            r,
        ]
    }
}

/// Source and destination port of the header at `at`, which may be cut off after eight bytes.
#[inline(always)]
pub fn ports<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<(u16, u16)> {
    frame.with_bytes::<{ DESTINATION + 2 }, _>(at, |bytes| {
        (
            u16::from_be(F::get16::<SOURCE, 4>(bytes)),
            u16::from_be(F::get16::<DESTINATION, 4>(bytes)),
        )
    })
}
