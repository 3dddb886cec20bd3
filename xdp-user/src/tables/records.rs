//! The slots of FLOW and SESSION as records: one per SPI and direction, one per peer.

use crate::tables::clock::Clock;
use crate::tables::retired::{Amount, Entry, EntryKind, RetiredTotals};
use std::net::Ipv4Addr;
use xdp_common::slot::{self, Contents, STATE, flow, half_of, session};
use xdp_common::{Class, Direction};
use xdp_core::Word;
use xdp_core::table::{self, Arrays};

/// One SPI of one peer in one direction, all its slots added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// The client.
    pub peer: Ipv4Addr,
    /// The number of its service.
    pub service: u16,
    /// Its UDP port; 0 for native ESP.
    pub port: u16,
    /// How the ESP is carried.
    pub class: Class,
    /// The SPI.
    pub spi: u32,
    /// Its direction.
    pub direction: Direction,
    /// Packets.
    pub packets: u64,
    /// Bytes: IPv4 total lengths.
    pub bytes: u64,
    /// `jiffies_64` of the first packet.
    pub first_seen: u64,
    /// Jiffies since the last packet.
    pub age: u32,
    /// Sequence number of the first packet.
    pub first_sequence: u32,
    /// Sequence number of the last one.
    pub last_sequence: u32,
    /// The highest one, extended by its wraps.
    pub highest: u64,
    /// Packets with a number that was not above the highest.
    pub reordered: u64,
}

/// One established peer, all its slots added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// The client.
    pub peer: Ipv4Addr,
    /// The number of its service.
    pub service: u16,
    /// Jiffies since the last packet of any kind.
    pub age: u32,
    /// IKE, NAT-T IKE, keepalives, other, TCP; inbound and outbound of each. A slot counts up to 2^32 and
    /// begins at zero again.
    pub counters: [[u64; 2]; session::COUNTED],
    /// Its SPIs, of both directions.
    pub spis: u64,
}

impl SessionRecord {
    /// What distinguishes it from all others.
    pub const fn id(&self) -> (Ipv4Addr, u16) {
        (self.peer, self.service)
    }
}

/// Identifies an SPI, from one snapshot to the next as well.
pub type FlowId = (Ipv4Addr, Direction, Class, u32, u16);

impl FlowRecord {
    /// What distinguishes it from all others.
    pub const fn id(&self) -> FlowId {
        (
            self.peer,
            self.direction,
            self.class,
            self.spi,
            self.service,
        )
    }

    /// Sequence numbers between the first and the highest that did not arrive.
    pub fn estimated_loss(&self) -> u64 {
        (self.highest + 1)
            .saturating_sub(u64::from(self.first_sequence))
            .saturating_sub(self.packets)
    }

    /// Adds another slot of the same key.
    fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.reordered += other.reordered;
        self.highest = self.highest.max(other.highest);
        if other.first_seen < self.first_seen {
            self.first_seen = other.first_seen;
            self.first_sequence = other.first_sequence;
        }
        if other.age < self.age {
            self.age = other.age;
            self.last_sequence = other.last_sequence;
            self.port = other.port;
        }
    }
}

/// The upper and the lower half of a word.
#[expect(clippy::cast_possible_truncation, reason = "halves of words are meant")]
pub(super) const fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn read_flow(words: &Contents, clock: &Clock, now: u64) -> Option<FlowRecord> {
    let Contents { hot, cold } = words;
    let (last_seen, highest) = halves(hot[flow::SEEN]);
    let (first_sequence, low) = halves(cold[flow::FIRST]);
    let (late, highest_then) = halves(cold[flow::LATE]);
    // A late packet was the last one if no packet with a higher number arrived after it.
    let was_late = cold[flow::REORDERED] != 0 && highest_then == highest;
    let last_sequence = if was_late { late } else { highest };
    Some(FlowRecord {
        peer: words.peer()?.into(),
        service: slot::service(hot[STATE]),
        port: u16::try_from(low & 0xffff).unwrap_or_default(),
        class: slot::class(hot[STATE]),
        spi: words.spi(),
        direction: slot::direction(hot[STATE]),
        packets: hot[flow::PACKETS],
        bytes: hot[flow::BYTES],
        first_seen: cold[flow::FIRST_SEEN],
        age: clock.age(now, last_seen),
        first_sequence,
        last_sequence,
        highest: u64::from(low >> 16) << 32 | u64::from(highest),
        reordered: cold[flow::REORDERED],
    })
}

