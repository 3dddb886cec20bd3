//! Both ends of the lab as frames: what the client sends and what must reach the server, and the
//! reverse, compared byte for byte.
//!
//! A correct gateway changes one IP address, the TTL, the MAC addresses and the checksums, and
//! nothing else.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::capture::PacketSocket;
use super::frames::{Body, Packet, describe, not_ipv4, protocol};
use super::topology::{
    CLIENT, CLIENT_MAC, LAN, LAN_MAC, Lab, PEER, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};

/// Time for a frame to cross the lab, with a neighbour to be resolved first.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time to wait for a frame that must not arrive.
const SILENCE: Duration = Duration::from_millis(20);

/// Packet sockets at the client, at the server and on both sides of the gateway.
#[derive(Debug)]
pub struct Wire {
    /// At the client.
    pub client: PacketSocket,
    /// At the server.
    pub server: PacketSocket,
    /// At the gateway's WAN, behind XDP: sees what was punted, as the kernel gets it.
    pub wan: PacketSocket,
    /// At the gateway's LAN, likewise.
    pub lan: PacketSocket,
}

impl Wire {
    /// Opens all four.
    pub fn open(lab: &Lab) -> Result<Self> {
        lab.no_unreachables()?;
        Ok(Self {
            client: PacketSocket::open(&lab.client, PEER)?,
            server: PacketSocket::open(&lab.server, PEER)?,
            wan: PacketSocket::open(&lab.gateway, WAN)?,
            lan: PacketSocket::open(&lab.gateway, LAN)?,
        })
    }

    /// The client sends, and exactly the translated packet reaches the server.
    pub fn inbound(&self, packet: &Packet) -> Result<()> {
        self.inbound_frames(&[packet.build()], &[at_server(packet).build()])
    }

    /// The server sends, and exactly the translated packet reaches the client.
    pub fn outbound(&self, packet: &Packet) -> Result<()> {
        self.outbound_frames(&[packet.build()], &[at_client(packet).build()])
    }

    /// Frames of the client and what must reach the server, in this order.
    pub fn inbound_frames(&self, sent: &[Vec<u8>], wanted: &[Vec<u8>]) -> Result<()> {
        cross(&self.client, &self.server, sent, wanted).context("client to server")
    }

    /// Frames of the server and what must reach the client, in this order.
    pub fn outbound_frames(&self, sent: &[Vec<u8>], wanted: &[Vec<u8>]) -> Result<()> {
        cross(&self.server, &self.client, sent, wanted).context("server to client")
    }

    /// The client sends a frame that is not handled: the gateway's kernel gets it as it is, and the
    /// server gets nothing.
    pub fn punted_on_wan(&self, frame: &[u8]) -> Result<()> {
        self.wan.drain()?;
        self.server.drain()?;
        self.client.send(frame)?;
        punted(&self.wan, frame)?;
        self.server
            .expect_silence(SILENCE, not_ipv4)
            .with_context(|| sent(frame))
    }

    /// The server sends a frame that is not handled: the gateway's kernel gets it as it is.
    pub fn punted_on_lan(&self, frame: &[u8]) -> Result<()> {
        self.lan.drain()?;
        self.server.send(frame)?;
        punted(&self.lan, frame)
    }
}

fn punted(at: &PacketSocket, frame: &[u8]) -> Result<()> {
    let found = at.find(PATIENCE, |came| came == frame)?;
    found.with_context(|| {
        format!(
            "{}\nthe gateway's kernel did not get it as it is",
            sent(frame)
        )
    })?;
    Ok(())
}

/// Frames that leave one end, and what must reach another, in this order.
pub fn cross(
    from: &PacketSocket,
    to: &PacketSocket,
    sent: &[Vec<u8>],
    wanted: &[Vec<u8>],
) -> Result<()> {
    to.drain()?;
    for frame in sent {
        from.send(frame)?;
    }
    for frame in wanted {
        let explain = || {
            sent.iter()
                .map(|frame| self::sent(frame))
                .collect::<Vec<_>>()
                .join("\n")
        };
        to.expect(frame, PATIENCE, not_ipv4).with_context(explain)?;
    }
    Ok(())
}

fn sent(frame: &[u8]) -> String {
    format!("sent {}", describe(frame))
}

