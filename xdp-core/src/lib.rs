//! The dataplane as pure functions: what a packet is, what becomes of it, which bytes change, what
//! is counted.
//!
//! Invariant: nothing here depends on aya, BPF helpers, a clock or a map's name. Frames come
//! through [`Frame`], tables through [`Env`], the time as a number. So the code that the
//! kernel runs is tested and fuzzed on the host, and checked with Miri and loom.
//!
//! Invariant: `xdp-user` uses [`table`] and the [`Word`] that it consists of, nothing else of this
//! crate.

#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod classify;
pub mod conntrack;
pub mod counters;
pub mod env;
pub mod fast_path;
pub mod frame;
pub mod icmp;
pub mod inside;
mod interfaces;
pub mod learn;
pub mod neighbour;
pub mod packet;
pub mod pipeline;
pub mod rewrite;
mod route;
pub mod sequence;
mod service;
pub mod table;
mod transport;
mod uplink;
pub mod vip;
pub mod wire;

pub use env::{Env, FibQuery, FibResult, NextHop, Side, Verdict};
pub use fast_path::{forward, forward_either, run};
pub use frame::Frame;
pub use interfaces::position_of;
pub use pipeline::process;
pub use table::word::Word;
pub use vip::Vips;
