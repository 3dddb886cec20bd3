//! Protocol headers, one per file and all of the same form: offsets, then a view that is read from
//! a frame.

pub mod esp;
pub mod ethernet;
pub mod icmp;
pub mod ike;
pub mod ipv4;
pub mod udp;
