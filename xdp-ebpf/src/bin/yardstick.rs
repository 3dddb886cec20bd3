//! Programs for measurements: a look-up and two counts, in ikenat's table and in the kernel's own
//! maps, and the same without a look-up.
//!
//! They are never attached to an interface. They use FLOW, the hash and the key as the gateway
//! does.

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "values of the kernel's hashes are reached through raw pointers"
)]

// A single-file crate looks for its modules beside it, where Cargo would treat this file as a
// program.
#[path = "bench/measure.rs"]
mod measure;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use aya_ebpf::programs::XdpContext;
use core::hint::black_box;
use ikenat_bench_abi::measure::{Plan, state};
use measure::State;
use xdp_common::slot::{self, Key, flow};
use xdp_common::{Class, Direction};
use xdp_core::Word as _;
use xdp_core::table::hash::digest_key;
use xdp_core::table::{self, Place};
use xdp_ebpf::atomic::Shared;
use xdp_ebpf::maps::{self, Flows};

/// Packets and bytes.
type Counts = [Shared; 2];

/// A key of the kernel's maps: an IPv6 address with SPI and kind, as a table of theirs would need.
type KernelKey = [u64; 3];

/// The key of a flow for the kernel's maps.
#[inline(always)]
const fn kernel_key(key: &Key) -> KernelKey {
    [key.word, 0, key.bits]
}

/// The flows to use.
#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);

/// The progress of the run.
#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);

#[map]
static HASH: HashMap<KernelKey, Counts> = HashMap::with_max_entries(1, 0);

#[map]
static LRU_HASH: LruHashMap<KernelKey, Counts> = LruHashMap::with_max_entries(1, 0);

/// A packet's length.
const BYTES: u64 = 100;

/// Picks the next flow, calls `count`, which looks it up, counts and returns a word that it read,
/// and counts the flows that were found.
#[inline(always)]
fn run(count: impl FnOnce(&Key) -> Option<u64>) -> u32 {
    let (Some(plan), Some(state)) = (PLAN.get(0), STATE.get(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    let next = measure::next(state, plan);
    let peer = next.peer.to_be_bytes();
    let key = slot::flow_key(peer, next.spi, Class::EspInUdp, Direction::Inbound, 0);
    measure::begin(state, plan);
    if let Some(read) = count(&key) {
        let found = state[state::FOUND].load() + 1;
        state[state::FOUND].store(found);
        depend(state, plan, read);
    }
    xdp_action::XDP_PASS
}

/// Makes the next step depend on a word that was just read.
///
/// Without it the CPU begins the next look-up while this one still waits for memory (a locked
/// instruction does not hold back younger loads), which it cannot do between two packets, since
/// some hundred instructions lie between them.
#[inline(always)]
fn depend(state: &State, plan: &Plan, word: u64) {
    let walk = state[state::WALK].load();
    state[state::WALK].store(walk ^ (word & plan.link));
}

/// The value of a key in a `BPF_MAP_TYPE_HASH`.
#[inline(always)]
fn in_hash<K, V: Sync>(map: &'static HashMap<K, V>, key: &K) -> Option<&'static V> {
    // SAFETY: the benchmark fills the map before the run and deletes nothing, so the element stays;
    // `Sync` allows others to read it.
    map.get_ptr(key).map(|value| unsafe { &*value })
}

/// The value of a key in a `BPF_MAP_TYPE_LRU_HASH`, which evicts entries that were not used for
/// long.
#[inline(always)]
fn in_lru_hash<K, V: Sync>(map: &'static LruHashMap<K, V>, key: &K) -> Option<&'static V> {
    // SAFETY: as above; nothing is inserted while the programs run, so nothing is evicted.
    map.get_ptr(key).map(|value| unsafe { &*value })
}

/// No look-up.
#[xdp]
fn ikenat_nothing(_: XdpContext) -> u32 {
    run(|key| Some(black_box(kernel_key(key))[2]))
}

/// The hash of the key, and no look-up.
#[xdp]
fn ikenat_digest(_: XdpContext) -> u32 {
    run(|key| Some(digest_key(&maps::config().secret, key)))
}

/// ikenat's table.
#[xdp]
fn ikenat_table(_: XdpContext) -> u32 {
    run(|key| {
        let config = maps::config();
        let place = Place::new(digest_key(&config.secret, key), config.flow_mask);
        let slot = table::find(&Flows, place, key)?;
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
    run(|key| count(in_hash(&HASH, &kernel_key(key))))
}

/// `BPF_MAP_TYPE_LRU_HASH`.
#[xdp]
fn ikenat_lru_hash(_: XdpContext) -> u32 {
    run(|key| count(in_lru_hash(&LRU_HASH, &kernel_key(key))))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
