//! The load-time constants of ABI 3, as the last commit with it has them (6dfc561,
//! xdp-common/src/config.rs), and what later versions made of them: what the objects in `tests/older`
//! are loaded with.

use super::Version;
use bytemuck::{Pod, Zeroable};
use xdp_common::Secret;
use xdp_common::limits::INTERFACES;

/// Load-time constants of one instance.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Config {
    /// Hash key of all tables.
    pub(super) secret: Secret,
    /// The public address.
    pub(super) vip: [u8; 4],
    /// The address of the server on the LAN.
    pub(super) server: [u8; 4],
    /// The gateway's own address on the side of the server: the source of ikenat's ICMP errors to
    /// the server. Zero: there is none.
    pub(super) lan_address: [u8; 4],
    /// Interface indices of all WANs, the first WAN first; 0: none.
    pub(super) wans: [u32; INTERFACES],
    /// Interface indices of all LANs, likewise.
    pub(super) lans: [u32; INTERFACES],
    /// Interface index of the WAN: if the program is attached to a WAN, of that one, otherwise of
    /// the first.
    pub(super) wan_ifindex: u32,
    /// Interface index of the LAN: if the program is attached to a LAN, of that one, otherwise of
    /// the first. The same as the WAN on a one-armed gateway.
    pub(super) lan_ifindex: u32,
    /// Number of buckets of FLOW, minus one.
    pub(super) flow_mask: u32,
    /// Number of buckets of SESSION, minus one.
    pub(super) session_mask: u32,
    /// Number of buckets of HALF, minus one.
    pub(super) half_mask: u32,
    /// Number of buckets of FRAGMENT, minus one.
    pub(super) fragment_mask: u32,
    /// The most live entries of FLOW.
    pub(super) flow_limit: u32,
    /// The most live entries of SESSION.
    pub(super) session_limit: u32,
    /// The most inbound SPIs per session.
    pub(super) spis_per_session: u32,
    /// Duration of a tick in jiffies, as a shift: about one second.
    pub(super) tick_shift: u32,
    /// One packet per next hop goes through the neighbour layer each time this many ticks have
    /// passed.
    pub(super) confirm_ticks: u32,
    /// MAC address of the WAN.
    pub(super) wan_mac: [u8; 6],
    /// MAC address of the LAN.
    pub(super) lan_mac: [u8; 6],
    /// Not zero: frames that arrive on the WAN may carry a partial checksum (veth, generic mode).
    pub(super) wan_partial: u8,
    /// Not zero: frames that arrive on the LAN may carry a partial checksum.
    pub(super) lan_partial: u8,
    /// Not zero: messages about sessions go to the log.
    pub(super) log: u8,
    /// Not zero (dry run): packets are counted as if they were forwarded, and passed unchanged.
    pub(super) dry_run: u8,
    /// Not zero: the VIP is for IPsec alone, so every UDP fragment without ports is handled.
    pub(super) dedicated: u8,
    /// Not zero: the server is an address of this host.
    pub(super) server_is_local: u8,
    /// Not zero: PEERS has entries.
    pub(super) lists: u8,
    /// Keeps the size a multiple of eight.
    pub(super) reserved: [u8; 5],
    /// The constants of the fast path, inbound and outbound: [`Config::seal`] derives them from the
    /// fields above.
    pub(super) directions: [DirectionConfig; 2],
}

/// The constants of one direction, as words that are compared with those of the packet and written
/// into it. Addresses and MAC addresses are in the byte order of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DirectionConfig {
    /// The destination MAC address that a frame must have, in the upper six bytes.
    pub(super) own_mac: u64,
    /// MAC address of the egress, in the low six bytes.
    pub(super) source_mac: u64,
    /// The first two bytes of the egress MAC address, at their place in the first eight bytes of a
    /// frame.
    pub(super) source_high: u64,
    /// The address that is replaced.
    pub(super) old: u32,
    /// The address that replaces it.
    pub(super) new: u32,
    /// The one's-complement amount that the change of address adds to the UDP checksum field, in
    /// the machine's byte order.
    pub(super) udp_plus: u32,
    /// The amount that the change of address and the TTL decrement subtract from the checksum field
    /// of the IPv4 header.
    pub(super) ip_minus: u32,
    /// The other four bytes of the egress MAC address.
    pub(super) source_low: u32,
    /// Egress interface.
    pub(super) egress: u32,
    /// Not zero: a checksum may be partial.
    pub(super) partial: u32,
    /// A remembered next hop is valid for this many jiffies, as a shift.
    pub(super) hop_shift: u32,
}

/// Macvlans of a side, and further MAC addresses of an interface, since ABI 5.
const MACVLANS: usize = 8;
/// A remembered next hop is valid for at most this many ticks, as a shift: about eight seconds.
const HOP_TICKS: u32 = 3;

