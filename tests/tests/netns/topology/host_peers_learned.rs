//! What teaches the gateway its own VPN peers, and what does not: packets that ikenat has handled, and
//! whatever strangers send.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::icmp::kind;
use ikenat_tests::lab::frames::{Icmp, Packet};
use ikenat_tests::lab::icmp_errors::Peers;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::HostPeer;
use ikenat_tests::lab::links::mac_text;
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, LAN, LAN_MAC, PEER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::lab::wire::{
    Wire, at_client, esp, esp_from_server, exchange, from_client, from_server, ike, marked,
    with_client,
};
use ikenat_tests::suite::Scenario;

use crate::support::patience;

use super::host_peers::{
    FAR, OTHER_SPI, SPI, answered, from_far, from_lan_host, native, prepare, talk, tunnel,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let all = vec![
        Scenario::new("what_ikenat_has_handled_teaches_no_host_peer", redirected),
        Scenario::new("a_host_peer_is_forgotten_after_five_minutes", expiry),
        Scenario::new("what_the_server_sends_outweighs_a_host_peer", outweighed),
        Scenario::new("a_scan_by_one_lan_host_leaves_the_tunnel_of_another", scan),
        Scenario::new("strangers_make_no_host_peers", strangers).alone(),
    ];
    all.into_iter()
        .map(|one| one.with_programs(&["iptables"]))
        .collect()
}

/// tc egress sees the packets that tc ingress has redirected, and those that the kernel fragments,
/// with the VIP as their source.
fn redirected(lab: &Lab) -> Result<()> {
    prepare(lab)?;
    lab.gateway.run(&format!("ip link set {WAN} mtu 1398"))?;
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for _ in 0..5 {
        let client = peers.fresh();
        for packet in [
            from_server(500, 500, ike(1, 2, exchange::IKE_SA_INIT, true, 200)),
            from_server(4500, 4500, esp(SPI, 1, 60)),
            esp_from_server(esp(SPI, 1, 60)),
        ] {
            // An unresolved neighbour: not for XDP.
            lab.flush_neighbours()?;
            wire.outbound(&with_client(packet, client))?;
        }
        let mut large = from_server(
            4500,
            4500,
            marked(&ike(1, 2, exchange::IKE_AUTH, true, 1400)),
        );
        large.id = 9;
        let large = with_client(large, client);
        wire.outbound_frames(
            &[large.build()],
            &at_client(&large).build_fragments(&[1376]),
        )?;
    }
    let status = lab.status()?;
    let (slow, fragmented) = (
        status.count_at("tc", "forwarded", "esp-out"),
        status.count_at("tc", "slow", "to-fragment"),
    );
    let seen = status.count_at("egress", "punted", "other-address");
    ensure!(
        slow >= 5 && fragmented >= 5 && seen >= 15,
        "tc sent {slow} and left {fragmented} to the kernel, egress saw {seen}: {}",
        status.given()
    );
    ensure!(
        status.host_peers.is_empty(),
        "the server's clients were taken for the host's peers: {:?}",
        status.host_peers
    );
    Ok(())
}

