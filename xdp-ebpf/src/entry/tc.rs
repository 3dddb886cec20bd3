//! tc: the slow path on ingress, and what the kernel itself sends on egress.

use super::{Action, count, count_reason};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use xdp_common::{Config, Hook, Reason};
use xdp_core::classify::not_handled;
use xdp_core::icmp::error::ErrorCause;
use xdp_core::icmp::{error, translate};
use xdp_core::learn::may_teach;
use xdp_core::{Side, process};
use xdp_ebpf::frame::tc::{HEADER_BYTES, ICMP_ERROR_BYTES, TcFrame};
use xdp_ebpf::kernel_env::KernelEnv;
use xdp_ebpf::learn::learn;
use xdp_ebpf::maps::PacketPlace;
use xdp_ebpf::{helpers, maps};

/// tc: the side of an interface. `None`: neither side (the program outlived its interface).
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

/// The slow path: packets that XDP could not send, and ICMP errors. Each step is a separate
/// function, so that its stack frame is gone while another step runs.
#[classifier]
fn ikenat_tc(context: TcContext) -> i32 {
    let pointer = TcContext::new(context.skb.skb);
    match tc_first_look::<false>(pointer) {
        FirstLook::Done => TC_ACT_UNSPEC,
        FirstLook::Icmp => tc_icmp::<false>(context),
        // Only on egress.
        FirstLook::FromVip => TC_ACT_UNSPEC,
        FirstLook::Candidate => {
            let done = tc_packet::<false>(TcContext::new(context.skb.skb));
            if done <= RETURN_VALUE {
                done as i32
            } else {
                tc_answer(context, done)
            }
        }
    }
}

/// tc egress on a WAN, towards the clients: packets of a server that the kernel itself sends,
/// because it has fragmented them or because the server is on this host. And packets of this host
/// itself, which show who its own peers are.
#[classifier]
fn ikenat_egress(context: TcContext) -> i32 {
    let pointer = TcContext::new(context.skb.skb);
    let code = match tc_first_look::<true>(pointer) {
        FirstLook::Done => TC_ACT_UNSPEC,
        FirstLook::Icmp => tc_icmp::<true>(TcContext::new(context.skb.skb)),
        FirstLook::FromVip => {
            count_reason(Hook::Egress, learn(TcContext::new(context.skb.skb)));
            TC_ACT_UNSPEC
        }
        FirstLook::Candidate => tc_packet::<true>(TcContext::new(context.skb.skb)) as i32,
    };
    helpers::clear_handled(&context);
    code
}

/// The result of the first check of a packet.
enum FirstLook {
    /// Not handled, and counted.
    Done,
    /// ICMP.
    Icmp,
    /// On egress: UDP or ESP from the VIP.
    FromVip,
    /// Perhaps a handled packet.
    Candidate,
}

/// The first check: traffic that ikenat does not handle leaves here.
// Out of line: before 6.12 the whole stack of a program counts beneath each function that it calls.
#[inline(never)]
fn tc_first_look<const OUT: bool>(mut context: TcContext) -> FirstLook {
    let config = maps::config();
    let Some(side) = tc_side::<OUT>(helpers::ingress_tc(&context)) else {
        return FirstLook::Done;
    };
    let copy = if OUT {
        None
    } else {
        helpers::take_copy(&context)
    };
    let reason = if copy.is_some() {
        copy
    } else if helpers::is_of_vlan(&context) {
        // Another network on the same wire. XDP has passed it, because the tag was at the offset of
        // the EtherType, as that of a priority tag is.
        Some(Reason::NotIpv4)
    } else {
        not_handled(&TcFrame::new(&mut context), config, side)
    };
    match reason {
        None => {
            // What came from the server teaches no peer of the host. What the host's stack fragments,
            // or forwards unread, may get the VIP before egress by a rule for the whole LAN.
            if matches!(side, Side::Lan | Side::Both) {
                helpers::set_handled(&context);
            }
            FirstLook::Candidate
        }
        // Routers on the LAN send ICMP errors, too.
        Some(Reason::Icmp | Reason::OtherAddress)
            if translate::is_icmp(&TcFrame::new(&mut context)) =>
        {
            FirstLook::Icmp
        }
        Some(Reason::OtherAddress) if OUT && may_teach(&TcFrame::new(&mut context), config) => {
            FirstLook::FromVip
        }
        Some(reason) => {
            count_reason(tc_hook(OUT), reason);
            FirstLook::Done
        }
    }
}

const fn tc_hook(out: bool) -> Hook {
    if out { Hook::Egress } else { Hook::Tc }
}

