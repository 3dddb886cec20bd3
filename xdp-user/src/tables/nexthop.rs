//! NEXTHOP as the daemon sees it: which neighbours are used.

use std::net::Ipv4Addr;
use xdp_common::slot::nexthop::{KEY, WORDS};
use xdp_core::Word;
use xdp_core::neighbour::table::{self, PROBES};

/// Whether a flow may cache a next hop to this neighbour of an interface: it has an entry, or there
/// was no room for one.
pub fn may_be_cached<W: Word>(words: &[W], (index, gateway): (u32, Ipv4Addr)) -> bool {
    let (entries, _) = words.as_chunks::<WORDS>();
    let key = table::key(index, gateway.octets());
    let first = table::hash(key) as usize;
    let held = (0..PROBES as usize)
        .filter_map(|probe| entries.get((first + probe) % entries.len().max(1)))
        .map(|entry| entry[KEY].load());
    let mut is_full = true;
    for held in held {
        if held == key {
            return true;
        }
        is_full &= held != 0;
    }
    is_full
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use xdp_common::limits::NEXTHOPS;

    #[test]
    fn a_neighbour_is_listed_or_there_was_no_room() {
        let words: Vec<AtomicU64> = (0..NEXTHOPS as usize * WORDS)
            .map(|_| AtomicU64::new(0))
            .collect();
        let gateway = |last| (3, Ipv4Addr::new(192, 168, 0, last));
        let key = |last| table::key(3, [192, 168, 0, last]);
        let entry = |last, probe: usize| {
            let at = (table::hash(key(last)) as usize + probe) % NEXTHOPS as usize;
            &words[at * WORDS + KEY]
        };
        assert!(!may_be_cached(&words, gateway(1)));
        Word::store(entry(1, 1), key(1));
        assert!(may_be_cached(&words, gateway(1)));
        for probe in 0..PROBES as usize {
            Word::store(entry(1, probe), key(2));
        }
        assert!(may_be_cached(&words, gateway(1)), "no room");
        Word::store(entry(1, 2), 0);
        assert!(!may_be_cached(&words, gateway(1)));
    }
}
