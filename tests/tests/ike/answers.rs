//! What the server sends: its kind, and between which packets of the client it has left the server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Captured, protocol};
use ikenat_tests::lab::topology::SERVER;

use super::uplinks::SILENCE;

/// SPI and sequence number of an ESP packet, or the marker of IKE and half of its first SPI.
pub(super) type Name = [u8; 8];

/// What a UDP datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Ike,
    Esp,
    /// One byte that keeps a NAT entry alive.
    Keepalive,
}

impl Payload {
    /// That of a datagram of port 500 or 4500, from its UDP header on.
    pub(super) fn of(body: &[u8]) -> Self {
        match body.get(8..12) {
            None => Self::Keepalive,
            Some(_) if body[..2] == 500_u16.to_be_bytes() => Self::Ike,
            // The marker of IKE stands where ESP has its SPI.
            Some(marker) if marker == [0; 4] => Self::Ike,
            Some(_) => Self::Esp,
        }
    }
}

pub(super) fn name(body: &[u8]) -> Name {
    let mut name = Name::default();
    let own = body.get(8..).unwrap_or_default();
    let length = own.len().min(name.len());
    name[..length].copy_from_slice(&own[..length]);
    name
}

/// Between how many pairs of successive packets of a client, as they came to the
/// server, these answers have left it.
pub(super) fn gaps(at_server: &PacketSocket, client: Ipv4Addr, answers: &[Name]) -> Result<usize> {
    let (mut requests, mut found) = (0, BTreeMap::new());
    while let Some(frame) = at_server.receive_either(SILENCE)? {
        let Ok(ip) = Captured::read(&frame) else {
            continue;
        };
        if ip.protocol != protocol::UDP {
            continue;
        }
        if (ip.source, ip.destination) == (client, SERVER) {
            requests += 1;
        } else if (ip.source, ip.destination) == (SERVER, client)
            && answers.contains(&name(&ip.body))
        {
            found.insert(name(&ip.body), requests);
        }
    }
    ensure!(
        requests > 0 && found.len() == answers.len(),
        "{requests} requests, and {} of {} answers were seen at the server",
        found.len(),
        answers.len()
    );
    Ok(found.into_values().collect::<BTreeSet<usize>>().len())
}
