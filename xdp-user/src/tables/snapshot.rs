//! Snapshots: the tables of an instance as plain structs, read without writing and without the
//! daemon.

use crate::config::interfaces::Interface;
use crate::config::settings::Mode;
use crate::error::Result;
use crate::tables::clock::{Clock, Moment};
use crate::tables::meta::{address, check_version, interface};
use crate::tables::mmap::{Mapped, Memory, ReadOnlyWord, Tables};
use crate::tables::reclaim::direction;
use crate::tables::retired::{self, Entry, EntryKind, RetiredTotals};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use xdp_common::counters::Counters;
use xdp_common::limits::{FRAGMENT_TICKS, HALF_OPEN_TICKS};
use xdp_common::slot::{self, KEY, STATE, flow, recent, session};
use xdp_common::{Class, Direction, Hook, meta};
use xdp_core::Word;
use xdp_core::table::{self, Slot};

/// One SPI of one peer in one direction, all its slots added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// The client.
    pub peer: Ipv4Addr,
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
    /// Jiffies since the last packet of any kind.
    pub age: u32,
    /// IKE, NAT-T IKE, keepalives, other; inbound and outbound of each.
    pub counters: [[u64; 2]; session::COUNTED],
}

/// A peer whose handshake the server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    /// The client.
    pub peer: Ipv4Addr,
    /// Jiffies since the server's latest answer.
    pub age: u32,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUsage {
    /// Its name.
    pub name: &'static str,
    /// Entries now.
    pub entries: u64,
    /// Entries at most.
    pub limit: u64,
    /// Bytes of memory.
    pub bytes: u64,
}

/// An interface, as META records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceRecord {
    /// Its side and number.
    pub port: Interface,
    /// Its index.
    pub index: u32,
    /// Its name when it was attached.
    pub name: String,
    /// How its XDP program runs.
    pub mode: Mode,
    /// Whether it accepts frames from XDP.
    pub ready: bool,
}

/// Everything about an instance at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// The server.
    pub server: Ipv4Addr,
    /// Its settings, as bits ([`meta::FLAGS`]).
    pub flags: u64,
    /// Prefixes of `--except-peer` and of `--deny`.
    pub listed: [u32; 2],
    /// The number of the network namespace of the interfaces.
    pub namespace: u64,
    /// WANs and LANs.
    pub interfaces: Vec<InterfaceRecord>,
    /// The clock of the dataplane.
    pub clock: Clock,
    /// `jiffies_64` when it was taken.
    pub now: u64,
    /// SPIs, sorted by peer, direction and first packet.
    pub flows: Vec<FlowRecord>,
    /// Sessions, sorted by peer.
    pub sessions: Vec<SessionRecord>,
    /// Half-open peers without a session, sorted by peer.
    pub half_open: Vec<HalfOpen>,
    /// Retired totals.
    pub retired: RetiredTotals,
    /// Counters of each hook.
    pub counters: [Counters; Hook::ALL.len()],
    /// The tables.
    pub tables: Vec<TableUsage>,
}

impl FlowRecord {
    /// Sequence numbers between the first and the highest that did not arrive.
    pub fn estimated_loss(&self) -> u64 {
        (self.highest + 1)
            .saturating_sub(u64::from(self.first_sequence))
            .saturating_sub(self.packets)
    }

