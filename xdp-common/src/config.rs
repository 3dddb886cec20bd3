//! What the loader tells the dataplane once, at load time: constants that the verifier folds into the program.
//!
//! Addresses are in network order, as they stand in the packet.

use bytemuck::{Pod, Zeroable};

/// The key of the tables' hash: random, made once per set of maps, kept in META so that a restart finds its entries.
pub type Secret = [u64; 16];

/// Load-time constants of one instance.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Hash key of all tables.
    pub secret: Secret,
    /// The public address.
    pub vip: [u8; 4],
    /// The server inside.
    pub server: [u8; 4],
    /// Interface index of the WAN.
    pub wan_ifindex: u32,
    /// Interface index of the LAN. The same as the WAN on a one-armed gateway.
    pub lan_ifindex: u32,
    /// FLOW has this many buckets, less one.
    pub flow_mask: u32,
    /// SESSION has this many buckets, less one.
    pub session_mask: u32,
    /// HALF has this many buckets, less one.
    pub half_mask: u32,
    /// FRAGMENT has this many buckets, less one.
    pub fragment_mask: u32,
    /// FLOW takes no new entry beyond this many.
    pub flow_limit: u32,
    /// SESSION takes no new entry beyond this many.
    pub session_limit: u32,
    /// Inbound SPIs per session.
    pub spis_per_session: u32,
    /// A tick is this many jiffies, as a shift: about one second.
    pub tick_shift: u32,
    /// One packet per next hop goes through the neighbour layer every so many ticks.
    pub confirm_ticks: u32,
    /// MAC address of the WAN.
    pub wan_mac: [u8; 6],
    /// MAC address of the LAN.
    pub lan_mac: [u8; 6],
    /// Not zero: frames that arrive on the WAN may carry a partial checksum (veth, generic mode).
    pub wan_partial: u8,
    /// Not zero: frames that arrive on the LAN may carry a partial checksum.
    pub lan_partial: u8,
    /// Not zero: messages about sessions go to the log.
    pub log: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 5],
}
