//! An ICMP error, as far as its headers and those of the packet that it quotes show.

use crate::env::NextHop;
use crate::wire::icmp;
use xdp_common::Direction;

/// All offsets are well below this: it bounds an offset that comes from a packet, for the verifier.
pub(super) const OFFSET_MASK: usize = 0xff;

/// An ICMP error about a handled packet.
#[derive(Clone, Copy)]
pub(super) struct Report {
    /// Direction of the error; the quoted packet went in the opposite one.
    pub(super) direction: Direction,
    /// Number of the VIP.
    pub(super) vip: u16,
    /// Address of the peer in the quoted packet.
    pub(super) peer: [u8; 4],
    /// Source address of the error.
    pub(super) source: [u8; 4],
    /// Destination address of the error.
    pub(super) destination: [u8; 4],
    pub(super) total_length: u16,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// Offset of the ICMP header.
    pub(super) at: usize,
    /// Length of the quoted IPv4 header.
    pub(super) quote_header: usize,
    /// Offset of the quoted checksum of UDP or TCP; 0: it is not quoted.
    pub(super) checksum_at: usize,
    /// 1: it is that of TCP.
    pub(super) is_tcp: usize,
    /// The quoted ports: the destination (bits 16-31), which is the peer's in an error to the VIP, and the
    /// source (0-15); zero: ESP, or a fragment without ports.
    pub(super) ports: u32,
    /// Where the error goes. Here, because the stack has no room for one word more.
    pub(super) hop: NextHop,
}

impl Report {
    /// Offset of the quoted IPv4 header.
    #[inline(always)]
    pub(super) const fn quote(&self) -> usize {
        self.at + icmp::LENGTH
    }

    /// Nothing is known yet.
    pub(super) const EMPTY: Self = Self {
        direction: Direction::Inbound,
        vip: 0,
        peer: [0; 4],
        source: [0; 4],
        destination: [0; 4],
        total_length: 0,
        ttl: 0,
        tos: 0,
        at: 0,
        quote_header: 0,
        checksum_at: 0,
        is_tcp: 0,
        ports: 0,
        hop: NextHop::STACK,
    };
}
