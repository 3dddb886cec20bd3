//! Fragments of handled packets arrive translated, each with its original boundaries.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::icmp_errors::Peers;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::sender::socket_in;
use ikenat_tests::lab::topology::{CLIENT, CLIENT_2, CLIENT_MAC, VIP, WAN_MAC};
use ikenat_tests::lab::udp_pair::receive;
use ikenat_tests::lab::udp_pair::{Server, UdpPair};
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, esp, esp_from_server, exchange, from_client, from_server, ike,
    marked, raw_from_client, responder_spi, with_client,
};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("fragments_of_esp_arrive_in_any_order", esp_fragments),
        Scenario::new("fragments_of_ike_arrive_first_first", ike_fragments),
        Scenario::new("unrelated_fragments_are_punted", foreign_fragments),
        Scenario::new(
            "reversed_fragments_of_a_peer_with_a_session_arrive",
            reversed,
        ),
        Scenario::new("reversed_fragments_of_a_dedicated_vip_arrive", dedicated),
        Scenario::new(
            "the_gateways_large_datagrams_are_its_own_beside_a_session",
            own_datagrams,
        ),
        Scenario::new(
            "the_gateways_large_answers_arrive_in_any_order_beside_a_session",
            own_answers_reversed,
        ),
        Scenario::new(
            "the_servers_large_datagrams_to_others_stay_whole",
            servers_datagrams,
        ),
    ]
}

const CUTS: [usize; 2] = [800, 1600];
const SPI: u32 = 0xC765_4321;

fn inbound(wire: &Wire, packet: &Packet, order: &[usize]) -> Result<()> {
    let pick = |frames: Vec<Vec<u8>>| {
        order
            .iter()
            .map(|&at| frames[at].clone())
            .collect::<Vec<_>>()
    };
    wire.inbound_frames(
        &pick(packet.build_fragments(&CUTS)),
        &pick(at_server(packet).build_fragments(&CUTS)),
    )
    .with_context(|| format!("fragments in the order {order:?}"))
}

fn outbound(wire: &Wire, packet: &Packet, order: &[usize]) -> Result<()> {
    let pick = |frames: Vec<Vec<u8>>| {
        order
            .iter()
            .map(|&at| frames[at].clone())
            .collect::<Vec<_>>()
    };
    wire.outbound_frames(
        &pick(packet.build_fragments(&CUTS)),
        &pick(at_client(packet).build_fragments(&CUTS)),
    )
    .with_context(|| format!("fragments in the order {order:?}"))
}

fn esp_fragments(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for (id, order) in [(1, [0, 1, 2]), (2, [2, 1, 0]), (3, [1, 0, 2])] {
        let mut packet = raw_from_client(protocol::ESP, esp(SPI, u32::from(id), 2000));
        packet.id = id;
        inbound(&wire, &packet, &order)?;
        let mut packet = esp_from_server(esp(SPI, u32::from(id), 2000));
        packet.id = id;
        outbound(&wire, &packet, &order)?;
    }
    Ok(())
}

fn ike_fragments(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let message = ike(1, 2, exchange::IKE_AUTH, false, 2000);
    for (id, port, payload) in [
        (1, 500, message.clone()),
        (2, 4500, marked(&message)),
        (3, 4500, esp(SPI, 1, 2000)),
    ] {
        let mut packet = from_client(port, port, payload.clone());
        packet.id = id;
        inbound(&wire, &packet, &[0, 1, 2])?;
        let mut packet = from_server(port, port, payload);
        packet.id = id;
        outbound(&wire, &packet, &[0, 1, 2])?;
    }
    // The same ID of another client is another datagram.
    let mut packets = [
        from_client(500, 500, message.clone()),
        from_client(500, 500, message),
    ];
    packets[1] = with_client(packets[1].clone(), CLIENT_2);
    let cut = |packet: &Packet| packet.build_fragments(&CUTS);
    let (a, b) = (cut(&packets[0]), cut(&packets[1]));
    let (a_wanted, b_wanted) = (cut(&at_server(&packets[0])), cut(&at_server(&packets[1])));
    let mix = |a: &[Vec<u8>], b: &[Vec<u8>]| {
        vec![
            a[0].clone(),
            b[0].clone(),
            b[1].clone(),
            a[1].clone(),
            a[2].clone(),
            b[2].clone(),
        ]
    };
    wire.inbound_frames(&mix(&a, &b), &mix(&a_wanted, &b_wanted))
        .context("two clients, one ID")
}

/// Fragments from a peer without a session go to the gateway, whose DNS answers are fragmented too.
fn foreign_fragments(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let mut answer = with_client(from_client(53, 5353, vec![0xD5; 2000]), CLIENT_2);
    answer.id = 77;
    for frame in answer.build_fragments(&CUTS) {
        wire.punted_on_wan(&frame)?;
    }
    // The rest of a datagram of which no first fragment and no session is known.
    let mut orphan = with_client(from_client(500, 500, vec![0; 2000]), CLIENT_2);
    orphan.id = 78;
    for frame in &orphan.build_fragments(&CUTS)[1..] {
        wire.punted_on_wan(frame)?;
    }
    Ok(())
}

