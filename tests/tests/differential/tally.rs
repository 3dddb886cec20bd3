//! What must agree in the end: the counters and the tables.

use anyhow::{Result, ensure};
use ikenat_tests::bpf::host::{Ran, Tables};
use ikenat_tests::bpf::{Dataplane, PinBucket, Slot};
use xdp_common::counters::{self, Counters, Quantity};
use xdp_common::slot::{STATE, flow, recent, session};
use xdp_common::{Class, Direction, Hook, Untracked};
use xdp_core::Verdict;
use xdp_core::table::recent::TICK_BITS;

/// At least one packet of this many must be forwarded, or the test proves little ...
const FORWARDED_OF: u64 = 6;
/// ... and in XDP by each of the two paths.
const BY_EACH_PATH_OF: u64 = 10;

/// The host's own counters.
pub(crate) struct Tally {
    counters: Counters,
    /// Packets that the fast path sent.
    fast: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counters: [0; counters::WORDS],
            fast: 0,
        }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, ran: Ran) {
        self.fast += u64::from(ran.fast);
        match ran.verdict {
            Verdict::NotForwarded(reason) | Verdict::Answer { reason, .. } => {
                self.counters[counters::reason(reason)] += 1;
            }
            Verdict::Forward {
                direction,
                class,
                bytes,
                tracked,
                ..
            } => {
                let at = counters::class(direction, class);
                self.counters[at + Quantity::Packets as usize] += 1;
                self.counters[at + Quantity::Bytes as usize] += u64::from(bytes);
                if !tracked {
                    self.counters[at + Quantity::UntrackedPackets as usize] += 1;
                    self.counters[at + Quantity::UntrackedBytes as usize] += u64::from(bytes);
                }
            }
        }
    }

    /// Adds why packets got no entry.
    pub(crate) fn add_untracked(&mut self, tables: &Tables, hook: Hook) {
        for cause in Untracked::ALL {
            self.counters[counters::untracked(cause)] += tables.untracked(hook, cause);
        }
        for way in Direction::ALL {
            self.counters[counters::stream(way)] += tables.streams(hook, way);
        }
    }

    pub(crate) fn check(&self, dataplane: &Dataplane, hook: Hook, packets: u64) -> Result<()> {
        let kernel = dataplane.counters(hook)?;
        ensure!(
            kernel == self.counters,
            "the counters differ\nkernel {kernel:?}\n  host {:?}",
            self.counters
        );
        let first = counters::class(Direction::Inbound, Class::Ike);
        let end = counters::stream(Direction::Inbound);
        ensure!(
            hook == Hook::Egress || kernel[end] > 0,
            "no stream of TCP has begun"
        );
        let forwarded: u64 = kernel[first..end].iter().step_by(4).sum();
        let (fast, general) = (self.fast, forwarded - self.fast);
        println!(
            "{}: of {packets} packets the fast path sent {fast}, the general path {general}",
            hook.name()
        );
        ensure!(
            forwarded >= packets / FORWARDED_OF,
            "only {forwarded} packets were forwarded"
        );
        ensure!(
            hook != Hook::Xdp || fast.min(general) >= packets / BY_EACH_PATH_OF,
            "the fast path sent {fast} packets, the general path {general}"
        );
        Ok(())
    }
}

/// Without the words of time, which differ.
fn timeless(mut slots: Vec<Slot>) -> Vec<Slot> {
    for slot in &mut slots {
        // All but the generation.
        slot.hot[STATE] &= 0x3f_ffff;
    }
    slots.sort_unstable();
    slots
}

pub(crate) fn check_tables(dataplane: &Dataplane, tables: &Tables) -> Result<()> {
    let flows = |mut slots: Vec<Slot>| {
        // The highest sequence number shares its word with the time, and the time is part of the
        // stamp of a next hop.
        for slot in &mut slots {
            slot.hot[flow::SEEN] &= 0xffff_ffff;
            slot.hot[flow::HOP] >>= 16;
            slot.cold[flow::FIRST_SEEN] = 0;
        }
        timeless(slots)
    };
    let sessions = |mut slots: Vec<Slot>| {
        for slot in &mut slots {
            slot.hot[session::HOP] >>= 16;
            slot.hot[session::PORTS_CREATED] &= session::NATIVE_ESP | 0xffff_ffff;
            slot.hot[session::LAST_SEEN] = 0;
        }
        timeless(slots)
    };
    let (kernel, host) = (flows(dataplane.slots("FLOW")?), flows(tables.flows()));
    ensure!(
        kernel == host,
        "FLOW differs: {} slots against {}",
        kernel.len(),
        host.len()
    );
    ensure!(
        host.len() > 20,
        "only {} flows: the packets prove little",
        host.len()
    );
    let (kernel, host) = (
        sessions(dataplane.slots("SESSION")?),
        sessions(tables.sessions()),
    );
    ensure!(
        kernel == host,
        "SESSION differs: {} slots against {}",
        kernel.len(),
        host.len()
    );
    Ok(())
}

/// Compares PIN bucket by bucket: which entry has which place, and all its words.
pub(crate) fn check_pins(dataplane: &Dataplane, tables: &Tables) -> Result<()> {
    // All entries are of one tick, which differs.
    let timeless = |mut bucket: PinBucket| {
        for entry in bucket.as_chunks_mut::<{ recent::WORDS }>().0 {
            entry[recent::DIGEST] >>= TICK_BITS;
        }
        bucket
    };
    let pairs = dataplane.pins()?.into_iter().zip(tables.pins());
    for (index, (kernel, host)) in pairs.enumerate() {
        let (kernel, host) = (timeless(kernel), timeless(host));
        ensure!(
            kernel == host,
            "bucket {index} of PIN differs\nkernel {kernel:x?}\n  host {host:x?}"
        );
    }
    Ok(())
}
