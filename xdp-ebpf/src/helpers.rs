//! Wrappers of kernel helpers: FIB lookup, redirects, tail call, clocks and CPU number. One of the
//! six files with `unsafe`.

#![expect(unsafe_code, reason = "helpers take raw pointers")]

use crate::maps::PacketPlace;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED,
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LOOKUP_OUTPUT, TC_ACT_SHOT, bpf_fib_lookup as Lookup, bpf_redir_neigh,
};
#[cfg(not(feature = "without-perfmon"))]
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_fib_lookup, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns,
    bpf_redirect, bpf_redirect_neigh, bpf_skb_vlan_pop,
};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{TcContext, XdpContext};
use core::mem::{offset_of, size_of};
use xdp_common::{Hook, Reason};
use xdp_core::neighbour::{Gateway, Neighbour};
use xdp_core::{FibQuery, FibResult, NextHop};

const AF_INET: u8 = 2;

/// `struct bpf_fib_lookup` as words that are always written and read whole: before 6.8, if the
/// loader has no CAP_PERFMON, the verifier rejects an access to a part of a stack word that was
/// written whole. Little-endian only; these are the bit offsets of the fields behind the family in
/// the first word; the last one is that of `tot_len` and `mtu_result`.
const PROTOCOL: u32 = 8 * offset_of!(Lookup, l4_protocol) as u32;
const SOURCE_PORT: u32 = 8 * offset_of!(Lookup, sport) as u32;
const DESTINATION_PORT: u32 = 8 * offset_of!(Lookup, dport) as u32;
const TOT_LEN: u32 = 8 * offset_of!(Lookup, __bindgen_anon_1) as u32;
const IFINDEX: usize = offset_of!(Lookup, ifindex) / 8;
/// The bit offset of `tos` in the word of the interface.
const TOS: u32 = 8 * (offset_of!(Lookup, __bindgen_anon_2) - offset_of!(Lookup, ifindex)) as u32;
const SOURCE: usize = offset_of!(Lookup, __bindgen_anon_3) / 8;
const DESTINATION: usize = offset_of!(Lookup, __bindgen_anon_4) / 8;
/// Two words: VLAN, source and destination MAC address.
const MACS: usize = 6;
const _: () = assert!(
    TOT_LEN == 48
        && PROTOCOL == 8
        && SOURCE_PORT == 16
        && DESTINATION_PORT == 32
        && TOS == 32
        && offset_of!(Lookup, ifindex).is_multiple_of(8)
        && offset_of!(Lookup, __bindgen_anon_3).is_multiple_of(8)
        && offset_of!(Lookup, __bindgen_anon_4).is_multiple_of(8)
        && offset_of!(Lookup, smac) == 8 * MACS + 4
        && offset_of!(Lookup, dmac) == 8 * MACS + 10
        && size_of::<Lookup>() == 8 * MACS + 16
        && size_of::<bpf_redir_neigh>() == size_of::<Gateway>()
);

/// tc: the interface on which the packet arrived.
#[inline(always)]
pub fn ingress_tc(context: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's own.
    unsafe { (*context.skb.skb).ifindex }
}

/// The VLAN in a tag (IEEE 802.1Q); 0: none, a priority tag.
const VLAN: u32 = 0xfff;

/// tc: the frame is of a VLAN. The kernel removes a tag from the bytes before tc sees the packet.
#[inline(always)]
pub fn is_of_vlan(context: &TcContext) -> bool {
    // SAFETY: the context is the kernel's own.
    let skb = unsafe { &*context.skb.skb };
    skb.vlan_present != 0 && skb.vlan_tci & VLAN != 0
}

/// tc: removes the priority tag of a frame that is about to be sent, where the kernel would insert it
/// again. Frames of a VLAN are not sent.
#[inline(always)]
pub fn remove_tag(context: &TcContext) {
    // SAFETY: the context is the kernel's own.
    unsafe {
        if (*context.skb.skb).vlan_present != 0 {
            bpf_skb_vlan_pop(context.skb.skb);
        }
    }
}

