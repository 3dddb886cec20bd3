//! Layouts that the benchmark shares with its BPF programs (`xdp-ebpf/src/bin`): values of maps and
//! load-time constants. The gateway uses none of them.

#![no_std]
#![forbid(unsafe_code)]

pub mod measure;
pub mod traffic;
