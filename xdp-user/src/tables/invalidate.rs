//! Invalidates the next hops that flows and sessions remember of listed peers (`--except-peer`,
//! `--deny`).

use crate::config::peer_lists::Lists;
use crate::error::Result;
use crate::tables::grace::GracePeriod;
use crate::tables::mmap::Tables;
use std::sync::atomic::AtomicU64;
use xdp_common::slot::{self, flow, session};
use xdp_core::Word;
use xdp_core::table::{self, Slot};

/// Clears the next hops of listed peers. The fast path does not look up PEERS: it sends where the
/// next hop of a flow says. A start invalidates most of those by another epoch. This clears all of
/// them, when no program runs any more that could write one again.
pub(crate) fn hops_of_listed(
    tables: &Tables<AtomicU64>,
    lists: &Lists,
    grace: &GracePeriod,
) -> Result<()> {
    if lists.is_empty() {
        return Ok(());
    }
    grace.wait()?;
    hops(tables.flow.slots(), flow::HOP, lists);
    hops(tables.session.slots(), session::HOP, lists);
    Ok(())
}

fn hops<W: Word>(slots: &[Slot<W>], hop: usize, lists: &Lists) {
    for slot in slots {
        let words = table::snapshot(slot);
        if words.is_some_and(|words| lists.hold(slot::peer(&words).into())) {
            slot[hop].store(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::peer_lists::prefix;
    use xdp_common::slot::{KEY, STATE, WORDS, session_key};

    const LIVE: u64 = 0x102;
    const REMEMBERED: u64 = 0x0200_0000_0001_0007;

    fn entry(peer: [u8; 4]) -> Slot<AtomicU64> {
        let mut words = [0; WORDS];
        words[STATE] = LIVE;
        words[KEY..KEY + 3].copy_from_slice(&session_key(peer));
        words[session::HOP] = REMEMBERED;
        words.map(AtomicU64::new)
    }

    #[test]
    fn only_listed_peers_are_forgotten() {
        let lists = Lists {
            except: vec![prefix("203.0.113.8/30").expect("a prefix")],
            deny: vec![prefix("198.51.100.7").expect("an address")],
        };
        let peers = [
            ([203, 0, 113, 10], 0),
            ([203, 0, 113, 12], REMEMBERED),
            ([198, 51, 100, 7], 0),
            ([198, 51, 100, 6], REMEMBERED),
        ];
        let slots = peers.map(|(peer, _)| entry(peer));
        hops(&slots, session::HOP, &lists);
        for (slot, (peer, wanted)) in slots.iter().zip(peers) {
            assert_eq!(Word::load(&slot[session::HOP]), wanted, "{peer:?}");
            assert_eq!(Word::load(&slot[STATE]), LIVE);
        }
    }
}
