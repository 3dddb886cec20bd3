//! The lab: client, gateway and server in network namespaces, real IKE daemons, hand-made frames
//! and generated traffic.
//!
//! Knows `ikenat` only as a program with arguments, a log and JSON; knows none of the other crates.

pub mod capture;
mod cards;
mod certificates;
pub mod cgroup;
pub mod cleanup;
pub mod errors;
pub mod frames;
pub mod hosts;
pub mod ikenat;
pub mod links;
pub mod load;
pub mod netns;
pub mod pmtu;
pub mod process;
pub mod report;
pub mod reverser;
pub mod routers;
pub mod strongswan;
mod swanctl;
pub mod talk;
pub mod topology;
pub mod traffic;
pub mod transfer;
pub mod vici;
pub mod wire;

pub use hosts::Host;
pub use topology::{Lab, Options};
