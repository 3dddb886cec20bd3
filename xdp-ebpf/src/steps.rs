//! Steps of the packet logic that the verifier goes through once: global functions (BTF linkage), of
//! which it knows only the types of the arguments and of the result. Through any other function it goes
//! once for each state of a caller, as if it were inlined. See `docs/decisions/global-functions.md`.
//!
//! One of the six files with `unsafe`, for `no_mangle`: of a function whose symbol is not exported the compiler
//! drops arguments that no caller varies. A step without a result returns 0, since the verifier of Linux 6.1
//! wants a number.

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
use xdp_core::conntrack::{connection, pin, places};
use xdp_core::inside;
use xdp_core::table::recent::Details;
use xdp_core::wire::segment::Segment;

/// The step in XDP, for several VIPs.
type XdpEnv<'c> = KernelEnv<'c, XdpContext, false, false, true>;
/// The same in tc, on ingress or on egress.
type TcEnv<'c, const OUT: bool> = KernelEnv<'c, TcContext, true, OUT>;

const fn tc_hook(out: bool) -> Hook {
    if out { Hook::Egress } else { Hook::Tc }
}

/// Runs a step with the frame and the environment of the packet of a context.
#[inline(always)]
fn in_tc<const OUT: bool>(
    context: *mut __sk_buff,
    step: impl FnOnce(&TcFrame<'_>, &TcEnv<'_, OUT>) -> usize,
) -> u64 {
    let pointer = TcContext::new(context);
    let env = TcEnv::<OUT>::of_packet(&pointer, PacketPlace::of(tc_hook(OUT)));
    step(&TcFrame::new(&mut TcContext::new(context)), &env) as u64
}

#[inline(always)]
fn in_xdp(
    context: *mut xdp_md,
    step: impl FnOnce(&XdpFrame<'_, true>, &XdpEnv<'_>) -> usize,
) -> u64 {
    let pointer = XdpContext::new(context);
    let env = XdpEnv::of_packet(&pointer, PacketPlace::of(Hook::Xdp));
    step(&XdpFrame::new(&mut XdpContext::new(context)), &env) as u64
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_follow_tc(context: *mut __sk_buff, jiffies: u64) -> u64 {
    in_tc::<false>(context, |frame, env| {
        connection::follow(frame, env, maps::config(), jiffies)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_follow_egress(context: *mut __sk_buff, jiffies: u64) -> u64 {
    in_tc::<true>(context, |frame, env| {
        connection::follow(frame, env, maps::config(), jiffies)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_follow_xdp(context: *mut xdp_md, jiffies: u64) -> u64 {
    in_xdp(context, |frame, env| {
        connection::follow(frame, env, maps::config(), jiffies)
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_settle_tc(context: *mut __sk_buff, jiffies: u64, segment: u64) -> u64 {
    in_tc::<false>(context, |frame, env| {
        pin::settle(frame, env, maps::config(), jiffies, segment as usize);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_settle_egress(context: *mut __sk_buff, jiffies: u64, segment: u64) -> u64 {
    in_tc::<true>(context, |frame, env| {
        pin::settle(frame, env, maps::config(), jiffies, segment as usize);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_settle_xdp(context: *mut xdp_md, jiffies: u64, segment: u64) -> u64 {
    in_xdp(context, |frame, env| {
        pin::settle(frame, env, maps::config(), jiffies, segment as usize);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_note_tc(context: *mut __sk_buff, jiffies: u64) -> u64 {
    in_tc::<false>(context, |frame, env| {
        pin::note(frame, env, maps::config(), jiffies);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_note_egress(context: *mut __sk_buff, jiffies: u64) -> u64 {
    in_tc::<true>(context, |frame, env| {
        pin::note(frame, env, maps::config(), jiffies);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_note_xdp(context: *mut xdp_md, jiffies: u64) -> u64 {
    in_xdp(context, |frame, env| {
        pin::note(frame, env, maps::config(), jiffies);
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_decide(word: u64, shape: u64, numbers: u64, vip: u64) -> u64 {
    connection::decide(word, &Segment::unpack([shape, numbers]), vip as u16) as u64
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_after(before: u64, shape: u64, numbers: u64, vip: u64) -> u64 {
    connection::after(before, &Segment::unpack([shape, numbers]), vip as u16)
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_put(index: u64, fresh: u64, owner: u64, spi: u64, word: u64) -> u64 {
    if let Some(bucket) = maps::pin_bucket(index as u32) {
        places::put(bucket, fresh, [owner, spi, word]);
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn ikenat_locate_tc(context: *mut __sk_buff, vip: u64, from: u64, source: u64) -> u64 {
    let pointer = TcContext::new(context);
    let mut env = TcEnv::<false>::of_packet(&pointer, None);
    env.ingress = helpers::ingress_tc(&pointer);
    let addresses = [from, source].map(|address| (address as u32).to_ne_bytes());
    inside::locate(&env, maps::config(), vip as u16, addresses.into()) as u64
}

/// [`connection::follow`] for the packet of this context, in tc (`TC`, `OUT`) or in XDP for several VIPs.
#[inline(always)]
pub fn follow<const TC: bool, const OUT: bool>(context: *mut c_void, jiffies: u64) -> usize {
    let found = match (TC, OUT) {
        (true, false) => ikenat_follow_tc(context.cast(), jiffies),
        (true, true) => ikenat_follow_egress(context.cast(), jiffies),
        (false, _) => ikenat_follow_xdp(context.cast(), jiffies),
    };
    found as usize
}

/// [`pin::settle`], likewise.
#[inline(always)]
pub fn settle<const TC: bool, const OUT: bool>(context: *mut c_void, jiffies: u64, segment: usize) {
    let segment = segment as u64;
    match (TC, OUT) {
        (true, false) => ikenat_settle_tc(context.cast(), jiffies, segment),
        (true, true) => ikenat_settle_egress(context.cast(), jiffies, segment),
        (false, _) => ikenat_settle_xdp(context.cast(), jiffies, segment),
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

/// [`connection::decide`].
#[inline(always)]
pub fn decide(word: u64, segment: &Segment, vip: u16) -> usize {
    let [shape, numbers] = segment.pack();
    ikenat_decide(word, shape, numbers, vip.into()) as usize
}

/// [`connection::after`].
#[inline(always)]
pub fn after(before: u64, segment: &Segment, vip: u16) -> u64 {
    let [shape, numbers] = segment.pack();
    ikenat_after(before, shape, numbers, vip.into())
}

/// [`places::put`] in the bucket with this index.
#[inline(always)]
pub fn put(index: u32, fresh: u64, [owner, spi, word]: Details) {
    ikenat_put(index.into(), fresh, owner, spi, word);
}

/// [`inside::locate`] in tc on ingress.
#[inline(always)]
pub fn locate(context: *mut c_void, vip: u16, (from, source): ([u8; 4], [u8; 4])) -> usize {
    let word = |address: [u8; 4]| u64::from(u32::from_ne_bytes(address));
    ikenat_locate_tc(context.cast(), vip.into(), word(from), word(source)) as usize
}
