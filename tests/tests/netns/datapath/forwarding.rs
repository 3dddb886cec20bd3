//! Handled packets arrive on the other side with one address, the TTL and the checksums changed,
//! and nothing else.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Captured, Checksum, DONT_FRAGMENT, Packet, Verdict, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::sender::socket_in;
use ikenat_tests::lab::topology::{CLIENT, CLIENT_2, PEER, SERVER, VIP};
use ikenat_tests::lab::udp_pair::receive;
use ikenat_tests::lab::wire::{
    Wire, at_client, at_server, esp, esp_from_server, exchange, from_client, from_server, ike,
    marked, raw_from_client, with_client, with_zero_sum,
};
use ikenat_tests::lab::{Lab, Options};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let offload = Options {
        checksum_offload: true,
        ..Options::default()
    };
    vec![
        Scenario::new("udp_500_arrives_translated_both_ways", udp_500),
        Scenario::new("udp_4500_arrives_translated_both_ways", udp_4500),
        Scenario::new("native_esp_arrives_translated_both_ways", native_esp),
        Scenario::new("two_clients_are_kept_apart", two_clients),
        Scenario::new("odd_but_valid_frames_arrive_as_they_are", odd_frames),
        Scenario::new("ip_options_are_kept", ip_options),
        Scenario::new("checksums_zero_wrong_and_computed_zero", checksums),
        Scenario::new("unresolved_neighbours_lose_no_first_packet", neighbours),
        Scenario::new(
            "unresolved_neighbours_without_the_daemon",
            neighbours_without_daemon,
        ),
        Scenario::new("partial_checksums_arrive_right", partial_checksums).with_options(offload),
    ]
}

const INITIATOR: u64 = 0x1111_2222_3333_4444;
const RESPONDER: u64 = 0x5555_6666_7777_8888;
const SPI: u32 = 0xC123_4567;

fn udp_500(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let request = ike(INITIATOR, 0, exchange::IKE_SA_INIT, false, 200);
    let response = ike(INITIATOR, RESPONDER, exchange::IKE_SA_INIT, true, 201);
    wire.inbound(&from_client(500, 500, request.clone()))?;
    wire.outbound(&from_server(500, 500, response.clone()))?;
    // Behind a NAT of its own the client's port is any.
    wire.inbound(&from_client(61_234, 500, request))?;
    wire.outbound(&from_server(500, 61_234, response))
}

fn udp_4500(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for client_port in [4500, 1025] {
        for payload in [
            marked(&ike(INITIATOR, RESPONDER, exchange::IKE_AUTH, false, 300)),
            esp(SPI, 1, 80),
            esp(SPI, 2, 81),
            esp(SPI, 3, 1400),
            esp(256, 0, 0),
            vec![0xFF],
            vec![],
        ] {
            wire.inbound(&from_client(client_port, 4500, payload.clone()))?;
            wire.outbound(&from_server(4500, client_port, payload))?;
        }
    }
    Ok(())
}

fn native_esp(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for payload in [
        esp(SPI, 1, 100),
        esp(SPI, 2, 101),
        esp(SPI, 3, 1400),
        esp(1, u32::MAX, 0),
    ] {
        wire.inbound(&raw_from_client(protocol::ESP, payload.clone()))?;
        wire.outbound(&esp_from_server(payload))?;
    }
    Ok(())
}

fn two_clients(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for sequence in 1..=5 {
        for client in [CLIENT, CLIENT_2] {
            let payload = esp(SPI, sequence, 60);
            wire.inbound(&with_client(
                from_client(4500, 4500, payload.clone()),
                client,
            ))?;
            wire.outbound(&with_client(from_server(4500, 4500, payload), client))?;
        }
    }
    Ok(())
}

