//! Packet pointers: the frames of XDP and of tc.

pub(crate) mod asm;
pub mod tc;
pub mod xdp;
