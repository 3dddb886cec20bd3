//! The dataplane on the host: the same packet logic as in the eBPF object, over tables of atomics
//! and a FIB of the test. Its result for a packet must be that of the object in the kernel.

pub use super::verdict::{egress_action, tc_action, word, xdp_action};

use super::tables::{Slot, SlotTable};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use xdp_common::counters::{stream, untracked};
use xdp_common::{Config, Direction, Hook, Reason, Untracked, cpu, limits, slot};
use xdp_core::conntrack::{connection, pin, places};
use xdp_core::icmp::{error, translate};
use xdp_core::neighbour::{Gateway, table::Entry};
use xdp_core::packet::PackedPacket;
use xdp_core::table::recent;
use xdp_core::wire::segment::Segment;
use xdp_core::{Env, FibQuery, FibResult, Frame, Side, Verdict, Vips, Word, inside, learn};

/// Tables and FIB of one gateway on the host, for one hook (`TC`: the slow path, otherwise XDP;
/// `OUT`: its egress program).
pub struct Host<'t, const TC: bool, const OUT: bool = false> {
    tables: &'t Tables,
    route: &'t Fib<'t>,
    jiffies: u64,
    packed: Cell<Option<PackedPacket>>,
    /// On egress: the interface that has received the packet, and whether ikenat has handled it.
    received_on: u32,
    is_handled: bool,
    /// Copies that the host's stack got.
    copies: Cell<u32>,
    asked: RefCell<Vec<FibQuery>>,
    rules: Option<&'t Rules<'t>>,
    gateway: Cell<Option<Gateway>>,
    merged: u32,
}

/// The tables, shared by both hooks.
pub struct Tables {
    pub(super) flows: SlotTable,
    pub(super) sessions: SlotTable,
    pub(super) half: Vec<recent::Bucket<AtomicU64>>,
    pub(super) pins: Vec<recent::Bucket<AtomicU64>>,
    pub(super) fragments: Vec<recent::Bucket<AtomicU64>>,
    pub(super) host_peers: Vec<recent::Bucket<AtomicU64>>,
    nexthops: Vec<Entry<AtomicU64>>,
    pub(super) limit: Vec<AtomicU64>,
    listed: BTreeMap<(u16, [u8; 4]), u32>,
    meta: Vec<AtomicU64>,
    pub(super) cpu: [AtomicU64; cpu::WORDS],
}

fn zeroed<T: Default>(length: u32) -> Vec<T> {
    (0..length).map(|_| T::default()).collect()
}

impl Tables {
    /// Creates empty tables of the sizes in the configuration; both interfaces accept frames from
    /// XDP.
    pub fn new(config: &Config) -> Self {
        let cpu = std::array::from_fn(|_| AtomicU64::default());
        for side in [cpu::EGRESS_WAN, cpu::EGRESS_WAN + 1, cpu::EGRESS_LAN] {
            Word::store(&cpu[side], cpu::egress(super::fixture::MTU, 1));
        }
        Self {
            flows: SlotTable::new(config.flow_mask + 1),
            sessions: SlotTable::new(config.session_mask + 1),
            half: zeroed(config.half_mask + 1),
            pins: zeroed(limits::PIN_BUCKETS),
            fragments: zeroed(config.fragment_mask + 1),
            host_peers: zeroed(limits::HOST_PEER_BUCKETS),
            nexthops: zeroed(limits::NEXTHOPS),
            limit: zeroed(limits::ICMP_BUCKETS),
            listed: BTreeMap::new(),
            meta: zeroed(1024),
            cpu,
        }
    }

    /// How many entries of PIN are in use.
    pub fn pins_in_use(&self) -> usize {
        let entries = self
            .pins
            .iter()
            .flat_map(|bucket| bucket.chunks(slot::recent::WORDS));
        entries
            .filter(|entry| Word::load(&entry[slot::recent::DIGEST]) != 0)
            .count()
    }

    /// Puts a peer on a list of services.
    pub fn list(&mut self, list: u16, peer: [u8; 4], what: u32) {
        self.listed.insert((list, peer), what);
    }

    /// How many packets got no entry for this cause at a hook.
    pub fn untracked(&self, hook: Hook, cause: Untracked) -> u64 {
        Word::load(&self.cpu[cpu::counters(hook) + untracked(cause)])
    }

    /// How many streams of IKE over TCP have begun at a hook.
    pub fn streams(&self, hook: Hook, direction: Direction) -> u64 {
        Word::load(&self.cpu[cpu::counters(hook) + stream(direction)])
    }

