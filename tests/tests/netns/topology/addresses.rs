//! Placements of the gateway: with one interface for both sides, with a VIP that is not its first
//! address or not its own, and with forwarding enabled on no more devices than necessary.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::icmp::kind;
use ikenat_tests::lab::frames::{Captured, Packet, not_ipv4, protocol};
use ikenat_tests::lab::icmp_errors::{about, time_exceeded};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{
    CLIENT, GATEWAY_LAN, LAN, PEER, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::lab::udp_pair::{Server, UdpPair};
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, cross, esp, esp_from_server, exchange, from_client, from_server,
    ike, raw_from_client,
};
use ikenat_tests::lab::{Lab, Options};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let one_armed = Options {
        one_armed: true,
        ..Options::default()
    };
    vec![
        Scenario::new("a_one_armed_gateway_translates_both_ways", one_arm).with_options(one_armed),
        Scenario::new("a_one_armed_gateway_sends_no_redirects", redirects).with_options(one_armed),
        Scenario::new("a_vip_that_is_a_secondary_address_is_the_source", secondary),
        Scenario::new("a_vip_that_is_routed_here_works", routed_vip),
        Scenario::new("a_vip_on_the_link_needs_an_arp_answer", unassigned_vip),
        Scenario::new("forwarding_of_the_devices_is_enough", devices_forward),
    ]
}

const SPI: u32 = 0xC321_0004;
const PATIENCE: Duration = Duration::from_secs(3);

/// One packet of each kind in each direction, between client and server.
pub(crate) fn packets(sequence: u32) -> [(Packet, Packet); 3] {
    let message = ike(1, 2, exchange::IKE_AUTH, false, 120);
    [
        (
            from_client(500, 500, message.clone()),
            from_server(500, 500, message),
        ),
        (
            from_client(4500, 4500, esp(SPI, sequence, 60)),
            from_server(4500, 4500, esp(SPI, sequence, 60)),
        ),
        (
            raw_from_client(protocol::ESP, esp(SPI, sequence, 61)),
            esp_from_server(esp(SPI, sequence, 61)),
        ),
    ]
}

pub(crate) fn start_on(lab: &Lab, words: &str, vip: Ipv4Addr) -> Result<Ikenat> {
    let (vip, server) = (vip.to_string(), SERVER.to_string());
    let mut all = vec!["run", "--vip", &vip, "--server", &server];
    all.extend(words.split_whitespace());
    Ikenat::run(lab, &lab.gateway, "ikenat", &all)
}

fn one_arm(lab: &Lab) -> Result<()> {
    let _ikenat = start_on(lab, &format!("--wan {WAN} --lan {WAN}"), VIP)?;
    lab.no_unreachables()?;
    let client = PacketSocket::open(&lab.client, PEER)?;
    let server = PacketSocket::open(&lab.server, PEER)?;
    let between = |packet: &Packet, to, from| packet.clone().with_macs(to, from).build();
    for sequence in 1..=20 {
        for (inbound, outbound) in packets(sequence) {
            let wanted = between(&at_server(&inbound), SERVER_MAC, WAN_MAC);
            cross(&client, &server, &[inbound.build()], &[wanted])?;
            let sent = between(&outbound, WAN_MAC, SERVER_MAC);
            let wanted = at_client(&outbound).build();
            cross(&server, &client, &[sent], &[wanted])?;
        }
    }
    // Its own answers know which side asks.
    let (mut inbound, mut outbound) = packets(1)[1].clone();
    (inbound.ttl, outbound.ttl) = (1, 1);
    let outbound = outbound.with_macs(WAN_MAC, SERVER_MAC);
    for (end, sent, source) in [(&client, inbound, VIP), (&server, outbound, GATEWAY_LAN)] {
        end.drain()?;
        end.send(&sent.build())?;
        let frame = end
            .find(PATIENCE, |frame| !not_ipv4(frame))?
            .context("no answer came")?;
        let ip = Captured::read(&frame)?;
        ensure!(
            ip.source == source && ip.icmp() == Some(about(&sent, &time_exceeded(), 1000)),
            "from {}: {:02x?}",
            ip.source,
            ip.icmp()
        );
    }
    Ok(())
}

