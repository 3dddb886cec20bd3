//! The dataplane as pure functions: what a packet is, what becomes of it, which bytes change, what is counted.
//!
//! It may not know: aya, BPF helpers, a clock, a map's name. Frames come through [`Frame`], tables through [`Env`],
//! the time as a number. So the host tests, fuzzes and checks with Miri and loom what the kernel runs.
//! Invariant: `xdp-user` uses [`table`] and the [`Word`] that it is made of, nothing else of this crate.

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
pub mod neighbour;
pub mod packet;
pub mod pipeline;
pub mod rewrite;
mod route;
pub mod sequence;
pub mod table;
pub mod wire;

pub use env::{Env, FibResult, NextHop, Side, Verdict};
pub use fast_path::{forward, run};
pub use frame::Frame;
pub use pipeline::process;
pub use table::word::Word;
