//! Whether a table has counted a packet, and what is left to do.

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
    /// Its session has, and it is IKE of the server in the clear: it may be a reply that has to be remembered by
    /// [`super::remember_choice`].
    InTheClear,
    /// It is a segment of TCP: to be counted by [`super::count_segment`].
    Segment,
}

impl Counted {
    #[inline(always)]
    pub(super) const fn of(counted: bool) -> Self {
        if counted { Self::Yes } else { Self::No }
    }
}
