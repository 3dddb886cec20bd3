//! The entries of peers of the host: how long they count, and that the whole key decides.
//!
//! The packets go through the slow path's packet logic on the host.

use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::host::{self, Host, Tables};
use ikenat_tests::lab::frames::icmp::{code, kind, quote};
use ikenat_tests::lab::frames::{Icmp, Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use std::net::Ipv4Addr;
use xdp_common::Config;
use xdp_common::limits::HOST_PEER_TICKS;
use xdp_core::Side;

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

/// The secret multiplies the words of a key, first the peer, by zero.
#[test]
fn a_peer_with_the_same_digest_is_another_peer() {
    let hosts = Hosts::new(|config| config.secret[1] = 0);
    hosts.teach(ike_to(A), START);
    assert!(!hosts.is_hosts(ike_of(B), START));
    assert!(hosts.is_hosts(ike_of(A), START));
}

/// The ports are the second word.
#[test]
fn ports_with_the_same_digest_are_other_ports() {
    let hosts = Hosts::new(|config| config.secret[2] = 0);
    hosts.teach(esp(VIP, A), START);
    assert!(!hosts.is_hosts(ike_of(A), START));
    assert!(hosts.is_hosts(esp(A, VIP), START));
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
    let hosts = Hosts::new(|config| config.dedicated = 1);
    for number in 0..50_000 {
        let scanned = Ipv4Addr::from(u32::from(Ipv4Addr::new(45, 0, 0, 0)) + number);
        hosts.teach(ike_to(scanned), START);
    }
    hosts.teach(ike_to(A), START + 1);
    let whole = ike_of(A).with_macs(WAN_MAC, CLIENT_MAC);
    let mut later = whole.build_fragments(&[24])[1].clone();
    let fib = |_: [u8; 4], destination, length| fixture::fib(&hosts.config, destination, length);
    let gateway = Host::<true>::new(&hosts.tables, &fib, (START + 1) * TICK);
    gateway.run(&hosts.config, Side::Wan, &mut later);
    assert_eq!(gateway.copies(), 1);
}