/// UDP from a client's port to a port of the VIP.
pub fn from_client(source: u16, destination: u16, payload: impl Into<Vec<u8>>) -> Packet {
    Packet::udp((CLIENT, source), (VIP, destination), payload).with_macs(WAN_MAC, CLIENT_MAC)
}

/// UDP from a port of the server to a client's port.
pub fn from_server(source: u16, destination: u16, payload: impl Into<Vec<u8>>) -> Packet {
    Packet::udp((SERVER, source), (CLIENT, destination), payload).with_macs(LAN_MAC, SERVER_MAC)
}

/// Another protocol from a client to the VIP.
pub fn raw_from_client(protocol: u8, payload: impl Into<Vec<u8>>) -> Packet {
    Packet::raw(CLIENT, VIP, protocol, payload).with_macs(WAN_MAC, CLIENT_MAC)
}

/// Native ESP from the server to a client.
pub fn esp_from_server(payload: impl Into<Vec<u8>>) -> Packet {
    Packet::raw(SERVER, CLIENT, protocol::ESP, payload).with_macs(LAN_MAC, SERVER_MAC)
}

/// The packet that must reach the server when the client sends a handled packet.
pub fn at_server(packet: &Packet) -> Packet {
    let mut packet = packet.clone().with_macs(SERVER_MAC, LAN_MAC);
    packet.destination = SERVER;
    packet.ttl -= 1;
    packet
}

/// The packet that must reach the client when the server sends a handled packet.
pub fn at_client(packet: &Packet) -> Packet {
    let mut packet = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
    packet.source = VIP;
    packet.ttl -= 1;
    packet
}

/// The same packet from or to another client.
pub fn with_client(mut packet: Packet, client: Ipv4Addr) -> Packet {
    if packet.source == CLIENT {
        packet.source = client;
    } else {
        packet.destination = client;
    }
    packet
}

/// An ESP packet: SPI, sequence number and bytes that look encrypted.
pub fn esp(spi: u32, sequence: u32, length: usize) -> Vec<u8> {
    let mut bytes = spi.to_be_bytes().to_vec();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend((0..length).map(|at| u8::try_from(at * 37 % 251).expect("below 251")));
    bytes
}

/// IKE exchange types.
pub mod exchange {
    /// The first exchange of IKEv2.
    pub const IKE_SA_INIT: u8 = 34;
    /// The second.
    pub const IKE_AUTH: u8 = 35;
}

/// The SPI that the server chooses in its first reply to a client. It chooses another one for each: the same
/// to two addresses proves nothing.
pub fn responder_spi(client: Ipv4Addr) -> u64 {
    u32::from(client).into()
}

/// An IKEv2 message: a header with these SPIs and an arbitrary body.
pub fn ike(initiator: u64, responder: u64, exchange: u8, response: bool, length: usize) -> Vec<u8> {
    /// The sender of the message is the initiator of the IKE SA.
    const INITIATOR: u8 = 0x08;
    const RESPONSE: u8 = 0x20;
    let mut bytes = initiator.to_be_bytes().to_vec();
    bytes.extend(responder.to_be_bytes());
    let flags = if response { RESPONSE } else { INITIATOR };
    bytes.extend([33, 0x20, exchange, flags]);
    bytes.extend(u32::from(exchange == exchange::IKE_AUTH).to_be_bytes());
    let total = u32::try_from(28 + length).expect("a message below 4 GiB");
    bytes.extend(total.to_be_bytes());
    bytes.extend(std::iter::repeat_n(0x5A, length));
    bytes
}

/// The Non-ESP Marker and a message behind it: IKE on port 4500.
pub fn marked(message: &[u8]) -> Vec<u8> {
    [&[0; 4], message].concat()
}

/// A payload with which the UDP checksum of `packet`, seen through `translate`, is computed as
/// zero and therefore sent as all ones.
pub fn with_zero_sum(packet: &Packet, translate: impl Fn(&Packet) -> Packet) -> Packet {
    let mut packet = packet.clone();
    for word in 0..=u16::MAX {
        if let Body::Udp { payload, .. } = &mut packet.body {
            payload.truncate(8);
            payload.extend(word.to_be_bytes());
        }
        let frame = translate(&packet).build();
        if frame[40..42] == [0xFF, 0xFF] {
            return packet;
        }
    }
    unreachable!("each value of the last word gives another checksum")
}
