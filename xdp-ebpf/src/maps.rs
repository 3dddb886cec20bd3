//! The maps, their names and sizes, and the load-time constants. One of the six files with
//! `unsafe`.
//!
//! The sizes here are minimum sizes; the loader sets the real ones.

#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::atomic::Shared;
use crate::helpers;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::bpf_map_lookup_elem;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, LpmTrie, PerCpuArray};
use core::arch::asm;
use core::ffi::c_void;
use core::ptr::NonNull;
#[cfg(not(feature = "without-perfmon"))]
use xdp_common::LossConfig;
use xdp_common::config::{LIST_BITS, peers_key};
use xdp_common::services::{NUMBERS, service, vip};
use xdp_common::{Config, Hook, Secret, cpu, limits, meta, slot};
use xdp_core::neighbour::{Gateway, table as neighbour_table};
use xdp_core::packet::PackedPacket;
use xdp_core::table::recent;
use xdp_core::table::{Bucket, Buckets, Slot};

/// The fewest cold halves: those of one bucket.
const WAYS: u32 = slot::WAYS as u32;

#[map]
static FLOW: Array<Bucket<Shared>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The cold halves of the slots of FLOW, each a value of its own: it is found by one number, and a
/// pointer to it has no variable offset.
#[map]
static FLOW_COLD: Array<Slot<Shared>> = Array::with_max_entries(WAYS, BPF_F_MMAPABLE);
#[map]
static SESSION: Array<Bucket<Shared>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The same for SESSION.
#[map]
static SESSION_COLD: Array<Slot<Shared>> = Array::with_max_entries(WAYS, BPF_F_MMAPABLE);
#[map]
static HALF: Array<recent::Bucket<Shared>> =
    Array::with_max_entries(limits::HALF_BUCKETS, BPF_F_MMAPABLE);
#[map]
static PIN: Array<recent::Bucket<Shared>> =
    Array::with_max_entries(limits::PIN_BUCKETS, BPF_F_MMAPABLE);
#[map]
static FRAGMENT: Array<recent::Bucket<Shared>> =
    Array::with_max_entries(limits::FRAGMENT_BUCKETS, BPF_F_MMAPABLE);
#[map]
static HOSTPEER: Array<recent::Bucket<Shared>> =
    Array::with_max_entries(limits::HOST_PEER_BUCKETS, BPF_F_MMAPABLE);
#[map]
static NEXTHOP: Array<neighbour_table::Entry<Shared>> =
    Array::with_max_entries(limits::NEXTHOPS, BPF_F_MMAPABLE);
/// Prefixes of peers by lists, and how their packets are treated ([`xdp_common::config`]).
#[map]
static PEERS: LpmTrie<[u8; 6], u32> = LpmTrie::with_max_entries(limits::PREFIXES, 0);
/// Token buckets for ICMP errors.
#[map]
static LIMIT: Array<Shared> = Array::with_max_entries(limits::ICMP_BUCKETS, BPF_F_MMAPABLE);
#[map]
static META: Array<[Shared; meta::WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The key of the tables' hash, for the next start; the programs have it in [`CONFIG`]. Apart from
/// META, so that those who may read the tables cannot open it.
#[map]
static SECRET: Array<Secret> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The services, by their numbers, for the next start and for `stats`.
#[map]
static SERVICE: Array<[u64; service::WORDS]> = Array::with_max_entries(NUMBERS, BPF_F_MMAPABLE);
/// The VIPs, likewise.
#[map]
static VIP: Array<[u64; vip::WORDS]> = Array::with_max_entries(NUMBERS, BPF_F_MMAPABLE);
/// The packet that each CPU is processing, per hook. No other CPU reads it.
#[map]
static PACKET: PerCpuArray<InProgress> = PerCpuArray::with_max_entries(Hook::ALL.len() as u32, 0);
/// Buffer into which a part of a packet is copied to compute its checksum.
#[map]
static SCRATCH: PerCpuArray<[u32; SCRATCH_WORDS]> = PerCpuArray::with_max_entries(1, 0);
/// 4 KiB, and one word for the padding.
pub const SCRATCH_WORDS: usize = 1024 + 1;
/// The per-CPU blocks. Not a per-CPU array, since that kind cannot be mapped into user space: the
/// daemon writes the egress words of each CPU.
#[map]
static CPU: Array<[Shared; cpu::WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Written by the loader before the program is loaded; the verifier sees constants.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::ZERO;

/// The load-time constants.
#[inline(always)]
pub fn config() -> &'static Config {
    let pointer: *const Config;
    // SAFETY: the address of the constant, loaded by one instruction. For a reference the compiler
    // would emit two, the second one to hide the initial value of the constant from the optimiser.
    unsafe {
        asm!(
            "{pointer} = {constant} ll",
            pointer = out(reg) pointer,
            constant = sym CONFIG,
            options(pure, nomem, nostack, preserves_flags)
        );
        core::hint::assert_unchecked(!pointer.is_null());
        &*pointer
    }
}

/// Written by the loader likewise, for the programs on tracepoints.
#[cfg(not(feature = "without-perfmon"))]
#[unsafe(no_mangle)]
static LOSSES: LossConfig = LossConfig::ZERO;

/// The load-time constants of the programs on tracepoints.
#[cfg(not(feature = "without-perfmon"))]
#[inline(always)]
pub fn loss_config() -> LossConfig {
    // SAFETY: a constant, which the compiler must not believe to be what it is here.
    unsafe { (&raw const LOSSES).read_volatile() }
}

/// The scratch space of this CPU. Only one reference at a time: two would alias.
#[inline(always)]
pub fn scratch() -> Option<&'static mut [u32; SCRATCH_WORDS]> {
    own(&SCRATCH, 0)
}