    /// The live slots of FLOW.
    pub fn flows(&self) -> Vec<Slot> {
        self.flows.live()
    }

    /// The live slots of SESSION.
    pub fn sessions(&self) -> Vec<Slot> {
        self.sessions.live()
    }
}

impl<'t, const TC: bool, const OUT: bool> Host<'t, TC, OUT> {
    /// The gateway at a moment.
    pub fn new(tables: &'t Tables, route: &'t Fib<'t>, jiffies: u64) -> Self {
        Self {
            tables,
            route,
            jiffies,
            packed: Cell::new(None),
            received_on: 0,
            is_handled: false,
            copies: Cell::new(0),
            asked: RefCell::default(),
            rules: None,
            gateway: Cell::new(None),
            merged: 0,
        }
    }

    /// On egress: the host has received the packet on this interface.
    pub fn received_on(mut self, ifindex: u32) -> Self {
        self.received_on = ifindex;
        self
    }

    /// How many copies of packets the host's own stack got.
    pub fn copies(&self) -> u32 {
        self.copies.get()
    }

    /// On egress: ikenat has handled the packet.
    pub fn handled(mut self) -> Self {
        self.is_handled = true;
        self
    }

    /// The same for frames that the device has merged of datagrams with this payload.
    #[must_use]
    pub fn with_merged(self, merged: u32) -> Self {
        Self { merged, ..self }
    }

    /// The same with rules, which come before the FIB.
    #[must_use]
    pub fn with_rules(self, rules: &'t Rules<'t>) -> Self {
        Self {
            rules: Some(rules),
            ..self
        }
    }

    /// What the FIB was asked last.
    pub fn asked(&self) -> Option<FibQuery> {
        self.asked.borrow().last().copied()
    }

    /// All that the FIB was asked, in this order.
    pub fn questions(&self) -> Vec<FibQuery> {
        self.asked.borrow().clone()
    }

    /// The gateway to which tc would send the packet.
    pub fn gateway(&self) -> Option<Gateway> {
        self.gateway.get()
    }

    /// Runs the packet logic on a frame.
    pub fn run(&self, config: &Config, side: Side, frame: &mut [u8]) -> Verdict {
        if TC && translate::is_icmp(frame) {
            return translate::process(frame, self, config, side);
        }
        if OUT && learn::may_teach(frame, config) && learn::learn(frame, self, config) {
            return Verdict::NotForwarded(Reason::HostPeer);
        }
        xdp_core::run(frame, self, config, side)
    }

    /// The same, and replaces the frame with the ICMP error that answers it, if there is one.
    ///
    /// # Panics
    /// The error cannot be built.
    pub fn run_and_answer(&self, config: &Config, side: Side, frame: &mut Vec<u8>) -> Verdict {
        let verdict = self.run(config, side, frame);
        if let Verdict::Answer { reason, mtu } = verdict {
            let cause = error::ErrorCause { side, reason, mtu };
            let answer = error::build(frame.as_slice(), config, &cause)
                .expect("a frame that can be answered");
            let quote = &frame[14..14 + usize::from(answer.quote)];
            *frame = [&answer.head, quote].concat();
        }
        verdict
    }

    /// True when the fast path has sent the one packet that ran: only the general path stores it.
    fn was_fast(&self, verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Forward { .. }) && self.packed.get().is_none()
    }
}

/// The FIB: its result for a packet with this source, destination and total length.
pub type Fib<'f> = dyn Fn([u8; 4], [u8; 4], u16) -> FibResult + 'f;

/// What is decided by more than that.
pub type Rules<'r> = dyn Fn(&FibQuery) -> Option<FibResult> + 'r;

/// Runs the packet logic of a hook on a frame, always with the same time. An answer of tc replaces
/// the frame.
pub fn run_in(
    hook: Hook,
    (tables, fib, config): (&Tables, &Fib<'_>, &Config),
    side: Side,
    frame: &mut Vec<u8>,
) -> Ran {
    const NOW: u64 = 1 << 20;
    let of = |verdict, fast| Ran { verdict, fast };
    match hook {
        Hook::Xdp => {
            let host = Host::<false>::new(tables, fib, NOW);
            let verdict = host.run(config, side, frame);
            of(verdict, host.was_fast(verdict))
        }
        Hook::Tc => {
            let host = Host::<true>::new(tables, fib, NOW);
            of(host.run_and_answer(config, side, frame), false)
        }
        Hook::Egress => {
            let host = Host::<true, true>::new(tables, fib, NOW);
            of(host.run(config, side, frame), false)
        }
    }
}

/// What the packet logic did with a frame.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Its verdict.
    pub verdict: Verdict,
    /// The fast path sent it.
    pub fast: bool,
}

