//! Expiry: which entries are too old, and how they are removed.
//!
//! The dataplane never deletes an entry. The daemon does, in three steps: it marks expired entries
//! as dying, waits one grace period for the programs that found them before, and reclaims them,
//! because their counters are final now ([`crate::tables::reclaim`]). See
//! `docs/decisions/expiry-by-daemon.md`.

use crate::error::Result;
use crate::tables::clock::Clock;
use crate::tables::grace::GracePeriod;
use crate::tables::mmap::Tables;
use crate::tables::reclaim::{self, PeerKey, Reclaimed, TableWords};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use xdp_common::Direction;
use xdp_common::limits::{IDLE_SECS_FLOW_OF_LIVE_SESSION, PROVEN_PACKETS, UNPROVEN_SECS};
use xdp_common::slot::{KEY, STATE, flow, session};
use xdp_core::Word;
use xdp_core::table::{self, Slot, State};

/// Ages in jiffies after which entries expire.
#[derive(Clone, Copy, Debug)]
pub struct ExpiryLimits {
    /// Any entry.
    pub idle: u32,
    /// A silent SPI of a session that is alive.
    pub idle_of_live_session: u32,
    /// An inbound SPI with fewer packets than `PROVEN_PACKETS`.
    pub unproven: u32,
}

impl ExpiryLimits {
    /// The limits for an idle time in seconds.
    pub fn new(clock: &Clock, idle_secs: u32) -> Self {
        let of_live_session = idle_secs.max(IDLE_SECS_FLOW_OF_LIVE_SESSION);
        Self {
            idle: clock.jiffies(idle_secs),
            idle_of_live_session: clock.jiffies(of_live_session),
            unproven: clock.jiffies(UNPROVEN_SECS),
        }
    }
}

/// What the decision needs of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowAge {
    /// Index of its slot.
    pub index: usize,
    /// Its state word.
    pub state: u64,
    /// Its peer.
    pub peer: PeerKey,
    /// Its direction.
    pub direction: Direction,
    /// Packets.
    pub packets: u64,
    /// Jiffies since the last one.
    pub age: u32,
}

impl FlowAge {
    /// True for an SPI that the client may have guessed: it must not hold a slot for long.
    pub fn is_unproven(&self, limits: &ExpiryLimits) -> bool {
        self.direction == Direction::Inbound
            && self.packets < PROVEN_PACKETS
            && self.age > limits.unproven
    }
}

/// What the decision needs of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionAge {
    /// Index of its slot.
    pub index: usize,
    /// Its state word.
    pub state: u64,
    /// Its peer.
    pub peer: PeerKey,
    /// Jiffies since the server's last IKE message or keepalive.
    pub age: u32,
}

/// Expired entries: slot and state word of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// In FLOW.
    pub flows: Vec<(usize, u64)>,
    /// In SESSION.
    pub sessions: Vec<(usize, u64)>,
}

/// Decides which entries are too old.
pub fn expired(flows: &[FlowAge], sessions: &[SessionAge], limits: &ExpiryLimits) -> Expired {
    // A session was last seen when it or any flow of its peer was.
    let mut silence: HashMap<PeerKey, u32> = HashMap::new();
    let ages = flows.iter().map(|flow| (flow.peer, flow.age));
    for (peer, age) in ages.chain(sessions.iter().map(|session| (session.peer, session.age))) {
        let youngest = silence.entry(peer).or_insert(age);
        *youngest = age.min(*youngest);
    }
    let silence = |peer: &PeerKey| silence.get(peer).copied().unwrap_or(u32::MAX);
    let alive: HashSet<PeerKey> = sessions
        .iter()
        .map(|session| session.peer)
        .filter(|peer| silence(peer) <= limits.idle)
        .collect();
    let flow_goes = |flow: &&FlowAge| {
        let limit = if alive.contains(&flow.peer) {
            limits.idle_of_live_session
        } else {
            limits.idle
        };
        flow.age > limit || flow.is_unproven(limits)
    };
    let session_goes = |session: &&SessionAge| silence(&session.peer) > limits.idle;
    Expired {
        flows: flows
            .iter()
            .filter(flow_goes)
            .map(|flow| (flow.index, flow.state))
            .collect(),
        sessions: sessions
            .iter()
            .filter(session_goes)
            .map(|session| (session.index, session.state))
            .collect(),
    }
}

