//! The ABI between the dataplane (`xdp-core`, `xdp-ebpf`) and user space (`xdp-user`): every
//! number, index and layout on which both sides must agree, and nothing else.
//!
//! Invariant: this crate has no features, so that the kernel and user space always see the same
//! bytes.

#![no_std]
#![forbid(unsafe_code)]

pub mod config;
pub mod counters;
pub mod cpu;
pub mod limits;
pub mod meta;
pub mod reason;
pub mod services;
pub mod slot;
pub mod vips;

pub use config::{Config, LossConfig, Secret};
pub use counters::{Class, Direction, Hook, Untracked};
pub use reason::{Outcome, Reason};
pub use vips::Vip;

/// The version of everything in this crate. Pinned objects of another version are never reinterpreted:
/// a start converts those of some versions, and refuses the others. The record of the layouts is in
/// `xdp-user/src/tables/older.rs`; a change of this number adds to it.
pub const ABI_VERSION: u32 = 7;
