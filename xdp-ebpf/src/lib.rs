//! The glue between the packet logic and the kernel: packet pointers, maps, atomics, FIB and redirect.
//!
//! It may not know what a packet means, nor which program runs. `unsafe` stands in [`frame`], [`frame`], [`maps`],
//! [`atomic`] and [`helpers`], nowhere else in this crate. A library, so that the programs that measure use the same glue.

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
mod log;
pub mod maps;
