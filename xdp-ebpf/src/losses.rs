//! Counts packets that are lost after XDP has redirected them, by tracepoints of the kernel. The
//! dataplane has counted them as forwarded, and no program sees them after that.

use crate::{helpers, maps};
use aya_ebpf::programs::RawTracePointContext;
use xdp_common::limits::INTERFACES;
use xdp_common::meta;
use xdp_core::{Word as _, position_of};

/// `BPF_MAP_TYPE_UNSPEC`: a redirect by `bpf_redirect`, whose last argument is the index of the
/// egress.
const BY_INDEX: u32 = 0;
/// `XDP_TX`, which no program of ikenat returns: so the kernel names what generic XDP could not
/// send.
const GENERIC_SEND: u32 = 3;

/// `xdp_devmap_xmit`: the driver of the egress has been given a bulk of frames. It has not sent all
/// of them if its ring is full, for example.
#[inline(always)]
pub fn bulk(context: &RawTracePointContext) {
    let dropped: i32 = context.arg(3);
    if dropped <= 0 || index(context.arg(0)).is_none() {
        return;
    }
    if let Some(egress) = index(context.arg(1)) {
        count(egress, u64::from(dropped.unsigned_abs()));
    }
}

/// `xdp_redirect_err`: the kernel has refused the redirect of a frame, because the egress is down or
/// does not transmit for XDP, for example.
#[inline(always)]
pub fn refused(context: &RawTracePointContext) {
    let by: u32 = context.arg(4);
    if by == BY_INDEX && index(context.arg(0)).is_some() {
        count(context.arg(6), 1);
    }
}

/// `xdp_exception`: generic XDP has redirected a frame, and the egress has not taken it.
#[inline(always)]
pub fn exception(context: &RawTracePointContext) {
    let action: u32 = context.arg(2);
    if action == GENERIC_SEND
        && let Some(egress) = index(context.arg(0))
    {
        count(egress, 1);
    }
}

/// The index of an interface, by its `struct net_device`, if it is one of the instance.
#[inline(always)]
fn index(device: u64) -> Option<u32> {
    let trace = maps::loss_config();
    if trace.inode == 0 {
        return None;
    }
    let net = helpers::kernel_pointer(device + u64::from(trace.net))?;
    if helpers::kernel_u32(net + u64::from(trace.inode))? != trace.namespace {
        return None;
    }
    let index = helpers::kernel_u32(device + u64::from(trace.ifindex))?;
    place(index).map(|_| index)
}

/// The place of an interface in [`meta::LOST`]. Macvlans have none: they send no frame for XDP.
#[inline(always)]
fn place(index: u32) -> Option<usize> {
    let config = maps::config();
    match (
        position_of(&config.wans, index),
        position_of(&config.lans, index),
    ) {
        _ if index == 0 => None,
        (0, 0) => None,
        // One that is both WAN and LAN is shown as the WAN.
        (0, lan) => Some(INTERFACES + lan - 1),
        (wan, _) => Some(wan - 1),
    }
}

#[inline(always)]
fn count(egress: u32, packets: u64) {
    if let Some(place) = place(egress)
        && let Some(word) = maps::meta(meta::LOST + place)
    {
        word.add(packets);
    }
}
