//! The rows of the golden table. Each peer appears in one row only, so the rows do not share state.
//!
//! The numbers in brackets distinguish the kinds of malformed and unusual input that a row covers.

mod bytes;
mod egress;
mod icmp;
mod icmp_generated;
mod ipsec;
mod layers;

use ikenat_tests::lab::frames::{Body, Checksum, DONT_FRAGMENT, Packet, protocol};
use ikenat_tests::lab::topology::{
    CLIENT_MAC, GATEWAY_LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC,
};
use std::net::Ipv4Addr;
use xdp_core::Side;

/// One row.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) side: Side,
    /// Packets that came before.
    pub(crate) before: Vec<(Side, Vec<u8>)>,
    pub(crate) input: Vec<u8>,
    /// The verdict of XDP.
    pub(crate) verdict: String,
    /// The bytes afterwards; `None`: unchanged.
    pub(crate) output: Option<Vec<u8>>,
    /// The verdict of tc, where it differs; a row of [`Side::Out`] runs in the egress program
    /// alone.
    pub(crate) slow_verdict: Option<String>,
    /// The bytes after tc, where they differ.
    pub(crate) slow_output: Option<Vec<u8>>,
    /// tc leaves the translated packet to the host's stack.
    pub(crate) to_stack: bool,
}

const ESP_PAYLOAD: [u8; 24] = [
    0xc1, 0x02, 0x03, 0x04, 0, 0, 0, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6,
];
const SPI_I: [u8; 8] = [0x11; 8];
const SPI_R: [u8; 8] = [0x22; 8];

fn peer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

fn ike(responder: [u8; 8]) -> Vec<u8> {
    let mut message = [SPI_I, responder].concat();
    message.extend([33, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 0, 40]);
    message.extend([0x55; 12]);
    message
}

/// The server's response to IKE_SA_INIT (RFC 7296 section 1.2): it has chosen its SPI.
fn ike_response(responder: [u8; 8]) -> Vec<u8> {
    let mut message = ike(responder);
    message[19] = 0x20;
    message
}

fn marked(message: Vec<u8>) -> Vec<u8> {
    [vec![0; 4], message].concat()
}

/// A packet from a client, as it reaches the WAN.
fn from_client(packet: Packet) -> Packet {
    packet.with_macs(WAN_MAC, CLIENT_MAC)
}

/// A packet from the server, as it reaches the LAN.
fn from_server(packet: Packet) -> Packet {
    packet.with_macs(LAN_MAC, SERVER_MAC)
}

/// The expected packet of the gateway, header by header.
pub(crate) fn translated(packet: &Packet, side: Side) -> Packet {
    let mut packet = packet.clone();
    packet.ttl -= 1;
    match side {
        Side::Lan => {
            packet.source = VIP;
            packet.with_macs(CLIENT_MAC, WAN_MAC)
        }
        // The kernel has routed it and decremented the TTL.
        Side::Out => {
            packet.ttl += 1;
            packet.source = VIP;
            packet
        }
        Side::Wan | Side::Both => {
            packet.destination = SERVER;
            packet.with_macs(SERVER_MAC, LAN_MAC)
        }
    }
}

fn row(name: &str, side: Side, input: Vec<u8>, verdict: &str) -> Row {
    Row {
        name: name.to_owned(),
        side,
        before: Vec::new(),
        input,
        verdict: verdict.to_owned(),
        output: None,
        slow_verdict: None,
        slow_output: None,
        to_stack: false,
    }
}

fn forwarded(name: &str, side: Side, packet: &Packet, verdict: &str) -> Row {
    let mut row = row(name, side, packet.build(), verdict);
    row.output = Some(translated(packet, side).build());
    row
}

fn inbound(number: u8, port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    from_client(Packet::udp((peer(number), 40_000), (VIP, port), payload))
}

fn outbound(number: u8, port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    from_server(Packet::udp((SERVER, port), (peer(number), 40_000), payload))
}

/// The server's ESP to a peer: the proof that makes it established.
fn proof(number: u8) -> (Side, Vec<u8>) {
    let mut payload = ESP_PAYLOAD;
    payload[0] = 0xee;
    (Side::Lan, outbound(number, 4500, payload).build())
}

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    [
        ipsec::ordinary(),
        bytes::checksums(),
        layers::layer2(),
        layers::ipv4(),
        layers::udp(),
        ipsec::esp_and_ike(),
        bytes::fragments(),
        ipsec::state(),
        icmp::errors(),
        icmp::refused(),
        icmp_generated::errors(),
        egress::from_the_stack(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
