//! ICMP errors at both ends of the lab: those that the gateway must send itself, and the
//! translation of those that others send, as RFC 792, RFC 1191 and RFC 5508 require. The checks
//! look at the wire and the counters only.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::capture::PacketSocket;
use super::direction::Direction;
use super::frames::icmp::{kind, quote};
use super::frames::{Captured, ETHERNET, Icmp, MORE_FRAGMENTS, Mac, Packet, describe, not_ipv4};
use super::json::InstanceStatus;
use super::topology::{CLIENT, CLIENT_MAC, LAN_MAC, Lab, SERVER, SERVER_MAC, VIP, WAN_MAC};
use super::wire::Wire;

/// Time for an answer, with a neighbour to be resolved first.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time to wait for a frame that must not arrive.
const SILENCE: Duration = Duration::from_millis(20);
/// The longest quote in a router's error: with its IPv4 and ICMP headers the error has at most 576
/// bytes (RFC 1812 section 4.3.2.3).
const LONGEST_QUOTE: usize = 576 - 20 - 8;
/// No router uses an initial TTL too small to reach every host.
const LEAST_TTL: u8 = 60;

/// Addresses in 198.18.0.0/16 that are routed to the client. For the gateway each is a separate
/// peer, so the rate limit per peer does not affect a test with many errors.
#[derive(Debug)]
pub struct Peers(u16);

impl Peers {
    /// Routes them.
    pub fn route(lab: &Lab) -> Result<Self> {
        lab.gateway
            .run(&format!("ip route add 198.18.0.0/16 via {CLIENT}"))?;
        Ok(Self(0))
    }

    /// An address that no test in this lab has used before.
    pub fn fresh(&mut self) -> Ipv4Addr {
        self.0 = self.0.checked_add(1).expect("fewer than 65,536 peers");
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(198, 18, high, low)
    }
}

impl Wire {
    /// Sockets of the sender and of the receiver.
    pub fn ends(&self, direction: Direction) -> (&PacketSocket, &PacketSocket) {
        match direction {
            Direction::Inbound => (&self.client, &self.server),
            Direction::Outbound => (&self.server, &self.client),
        }
    }

    /// Sends a packet that the gateway cannot forward: its sender must receive this error, which
    /// quotes the packet as it was sent, and no other frame may appear.
    pub fn answered(&self, direction: Direction, packet: &Packet, error: &Icmp) -> Result<()> {
        self.answered_frame(direction, packet.source, &packet.build(), error)
    }

    /// The same for a frame that the caller has built.
    pub fn answered_frame(
        &self,
        direction: Direction,
        source: Ipv4Addr,
        frame: &[u8],
        error: &Icmp,
    ) -> Result<()> {
        let (from, to) = self.ends(direction);
        from.drain()?;
        to.drain()?;
        from.send(frame)?;
        let explain = || format!("sent {}", describe(frame));
        let came = from
            .find(PATIENCE, |frame| !not_ipv4(frame))?
            .context("no answer came")
            .with_context(explain)?;
        let mut wanted = error.clone();
        wanted.data = Captured::read(frame).with_context(explain)?.packet;
        check_answer(direction, source, &came, &wanted)
            .with_context(|| format!("answered {}", describe(&came)))
            .with_context(explain)?;
        to.expect_silence(SILENCE, not_ipv4).with_context(explain)
    }

    /// Frames that must neither be answered nor reach the other side.
    pub fn swallowed(&self, direction: Direction, frames: &[Vec<u8>]) -> Result<()> {
        let (from, to) = self.ends(direction);
        from.drain()?;
        to.drain()?;
        for frame in frames {
            from.send(frame)?;
        }
        let explain = || {
            format!(
                "sent {}",
                frames
                    .first()
                    .map_or_else(String::new, |frame| describe(frame))
            )
        };
        to.expect_silence(SILENCE, not_ipv4).with_context(explain)?;
        from.expect_silence(SILENCE, not_ipv4).with_context(explain)
    }
}