fn read_session(words: &Contents, clock: &Clock, now: u64) -> Option<SessionRecord> {
    let (_, last_seen) = halves(words.hot[session::LAST_SEEN]);
    Some(SessionRecord {
        peer: words.peer()?.into(),
        service: slot::service(words.hot[STATE]),
        age: clock.age(now, last_seen),
        counters: std::array::from_fn(|class| {
            let word = words.cold[session::COUNTERS + class];
            Direction::ALL.map(|direction| half_of(word, direction))
        }),
        spis: 0,
    })
}

/// The flows of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flows {
    /// Those that are wanted, sorted by peer, service, direction and first packet.
    pub records: Vec<FlowRecord>,
    /// What all of them have counted, in each direction.
    pub tracked: [Amount; 2],
}

/// Reads the flows once, without those that the retired totals contain. `wanted` chooses the peers
/// whose flows become records.
pub(super) fn flows<W: Word>(
    slots: Arrays<'_, W>,
    retired: &RetiredTotals,
    (clock, now): (&Clock, u64),
    wanted: impl Fn(Ipv4Addr) -> bool,
) -> Flows {
    let mut flows = Flows::default();
    for (index, slot) in slots.iter().enumerate() {
        let Some(words) = table::snapshot(slot) else {
            continue;
        };
        let entry = Entry {
            kind: EntryKind::Flow,
            index,
            state: words.hot[STATE],
        };
        // An entry that the retired totals contain is about to be freed, and must not count twice.
        if retired.contains(entry) {
            continue;
        }
        let Some(flow) = read_flow(&words, clock, now) else {
            continue;
        };
        let tracked = &mut flows.tracked[flow.direction as usize];
        tracked.packets += flow.packets;
        tracked.bytes += flow.bytes;
        if wanted(flow.peer) {
            flows.records.push(flow);
        }
    }
    let records = &mut flows.records;
    records.sort_unstable_by_key(FlowRecord::id);
    records.dedup_by(|other, kept| {
        let same = other.id() == kept.id();
        if same {
            kept.merge(other);
        }
        same
    });
    records.sort_by_key(|flow| {
        let of_session = (flow.peer, flow.service);
        (of_session, flow.direction, flow.first_seen, flow.spi)
    });
    flows
}

/// The sessions of wanted peers, sorted by peer and service. Each gets the number of its flows, which
/// are sorted by both as well, and is as young as the youngest of them.
pub(super) fn sessions<W: Word>(
    slots: Arrays<'_, W>,
    flows: &[FlowRecord],
    (clock, now): (&Clock, u64),
    wanted: impl Fn(Ipv4Addr) -> bool,
) -> Vec<SessionRecord> {
    let read = |slot| read_session(&table::snapshot(slot)?, clock, now);
    let mut sessions: Vec<SessionRecord> = slots
        .iter()
        .filter_map(read)
        .filter(|session| wanted(session.peer))
        .collect();
    sessions.sort_unstable_by_key(SessionRecord::id);
    sessions.dedup_by(|other, kept| {
        let same = other.id() == kept.id();
        if same {
            kept.age = kept.age.min(other.age);
            let sums = kept.counters.iter_mut().flatten();
            for (sum, part) in sums.zip(other.counters.iter().flatten()) {
                *sum += part;
            }
        }
        same
    });
    let by_id = (SessionRecord::id, |flow: &FlowRecord| {
        (flow.peer, flow.service)
    });
    merge_join(&mut sessions, flows, by_id, |session, flow| {
        session.spis += 1;
        session.age = session.age.min(flow.age);
    });
    sessions
}

/// Calls `pair` for every two elements with the same key, in one pass over both lists. Both are
/// sorted by the key, and on the left no key appears twice.
fn merge_join<L, R, K: Ord>(
    left: &mut [L],
    right: &[R],
    (left_key, right_key): (impl Fn(&L) -> K, impl Fn(&R) -> K),
    mut pair: impl FnMut(&mut L, &R),
) {
    let mut right = right.iter().peekable();
    for one in left {
        let key = left_key(one);
        while let Some(other) = right.next_if(|other| right_key(other) <= key) {
            if right_key(other) == key {
                pair(one, other);
            }
        }
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
