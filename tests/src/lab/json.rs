//! The output of `ikenat stats --json` and `ikenat status --json`, as a script reads it, and the
//! header of all documents.
//!
//! The types are deliberately defined a second time: renaming a field breaks users' scripts, so it
//! must break a test.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::direction::Direction;

/// The first fields of every document.
#[derive(Clone, Debug, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub schema: u32,
    /// When the document was made, as in RFC 3339.
    pub generated: String,
}

/// The answer of `stats`.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    /// One for each that is attached.
    pub instances: Vec<InstanceStats>,
}

/// One instance.
#[derive(Clone, Debug, Deserialize)]
pub struct InstanceStats {
    /// Its name.
    pub name: String,
    /// What it translates.
    pub services: Vec<Service>,
    /// Identifies the set of tables.
    pub generation: u64,
    /// One for each SPI of a peer in one direction.
    pub spis: Vec<Spi>,
    /// One for each peer.
    pub sessions: Vec<Session>,
    /// Sums that must agree with each other.
    pub totals: Totals,
}

/// One service.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its VIPs.
    pub vips: Vec<IpAddr>,
    /// Its server, by each family.
    pub servers: Vec<IpAddr>,
    /// The server is an address of the gateway.
    pub server_is_local: bool,
    /// The VIPs are for IPsec alone.
    pub dedicated: bool,
    /// Prefixes of `--except-peer`.
    pub except_peers: u16,
    /// Prefixes of `--deny`.
    pub denied: u16,
}

/// How ESP is carried.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// In UDP, port 4500.
    EspInUdp,
    /// As IP protocol 50.
    Esp,
}

/// One SPI of one peer in one direction.
#[derive(Clone, Debug, Deserialize)]
pub struct Spi {
    /// The name of the service.
    pub service: String,
    /// The client.
    pub peer: Ipv4Addr,
    /// Its port, with ESP in UDP.
    pub port: Option<u16>,
    /// How it is carried.
    pub kind: Kind,
    /// As eight hexadecimal digits after `0x`.
    pub spi: String,
    /// Direction.
    pub direction: Direction,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Age of the first packet in seconds.
    pub first_seen_secs: f64,
    /// Age of the latest packet in seconds.
    pub last_seen_secs: f64,
    /// Sequence number of the first packet.
    pub first_sequence: u32,
    /// Sequence number of the latest packet.
    pub last_sequence: u32,
    /// The highest sequence number.
    pub highest_sequence: u32,
    /// Packets whose sequence number was lower than one before.
    pub reordered: u64,
    /// Sequence numbers that never came.
    pub estimated_loss: u64,
    /// Rate.
    pub packets_per_second: f64,
}

impl Spi {
    /// The SPI as a number.
    pub fn number(&self) -> Result<u32> {
        let digits = self.spi.strip_prefix("0x").unwrap_or(&self.spi);
        u32::from_str_radix(digits, 16).with_context(|| format!("failed to read SPI {}", self.spi))
    }
}

/// Whether a peer has proved to have a tunnel.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A proof that a spoofer cannot give has been seen.
    Established,
    /// It has sent a first packet, but nothing is proved.
    HalfOpen,
}

/// Packets in each direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Both {
    /// From the client.
    #[serde(rename = "in")]
    pub inbound: u64,
    /// From the server.
    #[serde(rename = "out")]
    pub outbound: u64,
}

/// One peer.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// The name of the service, once the peer is established.
    pub service: Option<String>,
    /// The client.
    pub peer: Ipv4Addr,
    /// Its state.
    pub state: State,
    /// IKE on port 500.
    pub ike: Both,
    /// IKE on port 4500.
    pub natt_ike: Both,
    /// NAT-keepalives.
    pub keepalive: Both,
    /// Segments on TCP 4500.
    pub tcp: Both,
    /// Number of its SPIs.
    pub spis: u64,
    /// Age of its latest packet in seconds.
    pub last_seen_secs: f64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets and bytes in each direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Amounts {
    /// From clients.
    #[serde(rename = "in")]
    pub inbound: Amount,
    /// From the server.
    #[serde(rename = "out")]
    pub outbound: Amount,
}

/// Conservation: `esp` is the sum of the others.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Totals {
    /// All ESP, in UDP or not.
    pub esp: Amounts,
    /// Of it, the packets and bytes of the SPIs in the table.
    pub tracked: Amounts,
    /// Of it, the packets and bytes of SPIs that have expired.
    pub retired: Amounts,
    /// Of it, the packets and bytes that had no SPI entry.
    pub untracked: Amounts,
}

