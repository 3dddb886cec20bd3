//! Several WANs and several LANs: every combination, and routes that depend on the source.

use std::net::Ipv4Addr;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Captured, Icmp, Mac, Packet, not_ipv4};
use ikenat_tests::lab::icmp_errors::{about, error_from_outside, time_exceeded};
use ikenat_tests::lab::links::{self, Interface};
use ikenat_tests::lab::second_wan::{FAR_CLIENT, FAR_CLIENT_MAC, WAN_2, WAN_2_MAC, second_wan};
use ikenat_tests::lab::topology::{CLIENT, LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, cross, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use crate::topology::addresses::{packets, start_on};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("two_wans_and_two_lans_in_every_combination", two_by_two),
        Scenario::new("rules_by_source_choose_the_wan", policy_routing),
    ]
}

const SPI: u32 = 0xC321_0005;
const PATIENCE: Duration = Duration::from_secs(3);

/// The gateway's second LAN.
pub(crate) const LAN_2: &str = "lan1";
const LAN_2_MAC: Mac = [2, 0, 0, 0, 5, 254];
const SERVER_2_MAC: Mac = [2, 0, 0, 0, 5, 1];
/// The server's second interface.
const SERVER_2: &str = "eth1";

/// A second wire between gateway and server.
pub(crate) fn second_lan(lab: &Lab) -> Result<PacketSocket> {
    let port = |namespace, name, mac| Interface {
        namespace,
        name,
        mac,
    };
    links::join(
        port(&lab.server, SERVER_2, SERVER_2_MAC),
        port(&lab.gateway, LAN_2, LAN_2_MAC),
    )?;
    links::prepare_peer(&lab.server, SERVER_2, false)?;
    lab.server.shell(&format!(
        "ip address add 192.168.1.1/24 dev {SERVER_2}; ip link set {SERVER_2} up"
    ))?;
    lab.gateway.shell(&format!(
        "ip address add 192.168.1.254/24 dev {LAN_2}; ip link set {LAN_2} up"
    ))?;
    PacketSocket::open(&lab.server, SERVER_2)
}

/// The same packet between the server and the client on the second WAN.
pub(crate) fn far(mut packet: Packet) -> Packet {
    if packet.source == CLIENT {
        packet.source = FAR_CLIENT;
        packet.with_macs(WAN_2_MAC, FAR_CLIENT_MAC)
    } else {
        packet.destination = FAR_CLIENT;
        packet
    }
}

fn two_by_two(lab: &Lab) -> Result<()> {
    let (_namespace, far_client) = second_wan(lab)?;
    let lan_2 = second_lan(lab)?;
    // As most gateways have it, by the WAN that has the VIP: the route to the network behind the other WAN
    // is more specific.
    let default_route = format!("ip route add default via {CLIENT} dev {WAN}");
    lab.gateway.shell(&default_route)?;
    let _ikenat = start_on(
        lab,
        &format!("--wan {WAN} --wan {WAN_2} --lan {LAN} --lan {LAN_2}"),
        VIP,
    )?;
    let wire = Wire::open(lab)?;
    let second_lan = |packet: Packet| packet.with_macs(LAN_2_MAC, SERVER_2_MAC);
    let at_far_client = |packet: &Packet| at_client(packet).with_macs(FAR_CLIENT_MAC, WAN_2_MAC);
    for sequence in 1..=20 {
        for (inbound, outbound) in packets(sequence) {
            wire.inbound(&inbound)?;
            let inbound = far(inbound);
            cross(
                &far_client,
                &wire.server,
                &[inbound.build()],
                &[at_server(&inbound).build()],
            )
            .context("from the second WAN")?;
            wire.outbound(&outbound)?;
            let by_second = second_lan(outbound.clone());
            let wanted = at_client(&outbound).build();
            cross(&lan_2, &wire.client, &[by_second.build()], &[wanted])
                .context("from the second LAN")?;
            let outbound = far(outbound);
            let wanted = at_far_client(&outbound).build();
            cross(
                &wire.server,
                &far_client,
                &[outbound.build()],
                from_ref(&wanted),
            )
            .context("to the second WAN")?;
            let by_second = second_lan(outbound);
            cross(&lan_2, &far_client, &[by_second.build()], &[wanted])
                .context("from the second LAN to the second WAN")?;
        }
    }
    slow_path_of_the_second(lab, &wire, &far_client)?;

    // The route to the server changes to the other LAN.
    lab.gateway.run(&format!(
        "ip route add {SERVER} via 192.168.1.1 dev {LAN_2}"
    ))?;
    let began = Instant::now();
    for sequence in 100.. {
        let packet = from_client(4500, 4500, esp(SPI, sequence, 60));
        let wanted = at_server(&packet)
            .with_macs(SERVER_2_MAC, LAN_2_MAC)
            .build();
        wire.client.send(&packet.build())?;
        if lan_2
            .find(Duration::from_millis(50), |frame| frame == wanted)?
            .is_some()
        {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "the new route is not taken");
    }
    Ok(())
}

