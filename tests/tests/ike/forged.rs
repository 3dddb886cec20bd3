//! Whoever forges a peer's address makes a real server send any reply, and sees none: no such reply
//! makes the peer established.

use std::io::ErrorKind;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::State;
use ikenat_tests::lab::sender::socket_in;
use ikenat_tests::lab::strongswan::{Settings, Tunnel};
use ikenat_tests::lab::topology::{CLIENT, VIP};
use ikenat_tests::lab::udp_pair::receive;
use ikenat_tests::suite::Scenario;

use crate::session;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "no_reply_that_a_spoofer_can_cause_makes_a_peer_established",
        echoes,
    )]
}

/// The SPIs that the forged messages have, initiator's and responder's.
const SPIS: [u8; 16] = *b"AAAAAAAABBBBBBBB";
/// Main mode, aggressive mode, informational (IKEv1), quick mode, and the exchanges of IKEv2.
const EXCHANGES: [u8; 9] = [2, 4, 5, 32, 34, 35, 36, 37, 43];

/// A message that is nothing but a header (RFC 7296 section 3.1).
fn header(version: u8, exchange: u8) -> Vec<u8> {
    let mut bytes = SPIS.to_vec();
    bytes.extend([0, version << 4, exchange, 0x08]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 28]);
    bytes
}

/// Sends all forged messages twice: the second one would complete the proof that the reply to the
/// first one began. Returns how many replies had both SPIs.
fn forge(socket: &UdpSocket, port: u16) -> Result<usize> {
    let marker: &[u8] = if port == 4500 { &[0; 4] } else { &[] };
    let mut echoed = 0;
    let mut buffer = [0; 2048];
    for version in 0..16 {
        for exchange in EXCHANGES {
            for _ in 0..2 {
                let message = [marker, &header(version, exchange)].concat();
                socket.send_to(&message, SocketAddrV4::new(VIP, port))?;
                match receive(socket, &mut buffer) {
                    Ok((length, _)) => {
                        let reply = buffer[..length].strip_prefix(marker);
                        echoed += usize::from(reply.is_some_and(|reply| reply.starts_with(&SPIS)));
                    }
                    // Most are not answered.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("failed to receive a reply"),
                }
            }
        }
    }
    Ok(echoed)
}

fn echoes(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    for (port, from) in [(500, 40_500), (4500, 44_500)] {
        let socket = socket_in(&lab.client, SocketAddrV4::new(CLIENT, from))?;
        socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        let echoed = forge(&socket, port)?;
        println!("port {port}: the server echoed both SPIs {echoed} times");
        ensure!(echoed > 0, "the server answers none of them on port {port}");
        let stats = lab.stats()?;
        ensure!(
            stats
                .session(CLIENT)
                .is_none_or(|session| session.state != State::Established),
            "forged: {:?}",
            stats.sessions
        );
    }
    tunnel.initiate()?;
    let session = session(&lab.stats()?)?;
    ensure!(
        session.state == State::Established,
        "the tunnel is up: {session:?}"
    );
    Ok(())
}
