//! The peers of the host itself, where their address is that of a client of the server: who keeps
//! what, and what a host behind the gateway can take from others.
//!
//! The packets go through the packet logic on the host.

use std::net::Ipv4Addr;

use ikenat_tests::bpf::gateway::{Gateway, NOW};
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC};
use xdp_common::limits::HOST_PEER_TICKS;
use xdp_core::Side;

/// The port that a NAT has given the client.
const PORT: u16 = 1028;
const OTHER_PORT: u16 = 1030;
const HOSTS: &str = "punted host-peer";
/// As long as an entry of the table counts, and a little more, in jiffies.
const FORGOTTEN: u64 = (HOST_PEER_TICKS as u64 + 3) << 8;

fn esp(spi: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &[0, 0, 0, 1], &[0x55; 100]].concat()
}

/// IKEv2 with both SPIs (RFC 7296 section 3.1): first payload, exchange, flags, message ID.
fn ike([payload, exchange, flags, id]: [u8; 4]) -> Vec<u8> {
    let kind = [payload, 0x20, exchange, flags, 0, 0, 0, id, 0, 0, 0, 40];
    [&b"initiatoresponde"[..], &kind, &[0x55; 12]].concat()
}

/// The response of IKE_SA_INIT: it begins with SA.
const INIT_RESPONSE: [u8; 4] = [33, 34, 0x20, 0];
/// The request of IKE_AUTH, and the response: encrypted.
const AUTH: [u8; 4] = [46, 35, 0x08, 1];
const AUTH_RESPONSE: [u8; 4] = [46, 35, 0x20, 1];
/// Begins with a Notify payload, in the clear.
const REFUSAL: [u8; 4] = [41, 34, 0x20, 0];

fn marked(message: &[u8]) -> Vec<u8> {
    [&[0; 4], message].concat()
}

fn native(peer: Ipv4Addr, spi: u32) -> Packet {
    Packet::raw(peer, VIP, protocol::ESP, esp(spi)).with_macs(WAN_MAC, CLIENT_MAC)
}

fn native_of_server(peer: Ipv4Addr, spi: u32) -> Packet {
    Packet::raw(SERVER, peer, protocol::ESP, esp(spi)).with_macs(LAN_MAC, SERVER_MAC)
}

/// The host, or one behind it, sends native ESP.
fn host_sends_esp(gateway: &Gateway, peer: Ipv4Addr, now: u64) -> String {
    let packet = Packet::raw(VIP, peer, protocol::ESP, esp(0x77)).with_macs(CLIENT_MAC, WAN_MAC);
    gateway.sent_by_host(&packet, now)
}

/// The same with UDP.
fn host_sends(gateway: &Gateway, port: u16, peer: (Ipv4Addr, u16), now: u64) -> String {
    let packet = Packet::udp((VIP, port), peer, [7; 40]).with_macs(CLIENT_MAC, WAN_MAC);
    gateway.sent_by_host(&packet, now)
}

fn copies(gateway: &Gateway, packet: &Packet, now: u64) -> (String, u32) {
    gateway.verdict_and_copies(Side::Wan, &packet.build(), now)
}

fn of_server(verdict: &str) -> (String, u32) {
    (verdict.to_owned(), 0)
}

fn of_both(verdict: &str) -> (String, u32) {
    (verdict.to_owned(), 1)
}

/// Whoever sends ESP to the address of a client takes nothing from it: an SPI that no flow knows goes
/// to both, and whose it is not does not know it.
#[test]
fn a_new_spi_of_a_client_with_native_esp_goes_to_server_and_host() {
    let mut gateway = Gateway::default();
    let client = gateway.next_peer();
    gateway.verdict(Side::Lan, &native_of_server(client, 0x1000), NOW);
    let known = native(client, 0x2000);
    assert_eq!(copies(&gateway, &known, NOW), of_server("forward esp in"));
    assert_eq!(host_sends_esp(&gateway, client, NOW), HOSTS);
    assert_eq!(copies(&gateway, &known, NOW), of_server("forward esp in"));
    let new = native(client, 0x2001);
    for _ in 0..3 {
        let both = of_both("forward esp in untracked");
        assert_eq!(
            copies(&gateway, &new, NOW),
            both,
            "no flow, which would claim it"
        );
    }
    let in_xdp = gateway.verdict_in_xdp(Side::Wan, &new, NOW);
    assert_eq!(in_xdp, "slow esp-undecided");
    let later = NOW + FORGOTTEN;
    let tracked = copies(&gateway, &new, later);
    assert_eq!(tracked, of_server("forward esp in"), "the host is silent");
}

