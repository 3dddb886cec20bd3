//! Rules of the host (`ip rule`) that look at more than addresses, and next hops of another address
//! family. Each packet must leave as the kernel itself would send it, by both hooks.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::second_wan::{FAR_CLIENT, FAR_CLIENT_MAC, WAN_2, WAN_2_MAC, second_wan};
use ikenat_tests::lab::topology::{CLIENT, LAN, PEER, SERVER, VIP, WAN};
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, cross, esp, esp_from_server, exchange, from_client, from_server,
    ike, marked,
};
use ikenat_tests::suite::Scenario;

use crate::support::{count, force_slow_path, patience, wait_for_log};
use crate::topology::addresses::start_on;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("rules_by_protocol_and_port_choose_the_wan", by_port),
        Scenario::new("rules_by_type_of_service_choose_the_wan", by_tos),
        Scenario::new("an_ipv6_next_hop_is_used_for_ipv4", via_inet6),
        Scenario::new("an_ipv6_next_hop_is_probed", probed),
        Scenario::new("rules_for_the_lan_say_who_is_inside", inside),
    ]
}

/// A client behind routers.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

/// The main table leads to the second WAN, table 100 to the first.
fn two_wans(lab: &Lab, rule: &str) -> Result<(Ikenat, Namespace, PacketSocket)> {
    let (namespace, far_client) = second_wan(lab)?;
    lab.gateway.shell(&format!(
        "ip route add default via {FAR_CLIENT} dev {WAN_2}
         ip route add default via {CLIENT} dev {WAN} table 100
         ip rule add {rule} lookup 100"
    ))?;
    let wans = format!("--wan {WAN} --wan {WAN_2} --lan {LAN}");
    Ok((start_on(lab, &wans, VIP)?, namespace, far_client))
}

/// Packets to the client elsewhere, which leave by the first WAN or by the second.
fn leave(wire: &Wire, far_client: &PacketSocket, packets: &[(bool, Packet)]) -> Result<()> {
    for (by_first, packet) in packets {
        let mut packet = packet.clone();
        packet.destination = ELSEWHERE;
        let first = at_client(&packet);
        let (to, wanted) = if *by_first {
            (&wire.client, first)
        } else {
            (far_client, first.with_macs(FAR_CLIENT_MAC, WAN_2_MAC))
        };
        let sent = [packet.build()];
        cross(&wire.server, to, &sent, &[wanted.build()])?;
    }
    Ok(())
}

/// All of one client, so that what is cached for one kind is there when another comes.
fn kinds(sequence: u32) -> Vec<(bool, Packet)> {
    let message = ike(0x1111, 0x2222, exchange::IKE_AUTH, true, 120);
    vec![
        (
            true,
            from_server(4500, 4500, esp(0xC321_0001, sequence, 60)),
        ),
        (false, from_server(500, 500, message.clone())),
        (true, from_server(4500, 61_000, marked(&message))),
        (false, esp_from_server(esp(0xC321_0002, sequence, 60))),
    ]
}

fn by_port(lab: &Lab) -> Result<()> {
    let (_ikenat, namespace, far_client) = two_wans(lab, "ipproto udp sport 4500")?;
    let wire = Wire::open(lab)?;
    for sequence in 1..=10 {
        leave(&wire, &far_client, &kinds(sequence)).context("by XDP")?;
    }
    ensure!(count(lab, "xdp", "esp-in-udp-out")? > 5, "not by XDP");
    force_slow_path(lab)?;
    namespace.run(&format!("ip link set dev {PEER} xdp off"))?;
    for interface in [WAN, WAN_2] {
        wait_for_log(lab, &format!("{interface}: driver has no XDP transmit"))?;
    }
    let before = count(lab, "tc", "esp-in-udp-out")?;
    for sequence in 11..=15 {
        leave(&wire, &far_client, &kinds(sequence)).context("by tc")?;
    }
    ensure!(count(lab, "tc", "esp-in-udp-out")? > before, "not by tc");
    // A fragment has no ports for the kernel, and a first one neither.
    let large = from_server(4500, 4500, esp(0xC321_0001, 16, 1000));
    let fragments = |mut packet: Packet| {
        packet.destination = ELSEWHERE;
        packet
    };
    let large = fragments(large);
    let wanted = at_client(&large).with_macs(FAR_CLIENT_MAC, WAN_2_MAC);
    let cuts = [400];
    cross(
        &wire.server,
        &far_client,
        &large.build_fragments(&cuts),
        &wanted.build_fragments(&cuts),
    )
    .context("fragments")
}

