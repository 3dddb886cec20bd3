//! Tests of the snapshot: which peers are half-open.

use super::*;
use std::sync::atomic::AtomicU64;
use xdp_common::slot::peer_words;
use xdp_common::slot::recent;

const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

#[test]
fn half_open_peers_are_young_and_have_no_session() {
    let other = Ipv4Addr::new(198, 51, 100, 7);
    let mut words = [0_u64; 4 * recent::WORDS];
    let tick = 3_u16;
    for (entry, (peer, age)) in [(PEER, 5_u16), (other, 9), (other, 7), (other, 61)]
        .into_iter()
        .enumerate()
    {
        let at = entry * recent::WORDS;
        words[at + recent::DIGEST] = 0xabcd_0000 | u64::from(tick.wrapping_sub(age));
        words[at + recent::DETAILS..at + recent::DETAILS + 2]
            .copy_from_slice(&peer_words(peer.octets()));
    }
    let words = words.map(AtomicU64::new);
    let young = young(&words, tick, HALF_OPEN_TICKS);
    assert_eq!(young.len(), 3);
    let session = SessionRecord {
        peer: PEER,
        service: 0,
        age: 0,
        counters: Default::default(),
        spis: 0,
    };
    let found = half_open(&young, &[session], 8);
    assert_eq!(
        found,
        [HalfOpen {
            peer: other,
            age: 7 << 8
        }]
    );
}
