//! For measuring: a look-up and two counts, in our table and in the kernel's own maps, and the same without a look-up.
//!
//! Never attached to an interface. It uses FLOW, the hash and the key as the gateway does.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use aya_ebpf::programs::XdpContext;
use core::hint::black_box;
use xdp_common::measure::{Plan, state};
use xdp_common::slot::{self, Key, flow};
use xdp_common::{Class, Direction};
use xdp_core::Word as _;
use xdp_core::table::hash::digest_key;
use xdp_core::table::{self, Place};
use xdp_ebpf::atomic::Shared;
use xdp_ebpf::maps::{self, FLOWS};
use xdp_ebpf::measure::{self, State};

/// Packets and bytes.
type Counts = [Shared; 2];

/// Which flows.
#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);

/// How far it has come.
#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);

#[map]
static HASH: HashMap<Key, Counts> = HashMap::with_max_entries(1, 0);

#[map]
static LRU_HASH: LruHashMap<Key, Counts> = LruHashMap::with_max_entries(1, 0);

/// A packet's length.
const BYTES: u64 = 100;

/// Picks the next flow, lets `count` look it up, count and say what it has read, and counts what was found.
#[inline(always)]
fn run(count: impl FnOnce(&Key) -> Option<u64>) -> u32 {
    let (Some(plan), Some(state)) = (PLAN.get(0), STATE.get(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    let next = measure::next(state, plan);
    let peer = next.peer.to_be_bytes();
    let key = slot::flow_key(peer, next.spi, Class::EspInUdp, Direction::Inbound);
    measure::begin(state, plan);
    if let Some(read) = count(&key) {
        let found = state[state::FOUND].load() + 1;
        state[state::FOUND].store(found);
        measure::depend(state, plan, read);
    }
    xdp_action::XDP_PASS
}

/// No look-up.
#[xdp]
fn ikenat_nothing(_: XdpContext) -> u32 {
    run(|key| Some(black_box(key)[2]))
}

/// The hash of the key, and no look-up.
#[xdp]
fn ikenat_digest(_: XdpContext) -> u32 {
    run(|key| Some(digest_key(&maps::config().secret, key)))
}

/// Our table.
#[xdp]
fn ikenat_table(_: XdpContext) -> u32 {
    run(|key| {
        let config = maps::config();
        let place = Place::new(digest_key(&config.secret, key), config.flow_mask);
        let slot = table::find(&FLOWS, place, key)?;
        slot[flow::PACKETS].add(1);
        slot[flow::BYTES].add(BYTES);
        Some(slot[flow::PACKETS].load())
    })
}

#[inline(always)]
fn count(counts: Option<&Counts>) -> Option<u64> {
    let counts = counts?;
    counts[0].add(1);
    counts[1].add(BYTES);
    Some(counts[0].load())
}

/// `BPF_MAP_TYPE_HASH`.
#[xdp]
fn ikenat_hash(_: XdpContext) -> u32 {
    run(|key| count(maps::in_hash(&HASH, key)))
}

/// `BPF_MAP_TYPE_LRU_HASH`.
#[xdp]
fn ikenat_lru_hash(_: XdpContext) -> u32 {
    run(|key| count(maps::in_lru_hash(&LRU_HASH, key)))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can come here.
    loop {}
}
