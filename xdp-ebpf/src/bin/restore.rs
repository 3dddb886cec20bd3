//! For measuring: puts a packet's first bytes back as they were and goes on to the program under test.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count does not restore the packet: from the second run on the destination would be
//! the server's, and one would measure the punt. Never attached to an interface.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use xdp_core::Frame as _;
use xdp_ebpf::egress;
use xdp_ebpf::frame::XdpFrame;

/// Bytes that are put back: Ethernet and IPv4 without options, UDP with its checksum.
const HEADER: usize = 48;

/// The bytes.
#[map]
static TEMPLATE: Array<[u8; HEADER]> = Array::with_max_entries(1, 0);

/// The program under test, at index 0.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[xdp]
fn ikenat_restore(mut context: XdpContext) -> u32 {
    let pointer = XdpContext::new(context.ctx);
    if let Some(header) = XdpFrame::new(&mut context).array_mut::<HEADER>(0)
        && let Some(template) = TEMPLATE.get(0)
    {
        *header = *template;
        egress::tail_call(&pointer, &NEXT, 0);
    }
    xdp_action::XDP_ABORTED
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can come here.
    loop {}
}