impl<const TC: bool, const OUT: bool> Vips for Host<'_, TC, OUT> {}

impl<const TC: bool, const OUT: bool> Env for Host<'_, TC, OUT> {
    type Word = AtomicU64;
    type Flows = SlotTable;
    type Sessions = SlotTable;
    const HOOK: Hook = match (TC, OUT) {
        (false, _) => Hook::Xdp,
        (true, false) => Hook::Tc,
        (true, true) => Hook::Egress,
    };

    fn flows(&self) -> &SlotTable {
        &self.tables.flows
    }
    fn sessions(&self) -> &SlotTable {
        &self.tables.sessions
    }
    fn half_open(&self, index: u32) -> Option<&recent::Bucket<AtomicU64>> {
        self.tables.half.get(index as usize)
    }
    fn pin_bucket(&self, index: u32) -> Option<&recent::Bucket<AtomicU64>> {
        self.tables.pins.get(index as usize)
    }
    fn fragments(&self, index: u32) -> Option<&recent::Bucket<AtomicU64>> {
        self.tables.fragments.get(index as usize)
    }
    fn host_peer_bucket(&self, index: u32) -> Option<&recent::Bucket<AtomicU64>> {
        self.tables.host_peers.get(index as usize)
    }
    fn received_on(&self) -> u32 {
        self.received_on
    }
    fn is_handled(&self) -> bool {
        self.is_handled
    }
    fn copy_to_host(&self, _: Reason) {
        self.copies.set(self.copies.get() + 1);
    }
    fn neighbour(&self, index: u32) -> Option<&Entry<AtomicU64>> {
        self.tables.nexthops.get(index as usize)
    }
    fn peer_list(&self, list: u16, peer: [u8; 4]) -> Option<u32> {
        self.tables.listed.get(&(list, peer)).copied()
    }
    fn icmp_bucket(&self, index: u32) -> Option<&AtomicU64> {
        self.tables.limit.get(index as usize)
    }
    fn meta(&self, index: usize) -> Option<&AtomicU64> {
        self.tables.meta.get(index)
    }
    fn cpu_block(&self) -> Option<&[AtomicU64; cpu::WORDS]> {
        Some(&self.tables.cpu)
    }
    fn jiffies(&self) -> u64 {
        self.jiffies
    }
    fn fib_lookup(&self, query: &FibQuery) -> FibResult {
        // In tc the kernel then compares the frame at hand with the MTU of the route.
        assert_ne!(query.total_length, 0, "a question without a length");
        self.asked.borrow_mut().push(*query);
        if let Some(answer) = self.rules.and_then(|rules| rules(query)) {
            return answer;
        }
        (self.route)(query.source, query.destination, query.total_length)
    }
    fn merged_size(&self) -> u32 {
        self.merged
    }
    fn store_packet(&self, packed: PackedPacket) {
        self.packed.set(Some(packed));
    }
    fn load_packet(&self) -> Option<PackedPacket> {
        self.packed.get()
    }
    fn keep_gateway(&self, gateway: &Gateway) {
        self.gateway.set(Some(*gateway));
    }
    fn follow_segment<F: Frame + ?Sized>(&self, frame: &F, config: &Config, jiffies: u64) -> usize {
        connection::follow(frame, self, config, jiffies)
    }
    fn settle_vip<F: Frame + ?Sized>(
        &self,
        frame: &F,
        config: &Config,
        jiffies: u64,
        segment: usize,
    ) {
        pin::settle(frame, self, config, jiffies, segment);
    }
    fn note_vip<F: Frame + ?Sized>(&self, frame: &F, config: &Config, jiffies: u64) {
        pin::note(frame, self, config, jiffies);
    }
    fn decide_segment(&self, word: u64, segment: &Segment, vip: u16) -> usize {
        connection::decide(word, segment, vip)
    }
    fn follow_connection(&self, before: u64, segment: &Segment, vip: u16) -> u64 {
        connection::after(before, segment, vip)
    }
    fn put_pin(&self, index: u32, fresh: u64, details: recent::Details) {
        if let Some(bucket) = self.pin_bucket(index) {
            places::put(bucket, fresh, details);
        }
    }
    fn locate(&self, config: &Config, vip: u16, addresses: ([u8; 4], [u8; 4])) -> usize {
        inside::locate(self, config, vip, addresses)
    }
    /// The host keeps no log.
    fn established(&self, _: [u8; 4], _: Direction) {}
}
