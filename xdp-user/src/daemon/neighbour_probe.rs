//! Probes neighbours in use, so that a MAC change without gratuitous ARP is noticed.
//!
//! Frames that XDP sends confirm nothing to the kernel, and by itself it would probe a neighbour
//! only after a minute or so. So each second the daemon makes it probe those that are in use. A
//! neighbour that does not answer within a second is deleted, so that it is resolved again by a
//! broadcast on the link. One that answers nothing but broadcasts, as some routers do, is left
//! alone for minutes. See `docs/decisions/next-hop-confirmation.md`.

use crate::netlink::Netlink;
use crate::netlink::neighbour::{Neighbour, NeighbourKey};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long to wait for an answer, which needs far less time on any link.
const PATIENCE: Duration = Duration::from_millis(900);
/// After so many probes in a row that were silent, each followed by an answer to a broadcast, a
/// neighbour is not probed ...
const ROUNDS: u32 = 3;
/// ... for this long. It is also the shortest time between two reports of its silence.
pub(super) const PAUSE: Duration = Duration::from_mins(5);

/// The neighbour table of the kernel.
pub trait Arp {
    /// The state of a neighbour; `None` when there is no entry, or the kernel does not say.
    fn state(&self, key: NeighbourKey) -> Option<Neighbour>;
    /// Starts a unicast probe. False when the kernel refuses, which does no harm: the neighbour may
    /// have gone meanwhile, for example.
    fn probe(&self, key: NeighbourKey) -> bool;
    /// Deletes the entry. The next packet makes the kernel ask by broadcast.
    fn delete(&self, key: NeighbourKey) -> bool;
}

impl Arp for Netlink {
    fn state(&self, key: NeighbourKey) -> Option<Neighbour> {
        self.neighbour(key).unwrap_or(None)
    }
    fn probe(&self, key: NeighbourKey) -> bool {
        self.probe_neighbour(key).is_ok()
    }
    fn delete(&self, key: NeighbourKey) -> bool {
        self.delete_neighbour(key).is_ok()
    }
}

/// What a log should say of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It did not answer a probe, and is resolved again.
    NoReply,
    /// It answers broadcasts only, and is not probed for a while.
    BroadcastsOnly,
}

/// What is known of one neighbour.
#[derive(Debug, Default)]
struct Asked {
    /// When the probe was sent that is not answered yet.
    since: Option<Instant>,
    /// It was silent and deleted; a broadcast may find it.
    is_deleted: bool,
    /// Silent probes in a row, after each of which a broadcast was answered.
    rounds: u32,
    /// It is not probed before this.
    pause_until: Option<Instant>,
    /// Its silence was reported then.
    reported: Option<Instant>,
    /// It was reported that it answers broadcasts only.
    is_reported_deaf: bool,
}

impl Asked {
    fn is_paused(&self, now: Instant) -> bool {
        self.pause_until.is_some_and(|until| now < until)
    }

    /// It has a MAC address, and the probe is not pending any more.
    fn resolved(&mut self, now: Instant) -> Option<Silence> {
        if self.since.take().is_some() {
            // It has answered.
            self.rounds = 0;
            self.is_reported_deaf = false;
        }
        if std::mem::take(&mut self.is_deleted) {
            self.rounds += 1;
        }
        if self.rounds < ROUNDS {
            return None;
        }
        self.pause_until = Some(now + PAUSE);
        // After the pause one silent probe is enough for the next.
        self.rounds = ROUNDS - 1;
        (!std::mem::replace(&mut self.is_reported_deaf, true)).then_some(Silence::BroadcastsOnly)
    }

    /// It was silent, and is deleted.
    fn deleted(&mut self, now: Instant) -> Option<Silence> {
        self.is_deleted = true;
        let is_recent = |reported: Instant| now.duration_since(reported) < PAUSE;
        if self.reported.is_some_and(is_recent) || self.is_reported_deaf {
            return None;
        }
        self.reported = Some(now);
        Some(Silence::NoReply)
    }
}

/// The neighbours in use, and what they answered.
#[derive(Debug, Default)]
pub struct Prober {
    asked: HashMap<NeighbourKey, Asked>,
}

impl Prober {
    /// Runs one pass over the neighbours in use. Returns what a log should say.
    pub fn pass(
        &mut self,
        used: &[NeighbourKey],
        arp: &impl Arp,
        now: Instant,
    ) -> Vec<(NeighbourKey, Silence)> {
        self.asked
            .retain(|key, asked| used.contains(key) || asked.is_paused(now));
        let mut silent = Vec::new();
        for &key in used {
            let asked = self.asked.entry(key).or_default();
            let said = match arp.state(key) {
                Some(Neighbour::Resolved) => {
                    let said = asked.resolved(now);
                    if !asked.is_paused(now) && arp.probe(key) {
                        asked.since = Some(now);
                    }
                    said
                }
                Some(Neighbour::Probing) => {
                    let is_overdue = |since: Instant| now.duration_since(since) >= PATIENCE;
                    if asked.since.is_some_and(is_overdue) {
                        asked.since = None;
                        arp.delete(key).then(|| asked.deleted(now)).flatten()
                    } else {
                        None
                    }
                }
                // Broadcasts are not answered either, or nothing is to be asked.
                Some(Neighbour::External | Neighbour::Incomplete | Neighbour::Failed) => {
                    (asked.since, asked.is_deleted, asked.rounds) = (None, false, 0);
                    None
                }
                // No packet has needed it since it was deleted.
                None => {
                    asked.since = None;
                    None
                }
            };
            silent.extend(said.map(|said| (key, said)));
        }
        silent
    }
}

#[cfg(test)]
#[path = "neighbour_probe_tests.rs"]
mod tests;
