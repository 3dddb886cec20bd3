//! The maps' names and sizes, and the load-time constants. One of the four files with `unsafe`.
//!
//! It may not know what a packet is. Sizes given here are the smallest; the loader sets the real ones.

#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::atomic::Shared;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use xdp_common::counters::{Counters, Quantity, WORDS};
use xdp_common::{Class, Config, Direction, Hook, Reason, counters, limits, meta};
use xdp_core::table::{Bucket, Buckets};
use xdp_core::{nexthop, recent};

#[map]
static FLOW: Array<Bucket<Shared>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static SESSION: Array<Bucket<Shared>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static HALF: Array<recent::Bucket<Shared>> =
    Array::with_max_entries(limits::HALF_BUCKETS, BPF_F_MMAPABLE);
#[map]
static FRAGMENT: Array<recent::Bucket<Shared>> =
    Array::with_max_entries(limits::FRAGMENT_BUCKETS, BPF_F_MMAPABLE);
#[map]
static NEXTHOP: Array<nexthop::Entry<Shared>> =
    Array::with_max_entries(limits::NEXTHOPS, BPF_F_MMAPABLE);
#[map]
static META: Array<[Shared; meta::WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(2, 0);

/// Written by the loader before the program is loaded; the verifier sees constants.
#[unsafe(no_mangle)]
static CONFIG: Config = Config {
    secret: [0; 16],
    vip: [0; 4],
    server: [0; 4],
    wan_ifindex: 0,
    lan_ifindex: 0,
    flow_mask: 0,
    session_mask: 0,
    half_mask: 0,
    fragment_mask: 0,
    flow_limit: 0,
    session_limit: 0,
    spis_per_session: 0,
    tick_shift: 0,
    confirm_ticks: 0,
    wan_mac: [0; 6],
    lan_mac: [0; 6],
    wan_partial: 0,
    lan_partial: 0,
    log: 0,
    reserved: [0; 5],
};

/// The load-time constants.
#[inline(always)]
pub fn config() -> &'static Config {
    // SAFETY: the pointer is that of a static. It is hidden from the compiler, which would otherwise fold the zeroes
    // above into the program.
    unsafe { &*core::hint::black_box(&raw const CONFIG) }
}

/// FLOW or SESSION.
pub struct Table(&'static Array<Bucket<Shared>>);

/// FLOW.
pub static FLOWS: Table = Table(&FLOW);
/// SESSION.
pub static SESSIONS: Table = Table(&SESSION);

impl Buckets for Table {
    type Word = Shared;
    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket<Shared>> {
        self.0.get(index)
    }
}

/// A bucket of HALF.
#[inline(always)]
pub fn half(index: u32) -> Option<&'static recent::Bucket<Shared>> {
    HALF.get(index)
}

/// A bucket of FRAGMENT.
#[inline(always)]
pub fn fragments(index: u32) -> Option<&'static recent::Bucket<Shared>> {
    FRAGMENT.get(index)
}

/// An entry of NEXTHOP.
#[inline(always)]
pub fn nexthop(index: u32) -> Option<&'static nexthop::Entry<Shared>> {
    NEXTHOP.get(index)
}

/// A word of META.
#[inline(always)]
pub fn meta(index: usize) -> Option<&'static Shared> {
    META.get(0)?.get(index)
}

/// Counts a packet that this hook does not forward.
#[inline(always)]
pub fn count_reason(hook: Hook, reason: Reason) {
    count(hook, counters::reason(reason), 1);
}

/// Counts a forwarded packet.
#[inline(always)]
pub fn count_class(hook: Hook, direction: Direction, class: Class, bytes: u16, tracked: bool) {
    let at = counters::class(direction, class);
    count(hook, at + Quantity::Packets as usize, 1);
    count(hook, at + Quantity::Bytes as usize, u64::from(bytes));
    if !tracked {
        count(hook, at + Quantity::UntrackedPackets as usize, 1);
        count(
            hook,
            at + Quantity::UntrackedBytes as usize,
            u64::from(bytes),
        );
    }
}

#[inline(always)]
fn count(hook: Hook, at: usize, by: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(hook as u32)
        && at < WORDS
    {
        // SAFETY: the index is inside the value, which belongs to this CPU, where programs do not interrupt each other.
        unsafe {
            let word = counters.cast::<u64>().add(at);
            *word = (*word).wrapping_add(by);
        }
    }
}