/// All fragments of such a packet.
#[test]
fn the_fragments_of_such_an_spi_go_to_both() {
    let mut gateway = Gateway::default();
    let client = gateway.next_peer();
    gateway.verdict(Side::Lan, &native_of_server(client, 0x1000), NOW);
    host_sends_esp(&gateway, client, NOW);
    let pieces = native(client, 0x2001).build_fragments(&[48]);
    for (piece, class) in pieces.iter().zip(["esp", "fragment"]) {
        let got = gateway.verdict_and_copies(Side::Wan, piece, NOW);
        assert_eq!(got, of_both(&format!("forward {class} in untracked")));
    }
}

/// A client of IKE alone may be about to send native ESP, if it stays on port 500.
#[test]
fn a_client_on_port_500_may_send_native_esp_before_the_server_does() {
    let mut gateway = Gateway::default();
    let client = gateway.next_peer();
    gateway.establish_by_ike(client);
    host_sends_esp(&gateway, client, NOW);
    let both = of_both("forward esp in untracked");
    assert_eq!(copies(&gateway, &native(client, 0x2000), NOW), both);
}

/// Without a session, or with one of a client that encapsulates its ESP, native ESP is the host's.
#[test]
fn native_esp_beside_a_client_of_nat_t_is_the_hosts() {
    let mut gateway = Gateway::default();
    let [stranger, client] = [(); 2].map(|()| gateway.next_peer());
    gateway.outbound(4500, (client, PORT), &esp(0x1000), NOW);
    for peer in [stranger, client] {
        host_sends_esp(&gateway, peer, NOW);
        let left = (HOSTS.to_owned(), 0);
        assert_eq!(copies(&gateway, &native(peer, 0x2000), NOW), left);
        let in_xdp = gateway.verdict_in_xdp(Side::Wan, &native(peer, 0x2000), NOW);
        assert_eq!(in_xdp, HOSTS);
    }
    // Another client behind the same address does not encapsulate.
    gateway.verdict(Side::Lan, &native_of_server(client, 0x1001), NOW);
    let both = of_both("forward esp in untracked");
    assert_eq!(copies(&gateway, &native(client, 0x2000), NOW), both);
}

/// The port that a session claims is one that the server's own packets have shown: also if there is no
/// IKE, and after the peer's NAT has changed it.
#[test]
fn the_port_of_a_session_is_that_of_the_servers_esp() {
    let mut gateway = Gateway::default();
    let client = gateway.next_peer();
    gateway.outbound(4500, (client, PORT), &esp(0x1000), NOW);
    let is_servers = |port, spi| {
        let ike = gateway.inbound((client, port), 4500, &marked(&ike(AUTH)), NOW);
        let new_spi = gateway.inbound((client, port), 4500, &esp(spi), NOW);
        let both_or_none = ike.starts_with("forward") == new_spi.starts_with("forward");
        assert!(both_or_none, "{ike}, {new_spi}");
        ike.starts_with("forward")
    };
    for port in [PORT, OTHER_PORT] {
        host_sends(&gateway, 4500, (client, port), NOW);
    }
    assert!(is_servers(PORT, 0x2000), "from ESP alone");
    assert!(
        !is_servers(OTHER_PORT, 0x2001),
        "another port is the host's"
    );
    // RFC 7296 section 2.23: the server sends to where authentic packets come from.
    gateway.outbound(4500, (client, OTHER_PORT), &esp(0x1000), NOW);
    assert!(is_servers(OTHER_PORT, 0x2002), "a port that has changed");
    gateway.outbound(4500, (client, PORT), &esp(0x1001), NOW);
    assert!(is_servers(PORT, 0x2003), "another SPI");
    gateway.outbound(
        4500,
        (client, OTHER_PORT),
        &marked(&ike(AUTH_RESPONSE)),
        NOW,
    );
    assert!(is_servers(OTHER_PORT, 0x2004), "encrypted IKE");
    gateway.outbound(4500, (client, PORT), &[0xff], NOW);
    assert!(is_servers(PORT, 0x2005), "a keepalive");
}

