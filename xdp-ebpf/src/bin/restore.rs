//! For measuring: puts a packet's first bytes back as they were and goes on to the program under test.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count does not restore the packet: from the second run on the destination would be
//! the server's, and one would measure the punt. Never attached to an interface.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet pointers")]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;

/// Bytes that are put back: Ethernet and IPv4 without options, UDP with its checksum, in whole words.
const HEADER: usize = 48;

/// The bytes.
#[map]
static TEMPLATE: Array<[u64; HEADER / 8]> = Array::with_max_entries(1, 0);

/// The program under test, at index 0.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[xdp]
fn ikenat_restore(context: XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    if start + HEADER > end {
        return xdp_action::XDP_ABORTED;
    }
    if let Some(template) = TEMPLATE.get(0) {
        let words = start as *mut u64;
        for (i, word) in template.iter().enumerate() {
            // SAFETY: inside the packet, as checked above. BPF_PROG_TEST_RUN aligns packets to eight bytes.
            unsafe { words.add(i).write(*word) };
        }
        // SAFETY: a failed tail call returns here.
        unsafe { NEXT.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can come here.
    loop {}
}
