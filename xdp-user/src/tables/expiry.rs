//! Expiry: which entries are too old, and how they are removed.
//!
//! The dataplane never deletes an entry. The daemon does, in three steps: it marks expired entries
//! as dying, waits one grace period for the programs that found them before, and reclaims them,
//! because their counters are final now ([`crate::tables::reclaim`]). See
//! `docs/decisions/expiry-by-daemon.md`.
//!
//! Both tables are visited in slices, one a second. A flow that is alive refreshes its session on
//! that occasion, so a session is judged by what was known when the oldest slice was visited.

use crate::error::Result;
use crate::tables::clock::Clock;
use crate::tables::reclaim::{self, Reclaimed, TableWords};
use crate::tables::records::halves;
use crate::tables::retired::EntryKind;
use crate::tables::retiring::Retiring;
use std::ops::Range;
use xdp_common::Direction;
use xdp_common::limits::{
    IDLE_SECS_FLOW_OF_LIVE_SESSION, OUTBOUND_SPIS, PROVEN_PACKETS, SPIS_PER_OUTBOUND_SPI,
    SPIS_WITHOUT_OUTBOUND, UNPROVEN_SECS,
};
use xdp_common::meta::FLOW_ENTRIES;
use xdp_common::slot::{self, STATE, flow, half_of, session};
use xdp_core::Word;
use xdp_core::table::{Slot, State};

/// The tables are visited in so many slices.
pub const SLICES: usize = 16;

/// Ages in jiffies after which entries expire.
#[derive(Clone, Copy, Debug)]
pub struct ExpiryLimits {
    /// Any entry.
    pub idle: u32,
    /// A silent SPI of a session that is alive.
    pub idle_of_live_session: u32,
    /// An inbound SPI with fewer packets than `PROVEN_PACKETS`, when room is short.
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

/// Removes old entries, one slice at a time.
#[derive(Debug)]
pub struct Expiry {
    clock: Clock,
    limits: ExpiryLimits,
    /// The slice that is next.
    next: usize,
    /// When the flows of each slice were visited.
    visited: [Option<u64>; SLICES],
    retiring: Retiring,
}

/// What one slice is judged by.
#[derive(Clone, Copy)]
struct Judge<'e> {
    clock: &'e Clock,
    limits: ExpiryLimits,
    /// The present moment in jiffies.
    now: u64,
    /// When the oldest slice of FLOW was visited; `None` before each has been.
    horizon: Option<u64>,
    /// More than half of what FLOW may hold is in use.
    is_short: bool,
}

impl Judge<'_> {
    /// Whether a session was silent for the idle time when the oldest slice of FLOW was visited:
    /// each of its flows has refreshed it since then if it had packets.
    fn is_silent<W: Word>(&self, session: &Slot<W>) -> bool {
        self.horizon.is_some_and(|horizon| {
            let age = self.clock.age(self.now, session[session::LAST_SEEN].low());
            u64::from(age).saturating_sub(self.now.saturating_sub(horizon))
                > u64::from(self.limits.idle)
        })
    }

    fn is_old_flow<W: Word>(&self, words: TableWords<'_, W>, slot: &Slot<W>) -> bool {
        let stamp = last_seen(slot);
        let age = self.clock.age(self.now, stamp);
        // Its session has ended, because the server was silent for long. Forged inbound packets may go
        // on for ever; and as long as an outbound flow is found, the server's ESP makes no new session.
        let Some(session) = words.session_of(slot) else {
            return true;
        };
        let direction = slot::direction(slot[STATE].load());
        if age <= self.limits.idle {
            self.refresh(session, direction, stamp);
        }
        age > self.limit(session, direction, slot[flow::PACKETS].load())
    }

    /// The age after which a flow is old. Whoever forges a peer's address can open inbound SPIs and
    /// keep each with a packet now and then, and a client makes the server open others by rekeying; so
    /// where they are short, a silent one has no privilege. The server's last one for a peer keeps it:
    /// the tunnel may be idle, and inbound SPIs need it. (Of two in one slice both may go, since the
    /// number falls at the end of the slice. The server's next packet opens one.)
    fn limit<W: Word>(&self, session: &Slot<W>, direction: Direction, packets: u64) -> u32 {
        let inbound = direction == Direction::Inbound;
        let is_last = !inbound && half_of(session[session::SPIS].load(), direction) <= 1;
        let gives_way = !is_last && (self.is_short || is_crowded(session, direction));
        if gives_way && inbound && packets < PROVEN_PACKETS {
            self.limits.unproven
        } else if gives_way || self.is_silent(session) {
            self.limits.idle
        } else {
            self.limits.idle_of_live_session
        }
    }

    /// A session was last seen when any of its flows was; but inbound ones count only while the server
    /// has an SPI for the peer and has sent something within the idle time of a silent SPI, since
    /// anybody can forge them (RFC 4787 REQ-6). The upper half of the word keeps when that was, if the lower one is of an inbound flow.
    ///
    /// A packet of the server that is counted at the same moment is newer than any flow, so nothing is
    /// written over it.
    fn refresh<W: Word>(&self, session: &Slot<W>, direction: Direction, stamp: u32) {
        let age = |stamp| self.clock.age(self.now, stamp);
        let word = session[session::LAST_SEEN].load();
        let (high, seen) = halves(word);
        let mut outbound = if high == 0 { seen } else { high };
        match direction {
            Direction::Outbound if age(stamp) < age(outbound) => outbound = stamp,
            Direction::Inbound
                if age(outbound) > self.limits.idle_of_live_session
                    || half_of(session[session::SPIS].load(), Direction::Outbound) == 0 =>
            {
                return;
            }
            Direction::Inbound | Direction::Outbound => {}
        }
        let seen = if age(stamp) < age(seen) { stamp } else { seen };
        let high = if outbound == seen { 0 } else { outbound };
        let now = u64::from(high) << 32 | u64::from(seen);
        if now != word {
            session[session::LAST_SEEN].replace(word, now);
        }
    }
}

