//! The rows of the golden table. Each peer appears in one row only, so the rows do not share state.
//!
//! The numbers in brackets distinguish the kinds of malformed and unusual input that a row covers.

mod bytes;
mod conditions;
mod connections;
mod egress;
mod host_peer;
mod icmp;
mod icmp_generated;
mod icmp_lengths;
mod ipsec;
mod layers;
pub(crate) mod second;
mod tcp;

use ikenat_tests::bpf::fixture::Services;
use ikenat_tests::lab::frames::{Body, Checksum, DONT_FRAGMENT, Packet, protocol};
use ikenat_tests::lab::topology::{
    CLIENT_MAC, GATEWAY_LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC,
};
use second::Path;
use std::net::Ipv4Addr;
use xdp_core::Side;

/// The gateways of the rows of the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arms {
    /// One interface for both sides.
    One,
    /// A WAN and a LAN.
    Two,
}

impl Arms {
    /// Two first: what arranges the lab for one arm is not taken back.
    pub(crate) const ALL: [Self; 2] = [Self::Two, Self::One];

    /// The suffix of the names of its rows.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::One => " (one-armed)",
            Self::Two => "",
        }
    }
}

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
    /// The packet, if it is ESP that is forwarded, and the path that it takes as the second packet
    /// of a known flow.
    pub(crate) esp: Option<(Packet, Path)>,
    /// It is about a service with several VIPs.
    pub(crate) only_several: bool,
}

const ESP_PAYLOAD: [u8; 24] = [
    0xc1, 0x02, 0x03, 0x04, 0, 0, 0, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6,
];
const SPI_I: [u8; 8] = [0x11; 8];
const SPI_R: [u8; 8] = [0x22; 8];

pub(crate) fn peer(number: u8) -> Ipv4Addr {
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
pub(crate) fn from_client(packet: Packet) -> Packet {
    packet.with_macs(WAN_MAC, CLIENT_MAC)
}

/// A packet from the server, as it reaches the LAN.
pub(crate) fn from_server(packet: Packet) -> Packet {
    packet.with_macs(LAN_MAC, SERVER_MAC)
}

/// Moves a frame to the only interface of a one-armed gateway. A MAC address that differs from the
/// interface's in some bits still does.
pub(crate) fn to_only_interface(side: &mut Side, frame: &mut [u8]) {
    if *side == Side::Out {
        return;
    }
    if *side == Side::Lan {
        for (byte, (lan, wan)) in frame.iter_mut().zip(LAN_MAC.into_iter().zip(WAN_MAC)) {
            *byte ^= lan ^ wan;
        }
    }
    *side = Side::Both;
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
        esp: None,
        only_several: false,
    }
}

impl Row {
    /// The same on a one-armed gateway. `None`: its verdict depends on the interface by which a
    /// packet would leave.
    pub(crate) fn one_armed(mut self) -> Option<Self> {
        if self.side == Side::Out || self.verdict == "punted not-by-wan" {
            return None;
        }
        to_only_interface(&mut self.side, &mut self.input);
        for (side, frame) in &mut self.before {
            to_only_interface(side, frame);
        }
        let outputs = [&mut self.output, &mut self.slow_output];
        for output in outputs.into_iter().flatten() {
            output[6..12].copy_from_slice(&WAN_MAC);
        }
        self.name += Arms::One.suffix();
        Some(self)
    }

    /// Not for the fast path, also if its flow is known.
    fn general(mut self) -> Self {
        if let Some((_, path)) = &mut self.esp {
            *path = Path::General;
        }
        self
    }
}

fn forwarded(name: &str, side: Side, packet: &Packet, verdict: &str) -> Row {
    let mut row = row(name, side, packet.build(), verdict);
    row.output = Some(translated(packet, side).build());
    if verdict.starts_with("forward esp") {
        row.esp = Some((packet.clone(), Path::Fast));
    }
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

/// All rows that a gateway with these services has.
pub(crate) fn rows_for(services: Services) -> impl Iterator<Item = Row> {
    let rows = rows().into_iter();
    rows.filter(move |row| services == Services::Many || !row.only_several)
}

/// All rows.
fn rows() -> Vec<Row> {
    [
        ipsec::ordinary(),
        bytes::checksums(),
        layers::layer2(),
        layers::ipv4(),
        layers::udp(),
        ipsec::esp_and_ike(),
        ipsec::ends(),
        bytes::fragments(),
        ipsec::state(),
        icmp::errors(),
        icmp::refused(),
        icmp_generated::errors(),
        icmp_lengths::lengths(),
        egress::from_the_stack(),
        host_peer::taught(),
        host_peer::inbound_packets(),
        host_peer::errors(),
        tcp::segments(),
        tcp::damaged(),
        tcp::fragments(),
        tcp::errors(),
        tcp::answered(),
        connections::by_each_vip(),
        connections::to_the_other_vip(),
        connections::on_egress(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
