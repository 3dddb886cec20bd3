//! The dataplane on the host: the same packet logic over tables of atomics, with a FIB of the test's own.
//!
//! It may not know the kernel. What it says of a packet is what the object must say of it too.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use xdp_common::{Class, Config, Direction, Hook, Reason, cpu, limits, slot};
use xdp_core::nat::Packed;
use xdp_core::nexthop::Entry;
use xdp_core::table::Bucket;
use xdp_core::{Env, Routed, Side, Verdict, Word, recent};

/// Tables and FIB of one gateway on the host, for one hook (`TC`: the slow path, else XDP).
pub struct Host<'t, const TC: bool> {
    tables: &'t Tables,
    route: &'t dyn Fn([u8; 4], [u8; 4], u16) -> Routed,
    jiffies: u64,
    packed: Cell<Option<Packed>>,
}

/// The tables, shared by both hooks.
pub struct Tables {
    flows: Vec<Bucket<AtomicU64>>,
    sessions: Vec<Bucket<AtomicU64>>,
    half: Vec<recent::Bucket<AtomicU64>>,
    fragments: Vec<recent::Bucket<AtomicU64>>,
    nexthops: Vec<Entry<AtomicU64>>,
    meta: Vec<AtomicU64>,
    cpu: [AtomicU64; cpu::WORDS],
}

fn zeroed<T: Default>(length: u32) -> Vec<T> {
    (0..length).map(|_| T::default()).collect()
}

impl Tables {
    /// Empty tables of the sizes that the configuration names; both interfaces take frames from XDP.
    pub fn new(config: &Config) -> Self {
        let cpu = std::array::from_fn(|_| AtomicU64::default());
        for side in [cpu::EGRESS_WAN, cpu::EGRESS_LAN] {
            Word::store(&cpu[side], cpu::egress(super::fixture::MTU, 1));
        }
        Self {
            flows: zeroed(config.flow_mask + 1),
            sessions: zeroed(config.session_mask + 1),
            half: zeroed(config.half_mask + 1),
            fragments: zeroed(config.fragment_mask + 1),
            nexthops: zeroed(limits::NEXTHOPS),
            meta: zeroed(1024),
            cpu,
        }
    }

    /// The live slots of FLOW.
    pub fn flows(&self) -> Vec<[u64; slot::WORDS]> {
        live(&self.flows)
    }

    /// The live slots of SESSION.
    pub fn sessions(&self) -> Vec<[u64; slot::WORDS]> {
        live(&self.sessions)
    }
}

fn live(buckets: &[Bucket<AtomicU64>]) -> Vec<[u64; slot::WORDS]> {
    buckets
        .iter()
        .flatten()
        .filter_map(xdp_core::table::snapshot)
        .collect()
}

impl<'t, const TC: bool> Host<'t, TC> {
    /// The gateway at a moment.
    pub fn new(
        tables: &'t Tables,
        route: &'t dyn Fn([u8; 4], [u8; 4], u16) -> Routed,
        jiffies: u64,
    ) -> Self {
        Self {
            tables,
            route,
            jiffies,
            packed: Cell::new(None),
        }
    }

    /// Puts a frame through the packet logic.
    pub fn run(&self, config: &Config, side: Side, frame: &mut [u8]) -> Verdict {
        xdp_core::run(frame, self, config, side)
    }
}

impl<const TC: bool> Env for Host<'_, TC> {
    type Word = AtomicU64;
    type Buckets = [Bucket<AtomicU64>];
    const HOOK: Hook = if TC { Hook::Tc } else { Hook::Xdp };

    fn flows(&self) -> &Self::Buckets {
        &self.tables.flows
    }
    fn sessions(&self) -> &Self::Buckets {
        &self.tables.sessions
    }
    fn half(&self, index: u32) -> Option<&recent::Bucket<AtomicU64>> {
        self.tables.half.get(index as usize)
    }
    fn fragments(&self, index: u32) -> Option<&recent::Bucket<AtomicU64>> {
        self.tables.fragments.get(index as usize)
    }
    fn nexthop(&self, index: u32) -> Option<&Entry<AtomicU64>> {
        self.tables.nexthops.get(index as usize)
    }
    fn meta(&self, index: usize) -> Option<&AtomicU64> {
        self.tables.meta.get(index)
    }
    fn cpu(&self) -> Option<&[AtomicU64; cpu::WORDS]> {
        Some(&self.tables.cpu)
    }
    fn jiffies(&self) -> u64 {
        self.jiffies
    }
    fn route(&self, source: [u8; 4], destination: [u8; 4], total_length: u16) -> Routed {
        (self.route)(source, destination, total_length)
    }
    fn put(&self, packed: Packed) {
        self.packed.set(Some(packed));
    }
    fn take(&self) -> Option<Packed> {
        self.packed.get()
    }
    /// The host keeps no log.
    fn established(&self, _: [u8; 4], _: Direction) {}
}

/// The XDP action that a verdict becomes (`enum xdp_action` in the kernel's `linux/bpf.h`).
pub fn xdp_action(verdict: Verdict) -> u32 {
    const XDP_DROP: u32 = 1;
    const XDP_PASS: u32 = 2;
    const XDP_REDIRECT: u32 = 4;
    match verdict {
        Verdict::Forward { .. } => XDP_REDIRECT,
        Verdict::Leave(reason) => match reason.outcome() {
            xdp_common::Outcome::Dropped | xdp_common::Outcome::Answered => XDP_DROP,
            xdp_common::Outcome::Punted | xdp_common::Outcome::Slow => XDP_PASS,
        },
    }
}

/// A verdict in a word: what the table of golden packets says.
pub fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Forward {
            class,
            direction,
            tracked,
            ..
        } => describe_forward(class, direction, tracked),
        Verdict::Leave(reason) => describe_leave(reason),
    }
}

fn describe_forward(class: Class, direction: Direction, tracked: bool) -> String {
    let tracked = if tracked { "" } else { " untracked" };
    format!("forward {} {}{tracked}", class.name(), direction.name())
}

fn describe_leave(reason: Reason) -> String {
    format!("{} {}", reason.outcome().name(), reason.name())
}