/// The words of an address, as a little- or big-endian machine loads them: a one's-complement sum
/// is independent of the byte order (RFC 1071 section 2 (B)).
const fn words(address: [u8; 4]) -> (u16, u16) {
    let [a, b, c, d] = address;
    (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))
}

const fn fold(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// `~m + m'` for a change of address.
const fn address_delta(old: [u8; 4], new: [u8; 4]) -> u32 {
    let ((a, b), (c, d)) = (words(old), words(new));
    fold(!a as u32 + !b as u32 + c as u32 + d as u32)
}

/// A MAC address in the low six bytes of a word, as eight bytes of a packet are loaded.
#[inline(always)]
#[must_use]
pub(super) const fn mac_word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

impl DirectionConfig {
    const fn new(
        own_mac: [u8; 6],
        source_mac: [u8; 6],
        (old, new): ([u8; 4], [u8; 4]),
        egress: u32,
        (partial, tick_shift): (u8, u32),
    ) -> Self {
        let udp_delta = address_delta(old, new);
        // TTL and protocol form one word of the header, with the TTL in the first byte.
        let less_one = !u16::from_ne_bytes([1, 0]);
        Self {
            own_mac: mac_word(own_mac) << 16,
            source_mac: mac_word(source_mac),
            source_high: mac_word(source_mac) << 48,
            source_low: {
                let [_, _, c, d, e, f] = source_mac;
                u32::from_le_bytes([c, d, e, f])
            },
            old: u32::from_ne_bytes(old),
            new: u32::from_ne_bytes(new),
            // Both are derived from the delta of the sum: see `xdp_core::checksum`.
            udp_plus: !udp_delta & 0xffff,
            ip_minus: fold(udp_delta + less_one as u32),
            egress,
            partial: partial as u32,
            hop_shift: tick_shift + HOP_TICKS,
        }
    }
}

impl Config {
    /// Every field zero: what the object has until the loader writes the real values.
    pub(super) const ZERO: Self =
        bytemuck::must_cast([0_u64; size_of::<Self>() / size_of::<u64>()]);

    /// The constants as a version has them.
    pub(super) fn bytes(&self, version: Version) -> Vec<u8> {
        let has_macvlans = version >= Version::Five;
        let mut bytes = Vec::new();
        let mut put = |field: &[u8]| bytes.extend_from_slice(field);
        put(bytemuck::bytes_of(&self.secret));
        if has_macvlans {
            put(&[0; size_of::<[u64; MACVLANS]>()]);
        }
        put(bytemuck::bytes_of(&[
            self.vip,
            self.server,
            self.lan_address,
        ]));
        put(bytemuck::bytes_of(&[self.wans, self.lans]));
        if has_macvlans {
            put(&[0; size_of::<[[u32; MACVLANS]; 2]>()]);
        }
        put(bytemuck::bytes_of(&[
            self.wan_ifindex,
            self.lan_ifindex,
            self.flow_mask,
            self.session_mask,
            self.half_mask,
            self.fragment_mask,
            self.flow_limit,
            self.session_limit,
        ]));
        if version == Version::Three {
            put(bytemuck::bytes_of(&self.spis_per_session));
        }
        put(bytemuck::bytes_of(&[self.tick_shift, self.confirm_ticks]));
        put(bytemuck::bytes_of(&[self.wan_mac, self.lan_mac]));
        if has_macvlans {
            put(&[0; 6]);
        }
        put(&[
            self.wan_partial,
            self.lan_partial,
            self.log,
            self.dry_run,
            self.dedicated,
            self.server_is_local,
            self.lists,
        ]);
        let reserved = match version {
            Version::Three => 5,
            Version::Four => 1,
            Version::Five | Version::Six => 3,
        };
        put(&[0; 5][..reserved]);
        put(bytemuck::bytes_of(&self.directions));
        bytes
    }

    /// Fills in [`Config::directions`]. Call this last.
    #[must_use]
    pub(super) const fn seal(mut self) -> Self {
        let inbound = (self.vip, self.server);
        let outbound = (self.server, self.vip);
        let shift = self.tick_shift;
        self.directions = [
            DirectionConfig::new(
                self.wan_mac,
                self.lan_mac,
                inbound,
                self.lan_ifindex,
                (self.wan_partial, shift),
            ),
            DirectionConfig::new(
                self.lan_mac,
                self.wan_mac,
                outbound,
                self.wan_ifindex,
                (self.lan_partial, shift),
            ),
        ];
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_have_the_sizes_that_they_had() {
        let size = |version| Config::ZERO.bytes(version).len();
        assert_eq!(size(Version::Three), size_of::<Config>());
        // `size_of::<Config>()` of the commits that [`Version`] names.
        assert_eq!(size(Version::Four), size_of::<Config>() - 8);
        assert_eq!(size(Version::Five), 480);
        assert_eq!(size(Version::Six), 480);
        let three = Config::ZERO.bytes(Version::Three);
        assert_eq!(three, bytemuck::bytes_of(&Config::ZERO));
    }
}