/// The value of `tc_index` by which tc ingress tells tc egress that a packet is the server's. The
/// field stays with the packet through `bpf_redirect_neigh`, and through the host's stack and its
/// fragmentation. Nothing else reads it between the two hooks.
const HANDLED: u32 = 0x1ce;

/// The values of `tc_index` by which tc ingress recognises the host's copy of a packet: of a fragment,
/// or of ESP.
const COPY_OF_FRAGMENT: u32 = 0x1cf;
const COPY_OF_ESP: u32 = 0x1d0;

/// tc ingress: gives the host's stack a copy of the packet, which arrives once more on its interface.
/// Without memory for it there is none.
#[inline(always)]
pub fn copy_to_host(context: &impl EbpfContext, ingress: u32, reason: Reason) {
    let skb: *mut __sk_buff = context.as_ptr().cast();
    let copy = if reason == Reason::HostPeer {
        COPY_OF_ESP
    } else {
        COPY_OF_FRAGMENT
    };
    // SAFETY: the context of a tc program is the kernel's own `__sk_buff`. Nothing keeps a pointer into
    // the packet, which the helper makes invalid.
    unsafe {
        (*skb).tc_index = copy;
        let _ = bpf_clone_redirect(skb, ingress, BPF_F_INGRESS.into());
        (*skb).tc_index = 0;
    }
}

/// tc ingress: the reason under which the packet is counted, if it is a copy that [`copy_to_host`]
/// made. Recognised once.
#[inline(always)]
pub fn take_copy(context: &TcContext) -> Option<Reason> {
    // SAFETY: the context is the kernel's own.
    let reason = match unsafe { (*context.skb.skb).tc_index } {
        COPY_OF_FRAGMENT => Reason::OtherFragment,
        COPY_OF_ESP => Reason::HostPeer,
        _ => return None,
    };
    // SAFETY: as above.
    unsafe { (*context.skb.skb).tc_index = 0 };
    Some(reason)
}

/// tc ingress: writes down that the packet is the server's, for [`is_handled`].
#[inline(always)]
pub fn set_handled(context: &TcContext) {
    // SAFETY: the context is the kernel's own.
    unsafe { (*context.skb.skb).tc_index = HANDLED }
}

/// tc egress: [`set_handled`] was called for the packet.
#[inline(always)]
pub fn is_handled(context: &impl EbpfContext) -> bool {
    // SAFETY: the context of a tc program is the kernel's own `__sk_buff`.
    unsafe { (*context.as_ptr().cast::<__sk_buff>()).tc_index == HANDLED }
}

/// tc egress: takes back [`set_handled`]. Some queueing disciplines read the field.
#[inline(always)]
pub fn clear_handled(context: &TcContext) {
    if is_handled(context) {
        // SAFETY: the context is the kernel's own.
        unsafe { (*context.skb.skb).tc_index = 0 }
    }
}

/// tc egress: the interface on which the host received the packet; 0: the host made it.
#[inline(always)]
pub fn received_on(context: &impl EbpfContext) -> u32 {
    // SAFETY: the context of a tc program is the kernel's own `__sk_buff`.
    unsafe { (*context.as_ptr().cast::<__sk_buff>()).ingress_ifindex }
}

/// tc: the size of the parts of a merged frame; 0: it is not one.
#[inline(always)]
pub fn merged_size(context: &impl EbpfContext) -> u32 {
    // SAFETY: the context of a tc program is the kernel's own `__sk_buff`.
    unsafe { (*context.as_ptr().cast::<__sk_buff>()).gso_size }
}

/// `jiffies_64`: one load, whereas `bpf_ktime_get_ns` costs 36 ns.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_jiffies64() }
}

/// Nanoseconds since boot (`CLOCK_MONOTONIC`), for the benchmark.
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

/// A number in kernel memory, for programs on tracepoints.
#[cfg(not(feature = "without-perfmon"))]
#[inline(always)]
pub fn kernel_u32(address: u64) -> Option<u32> {
    // SAFETY: the helper reads any address, or fails.
    unsafe { bpf_probe_read_kernel(address as *const u32) }.ok()
}

/// A pointer in kernel memory, likewise.
#[cfg(not(feature = "without-perfmon"))]
#[inline(always)]
pub fn kernel_pointer(address: u64) -> Option<u64> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.ok()
}

