//! NEXTHOP as the daemon sees it: which neighbours are used, and the entries of those that are not.

use std::net::IpAddr;
use xdp_common::limits::{NEIGHBOUR_CONFIRM_TICKS, NEXTHOP_IDLE_TICKS};
use xdp_common::slot::nexthop::{CONFIRMED, KEY, WORDS};
use xdp_core::Word;
use xdp_core::neighbour::table::{self, DYING, Entry, Gateway, PROBES};

/// A neighbour without a packet for so many ticks is not in use.
const IN_USE_TICKS: u32 = 3 * NEIGHBOUR_CONFIRM_TICKS;

fn is_held(key: u64) -> bool {
    key != 0 && key != DYING
}

/// Whether the last packet of an entry is not older than so many ticks.
#[expect(clippy::cast_possible_truncation, reason = "a tick is 32 bits")]
fn is_young<W: Word>(entry: &Entry<W>, tick: u32, ticks: u32) -> bool {
    let age = tick.wrapping_sub(entry[CONFIRMED].load() as u32);
    // The computed time may lag behind a stamp.
    age <= ticks || age > u32::MAX - ticks
}

/// The neighbours to which packets were sent recently, each once: interface and address.
pub fn in_use<W: Word>(words: &[W], tick: u32) -> Vec<(u32, IpAddr)> {
    let (entries, _) = words.as_chunks::<WORDS>();
    let mut used: Vec<(u32, IpAddr)> = entries
        .iter()
        .filter(|entry| is_young(entry, tick, IN_USE_TICKS))
        .filter_map(neighbour)
        .collect();
    // One that has freed entries before its own gets another, and leaves the old one to age.
    used.sort_unstable();
    used.dedup();
    used
}

/// The neighbour that holds an entry.
fn neighbour<W: Word>(entry: &Entry<W>) -> Option<(u32, IpAddr)> {
    let key = entry[KEY].load();
    let gateway = table::gateway(entry, key);
    let [first, ..] = gateway.words.map(u32::to_ne_bytes);
    let address = if gateway == Gateway::v4(first) {
        IpAddr::from(first)
    } else {
        let bytes: [u8; 16] = bytemuck::cast(gateway.words);
        IpAddr::from(bytes)
    };
    is_held(key).then_some(((key >> 32) as u32, address))
}

fn gateway(address: IpAddr) -> Gateway {
    match address {
        IpAddr::V4(address) => Gateway::v4(address.octets()),
        IpAddr::V6(address) => Gateway::v6(address.octets()),
    }
}

/// Frees the entries of neighbours that are not used any more, and those that a dead daemon has
/// retired. Returns how many. `grace` waits for the programs that are running.
pub fn release<W: Word, E>(
    words: &[W],
    tick: u32,
    grace: impl FnOnce() -> Result<(), E>,
) -> Result<usize, E> {
    let (entries, _) = words.as_chunks::<WORDS>();
    let is_idle = |entry: &&Entry<W>| {
        let key = entry[KEY].load();
        let is_old = is_held(key) && !is_young(entry, tick, NEXTHOP_IDLE_TICKS);
        key == DYING || is_old && table::retire(entry, key)
    };
    let retired: Vec<&Entry<W>> = entries.iter().filter(is_idle).collect();
    if !retired.is_empty() {
        grace()?;
    }
    retired.iter().for_each(|entry| table::free(entry));
    Ok(retired.len())
}

