//! Protocol headers, one per file and all of the same form: offsets relative to the start of the
//! header, its fields, `read` from a frame, and `emit` as bytes.

pub mod esp;
pub mod ethernet;
pub mod icmp;
pub mod ike;
pub mod ipv4;
pub mod segment;
pub mod tcp;
pub mod udp;