/// Looks a route up in the FIB. `context` is that of the running program.
#[inline(always)]
pub fn fib_lookup(context: &impl EbpfContext, ingress: u32, query: &FibQuery) -> FibResult {
    let word = |address: [u8; 4]| u64::from(u32::from_ne_bytes(address));
    let [source_port, destination_port] = query.ports.map(|port| u64::from(port.to_be()));
    let mut lookup = [0; size_of::<Lookup>() / 8];
    lookup[0] = u64::from(AF_INET)
        | u64::from(query.protocol) << PROTOCOL
        | source_port << SOURCE_PORT
        | destination_port << DESTINATION_PORT
        | u64::from(query.total_length) << TOT_LEN;
    let (ifindex, flags) = if query.egress == 0 {
        (ingress, 0)
    } else {
        (query.egress, BPF_FIB_LOOKUP_OUTPUT)
    };
    lookup[IFINDEX] = u64::from(ifindex) | u64::from(query.tos) << TOS;
    lookup[SOURCE] = word(query.source);
    lookup[DESTINATION] = word(query.destination);
    // SAFETY: the structure lives on the stack and has the size that is named.
    let result = unsafe {
        bpf_fib_lookup(
            context.as_ptr(),
            lookup.as_mut_ptr().cast(),
            size_of::<Lookup>() as i32,
            flags,
        )
    };
    // For a gateway of the other family the kernel changes the family too.
    let gateway = Gateway {
        family: lookup[0] as u32 & 0xff,
        words: [
            lookup[DESTINATION] as u32,
            (lookup[DESTINATION] >> 32) as u32,
            lookup[DESTINATION + 1] as u32,
            (lookup[DESTINATION + 1] >> 32) as u32,
        ],
    };
    let mtu = (lookup[0] >> TOT_LEN) as u16;
    let ifindex = lookup[IFINDEX] as u32;
    match u32::try_from(result) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => FibResult::Neighbour(Neighbour {
            ifindex,
            gateway,
            destination: lookup[MACS + 1] >> 16,
            source: lookup[MACS] >> 32 | (lookup[MACS + 1] & 0xffff) << 32,
            mtu,
        }),
        Ok(BPF_FIB_LKUP_RET_NO_NEIGH) => FibResult::Unresolved { ifindex, gateway },
        Ok(BPF_FIB_LKUP_RET_FRAG_NEEDED) => FibResult::TooBig(mtu),
        Ok(BPF_FIB_LKUP_RET_NOT_FWDED) => FibResult::NotForwarded,
        Ok(BPF_FIB_LKUP_RET_FWD_DISABLED) => FibResult::ForwardingDisabled,
        Ok(_) | Err(_) => FibResult::NoRoute,
    }
}

/// Redirects the frame unchanged. The result is the return value of the program.
#[inline(always)]
pub fn redirect(ifindex: u32) -> u32 {
    // SAFETY: takes plain numbers.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// tc: redirects the packet to an interface with its present MAC addresses. The result is the
/// return value of the program.
#[inline(always)]
pub fn redirect_as_is(ifindex: u32) -> i32 {
    redirect(ifindex) as i32
}

/// tc: redirects the packet through the neighbour layer, which resolves and writes the MAC
/// addresses; the gateway is the one that was kept. The result is the return value of the program.
#[inline(always)]
pub fn redirect_neighbour(hop: NextHop) -> i32 {
    let Some(place) = PacketPlace::of(Hook::Tc) else {
        return TC_ACT_SHOT;
    };
    // SAFETY: the structure is in the value of a map and has the size that is named.
    unsafe {
        bpf_redirect_neigh(
            hop.ifindex,
            place.gateway().cast(),
            size_of::<bpf_redir_neigh>() as i32,
            0,
        ) as i32
    }
}

/// XDP: continues in another program. Returns only if there is none at this index.
#[inline(always)]
pub fn tail_call(context: &XdpContext, programs: &ProgramArray, index: u32) {
    // SAFETY: the context is the kernel's own; a call that succeeds does not return.
    unsafe { programs.tail_call(context, index) };
}
