//! Packets without DF that exceed the MTU of the next link: the kernel fragments them, and each end
//! sees the addresses that it expects. This is the only case that the host's kernel must forward,
//! so `ip_forward` and the FORWARD policy decide.

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::{Checksum, Packet, protocol};
use ikenat_tests::lab::icmp_errors::Peers;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, esp, esp_from_server, exchange, from_client, from_server, ike,
    marked, raw_from_client, with_client,
};
use ikenat_tests::lab::{Host, Lab};
use ikenat_tests::suite::Scenario;
use std::net::Ipv4Addr;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all =
        Scenario::on_every_host("too_big_without_df_is_fragmented_by_the_kernel", fragmented);
    all.push(Scenario::new(
        "the_lab_itself_fragments_with_the_kernels_nat",
        kernel_nat,
    ));
    all
}

const SPI: u32 = 0xC321_0001;
/// MTU of the gateway's small side: it cannot be used fully, since fragments end at multiples of
/// eight.
const SMALL: usize = 1398;
const CUT: usize = (SMALL - 20) / 8 * 8;

/// Packets of each kind that do not fit.
fn packets(direction: Direction, client: Ipv4Addr) -> Vec<Packet> {
    let handshake = marked(&ike(1, 2, exchange::IKE_AUTH, false, 1400));
    let packets = match direction {
        Direction::Inbound => vec![
            from_client(4500, 4500, handshake),
            from_client(4500, 4500, esp(SPI, 9, 1464)),
            from_client(4500, 4500, esp(SPI, 9, 1464)).with_checksum(Checksum::Zero),
            raw_from_client(protocol::ESP, esp(SPI, 9, 1472)),
        ],
        Direction::Outbound => vec![
            from_server(4500, 4500, handshake),
            from_server(4500, 4500, esp(SPI, 9, 1464)),
            from_server(4500, 4500, esp(SPI, 9, 1464)).with_checksum(Checksum::Zero),
            esp_from_server(esp(SPI, 9, 1472)),
        ],
    };
    (1..)
        .zip(packets)
        .map(|(id, packet)| {
            let mut packet = with_client(packet, client);
            packet.id = id;
            packet
        })
        .collect()
}

/// One packet, and its fragments at the other side.
fn crosses(wire: &Wire, direction: Direction, packet: &Packet) -> Result<()> {
    let sent = [packet.build()];
    match direction {
        Direction::Inbound => {
            wire.inbound_frames(&sent, &at_server(packet).build_fragments(&[CUT]))
        }
        Direction::Outbound => {
            wire.outbound_frames(&sent, &at_client(packet).build_fragments(&[CUT]))
        }
    }
    .with_context(|| format!("{direction:?}, ID {}", packet.id))
}

/// A peer's small packets both ways, so that it has a session and its SPI a flow.
fn make_session(wire: &Wire, client: Ipv4Addr) -> Result<()> {
    wire.outbound(&with_client(
        from_server(4500, 4500, esp(SPI, 1, 60)),
        client,
    ))?;
    wire.inbound(&with_client(
        from_client(4500, 4500, esp(SPI, 1, 60)),
        client,
    ))?;
    wire.outbound(&with_client(esp_from_server(esp(SPI, 1, 60)), client))?;
    wire.inbound(&with_client(
        raw_from_client(protocol::ESP, esp(SPI, 1, 60)),
        client,
    ))
}

fn fragmented(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    if lab.options.host != Host::Plain {
        refused_by_the_host(lab, &mut peers)?;
        lab.accept_forward()?;
    }
    for (direction, egress) in [(Direction::Inbound, LAN), (Direction::Outbound, WAN)] {
        lab.gateway
            .run(&format!("ip link set {egress} mtu {SMALL}"))?;
        let ikenat = Ikenat::start(lab)?;
        let wire = Wire::open(lab)?;
        let (unknown, known) = (peers.fresh(), peers.fresh());
        make_session(&wire, known)?;
        for client in [unknown, known] {
            for packet in packets(direction, client) {
                crosses(&wire, direction, &packet)?;
            }
        }
        ikenat.kill()?;
        lab.unload()?;
        lab.gateway.run(&format!("ip link set {egress} mtu 1500"))?;
    }
    Ok(())
}

/// Nothing arrives, no end receives a false ICMP error, and the counter shows the packets.
fn refused_by_the_host(lab: &Lab, peers: &mut Peers) -> Result<()> {
    for (direction, egress) in [(Direction::Inbound, LAN), (Direction::Outbound, WAN)] {
        lab.gateway
            .run(&format!("ip link set {egress} mtu {SMALL}"))?;
        let ikenat = Ikenat::start(lab)?;
        let wire = Wire::open(lab)?;
        let frames: Vec<Vec<u8>> = packets(direction, peers.fresh())
            .iter()
            .map(Packet::build)
            .collect();
        wire.swallowed(direction, &frames)?;
        let status = lab.status()?;
        let reason = match (lab.options.host, direction) {
            (Host::NoIpForward, Direction::Inbound) => ("dropped", "forwarding-disabled-inbound"),
            (Host::NoIpForward, Direction::Outbound) => ("punted", "forwarding-disabled"),
            (_, _) => ("slow", "too-big"),
        };
        let count = status.count(reason.0, reason.1);
        ensure!(
            count >= frames.len() as u64,
            "{direction:?}: {reason:?} was counted {count} times: {}",
            status.given()
        );
        ikenat.kill()?;
        lab.unload()?;
        lab.gateway.run(&format!("ip link set {egress} mtu 1500"))?;
    }
    Ok(())
}

/// Without ikenat: a failure here is a failure of the lab.
fn kernel_nat(lab: &Lab) -> Result<()> {
    let mut peers = Peers::route(lab)?;
    lab.kernel_nat()?;
    let wire = Wire::open(lab)?;
    for (direction, egress) in [(Direction::Inbound, LAN), (Direction::Outbound, WAN)] {
        lab.gateway
            .run(&format!("ip link set {egress} mtu {SMALL}"))?;
        let client = peers.fresh();
        for packet in &packets(direction, client)[..3] {
            crosses(&wire, direction, packet)?;
        }
        lab.gateway.run(&format!("ip link set {egress} mtu 1500"))?;
    }
    Ok(())
}
