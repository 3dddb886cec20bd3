//! The VIPs of an instance, as the programs find them: by the destination of what a peer sends, by
//! the source of what a server sends, or by a number that an entry has kept.
//!
//! Addresses are in network order, as in the packet.

use crate::slot::service_bits;
use bytemuck::{Pod, Zeroable};

/// The most VIPs of one instance. The number of a VIP has nine bits.
pub const VIPS: usize = 512;
/// The most numbers of services: nine bits. There are 256 services at most, and some that have gone
/// may still have entries.
pub const SERVICES: usize = 512;
/// The most addresses of this host on the sides of servers that are known.
pub const LAN_ADDRESSES: usize = 8;

/// A VIP, the server behind it, and what the service of both asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Vip {
    /// The public address.
    pub address: [u8; 4],
    /// The address of the server on the LAN.
    pub server: [u8; 4],
    /// The gateway's own address on the side of the server: the source of ikenat's ICMP errors to
    /// the server. Zero: there is none.
    pub lan_address: [u8; 4],
    /// Index of the WAN that the address belongs to, by which replies leave if a route of it leads
    /// to the peer; 0: not known, or there is only one.
    pub wan: u32,
    /// Number of the service, which stands in its entries: nine bits.
    pub service: u16,
    /// Number of this VIP.
    pub number: u16,
    /// Number of the first VIP of the service: that of a peer of which nothing is known.
    pub first: u16,
    /// The list of peers of the service, a number in the keys of PEERS ([`crate::config::peers_key`]);
    /// 0: it has none.
    pub list: u16,
    /// Not zero: the service has several VIPs, so that peers have to be pinned to theirs.
    pub several: u8,
    /// Not zero: the VIP is for IPsec alone, so every UDP fragment without ports is handled.
    pub dedicated: u8,
    /// Not zero: the server is an address of this host.
    pub server_is_local: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 5],
}

/// What the fast path needs of a VIP in one direction, as words that are compared with those of the
/// packet and written into it. Addresses and MAC addresses are in the byte order of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Translation {
    /// MAC address of the egress, in the low six bytes.
    pub source_mac: u64,
    /// The first two bytes of the egress MAC address, at their place in the first eight bytes of a
    /// frame.
    pub source_high: u64,
    /// The other four bytes of the egress MAC address.
    pub source_low: u32,
    /// Egress interface.
    pub egress: u32,
    /// The address that is replaced.
    pub old: u32,
    /// The address that replaces it.
    pub new: u32,
    /// The one's-complement amount that the change of address adds to the UDP checksum field, in
    /// the machine's byte order.
    pub udp_plus: u32,
    /// The amount that the change of address and the TTL decrement subtract from the checksum field
    /// of the IPv4 header.
    pub ip_minus: u32,
    /// The bits of the service in the state words of its entries ([`crate::slot::service_bits`]).
    pub service_bits: u32,
    /// Number of the VIP.
    pub vip: u16,
    /// Index of the egress's word in a per-CPU block ([`crate::cpu`]).
    pub egress_word: u16,
    /// A cached next hop is valid for this many jiffies, as a shift: for about eight seconds, or one where the
    /// service has several VIPs.
    pub hop_shift: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// A cached next hop is valid for at most this many ticks, as a shift.
const HOP_TICKS: u32 = 3;

/// An egress, as a translation has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Egress {
    /// The index of the interface.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Index of its word in a per-CPU block.
    pub word: u16,
}

impl Translation {
    /// The translation of a VIP, inbound or outbound, of packets that leave by this egress. A tick has
    /// `1 << tick_shift` jiffies.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "bits 13 to 21")]
    pub const fn new(vip: &Vip, outbound: bool, egress: Egress, tick_shift: u32) -> Self {
        let (old, new) = if outbound {
            (vip.server, vip.address)
        } else {
            (vip.address, vip.server)
        };
        let udp_delta = address_delta(old, new);
        // TTL and protocol form one word of the header, with the TTL in the first byte.
        let less_one = !u16::from_ne_bytes([1, 0]);
        Self {
            source_mac: crate::config::mac_word(egress.mac),
            source_high: crate::config::mac_word(egress.mac) << 48,
            source_low: {
                let [_, _, c, d, e, f] = egress.mac;
                u32::from_le_bytes([c, d, e, f])
            },
            egress: egress.ifindex,
            old: u32::from_ne_bytes(old),
            new: u32::from_ne_bytes(new),
            // Both are derived from the delta of the sum: see `xdp_core::checksum`.
            udp_plus: !udp_delta & 0xffff,
            ip_minus: fold(udp_delta + less_one as u32),
            service_bits: service_bits(vip.service) as u32,
            vip: vip.number,
            egress_word: egress.word,
            // The flows of a peer that moves to another VIP follow it when their next hops expire.
            hop_shift: tick_shift + if vip.several == 0 { HOP_TICKS } else { 0 },
            reserved: 0,
        }
    }
}

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

