//! Requests to the kernel over netlink, one file per subject and one function per request.
//!
//! Invariant: nothing here reads `/sys/class/net`. After `nsenter` that directory may still show
//! the interfaces of another network namespace.

pub mod address;
mod answer;
pub mod changes;
pub mod ethtool;
mod generic;
mod link;
pub mod monitor;
pub mod namespaces;
pub mod neighbour;
mod route;
pub mod route_table;
pub mod rule;
pub mod rule_depth;
mod socket;
mod tc;
mod xdp_features;

pub use link::{Link, LinkPeer};
pub use route::Route;
pub use socket::Netlink;
pub use tc::{Block, Filter};
pub(crate) use xdp_features::{driver_of, is_known_to_transmit};
