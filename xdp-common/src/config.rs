//! The load-time constants of the dataplane, which the loader sets and the verifier folds into the
//! program.
//!
//! Addresses are in network order, as in the packet.

use crate::cpu;
use crate::limits::{INTERFACES, MACVLANS};
use crate::vips::{Egress, Index, LAN_ADDRESSES, Translation, VIPS, Vip};
use bytemuck::{Pod, Zeroable};

/// The key of the tables' hash: random, made once per set of maps, and kept in SECRET so that the
/// entries are still found after a restart.
pub type Secret = [u64; 16];

/// Value in PEERS of a prefix of `--except-peer` ...
pub const EXCEPT: u32 = 1;
/// ... and of a prefix of `--deny`.
pub const DENY: u32 = 2;

/// The key of a peer in PEERS: the number of a list ([`Vip::list`]) in network order, and the address.
/// The prefix length of an entry is that of the peers and [`LIST_BITS`].
#[inline(always)]
#[must_use]
pub const fn peers_key(list: u16, peer: [u8; 4]) -> [u8; 6] {
    let ([x, y], [a, b, c, d]) = (list.to_be_bytes(), peer);
    [x, y, a, b, c, d]
}

/// Bits of the number of a list in a key of PEERS.
pub const LIST_BITS: u32 = u16::BITS;

/// Load-time constants of one instance.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Hash key of all tables.
    pub secret: Secret,
    /// Further MAC addresses that are accepted on the interface of the program, in the low six
    /// bytes (those of VRRP, for example); 0: none.
    pub accepted_macs: [u64; MACVLANS],
    /// The only VIP, or the first of several.
    pub vip: Vip,
    /// This host's addresses on the sides of the servers ([`Vip::lan_address`]), each once. 0.0.0.0:
    /// none.
    pub lan_addresses: [u32; LAN_ADDRESSES],
    /// Interface indices of all WANs, the first WAN first; 0: none.
    pub wans: [u32; INTERFACES],
    /// Interface indices of all LANs, likewise.
    pub lans: [u32; INTERFACES],
    /// Those of the WANs that have a VIP ([`Vip::wan`]), in the same order. 0: none.
    pub uplinks: [u32; INTERFACES],
    /// Those of the macvlans on top of these WANs. 0: none.
    pub uplink_macvlans: [u32; MACVLANS],
    /// Interface indices of the macvlans on top of all WANs, which have MAC addresses of
    /// their own: a route that leaves by one of them leaves by a WAN. 0: none.
    pub wan_macvlans: [u32; MACVLANS],
    /// The same for the LANs.
    pub lan_macvlans: [u32; MACVLANS],
    /// Interface index of the WAN: if the program is attached to a WAN, of that one, otherwise of
    /// the first.
    pub wan_ifindex: u32,
    /// Interface index of the LAN: if the program is attached to a LAN, of that one, otherwise of
    /// the first. The same as the WAN on a one-armed gateway.
    pub lan_ifindex: u32,
    /// Number of buckets of FLOW, minus one.
    pub flow_mask: u32,
    /// Number of buckets of SESSION, minus one.
    pub session_mask: u32,
    /// Number of buckets of HALF, minus one.
    pub half_mask: u32,
    /// Number of buckets of FRAGMENT, minus one.
    pub fragment_mask: u32,
    /// The most live entries of FLOW.
    pub flow_limit: u32,
    /// The most live entries of SESSION.
    pub session_limit: u32,
    /// Duration of a tick in jiffies, as a shift: about one second.
    pub tick_shift: u32,
    /// One packet per next hop goes through the neighbour layer each time this many ticks have
    /// passed.
    pub confirm_ticks: u32,
    /// MAC address of the WAN.
    pub wan_mac: [u8; 6],
    /// MAC address of the LAN.
    pub lan_mac: [u8; 6],
    /// The one of [`Config::accepted_macs`] that most frames are sent to. Zero: they are sent to the
    /// MAC address of the interface itself.
    pub main_mac: [u8; 6],
    /// Not zero: frames that arrive on the WAN may carry a partial checksum (veth, generic mode).
    pub wan_partial: u8,
    /// Not zero: frames that arrive on the LAN may carry a partial checksum.
    pub lan_partial: u8,
    /// Not zero: messages about sessions go to the log.
    pub log: u8,
    /// Not zero (dry run): packets are counted as if they were forwarded, and passed unchanged.
    pub dry_run: u8,
    /// Not zero: PEERS has entries.
    pub lists: u8,
    /// Not zero: there are several VIPs, or the only one has other numbers than 0, and that of a packet
    /// is looked up.
    pub several_vips: u8,
    /// Not zero: a service has several VIPs, so that its peers have to be pinned.
    pub pinned: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 7],
    /// The constants of the fast path, inbound and outbound: [`Config::seal`] derives them from the
    /// fields above.
    pub directions: [DirectionConfig; 2],
    /// Several VIPs; empty if there is only one.
    pub vips: VipTable,
}

/// The tables of several VIPs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct VipTable {
    /// The VIPs by their addresses.
    pub by_address: Index,
    /// The first VIP of each server, by the server's address.
    pub by_server: Index,
    /// The VIPs by their numbers. One that does not exist has the address 0.0.0.0.
    pub vips: [Vip; VIPS],
    /// What the fast path needs of them, inbound and outbound.
    pub translations: [[Translation; VIPS]; 2],
}

