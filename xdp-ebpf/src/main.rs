//! Entry points: an XDP program per side, one tc ingress program for both sides, one tc egress
//! program for the WAN, and a clock for the loader.
//!
//! `xdp-core` decides what happens to a packet; here one match turns each outcome into an action.

#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program's return value is a C integer, and what comes back of a step is wider"
)]

mod entry;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xdp_core::Frame;
use xdp_ebpf::frame::xdp::XdpFrame;
use xdp_ebpf::helpers;

/// Writes `jiffies_64` into the first eight bytes of the packet, for the loader. For
/// `BPF_PROG_TEST_RUN` only.
#[xdp]
fn ikenat_clock(mut context: XdpContext) -> u32 {
    let now = helpers::jiffies();
    if let Some(bytes) = XdpFrame::plain(&mut context).array_mut::<8>(0) {
        *bytes = now.to_ne_bytes();
    }
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
