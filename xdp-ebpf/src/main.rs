//! Entry points: one XDP and one tc ingress program, on the WAN and on the LAN alike, and a clock for the loader.
//!
//! Glue only. What becomes of a packet is `xdp-core`'s to say; here each outcome becomes an action, in one match.

#![no_std]
#![no_main]

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use xdp_common::{Config, Hook, Outcome, Reason};
use xdp_core::{Env, Frame, Hop, Side, Verdict, process};
use xdp_ebpf::env::Kernel;
use xdp_ebpf::frame::{TcFrame, XdpFrame};
use xdp_ebpf::{egress, maps};

/// The side of an interface; `None`: neither (the program outlived its interface).
#[inline(always)]
fn side(config: &Config, ifindex: u32) -> Option<Side> {
    if config.wan_ifindex == config.lan_ifindex {
        return (ifindex == config.wan_ifindex).then_some(Side::Both);
    }
    if ifindex == config.wan_ifindex {
        Some(Side::Wan)
    } else if ifindex == config.lan_ifindex {
        Some(Side::Lan)
    } else {
        None
    }
}

/// What an entry point has to do with a frame.
enum Act {
    /// Send it this way.
    Send(Hop),
    /// Leave it to whoever comes next.
    Pass,
    /// Drop it.
    Drop,
}

/// Puts a frame through the packet logic and counts what became of it.
#[inline(always)]
fn act<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config, side: Side) -> Act {
    match process(frame, env, config, side) {
        Verdict::Forward {
            hop,
            direction,
            class,
            bytes,
            tracked,
        } => {
            maps::count_class(E::HOOK, direction, class, bytes, tracked);
            Act::Send(hop)
        }
        Verdict::Leave(reason) => {
            maps::count_reason(E::HOOK, reason);
            match reason.outcome() {
                Outcome::Punted | Outcome::Slow => Act::Pass,
                Outcome::Dropped => Act::Drop,
            }
        }
    }
}

/// The fast path.
#[xdp]
fn ikenat_xdp(mut context: XdpContext) -> u32 {
    let config = maps::config();
    let ingress = egress::ingress_xdp(&context);
    let Some(side) = side(config, ingress) else {
        return xdp_action::XDP_PASS;
    };
    let pointer = XdpContext::new(context.ctx);
    let env = Kernel::<_, false> {
        context: &pointer,
        ingress,
    };
    match act(&mut XdpFrame::new(&mut context), &env, config, side) {
        Act::Send(hop) => egress::redirect(hop.ifindex),
        Act::Pass => xdp_action::XDP_PASS,
        Act::Drop => xdp_action::XDP_DROP,
    }
}

/// The slow path: what XDP could not send.
#[classifier]
fn ikenat_tc(mut context: TcContext) -> i32 {
    let config = maps::config();
    let pointer = TcContext::new(context.skb.skb);
    let ingress = egress::ingress_tc(&pointer);
    let Some(side) = side(config, ingress) else {
        return TC_ACT_UNSPEC;
    };
    if egress::is_tagged(&pointer) {
        // Another network on the same wire. XDP has left it alone because the tag was where an EtherType is.
        maps::count_reason(Hook::Tc, Reason::NotIpv4);
        return TC_ACT_UNSPEC;
    }
    let env = Kernel::<_, true> {
        context: &pointer,
        ingress,
    };
    match act(&mut TcFrame::new(&mut context), &env, config, side) {
        Act::Send(hop) => egress::redirect_neighbour(hop),
        Act::Pass => TC_ACT_UNSPEC,
        Act::Drop => TC_ACT_SHOT,
    }
}

/// Tells the loader what `jiffies_64` is: writes it into the first eight bytes. For `BPF_PROG_TEST_RUN` only.
#[xdp]
fn ikenat_clock(mut context: XdpContext) -> u32 {
    let now = egress::jiffies();
    if let Some(bytes) = XdpFrame::new(&mut context).array_mut::<8>(0) {
        *bytes = now.to_ne_bytes();
    }
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can come here.
    loop {}
}
