//! Which cached next hops a change concerns: those of listed peers (`--except-peer`, `--deny`), which
//! a start invalidates, and those of the peers to which a route has changed.

use crate::config::peer_lists::Lists;
use crate::error::Result;
use crate::tables::grace::GracePeriod;
use crate::tables::mmap::Tables;
use ipnet::Ipv4Net;
use std::collections::{BTreeSet, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use xdp_common::slot;
use xdp_common::slot::{flow, session};
use xdp_core::Word;
use xdp_core::table::{self, Arrays};

/// Clears the next hops of listed peers. The fast path does not look up PEERS: it sends where the
/// next hop of a flow says. A start invalidates most of those by another epoch. This clears all of
/// them, when no program runs any more that could write one again.
pub(crate) fn hops_of_listed(
    tables: &Tables<AtomicU64>,
    lists: &[(u16, &Lists)],
    grace: &GracePeriod,
) -> Result<()> {
    if lists.is_empty() {
        return Ok(());
    }
    grace.wait()?;
    hops(tables.flow.arrays(), flow::HOP, lists);
    hops(tables.session.arrays(), session::HOP, lists);
    Ok(())
}

/// Whether a peer with a session is in one of these prefixes.
pub(crate) fn has_peer_in(tables: &Tables<AtomicU64>, prefixes: &HashSet<Ipv4Net>) -> bool {
    peer_in(tables.session.arrays(), prefixes)
}

fn peer_in<W: Word>(slots: Arrays<'_, W>, prefixes: &HashSet<Ipv4Net>) -> bool {
    let lengths: BTreeSet<u8> = prefixes.iter().map(Ipv4Net::prefix_len).collect();
    let within = |peer: Ipv4Addr| {
        let of = |length: &u8| Some(Ipv4Net::new(peer, *length).ok()?.trunc());
        lengths
            .iter()
            .filter_map(of)
            .any(|prefix| prefixes.contains(&prefix))
    };
    let mut sessions = slots.iter().filter_map(table::snapshot);
    sessions.any(|words| words.peer().is_some_and(|peer| within(peer.into())))
}

fn hops<W: Word>(slots: Arrays<'_, W>, hop: usize, lists: &[(u16, &Lists)]) {
    for slot in slots.iter() {
        let Some(words) = table::snapshot(slot) else {
            continue;
        };
        let service = slot::service(words.hot[slot::STATE]);
        let own = lists.iter().find(|(number, _)| *number == service);
        let peer = words.peer().map(Ipv4Addr::from);
        if own
            .zip(peer)
            .is_some_and(|((_, lists), peer)| lists.hold(peer))
        {
            slot.hot[hop].store(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::peer_lists::prefix;
    use crate::tables::test_table::TestTable;
    use xdp_common::slot::{STATE, session_key};
    use xdp_core::table::State;

    const LIVE: u64 = 2;
    const REMEMBERED: u64 = 0x0200_0000_0001_0007;

    fn table(peers: &[[u8; 4]]) -> TestTable<AtomicU64> {
        let table = TestTable::new(1);
        for (at, peer) in peers.iter().enumerate() {
            let slot = table.put(at, LIVE, &session_key(*peer, 0));
            Word::store(&slot.hot[session::HOP], REMEMBERED);
        }
        table
    }

    #[test]
    fn a_route_concerns_peers_with_a_session() {
        let table = table(&[[203, 0, 113, 10], [198, 51, 100, 7]]);
        let concerns = |routes: &[&str]| {
            let prefixes = routes.iter().map(|route| route.parse().expect("a prefix"));
            peer_in(table.arrays(), &prefixes.collect())
        };
        assert!(concerns(&["10.0.0.0/8", "198.51.100.0/24"]));
        assert!(concerns(&["203.0.113.10/32"]));
        assert!(!concerns(&[
            "203.0.113.11/32",
            "198.51.101.0/24",
            "198.0.0.0/30"
        ]));
        assert!(!concerns(&[]));
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
        let table = table(&peers.map(|(peer, _)| peer));
        hops(
            table.arrays(),
            session::HOP,
            &[(7, &Lists::default()), (0, &lists)],
        );
        for (slot, (peer, wanted)) in table.arrays().iter().zip(peers) {
            assert_eq!(Word::load(&slot.hot[session::HOP]), wanted, "{peer:?}");
            assert_eq!(State::of(Word::load(&slot.hot[STATE])), State::Live);
        }
    }
}