/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

fn datagrams(client: Ipv4Addr) -> [(Packet, Packet); 3] {
    let message = ike(1, 2, exchange::IKE_AUTH, false, 2000);
    [
        (500, message.clone()),
        (4500, marked(&message)),
        (4500, esp(SPI, 3, 2000)),
    ]
    .map(|(port, payload)| {
        (
            with_client(from_client(port, port, payload.clone()), client),
            with_client(from_server(port, port, payload), client),
        )
    })
}

/// Any order of every datagram, both ways.
fn in_any_order(wire: &Wire, client: Ipv4Addr) -> Result<()> {
    let mut id = 100;
    for (mut from_client, mut from_server) in datagrams(client) {
        for order in ORDERS {
            id += 1;
            (from_client.id, from_server.id) = (id, id);
            inbound(wire, &from_client, &order)?;
            outbound(wire, &from_server, &order)?;
        }
    }
    Ok(())
}

fn reversed(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    // Established by the server's ESP.
    let client = peers.fresh();
    wire.outbound(&with_client(
        from_server(4500, 4500, esp(SPI, 1, 60)),
        client,
    ))?;
    in_any_order(&wire, client).context("established")?;
    // The session is half open: the server has answered. The message itself is the proof, so each
    // order needs another peer.
    let request = ike(1, 0, exchange::IKE_SA_INIT, false, 200);
    for order in ORDERS {
        let client = peers.fresh();
        let responder = responder_spi(client);
        let answer = ike(1, responder, exchange::IKE_SA_INIT, true, 200);
        let auth = marked(&ike(1, responder, exchange::IKE_AUTH, false, 2000));
        wire.inbound(&with_client(from_client(500, 500, request.clone()), client))?;
        wire.outbound(&with_client(from_server(500, 500, answer), client))?;
        let message = with_client(from_client(4500, 4500, auth), client);
        inbound(&wire, &message, &order).context("half open")?;
    }
    Ok(())
}

fn dedicated(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    let _ikenat = Ikenat::start_with(lab, &["--dedicated"])?;
    let wire = Wire::open(lab)?;
    // This peer has no session.
    let client = peers.fresh();
    let mut id = 200;
    for (mut packet, _) in datagrams(client) {
        for order in ORDERS {
            id += 1;
            packet.id = id;
            inbound(&wire, &packet, &order)?;
        }
    }
    // Packets to other ports are left to the host, even if the VIP is declared dedicated.
    wire.punted_on_wan(&with_client(from_client(53, 53, vec![1; 60]), client).build())
}

/// A peer with a tunnel asks the gateway's DNS large questions and gets large answers.
fn own_datagrams(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    wire.outbound(&from_server(4500, 4500, esp(SPI, 1, 60)))?;
    wire.inbound(&from_client(4500, 4500, esp(SPI, 1, 60)))?;
    drop(wire);
    let own = Server {
        namespace: &lab.gateway,
        address: VIP,
        interface: None,
    };
    for port in [53, 1701] {
        let talk = UdpPair::open(lab, own, port)?;
        for length in [40, 1473, 3000] {
            talk.exchange(&vec![0x42; length])
                .with_context(|| format!("port {port}, {length} bytes"))?;
        }
    }
    Ok(())
}

/// A DNS server that is a client of the VPN server as well answers the gateway, and its fragments
/// arrive in any order.
fn own_answers_reversed(lab: &Lab) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    wire.outbound(&from_server(4500, 4500, esp(SPI, 1, 60)))?;
    let own = socket_in(&lab.gateway, SocketAddrV4::new(VIP, 5353))?;
    own.set_read_timeout(Some(PATIENCE))?;
    for (id, order) in (300..).zip(ORDERS) {
        let payload = vec![u8::try_from(id % 256)?; 2000];
        let mut answer = from_client(53, 5353, payload.clone());
        answer.id = id;
        let pieces = answer.build_fragments(&CUTS);
        for &at in &order {
            wire.client.send(&pieces[at])?;
        }
        let mut buffer = vec![0; 1 << 16];
        let (size, from) = receive(&own, &mut buffer)
            .with_context(|| format!("fragments in the order {order:?} did not arrive"))?;
        ensure!(
            buffer[..size] == payload && from == SocketAddrV4::new(CLIENT, 53).into(),
            "{size} bytes came from {from}"
        );
    }
    Ok(())
}

/// Packets that the server sends from other ports are only routed, with all their fragments, even
/// to a peer with a session.
fn servers_datagrams(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    wire.outbound(&from_server(4500, 4500, esp(SPI, 1, 60)))?;
    for (id, port) in [(1, 53), (2, 1701)] {
        let mut packet = from_server(port, 4500, vec![0x42; 2000]);
        packet.id = id;
        let mut routed = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
        routed.ttl -= 1;
        wire.outbound_frames(
            &packet.build_fragments(&CUTS),
            &routed.build_fragments(&CUTS),
        )
        .with_context(|| format!("from port {port}"))?;
    }
    Ok(())
}