/// Unusual packets: a description and the change that makes them so.
type Change = (&'static str, fn(&mut Packet));

fn odd_frames(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let changes: [Change; 6] = [
        ("Ethernet padding", |packet| packet.padding = vec![0xEE; 18]),
        ("every DSCP and ECN bit", |packet| packet.tos = 0xBB),
        ("don't fragment, ID zero", |packet| {
            (packet.flags, packet.id) = (DONT_FRAGMENT, 0);
        }),
        ("TTL 255", |packet| packet.ttl = 255),
        ("TTL 2", |packet| packet.ttl = 2),
        ("a wrong header checksum stays wrong", |packet| {
            packet.header_checksum_off_by = 0x0102;
        }),
    ];
    for (what, change) in changes {
        for mut packet in [
            from_client(4500, 4500, vec![0xFF]),
            raw_from_client(protocol::ESP, esp(SPI, 9, 20)),
        ] {
            change(&mut packet);
            wire.inbound(&packet).context(what)?;
        }
        for mut packet in [
            from_server(4500, 4500, vec![0xFF]),
            esp_from_server(esp(SPI, 9, 20)),
        ] {
            change(&mut packet);
            wire.outbound(&packet).context(what)?;
        }
    }
    Ok(())
}

fn ip_options(lab: &Lab) -> Result<()> {
    /// Four times "no operation": the kernel forwards it without touching the options.
    const OPTIONS: [u8; 4] = [1; 4];
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let mut inbound = from_client(4500, 4500, esp(SPI, 1, 40));
    inbound.options = OPTIONS.to_vec();
    wire.inbound(&inbound)?;
    let mut outbound = from_server(4500, 4500, esp(SPI, 1, 40));
    outbound.options = OPTIONS.to_vec();
    wire.outbound(&outbound)
}

fn checksums(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let (inbound, outbound) = (
        from_client(4500, 4500, esp(SPI, 1, 33)),
        from_server(4500, 4500, esp(SPI, 1, 33)),
    );
    for checksum in [
        Checksum::Right,
        Checksum::Zero,
        Checksum::OffBy(1),
        Checksum::OffBy(0xABCD),
    ] {
        wire.inbound(&inbound.clone().with_checksum(checksum))
            .with_context(|| format!("{checksum:?}"))?;
        wire.outbound(&outbound.clone().with_checksum(checksum))
            .with_context(|| format!("{checksum:?}"))?;
    }
    let unchanged = Packet::clone;
    wire.inbound(&with_zero_sum(&inbound, at_server))
        .context("zero after the translation")?;
    wire.inbound(&with_zero_sum(&inbound, unchanged))
        .context("zero before the translation")?;
    wire.outbound(&with_zero_sum(&outbound, at_client))
        .context("zero after the translation")?;
    wire.outbound(&with_zero_sum(&outbound, unchanged))
        .context("zero before the translation")
}

fn neighbours(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    flushed_neighbours(lab, &wire)
}

fn neighbours_without_daemon(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let wire = Wire::open(lab)?;
    flushed_neighbours(lab, &wire)
}

fn flushed_neighbours(lab: &Lab, wire: &Wire) -> Result<()> {
    for sequence in 1..=5 {
        lab.flush_neighbours()?;
        wire.inbound(&from_client(4500, 4500, esp(SPI, sequence, 50)))
            .context("neighbours flushed")?;
        lab.flush_neighbours()?;
        wire.outbound(&from_server(4500, 4500, esp(SPI, sequence, 50)))
            .context("neighbours flushed")?;
        lab.flush_neighbours()?;
        wire.inbound(&raw_from_client(protocol::ESP, esp(SPI, sequence, 50)))
            .context("neighbours flushed")?;
        lab.flush_neighbours()?;
        wire.outbound(&esp_from_server(esp(SPI, sequence, 50)))
            .context("neighbours flushed")?;
    }
    Ok(())
}

/// Sockets whose kernel leaves the checksum to the device, as in every virtual machine.
fn partial_checksums(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let (at_client, at_server) = (
        PacketSocket::open(&lab.client, PEER)?,
        PacketSocket::open(&lab.server, PEER)?,
    );
    for port in [500, 4500] {
        let client = socket_in(&lab.client, SocketAddrV4::new(CLIENT, port))?;
        let server = socket_in(&lab.server, SocketAddrV4::new(SERVER, port))?;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        }
        let mut buffer = [0; 2048];
        for length in [1, 2, 77, 1300] {
            let payload = esp(SPI, 1, length);
            client.send_to(&payload, (VIP, port))?;
            let (size, from) = receive(&server, &mut buffer).context("client to server")?;
            ensure!(buffer[..size] == payload && from == SocketAddrV4::new(CLIENT, port).into());
            checksum_on_the_wire(&at_server, &payload)?;

            server.send_to(&payload, (CLIENT, port))?;
            let (size, from) = receive(&client, &mut buffer).context("server to client")?;
            ensure!(buffer[..size] == payload && from == SocketAddrV4::new(VIP, port).into());
            checksum_on_the_wire(&at_client, &payload)?;
        }
    }
    Ok(())
}

/// Right, or still left to the device with the right start value.
fn checksum_on_the_wire(at: &PacketSocket, payload: &[u8]) -> Result<()> {
    let sent =
        |frame: &[u8]| Captured::read(frame).is_ok_and(|ip| ip.udp_payload() == Some(payload));
    let frame = at
        .find(Duration::from_secs(1), sent)?
        .context("the socket got it but no capture did")?;
    let verdict = Captured::read(&frame)?.udp_checksum();
    ensure!(
        matches!(verdict, Some(Verdict::Right | Verdict::Partial)),
        "the UDP checksum of {} bytes is {verdict:?}",
        payload.len()
    );
    Ok(())
}
