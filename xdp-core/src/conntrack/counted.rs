//! Whether a table has counted a packet, and what is left to do.

use crate::packet::Packet;
use xdp_common::Direction;

/// Whether a table has counted a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// None has.
    No,
    /// One has.
    Yes,
    /// Its flow has, and the server sends to another port of the peer than before: to be followed by
    /// [`super::follow_port`].
    PortChanged,
    /// Its session has, and it may be a reply in which the server chose its SPI: to be remembered by
    /// [`super::proof::remember_choice`].
    ChoosesSpi,
    /// None has, and it is IKE of the server without a marker: likewise.
    Unmarked,
    /// It is a segment of TCP: to be counted by [`super::count_segment`].
    Segment,
}

impl Counted {
    #[inline(always)]
    pub(super) const fn of(counted: bool) -> Self {
        if counted { Self::Yes } else { Self::No }
    }

    /// Of a packet that no table has counted.
    #[inline(always)]
    pub(super) fn none(packet: &Packet) -> Self {
        if packet.direction == Direction::Outbound && packet.is_unmarked_ike() {
            Self::Unmarked
        } else {
            Self::No
        }
    }
}