/// Whether a flow may cache a next hop to this neighbour of an interface: it has an entry, or there
/// was no room for one.
pub fn may_be_cached<W: Word>(words: &[W], (index, address): (u32, IpAddr)) -> bool {
    let (entries, _) = words.as_chunks::<WORDS>();
    let key = table::key(index, &gateway(address));
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
    use std::convert::Infallible;
    use std::sync::atomic::AtomicU64;
    use xdp_common::limits::NEXTHOPS;

    fn words() -> Vec<AtomicU64> {
        (0..NEXTHOPS as usize * WORDS)
            .map(|_| AtomicU64::new(0))
            .collect()
    }

    fn key(last: u8) -> u64 {
        table::key(3, &Gateway::v4([192, 168, 0, last]))
    }

    fn router(last: u8) -> (u32, IpAddr) {
        (3, IpAddr::from([192, 168, 0, last]))
    }

    /// Gives an entry to a neighbour, with its last packet at this tick.
    fn set(words: &[AtomicU64], at: usize, key: u64, tick: u32) {
        Word::store(&words[at * WORDS + KEY], key);
        Word::store(&words[at * WORDS + CONFIRMED], tick.into());
    }

    #[test]
    fn a_neighbour_is_listed_or_there_was_no_room() {
        let words = words();
        let first = table::hash(key(1)) as usize;
        let at = |probe| (first + probe) % NEXTHOPS as usize;
        assert!(!may_be_cached(&words, router(1)));
        set(&words, at(1), key(1), 0);
        assert!(may_be_cached(&words, router(1)));
        for probe in 0..PROBES as usize {
            set(&words, at(probe), key(2), 0);
        }
        assert!(may_be_cached(&words, router(1)), "no room");
        set(&words, at(2), 0, 0);
        assert!(!may_be_cached(&words, router(1)));
    }

    #[test]
    fn only_next_hops_in_use_are_asked_and_each_once() {
        let words = words();
        set(&words, 5, key(1), 100);
        set(&words, 7, key(1), 100);
        set(&words, 9, DYING, 100);
        assert_eq!(in_use(&words, 100), [router(1)]);
        assert_eq!(in_use(&words, 100 + IN_USE_TICKS), [router(1)]);
        assert_eq!(in_use(&words, 101 + IN_USE_TICKS), []);
        assert_eq!(in_use(&words, 99), [router(1)], "a clock that lags");
    }

    #[test]
    fn an_ipv6_gateway_is_found_by_its_whole_address() {
        let words = words();
        let address: IpAddr = "fe80::1:2:3:4".parse().expect("an address");
        let used = table::Neighbour {
            ifindex: 3,
            gateway: gateway(address),
            destination: 1,
            source: 2,
            mtu: 1500,
        };
        let (entries, _) = words.as_chunks::<WORDS>();
        let entry = &entries[used.hash() as usize % entries.len()];
        assert!(table::claim(entry, &used));
        table::write(entry, &used);
        assert_eq!(in_use(&words, 0), [(3, address)]);
        assert!(may_be_cached(&words, (3, address)));
        let other: IpAddr = "fe80::1:2:3:5".parse().expect("an address");
        assert!(!may_be_cached(&words, (3, other)));
        assert!(table::retire(entry, Word::load(&entry[KEY])));
        table::free(entry);
        assert!(words.iter().all(|word| Word::load(word) == 0));
    }

    #[test]
    fn entries_that_are_not_used_are_freed_after_a_grace_period() {
        let words = words();
        set(&words, 5, key(1), 100);
        set(&words, 6, key(2), 200);
        Word::store(&words[5 * WORDS + 2], 7);
        let mut waited = 0;
        let mut release = |tick| {
            let grace = || {
                waited += 1;
                assert_eq!(Word::load(&words[5 * WORDS + KEY]), DYING);
                Ok::<(), Infallible>(())
            };
            release(&words, tick, grace).unwrap_or_else(|never| match never {})
        };
        assert_eq!(release(100 + NEXTHOP_IDLE_TICKS), 0);
        assert_eq!(release(101 + NEXTHOP_IDLE_TICKS), 1);
        assert_eq!(release(101 + NEXTHOP_IDLE_TICKS), 0);
        assert_eq!(waited, 1, "it waits for what it frees");
        let freed = &words[5 * WORDS..6 * WORDS];
        assert!(freed.iter().all(|word| Word::load(word) == 0));
        assert_eq!(Word::load(&words[6 * WORDS + KEY]), key(2));
    }

    #[test]
    fn what_a_dead_daemon_has_retired_is_freed() {
        let words = words();
        set(&words, 5, DYING, 100);
        let grace = || Ok::<(), Infallible>(());
        assert_eq!(release(&words, 100, grace), Ok(1));
        assert_eq!(Word::load(&words[5 * WORDS + KEY]), 0);
    }
}
