//! The ABI between the dataplane (`xdp-core`, `xdp-ebpf`) and user space (`xdp-user`): every number, index and
//! layout that both sides must agree on, and nothing else.
//!
//! It may not know: how a packet is parsed, how a slot is found, what aya is. There are no features, so that the
//! kernel and the user always see the same bytes.

#![no_std]
#![forbid(unsafe_code)]

pub mod config;
pub mod counters;
pub mod cpu;
pub mod limits;
pub mod meta;
pub mod reason;
pub mod slot;

pub use config::{Config, Secret};
pub use counters::{Class, Direction, Hook};
pub use reason::{Outcome, Reason};

/// The version of everything in this crate. A pin of another version is refused, never reinterpreted.
pub const ABI_VERSION: u32 = 3;
