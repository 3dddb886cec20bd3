//! The Ethernet II header (IEEE 802.3 clause 3.2.6).

use crate::frame::Frame;

/// Length of the header.
pub const LENGTH: usize = 14;

/// An EtherType, as a type of its own so that it is never compared with an IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherType([u8; 2]);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self([0x08, 0x00]);
}

/// The header's fields.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Protocol of the payload.
    pub ether_type: EtherType,
}

impl Header {
    /// Reads the header at the start of the frame.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        let bytes = frame.array::<LENGTH>(0)?;
        let [a, b, c, d] = F::get32::<0, LENGTH>(bytes).to_ne_bytes();
        let [e, f] = F::get16::<4, LENGTH>(bytes).to_ne_bytes();
        Some(Self {
            destination: [a, b, c, d, e, f],
            ether_type: EtherType(F::get16::<12, LENGTH>(bytes).to_ne_bytes()),
        })
    }
}
