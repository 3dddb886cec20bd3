//! The user side of `ikenat`: it checks the configuration, loads and attaches the programs, expires old
//! entries, and reads the tables.
//!
//! Invariant: of `xdp-core` it uses the table's algorithm alone, and never parses a packet.

pub mod bpffs;
pub mod check;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod error;
pub mod failpoints;
pub mod netlink;
pub mod report;
pub mod sys;
pub mod tables;

pub use error::{Error, Result};