/// The side of a packet: that of its ingress interface, or the egress side.
#[inline(always)]
fn tc_side<const OUT: bool>(ingress: u32) -> Option<Side> {
    if OUT {
        Some(Side::Out)
    } else {
        side(maps::config(), ingress)
    }
}

/// ICMP. No ICMP error is ever sent about such a packet.
#[inline(never)]
fn tc_icmp<const OUT: bool>(mut context: TcContext) -> i32 {
    let pointer = TcContext::new(context.skb.skb);
    let ingress = helpers::ingress_tc(&pointer);
    let Some(side) = tc_side::<OUT>(ingress) else {
        return TC_ACT_UNSPEC;
    };
    let env = KernelEnv::<_, true, OUT> {
        context: &pointer,
        ingress,
        packet: None,
    };
    let mut frame = TcFrame::new(&mut context);
    frame.pull(ICMP_ERROR_BYTES);
    let verdict = translate::process(&mut frame, &env, maps::config(), side);
    tc_code(&pointer, count(tc_hook(OUT), verdict)) as i32
}

/// Every other packet. The result is the return value of the program or, above [`RETURN_VALUE`],
/// the ICMP error to send to the sender.
#[inline(never)]
fn tc_packet<const OUT: bool>(mut context: TcContext) -> u64 {
    let pointer = TcContext::new(context.skb.skb);
    let ingress = helpers::ingress_tc(&pointer);
    let config = maps::config();
    let place = PacketPlace::of(tc_hook(OUT));
    let (Some(side), Some(packet)) = (tc_side::<OUT>(ingress), place) else {
        return PASS;
    };
    let env = KernelEnv::<_, true, OUT> {
        context: &pointer,
        ingress,
        packet: Some(packet),
    };
    let mut frame = TcFrame::new(&mut context);
    frame.pull(HEADER_BYTES);
    let verdict = process(&mut frame, &env, config, side);
    tc_code(&pointer, count(tc_hook(OUT), verdict))
}

/// The largest return value of a program. Above it: bit 48 for time exceeded, bit 49 for
/// fragmentation needed; in bits 32 to 47 the MTU.
const RETURN_VALUE: u64 = u32::MAX as u64;
const PASS: u64 = TC_ACT_UNSPEC as u32 as u64;
const TIME_EXCEEDED: u64 = 1 << 48;
const FRAGMENTATION_NEEDED: u64 = 1 << 49;

/// The return value of a tc program. In a dry run it only counts.
#[inline(always)]
fn tc_code(context: &TcContext, act: Action) -> u64 {
    let dry_run = maps::config().dry_run != 0;
    match act {
        Action::Answer(reason, _) if dry_run => {
            count_reason(Hook::Tc, reason);
            PASS
        }
        Action::Redirect(_) | Action::Drop if dry_run => PASS,
        Action::Redirect(hop) if hop.is_stack() => PASS,
        Action::Redirect(hop) => {
            helpers::remove_tag(context);
            u64::from(helpers::redirect_neighbour(hop) as u32)
        }
        Action::Answer(Reason::FragmentationNeeded, mtu) => {
            FRAGMENTATION_NEEDED | u64::from(mtu) << 32
        }
        Action::Answer(..) => TIME_EXCEEDED,
        Action::Pass => PASS,
        Action::Drop => TC_ACT_SHOT as u64,
    }
}

/// Turns a packet into an ICMP error and sends it to the sender, through the interface on which the
/// packet arrived.
#[inline(never)]
fn tc_answer(mut context: TcContext, done: u64) -> i32 {
    let pointer = TcContext::new(context.skb.skb);
    let ingress = helpers::ingress_tc(&pointer);
    let config = maps::config();
    let Some(side) = side(config, ingress) else {
        return TC_ACT_UNSPEC;
    };
    let reason = if done & TIME_EXCEEDED != 0 {
        Reason::TimeExceeded
    } else {
        Reason::FragmentationNeeded
    };
    let cause = ErrorCause {
        side,
        reason,
        mtu: (done >> 32) as u16,
    };
    let mut frame = TcFrame::new(&mut context);
    let made =
        error::build(&frame, config, &cause).is_some_and(|answer| frame.become_icmp_error(&answer));
    if made {
        count_reason(Hook::Tc, reason);
        helpers::remove_tag(&pointer);
        helpers::redirect_as_is(ingress)
    } else {
        count_reason(Hook::Tc, Reason::Unwritable);
        TC_ACT_SHOT
    }
}