/// The packets of one SPI have the types of service of what is inside them.
fn by_tos(lab: &Lab) -> Result<()> {
    let (ikenat, _namespace, far_client) = two_wans(lab, "tos 0x10")?;
    let wire = Wire::open(lab)?;
    let of = |tos, sequence| {
        let mut packet = from_server(4500, 4500, esp(0xC321_0003, sequence, 60));
        packet.tos = tos;
        (tos != 0, packet)
    };
    for sequence in 1..=10 {
        leave(
            &wire,
            &far_client,
            &[of(0, 2 * sequence), of(0x10, 2 * sequence + 1)],
        )?;
    }
    ensure!(count(lab, "xdp", "esp-in-udp-out")? > 10, "not by XDP");
    let log = ikenat.log();
    ensure!(log.contains("ip rule: rules look at"), "{log}");
    Ok(())
}

/// The address of the router of [`prepare_inet6`].
const ROUTER: &str = "fe80::a";

/// RFC 5549: a route of IPv4 by a router with IPv6 addresses only.
fn prepare_inet6(lab: &Lab) -> Result<()> {
    let address = |namespace: &Namespace, interface, address| {
        namespace.shell(&format!(
            "sysctl -qw net.ipv6.conf.{interface}.disable_ipv6=0
             ip -6 address add {address}/64 dev {interface} nodad"
        ))
    };
    address(&lab.client, PEER, ROUTER)?;
    address(&lab.gateway, WAN, "fe80::1")?;
    lab.gateway.run(&format!(
        "ip route add 192.0.2.0/24 via inet6 {ROUTER} dev {WAN}"
    ))?;
    Ok(())
}

fn via_inet6(lab: &Lab) -> Result<()> {
    prepare_inet6(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let packet = |sequence| {
        let mut packet = from_server(4500, 4500, esp(0xC321_0004, sequence, 60));
        packet.destination = ELSEWHERE;
        packet
    };
    // The neighbour is not resolved yet: tc has the kernel do it, and the first packet is not lost.
    for sequence in 1..=10 {
        wire.outbound(&packet(sequence))
            .with_context(|| format!("packet {sequence}"))?;
    }
    ensure!(count(lab, "tc", "esp-in-udp-out")? > 0, "none by tc");
    ensure!(count(lab, "xdp", "esp-in-udp-out")? > 5, "not by XDP");
    force_slow_path(lab)?;
    wait_for_log(lab, &format!("{WAN}: driver has no XDP transmit"))?;
    for sequence in 11..=15 {
        wire.outbound(&packet(sequence)).context("by tc")?;
    }
    Ok(())
}

fn probed(lab: &Lab) -> Result<()> {
    prepare_inet6(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let mut sequence = 0;
    let mut send = || {
        sequence += 1;
        let mut packet = from_server(4500, 4500, esp(0xC321_0006, sequence, 60));
        packet.destination = ELSEWHERE;
        wire.outbound(&packet)
    };
    for _ in 0..5 {
        send()?;
    }
    let mac = "02:00:00:00:01:0a";
    let show = || {
        lab.gateway
            .run(&format!("ip -6 neighbour show {ROUTER} dev {WAN}"))
    };
    lab.gateway.run(&format!(
        "ip -6 neighbour replace {ROUTER} lladdr {mac} nud stale dev {WAN}"
    ))?;
    // By itself the kernel would wait for a packet of its own, and then for five seconds more.
    let began = Instant::now();
    while !show()?.contains("REACHABLE") {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(4)),
            "it is not probed: {}",
            show()?
        );
        send()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A network that only the main table has on the LAN. Packets from the LAN to it leave by the WAN, so
/// its hosts are clients.
fn inside(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip route add 192.0.2.0/24 via {SERVER} dev {LAN}
         ip route add default via {CLIENT} dev {WAN} table 100
         ip rule add iif {LAN} to 192.0.2.0/24 lookup 100
         sysctl -qw net.ipv4.conf.{WAN}.rp_filter=0 net.ipv4.conf.all.rp_filter=0"
    ))?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let mut packet = from_client(500, 500, ike(0x1111, 0, exchange::IKE_SA_INIT, false, 120));
    packet.source = ELSEWHERE;
    cross(
        &wire.client,
        &wire.server,
        &[packet.build()],
        &[at_server(&packet).build()],
    )?;
    // The other way round: without the rule it is a host of the LAN.
    lab.gateway
        .run(&format!("ip rule del iif {LAN} to 192.0.2.0/24 lookup 100"))?;
    wire.client.send(&packet.build())?;
    let began = Instant::now();
    let dropped = || {
        Ok::<_, anyhow::Error>(
            count(lab, "xdp", "inside-source")? + count(lab, "tc", "inside-source")?,
        )
    };
    while dropped()? == 0 {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(5)),
            "it is not dropped"
        );
        wire.client.send(&packet.build())?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
