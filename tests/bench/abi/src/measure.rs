//! What the programs that measure the dataplane alone (`BPF_PROG_TEST_RUN`) share with the benchmark: which
//! flow is next, and what its packet looks like.

use bytemuck::{Pod, Zeroable};

/// Bytes that are put back before every run: Ethernet, IPv4 without options, UDP, SPI and sequence number.
pub const HEADER: usize = 56;

/// The packets of one measurement. In `header` and in both sums the fields that vary are zero: peer address, SPI,
/// sequence number and the checksums.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Plan {
    /// The first bytes of the frame.
    pub header: [u8; HEADER],
    /// Runs of one measurement: the first and the last of them look at the clock.
    pub runs: u64,
    /// Zero, which neither compiler nor CPU can know. The yardstick makes the next flow depend on what it has read with
    /// it.
    pub link: u64,
    /// Number of flows (a power of two), less one.
    pub flow_mask: u32,
    /// Address of the first flow's peer, host order; the others follow.
    pub peer: u32,
    /// SPI of the first flow; the others follow.
    pub spi: u32,
    /// Packets of a flow in a row (a power of two), less one.
    pub train: u32,
    /// Logarithm of the number of flows.
    pub flow_bits: u32,
    /// Logarithm of the number of packets in a row.
    pub train_bits: u32,
    /// Not zero: the flows are those in DRAWS, of which there are this many (a power of two), less one.
    pub draws: u32,
    /// Sum of the IPv4 header's words (big-endian).
    pub ip_sum: u32,
    /// Sum of UDP's pseudo-header, header and payload (big-endian words).
    pub udp_sum: u32,
    /// Not zero: the peer is the destination, else the source.
    pub outbound: u8,
    /// Not zero: SPI and sequence number are written, behind the UDP header or, without one, the IPv4 header.
    pub esp: u8,
    /// Not zero: there is a UDP header.
    pub udp: u8,
    /// Not zero: the UDP checksum is computed; else it stays as it is in the header.
    pub checksum: u8,
}

/// The next packet.
#[derive(Clone, Copy)]
pub struct Next {
    /// Address of the peer, host order.
    pub peer: u32,
    /// SPI.
    pub spi: u32,
    /// Sequence number: rises by one from packet to packet of a flow, as a sender's does. Numbers far
    /// from the last one would be rare packets for the dataplane.
    pub sequence: u32,
}

/// The words of the state that lives from run to run: one cache line.
pub mod state {
    /// Words of the state.
    pub const WORDS: usize = 8;
    /// Where the walk over the flows stands.
    pub const WALK: usize = 0;
    /// Packets of this measurement so far, with those that only set it up.
    pub const SEQUENCE: usize = 1;
    /// Runs of this measurement so far.
    pub const RUNS: usize = 2;
    /// When its first run began, in nanoseconds.
    pub const BEGAN: usize = 3;
    /// When its last run began.
    pub const ENDED: usize = 4;
    /// Look-ups that found something (the yardstick).
    pub const FOUND: usize = 5;
}