/// One pass in so many decides about all entries. In the others only unproven SPIs expire, which is
/// one walk over the first cache lines of FLOW.
const WHOLE_PASS: u64 = 10;

/// Removes old entries, one pass a second.
#[derive(Debug)]
pub struct Expiry {
    clock: Clock,
    limits: ExpiryLimits,
    passes: u64,
}

impl Expiry {
    /// Expires entries after this idle time in seconds.
    pub fn new(clock: Clock, idle_secs: u32) -> Self {
        Self {
            clock,
            limits: ExpiryLimits::new(&clock, idle_secs),
            passes: 0,
        }
    }

    /// Finishes the expiry that a dead daemon began, and corrects the numbers that it left.
    pub fn recover(&self, tables: &Tables<AtomicU64>, grace: &GracePeriod) -> Result<Reclaimed> {
        let words = words(tables);
        let flows = reclaim::dying(words.flows);
        let sessions = reclaim::dying(words.sessions);
        if !flows.is_empty() || !sessions.is_empty() {
            grace.wait()?;
        }
        let freed = reclaim::reclaim(words, &flows, &sessions);
        if !reclaim::recount(words, || grace.wait())? {
            tracing::debug!("the tables grow too fast to be counted; the next start tries again");
        }
        Ok(freed)
    }

    /// Runs one pass.
    pub fn pass(&mut self, tables: &Tables<AtomicU64>, grace: &GracePeriod) -> Result<Reclaimed> {
        let words = words(tables);
        let now = self.clock.now();
        let flows = words.flows.iter().enumerate();
        let flows = flows.filter_map(|(index, slot)| self.flow(index, slot, now));
        let old = if self.passes.is_multiple_of(WHOLE_PASS) {
            let flows: Vec<FlowAge> = flows.collect();
            let sessions: Vec<SessionAge> = words
                .sessions
                .iter()
                .enumerate()
                .filter_map(|(index, slot)| self.session(index, slot, now))
                .collect();
            expired(&flows, &sessions, &self.limits)
        } else {
            Expired {
                flows: flows
                    .filter(|flow| flow.is_unproven(&self.limits))
                    .map(|flow| (flow.index, flow.state))
                    .collect(),
                sessions: Vec::new(),
            }
        };
        self.passes += 1;
        self.retire(words, &old, grace)
    }

    fn retire(
        &self,
        words: TableWords<'_, AtomicU64>,
        old: &Expired,
        grace: &GracePeriod,
    ) -> Result<Reclaimed> {
        let retire = |slots: &[Slot<AtomicU64>], old: &[(usize, u64)], last_seen: LastSeen| {
            let still_old = |slot: &Slot<AtomicU64>| {
                self.clock.age(self.clock.now(), last_seen(slot)) > self.limits.unproven
            };
            let mut retired = Vec::with_capacity(old.len());
            for &(index, state) in old {
                // A packet may have arrived since the decision: then the entry stays.
                if still_old(&slots[index]) && table::retire(&slots[index], state) {
                    retired.push(index);
                }
            }
            retired
        };
        let flows = retire(words.flows, &old.flows, flow_last_seen);
        let sessions = retire(words.sessions, &old.sessions, session_last_seen);
        if flows.is_empty() && sessions.is_empty() {
            return Ok(Reclaimed::default());
        }
        grace.wait()?;
        Ok(reclaim::reclaim(words, &flows, &sessions))
    }

    fn flow(&self, index: usize, slot: &Slot<AtomicU64>, now: u64) -> Option<FlowAge> {
        let state = Word::load(&slot[STATE]);
        (State::of(state) == State::Live).then(|| FlowAge {
            index,
            state,
            peer: reclaim::peer(slot),
            direction: reclaim::direction(Word::load(&slot[KEY + 2])),
            packets: Word::load(&slot[flow::PACKETS]),
            age: self.clock.age(now, flow_last_seen(slot)),
        })
    }