/// Whether the gateway has sent an ICMP redirect. A redirect would let the server talk to its
/// clients without the gateway, and disclose the server's address to a client.
fn redirected(end: &PacketSocket) -> Result<bool> {
    let redirect = |frame: &[u8]| {
        Captured::read(frame)
            .is_ok_and(|ip| ip.icmp().is_some_and(|icmp| icmp.kind == kind::REDIRECT))
    };
    Ok(end.find(Duration::from_millis(50), redirect)?.is_some())
}

/// No packet that `ikenat` sends itself causes a redirect, at either hook. When the kernel
/// fragments, it sends one unless `send_redirects` is off.
fn redirects(lab: &Lab) -> Result<()> {
    lab.no_unreachables()?;
    let client = PacketSocket::open(&lab.client, PEER)?;
    let server = PacketSocket::open(&lab.server, PEER)?;
    lab.gateway.shell(&format!(
        "sysctl -qw net.ipv4.conf.all.send_redirects=1
         sysctl -qw net.ipv4.conf.{WAN}.send_redirects=1
         ip route add {CLIENT} dev {WAN} mtu lock 1400"
    ))?;
    let _ikenat = start_on(lab, &format!("--wan {WAN} --lan {WAN}"), VIP)?;
    let outbound = |sequence, length| {
        let mut packet = from_server(4500, 4500, esp(SPI, sequence, length));
        packet.id = u16::try_from(sequence).expect("a small number");
        packet.with_macs(WAN_MAC, SERVER_MAC)
    };
    // By XDP and, with neighbours to be resolved, by tc.
    for sequence in 1..=10 {
        if sequence > 5 {
            lab.flush_neighbours()?;
        }
        let packet = outbound(sequence, 60);
        cross(
            &server,
            &client,
            &[packet.build()],
            &[at_client(&packet).build()],
        )?;
    }
    server.drain()?;
    ensure!(
        !redirected(&server)?,
        "a translated packet came with a redirect"
    );

    let fragmented = |sequence| -> Result<bool> {
        let packet = outbound(sequence, 1400);
        server.drain()?;
        cross(
            &server,
            &client,
            &[packet.build()],
            &at_client(&packet).build_fragments(&[1376]),
        )?;
        redirected(&server)
    };
    ensure!(
        fragmented(11)?,
        "the kernel fragments without a redirect: send_redirects need not be turned off"
    );
    lab.gateway.shell(&format!(
        "sysctl -qw net.ipv4.conf.all.send_redirects=0
         sysctl -qw net.ipv4.conf.{WAN}.send_redirects=0"
    ))?;
    ensure!(!fragmented(12)?, "a redirect with send_redirects off");
    Ok(())
}

/// Gives the gateway another first address on the WAN.
const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);

fn crosses(wire: &Wire) -> Result<()> {
    for sequence in 1..=10 {
        for (inbound, outbound) in packets(sequence) {
            wire.inbound(&inbound)?;
            wire.outbound(&outbound)?;
        }
    }
    Ok(())
}

/// Packets that the gateway itself sends come from the VIP.
fn answers_as_vip(wire: &Wire) -> Result<()> {
    for (mut inbound, _) in packets(1) {
        inbound.ttl = 1;
        wire.answered(Direction::Inbound, &inbound, &time_exceeded())?;
    }
    Ok(())
}