/// The value of this CPU in a per-CPU array. Only one reference at a time: two would alias.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map is not its values")]
pub fn own<T>(map: &PerCpuArray<T>, index: u32) -> Option<&mut T> {
    // SAFETY: the value belongs to this CPU, where programs do not interrupt each other.
    own_pointer(map, index).map(|value| unsafe { &mut *value })
}

/// An element of an array.
#[inline(always)]
fn value<T>(map: &'static Array<T>, index: u32) -> Option<&'static T> {
    let found: *const T = look_up(core::ptr::from_ref(map).cast(), index).cast();
    // SAFETY: an element of an array lives as long as the program.
    (!found.is_null()).then(|| unsafe { &*found })
}

/// A pointer to the value of this CPU in a per-CPU array.
#[inline(always)]
fn own_pointer<T>(map: &PerCpuArray<T>, index: u32) -> Option<*mut T> {
    let found: *mut T = look_up(core::ptr::from_ref(map).cast(), index).cast();
    (!found.is_null()).then_some(found)
}

/// A key on the stack, of which the helper reads the lower half. Without CAP_PERFMON a whole word
/// is needed: the verifier rejects half a word over a stack slot that held a pointer.
#[cfg(not(feature = "without-perfmon"))]
type Index = u32;
#[cfg(feature = "without-perfmon")]
type Index = u64;

/// Looks an element up. In aya-ebpf the static definition of a map stands for the map in the
/// program.
#[inline(always)]
fn look_up(map: *const c_void, index: u32) -> *mut c_void {
    let key = Index::from(index);
    // SAFETY: the key lives on the stack and is no shorter than those of arrays.
    unsafe { bpf_map_lookup_elem(map.cast_mut(), (&raw const key).cast()) }
}

/// FLOW and FLOW_COLD.
// A type and not a value: so functions that are not inlined need no argument for it.
pub struct Flows;

impl Buckets for Flows {
    type Word = Shared;
    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket<Shared>> {
        value(&FLOW, index).map(known)
    }
    #[inline(always)]
    fn cold(&self, number: u32) -> Option<&Slot<Shared>> {
        value(&FLOW_COLD, number).map(known)
    }
}

/// SESSION and SESSION_COLD.
pub struct Sessions;

impl Buckets for Sessions {
    type Word = Shared;
    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket<Shared>> {
        value(&SESSION, index).map(known)
    }
    #[inline(always)]
    fn cold(&self, number: u32) -> Option<&Slot<Shared>> {
        value(&SESSION_COLD, number).map(known)
    }
}

/// A bucket of HALF.
#[inline(always)]
pub fn half_open(index: u32) -> Option<&'static recent::Bucket<Shared>> {
    value(&HALF, index).map(known)
}

