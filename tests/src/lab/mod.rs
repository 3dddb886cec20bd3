//! The lab: client, gateway and server in network namespaces, real IKE daemons, hand-made frames
//! and generated traffic.
//!
//! Invariant: the lab uses `ikenat` only as a program with arguments, a log and JSON output, and
//! none of the other crates.

pub mod ageing;
mod background;
pub mod capture;
mod certificates;
pub mod cgroup;
pub mod cleanup;
pub mod direction;
mod ends;
pub mod fragment_reverser;
pub mod frames;
pub mod hosts;
pub mod icmp_errors;
pub mod ikenat;
pub mod json;
pub mod links;
pub mod load;
pub mod netns;
mod network_cards;
pub mod path_mtu;
pub mod process;
pub mod raw_sender;
pub mod receiver;
pub mod routers;
pub mod second_wan;
pub mod sender;
pub mod strongswan;
mod swanctl;
pub mod three_services;
pub mod topology;
pub mod transfer;
pub mod udp_pair;
pub mod vici;
pub mod wire;

pub use hosts::Host;
pub use topology::{Lab, Options};
