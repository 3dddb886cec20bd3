//! Steps of the packet logic that the verifier goes through once: global functions (BTF linkage), of
//! which it knows only the types of the arguments and of the result. Through any other function it goes
//! once for each state of a caller, as if it were inlined. See `docs/decisions/global-functions.md`.
//!
//! One of the six files with `unsafe`: for the names of the symbols, which must not be changed, since the
//! compiler keeps the arguments only of what another object might call.

#![expect(unsafe_code, reason = "exported symbols")]

use crate::frame::tc::TcFrame;
use crate::frame::xdp::XdpFrame;
use crate::helpers;
use crate::kernel_env::KernelEnv;
use crate::maps::{self, PacketPlace};
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use core::ffi::c_void;
use xdp_common::Hook;
use xdp_core::conntrack::pin;
use xdp_core::inside;

/// The step in XDP, for several VIPs.
type XdpEnv<'c> = KernelEnv<'c, XdpContext, false, false, true>;
/// The same in tc, on ingress or on egress.
type TcEnv<'c, const OUT: bool> = KernelEnv<'c, TcContext, true, OUT>;

const fn tc_hook(out: bool) -> Hook {
    if out { Hook::Egress } else { Hook::Tc }
}

#[inline(always)]
fn settle_tc<const OUT: bool>(context: *mut __sk_buff, jiffies: u64) -> u64 {
    let pointer = TcContext::new(context);
    let packet = PacketPlace::of(tc_hook(OUT));
    let env = TcEnv::<OUT>::of_packet(&pointer, packet);
    let mut context = TcContext::new(context);
    pin::settle(&TcFrame::new(&mut context), &env, maps::config(), jiffies);
    0
}

#[inline(always)]
fn note_tc<const OUT: bool>(context: *mut __sk_buff, jiffies: u64) -> u64 {
    let pointer = TcContext::new(context);
    let packet = PacketPlace::of(tc_hook(OUT));
    let env = TcEnv::<OUT>::of_packet(&pointer, packet);
    let mut context = TcContext::new(context);
    pin::note(&TcFrame::new(&mut context), &env, maps::config(), jiffies);
    0
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_settle_tc(context: *mut __sk_buff, jiffies: u64) -> u64 {
    settle_tc::<false>(context, jiffies)
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_settle_egress(context: *mut __sk_buff, jiffies: u64) -> u64 {
    settle_tc::<true>(context, jiffies)
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_settle_xdp(context: *mut xdp_md, jiffies: u64) -> u64 {
    let pointer = XdpContext::new(context);
    let env = XdpEnv::of_packet(&pointer, PacketPlace::of(Hook::Xdp));
    let mut context = XdpContext::new(context);
    pin::settle(
        &XdpFrame::<true>::new(&mut context),
        &env,
        maps::config(),
        jiffies,
    );
    0
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_note_tc(context: *mut __sk_buff, jiffies: u64) -> u64 {
    note_tc::<false>(context, jiffies)
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_note_egress(context: *mut __sk_buff, jiffies: u64) -> u64 {
    note_tc::<true>(context, jiffies)
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_note_xdp(context: *mut xdp_md, jiffies: u64) -> u64 {
    let pointer = XdpContext::new(context);
    let env = XdpEnv::of_packet(&pointer, PacketPlace::of(Hook::Xdp));
    let mut context = XdpContext::new(context);
    pin::note(
        &XdpFrame::<true>::new(&mut context),
        &env,
        maps::config(),
        jiffies,
    );
    0
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_place_tc(context: *mut __sk_buff, vip: u64, from: u64, source: u64) -> u64 {
    let pointer = TcContext::new(context);
    let mut env = TcEnv::<false>::of_packet(&pointer, None);
    env.ingress = helpers::ingress_tc(&pointer);
    let addresses = [from, source].map(|address| (address as u32).to_ne_bytes());
    inside::place(&env, maps::config(), vip as u16, addresses.into()) as u64
}

/// [`pin::settle`] for the packet of this context, in tc (`TC`, `OUT`) or in XDP for several VIPs.
#[inline(always)]
pub fn settle<const TC: bool, const OUT: bool>(context: *mut c_void, jiffies: u64) {
    match (TC, OUT) {
        (true, false) => ikenat_settle_tc(context.cast(), jiffies),
        (true, true) => ikenat_settle_egress(context.cast(), jiffies),
        (false, _) => ikenat_settle_xdp(context.cast(), jiffies),
    };
}

/// [`pin::note`], likewise.
#[inline(always)]
pub fn note<const TC: bool, const OUT: bool>(context: *mut c_void, jiffies: u64) {
    match (TC, OUT) {
        (true, false) => ikenat_note_tc(context.cast(), jiffies),
        (true, true) => ikenat_note_egress(context.cast(), jiffies),
        (false, _) => ikenat_note_xdp(context.cast(), jiffies),
    };
}

/// [`inside::place`] in tc on ingress.
#[inline(always)]
pub fn place(context: *mut c_void, vip: u16, (from, source): ([u8; 4], [u8; 4])) -> usize {
    let word = |address: [u8; 4]| u64::from(u32::from_ne_bytes(address));
    ikenat_place_tc(context.cast(), vip.into(), word(from), word(source)) as usize
}
