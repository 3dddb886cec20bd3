//! Next hops whose address of the hardware may have changed without a word. Frames that XDP sends prove nothing to the
//! kernel, and left alone it would ask a neighbour again after a minute or so. So each second it is made to ask those that
//! are in use; who does not answer within a second is looked for anew, by a question to everybody on the link.
//!
//! It may not know what a packet is, nor how a neighbour is asked.

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

/// An answer takes far less on any link.
const PATIENCE: Duration = Duration::from_millis(900);
/// Without a packet for so many ticks a next hop is not in use.
const IDLE_TICKS: u32 = 3 * NEIGHBOUR_CONFIRM_TICKS;

/// Who was asked when.
#[derive(Debug, Default)]
pub struct Prober {
    asked: HashMap<NeighbourKey, Instant>,
}

impl Prober {
    /// One pass. Names those that did not answer.
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
            // What the kernel refuses here it can do without: a neighbour that has gone meanwhile, for example.
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

/// The next hops through which packets went of late.
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
    // The reckoned time may lag behind a stamp.
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
