//! The user side of `ikenat`: it checks the configuration, loads and attaches the programs, lets old entries go, and
//! reads the tables.
//!
//! It may not know how a packet is parsed or translated. Of `xdp-core` it uses the table's algorithm alone.

pub mod access;
pub mod again;
pub mod attach;
pub mod books;
pub mod check;
pub mod clock;
pub mod config;
pub mod error;
pub mod expiry;
pub mod failpoints;
pub mod filters;
mod forget;
pub mod hooks;
pub mod links;
pub mod lock;
pub mod maps;
pub mod namespaces;
pub mod neighbours;
pub mod netlink;
mod notes;
mod object;
mod others;
mod owner;
pub mod pins;
pub mod prefixes;
pub mod privileges;
mod program;
mod ready;
mod requirements;
pub mod settle;
pub mod snapshot;
pub mod spots;
pub mod stats;
pub mod status;
pub mod sweep;

pub use error::{Error, Result};
