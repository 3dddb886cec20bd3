//! Snapshots: the tables of an instance as plain structs, read without writing and without the
//! daemon.

use crate::config::interfaces::Interface;
use crate::config::settings::Mode;
use crate::error::{InstanceError, Result};
use crate::tables::clock::{Clock, Moment};
use crate::tables::meta::{address, check_version, index_and_name};
use crate::tables::mmap::{Mapped, Memory, ReadOnlyWord, Tables};
pub use crate::tables::records::{FlowRecord, SessionRecord};
use crate::tables::records::{flows, halves, sessions};
use crate::tables::retired::{self, RetiredTotals};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::{fs, io};
use xdp_common::counters::Counters;
use xdp_common::limits::{FRAGMENT_TICKS, HALF_OPEN_TICKS};
use xdp_common::slot::{self, recent};
use xdp_common::{Hook, meta};
use xdp_core::Word;

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
    pub interface: Interface,
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
    /// Identifies the set of tables: `CLOCK_MONOTONIC` in microseconds when they were created. A
    /// restart of the daemon keeps it, new tables have another one.
    ///
    /// Invariant: it tells nothing about the hash key. [`meta::GENERATION`] is a word of the key,
    /// combined with a time that can be guessed, and must not be printed.
    pub generation: u64,
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

/// The entries of HALF or FRAGMENT that are not older than a limit: the age in ticks, and the peer
/// in the details.
fn young<W: Word>(words: &[W], tick: u16, limit: u16) -> Vec<(u16, Option<Ipv4Addr>)> {
    let (entries, _) = words.as_chunks::<{ recent::WORDS }>();
    entries
        .iter()
        .filter_map(|entry| {
            let digest = entry[recent::DIGEST].load();
            let age = tick.wrapping_sub(u16::try_from(digest & 0xffff).unwrap_or_default());
            let details = [
                entry[recent::DETAILS].load(),
                entry[recent::DETAILS + 1].load(),
            ];
            let peer = slot::peer_address(details).map(Ipv4Addr::from);
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
    let read = |interface: Interface| {
        let (index, name) = index_and_name(meta, interface)?;
        Some(InterfaceRecord {
            interface,
            index,
            name,
            mode: Mode::of(generic & interface.generic() != 0),
            ready: tables.egress(interface.egress()) != 0,
        })
    };
    Interface::all().filter_map(read).collect()
}

/// Maps or copies the tables. A copy is made again, up to eight times in all, if an entry was
/// retired while it was made.
fn read(directory: &Path, vip: Ipv4Addr) -> Result<Tables<ReadOnlyWord>> {
    const TRIES: usize = 8;
    let mut tries = 0;
    let meta = directory.join("META");
    let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    if fs::symlink_metadata(&meta).is_err_and(is_missing) {
        return Err(InstanceError::Unfinished { vip }.into());
    }
    loop {
        let before = Memory::<ReadOnlyWord>::read(&meta, "META")?;
        // The version is written last.
        if before.words()[meta::VERSION].load() == 0 {
            return Err(InstanceError::Unfinished { vip }.into());
        }
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
            generation: anchor.monotonic / 1_000,
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
    let capacity = |words: &[ReadOnlyWord]| words.len() / recent::WORDS;
    let (hops, _) = tables
        .nexthop
        .words()
        .as_chunks::<{ slot::nexthop::WORDS }>();
    let used = hops
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
            capacity(tables.half.words()),
        ),
        usage(
            "FRAGMENT",
            tables.fragment.words(),
            fragments as u64,
            capacity(tables.fragment.words()),
        ),
        usage(
            "NEXTHOP",
            tables.nexthop.words(),
            used.count() as u64,
            hops.len(),
        ),
    ]
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
