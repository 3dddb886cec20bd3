//! The dataplane with full tables: one instance for each class, direction and number of flows.
//!
//! User space fills the tables with the same insertion code as the dataplane.

use super::rounds::Random;
use anyhow::{Context, Result, ensure};
use ikenat_tests::bpf::{Dataplane, with_sizes};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use xdp_common::slot::{self, Key, flow, session};
use xdp_common::{Class, Config, Direction, limits, meta};
use xdp_core::Word;
use xdp_core::table::hash::digest_key;
use xdp_core::table::{self, Arrays, Halves, Place};
use xdp_user::tables::mmap::{FLOW, Memory, SESSION, SlotMemory};

/// The peer of the first flow, 10.0.0.0; the others follow.
pub(super) const PEER: u32 = 0x0a00_0000;
/// The first of the peers that have no entry, 10.128.0.0.
pub(super) const UNKNOWN_PEER: u32 = 0x0a80_0000;
/// The SPI of the first flow; the others follow.
pub(super) const SPI: u32 = 0x4000_0000;

/// A tick as long as possible while jiffies still distinguish two of them: a next hop that was
/// learnt stays fresh for a round.
const LONG_TICK: u32 = 16;

/// The fewest slots of FLOW in a table at half load, and of SESSION: one flow alone has 1,024 beside it
/// and room around them.
const LEAST: Slots = Slots {
    flows: 1 << 16,
    sessions: 1 << 15,
};

/// Numbers of slots.
struct Slots {
    flows: u32,
    sessions: u32,
}

/// How large the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Two slots a flow: the load beyond which a table accepts no more.
    HalfLoad,
    /// No smaller than `ikenat run` makes them without an option.
    Default,
}

impl Size {
    const fn least(self) -> Slots {
        match self {
            Self::HalfLoad => LEAST,
            Self::Default => Slots {
                flows: limits::FLOW_SLOTS,
                sessions: limits::SESSION_SLOTS,
            },
        }
    }
}

/// The flows in FLOW of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filling {
    /// Number of flows, a power of two.
    pub flows: u64,
    /// The size of the tables.
    pub size: Size,
    /// Their class.
    pub class: Class,
    /// Their direction.
    pub direction: Direction,
}

/// The age of the flows' next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Learnt in this tick: no FIB lookup.
    Fresh,
    /// Learnt in an earlier one.
    Stale,
}

/// A loaded dataplane with full tables.
pub(super) struct Gateway {
    /// The flows in its tables.
    pub filling: Filling,
    /// The object.
    pub dataplane: Dataplane,
    /// Number of keys that have found no slot.
    pub without_slot: u64,
    config: Config,
    flows: SlotMemory<AtomicU64>,
    /// The words of the first flow's slot for the time and for the next hop.
    now: Option<Now>,
}

#[derive(Clone, Copy)]
struct Now {
    hop: u64,
}

/// Buckets for this number of flows: two slots each, and at least this many slots in all.
pub(super) fn buckets(flows: u64, at_least: u32) -> Result<u32> {
    let slots = u32::try_from(2 * flows).context("failed to make so large a table")?;
    Ok(slots.max(at_least) / slot_ways()?)
}

fn slot_ways() -> Result<u32> {
    Ok(u32::try_from(slot::WAYS)?)
}

/// A secret that is the same in every run.
pub(super) fn secret(seed: u64) -> xdp_common::Secret {
    let mut random = Random::new(seed);
    std::array::from_fn(|_| random.next())
}

/// The configuration for tables for so many flows and sessions.
///
/// # Errors
/// The size does not fit.
pub(super) fn sized(base: Config, size: Size, flows: u64, sessions: u64) -> Result<Config> {
    let least = size.least();
    let flow_buckets = buckets(flows, least.flows)?;
    let session_buckets = if sessions == 0 {
        1
    } else {
        buckets(sessions, least.sessions)?
    };
    let mut config = with_sizes(base, flow_buckets, session_buckets);
    config.tick_shift = LONG_TICK;
    Ok(config.seal())
}

/// Only inbound packets may be without a flow and look for a session.
fn has_sessions(filling: Filling) -> bool {
    filling.direction == Direction::Inbound
}

/// The configuration for a filling.
///
/// # Errors
/// The size does not fit.
pub(super) fn sized_for(base: &Config, filling: Filling) -> Result<Config> {
    let sessions = if has_sessions(filling) {
        filling.flows
    } else {
        0
    };
    let base = Config {
        secret: secret(1),
        ..*base
    };
    sized(base, filling.size, filling.flows, sessions)
}

/// The key of a flow.
pub(super) fn key(filling: Filling, number: u32) -> Key {
    let peer = (PEER + number).to_be_bytes();
    slot::flow_key(peer, SPI + number, filling.class, filling.direction, 0)
}