/// Places of an index: a power of two, twice as many as there can be addresses.
const PLACES: usize = 2 * VIPS;
/// Groups of addresses that share a displacement.
const GROUPS: usize = 256;
/// A place that no address has.
const NONE: u16 = u16::MAX;

/// The numbers of VIPs by an address, laid out so that no two addresses share a place: a look-up
/// reads one place ("hash and displace": Pagh, "Hash and Displace: Efficient Evaluation of Minimal
/// Perfect Hash Functions", 1999).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Index {
    /// The odd multiplier of the hash.
    seed: u64,
    /// By how much the addresses of a group are displaced.
    displacement: [u16; GROUPS],
    /// The number of the VIP; 65,535: none.
    places: [u16; PLACES],
}

/// A table of no addresses has this one.
const FIRST_SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// Seeds that are tried. One in two fits 512 addresses.
const SEEDS: u32 = 64;

impl Index {
    /// That of no addresses.
    pub const EMPTY: Self = Self {
        seed: FIRST_SEED,
        displacement: [0; GROUPS],
        places: [NONE; PLACES],
    };

    /// The index of these addresses; the number of each is that in the same place. `None`: an address
    /// is there twice, or there are too many.
    #[must_use]
    pub fn of(addresses: &[([u8; 4], u16)]) -> Option<Self> {
        if addresses.len() > VIPS {
            return None;
        }
        let mut seed = FIRST_SEED;
        for _ in 0..SEEDS {
            if let Some(index) = Self::with_seed(seed, addresses) {
                return Some(index);
            }
            seed = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(2);
        }
        None
    }

    /// Places the groups one after the other, those with most addresses first.
    fn with_seed(seed: u64, addresses: &[([u8; 4], u16)]) -> Option<Self> {
        let mut index = Self {
            seed,
            ..Self::EMPTY
        };
        let mut sizes = [0_usize; GROUPS];
        for (address, _) in addresses {
            sizes[index.hash(*address).0] += 1;
        }
        let largest = sizes.iter().copied().max().unwrap_or(0);
        for size in (1..=largest).rev() {
            for group in (0..GROUPS).filter(|group| sizes[*group] == size) {
                index.place(group, addresses)?;
            }
        }
        Some(index)
    }

    /// Finds a displacement for a group.
    fn place(&mut self, group: usize, addresses: &[([u8; 4], u16)]) -> Option<()> {
        let before = self.places;
        for displacement in 0..PLACES {
            self.displacement[group] = u16::try_from(displacement).ok()?;
            let of_group = addresses
                .iter()
                .filter(|(address, _)| self.hash(*address).0 == group);
            let mut places = before;
            let mut fits = true;
            for (address, number) in of_group {
                let place = &mut places[self.at(*address)];
                fits &= *place == NONE;
                *place = *number;
            }
            if fits {
                self.places = places;
                return Some(());
            }
        }
        None
    }

    /// The group of an address, and its place before the displacement.
    #[inline(always)]
    const fn hash(&self, address: [u8; 4]) -> (usize, usize) {
        let hash = self.seed.wrapping_mul(u32::from_ne_bytes(address) as u64);
        let hash = hash ^ hash >> 32;
        let hash = hash.wrapping_mul(FIRST_SEED);
        (
            (hash >> 56) as usize % GROUPS,
            (hash >> 32) as usize % PLACES,
        )
    }

    #[inline(always)]
    const fn at(&self, address: [u8; 4]) -> usize {
        let (group, place) = self.hash(address);
        (place + self.displacement[group] as usize) % PLACES
    }

    /// The number in the place of an address: that of the VIP that has this address, if there is one;
    /// the caller compares the address. Any number, also one that no VIP has.
    #[inline(always)]
    #[must_use]
    pub const fn candidate(&self, address: [u8; 4]) -> u16 {
        self.places[self.at(address)]
    }
}
