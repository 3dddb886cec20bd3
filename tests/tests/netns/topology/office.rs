//! One server behind two uplinks with a VIP each: the server's replies leave from the VIP that the client
//! uses, by its uplink.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::Packet;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::second_wan::{
    FAR_CLIENT, FAR_CLIENT_MAC, WAN_2, WAN_2_ADDRESS, WAN_2_MAC, second_wan, start_office,
};
use ikenat_tests::lab::topology::{CLIENT, LAN, SERVER, VIP, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, cross, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;

use super::several_services::{IN, OUT, message};
use super::uplinks::far;
use crate::support::wait_for_log;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("one_server_behind_two_wans", two_wans),
        Scenario::new("a_vip_of_an_uplink_that_appears_is_used", appears),
        Scenario::new(
            "an_uplink_that_loses_its_link_keeps_its_sessions",
            link_lost,
        ),
    ]
}

/// The clients of the two uplinks. They are behind the routers of the providers, which are the lab's clients:
/// nothing but the VIP says by which WAN a reply has to leave.
pub(super) const REMOTE: [Ipv4Addr; 2] =
    [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 20)];

/// A default route by each uplink, as docs/deployment.md has them.
pub(super) fn default_routes(lab: &Lab) -> Result<()> {
    lab.gateway
        .run(&format!("ip route add default via {CLIENT} dev {WAN}"))?;
    second_default_route(lab)
}

fn second_default_route(lab: &Lab) -> Result<()> {
    let second = format!("default via {FAR_CLIENT} dev {WAN_2} metric 200");
    lab.gateway.run(&format!("ip route add {second}")).map(drop)
}

/// What the client of the first uplink sends, and what the server sends to it.
fn near(mut packet: Packet) -> Packet {
    if packet.source == CLIENT {
        packet.source = REMOTE[0];
    } else {
        packet.destination = REMOTE[0];
    }
    packet
}

/// A client of the second uplink, and its VIP.
type FarClient = (Ipv4Addr, Ipv4Addr);

/// What it sends, and what it gets.
fn far_pair((remote, vip): FarClient, client: &Packet, server: &Packet) -> [(Packet, Packet); 2] {
    let mut sent = far(client.clone());
    sent.source = remote;
    let arrives = at_server(&sent);
    sent.destination = vip;
    let mut answer = far(server.clone());
    answer.destination = remote;
    let mut comes = at_client(&answer).with_macs(FAR_CLIENT_MAC, WAN_2_MAC);
    comes.source = vip;
    [(sent, arrives), (answer, comes)]
}

/// IKE and ESP of a client and of the server, with a number of their own.
fn kinds(sequence: u32) -> [(Packet, Packet); 2] {
    [
        (
            from_client(500, 500, message(sequence)),
            from_server(500, 500, message(sequence)),
        ),
        (
            from_client(4500, 4500, esp(IN, sequence, 60)),
            from_server(4500, 4500, esp(OUT, sequence, 60)),
        ),
    ]
}

/// A client of the second uplink talks.
fn far_talks(
    wire: &Wire,
    far_client: &PacketSocket,
    client: FarClient,
    sequence: u32,
) -> Result<()> {
    for (sent, answered) in kinds(sequence) {
        let [(sent, arrives), (answer, comes)] = far_pair(client, &sent, &answered);
        let arrives = [arrives.build()];
        cross(far_client, &wire.server, &[sent.build()], &arrives)
            .context("from the second WAN")?;
        let comes = [comes.build()];
        cross(&wire.server, far_client, &[answer.build()], &comes).context("to the second WAN")?;
    }
    Ok(())
}

/// Both clients talk, each by its own WAN and VIP.
pub(crate) fn both_talk(wire: &Wire, far_client: &PacketSocket, sequence: u32) -> Result<()> {
    for (client, server) in kinds(sequence) {
        wire.inbound(&near(client))?;
        wire.outbound(&near(server))?;
    }
    far_talks(wire, far_client, (REMOTE[1], WAN_2_ADDRESS), sequence)
}