/// The answer of `status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// One for each that is attached.
    pub instances: Vec<InstanceStatus>,
}

/// One instance.
#[derive(Clone, Debug, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// What it translates.
    pub services: Vec<Service>,
    /// Identifies the set of tables.
    pub generation: u64,
    /// How the daemon waits for running programs.
    pub grace_period: String,
    /// Interfaces that do not exist.
    pub absent: Vec<String>,
    /// The programs.
    pub attached: Vec<Attached>,
    /// Those that a start has left when it died.
    pub left_over: Vec<Attached>,
    /// What the devices take from XDP.
    pub redirect: Vec<Redirect>,
    /// The tables.
    pub tables: Vec<Table>,
    /// The peers of the gateway itself.
    pub host_peers: Vec<HostPeer>,
    /// The outcomes of packets, by reason.
    pub reasons: Vec<Reason>,
}

/// One program on one interface.
#[derive(Clone, Debug, Deserialize)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// `xdp` or `tcx`.
    pub hook: String,
    /// `native`, `generic`, or the side that a tc program is on.
    pub mode: String,
    /// Its index; 0 when it is gone.
    pub ifindex: u32,
    /// The id of the program.
    pub program: u32,
    /// False when the interface is gone, or the filter was removed.
    pub alive: bool,
}

/// Whether a device accepts frames from XDP.
#[derive(Clone, Debug, Deserialize)]
pub struct Redirect {
    /// The interface.
    pub interface: String,
    /// Whether it does.
    pub ready: bool,
    /// Packets lost after the redirect, where they are counted.
    pub lost: Option<u64>,
}

/// A peer of the gateway itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct HostPeer {
    /// The name of the service to whose VIP it sends.
    pub service: String,
    /// Its address.
    pub peer: Ipv4Addr,
    /// Its port.
    pub port: Option<u16>,
    /// The port of the VIP.
    pub vip_port: Option<u16>,
    /// Seconds since the last packet to it.
    pub last_sent_secs: u64,
}

/// One table.
#[derive(Clone, Debug, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries it can hold.
    pub limit: u64,
    /// Its memory.
    pub bytes: u64,
    /// A sentence for the administrator.
    pub when_full: String,
}

/// One reason and how often it was given.
#[derive(Clone, Debug, Deserialize)]
pub struct Reason {
    /// `xdp` or `tc`.
    pub hook: String,
    /// `forwarded`, `slow`, `punted` or `dropped`.
    pub outcome: String,
    /// Its name.
    pub reason: String,
    /// How often.
    pub count: u64,
}

impl InstanceStatus {
    /// Whether a service of it has this VIP.
    pub fn serves(&self, vip: Ipv4Addr) -> bool {
        let mut vips = self.services.iter().flat_map(|service| &service.vips);
        vips.any(|found| *found == vip)
    }
}

impl InstanceStats {
    /// The entry of an SPI, if there is exactly one.
    pub fn spi(&self, peer: Ipv4Addr, spi: u32, direction: Direction) -> Option<&Spi> {
        let mut found = self.spis.iter().filter(|entry| {
            entry.peer == peer
                && entry.direction == direction
                && entry.number().is_ok_and(|n| n == spi)
        });
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// The session of a peer.
    pub fn session(&self, peer: Ipv4Addr) -> Option<&Session> {
        self.sessions.iter().find(|session| session.peer == peer)
    }

    /// Fails unless the totals are the sum of their parts.
    pub fn check_conservation(&self) -> Result<()> {
        let parts = |amounts: &Amounts, direction: Direction| match direction {
            Direction::Inbound => amounts.inbound,
            Direction::Outbound => amounts.outbound,
        };
        for direction in [Direction::Inbound, Direction::Outbound] {
            let all = parts(&self.totals.esp, direction);
            let tracked = parts(&self.totals.tracked, direction);
            let retired = parts(&self.totals.retired, direction);
            let untracked = parts(&self.totals.untracked, direction);
            let listed: Vec<&Spi> = self
                .spis
                .iter()
                .filter(|spi| spi.direction == direction)
                .collect();
            let listed = Amount {
                packets: listed.iter().map(|spi| spi.packets).sum(),
                bytes: listed.iter().map(|spi| spi.bytes).sum(),
            };
            let sum = Amount {
                packets: tracked.packets + retired.packets + untracked.packets,
                bytes: tracked.bytes + retired.bytes + untracked.bytes,
            };
            anyhow::ensure!(
                listed == tracked && sum == all,
                "the {direction:?} counters do not add up: SPIs {listed:?}, totals {:?}",
                self.totals
            );
        }
        Ok(())
    }
}
