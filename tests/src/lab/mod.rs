//! The lab: client, gateway and server in network namespaces, real IKE daemons, hand-made frames
//! and generated traffic.
//!
//! Knows `ikenat` only as a program with arguments, a log and JSON; knows none of the other crates.

pub mod capture;
mod certificates;
pub mod cleanup;
pub mod frames;
pub mod ikenat;
pub mod load;
pub mod netns;
pub mod process;
pub mod report;
pub mod strongswan;
pub mod topology;
pub mod traffic;
pub mod vici;
pub mod wire;

pub use topology::{Lab, Options};
