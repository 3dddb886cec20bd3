//! XDP: a program per side, and one for both.

use super::{Action, count, count_reason};
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xdp_common::{Config, Hook, Reason};
use xdp_core::classify::{is_ipv4, not_handled};
use xdp_core::{Side, Verdict, forward, forward_either, process};
use xdp_ebpf::frame::xdp::{SavedContext, XdpFrame};
use xdp_ebpf::kernel_env::KernelEnv;
use xdp_ebpf::maps::PacketPlace;
use xdp_ebpf::{helpers, maps};

/// [`Side`] of an XDP program, as a constant of its type.
const WAN: u8 = 0;
const LAN: u8 = 1;
const BOTH: u8 = 2;

/// XDP: the side of the interface that the program is attached to, and its index. On top of a bond or
/// of hv_netvsc the device beneath runs the program, and the context names that device: so only the
/// constants say where the program is attached.
#[inline(always)]
const fn attached_to<const SIDE: u8>(config: &Config) -> (Side, u32) {
    match SIDE {
        LAN => (Side::Lan, config.lan_ifindex),
        BOTH => (Side::Both, config.wan_ifindex),
        _ => (Side::Wan, config.wan_ifindex),
    }
}

/// XDP on the WAN: the inbound fast path, then the general path.
#[xdp]
fn ikenat_xdp_wan(context: XdpContext) -> u32 {
    xdp_entry::<WAN, false>(context)
}

/// XDP on the LAN: the outbound fast path, then the general path. A separate program, so that the
/// side need not be determined for each packet.
#[xdp]
fn ikenat_xdp_lan(context: XdpContext) -> u32 {
    xdp_entry::<LAN, false>(context)
}

/// XDP on a one-armed gateway, where WAN and LAN are one interface: both fast paths. A separate
/// program, so that the others need not know of it.
#[xdp]
fn ikenat_xdp_both(context: XdpContext) -> u32 {
    xdp_entry::<BOTH, false>(context)
}

/// The same three for several VIPs.
#[xdp]
fn ikenat_xdp_wan_several(context: XdpContext) -> u32 {
    xdp_entry::<WAN, true>(context)
}

/// On the LAN.
#[xdp]
fn ikenat_xdp_lan_several(context: XdpContext) -> u32 {
    xdp_entry::<LAN, true>(context)
}

/// On a one-armed gateway.
#[xdp]
fn ikenat_xdp_both_several(context: XdpContext) -> u32 {
    xdp_entry::<BOTH, true>(context)
}

#[inline(always)]
fn xdp_entry<const SIDE: u8, const SEVERAL: bool>(mut context: XdpContext) -> u32 {
    let mut saved = SavedContext::default();
    saved.save(&context);
    match xdp_fast::<SIDE, SEVERAL>(&mut context) {
        // The fast path has counted it.
        Some(Verdict::Forward { hop, .. }) => helpers::redirect(hop.ifindex),
        _ => xdp_rest::<SIDE, SEVERAL>(&saved),
    }
}

#[inline(always)]
fn xdp_fast<const SIDE: u8, const SEVERAL: bool>(context: &mut XdpContext) -> Option<Verdict> {
    let config = maps::config();
    let pointer = XdpContext::new(context.ctx);
    let env = KernelEnv::<_, false, false, SEVERAL> {
        context: &pointer,
        // The fast path makes no FIB lookup, and has only one step.
        ingress: 0,
        packet: None,
    };
    let frame = &mut XdpFrame::<SEVERAL>::new(context);
    match SIDE {
        LAN => forward::<_, _, true>(frame, &env, config),
        BOTH => forward_either(frame, &env, config),
        _ => forward::<_, _, false>(frame, &env, config),
    }
}

/// Packets that the fast path does not forward.
#[inline(always)]
fn xdp_rest<const SIDE: u8, const SEVERAL: bool>(saved: &SavedContext) -> u32 {
    if !is_ipv4(&XdpFrame::<SEVERAL>::new(&mut saved.restore())) {
        count_reason(Hook::Xdp, Reason::NotIpv4);
        return xdp_action::XDP_PASS;
    }
    if xdp_first_look::<SIDE, SEVERAL>(saved.restore()) {
        return xdp_action::XDP_PASS;
    }
    xdp_general::<SIDE, SEVERAL>(saved.restore())
}

/// Whether an IPv4 packet that the fast path does not forward is not handled at all, and counted so.
// Out of line: what it needs would take registers from the fast path.
#[inline(never)]
fn xdp_first_look<const SIDE: u8, const SEVERAL: bool>(mut context: XdpContext) -> bool {
    let config = maps::config();
    let (side, _) = attached_to::<SIDE>(config);
    match not_handled(&XdpFrame::<SEVERAL>::new(&mut context), config, side) {
        Some(reason) => {
            count_reason(Hook::Xdp, reason);
            true
        }
        None => false,
    }
}

/// The general path, for every other packet. Out of line, so that the verifier goes through it once
/// and not once for each exit of the fast path.
#[inline(never)]
fn xdp_general<const SIDE: u8, const SEVERAL: bool>(mut context: XdpContext) -> u32 {
    let config = maps::config();
    let (side, ingress) = attached_to::<SIDE>(config);
    let Some(packet) = PacketPlace::of(Hook::Xdp) else {
        return xdp_action::XDP_PASS;
    };
    let pointer = XdpContext::new(context.ctx);
    let env = KernelEnv::<_, false, false, SEVERAL> {
        context: &pointer,
        ingress,
        packet: Some(packet),
    };
    let verdict = process(
        &mut XdpFrame::<SEVERAL>::new(&mut context),
        &env,
        config,
        side,
    );
    xdp_code(count(Hook::Xdp, verdict))
}

#[inline(always)]
fn xdp_code(act: Action) -> u32 {
    match act {
        Action::Redirect(hop) => helpers::redirect(hop.ifindex),
        Action::Pass => xdp_action::XDP_PASS,
        // XDP sends no ICMP errors.
        Action::Drop | Action::Answer(..) => xdp_action::XDP_DROP,
    }
}
