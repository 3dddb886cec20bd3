//! The neighbours on the way out: the next hop that a flow remembers, and the NEXTHOP table.

pub mod cached_hop;
pub mod table;

pub use table::Neighbour;