/// A bucket of PIN.
#[inline(always)]
pub fn pin_bucket(index: u32) -> Option<&'static recent::Bucket<Shared>> {
    value(&PIN, index).map(known)
}

/// A bucket of FRAGMENT.
#[inline(always)]
pub fn fragments(index: u32) -> Option<&'static recent::Bucket<Shared>> {
    value(&FRAGMENT, index).map(known)
}

/// A bucket of HOSTPEER.
#[inline(always)]
pub fn host_peer_bucket(index: u32) -> Option<&'static recent::Bucket<Shared>> {
    value(&HOSTPEER, index).map(known)
}

/// An entry of NEXTHOP.
#[inline(always)]
pub fn neighbour(index: u32) -> Option<&'static neighbour_table::Entry<Shared>> {
    value(&NEXTHOP, index).map(known)
}

/// The treatment of the longest prefix of a list in PEERS that contains an address.
#[inline(always)]
pub fn peer_list(list: u16, peer: [u8; 4]) -> Option<u32> {
    let bits = LIST_BITS + 32;
    PEERS.get(Key::new(bits, peers_key(list, peer))).copied()
}

/// A token bucket for ICMP errors.
#[inline(always)]
pub fn icmp_bucket(index: u32) -> Option<&'static Shared> {
    value(&LIMIT, index).map(known)
}

/// A word of META.
#[inline(always)]
pub fn meta(index: usize) -> Option<&'static Shared> {
    known(value(&META, 0)?).get(index)
}

/// The block of this CPU.
#[inline(always)]
pub fn cpu_block() -> Option<&'static [Shared; cpu::WORDS]> {
    value(&CPU, helpers::cpu()).map(known)
}

/// A value that a look-up returned, behind a barrier for the compiler. Before 6.16 the verifier
/// rejects arithmetic on a pointer that has not been compared with null yet, and the compiler tends
/// to move the arithmetic before the comparison.
#[inline(always)]
#[expect(
    clippy::pointers_in_nomem_asm_block,
    reason = "the pointer is copied, not followed"
)]
pub fn known<T>(value: &'static T) -> &'static T {
    let pointer: *const T;
    // SAFETY: a copy of the pointer. It has to be an instruction: a source line without
    // instructions produces line information that the kernel rejects.
    unsafe {
        asm!(
            "{pointer} = {value}",
            pointer = lateout(reg) pointer,
            value = in(reg) core::ptr::from_ref(value),
            options(pure, nomem, nostack, preserves_flags)
        );
        core::hint::assert_unchecked(!pointer.is_null());
        &*pointer
    }
}

/// A packet that is being processed, and in tc the gateway that it will be sent to.
#[repr(C)]
struct InProgress {
    packet: PackedPacket,
    gateway: Gateway,
}

/// Where this CPU keeps the packet that a hook is processing.
#[derive(Clone, Copy)]
pub struct PacketPlace(NonNull<InProgress>);

impl PacketPlace {
    /// That of a hook, looked up once for a packet.
    #[inline(always)]
    pub fn of(hook: Hook) -> Option<Self> {
        NonNull::new(own_pointer(&PACKET, hook as u32)?).map(Self)
    }

    /// Saves a packet.
    #[inline(always)]
    pub fn store(self, packed: PackedPacket) {
        // SAFETY: the value belongs to this CPU, where programs of one hook do not interrupt each
        // other.
        unsafe { (&raw mut (*self.0.as_ptr()).packet).write_volatile(packed) };
    }

    /// Loads the packet that was saved.
    #[inline(always)]
    pub fn load(self) -> PackedPacket {
        // SAFETY: as for `store`.
        unsafe { (&raw const (*self.0.as_ptr()).packet).read_volatile() }
    }

    /// Keeps the packet's gateway.
    #[inline(always)]
    pub fn keep_gateway(self, gateway: &Gateway) {
        // SAFETY: as for `store`.
        unsafe { (&raw mut (*self.0.as_ptr()).gateway).write_volatile(*gateway) };
    }

    /// The gateway that was kept.
    #[inline(always)]
    pub fn gateway(self) -> *mut Gateway {
        // SAFETY: the place is in a value of the map.
        unsafe { &raw mut (*self.0.as_ptr()).gateway }
    }
}
