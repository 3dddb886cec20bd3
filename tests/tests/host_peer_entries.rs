//! The entries of peers of the host: how long they count, and that the whole key decides.
//!
//! The packets go through the slow path's packet logic on the host.

use ikenat_tests::bpf::fixture::{self, Services, VIP_2};
use ikenat_tests::bpf::host::{self, Host, Tables};
use ikenat_tests::lab::frames::icmp::{code, kind, quote};
use ikenat_tests::lab::frames::{Icmp, Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::Config;
use xdp_common::limits::{HOST_PEER_BUCKETS, HOST_PEER_TICKS};
use xdp_common::slot::host_peer;
use xdp_core::Side;
use xdp_core::table::hash::host_peer_digest;
use xdp_core::table::recent;

const A: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
/// A tick in the middle of nowhere, and one in jiffies.
const START: u64 = 5_000_000;
const TICK: u64 = 1 << 8;
const LIFE: u64 = HOST_PEER_TICKS as u64;

struct Hosts {
    config: Config,
    tables: Tables,
}

impl Hosts {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = fixture::config();
        change(&mut config);
        let config = config.seal();
        Self {
            tables: Tables::new(&config),
            config,
        }
    }

    fn verdict<const OUT: bool>(&self, side: Side, packet: &Packet, tick: u64) -> String {
        let fib = |_: [u8; 4], destination, length| fixture::fib(&self.config, destination, length);
        let gateway = Host::<true, OUT>::new(&self.tables, &fib, tick * TICK);
        host::word(gateway.run(&self.config, side, &mut packet.build()))
    }

    /// The host sends a packet to a peer.
    fn teach(&self, packet: Packet, tick: u64) {
        let packet = packet.with_macs(CLIENT_MAC, WAN_MAC);
        let verdict = self.verdict::<true>(Side::Out, &packet, tick);
        assert_eq!(verdict, "punted host-peer");
    }

    /// The host sends ESP to a peer for which there is no room.
    fn teach_in_vain(&self, peer: Ipv4Addr, tick: u64) {
        let packet = esp(VIP, peer).with_macs(CLIENT_MAC, WAN_MAC);
        let verdict = self.verdict::<true>(Side::Out, &packet, tick);
        assert_eq!(verdict, "punted other-address");
    }

    /// Whether the host has an entry for ESP of a peer, without an answer by it: an error about such a
    /// packet of the host is the host's.
    fn knows(&self, peer: Ipv4Addr, tick: u64) -> bool {
        let error = Icmp::new(kind::UNREACHABLE, code::HOST, quote(&esp(VIP, peer), 8));
        let reporter = Ipv4Addr::new(198, 51, 100, 250);
        self.is_hosts(Packet::icmp(reporter, VIP, &error), tick)
    }

    /// Peers whose entries with these ports are in one bucket.
    fn peers_of_one_bucket<const N: usize>(&self, ports: u32) -> [Ipv4Addr; N] {
        let bucket = |peer: &Ipv4Addr| {
            let digest = host_peer_digest(&self.config.secret, 0, peer.octets(), ports);
            recent::index(digest, HOST_PEER_BUCKETS - 1)
        };
        let first = u32::from(Ipv4Addr::new(45, 0, 0, 0));
        let mut found = (first..)
            .map(Ipv4Addr::from)
            .filter(|peer| bucket(peer) == 0);
        std::array::from_fn(|_| found.next().expect("addresses enough"))
    }

    /// Whether the host gets a copy of a later fragment of a peer.
    fn shares_fragment(&self, peer: Ipv4Addr, tick: u64) -> bool {
        let whole = ike_of(peer).with_macs(WAN_MAC, CLIENT_MAC);
        let mut later = whole.build_fragments(&[24])[1].clone();
        let fib = |_: [u8; 4], destination, length| fixture::fib(&self.config, destination, length);
        let gateway = Host::<true>::new(&self.tables, &fib, tick * TICK);
        gateway.run(&self.config, Side::Wan, &mut later);
        gateway.copies() == 1
    }

    /// Whether a packet of a peer is the host's; otherwise it is the server's.
    fn is_hosts(&self, packet: Packet, tick: u64) -> bool {
        let packet = packet.with_macs(WAN_MAC, CLIENT_MAC);
        let verdict = self.verdict::<false>(Side::Wan, &packet, tick);
        let is_hosts = verdict == "punted host-peer";
        assert!(is_hosts || verdict.starts_with("forward "), "{verdict}");
        is_hosts
    }
}

fn ike_to(peer: Ipv4Addr) -> Packet {
    Packet::udp((VIP, 500), (peer, 500), [7; 40])
}

fn ike_of(peer: Ipv4Addr) -> Packet {
    Packet::udp((peer, 500), (VIP, 500), [7; 40])
}

