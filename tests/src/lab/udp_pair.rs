//! Two UDP sockets that talk through the gateway as programs do, with a check of their packets on
//! the wire.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::capture::PacketSocket;
use super::frames::{Captured, Verdict, describe};
use super::netns::Namespace;
use super::sender::socket_in;
use super::topology::{CLIENT, Lab, PEER, SERVER, VIP};

/// Time for a datagram to cross the lab, with neighbours to be resolved first.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the server is.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its interface, where packets to it can be seen; none on loopback.
    pub interface: Option<&'a str>,
}

impl<'a> Server<'a> {
    /// The usual one.
    pub fn usual(lab: &'a Lab) -> Self {
        Self {
            namespace: &lab.server,
            address: SERVER,
            interface: Some(PEER),
        }
    }
}

/// The client and a server, both on one port.
#[derive(Debug)]
pub struct UdpPair {
    client: UdpSocket,
    server: UdpSocket,
    client_wire: PacketSocket,
    server_wire: Option<PacketSocket>,
    port: u16,
}

impl UdpPair {
    /// Opens the sockets.
    pub fn open(lab: &Lab, server: Server<'_>, port: u16) -> Result<Self> {
        let talk = Self {
            client: socket_in(&lab.client, SocketAddrV4::new(CLIENT, port))?,
            server: socket_in(server.namespace, SocketAddrV4::new(server.address, port))?,
            client_wire: PacketSocket::open(&lab.client, PEER)?,
            server_wire: server
                .interface
                .map(|name| PacketSocket::open(server.namespace, name))
                .transpose()?,
            port,
        };
        for socket in [&talk.client, &talk.server] {
            socket
                .set_read_timeout(Some(PATIENCE))
                .context("failed to set a timeout")?;
        }
        Ok(talk)
    }

    /// A datagram in each direction, the client's first.
    pub fn exchange(&self, payload: &[u8]) -> Result<()> {
        self.inbound(payload)?;
        self.outbound(payload)
    }

    /// A datagram from the client to the VIP reaches the server, which sees the client's address.
    pub fn inbound(&self, payload: &[u8]) -> Result<()> {
        self.client
            .send_to(payload, (VIP, self.port))
            .context("failed to send to the VIP")?;
        let seen = SocketAddrV4::new(CLIENT, self.port);
        arrives(&self.server, seen, payload).context("client to server")?;
        if let Some(wire) = &self.server_wire {
            on_the_wire(wire, payload).context("at the server")?;
        }
        Ok(())
    }

    /// The server gets this datagram, which another host has sent with the client's address.
    pub fn server_gets(&self, payload: &[u8]) -> Result<()> {
        arrives(&self.server, SocketAddrV4::new(CLIENT, self.port), payload)
    }

    /// A datagram from the server reaches the client, which sees the VIP.
    pub fn outbound(&self, payload: &[u8]) -> Result<()> {
        self.server
            .send_to(payload, (CLIENT, self.port))
            .context("failed to send to the client")?;
        let seen = SocketAddrV4::new(VIP, self.port);
        arrives(&self.client, seen, payload).context("server to client")?;
        on_the_wire(&self.client_wire, payload).context("at the client")
    }
}

/// Receives a datagram. A receive with a timeout may be interrupted, also without a handler of a signal,
/// and is not restarted (signal(7)).
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn arrives(at: &UdpSocket, from: SocketAddrV4, payload: &[u8]) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let (size, came_from) = receive(at, &mut buffer)
        .with_context(|| format!("{} bytes did not arrive", payload.len()))?;
    ensure!(
        came_from == from.into() && buffer[..size] == *payload,
        "{size} bytes came from {came_from} instead of {} from {from}",
        payload.len()
    );
    Ok(())
}

/// Checks the last frame with the payload, if it fits into one frame: its checksums are correct, or
/// the UDP checksum is left to the device with the correct start value.
fn on_the_wire(at: &PacketSocket, payload: &[u8]) -> Result<()> {
    /// What the smallest link of any lab carries with an IPv4 and a UDP header.
    const ONE_FRAME: usize = 1280 - 28;
    if payload.len() > ONE_FRAME {
        // The socket has reassembled it and verified its checksum.
        return at.drain();
    }
    let sent =
        |frame: &[u8]| Captured::read(frame).is_ok_and(|ip| ip.udp_payload() == Some(payload));
    let frame = at
        .find(PATIENCE, sent)?
        .context("the socket got it but no capture did")?;
    let ip = Captured::read(&frame)?;
    ensure!(
        ip.header_checksum,
        "the header checksum is wrong: {}",
        describe(&frame)
    );
    match ip.udp_checksum() {
        Some(Verdict::Right | Verdict::Partial) => Ok(()),
        other => bail!("the UDP checksum is {other:?}: {}", describe(&frame)),
    }
}
