//! The neighbours on egress: the next hop that a flow caches, and the NEXTHOP table.

pub mod cached_hop;
pub mod table;

pub use table::{Gateway, Neighbour};
