//! What a removed service or VIP leaves in HALF, PIN, FRAGMENT and HOSTPEER.

use super::*;
use xdp_common::slot::recent::DETAILS;

#[test]
fn entries_of_small_tables_go_by_number_or_by_age() {
    let mut world = World::new(&[A, C]);
    world.configure(&["c:203.0.113.4=192.168.0.3"]);
    // Service 0 is going, and the VIPs 0 and 1.
    let peer = [198, 51, 100, 7];
    let put = |world: &World, table: usize, at: usize, digest: u64, details| {
        let tick = u16::try_from(world.tick & 0xffff).expect("16 bits");
        recent::remember(&world.small[table][at], digest, tick, details);
    };
    let remember = |world: &World, at: usize, service: u16, vip: u64| {
        let first = pin::owner(u32::from_ne_bytes(peer), service);
        put(world, 1, at, 1 << 16, [first, 0, vip]);
    };
    let teach = |world: &World, vip: u16| {
        let [number, address] = host_peer::key_words(vip, peer);
        let details = [number, address, world.tick << 32 | 4500];
        let digest = host_peer_digest(&SECRET, vip, peer, 4500);
        put(world, 3, usize::from(vip), digest, details);
    };
    // What the earlier programs have written.
    for table in [0, 2] {
        put(&world, table, 2, 1 << 16, [1, 2, 3]);
    }
    remember(&world, 0, 0, 0);
    remember(&world, 6, 1, 1);
    // Connections of the service that stays, to which a SYN has come by another VIP.
    for (at, other) in [(3, 1), (4, 2)] {
        let first = pin::connection(u32::from_ne_bytes(peer), 7, 1);
        let word = pin::with_other(pin::claimed(2), other);
        put(&world, 1, at, 1 << 16, [first, 0, word]);
    }
    teach(&world, 0);
    teach(&world, 1);
    for _ in 0..=HOLD {
        world.pass();
    }
    assert_eq!(world.pass().numbers, 0);
    // And those of now.
    for table in [0, 2] {
        put(&world, table, 15, 2 << 16, [1, 2, 3]);
    }
    remember(&world, 5, 1, 2);
    teach(&world, 2);
    let (freed, _) = world.until_free();
    assert_eq!(freed, 3);
    let left = |table: usize| -> Vec<usize> {
        let buckets = world.small[table].iter();
        let is_used = |way: &&[AtomicU64]| Word::load(&way[DIGEST]) != 0;
        let used = |bucket: &Bucket<AtomicU64>| bucket.chunks(WORDS).filter(is_used).count();
        let counts = buckets.map(used).enumerate();
        counts.flat_map(|(at, count)| vec![at; count]).collect()
    };
    let all = [0, 1, 2, 3].map(left);
    assert_eq!(all, [vec![15], vec![3, 4, 5], vec![15], vec![2]]);
    let others = [3, 4].map(|at: usize| {
        let ways = world.small[1][at].chunks(WORDS);
        let mut words = ways.map(|way| Word::load(&way[DETAILS + 2]));
        let word = words.find(|&word| word != 0).expect("a word");
        (pin::has(word, pin::OTHER), pin::other(word))
    });
    assert_eq!(others, [(0, 0), (1, 2)]);
}
