//! The dataplane as pure functions: what a packet is, what becomes of it, which bytes change, what is counted.
//!
//! It may not know: aya, BPF helpers, a clock, a map's name. Frames come through [`Frame`], tables through [`Env`],
//! the time as a number. So the host tests, fuzzes and checks with Miri and loom what the kernel runs.
//! `xdp-user` may use [`table`], [`nexthop`] and [`wire`], nothing else.

#![no_std]
#![forbid(unsafe_code)]

pub mod answer;
pub mod checksum;
pub mod env;
pub mod fast;
pub mod frame;
pub mod gateway;
pub mod hash;
pub mod hop;
pub mod icmp;
pub mod limit;
pub mod nat;
pub mod nexthop;
pub mod packet;
pub mod recent;
pub mod rewrite;
pub mod sequence;
pub mod table;
pub mod totals;
pub mod track;
mod way;
pub mod wire;
pub mod word;

pub use env::{Env, FibResult, NextHop, Side, Verdict};
pub use fast::{forward, run};
pub use frame::Frame;
pub use gateway::process;
pub use word::Word;