/// Own answers, translated errors and fragments also by the second WAN.
fn slow_path_of_the_second(lab: &Lab, wire: &Wire, far_client: &PacketSocket) -> Result<()> {
    let mut asked = far(packets(1)[1].0.clone());
    asked.ttl = 1;
    far_client.drain()?;
    far_client.send(&asked.build())?;
    let frame = far_client
        .find(PATIENCE, |frame| !not_ipv4(frame))?
        .context("no answer came on the second WAN")?;
    let ip = Captured::read(&frame)?;
    ensure!(
        frame[..12] == [FAR_CLIENT_MAC, WAN_2_MAC].concat()
            && ip.source == VIP
            && ip.icmp() == Some(about(&asked, &time_exceeded(), 1000)),
        "from {}: {:02x?}",
        ip.source,
        ip.icmp()
    );

    let sent = far(packets(1)[1].1.clone());
    let mut seen = at_client(&sent);
    let mut known = sent;
    (seen.ttl, known.ttl) = (9, 9);
    let error = Icmp::fragmentation_needed(1280, []);
    let frame = error_from_outside(FAR_CLIENT, &about(&seen, &error, 28))
        .with_macs(WAN_2_MAC, FAR_CLIENT_MAC);
    let mut wanted = frame.clone().with_macs(SERVER_MAC, LAN_MAC);
    wanted.destination = SERVER;
    wanted.ttl -= 1;
    let wanted = wanted.with_icmp(&about(&known, &error, 28));
    cross(
        far_client,
        &wire.server,
        &[frame.build()],
        &[wanted.build()],
    )
    .context("an error from the second WAN")?;

    lab.gateway.run(&format!("ip link set {WAN_2} mtu 1400"))?;
    let large = far(from_server(4500, 4500, esp(SPI, 7, 1400)));
    let wanted = at_client(&large).with_macs(FAR_CLIENT_MAC, WAN_2_MAC);
    cross(
        &wire.server,
        far_client,
        &[large.build()],
        &wanted.build_fragments(&[1376]),
    )
    .context("fragments by the second WAN")?;
    lab.gateway.run(&format!("ip link set {WAN_2} mtu 1500"))?;
    Ok(())
}

/// `ip rule from VIP` selects another WAN than the main table. A packet that the kernel forwards
/// itself, because it must be fragmented, still has the server's address when it is routed, and
/// needs a rule of its own.
fn policy_routing(lab: &Lab) -> Result<()> {
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
    let (_namespace, far_client) = second_wan(lab)?;
    lab.gateway.shell(&format!(
        "ip route add default via {FAR_CLIENT} dev {WAN_2}
         ip route add default via {CLIENT} dev {WAN} table 100
         ip link set {WAN} mtu 1400; ip link set {WAN_2} mtu 1400"
    ))?;
    let _ikenat = start_on(lab, &format!("--wan {WAN} --wan {WAN_2} --lan {LAN}"), VIP)?;
    let wire = Wire::open(lab)?;
    let to_elsewhere = |sequence, length| {
        let mut packet = from_server(4500, 4500, esp(SPI, sequence, length));
        packet.destination = ELSEWHERE;
        packet
    };
    let by_second = |packet: &Packet| at_client(packet).with_macs(FAR_CLIENT_MAC, WAN_2_MAC);
    for sequence in 1..=5 {
        let packet = to_elsewhere(sequence, 60);
        cross(
            &wire.server,
            &far_client,
            &[packet.build()],
            &[by_second(&packet).build()],
        )
        .context("the main table")?;
    }
    lab.gateway
        .run(&format!("ip rule add from {VIP} lookup 100"))?;
    let began = Instant::now();
    for sequence in 6.. {
        let packet = to_elsewhere(sequence, 60);
        let wanted = at_client(&packet).build();
        wire.server.send(&packet.build())?;
        if wire
            .client
            .find(Duration::from_millis(50), |frame| frame == wanted)?
            .is_some()
        {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "the rule is not followed");
    }
    for sequence in 200..=205 {
        wire.outbound(&to_elsewhere(sequence, 60))
            .context("by the rule")?;
    }

    let large = to_elsewhere(300, 1400);
    far_client.drain()?;
    cross(
        &wire.server,
        &far_client,
        &[large.build()],
        &by_second(&large).build_fragments(&[1376]),
    )
    .context("fragmented by the kernel, which knows no rule for the server")?;
    lab.gateway
        .run(&format!("ip rule add from {SERVER} lookup 100"))?;
    cross(
        &wire.server,
        &wire.client,
        &[large.build()],
        &at_client(&large).build_fragments(&[1376]),
    )
    .context("fragmented by the kernel, with a rule for the server")
}
