//! Entry points: one XDP and one tc ingress program, on the WAN and on the LAN alike, and a clock for the loader.
//!
//! Glue only. What becomes of a packet is `xdp-core`'s to say; here each outcome becomes an action, in one match.

#![no_std]
#![no_main]

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use xdp_common::{Config, Hook, Outcome, Reason};
use xdp_core::nat::not_ours;
use xdp_core::{Frame, Hop, Side, Verdict, forward, process, totals};
use xdp_ebpf::env::Kernel;
use xdp_ebpf::frame::{Kept, TcFrame, XdpFrame};
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

#[inline(always)]
fn count_reason(hook: Hook, reason: Reason) {
    if let Some(block) = maps::cpu() {
        totals::count_reason(block, hook, reason);
    }
}

/// Counts what became of a frame.
#[inline(always)]
fn count(hook: Hook, verdict: Verdict) -> Act {
    match verdict {
        Verdict::Forward {
            hop,
            direction,
            class,
            bytes,
            tracked,
        } => {
            if let Some(block) = maps::cpu() {
                totals::count_class(block, hook, (direction, class), bytes, tracked);
            }
            Act::Send(hop)
        }
        Verdict::Leave(reason) => {
            count_reason(hook, reason);
            match reason.outcome() {
                Outcome::Punted | Outcome::Slow => Act::Pass,
                Outcome::Dropped | Outcome::Answered => Act::Drop,
            }
        }
    }
}

/// On the WAN: the fast path inbound, then the rest. On a one-armed gateway, whose WAN is its LAN, it is the only one.
#[xdp]
fn ikenat_xdp_wan(context: XdpContext) -> u32 {
    xdp_entry::<false>(context)
}

/// On the LAN: the fast path outbound, then the rest. A program of its own, so that no packet asks which side it is on.
#[xdp]
fn ikenat_xdp_lan(context: XdpContext) -> u32 {
    xdp_entry::<true>(context)
}

#[inline(always)]
fn xdp_entry<const OUTBOUND: bool>(mut context: XdpContext) -> u32 {
    let mut kept = Kept::default();
    kept.put(&context);
    match xdp_fast::<OUTBOUND>(&mut context) {
        // It has been counted.
        Some(Verdict::Forward { hop, .. }) => egress::redirect(hop.ifindex),
        _ => xdp_rest(kept.take()),
    }
}

#[inline(always)]
fn xdp_fast<const OUTBOUND: bool>(context: &mut XdpContext) -> Option<Verdict> {
    let pointer = XdpContext::new(context.ctx);
    let env = Kernel::<_, false> {
        context: &pointer,
        // The fast path asks no FIB.
        ingress: 0,
    };
    forward::<_, _, OUTBOUND>(&mut XdpFrame::new(context), &env, maps::config())
}

/// What the fast path does not forward. The gateway's other traffic leaves here.
#[inline(always)]
fn xdp_rest(mut context: XdpContext) -> u32 {
    let config = maps::config();
    let ingress = egress::ingress_xdp(&context);
    if let Some(side) = side(config, ingress)
        && let Some(reason) = not_ours(&XdpFrame::new(&mut context), config, side)
    {
        count_reason(Hook::Xdp, reason);
        return xdp_action::XDP_PASS;
    }
    xdp_general(context)
}

/// Every other packet. Out of line, so that the verifier goes through it once and not once for each place that the fast
/// path is left at.
#[inline(never)]
fn xdp_general(mut context: XdpContext) -> u32 {
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
    let verdict = process(&mut XdpFrame::new(&mut context), &env, config, side);
    xdp_code(count(Hook::Xdp, verdict))
}

#[inline(always)]
fn xdp_code(act: Act) -> u32 {
    match act {
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
        count_reason(Hook::Tc, Reason::NotIpv4);
        return TC_ACT_UNSPEC;
    }
    let env = Kernel::<_, true> {
        context: &pointer,
        ingress,
    };
    let mut frame = TcFrame::new(&mut context);
    if let Some(reason) = not_ours(&frame, config, side) {
        count_reason(Hook::Tc, reason);
        return TC_ACT_UNSPEC;
    }
    frame.pull();
    let verdict = process(&mut frame, &env, config, side);
    match count(Hook::Tc, verdict) {
        Act::Send(hop) => egress::redirect_neighbour(hop),
        Act::Pass => TC_ACT_UNSPEC,
        Act::Drop => TC_ACT_SHOT,
    }
}

/// On a WAN, towards the clients: what the kernel itself sends of a server's packets.
#[classifier]
fn ikenat_egress(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
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
