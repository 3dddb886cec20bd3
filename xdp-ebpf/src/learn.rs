//! The step of the egress program that learns the peers of the host itself.

use crate::frame::tc::TcFrame;
use crate::kernel_env::KernelEnv;
use crate::maps;
use aya_ebpf::programs::TcContext;
use xdp_common::Reason;

/// Learns from UDP or ESP from the VIP, and returns the reason under which the packet is counted: it
/// has taught a peer of the host, or it is one that tc ingress has redirected, or other traffic.
#[inline(never)]
pub fn learn(mut context: TcContext) -> Reason {
    let pointer = TcContext::new(context.skb.skb);
    let env = KernelEnv::<_, true, true> {
        context: &pointer,
        ingress: 0,
        packet: None,
    };
    if xdp_core::learn::learn(&TcFrame::new(&mut context), &env, maps::config()) {
        Reason::HostPeer
    } else {
        Reason::OtherAddress
    }
}