/// Where the kernel's structures have what the programs on tracepoints need: offsets in bytes, which
/// the loader reads from the kernel's BTF. All zero: not known, and nothing is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LossConfig {
    /// `net_device.ifindex`.
    pub ifindex: u32,
    /// `net_device.nd_net`, a pointer to `struct net`.
    pub net: u32,
    /// `net.ns.inum`.
    pub inode: u32,
    /// The number of the network namespace of the interfaces: all namespaces share a tracepoint, and
    /// the indices of their interfaces are the same small numbers.
    pub namespace: u32,
}

impl LossConfig {
    /// Nothing is known.
    pub const ZERO: Self = bytemuck::must_cast([0_u32; 4]);
}

/// The constants of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct DirectionConfig {
    /// The destination MAC address that a frame must have for the fast path, in the upper six
    /// bytes.
    pub own_mac: u64,
    /// The translation of the only VIP.
    pub translation: Translation,
    /// Not zero: a checksum may be partial.
    pub partial: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// A MAC address in the low six bytes of a word, as eight bytes of a packet are loaded.
#[inline(always)]
#[must_use]
pub const fn mac_word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

impl VipTable {
    /// That of no VIPs.
    pub const EMPTY: Self = bytemuck::must_cast([0_u64; size_of::<Self>() / size_of::<u64>()]);

    fn of(vips: &[(Vip, [Egress; 2])], tick_shift: u32) -> Option<Self> {
        let mut table = Self::EMPTY;
        let (mut addresses, mut servers) = ([([0; 4], 0); VIPS], [([0; 4], 0); VIPS]);
        let mut server_count = 0;
        for (at, (vip, egresses)) in vips.iter().enumerate() {
            let number = usize::from(vip.number);
            let place = table.vips.get_mut(number)?;
            if *place != Vip::default() {
                return None;
            }
            *place = *vip;
            for (outbound, egress) in [false, true].into_iter().zip(egresses) {
                table.translations[usize::from(outbound)][number] =
                    Translation::new(vip, outbound, *egress, tick_shift);
            }
            *addresses.get_mut(at)? = (vip.address, vip.number);
            if vip.number == vip.first {
                servers[server_count] = (vip.server, vip.number);
                server_count += 1;
            }
        }
        table.by_address = Index::of(&addresses[..vips.len()])?;
        table.by_server = Index::of(&servers[..server_count])?;
        Some(table)
    }
}

impl Config {
    /// Every field zero: what the object has until the loader writes the real values.
    pub const ZERO: Self = bytemuck::must_cast([0_u64; size_of::<Self>() / size_of::<u64>()]);

    /// Fills in [`Config::directions`]. Call this last.
    #[must_use]
    pub const fn seal(mut self) -> Self {
        // A program has one ingress, so only one of the two counts.
        let (own_wan, own_lan) = if mac_word(self.main_mac) == 0 {
            (self.wan_mac, self.lan_mac)
        } else {
            (self.main_mac, self.main_mac)
        };
        if self.lan_addresses[0] == 0 {
            self.lan_addresses[0] = u32::from_ne_bytes(self.vip.lan_address);
        }
        let (to_wan, to_lan) = (self.first_wan(), self.first_lan());
        let ticks = self.tick_shift;
        self.directions = [
            DirectionConfig {
                own_mac: mac_word(own_wan) << 16,
                translation: Translation::new(&self.vip, false, to_lan, ticks),
                partial: self.wan_partial as u32,
                reserved: 0,
            },
            DirectionConfig {
                own_mac: mac_word(own_lan) << 16,
                translation: Translation::new(&self.vip, true, to_wan, ticks),
                partial: self.lan_partial as u32,
                reserved: 0,
            },
        ];
        self
    }

    /// The same for several VIPs: each with its egress inbound and outbound. `None`: two have the same
    /// address or the same number, or two servers of different services have the same address.
    #[must_use]
    pub fn with_vips(mut self, vips: &[(Vip, [Egress; 2])]) -> Option<Self> {
        let (first, _) = vips.first()?;
        self.vip = *first;
        if Self::needs_several(vips) {
            self.several_vips = 1;
            self.vips = VipTable::of(vips, self.tick_shift)?;
        }
        let mut places = self.lan_addresses.iter_mut();
        for (at, (vip, _)) in vips.iter().enumerate() {
            let address = vip.lan_address;
            let is_known = vips[..at].iter().any(|(vip, _)| vip.lan_address == address);
            if !is_known && let Some(place) = places.next() {
                *place = u32::from_ne_bytes(address);
            }
        }
        self.pinned = vips.iter().any(|(vip, _)| vip.several != 0).into();
        Some(self.seal())
    }

    /// Whether these need the programs for several VIPs: those for one know that both of its numbers
    /// are 0.
    #[must_use]
    pub fn needs_several(vips: &[(Vip, [Egress; 2])]) -> bool {
        match vips {
            [(vip, _)] => vip.service != 0 || vip.number != 0,
            _ => true,
        }
    }

    /// The WAN of the program as an egress.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "one of eight")]
    pub const fn first_wan(&self) -> Egress {
        Egress {
            ifindex: self.wan_ifindex,
            mac: self.wan_mac,
            word: cpu::EGRESS_WAN as u16,
        }
    }

    /// The LAN of the program as an egress.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "one of eight")]
    pub const fn first_lan(&self) -> Egress {
        Egress {
            ifindex: self.lan_ifindex,
            mac: self.lan_mac,
            word: cpu::EGRESS_LAN as u16,
        }
    }
}
