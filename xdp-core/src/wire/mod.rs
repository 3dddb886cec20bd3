//! The headers, one a file, each of the same shape: offsets, then a view that is read from a frame.
//!
//! They may not know what becomes of a packet.

pub mod esp;
pub mod ethernet;
pub mod icmp;
pub mod ike;
pub mod ipv4;
pub mod udp;
