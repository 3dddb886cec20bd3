//! `unsafe` is confined to six files: `frame/xdp.rs`, `frame/tc.rs`, and those of [`maps`],
//! [`atomic`], [`helpers`] and [`steps`]. This is a library, so that the programs for measurements use the
//! same code.

#![no_std]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "core::sync::atomic has no compare-and-swap on the BPF target"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "helpers take and return C integers that are wider or narrower than the numbers in them"
)]

pub mod atomic;
pub mod frame;
pub mod helpers;
pub mod kernel_env;
pub mod learn;
mod log;
#[cfg(not(feature = "without-perfmon"))]
pub mod losses;
pub mod maps;
pub mod steps;