fn esp(from: Ipv4Addr, to: Ipv4Addr) -> Packet {
    Packet::raw(from, to, protocol::ESP, [7; 40])
}

#[test]
fn an_entry_counts_for_five_minutes() {
    let hosts = Hosts::new(|_| ());
    hosts.teach(ike_to(A), START);
    assert!(hosts.is_hosts(ike_of(A), START + LIFE));
    assert!(
        !hosts.is_hosts(ike_of(A), START + LIFE + 1),
        "the host is silent"
    );
    hosts.teach(ike_to(B), START + LIFE + 1);
    assert!(hosts.is_hosts(ike_of(B), START + LIFE + 1));
    assert!(!hosts.is_hosts(ike_of(A), START + LIFE + 1), "to this peer");
    // Another CPU has read the clock before.
    assert!(hosts.is_hosts(ike_of(B), START + LIFE));
    assert!(!hosts.is_hosts(ike_of(B), START + LIFE - 1));
}

/// An entry has 16 bits of the time beside its digest, which repeat.
#[test]
fn an_entry_does_not_count_again_after_18_hours() {
    let hosts = Hosts::new(|_| ());
    hosts.teach(ike_to(A), START);
    let later = START + (1 << 16);
    hosts.teach(ike_to(B), later);
    assert!(hosts.is_hosts(ike_of(B), later));
    assert!(!hosts.is_hosts(ike_of(A), later));
}

/// The secret multiplies the first word of a key, the peer, by zero.
#[test]
fn a_peer_with_the_same_digest_is_another_peer() {
    let hosts = Hosts::new(|config| config.secret[11] = 0);
    hosts.teach(ike_to(A), START);
    assert!(!hosts.is_hosts(ike_of(B), START));
    assert!(hosts.is_hosts(ike_of(A), START));
}

/// The ports are the second word.
#[test]
fn ports_with_the_same_digest_are_other_ports() {
    let hosts = Hosts::new(|config| config.secret[12] = 0);
    hosts.teach(esp(VIP, A), START);
    assert!(!hosts.is_hosts(ike_of(A), START));
    assert!(hosts.is_hosts(esp(A, VIP), START));
}

/// The VIP is the third word. Its entry is found at the VIP from which the host has sent.
#[test]
fn a_peer_of_another_vip_with_the_same_digest_is_another_peer() {
    let mut config = fixture::config();
    config.secret[13] = 0;
    let config = Services::Many.of(config);
    let hosts = Hosts {
        tables: Tables::new(&config),
        config,
    };
    hosts.teach(Packet::udp((VIP_2, 500), (A, 500), [7; 40]), START);
    assert!(!hosts.is_hosts(ike_of(A), START));
    assert!(hosts.is_hosts(Packet::udp((A, 500), (VIP_2, 500), [7; 40]), START));
}

/// On a WAN ikenat drops such a frame, since the host would answer, and so teach a peer. The LAN is
/// trusted.
#[test]
fn a_frame_to_all_stations_of_the_lan_is_left_to_the_host() {
    let hosts = Hosts::new(|_| ());
    for to in [VIP, B] {
        let packet = Packet::udp((SERVER, 500), (to, 500), [7; 40]);
        let packet = packet.with_macs([0xff; 6], SERVER_MAC);
        let verdict = hosts.verdict::<false>(Side::Lan, &packet, START);
        assert_eq!(verdict, "punted not-our-mac", "to {to}");
    }
}

/// An error about a packet of the server is the server's, also while the host has peers of its own.
#[test]
fn an_error_about_the_servers_packet_is_not_the_hosts() {
    let hosts = Hosts::new(|_| ());
    hosts.teach(ike_to(A), START);
    let about = |peer| {
        let error = Icmp::new(kind::UNREACHABLE, code::HOST, quote(&ike_to(peer), 8));
        Packet::icmp(Ipv4Addr::new(198, 51, 100, 250), VIP, &error)
    };
    assert!(hosts.is_hosts(about(A), START));
    assert!(!hosts.is_hosts(about(B), START));
}

/// Of a peer that has not answered, the entry for its fragments gives way, too.
#[test]
fn a_scan_with_udp_keeps_no_fragments_from_a_new_peer() {
    let hosts = Hosts::new(|config| config.vip.dedicated = 1);
    for number in 0..50_000 {
        let scanned = Ipv4Addr::from(u32::from(Ipv4Addr::new(45, 0, 0, 0)) + number);
        hosts.teach(ike_to(scanned), START);
    }
    hosts.teach(ike_to(A), START + 1);
    assert!(hosts.shares_fragment(A, START + 1));
}