fn secondary(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip address del {VIP}/24 dev {WAN}; ip address add {FIRST}/24 dev {WAN}
         ip address add {VIP}/24 dev {WAN}; ip link set {WAN} mtu 1400"
    ))?;
    let shown = lab.gateway.run(&format!("ip address show dev {WAN}"))?;
    ensure!(
        shown.contains("secondary"),
        "the VIP is not secondary: {shown}"
    );
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    crosses(&wire)?;
    answers_as_vip(&wire)?;
    let large = from_server(4500, 4500, esp(SPI, 7, 1400));
    wire.outbound_frames(
        &[large.build()],
        &at_client(&large).build_fragments(&[1376]),
    )
}

/// No interface has it; a router, or the client's own route, sends it here.
fn without_vip(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip address add {FIRST}/24 dev {WAN}; ip address del {VIP}/24 dev {WAN}
         ip address show dev {WAN} | grep -q {FIRST} || ip address add {FIRST}/24 dev {WAN}"
    ))?;
    Ok(())
}

fn routed_vip(lab: &Lab) -> Result<()> {
    without_vip(lab)?;
    lab.client.run(&format!("ip route add {VIP} via {FIRST}"))?;
    let ikenat = Ikenat::start(lab)?;
    ensure!(
        ikenat
            .log()
            .contains("203.0.113.1 is not an address of this host"),
        "it is not said: {}",
        ikenat.log()
    );
    let wire = Wire::open(lab)?;
    crosses(&wire)?;
    answers_as_vip(&wire)?;
    let talk = UdpPair::open(lab, Server::usual(lab), 4500)?;
    for length in [1, 1300, 3000] {
        talk.exchange(&esp(SPI, 1, length))?;
    }
    Ok(())
}

fn unassigned_vip(lab: &Lab) -> Result<()> {
    without_vip(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    // It is on the client's own link, so the client asks who has it.
    let talk = UdpPair::open(lab, Server::usual(lab), 4500)?;
    ensure!(
        talk.inbound(b"who has it?").is_err(),
        "a host has answered ARP for an address that no host has"
    );
    let neighbour = lab.client.run(&format!("ip neighbour show {VIP}"))?;
    ensure!(
        neighbour.contains("FAILED") || neighbour.contains("INCOMPLETE"),
        "{neighbour}"
    );
    let seen: u64 = lab
        .status()?
        .reasons
        .iter()
        .filter(|reason| reason.outcome == "forwarded")
        .map(|reason| reason.count)
        .sum();
    ensure!(seen == 0, "{seen} packets were forwarded");
    // Proxy ARP, for which the kernel wants a route that leaves by another interface.
    lab.gateway.shell(&format!(
        "ip route add {VIP} dev {LAN}; ip neighbour add proxy {VIP} dev {WAN}"
    ))?;
    lab.client.run("ip neighbour flush all")?;
    for length in [1, 1300, 3000] {
        talk.exchange(&esp(SPI, 1, length)).context("proxy ARP")?;
    }
    Ok(())
}

/// `ip_forward` is 0, but each of the two devices forwards: that is all that the kernel asks.
fn devices_forward(lab: &Lab) -> Result<()> {
    lab.gateway.run("sysctl -qw net.ipv4.ip_forward=0")?;
    for device in [WAN, LAN] {
        let refused = lab
            .gateway
            .command(ikenat_tests::lab::ikenat::binary()?)
            .args(ikenat_tests::lab::ikenat::usual_arguments())
            .arg("--bpffs")
            .arg(lab.bpffs())
            .output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            !refused.status.success()
                && said.contains(&format!("sysctl -w net.ipv4.conf.{device}.forwarding=1")),
            "{said}"
        );
        lab.gateway
            .run(&format!("sysctl -qw net.ipv4.conf.{device}.forwarding=1"))?;
    }
    lab.gateway.run(&format!("ip link set {LAN} mtu 1400"))?;
    let _ikenat = Ikenat::start_as_it_is(lab)?;
    let wire = Wire::open(lab)?;
    crosses(&wire)?;
    let large = from_client(4500, 4500, esp(SPI, 7, 1400));
    wire.inbound_frames(
        &[large.build()],
        &at_server(&large).build_fragments(&[1376]),
    )
}