/// A stranger forges packets of a client, and makes the server answer some of them in the clear. The
/// session keeps the port that it has.
#[test]
fn forged_packets_take_no_port_from_a_session() {
    let mut gateway = Gateway::default();
    let client = gateway.next_peer();
    gateway.establish_by_ike(client);
    gateway.outbound(4500, (client, PORT), &esp(0x1000), NOW);
    let forged = (client, OTHER_PORT);
    for (port, payload) in [
        (500, ike(AUTH)),
        (500, ike([33, 34, 0x08, 0])),
        (4500, marked(&ike(AUTH))),
        (4500, vec![0xff]),
        (4500, vec![0xff; 5]),
        (4500, esp(0x2000)),
    ] {
        gateway.inbound(forged, port, &payload, NOW);
    }
    for message in [INIT_RESPONSE, REFUSAL] {
        gateway.outbound(500, forged, &ike(message), NOW);
        gateway.outbound(4500, forged, &marked(&ike(message)), NOW);
    }
    // What a server that takes everything for ESP sends to port 500 shows nothing.
    gateway.outbound(4500, (client, 500), &esp(0x1001), NOW);
    gateway.outbound(4500, (client, 500), &marked(&ike(AUTH_RESPONSE)), NOW);
    for (port, peer) in [(500, (client, 500)), (4500, (client, PORT))] {
        assert_eq!(host_sends(&gateway, port, peer, NOW), HOSTS);
        let message = if port == 500 {
            ike(AUTH)
        } else {
            marked(&ike(AUTH))
        };
        let verdict = gateway.inbound(peer, port, &message, NOW);
        assert!(verdict.starts_with("forward "), "{port}: {verdict}");
    }
}

/// A client begins on port 500 and goes on with 4500. Both ports are its own, also for a handshake that
/// begins from the start.
#[test]
fn a_session_has_the_port_on_which_its_handshake_began() {
    let mut gateway = Gateway::default();
    let client = gateway.next_peer();
    gateway.outbound(500, (client, PORT), &ike(INIT_RESPONSE), NOW);
    // A forged request makes the server choose another SPI for another port: not that of this proof.
    let other = [b"othrinitothrresp", &ike(INIT_RESPONSE)[16..]].concat();
    gateway.outbound(500, (client, OTHER_PORT), &other, NOW);
    let proof = gateway.inbound((client, OTHER_PORT), 4500, &marked(&ike(AUTH)), NOW);
    assert_eq!(proof, "forward natt-ike in");
    for (port, peer_port) in [(500, PORT), (4500, OTHER_PORT)] {
        assert_eq!(host_sends(&gateway, port, (client, peer_port), NOW), HOSTS);
    }
    let begin = gateway.inbound((client, PORT), 500, &ike([33, 34, 0x08, 0]), NOW);
    assert_eq!(begin, "forward ike in");
    let next = gateway.inbound((client, OTHER_PORT), 4500, &marked(&ike(AUTH)), NOW);
    assert_eq!(next, "forward natt-ike in");
}

/// The address of a peer of the host that no row of a scan has.
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Far more than the table has room for.
const SCAN: u32 = 50_000;