/// All fields of an answer except its ID and its initial TTL.
fn check_answer(direction: Direction, to: Ipv4Addr, frame: &[u8], wanted: &Icmp) -> Result<()> {
    let macs: [Mac; 2] = match direction {
        Direction::Inbound => [CLIENT_MAC, WAN_MAC],
        Direction::Outbound => [SERVER_MAC, LAN_MAC],
    };
    ensure!(
        frame[..12] == macs.concat(),
        "the hardware addresses are others"
    );
    let ip = Captured::read(frame)?;
    ensure!(ip.header_checksum, "the header checksum is wrong");
    ensure!(
        ip.source == direction.answers_from() && ip.destination == to,
        "{} was to answer {to}",
        direction.answers_from()
    );
    ensure!(
        ip.ttl >= LEAST_TTL && ip.flags & MORE_FRAGMENTS == 0 && ip.fragment().is_none(),
        "TTL {} and flags {:04x}",
        ip.ttl,
        ip.flags
    );
    let came = ip.icmp().context("it is no ICMP message")?;
    let mut wanted = wanted.clone();
    wanted.data.truncate(LONGEST_QUOTE);
    ensure!(
        frame.len() == ETHERNET + ip.packet.len() && ip.packet.len() <= 576,
        "{} bytes in a frame of {}",
        ip.packet.len(),
        frame.len()
    );
    ensure!(came == wanted, "wanted {wanted:02x?}\n  came   {came:02x?}");
    Ok(())
}

/// Time exceeded in transit, still without a quote.
pub fn time_exceeded() -> Icmp {
    Icmp::new(kind::TIME_EXCEEDED, 0, [])
}

/// Fragmentation needed, still without a quote.
pub fn fragmentation_needed(mtu: u16) -> Icmp {
    Icmp::fragmentation_needed(mtu, [])
}

/// An error about a packet, addressed to the packet's sender, as a router near the receiver
/// generates it: `seen` is the packet as that router received it, and `length` bytes after its IPv4
/// header are quoted.
pub fn about(seen: &Packet, error: &Icmp, length: usize) -> Icmp {
    Icmp {
        data: quote(seen, length),
        ..error.clone()
    }
}

/// Frame of an error that a host on the client's side sends to the VIP.
pub fn error_from_outside(source: Ipv4Addr, error: &Icmp) -> Packet {
    Packet::icmp(source, VIP, error).with_macs(WAN_MAC, CLIENT_MAC)
}

/// Frame of an error that the server, or a router behind the gateway, sends to a client.
pub fn error_from_inside(source: Ipv4Addr, client: Ipv4Addr, error: &Icmp) -> Packet {
    Packet::icmp(source, client, error).with_macs(LAN_MAC, SERVER_MAC)
}

/// What must reach the server after [`error_from_outside`]: `error` quotes the packet as the server
/// sent it.
pub fn error_at_server(sent: &Packet, error: &Icmp) -> Packet {
    let mut packet = sent.clone().with_macs(SERVER_MAC, LAN_MAC);
    packet.destination = SERVER;
    packet.ttl -= 1;
    packet.with_icmp(error)
}

/// What must reach the client after [`error_from_inside`]: its source is the VIP, regardless of the
/// sender inside, and `error` quotes the packet as the client sent it.
pub fn error_at_client(sent: &Packet, error: &Icmp) -> Packet {
    let mut packet = sent.clone().with_macs(CLIENT_MAC, WAN_MAC);
    packet.source = VIP;
    packet.ttl -= 1;
    packet.with_icmp(error)
}

impl InstanceStatus {
    /// The sum over all hooks of the counts of a reason with this outcome.
    pub fn count(&self, outcome: &str, reason: &str) -> u64 {
        self.reasons
            .iter()
            .filter(|entry| entry.outcome == outcome && entry.reason == reason)
            .map(|entry| entry.count)
            .sum()
    }

    /// The count of a reason with this outcome at one hook.
    pub fn count_at(&self, hook: &str, outcome: &str, reason: &str) -> u64 {
        let mut found = self.reasons.iter().filter(|entry| entry.hook == hook);
        found
            .find(|entry| entry.outcome == outcome && entry.reason == reason)
            .map_or(0, |entry| entry.count)
    }

    /// Every reason that was given, for an error.
    pub fn given(&self) -> String {
        let given = self.reasons.iter().filter(|entry| entry.count > 0);
        let words = given.map(|entry| {
            format!(
                "{} {} {} {}",
                entry.hook, entry.outcome, entry.reason, entry.count
            )
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// Runs an action and fails unless a reason was counted this often meanwhile.
pub fn counted(
    lab: &Lab,
    (outcome, reason): (&str, &str),
    times: u64,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = lab.status()?.count(outcome, reason);
    work()?;
    let status = lab.status()?;
    let count = status.count(outcome, reason) - before;
    ensure!(
        count == times,
        "{outcome} {reason} was counted {count} times instead of {times}: {}",
        status.given()
    );
    Ok(())
}