/// A bucket has four. Each keeps its own place when the host sends again; a fifth takes that of the
/// oldest.
#[test]
fn the_oldest_peer_without_an_answer_gives_way() {
    let hosts = Hosts::new(|_| ());
    let peers: [_; 5] = hosts.peers_of_one_bucket(0);
    for (at, oldest) in [(0, 1), (1, 0), (2, 0), (3, 0)] {
        let hosts = Hosts::new(|_| ());
        for (tick, peer) in (START..).zip(&peers[..4]) {
            hosts.teach(esp(VIP, *peer), tick);
        }
        // What is sent once more is the youngest.
        hosts.teach(esp(VIP, peers[at]), START + 10);
        assert!(peers[..4].iter().all(|peer| hosts.knows(*peer, START + 10)));
        hosts.teach(esp(VIP, peers[4]), START + 11);
        let gone: Vec<usize> = (0..5)
            .filter(|number| !hosts.knows(peers[*number], START + 11))
            .collect();
        assert_eq!(gone, [oldest], "{at} was the youngest");
    }
    // Another CPU has read the clock before those that have written all four.
    for peer in &peers[..4] {
        hosts.teach(esp(VIP, *peer), START + 1);
    }
    hosts.teach(esp(VIP, peers[4]), START);
    assert!(hosts.knows(peers[4], START));
}

#[test]
fn a_peer_that_has_answered_stays_when_the_host_sends_more() {
    for answered in 0..4 {
        let hosts = Hosts::new(|_| ());
        let peers: [_; 5] = hosts.peers_of_one_bucket(0);
        for peer in &peers[..4] {
            hosts.teach(esp(VIP, *peer), START);
        }
        assert!(hosts.is_hosts(esp(peers[answered], VIP), START));
        hosts.teach(esp(VIP, peers[answered]), START + 1);
        for (tick, peer) in (START + 2..).zip(&peers[..4]) {
            if *peer != peers[answered] {
                hosts.teach(esp(VIP, *peer), tick);
            }
        }
        hosts.teach(esp(VIP, peers[4]), START + 9);
        assert!(hosts.knows(peers[answered], START + 9), "{answered}");
        let others = (0..4).filter(|number| *number != answered);
        let gone: Vec<usize> = (0..4)
            .filter(|number| !hosts.knows(peers[*number], START + 9))
            .collect();
        assert_eq!(gone, others.take(1).collect::<Vec<_>>(), "{answered}");
    }
}

/// When all four have answered there is no room, until one of them is too old, also one that has
/// answered. What it was before does not count in its new life.
#[test]
fn peers_that_have_answered_keep_a_new_one_out_for_five_minutes() {
    let hosts = Hosts::new(|_| ());
    let peers: [_; 5] = hosts.peers_of_one_bucket(0);
    let answer = |peer: Ipv4Addr, tick| assert!(hosts.is_hosts(esp(peer, VIP), tick));
    for (tick, peer) in (START..).zip(&peers[..4]) {
        hosts.teach(esp(VIP, *peer), tick);
        answer(*peer, tick);
    }
    // The first one lasts for 301 ticks: two CPUs read the clock at different moments.
    for tick in [START + 4, START + LIFE] {
        hosts.teach_in_vain(peers[4], tick);
        assert!(!hosts.knows(peers[4], tick));
    }
    assert!(
        peers[..4]
            .iter()
            .all(|peer| hosts.knows(*peer, START + LIFE))
    );
    let later = START + LIFE + 1;
    hosts.teach(esp(VIP, peers[4]), later);
    answer(peers[4], later);
    assert!(!hosts.knows(peers[0], later));
    assert!(peers[1..].iter().all(|peer| hosts.knows(*peer, later)));
    // The second one begins once more, and has not answered since.
    let later = START + LIFE + 2;
    hosts.teach(esp(VIP, peers[1]), later);
    hosts.teach(esp(VIP, peers[2]), later);
    answer(peers[2], later);
    hosts.teach(esp(VIP, peers[3]), later);
    answer(peers[3], later);
    hosts.teach(esp(VIP, peers[0]), later + 1);
    let gone: Vec<usize> = (0..5)
        .filter(|number| !hosts.knows(peers[*number], later + 1))
        .collect();
    assert_eq!(gone, [1]);
}

/// The entry for the address alone has answered when the other one has.
#[test]
fn fragments_of_a_peer_that_has_answered_stay_its_own() {
    for answers in [true, false] {
        let hosts = Hosts::new(|config| config.vip.dedicated = 1);
        let peers: [_; 5] = hosts.peers_of_one_bucket(host_peer::ANY_UDP);
        hosts.teach(ike_to(peers[0]), START);
        if answers {
            assert!(hosts.is_hosts(ike_of(peers[0]), START));
        }
        hosts.teach(ike_to(peers[0]), START + 1);
        hosts.teach(ike_to(peers[0]), START + 2);
        for peer in &peers[1..] {
            hosts.teach(ike_to(*peer), START + 3);
        }
        assert_eq!(hosts.shares_fragment(peers[0], START + 3), answers);
    }
}
