//! Probes neighbours in use, so that a MAC change without gratuitous ARP is noticed.
//!
//! Frames that XDP sends confirm nothing to the kernel, and by itself it would probe a neighbour
//! only after a minute or so. So each second the daemon makes it probe those that are in use. A
//! neighbour that does not answer within a second is deleted, so that it is resolved again by a
//! broadcast on the link. See `docs/decisions/next-hop-confirmation.md`.

use crate::netlink::Netlink;
use crate::netlink::neighbour::{Neighbour, NeighbourKey};
use crate::tables::clock::{Clock, tick_shift};
use crate::tables::mmap::{Mapped, Tables};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use xdp_common::limits::NEIGHBOUR_CONFIRM_TICKS;
use xdp_common::slot::nexthop::{CONFIRMED, KEY, WORDS};
use xdp_core::Word;

/// How long to wait for an answer, which needs far less time on any link.
const PATIENCE: Duration = Duration::from_millis(900);
/// A neighbour without a packet for so many ticks is not in use.
const IDLE_TICKS: u32 = 3 * NEIGHBOUR_CONFIRM_TICKS;

/// The neighbours in use, and when each was probed last.
#[derive(Debug, Default)]
pub struct Prober {
    asked: HashMap<NeighbourKey, Instant>,
}

impl Prober {
    /// Runs one pass. Returns the neighbours that did not answer.
    pub fn pass<W: Mapped>(
        &mut self,
        tables: &Tables<W>,
        clock: &Clock,
        netlink: &Netlink,
    ) -> Vec<NeighbourKey> {
        let mut silent = Vec::new();
        let used = in_use(tables.nexthop.words(), clock);
        self.asked.retain(|key, _| used.contains(key));
        for key in used {
            // A refusal by the kernel does no harm: the neighbour may have gone meanwhile, for
            // example.
            match netlink.neighbour(key).unwrap_or(None) {
                Some(Neighbour::Resolved) => {
                    if netlink.probe_neighbour(key).is_ok() {
                        self.asked.insert(key, Instant::now());
                    }
                }
                Some(Neighbour::Probing) if self.is_overdue(key) => {
                    self.asked.remove(&key);
                    if netlink.delete_neighbour(key).is_ok() {
                        silent.push(key);
                    }
                }
                Some(Neighbour::Probing) => {}
                Some(Neighbour::External | Neighbour::Incomplete | Neighbour::Failed) | None => {
                    self.asked.remove(&key);
                }
            }
        }
        silent
    }

    fn is_overdue(&self, key: NeighbourKey) -> bool {
        let asked = self.asked.get(&key);
        asked.is_some_and(|asked| asked.elapsed() >= PATIENCE)
    }
}

/// The neighbours to which packets were sent recently.
fn in_use<W: Word>(words: &[W], clock: &Clock) -> Vec<NeighbourKey> {
    #[expect(clippy::cast_possible_truncation, reason = "a tick is 32 bits")]
    let now = (clock.now() >> tick_shift(clock.rate())) as u32;
    let (entries, _) = words.as_chunks::<WORDS>();
    entries
        .iter()
        .filter_map(|entry| of(entry[KEY].load(), entry[CONFIRMED].load(), now))
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of a word are meant"
)]
fn of(key: u64, confirmed: u64, now: u32) -> Option<NeighbourKey> {
    let age = now.wrapping_sub(confirmed as u32);
    // The computed time may lag behind a stamp.
    let young = age <= IDLE_TICKS || age > u32::MAX - IDLE_TICKS;
    let gateway = Ipv4Addr::from((key as u32).to_ne_bytes());
    (key != 0 && young).then_some(((key >> 32) as u32, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_next_hops_in_use_are_asked() {
        let gateway = Ipv4Addr::new(192, 168, 0, 1);
        let key = 7 << 32 | u64::from(u32::from_ne_bytes(gateway.octets()));
        assert_eq!(of(key, 100, 100), Some((7, gateway)));
        assert_eq!(of(key, 100, 100 + IDLE_TICKS), Some((7, gateway)));
        assert_eq!(of(key, 100, 101 + IDLE_TICKS), None);
        assert_eq!(of(key, 101, 100), Some((7, gateway)), "a clock that lags");
        assert_eq!(of(0, 100, 100), None, "a free entry");
    }
}