    fn session(&self, index: usize, slot: &Slot<AtomicU64>, now: u64) -> Option<SessionAge> {
        let state = Word::load(&slot[STATE]);
        (State::of(state) == State::Live).then(|| SessionAge {
            index,
            state,
            peer: reclaim::peer(slot),
            age: self.clock.age(now, session_last_seen(slot)),
        })
    }
}

type LastSeen = fn(&Slot<AtomicU64>) -> u32;

fn flow_last_seen(slot: &Slot<AtomicU64>) -> u32 {
    (Word::load(&slot[flow::SEEN]) >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the stamp has 32 bits")]
fn session_last_seen(slot: &Slot<AtomicU64>) -> u32 {
    Word::load(&slot[session::LAST_SEEN]) as u32
}

fn words(tables: &Tables<AtomicU64>) -> TableWords<'_, AtomicU64> {
    TableWords {
        flows: tables.flow.slots(),
        sessions: tables.session.slots(),
        meta: tables.meta.words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ExpiryLimits = ExpiryLimits {
        idle: 300,
        idle_of_live_session: 3600,
        unproven: 10,
    };
    const A: PeerKey = [0, 1];
    const B: PeerKey = [0, 2];

    fn flow(index: usize, peer: PeerKey, direction: Direction, packets: u64, age: u32) -> FlowAge {
        FlowAge {
            index,
            state: 0x102,
            peer,
            direction,
            packets,
            age,
        }
    }

    fn session(index: usize, peer: PeerKey, age: u32) -> SessionAge {
        SessionAge {
            index,
            state: 0x102,
            peer,
            age,
        }
    }

    fn gone(flows: &[FlowAge], sessions: &[SessionAge]) -> (Vec<usize>, Vec<usize>) {
        let old = expired(flows, sessions, &LIMITS);
        let indices = |old: Vec<(usize, u64)>| old.into_iter().map(|(index, _)| index).collect();
        (indices(old.flows), indices(old.sessions))
    }

    #[test]
    fn a_flow_without_a_session_goes_after_the_idle_time() {
        let flows = [
            flow(1, A, Direction::Outbound, 100, 300),
            flow(2, A, Direction::Outbound, 100, 301),
        ];
        assert_eq!(gone(&flows, &[]), (vec![2], vec![]));
    }

    #[test]
    fn a_silent_flow_of_a_live_session_stays_an_hour() {
        let flows = [
            flow(1, A, Direction::Outbound, 100, 3600),
            flow(2, A, Direction::Outbound, 100, 3601),
        ];
        assert_eq!(gone(&flows, &[session(7, A, 20)]), (vec![2], vec![]));
    }

    #[test]
    fn one_busy_flow_keeps_the_session_and_so_the_silent_flows() {
        let flows = [
            flow(1, A, Direction::Outbound, 100, 5),
            flow(2, A, Direction::Outbound, 100, 900),
        ];
        assert_eq!(gone(&flows, &[session(7, A, 2000)]), (vec![], vec![]));
    }

    #[test]
    fn a_silent_session_goes_with_all_its_flows() {
        let flows = [
            flow(1, A, Direction::Inbound, 100, 301),
            flow(2, A, Direction::Outbound, 100, 400),
            flow(3, B, Direction::Outbound, 100, 10),
        ];
        let sessions = [session(7, A, 2000), session(8, B, 2000)];
        assert_eq!(gone(&flows, &sessions), (vec![1, 2], vec![7]));
    }

    #[test]
    fn the_idle_time_is_the_last_jiffy_that_a_session_lives() {
        assert_eq!(gone(&[], &[session(7, A, 300)]), (vec![], vec![]));
        assert_eq!(gone(&[], &[session(7, A, 301)]), (vec![], vec![7]));
    }

    #[test]
    fn a_guessed_spi_goes_soon_even_beside_a_live_session() {
        let flows = [
            flow(1, A, Direction::Inbound, 2, 11),
            flow(2, A, Direction::Inbound, 2, 10),
            flow(3, A, Direction::Inbound, 3, 11),
            flow(4, A, Direction::Outbound, 1, 11),
        ];
        assert_eq!(gone(&flows, &[session(7, A, 0)]), (vec![1], vec![]));
    }
}