/// A host behind the gateway sends ESP to so many addresses, each of which answers or not.
fn scan(gateway: &Gateway, answers: bool, now: u64) {
    for number in 0..SCAN {
        let scanned = Ipv4Addr::from(u32::from(Ipv4Addr::new(45, 0, 0, 0)) + number);
        host_sends_esp(gateway, scanned, now);
        if answers {
            gateway.verdict(Side::Wan, &native(scanned, 0x3000), now);
        }
    }
}

/// What one host behind the gateway does takes no tunnel from another one.
#[test]
fn a_scan_leaves_the_tunnels_of_other_hosts_alone() {
    const TICK: u64 = 1 << 8;
    let gateway = Gateway::default();
    let answer = Packet::udp((FAR, PORT), (VIP, 4500), marked(&ike(AUTH)));
    let answer = answer.with_macs(WAN_MAC, CLIENT_MAC);
    host_sends_esp(&gateway, FAR, NOW);
    assert_eq!(gateway.verdict(Side::Wan, &native(FAR, 0x3000), NOW), HOSTS);
    host_sends(&gateway, 4500, (FAR, PORT), NOW);
    assert_eq!(gateway.verdict_in_xdp(Side::Wan, &answer, NOW), HOSTS);
    for (ticks, answers) in [
        (0, false),
        (1, false),
        (100, false),
        (200, true),
        (298, true),
    ] {
        let now = NOW + ticks * TICK;
        scan(&gateway, answers, now);
        assert_eq!(gateway.verdict(Side::Wan, &answer, now), HOSTS, "{ticks}");
        assert_eq!(
            gateway.verdict(Side::Wan, &native(FAR, 0x3000), now),
            HOSTS,
            "{ticks}"
        );
    }
}

/// Entries without an answer give way, also to a peer whose answer is under way.
#[test]
fn a_scan_keeps_no_host_from_a_new_tunnel() {
    let mut gateway = Gateway::default();
    for _ in 0..3 {
        scan(&gateway, false, NOW);
        let new = gateway.next_peer();
        assert_eq!(host_sends_esp(&gateway, new, NOW), HOSTS);
        assert_eq!(gateway.verdict(Side::Wan, &native(new, 0x3000), NOW), HOSTS);
    }
}

/// Once everything that was scanned has answered, there is no room for another peer until five minutes
/// after that: the packet teaches nothing, and this is counted.
#[test]
fn a_full_table_takes_no_new_peer() {
    let mut gateway = Gateway::default();
    scan(&gateway, true, NOW);
    let taught = |gateway: &mut Gateway, now| {
        let peers = (0..100).map(|_| gateway.next_peer()).collect::<Vec<_>>();
        let learned = peers.into_iter().filter(|peer| {
            let sent = host_sends_esp(gateway, *peer, now) == HOSTS;
            let got = gateway.verdict(Side::Wan, &native(*peer, 0x3000), now) == HOSTS;
            assert_eq!(sent, got);
            sent
        });
        learned.count()
    };
    assert_eq!(taught(&mut gateway, NOW), 0);
    assert_eq!(taught(&mut gateway, NOW + FORGOTTEN), 100);
}

/// A VIP for the server alone: only the fragments of what may be a peer of the host, by its address, are
/// copied to the host.
#[test]
fn a_dedicated_vip_shares_no_fragments_of_clients() {
    let mut gateway = Gateway::dedicated();
    let client = gateway.next_peer();
    let later = |peer| {
        let packet = Packet::udp((peer, PORT), (VIP, 4500), [0x77; 100]);
        packet.with_macs(WAN_MAC, CLIENT_MAC).build_fragments(&[48])[1].clone()
    };
    let copies = |peer| gateway.verdict_and_copies(Side::Wan, &later(peer), NOW);
    let alone = of_server("forward fragment in untracked");
    assert_eq!(copies(client), alone);
    host_sends(&gateway, 4500, (FAR, PORT), NOW);
    assert_eq!(copies(FAR), of_both("forward fragment in untracked"));
    assert_eq!(copies(client), alone);
    let native_only = Ipv4Addr::new(203, 0, 113, 10);
    host_sends_esp(&gateway, native_only, NOW);
    assert_eq!(copies(native_only), alone);
}
