//! The XDP program for the far end of a veth: it only passes. A veth accepts frames that XDP
//! redirects to it only if its far end runs an XDP program.
//!
//! The tests attach it to the far ends. It also serves for a server in a container behind a veth.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Passes every frame.
#[xdp]
fn ikenat_peer(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
