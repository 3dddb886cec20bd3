//! The contestants that are programs of the benchmark: a gateway that only redirects, and a broken
//! one.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use ikenat_bench_abi::traffic::Onward;
use xdp_core::Frame;
use xdp_ebpf::frame::xdp::XdpFrame;
use xdp_ebpf::{helpers, maps};

/// Where the contestants send frames. The loader sets it before it loads the programs.
#[expect(unsafe_code, reason = "the loader finds the constant by its name")]
#[unsafe(no_mangle)]
static ONWARD: Onward = Onward {
    ifindex: 0,
    server: [0; 4],
    macs: [0; 12],
};

/// The value that the loader has set.
#[inline(always)]
fn onward() -> &'static Onward {
    // Without `known` the compiler would fold the zeros above into the program.
    maps::known(&ONWARD)
}

/// Writes both MAC addresses with two loads and two stores. A copy of twelve bytes becomes a call
/// that copies byte by byte, and then this would not be the minimum that a gateway can do.
#[inline(always)]
fn put_macs<F: Frame>(frame: &mut F, macs: &[u8; 12]) -> Option<()> {
    let to = frame.array_mut::<12>(0)?;
    F::put64::<0, 12>(to, F::get64::<0, 12>(macs));
    F::put32::<8, 12>(to, F::get32::<8, 12>(macs));
    Some(())
}

/// The minimum that a gateway can do: two MAC addresses and a redirect.
#[xdp]
fn ikenat_noop(mut context: XdpContext) -> u32 {
    let onward = onward();
    match put_macs(&mut XdpFrame::plain(&mut context), &onward.macs) {
        Some(()) => helpers::redirect(onward.ifindex),
        None => xdp_action::XDP_ABORTED,
    }
}

/// A gateway that is broken on purpose: it writes the server's address and leaves the checksum as
/// it was.
#[xdp]
fn ikenat_broken(mut context: XdpContext) -> u32 {
    let onward = onward();
    let mut frame = XdpFrame::plain(&mut context);
    let written = put_macs(&mut frame, &onward.macs).and_then(|()| {
        *frame.array_mut::<4>(30)? = onward.server;
        Some(())
    });
    match written {
        Some(()) => helpers::redirect(onward.ifindex),
        None => xdp_action::XDP_ABORTED,
    }
}
