//! Fragments of what is ours arrive, translated, each as it was cut.

use anyhow::{Context, Result};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::CLIENT_2;
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, esp, esp_from_server, exchange, from_client, from_server, ike,
    marked, raw_from_client, with_client,
};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("fragments_of_esp_arrive_in_any_order", esp_fragments),
        Scenario::new("fragments_of_ike_arrive_first_first", ike_fragments),
        Scenario::new("fragments_of_others_are_not_ours", foreign_fragments),
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

/// A stranger's fragments go to the gateway, whose DNS answers are fragmented too.
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
