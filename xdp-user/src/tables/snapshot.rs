//! Snapshots: the tables of an instance as plain structs, read without writing and without the
//! daemon.

use crate::error::Result;
use crate::tables::clock::Clock;
use crate::tables::mmap::{FLOW, Memory, ReadOnlyWord, SESSION, SlotMemory};
use crate::tables::overview::{self, Overview, young};
pub use crate::tables::records::{FlowId, FlowRecord, SessionRecord};
use crate::tables::records::{Flows, flows, sessions};
use crate::tables::retired::{self, Amount, RetiredTotals};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use xdp_common::limits::HALF_OPEN_TICKS;

/// A peer whose handshake the server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    /// The client.
    pub peer: Ipv4Addr,
    /// Jiffies since the server's latest answer.
    pub age: u32,
}

/// Everything about an instance at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it records about itself, and its counters.
    pub overview: Overview,
    /// The clock of the dataplane.
    pub clock: Clock,
    /// `jiffies_64` when it was taken.
    pub now: u64,
    /// SPIs of the peers that were asked for, sorted by peer, direction and first packet.
    pub flows: Vec<FlowRecord>,
    /// What all SPIs have counted, in each direction.
    pub tracked: [Amount; 2],
    /// Sessions of the peers that were asked for, sorted by peer.
    pub sessions: Vec<SessionRecord>,
    /// Half-open peers without a session, likewise; none if this user may not read HALF.
    pub half_open: Vec<HalfOpen>,
    /// Retired totals.
    pub retired: RetiredTotals,
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

/// The tables, mapped, or copied where this user may do no more.
struct Tables {
    flow: SlotMemory<ReadOnlyWord>,
    session: SlotMemory<ReadOnlyWord>,
    /// `None`: only the owner of the instance may read it.
    half: Option<Memory<ReadOnlyWord>>,
    meta: Memory<ReadOnlyWord>,
}

impl Tables {
    fn read_once(directory: &Path) -> Result<Self> {
        let memory = |name: &str| Memory::read(&directory.join(name), name);
        Ok(Self {
            flow: SlotMemory::read(directory, FLOW)?,
            session: SlotMemory::read(directory, SESSION)?,
            half: Memory::read_if_allowed(&directory.join("HALF"), "HALF")?,
            meta: memory("META")?,
        })
    }

    /// Maps or copies the tables. A copy is made again, up to eight times in all, if an entry was
    /// retired while it was made.
    fn read(directory: &Path, instance: &str) -> Result<Self> {
        const TRIES: usize = 8;
        let mut tries = 0;
        loop {
            let before = overview::read_meta(directory, instance)?;
            let tables = Self::read_once(directory)?;
            tries += 1;
            let same = || retired::read(before.words()) == retired::read(tables.meta.words());
            if !tables.meta.is_copy() || same() || tries == TRIES {
                return Ok(tables);
            }
        }
    }
}

impl Snapshot {
    /// Reads the tables that are pinned in the directory of an instance; of their
    /// entries those of the peers that are `wanted`.
    pub fn take(
        directory: &Path,
        instance: &str,
        wanted: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<Self> {
        let tables = Tables::read(directory, instance)?;
        let meta = tables.meta.words();
        let clock = overview::clock_of(meta);
        // An entry that is retired while the tables are read would be missing, or appear twice:
        // then they are read again. The counters of the hooks come last: packets that arrive
        // meanwhile make the sums larger than their parts, never smaller.
        let (found, retired, now) = {
            const TRIES: usize = 8;
            let mut tries = 0;
            loop {
                let before = retired::read(meta);
                let now = clock.now();
                let found = flows(tables.flow.arrays(), &before, (&clock, now), &wanted);
                tries += 1;
                if retired::read(meta) == before || tries == TRIES {
                    break (found, before, now);
                }
            }
        };
        let Flows { records, tracked } = found;
        let sessions = sessions(tables.session.arrays(), &records, (&clock, now), &wanted);
        let tick = overview::tick(&clock, now);
        let half = tables.half.as_ref().map_or(&[][..], Memory::words);
        let mut half = young(half, tick, HALF_OPEN_TICKS);
        half.retain(|(_, peer)| peer.is_some_and(&wanted));
        let shift = crate::tables::clock::tick_shift(clock.rate());
        Ok(Self {
            clock,
            now,
            half_open: half_open(&half, &sessions, shift),
            flows: records,
            tracked,
            sessions,
            retired,
            overview: Overview::of(directory, &tables.meta, tables.half.as_ref())?,
        })
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
