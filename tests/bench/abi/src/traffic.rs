//! Values of the maps of the benchmark's generator and sink, and the constants of its contestants.

use bytemuck::{Pod, Zeroable};

/// Bytes of a frame that the generator writes for each packet: Ethernet, IPv4, UDP, ESP and a time stamp. The shortest frame.
pub const HEADER: usize = 60;
/// Where the peer's address stands in what a client sends.
pub const PEER_AS_SOURCE: u16 = 26;
/// Where it stands in what is sent to a client.
pub const PEER_AS_DESTINATION: u16 = 30;
/// [`Spec::esp_at`] and the like: there is none.
pub const NONE: u16 = 0;

/// One kind of packet: what the generator sends, or what the sink must see of it.
///
/// The fields that vary are zero in `header` and in both sums: peer address, IPv4 identification and checksum, UDP
/// checksum, SPI, sequence number, time stamp.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Spec {
    /// The first bytes of the frame.
    pub header: [u8; HEADER],
    /// Sum of the IPv4 header's words (big-endian), not folded.
    pub ip_sum: u32,
    /// Sum of UDP's pseudo-header, header and payload (big-endian words), not folded.
    pub udp_sum: u32,
    /// Address of the first flow's peer, host order.
    pub peer: u32,
    /// Number of flows (a power of two), less one.
    pub flow_mask: u32,
    /// SPI of the first flow; the others follow.
    pub spi: u32,
    /// Where the peer's address stands.
    pub peer_at: u16,
    /// Where the UDP checksum is to be computed; 0: it stays zero, or there is no UDP.
    pub checksum_at: u16,
    /// Where SPI and sequence number stand; 0: nowhere.
    pub esp_at: u16,
    /// Where the time stamp stands; 0: nowhere. Not together with `checksum_at`.
    pub stamp_at: u16,
    /// Shift of the flow number, so that each CPU has flows of its own, as with receive side scaling: 0 or 1.
    pub cpu_shift: u32,
    /// In the first kind: of a hundred packets, this many are of each of the other kinds.
    pub others: u32,
    /// How much less the TTL may be at the sink: 0 (as sent) or 1 (a router was on the way).
    pub hops: u32,
    /// Logarithm of the number of flows of each CPU.
    pub flow_bits: u32,
    /// Length of the frame.
    pub length: u32,
}

/// Kinds in a mix: the second to the fourth take their share from the first.
pub const KINDS: usize = 4;

/// Sub-buckets of each power of two in the histogram.
pub const STEPS: usize = 8;
/// Buckets of the histogram: from 0 to 2^32 ns.
pub const BUCKETS: usize = 32 * STEPS;

/// Why a packet is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Wrong {
    /// Length of the frame.
    Length,
    /// The IPv4 header's checksum.
    IpChecksum,
    /// TTL, length, protocol or flags.
    IpField,
    /// An address.
    Address,
    /// Ports or length of UDP, the bytes of IKE.
    Header,
    /// UDP's checksum.
    UdpChecksum,
    /// SPI or payload.
    Payload,
}

/// Number of [`Wrong`].
pub const WRONGS: usize = 7;

/// What one CPU has generated and seen.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tally {
    /// Packets generated.
    pub sent: u64,
    /// Packets that arrived as they must.
    pub arrived: u64,
    /// Packets that arrived otherwise, by [`Wrong`].
    pub wrong: [u64; WRONGS],
    /// Right packets that did not follow their predecessor: lost before it, twice, or reordered.
    pub gaps: u64,
    /// Identification of the last packet.
    pub last: u64,
    /// Right packets by their age in ns: bucket `8 * log2 + next three bits`.
    pub ages: [u64; BUCKETS],
}

/// The bucket of an age.
#[inline(always)]
#[must_use]
pub const fn bucket(age: u32) -> usize {
    if (age as usize) < STEPS {
        return age as usize;
    }
    let log = 31 - age.leading_zeros();
    (log as usize) * STEPS + ((age >> (log - 3)) & 7) as usize
}

/// The smallest age in a bucket.
#[must_use]
pub const fn age(bucket: usize) -> u64 {
    let log = bucket / STEPS;
    if log < 3 {
        return bucket as u64;
    }
    (STEPS + bucket % STEPS) as u64 * (1 << (log - 3))
}

/// How a paced generator sends: bursts at fixed times, whatever becomes of them. One for each CPU.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Pace {
    /// Nanoseconds from one burst to the next; never 0.
    pub gap: u64,
    /// Nanoseconds that a burst waits at most. What would wait longer finds the queue full and is lost.
    pub patience: u64,
    /// Packets in a burst.
    pub burst: u64,
    /// Packets of the burst that have been sent.
    pub place: u64,
    /// When the burst that is being sent was due (`CLOCK_MONOTONIC`, ns).
    pub due: u64,
    /// When the next one is; 0: as soon as it is asked for.
    pub next: u64,
    /// Bursts that were lost before they were sent.
    pub missed: u64,
    /// Bursts that could not be held back until they were due.
    pub early: u64,
}

/// A contestant that only sends frames on.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Onward {
    /// Egress interface.
    pub ifindex: u32,
    /// The server's address, for the broken gateway.
    pub server: [u8; 4],
    /// Destination and source MAC address.
    pub macs: [u8; 12],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_lies_between_two_ages() {
        for value in [0, 7, 8, 9, 15, 16, 1_000, 65_535, 1 << 20, u32::MAX] {
            let at = bucket(value);
            assert!(at < BUCKETS, "{value}");
            assert!(age(at) <= u64::from(value), "{value}");
            if (3 * STEPS..BUCKETS - 1).contains(&at) {
                assert!(u64::from(value) < age(at + 1), "{value}");
            }
        }
    }
}