/// The second uplink has two VIPs, and loses its link and its route for a while: the sessions of both go on,
/// with their counters.
fn link_lost(lab: &Lab) -> Result<()> {
    const THIRD: FarClient = (Ipv4Addr::new(192, 0, 2, 30), Ipv4Addr::new(198, 51, 102, 3));
    const ROUNDS: u32 = 5;
    let (_namespace, far_client) = second_wan(lab)?;
    default_routes(lab)?;
    lab.gateway
        .run(&format!("ip address add {}/24 dev {WAN_2}", THIRD.1))?;
    let service = format!("office:{VIP},{WAN_2_ADDRESS},{}={SERVER}", THIRD.1);
    let words = ["run", "--wan", WAN, "--wan", WAN_2, "--lan", LAN];
    let words = [&words[..], &["--service", &service]].concat();
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    let wire = Wire::open(lab)?;
    let talk = |first: u32| {
        (first..first + ROUNDS).try_for_each(|at| {
            both_talk(&wire, &far_client, at)?;
            far_talks(&wire, &far_client, THIRD, at)
        })
    };
    talk(1)?;
    let generation = lab.stats()?.generation;
    lab.gateway.run(&format!("ip link set {WAN_2} down"))?;
    let routes = lab.gateway.run("ip route show default")?;
    ensure!(!routes.contains(WAN_2), "{routes}");
    // The client of the other uplink is not affected.
    for (client, server) in kinds(ROUNDS + 1) {
        wire.inbound(&near(client))?;
        wire.outbound(&near(server))?;
    }
    lab.gateway.run(&format!("ip link set {WAN_2} up"))?;
    second_default_route(lab)?;
    talk(ROUNDS + 2)?;
    let stats = lab.stats()?;
    ensure!(stats.generation == generation, "{stats:?}");
    // From the IP header on.
    let length = u64::try_from(kinds(1)[1].0.build().len() - 14)?;
    for (peer, rounds) in [
        (REMOTE[0], 2 * ROUNDS + 1),
        (REMOTE[1], 2 * ROUNDS),
        (THIRD.0, 2 * ROUNDS),
    ] {
        // What comes before the server's first ESP, which proves the client, has no entry yet.
        let rounds = u64::from(rounds);
        for (spi, direction, packets) in [
            (IN, Direction::Inbound, rounds - 1),
            (OUT, Direction::Outbound, rounds),
        ] {
            let found = stats.spi(peer, spi, direction);
            let found = found.with_context(|| format!("{peer}: {stats:?}"))?;
            ensure!(
                (found.packets, found.bytes) == (packets, packets * length),
                "{peer}: {found:?}, but {packets} of {length} bytes"
            );
        }
        let session = stats.session(peer);
        let session = session.with_context(|| format!("{peer}: {stats:?}"))?;
        let ike = (session.ike.inbound, session.ike.outbound);
        ensure!(ike == (rounds - 1, rounds - 1), "{session:?}");
    }
    Ok(())
}

fn two_wans(lab: &Lab) -> Result<()> {
    let (_namespace, far_client) = second_wan(lab)?;
    default_routes(lab)?;
    let run = || start_office(lab);
    let wire = Wire::open(lab)?;
    let first = run()?;
    let mut sequence = 0..;
    let mut talk = |times: usize| -> Result<()> {
        let next = sequence.by_ref().take(times);
        next.into_iter()
            .try_for_each(|at| both_talk(&wire, &far_client, at + 1))
    };
    talk(3)?;
    let tables = lab.status()?.tables;
    let pinned = tables.iter().find(|table| table.name == "PIN");
    ensure!(pinned.is_some_and(|pin| pin.entries >= 2), "{tables:?}");
    first.terminate()?;
    talk(2)?;
    let second = run()?;
    talk(3)?;
    second.kill()?;
    let third = run()?;
    talk(3)?;
    drop(third);
    // The tables are lost; the next packet of a client says which VIP it uses. What the server sends before
    // leaves from the first one, however much that is.
    lab.unload()?;
    let _fourth = run()?;
    for at in 100..110 {
        let mut early = from_server(4500, 4500, esp(OUT, at, 60));
        early.destination = REMOTE[1];
        wire.outbound(&early).context("a client that is silent")?;
    }
    talk(3)?;
    let stats = lab.stats()?;
    for peer in REMOTE {
        ensure!(stats.session(peer).is_some(), "{peer}: {stats:?}");
    }
    Ok(())
}

/// The second uplink does not exist when the daemon starts. Later the first one takes its VIP over.
fn appears(lab: &Lab) -> Result<()> {
    lab.gateway
        .run(&format!("ip route add default via {CLIENT} dev {WAN}"))?;
    let _ikenat = start_office(lab)?;
    let wire = Wire::open(lab)?;
    wire.outbound(&near(from_server(4500, 4500, esp(OUT, 1, 60))))?;
    let (_namespace, far_client) = second_wan(lab)?;
    second_default_route(lab)?;
    wait_for_log(lab, "ready again")?;
    (2..=4).try_for_each(|at| both_talk(&wire, &far_client, at))?;
    lab.gateway.shell(&format!(
        "ip address del {WAN_2_ADDRESS}/24 dev {WAN_2}; ip address add {WAN_2_ADDRESS}/32 dev {WAN}"
    ))?;
    wait_for_log(
        lab,
        &format!("{WAN_2_ADDRESS}: a VIP of {WAN} now, by which"),
    )
}
