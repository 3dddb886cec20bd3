//! The kernel's FIB and the two ways out. One of the four files with `unsafe`.
//!
//! It may not know which packets are ours.

#![expect(unsafe_code, reason = "helpers take raw pointers")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Lookup,
    bpf_redir_neigh, xdp_md,
};
use aya_ebpf::helpers::{
    bpf_fib_lookup, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns, bpf_redirect,
    bpf_redirect_neigh,
};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{TcContext, XdpContext};
use core::arch::asm;
use core::mem::{offset_of, size_of, zeroed};
use xdp_common::config::mac_word;
use xdp_core::nexthop::Neighbour;
use xdp_core::{Hop, Routed};

const AF_INET: u8 = 2;

/// XDP: the interface that the frame came in on.
#[inline(always)]
pub fn ingress_xdp(context: &XdpContext) -> u32 {
    let index: u32;
    // SAFETY: a load of a field of the kernel's own context. In assembly, and not `pure`: who wants it a second time shall
    // load it again, and not have it kept in a register all the way.
    unsafe {
        asm!(
            "{index} = *(u32 *)({context} + {field})",
            index = out(wreg) index,
            context = in(reg) context.ctx,
            field = const offset_of!(xdp_md, ingress_ifindex),
            options(readonly, nostack, preserves_flags)
        );
    }
    index
}

/// tc: the interface that the packet came in on.
#[inline(always)]
pub fn ingress_tc(context: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's own.
    unsafe { (*context.skb.skb).ifindex }
}

/// tc: the frame had a VLAN tag. The kernel has taken it out of the bytes before tc sees them.
#[inline(always)]
pub fn is_tagged(context: &TcContext) -> bool {
    // SAFETY: the context is the kernel's own.
    unsafe { (*context.skb.skb).vlan_present != 0 }
}

/// `jiffies_64`: one load, where `bpf_ktime_get_ns` costs 36 ns.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_jiffies64() }
}

/// Nanoseconds since the machine has started (`CLOCK_MONOTONIC`). For the benchmark.
#[inline(always)]
pub fn nanoseconds() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// The number of this CPU.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: takes no argument.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// Asks the FIB. `context` is that of the running program.
#[inline(always)]
pub fn route(
    context: &impl EbpfContext,
    ingress: u32,
    source: [u8; 4],
    destination: [u8; 4],
    total_length: u16,
) -> Routed {
    // SAFETY: all zeroes is a valid value of this plain C structure.
    let mut lookup: Lookup = unsafe { zeroed() };
    lookup.family = AF_INET;
    lookup.ifindex = ingress;
    lookup.__bindgen_anon_1.tot_len = total_length;
    lookup.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(source);
    lookup.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(destination);
    // SAFETY: the structure lives on the stack and has the size that is named.
    let result = unsafe {
        bpf_fib_lookup(
            context.as_ptr(),
            &raw mut lookup,
            size_of::<Lookup>() as i32,
            0,
        )
    };
    // SAFETY: the kernel has written the IPv4 members of the unions; they are plain integers in any case.
    let (gateway, mtu) = unsafe {
        (
            lookup.__bindgen_anon_4.ipv4_dst.to_ne_bytes(),
            lookup.__bindgen_anon_1.mtu_result,
        )
    };
    let hop = Hop {
        ifindex: lookup.ifindex,
        gateway,
    };
    match u32::try_from(result) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => Routed::Neighbour(Neighbour {
            ifindex: hop.ifindex,
            gateway,
            destination: mac_word(lookup.dmac),
            source: mac_word(lookup.smac),
            mtu,
        }),
        Ok(BPF_FIB_LKUP_RET_NO_NEIGH) => Routed::Unresolved(hop),
        Ok(BPF_FIB_LKUP_RET_FRAG_NEEDED) => Routed::TooBig(mtu),
        Ok(BPF_FIB_LKUP_RET_NOT_FWDED) => Routed::NotForwarded,
        Ok(BPF_FIB_LKUP_RET_FWD_DISABLED) => Routed::ForwardingDisabled,
        Ok(_) | Err(_) => Routed::NoRoute,
    }
}

/// Sends the frame as it is. The return value is the program's.
#[inline(always)]
pub fn redirect(ifindex: u32) -> u32 {
    // SAFETY: takes plain numbers.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// tc: sends the packet out of an interface with the MAC addresses that it has. The return value is the program's.
#[inline(always)]
pub fn redirect_as_is(ifindex: u32) -> i32 {
    redirect(ifindex) as i32
}

/// tc: sends the packet through the neighbour layer, which resolves and writes the MAC addresses. The return value is
/// the program's.
#[inline(always)]
pub fn redirect_neighbour(hop: Hop) -> i32 {
    // SAFETY: all zeroes is a valid value of this plain C structure.
    let mut next: bpf_redir_neigh = unsafe { zeroed() };
    next.nh_family = u32::from(AF_INET);
    next.__bindgen_anon_1.ipv4_nh = u32::from_ne_bytes(hop.gateway);
    // SAFETY: the structure lives on the stack and has the size that is named.
    unsafe {
        bpf_redirect_neigh(
            hop.ifindex,
            &raw mut next,
            size_of::<bpf_redir_neigh>() as i32,
            0,
        ) as i32
    }
}

/// XDP: goes on with another program, and comes back only if there is none at this index.
#[inline(always)]
pub fn tail_call(context: &XdpContext, programs: &ProgramArray, index: u32) {
    // SAFETY: the context is the kernel's own; a call that succeeds does not return.
    unsafe { programs.tail_call(context, index) };
}