/// Inserts keys into a table, and returns how many found no slot.
pub(super) fn fill(
    table: Arrays<'_, AtomicU64>,
    secret: &xdp_common::Secret,
    keys: impl Iterator<Item = Key>,
    words: impl Fn(Halves<'_, AtomicU64>),
) -> u64 {
    let mask = table.mask().unwrap_or_default();
    let mut without_slot = 0;
    for key in keys {
        let place = Place::new(digest_key(secret, &key), mask);
        if table::insert(&table, place, &key, &words).is_none() {
            without_slot += 1;
        }
    }
    without_slot
}

/// Maps both halves of FLOW or SESSION into memory.
///
/// # Errors
/// There are no such maps.
fn slots(dataplane: &Dataplane, [hot, cold]: [&str; 2]) -> Result<SlotMemory<AtomicU64>> {
    let memory = |name| anyhow::Ok(Memory::of(dataplane.map_data(name)?, name)?);
    let (hot, cold) = (memory(hot)?, memory(cold)?);
    Ok(SlotMemory { hot, cold })
}

impl Gateway {
    /// Loads the object and fills its tables. Call it in the namespace of the gateway.
    ///
    /// # Errors
    /// The kernel refuses the object, or a table is so full that the figures would mean nothing.
    pub(super) fn new(base: &Config, filling: Filling) -> Result<Self> {
        Self::of(None, base, filling)
    }

    /// The same with another object of this ABI.
    ///
    /// # Errors
    /// As above.
    pub(super) fn of(path: Option<&Path>, base: &Config, filling: Filling) -> Result<Self> {
        let config = sized_for(base, filling)?;
        let has_sessions = has_sessions(filling);
        let mut dataplane = match path {
            Some(path) => Dataplane::load_file(path, &config)?,
            None => Dataplane::load(&config)?,
        };
        let flows = slots(&dataplane, FLOW)?;
        let numbers = 0..u32::try_from(filling.flows)?;
        let key = |number| key(filling, number);
        let secret = &config.secret;
        let keys = numbers.clone().map(key);
        let mut without_slot = fill(flows.arrays(), secret, keys, |slot| {
            Word::store(&slot.cold[flow::FIRST], u64::from(limits::NATT_PORT));
        });
        ensure!(
            without_slot * 1000 < filling.flows,
            "{without_slot} of {} flows found no slot: the figures would mean nothing",
            filling.flows
        );
        if has_sessions {
            let sessions = slots(&dataplane, SESSION)?;
            let keys = numbers.map(|number| slot::session_key((PEER + number).to_be_bytes(), 0));
            let others = fill(sessions.arrays(), secret, keys, |slot| {
                Word::store(&slot.hot[session::SPIS], 1);
            });
            without_slot = without_slot.max(others);
            dataplane.set_meta(meta::SESSION_ENTRIES, filling.flows)?;
        }
        dataplane.set_meta(meta::FLOW_ENTRIES, filling.flows)?;
        Ok(Self {
            filling,
            dataplane,
            without_slot,
            config,
            flows,
            now: None,
        })
    }

    /// Makes all flows' next hops fresh or stale. `first` is a packet of the first flow.
    ///
    /// # Errors
    /// The packet is not forwarded.
    pub(super) fn set_age(&mut self, age: Age, ingress: u32, first: &[u8]) -> Result<()> {
        let now = self.look(ingress, first)?;
        let hop = match age {
            Age::Fresh => now.hop,
            // The most distant stamp.
            Age::Stale => now.hop ^ 0x8000,
        };
        for slot in self.flows.arrays().hot() {
            Word::store(&slot[flow::HOP], hop);
            // A measurement begins with number 1.
            Word::store(&slot[flow::SEEN], 0);
        }
        self.now = Some(now);
        Ok(())
    }

    /// Slots of FLOW.
    pub(super) fn slots(&self) -> u64 {
        self.flows.arrays().hot().len() as u64
    }

    /// The packets that each slot of FLOW has counted.
    pub(super) fn packets(&self) -> Vec<u64> {
        let slots = self.flows.arrays().hot().iter();
        slots.map(|slot| Word::load(&slot[flow::PACKETS])).collect()
    }

    /// True when the tick in which the flows were made fresh has ended: then some packets of a
    /// round caused FIB lookups.
    pub(super) fn tick_has_ended(&self, ingress: u32, first: &[u8]) -> Result<bool> {
        let before = self.now;
        let now = self.look(ingress, first)?;
        Ok(before.is_none_or(|before| before.hop != now.hop))
    }

    fn look(&self, ingress: u32, first: &[u8]) -> Result<Now> {
        const REDIRECT: u32 = 4;
        let run = self.dataplane.xdp(ingress, first)?;
        ensure!(
            run.action == REDIRECT,
            "the first flow's packet was not forwarded: action {}",
            run.action
        );
        let key = key(self.filling, 0);
        let place = Place::new(digest_key(&self.config.secret, &key), self.config.flow_mask);
        let flows = self.flows.arrays();
        let slot = table::find(&flows, place, &key).context("failed to find the first flow")?;
        let hop = Word::load(&slot[flow::HOP]);
        Ok(Now { hop })
    }
}
