//! The wrapper for measurements: writes the packet of the next flow and calls the program under
//! test.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count does not restore the packet: from the second run on the
//! destination would be the server, and the punt would be measured. Never attached to an interface.

#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "halves of words are meant")]

// A single-file crate looks for its modules beside it, where Cargo would treat this file as a
// program.
#[path = "bench/measure.rs"]
mod measure;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use ikenat_bench_abi::measure::{HEADER, Next, Plan, state};
use measure::State;
use xdp_core::checksum::fold;
use xdp_core::{Frame, Word as _};
use xdp_ebpf::frame::xdp::XdpFrame;
use xdp_ebpf::helpers;

/// The packets to send.
#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);

/// The progress of the run.
#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);

/// The flows of the packets (bits 0-31) and their sequence numbers (32-63), if the plan says so, one
/// after the other.
#[map]
static DRAWS: Array<u64> = Array::with_max_entries(1, 0);

/// The program under test, at index 0.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

const IP_CHECKSUM_AT: usize = 24;
const SOURCE_AT: usize = 26;
const DESTINATION_AT: usize = 30;
const UDP_AT: usize = 34;
const UDP_CHECKSUM_AT: usize = 40;
const UDP_PAYLOAD_AT: usize = 42;

#[inline(always)]
fn words(value: u32) -> u64 {
    u64::from(value >> 16) + u64::from(value & 0xffff)
}

#[inline(always)]
fn put<const N: usize>(frame: &mut impl Frame, at: usize, bytes: [u8; N]) -> Option<()> {
    *frame.array_mut::<N>(at)? = bytes;
    Some(())
}

/// Writes the packet.
#[inline(always)]
fn write(frame: &mut impl Frame, plan: &Plan, next: Next) -> Option<()> {
    *frame.array_mut::<HEADER>(0)? = plan.header;
    let peer = next.peer.to_be_bytes();
    if plan.outbound == 0 {
        put(frame, SOURCE_AT, peer)?;
    } else {
        put(frame, DESTINATION_AT, peer)?;
    }
    let sum = !fold(u64::from(plan.ip_sum) + words(next.peer));
    put(frame, IP_CHECKSUM_AT, sum.to_be_bytes())?;
    if plan.esp != 0 {
        let esp = (u64::from(next.spi) << 32 | u64::from(next.sequence)).to_be_bytes();
        if plan.udp == 0 {
            put(frame, UDP_AT, esp)?;
        } else {
            put(frame, UDP_PAYLOAD_AT, esp)?;
        }
    }
    if plan.checksum != 0 {
        let varying = words(next.peer) + words(next.spi) + words(next.sequence);
        let sum = match !fold(u64::from(plan.udp_sum) + varying) {
            0 => 0xffff,
            sum => sum,
        };
        put(frame, UDP_CHECKSUM_AT, sum.to_be_bytes())?;
    }
    Some(())
}

#[xdp]
fn ikenat_restore(mut context: XdpContext) -> u32 {
    let pointer = XdpContext::new(context.ctx);
    if let (Some(plan), Some(state)) = (PLAN.get(0), STATE.get(0)) {
        let count = state[state::SEQUENCE].load() as u32;
        let mut next = measure::next(state, plan);
        if plan.draws != 0
            && let Some(drawn) = DRAWS.get(count & plan.draws)
        {
            next = measure::of_flow(plan, *drawn as u32, (*drawn >> 32) as u32);
        }
        if write(&mut XdpFrame::plain(&mut context), plan, next).is_some() {
            measure::begin(state, plan);
            helpers::tail_call(&pointer, &NEXT, 0);
        }
    }
    xdp_action::XDP_ABORTED
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