    /// Adds another slot of the same key.
    fn merge(&mut self, other: Self) {
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

#[expect(clippy::cast_possible_truncation, reason = "halves of words are meant")]
const fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn read_flow(words: &[u64; slot::WORDS], clock: &Clock, now: u64) -> Option<FlowRecord> {
    let (_, kind) = halves(words[KEY + 2]);
    let class = Class::ALL
        .into_iter()
        .find(|class| *class as u32 == kind >> 8 && class.is_esp())?;
    let (last_seen, highest) = halves(words[flow::SEEN]);
    let (first_sequence, low) = halves(words[flow::FIRST]);
    let (late, highest_then) = halves(words[flow::LATE]);
    // A late packet was the last one if no packet with a higher number arrived after it.
    let was_late = words[flow::REORDERED] != 0 && highest_then == highest;
    let last_sequence = if was_late { late } else { highest };
    Some(FlowRecord {
        peer: slot::peer(words).into(),
        port: u16::try_from(low & 0xffff).unwrap_or_default(),
        class,
        spi: slot::spi(words),
        direction: direction(words[KEY + 2]),
        packets: words[flow::PACKETS],
        bytes: words[flow::BYTES],
        first_seen: words[flow::FIRST_SEEN],
        age: clock.age(now, last_seen),
        first_sequence,
        last_sequence,
        highest: u64::from(low >> 16) << 32 | u64::from(highest),
        reordered: words[flow::REORDERED],
    })
}

fn read_session(words: &[u64; slot::WORDS], clock: &Clock, now: u64) -> Option<SessionRecord> {
    let (_, last_seen) = halves(words[session::LAST_SEEN]);
    Some(SessionRecord {
        peer: slot::peer(words).into(),
        age: clock.age(now, last_seen),
        counters: std::array::from_fn(|i| [0, 1].map(|way| words[session::COUNTERS + 2 * i + way])),
    })
}

fn flows<W: Word>(
    slots: &[Slot<W>],
    retired: &RetiredTotals,
    clock: &Clock,
    now: u64,
) -> Vec<FlowRecord> {
    let mut found: BTreeMap<(Ipv4Addr, Direction, Class, u32), FlowRecord> = BTreeMap::new();
    for (index, slot) in slots.iter().enumerate() {
        let Some(words) = table::snapshot(slot) else {
            continue;
        };
        let entry = Entry {
            kind: EntryKind::Flow,
            index,
            state: words[STATE],
        };
        // An entry that the retired totals contain is about to be freed, and must not count twice.
        if retired.contains(entry) {
            continue;
        }
        let Some(flow) = read_flow(&words, clock, now) else {
            continue;
        };
        let key = (flow.peer, flow.direction, flow.class, flow.spi);
        match found.get_mut(&key) {
            Some(same) => same.merge(flow),
            None => {
                found.insert(key, flow);
            }
        }
    }
    let mut flows: Vec<FlowRecord> = found.into_values().collect();
    flows.sort_by_key(|flow| (flow.peer, flow.direction, flow.first_seen, flow.spi));
    flows
}

fn sessions<W: Word>(
    slots: &[Slot<W>],
    flows: &[FlowRecord],
    clock: &Clock,
    now: u64,
) -> Vec<SessionRecord> {
    let mut found: BTreeMap<Ipv4Addr, SessionRecord> = BTreeMap::new();
    for slot in slots {
        let words = table::snapshot(slot);
        let Some(session) = words.and_then(|words| read_session(&words, clock, now)) else {
            continue;
        };
        match found.get_mut(&session.peer) {
            Some(same) => {
                same.age = same.age.min(session.age);
                let sums = same.counters.iter_mut().flatten();
                for (sum, part) in sums.zip(session.counters.iter().flatten()) {
                    *sum += part;
                }
            }
            None => {
                found.insert(session.peer, session);
            }
        }
    }
    // A session was last seen when any of its flows was.
    for flow in flows {
        if let Some(session) = found.get_mut(&flow.peer) {
            session.age = session.age.min(flow.age);
        }
    }
    found.into_values().collect()
}

/// The ways of HALF or FRAGMENT that are not older than a limit: the age in ticks, and the peer in
/// the note.
fn young<W: Word>(words: &[W], tick: u16, limit: u16) -> Vec<(u16, Option<Ipv4Addr>)> {
    let (ways, _) = words.as_chunks::<{ recent::WORDS }>();
    ways.iter()
        .filter_map(|way| {
            let digest = way[recent::DIGEST].load();
            let age = tick.wrapping_sub(u16::try_from(digest & 0xffff).unwrap_or_default());
            let note = [way[recent::NOTE].load(), way[recent::NOTE + 1].load()];
            let peer = slot::peer_address(note).map(Ipv4Addr::from);
            (digest != 0 && age <= limit).then_some((age, peer))
        })
        .collect()
}

fn half_open(
    young: &[(u16, Option<Ipv4Addr>)],
    sessions: &[SessionRecord],
    tick_shift: u32,
) -> Vec<HalfOpen> {
    let mut peers: BTreeMap<Ipv4Addr, u32> = BTreeMap::new();
    for &(ticks, peer) in young {
        let Some(peer) = peer else {
            continue;
        };
        let established = sessions.binary_search_by_key(&peer, |session| session.peer);
        if established.is_err() {
            let age = u32::from(ticks) << tick_shift;
            let youngest = peers.entry(peer).or_insert(age);
            *youngest = age.min(*youngest);
        }
    }
    let half_open = |(peer, age)| HalfOpen { peer, age };
    peers.into_iter().map(half_open).collect()
}

fn interfaces<W: Mapped>(tables: &Tables<W>) -> Vec<InterfaceRecord> {
    let meta = tables.meta.words();
    let generic = meta[meta::GENERIC].load();
    let read = |port: Interface| {
        let (index, name) = interface(meta, port)?;
        Some(InterfaceRecord {
            port,
            index,
            name,
            mode: Mode::of(generic & port.generic() != 0),
            ready: tables.egress(port.egress()) != 0,
        })
    };
    Interface::all().filter_map(read).collect()
}

/// Maps or copies the tables. A copy is made again, up to eight times in all, if an entry was
/// retired while it was made.
fn read(directory: &Path, vip: Ipv4Addr) -> Result<Tables<ReadOnlyWord>> {
    const TRIES: usize = 8;
    let mut tries = 0;
    loop {
        let before = Memory::<ReadOnlyWord>::read(&directory.join("META"), "META")?;
        check_version(directory, vip, before.words()[meta::VERSION].load())?;
        let tables = Tables::read(directory)?;
        tries += 1;
        let same = || retired::read(before.words()) == retired::read(tables.meta.words());
        if !tables.is_copy() || same() || tries == TRIES {
            return Ok(tables);
        }
    }
}

impl Snapshot {
    /// Reads the tables that are pinned in the directory of the instance of `vip`.
    pub fn take(directory: &Path, vip: Ipv4Addr) -> Result<Self> {
        let tables = read(directory, vip)?;
        let meta = tables.meta.words();
        let anchor = Moment {
            jiffies: meta[meta::JIFFIES].load(),
            monotonic: meta[meta::MONOTONIC].load(),
        };
        let clock = Clock::new(meta[meta::HZ].load(), anchor);
        let shift = crate::tables::clock::tick_shift(clock.rate());
        // An entry that is retired while the tables are read would be missing, or appear twice:
        // then they are read again. The counters of the hooks come last: packets that arrive
        // meanwhile make the sums larger than their parts, never smaller.
        let (flows, retired, now) = {
            const TRIES: usize = 8;
            let mut tries = 0;
            loop {
                let before = retired::read(meta);
                let now = clock.now();
                let flows = flows(tables.flow.slots(), &before, &clock, now);
                tries += 1;
                if retired::read(meta) == before || tries == TRIES {
                    break (flows, before, now);
                }
            }
        };
        let sessions = sessions(tables.session.slots(), &flows, &clock, now);
        let tick = u16::try_from(now >> shift & 0xffff).unwrap_or_default();
        let half = young(tables.half.words(), tick, HALF_OPEN_TICKS);
        let fragments = young(tables.fragment.words(), tick, FRAGMENT_TICKS);
        Ok(Self {
            vip: address(meta[meta::VIP].load()),
            server: address(meta[meta::SERVER].load()),
            flags: meta[meta::FLAGS].load(),
            listed: {
                let (deny, except) = halves(meta[meta::LISTED].load());
                [except, deny]
            },
            namespace: meta[meta::NAMESPACE].load(),
            interfaces: interfaces(&tables),
            clock,
            now,
            half_open: half_open(&half, &sessions, shift),
            flows,
            sessions,
            retired,
            counters: tables.counters(),
            tables: table_usages(&tables, half.len(), fragments.len()),
        })
    }
}

fn table_usages(tables: &Tables<ReadOnlyWord>, half: usize, fragments: usize) -> Vec<TableUsage> {
    let meta = |word| tables.meta(word).load();
    let usage = |name, words: &[ReadOnlyWord], entries, limit: usize| TableUsage {
        name,
        entries,
        limit: limit as u64,
        bytes: size_of_val(words) as u64,
    };
    let ways = |words: &[ReadOnlyWord]| words.len() / recent::WORDS;
    let (hops, _) = tables
        .nexthop
        .words()
        .as_chunks::<{ slot::nexthop::WORDS }>();
    let known = hops
        .iter()
        .filter(|hop| hop[slot::nexthop::KEY].load() != 0);
    let (flow, session) = (&tables.flow, &tables.session);
    vec![
        usage(
            "FLOW",
            flow.words(),
            meta(meta::FLOW_ENTRIES),
            flow.slots().len() / 2,
        ),
        usage(
            "SESSION",
            session.words(),
            meta(meta::SESSION_ENTRIES),
            session.slots().len() / 2,
        ),
        usage(
            "HALF",
            tables.half.words(),
            half as u64,
            ways(tables.half.words()),
        ),
        usage(
            "FRAGMENT",
            tables.fragment.words(),
            fragments as u64,
            ways(tables.fragment.words()),
        ),
        usage(
            "NEXTHOP",
            tables.nexthop.words(),
            known.count() as u64,
            hops.len(),
        ),
    ]
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
