//! The Ethernet II header (IEEE 802.3 clause 3.2.6).

use crate::frame::Frame;

/// Length of the header.
pub const LENGTH: usize = 14;
/// Offset of the destination MAC address.
pub const DESTINATION: usize = 0;
/// Offset of the source MAC address.
pub const SOURCE: usize = 6;
/// Offset of the EtherType.
pub const ETHER_TYPE: usize = 12;

/// An EtherType, as a type of its own so that it is never compared with an IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherType([u8; 2]);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self([0x08, 0x00]);
}

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// Protocol of the payload.
    pub ether_type: EtherType,
}

impl Header {
    /// Reads the header at the start of the frame.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        let bytes = frame.array::<LENGTH>(0)?;
        let [a, b, c, d] = F::get32::<DESTINATION, LENGTH>(bytes).to_ne_bytes();
        let [e, f] = F::get16::<{ DESTINATION + 4 }, LENGTH>(bytes).to_ne_bytes();
        let [g, h, i, j] = F::get32::<SOURCE, LENGTH>(bytes).to_ne_bytes();
        let [k, l] = F::get16::<{ SOURCE + 4 }, LENGTH>(bytes).to_ne_bytes();
        Some(Self {
            destination: [a, b, c, d, e, f],
            source: [g, h, i, j, k, l],
            ether_type: EtherType(F::get16::<ETHER_TYPE, LENGTH>(bytes).to_ne_bytes()),
        })
    }

    /// True when the source is a group address, which no sender has (the lowest bit of the first
    /// byte).
    #[inline(always)]
    pub const fn has_group_source(&self) -> bool {
        self.source[0] & 1 != 0
    }

    /// The header as bytes.
    #[inline(always)]
    #[must_use]
    pub const fn emit(&self) -> [u8; LENGTH] {
        let [a, b, c, d, e, f] = self.destination;
        let [g, h, i, j, k, l] = self.source;
        let [m, n] = self.ether_type.0;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
    }
}