/// True when half of the SPIs of a direction that a session may have are in use.
fn is_crowded<W: Word>(session: &Slot<W>, direction: Direction) -> bool {
    let spis = session[session::SPIS].load();
    let allowed = match direction {
        Direction::Inbound => {
            SPIS_WITHOUT_OUTBOUND + SPIS_PER_OUTBOUND_SPI * half_of(spis, Direction::Outbound)
        }
        Direction::Outbound => OUTBOUND_SPIS,
    };
    half_of(spis, direction) * 2 >= allowed
}

fn last_seen<W: Word>(slot: &Slot<W>) -> u32 {
    let (stamp, _) = halves(slot[flow::SEEN].load());
    stamp
}

/// The slots of one slice of a table.
pub(super) fn slice(slots: usize, number: usize) -> Range<usize> {
    slots * number / SLICES..slots * (number + 1) / SLICES
}

impl Expiry {
    /// Expires entries after this idle time in seconds.
    pub fn new(clock: Clock, idle_secs: u32) -> Self {
        Self {
            clock,
            limits: ExpiryLimits::new(&clock, idle_secs),
            next: 0,
            visited: [None; SLICES],
            retiring: Retiring::default(),
        }
    }

    /// Finishes the expiry that a dead daemon began, and corrects the numbers that it left.
    pub fn recover<W: Word>(
        words: TableWords<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Reclaimed> {
        let flows = reclaim::dying(words.flows);
        let sessions = reclaim::dying(words.sessions);
        if !flows.is_empty() || !sessions.is_empty() {
            grace()?;
        }
        let freed = reclaim::reclaim(words, &flows, &sessions);
        if !reclaim::recount(words, grace)? {
            tracing::debug!("the tables grow too fast to be counted; the next start tries again");
        }
        Ok(freed)
    }

    /// Visits the next slice of both tables. It needs no memory, and a time that depends on the
    /// size of the tables and not on what is in them, apart from the entries that it removes.
    pub fn pass<W: Word>(
        &mut self,
        words: TableWords<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Reclaimed> {
        let now = self.clock.now();
        self.pass_at(now, words, grace)
    }

    fn pass_at<W: Word>(
        &mut self,
        now: u64,
        words: TableWords<'_, W>,
        grace: impl Fn() -> Result<()>,
    ) -> Result<Reclaimed> {
        let clock = self.clock;
        let judge = |horizon| Judge {
            clock: &clock,
            limits: self.limits,
            now,
            horizon,
            is_short: words.meta[FLOW_ENTRIES].load() * 4 > words.flows.hot().len() as u64,
        };
        let mut freed = Reclaimed::default();
        let before = judge(self.horizon());
        for index in slice(words.flows.hot().len(), self.next) {
            let slot = &words.flows.hot()[index];
            let state = slot[STATE].load();
            if State::of(state) == State::Live && before.is_old_flow(words, slot) {
                let entry = (EntryKind::Flow, index, state);
                freed += self.retiring.retire(entry, words, &grace)?;
            }
        }
        self.visited[self.next] = Some(now);
        let judge = Judge {
            horizon: self.horizon(),
            ..before
        };
        for index in slice(words.sessions.hot().len(), self.next) {
            let slot = &words.sessions.hot()[index];
            let state = slot[STATE].load();
            if State::of(state) == State::Live && judge.is_silent(slot) {
                let entry = (EntryKind::Session, index, state);
                freed += self.retiring.retire(entry, words, &grace)?;
            }
        }
        self.next = (self.next + 1) % SLICES;
        freed += self.retiring.reclaim(words, &grace)?;
        Ok(freed)
    }

    fn horizon(&self) -> Option<u64> {
        let mut visited = self.visited.iter().copied();
        visited.try_fold(u64::MAX, |oldest, one| Some(oldest.min(one?)))
    }
}

#[cfg(test)]
#[path = "expiry_tests.rs"]
mod tests;