fn expiry(lab: &Lab) -> Result<()> {
    prepare(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    tunnel(&wire)?;
    lab.age_host_peers(280)?;
    answered(
        &wire,
        &from_far(500, ike(7, 8, exchange::IKE_SA_INIT, true, 200)),
    )
    .context("after 280 s")?;
    // Answers keep nothing alive.
    lab.age_host_peers(40)?;
    ensure!(
        lab.status()?.host_peers.is_empty(),
        "{:?}",
        lab.status()?.host_peers
    );
    wire.inbound(&from_far(500, ike(7, 8, exchange::IKE_SA_INIT, true, 200)))
        .context("after 320 s")?;
    talk(
        &wire,
        &from_lan_host(500, ike(7, 8, exchange::IKE_SA_INIT, false, 200)),
        &from_far(500, ike(7, 8, exchange::IKE_SA_INIT, true, 200)),
    )
    .context("the host has sent something")
}

/// At a start the kernel may still have a packet of the server, to which a rule for the whole LAN has
/// given the VIP. It teaches, and the server's next packet to the same port outweighs it.
fn outweighed(lab: &Lab) -> Result<()> {
    prepare(lab)?;
    // The packet waits for the neighbour's answer until the programs are attached.
    lab.client.run(&format!("ip link set {PEER} arp off"))?;
    lab.gateway.shell(&format!(
        "sysctl -qw net.ipv4.neigh.{WAN}.retrans_time_ms=60000
         ip neighbour flush dev {WAN}"
    ))?;
    let wire = Wire::open(lab)?;
    wire.server
        .send(&from_server(4500, 4500, esp(SPI, 1, 60)).build())?;
    let _ikenat = Ikenat::start(lab)?;
    lab.gateway.run(&format!(
        "ip neighbour replace {CLIENT} lladdr {} dev {WAN}",
        mac_text(CLIENT_MAC)
    ))?;
    wire.client.drain()?;
    let taught = lab.status()?.host_peers;
    ensure!(
        taught.iter().any(|one| one.peer == CLIENT),
        "the packet was not in flight: {taught:?}"
    );
    wire.outbound(&from_server(4500, 4500, esp(SPI, 2, 60)))?;
    wire.inbound(&from_client(4500, 4500, esp(OTHER_SPI, 1, 60)))
        .context("to the server that has sent something to this port")?;
    // The kernel's conntrack still leads such packets to the server, as long as it lasts.
    let status = lab.status()?;
    for hook in ["xdp", "tc"] {
        ensure!(
            status.count_at(hook, "punted", "host-peer") == 0,
            "{hook} left it to the host: {}",
            status.given()
        );
    }
    Ok(())
}

/// Another host on the LAN sends ESP to more addresses than the table has room for.
fn scan(lab: &Lab) -> Result<()> {
    const SCANNER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 3);
    const ADDRESSES: u32 = 8_000;
    prepare(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let mut peers = Peers::route(lab)?;
    tunnel(&wire)?;
    for number in 0..ADDRESSES {
        let packet = native(SCANNER, peers.fresh(), SPI);
        wire.server
            .send(&packet.with_macs(LAN_MAC, SERVER_MAC).build())?;
        // No more than the ring of a veth holds, also on an emulated machine.
        if number % 8 == 0 {
            std::thread::sleep(patience(Duration::from_millis(4)));
        }
    }
    let status = lab.status()?;
    ensure!(
        status.host_peers.len() > 3_500,
        "the scan has filled too little: {}",
        status.host_peers.len()
    );
    answered(
        &wire,
        &from_far(500, ike(7, 8, exchange::IKE_SA_INIT, true, 200)),
    )
    .context("IKE")?;
    answered(&wire, &from_far(4500, esp(OTHER_SPI, 9, 60))).context("ESP in UDP")?;
    let native = native(FAR, VIP, OTHER_SPI).with_macs(WAN_MAC, CLIENT_MAC);
    answered(&wire, &native).context("native ESP")
}

/// The frames by which a stranger may try to make the host send something: from spoofed addresses.
fn attempts(number: u32) -> Vec<Vec<u8>> {
    let [_, a, b, c] = number.to_be_bytes();
    let spoofed = Ipv4Addr::new(100, 64 | a, b, c);
    let frame = |packet: Packet| packet.with_macs(WAN_MAC, CLIENT_MAC).build();
    let init = ike(u64::from(number), 0, exchange::IKE_SA_INIT, false, 60);
    let through = Ipv4Addr::new(198, 51, 100, c);
    vec![
        frame(Packet::udp((spoofed, 500), (VIP, 500), init.clone())),
        frame(Packet::udp((spoofed, 4500), (VIP, 4500), marked(&init))),
        frame(native(spoofed, VIP, number | 0x100)),
        // The host forwards these to where they came from, and gives them the VIP.
        frame(Packet::udp((spoofed, 500), (through, 500), init)),
        frame(Packet::udp((spoofed, 4500), (through, 4500), [0xff])),
        frame(native(spoofed, through, number | 0x100)),
        // Echo, and a closed port.
        frame(Packet::icmp(
            spoofed,
            VIP,
            &Icmp::new(kind::ECHO, 0, [7; 40]),
        )),
        frame(Packet::udp((spoofed, 500), (VIP, 53), [1; 40])),
    ]
}

fn strangers(lab: &Lab) -> Result<()> {
    const ROUNDS: u32 = 2_000;
    prepare(lab)?;
    // The rule that strangers like best: for whatever leaves by the WAN.
    lab.gateway.shell(&format!(
        "iptables -t nat -F POSTROUTING; iptables -t nat -A POSTROUTING -o {WAN} -j MASQUERADE
         ip route add 100.64.0.0/10 via {CLIENT}
         sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{WAN}.rp_filter=0 \
                net.ipv4.conf.{LAN}.rp_filter=0"
    ))?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    tunnel(&wire)?;
    let names = |peers: Vec<HostPeer>| -> Vec<_> {
        let mut names: Vec<_> = peers.iter().map(|one| (one.peer, one.vip_port)).collect();
        names.sort_unstable();
        names
    };
    let before = names(lab.status()?.host_peers);
    for number in 1..=ROUNDS {
        for frame in attempts(number) {
            wire.client.send(&frame)?;
        }
        // No more than the ring of a veth holds, also on an emulated machine.
        if number % 8 == 0 {
            std::thread::sleep(patience(Duration::from_millis(4)));
        }
    }
    wire.client.drain()?;
    let status = lab.status()?;
    ensure!(
        status.count_at("egress", "punted", "other-address") >= 1_000,
        "the host forwarded too little to prove anything: {}",
        status.given()
    );
    let after = names(status.host_peers);
    ensure!(before == after, "{before:?} became {after:?}");
    answered(&wire, &from_far(4500, esp(OTHER_SPI, 9, 60))).context("the LAN host's tunnel")?;
    let mut peers = Peers::route(lab)?;
    let client = from_client(500, 500, ike(1, 0, exchange::IKE_SA_INIT, false, 200));
    wire.inbound(&with_client(client, peers.fresh()))
        .context("a client of the server")
}
